//! The test programs, as cargo builds them.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::workspace;

/// A test program.
pub struct Binary {
    /// `PACKAGE` or `PACKAGE/TARGET`.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its package's directory, in which cargo would run it.
    pub directory: PathBuf,
}

impl Binary {
    /// Whether it holds the network-namespace stories.
    pub fn is_stories(&self) -> bool {
        self.name == "weft-tests/stories"
    }

    /// Whether it holds the stories on a cluster.
    pub fn is_cluster(&self) -> bool {
        self.name == "weft-tests/cluster"
    }

    /// Whether it needs nothing but itself.
    pub fn is_unit(&self) -> bool {
        !self.is_stories() && !self.is_cluster()
    }
}

/// Builds those that cargo's `targets` choose, or all of them. All of the workspace's features are on, so that nothing is built twice.
pub fn build_only(targets: &[&str]) -> Result<Vec<Binary>> {
    eprintln!("  … tests");
    let start = Instant::now();
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--workspace", "--no-run", "--message-format", "json-render-diagnostics"]);
    cargo.args(targets);
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    let output = child.stdout.take().context("no output")?;
    let mut binaries = Vec::new();
    for line in BufReader::new(output).lines() {
        let message: Value = serde_json::from_str(&line?)?;
        binaries.extend(binary(&message));
    }
    ensure!(child.wait()?.success(), "the tests do not build");
    binaries.sort_by(|a, b| a.name.cmp(&b.name));
    eprintln!("  ✓ tests [{:.1} s]", start.elapsed().as_secs_f32());
    Ok(binaries)
}

fn binary(message: &Value) -> Option<Binary> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let path = message["executable"].as_str()?.into();
    let directory = PathBuf::from(message["manifest_path"].as_str()?).parent()?.to_path_buf();
    // `path+file:///…/tests#weft-tests@0.1.0`, or `…/rules#0.1.0` where the directory bears the package's name.
    let id = message["package_id"].as_str()?;
    let (source, fragment) = id.rsplit_once('#')?;
    let package =
        fragment.split_once('@').map_or_else(|| source.rsplit('/').next(), |(name, _)| Some(name))?;
    let target = message["target"]["name"].as_str()?;
    let plain = target.replace('_', "-") == package;
    Some(Binary {
        name: if plain { package.to_owned() } else { format!("{package}/{target}") },
        path,
        directory,
    })
}
