//! A node: one process in namespaces of its own, and all that it starts.
//!
//! `node-boot` joins the node's control groups and becomes `unshare`, whose child, `node-init`, is the node's pid 1. When
//! `unshare` is killed, so is pid 1, and with it everything on the node: a node's power switch. Where nodes share process
//! ids, what is in the node's control groups is ended one by one.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use weft_tests::process::{end_now, pid};
use weft_tests::within;

use super::layout::{self, Node, Shared};
use super::{cgroups, config, kubernetes, mount_points, network, processes};

/// Where Debian has the CNI plugins.
const CNI_PLUGINS: &str = "/usr/lib/cni";
/// The control group, within the node's, of what is in none of its pods.
pub const OWN_GROUP: &str = "node.d";
/// What a node always has to itself, besides its network.
const NAMESPACES: [&str; 3] = ["--mount", "--uts", "--ipc"];

/// Writes the node's files. They outlive its reboots.
pub fn make(node: &Node) -> Result<()> {
    for (folder, _) in mount_points::of(node) {
        fs::create_dir_all(folder)?;
    }
    let dir = node.dir();
    for plugin in fs::read_dir(CNI_PLUGINS).with_context(|| format!("no {CNI_PLUGINS}"))? {
        let plugin = plugin?;
        std::os::unix::fs::symlink(plugin.path(), dir.join("cni-bin").join(plugin.file_name()))?;
    }
    fs::write(dir.join("cni-conf/10-bridge.conflist"), config::cni(node))?;
    fs::write(dir.join("containerd.toml"), config::containerd())?;
    fs::write(dir.join("kubelet.yaml"), config::kubelet(node, Shared::read()))?;
    fs::write(dir.join("kube-proxy.yaml"), config::kube_proxy(node))?;
    // CoreDNS answers for the cluster alone: there is nobody to ask beyond it.
    Ok(fs::write(dir.join("resolv.conf"), "")?)
}

/// Switches the node on.
pub fn start(node: &Node) -> Result<()> {
    ensure!(processes::running(node.name).is_none(), "{} runs already", node.name);
    network::add(node)?;
    let mut command = Command::new(xtask()?);
    command.args(["cluster", "node-boot", node.name]);
    processes::start(node.name, &mut command)
}

/// Switches the node off: its processes end where they stand, its memory and its network are gone, its disk is not.
pub fn stop(node: &Node) -> Result<()> {
    if let Some(process) = processes::running(node.name) {
        end_now(process.id);
    }
    let empty = within("a node's processes end", Duration::from_secs(10), || {
        let left = cgroups::processes(&node.cgroup()).unwrap_or_default();
        for &id in &left {
            end_now(id);
        }
        left.is_empty()
    });
    network::remove(node);
    // What is left here of containers would hold up the next kubelet for three seconds each.
    let removed = within("a node's control groups go", Duration::from_secs(5), || {
        cgroups::remove(&node.cgroup()).unwrap_or(false)
    });
    empty.and(removed).map(drop)
}

/// Becomes the node's process: called by [`start`], in a process of its own.
pub fn boot(node: &Node) -> Result<()> {
    let xtask = xtask()?;
    rustix::process::setsid().context("cannot leave the session")?;
    cgroups::join(&cgroups::hierarchies()?, &node.cgroup())?;
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", node.netns()));
    command.arg("unshare").args(NAMESPACES).args(["--propagation", "private"]);
    let shared = Shared::read();
    if !shared.cgroups {
        command.arg("--cgroup");
    }
    if !shared.pids {
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    }
    command.arg(xtask).args(["cluster", "node-init", node.name]);
    // What the node's programs find in PATH: kubectl is for a person who looks around.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin:{}", kubernetes::bin_dir()?.display()));
    Err(command.exec()).context("cannot run nsenter (package util-linux)")
}

/// A command inside the node as a person logged in there would run it, in place of this program: it belongs to the node,
/// and ends with it.
pub fn login(node: &Node, words: &[String]) -> Result<Command> {
    let command = command(node, words)?;
    cgroups::join(&cgroups::hierarchies()?, &format!("{}/{OWN_GROUP}", node.cgroup()))?;
    Ok(command)
}

/// A command inside the node.
pub fn command(node: &Node, words: &[String]) -> Result<Command> {
    let init = init(node)?;
    let mut command = Command::new("nsenter");
    command.arg("--target").arg(init.to_string());
    command.args(["--net", "--pid", "--cgroup", "--wdns=/"]).args(NAMESPACES).arg("--");
    command.args(words);
    Ok(command)
}

/// The node's first process, as the machine numbers it.
fn init(node: &Node) -> Result<u32> {
    let Some(outer) = processes::running(node.name) else {
        bail!("{} does not run: `cargo xtask cluster node start {}`", node.name, node.name);
    };
    if Shared::read().pids {
        return Ok(outer.id);
    }
    let file = format!("/proc/{0}/task/{0}/children", outer.id);
    let children = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let child = children.split_whitespace().next().and_then(|id| id.parse().ok());
    let child = child.with_context(|| format!("{} has no pid 1", node.name))?;
    pid(child).map(|_| child)
}

/// This program, also when it was built anew since it was started.
fn xtask() -> Result<PathBuf> {
    let path = std::env::current_exe()?.display().to_string();
    Ok(path.trim_end_matches(" (deleted)").into())
}

/// The node called `name`.
pub fn named(name: &str) -> Result<&'static Node> {
    layout::node(name).with_context(|| {
        let names: Vec<&str> = layout::NODES.iter().map(|node| node.name).collect();
        format!("there is no node {name}, only {}", names.join(", "))
    })
}
