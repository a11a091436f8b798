//! Whether the cluster stands, and how it is used.

use anyhow::{Result, bail};

use super::layout::{self, NODES};
use super::{control, kubernetes, processes, up};

/// Says what runs and how the nodes are. An error if not all is well.
pub fn run() -> Result<()> {
    let names = control::PROGRAMS.into_iter().chain(NODES.iter().map(|node| node.name));
    let mut away = Vec::new();
    for name in names {
        if let Some(process) = processes::running(name) {
            println!("{name:<24} process {}", process.id);
        } else {
            println!("{name:<24} does not run");
            away.push(name);
        }
    }
    if away.len() == control::PROGRAMS.len() + NODES.len() {
        bail!("no cluster stands here: `cargo xtask cluster up`");
    }
    if control::is_ready().is_ok() {
        print!("\n{}", up::kubectl(&["get", "nodes", "--output=wide"])?);
        print!("\n{}\n", up::kubectl(&["get", "pods", "--all-namespaces", "--output=wide"])?);
        print_use()?;
    } else {
        away.push("the API server's readiness");
    }
    if !away.is_empty() {
        bail!("away: {}", away.join(", "));
    }
    Ok(())
}

/// Whether every part of it runs and the API server answers.
pub fn is_whole() -> bool {
    let nodes = NODES.iter().map(|node| node.name);
    control::PROGRAMS.into_iter().chain(nodes).all(|name| processes::running(name).is_some())
        && layout::go().exists()
        && control::is_ready().is_ok()
}

/// What to type to use it; the only words on standard output when it comes up, so `eval` takes them.
pub fn print_use() -> Result<()> {
    let (config, bin) = (layout::kubeconfig("admin"), kubernetes::bin_dir()?);
    println!("export KUBECONFIG={config} PATH={}:$PATH", bin.display());
    Ok(())
}
