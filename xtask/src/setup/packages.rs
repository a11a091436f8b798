//! Debian packages: which are wanted, which are missing, and their installation.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::{progress, workspace};

/// A package and a file that shows that it, or another package with the same, is installed.
pub type Package = (&'static str, Evidence);

/// What shows that a package's content is there.
#[derive(Clone, Copy)]
pub enum Evidence {
    /// A program of this name in `PATH`.
    Program(&'static str),
    /// This file or directory.
    File(&'static str),
    /// Nothing: whoever asks has looked already.
    None,
}

impl Evidence {
    fn is_there(self) -> bool {
        match self {
            Self::Program(name) => workspace::in_path(name).is_some(),
            Self::File(path) => Path::new(path).exists(),
            Self::None => false,
        }
    }
}

/// A compiler with a compiled `core` for eBPF.
pub const FOR_COMPILER: &[Package] =
    &[("rustc-web", Evidence::None), ("libstd-rust-web-dev-bpf", Evidence::None)];

/// What bpf-linker links against.
pub const FOR_LINKER: &[Package] = &[
    ("llvm-22-dev", Evidence::File("/usr/lib/llvm-22/bin/llvm-config")),
    ("libpolly-22-dev", Evidence::File("/usr/lib/llvm-22/lib/libPolly.a")),
    ("libzstd-dev", Evidence::File("/usr/include/zstd.h")),
    ("zlib1g-dev", Evidence::File("/usr/include/zlib.h")),
    ("g++", Evidence::Program("c++")),
];

/// What demo, tests and benchmarks run.
pub const FOR_TESTS: &[Package] = &[
    ("iproute2", Evidence::Program("ip")),
    ("curl", Evidence::Program("curl")),
    ("procps", Evidence::Program("sysctl")),
    ("nginx", Evidence::Program("nginx")),
    ("wrk", Evidence::Program("wrk")),
    ("iperf3", Evidence::Program("iperf3")),
];

/// What a Kubernetes cluster on this machine runs, and what its images are made of.
pub const FOR_CLUSTER: &[Package] = &[
    ("iproute2", Evidence::Program("ip")),
    ("util-linux", Evidence::Program("nsenter")),
    ("kmod", Evidence::Program("modprobe")),
    ("curl", Evidence::Program("curl")),
    ("containerd", Evidence::Program("containerd")),
    ("runc", Evidence::Program("runc")),
    ("containernetworking-plugins", Evidence::File("/usr/lib/cni/bridge")),
    ("iptables", Evidence::Program("iptables")),
    ("conntrack", Evidence::Program("conntrack")),
    ("ethtool", Evidence::Program("ethtool")),
    ("socat", Evidence::Program("socat")),
    ("busybox-static", Evidence::Program("busybox")),
    ("binutils", Evidence::Program("strip")),
    ("gcc", Evidence::Program("gcc")),
    ("libc6-dev", Evidence::File("/usr/include/stdio.h")),
];

/// Installs those of `packages` whose content is missing. `what` says what they are for.
pub fn ensure(what: &str, packages: &[Package]) -> Result<()> {
    let missing: Vec<&str> =
        packages.iter().filter(|(_, evidence)| !evidence.is_there()).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        progress::already(what);
        return Ok(());
    }
    let names = missing.join(" ");
    if workspace::in_path("apt-get").is_none() {
        bail!(
            "missing: {what}. This system has no apt-get; install what your system calls {names} \
             (or, for the eBPF programs: rustup's nightly with rust-src, and bpf-linker in PATH)"
        );
    }
    if !rustix::process::geteuid().is_root() {
        bail!("missing: {what}. As root: apt-get update && apt-get install {names}");
    }
    let logs = workspace::cache_dir()?;
    let update = || {
        let log = logs.join("apt-update.log");
        progress::run_logged("apt-get update", "some seconds", apt_get().arg("update"), &log)
    };
    let install = || {
        let mut command = apt_get();
        command.args(["install", "--yes", "--no-install-recommends"]).args(&missing);
        let step = format!("{what}: {names}");
        progress::run_logged(&step, "up to a minute, once", &mut command, &logs.join("apt-install.log"))
    };
    if missing.iter().all(|name| has_candidate(name)) && install().is_ok() {
        return Ok(());
    }
    // The package lists are missing, or so old that the mirror has moved on.
    update()?;
    let unknown: Vec<&str> = missing.iter().copied().filter(|name| !has_candidate(name)).collect();
    if !unknown.is_empty() {
        bail!(
            "missing: {what}. This system's package lists have no {} (Debian 12 has); for the eBPF programs, \
             rustup's nightly with rust-src and bpf-linker in PATH do as well",
            unknown.join(", ")
        );
    }
    install()
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=300"]);
    command
}

fn has_candidate(package: &str) -> bool {
    Command::new("apt-cache")
        .args(["policy", package])
        .env("LC_ALL", "C")
        .output()
        .is_ok_and(|output| candidate(&String::from_utf8_lossy(&output.stdout)).is_some())
}

/// The version that `apt-cache policy` would install, if any.
fn candidate(policy: &str) -> Option<&str> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate:"))?.trim();
    (version != "(none)").then_some(version)
}

#[cfg(test)]
mod tests {
    use super::candidate;

    #[test]
    fn candidate_is_read_from_policy() {
        assert_eq!(candidate("wrk:\n  Installed: (none)\n  Candidate: 4.1.0-3+b2\n"), Some("4.1.0-3+b2"));
        assert_eq!(candidate("wrk:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(candidate(""), None);
    }
}
