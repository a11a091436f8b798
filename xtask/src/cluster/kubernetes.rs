//! Kubernetes, etcd and CoreDNS, built from their Go modules into weft's cache: once per version.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{digest, progress, workspace};

/// A Go module in `xtask/cluster/` whose dependencies, pinned there, are what is built.
struct Module {
    dir: &'static str,
    /// The dependency whose version names the whole.
    of: &'static str,
    programs: &'static [Program],
}

struct Program {
    name: &'static str,
    package: &'static str,
    estimate: &'static str,
}

const KUBERNETES: Module = Module {
    dir: "kubernetes",
    of: "k8s.io/kubernetes",
    programs: &[
        program("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", "some minutes, once"),
        program("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", "a minute, once"),
        program("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", "half a minute, once"),
        program("kubelet", "k8s.io/kubernetes/cmd/kubelet", "a minute, once"),
        program("kubectl", "k8s.io/kubernetes/cmd/kubectl", "a minute, once"),
        program("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", "half a minute, once"),
        program("etcd", "go.etcd.io/etcd/server/v3", "half a minute, once"),
    ],
};

const COREDNS: Module = Module {
    dir: "coredns",
    of: "github.com/coredns/coredns",
    programs: &[program("coredns", ".", "a minute, once")],
};

const fn program(name: &'static str, package: &'static str, estimate: &'static str) -> Program {
    Program { name, package, estimate }
}

/// Where the programs are, once [`ensure`] has been there.
pub fn bin_dir() -> Result<PathBuf> {
    Ok(workspace::cache_dir()?.join(format!("kubernetes-{}", KUBERNETES.version()?)).join("bin"))
}

/// One of them.
pub fn bin(name: &str) -> Result<PathBuf> {
    Ok(bin_dir()?.join(name))
}

/// CoreDNS's version.
pub fn coredns_version() -> Result<String> {
    COREDNS.version()
}

/// Builds what is not there.
pub fn ensure() -> Result<()> {
    let dir = bin_dir()?;
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    for module in [&KUBERNETES, &COREDNS] {
        let key = module.key()?;
        let missing: Vec<_> =
            module.programs.iter().filter(|program| !is_built(&dir.join(program.name), &key)).collect();
        if missing.is_empty() {
            let name = module.of.rsplit('/').next().unwrap_or(module.of);
            progress::already(&format!("{name} {} ({})", module.version()?, dir.display()));
            continue;
        }
        if workspace::in_path("go").is_none() {
            bail!(
                "{} is built from its Go module, and there is no `go` in PATH. Any Go from 1.21 does, since it fetches the \
                 version that the module names: https://go.dev/doc/install",
                module.of
            );
        }
        for program in missing {
            module.build(program, &dir, &key)?;
        }
    }
    Ok(())
}

/// Beside each program is the key of what it was built from.
fn key_file(program: &Path) -> PathBuf {
    program.with_extension("key")
}

fn is_built(program: &Path, key: &str) -> bool {
    workspace::is_executable(program) && fs::read_to_string(key_file(program)).is_ok_and(|built| built == key)
}

impl Module {
    fn dir(&self) -> PathBuf {
        workspace::root().join("xtask/cluster").join(self.dir)
    }

    /// Without its `v`.
    fn version(&self) -> Result<String> {
        let file = self.dir().join("go.mod");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        version(&text, self.of).with_context(|| format!("{} does not require {}", file.display(), self.of))
    }

    /// The same as long as its files are.
    fn key(&self) -> Result<String> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(self.dir())?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        files.sort();
        let contents = files.iter().map(fs::read).collect::<Result<Vec<_>, _>>()?;
        Ok(digest::sha256(contents.iter().map(Vec::as_slice)))
    }

    fn build(&self, program: &Program, into: &Path, key: &str) -> Result<()> {
        let version = self.version()?;
        let built = into.join(program.name);
        let draft = into.join(format!("{}.draft", program.name));
        let mut command = Command::new("go");
        command.current_dir(self.dir()).env("CGO_ENABLED", "0");
        command.args(["build", "-mod=readonly", "-trimpath", "-ldflags", &link_flags(&version), "-o"]);
        command.arg(&draft).arg(program.package);
        let what = format!("{} of {} {version}, built from its Go module", program.name, self.of);
        let log = into.join(format!("{}.log", program.name));
        progress::run_logged(&what, program.estimate, &mut command, &log)?;
        // Renamed into place: what runs from here is not written over, and half a program is none.
        fs::rename(&draft, &built)?;
        fs::remove_file(log).ok();
        Ok(fs::write(key_file(&built), key)?)
    }
}

/// No symbols, and the version that `kubectl version` and the node's status tell.
fn link_flags(version: &str) -> String {
    const PACKAGE: &str = "k8s.io/component-base/version";
    let mut parts = version.split('.');
    let (major, minor) = (parts.next().unwrap_or("0"), parts.next().unwrap_or("0"));
    format!(
        "-s -w -X {PACKAGE}.gitVersion=v{version} -X {PACKAGE}.gitMajor={major} -X {PACKAGE}.gitMinor={minor} \
         -X {PACKAGE}.buildDate=1970-01-01T00:00:00Z"
    )
}

fn version(go_mod: &str, of: &str) -> Option<String> {
    go_mod.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next() == Some(of))
            .then(|| words.next())?
            .map(|version| version.trim_start_matches('v').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_are_those_of_go_mod() {
        let text = "module a\n\nrequire k8s.io/kubernetes v1.34.2\n\nrequire (\n\tk8s.io/api v0.34.2 // indirect\n)\n";
        assert_eq!(version(text, "k8s.io/kubernetes").as_deref(), Some("1.34.2"));
        assert_eq!(version(text, "k8s.io/api").as_deref(), Some("0.34.2"));
        assert_eq!(version(text, "k8s.io/apiserver"), None);
        assert!(super::link_flags("1.34.2").contains("gitMinor=34 "));
    }
}
