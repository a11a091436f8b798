//! A node's pid 1: lays the node's own files over the machine's, starts the node's services and keeps them running.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};
use rustix::process::{WaitOptions, wait};

use super::cgroups::{self, Hierarchy};
use super::config::CONTAINERD_SOCKET;
use super::layout::{self, Node, Shared};
use super::node::OWN_GROUP;
use super::{kubernetes, mount_points};

/// Between two looks for what somebody else does.
const PERIOD: Duration = Duration::from_millis(50);
/// A service that ends is started again after this.
const RESTART: Duration = Duration::from_secs(1);

/// The services, in the order of their start.
const SERVICES: [&str; 3] = ["containerd", "kubelet", "kube-proxy"];

/// Runs the node until it is killed.
pub fn run(node: &Node) -> Result<()> {
    let shared = Shared::read();
    ensure!(shared.pids || rustix::process::getpid().is_init(), "node-init is for a node's pid 1");
    rustix::system::sethostname(node.name.as_bytes())?;
    let hierarchies = cgroups::hierarchies()?;
    mount_system(&hierarchies).context("cannot mount the node's /sys")?;
    mount_own(node)?;
    set_sysctls();
    // The node's services beside its pods: in version 2, a group that has groups takes no processes.
    let top = if shared.cgroups { format!("{}/", node.cgroup()) } else { String::new() };
    cgroups::join(&hierarchies, &format!("{top}{OWN_GROUP}"))?;

    let mut services = HashMap::new();
    services.insert(start(node, "containerd")?, "containerd");
    while UnixStream::connect(CONTAINERD_SOCKET).is_err() {
        sleep(PERIOD);
    }
    import_images(node)?;
    while !layout::go().exists() {
        sleep(PERIOD);
    }
    for name in &SERVICES[1..] {
        services.insert(start(node, name)?, name);
    }
    loop {
        // Whatever loses its parent becomes this process's child: containers' shims, for one.
        let Ok(Some((pid, status))) = wait(WaitOptions::empty()) else {
            sleep(PERIOD);
            continue;
        };
        if let Some(name) = services.remove(&pid.as_raw_nonzero().get()) {
            println!("{name} has ended: {status:?}");
            sleep(RESTART);
            services.insert(start(node, name)?, name);
        }
    }
}

/// A `/sys` that shows this node's network and control groups, and a BPF file system that ends with the node.
fn mount_system(hierarchies: &[Hierarchy]) -> Result<()> {
    const CGROUPS: &str = "/sys/fs/cgroup";
    // Within this node alone: what containers mount reaches other containers and never the machine.
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)?;
    let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let none: Option<&std::ffi::CStr> = None;
    mount("sysfs", "/sys", "sysfs", plain, none)?;
    if hierarchies.iter().any(|hierarchy| hierarchy.path != Path::new(CGROUPS)) {
        mount("tmpfs", CGROUPS, "tmpfs", plain, c"mode=755")?;
    }
    for hierarchy in hierarchies {
        fs::create_dir_all(&hierarchy.path)?;
        let data = CString::new(hierarchy.data.as_str())?;
        mount(&hierarchy.kind, &hierarchy.path, &hierarchy.kind, plain, data.as_c_str())
            .with_context(|| format!("cannot mount {}", hierarchy.path.display()))?;
    }
    mount("bpf", "/sys/fs/bpf", "bpf", MountFlags::empty(), none)?;
    // Of use where the kernel has them.
    for (kind, place) in [
        ("securityfs", "/sys/kernel/security"),
        ("debugfs", "/sys/kernel/debug"),
        ("tracefs", "/sys/kernel/tracing"),
    ] {
        mount(kind, place, kind, plain, none).ok();
    }
    Ok(())
}

/// The node's own `/run`, and its own folders at their usual places.
fn mount_own(node: &Node) -> Result<()> {
    // Copies of other network namespaces' handles, which would keep those alive.
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        unmount(entry.path(), UnmountFlags::DETACH).ok();
    }
    mount("tmpfs", "/run", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=755")?;
    for dir in ["/run/netns", "/run/lock"] {
        fs::create_dir(dir)?;
    }
    for (folder, place) in mount_points::of(node) {
        mount_bind(&folder, place).with_context(|| format!("cannot mount {place}"))?;
    }
    Ok(())
}

/// As a machine for Kubernetes has them. They are the node's network namespace's.
fn set_sysctls() {
    for (name, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/bridge/bridge-nf-call-iptables", "1"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
    ] {
        if let Err(error) = fs::write(Path::new("/proc/sys").join(name), value) {
            println!("{name}: {error}");
        }
    }
}

/// Imports what every node starts with, once: images outlive a reboot.
fn import_images(node: &Node) -> Result<()> {
    let done = node.dir().join("images-imported");
    if done.exists() {
        return Ok(());
    }
    for archive in fs::read_dir(layout::state("images"))? {
        let archive = archive?.path();
        let status = Command::new("ctr").args(["-n", "k8s.io", "images", "import"]).arg(&archive).status()?;
        ensure!(status.success(), "{} cannot be imported: {status}", archive.display());
    }
    Ok(fs::write(done, "")?)
}

fn start(node: &Node, name: &str) -> Result<i32> {
    let file = |name: &str| node.dir().join(name);
    let mut command = match name {
        "containerd" => {
            let mut command = Command::new(name);
            command.arg("--config").arg(file("containerd.toml"));
            command
        }
        "kubelet" => {
            let mut command = Command::new(kubernetes::bin(name)?);
            command.arg("--config").arg(file("kubelet.yaml"));
            command.args(["--kubeconfig", &layout::kubeconfig(node.name)]);
            command.args(["--hostname-override", node.name, "--node-ip", node.address]);
            command.args(["--root-dir", "/var/lib/kubelet", "--v=2"]);
            command
        }
        _ => {
            let mut command = Command::new(kubernetes::bin(name)?);
            command.arg("--config").arg(file("kube-proxy.yaml")).arg("--v=2");
            command
        }
    };
    let log = layout::log(&format!("{}-{name}", node.name));
    let log = fs::OpenOptions::new().create(true).append(true).open(log)?;
    let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
    let child = child.with_context(|| format!("cannot run {name}"))?;
    println!("{name} starts as {}", child.id());
    Ok(i32::try_from(child.id())?)
}
