//! `ip`, as a world needs it: namespaces, a bridge, pairs of interfaces.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process;

/// Where `ip netns` keeps namespaces.
pub const NETNS_DIR: &str = "/run/netns";

/// Runs `ip ARGS`.
pub fn ip(args: &[&str]) -> Result<String> {
    process::Output::of(Command::new("ip").args(args))?
        .good()
        .with_context(|| format!("ip {}", args.join(" ")))
}

/// Runs lines of `ip`, inside `netns` if one is given.
pub fn ip_batch(netns: Option<&str>, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(netns) = netns {
        command.args(["-n", netns]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run ip (package iproute2)")?;
    child.stdin.take().context("no stdin")?.write_all(lines.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("ip: {}\n{lines}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Names of network namespaces that begin so.
pub fn namespaces(prefix: &str) -> Vec<String> {
    names_in(NETNS_DIR, prefix)
}

/// Names of network interfaces here that begin so.
pub fn links(prefix: &str) -> Vec<String> {
    names_in("/sys/class/net", prefix)
}

fn names_in(dir: &str, prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(prefix)).collect()
}

/// Ends every process inside these namespaces: what a pod's program started belongs to the world as well.
pub fn end_processes_in(netns: &[String]) {
    let inodes: Vec<u64> = netns
        .iter()
        .filter_map(|name| Some(fs::metadata(Path::new(NETNS_DIR).join(name)).ok()?.ino()))
        .collect();
    if inodes.is_empty() {
        return;
    }
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let inside = fs::metadata(entry.path().join("ns/net")).is_ok_and(|meta| inodes.contains(&meta.ino()));
        if inside && id != std::process::id() {
            process::end_now(id);
        }
    }
}

/// Removes namespaces and whatever `ip netns exec` finds for them in `/etc/netns`.
pub fn remove_namespaces(names: &[String]) {
    for name in names {
        ip(&["netns", "delete", name]).ok();
        fs::remove_dir_all(Path::new("/etc/netns").join(name)).ok();
    }
}
