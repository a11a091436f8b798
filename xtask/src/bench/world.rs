//! The small world of a measurement: nodes, which are network namespaces with a bridge, and pods on them.
//!
//! Everything carries the name `weft-b<pid>`: what a killed run left is found, and removed, by the next one.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

const PREFIX: &str = "weft-b";
/// How long programs have to leave after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much of a failed program's output is shown.
const LAST_LINES: usize = 15;
/// The interface that leads to the other node, and its addresses.
const LINK: &str = "uplink";
const LINK_ENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 80, 0, 1), Ipv4Addr::new(10, 80, 0, 2)];
/// Held while the world is being taken down: who else would do it waits.
static ENDING: Mutex<()> = Mutex::new(());
/// The signals are for all of this process's worlds, which follow each other and have one name.
static SIGNALS: Once = Once::new();

/// Namespaces, a bridge, a directory; all of it is gone when this is dropped, or on Ctrl-C.
pub struct World {
    name: String,
    dir: PathBuf,
    weft: PathBuf,
    pods: u32,
}

/// A network namespace with a bridge, and the agent's home.
#[derive(Clone, Copy)]
pub struct Node {
    /// Its name, short.
    pub name: &'static str,
    /// Its address on the bridge; the /16 around it is its pods'.
    pub address: Ipv4Addr,
}

/// Where a program runs.
#[derive(Clone, Copy)]
pub struct Pod {
    /// Its name, short.
    pub name: &'static str,
    /// Its address on the bridge.
    pub address: Ipv4Addr,
    /// On whose bridge.
    pub node: Node,
}

/// The node where there is only one.
pub const NODE: Node = Node { name: "node", address: Ipv4Addr::new(10, 77, 0, 1) };

impl World {
    /// Nodes with no pods. `weft` is the program that cleans up after an agent.
    pub fn new(weft: &Path, nodes: &[Node]) -> Result<Self> {
        let name = format!("{PREFIX}{}", std::process::id());
        let dir = std::env::temp_dir().join(&name);
        let world = Self { name, dir, weft: weft.to_owned(), pods: 0 };
        world.take_down_on_signals()?;
        fs::create_dir_all(&world.dir).with_context(|| format!("cannot create {}", world.dir.display()))?;
        for node in nodes {
            let netns = world.netns(node.name);
            ip(&["netns", "add", &netns])?;
            ip(&["-n", &netns, "link", "set", "lo", "up"])?;
            ip(&["-n", &netns, "link", "add", "br0", "type", "bridge"])?;
            ip(&["-n", &netns, "addr", "add", &format!("{}/16", node.address), "dev", "br0"])?;
            ip(&["-n", &netns, "link", "set", "br0", "up"])?;
        }
        Ok(world)
    }

    /// Connects two nodes, each of which routes to the other's pods.
    pub fn link(&self, one: Node, other: Node) -> Result<()> {
        let (near, far) = (self.netns(one.name), self.netns(other.name));
        ip(&["link", "add", LINK, "netns", &near, "type", "veth", "peer", "name", LINK, "netns", &far])?;
        for (node, netns, own, beyond, peer) in
            [(one, &near, LINK_ENDS[0], other, LINK_ENDS[1]), (other, &far, LINK_ENDS[1], one, LINK_ENDS[0])]
        {
            ip(&["-n", netns, "addr", "add", &format!("{own}/30"), "dev", LINK])?;
            ip(&["-n", netns, "link", "set", LINK, "up"])?;
            let [a, b, ..] = beyond.address.octets();
            ip(&["-n", netns, "route", "add", &format!("{a}.{b}.0.0/16"), "via", &peer.to_string()])?;
            self.sysctl(node.name, "net/ipv4/ip_forward")?;
        }
        Ok(())
    }

    /// Switches something on in a namespace.
    fn sysctl(&self, place: &str, name: &str) -> Result<()> {
        let echo = format!("echo 1 >/proc/sys/{name}");
        let status = self.command(place, Path::new("sh")).args(["-c", &echo]).status()?;
        ensure!(status.success(), "cannot set {name} in {place}");
        Ok(())
    }

    /// Adds a pod.
    pub fn add(&mut self, pod: Pod) -> Result<()> {
        let (node, netns) = (self.netns(pod.node.name), self.netns(pod.name));
        self.pods += 1;
        let port = format!("veth{}", self.pods);
        ip(&["netns", "add", &netns])?;
        ip(&["link", "add", &port, "netns", &node, "type", "veth", "peer", "name", "eth0", "netns", &netns])?;
        ip(&["-n", &node, "link", "set", &port, "master", "br0", "up"])?;
        ip(&["-n", &netns, "link", "set", "lo", "up"])?;
        ip(&["-n", &netns, "addr", "add", &format!("{}/16", pod.address), "dev", "eth0"])?;
        ip(&["-n", &netns, "link", "set", "eth0", "up"])?;
        ip(&["-n", &netns, "route", "add", "default", "via", &pod.node.address.to_string()])?;
        // Else a client that connects anew all the time runs out of ports, directly as through weft.
        self.sysctl(pod.name, "net/ipv4/tcp_tw_reuse")
    }

    /// A directory of this world.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(dir)
    }

    /// The run directory of a node's agent.
    pub fn run_dir(&self, node: Node) -> PathBuf {
        run_dirs(&self.dir).join(node.name)
    }

    /// The name of a pod's or a node's network namespace.
    pub fn netns(&self, place: &str) -> String {
        format!("{}-{place}", self.name)
    }

    /// A command in a pod's or a node's network namespace. Not `ip netns exec`, which hides mounts that the agent needs.
    pub fn command(&self, place: &str, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns(place))).arg("--").arg(program);
        command.stdin(Stdio::null());
        command
    }

    /// Starts a program that lives as long as the world. Its output goes to `NAME.log`.
    pub fn start(&self, name: &str, command: &mut Command) -> Result<Child> {
        let log = File::create(self.log(name))?;
        // A group of its own: Ctrl-C is for `xtask`, which then ends everything in order.
        command.stdout(log.try_clone()?).stderr(log).process_group(0);
        command.spawn().with_context(|| format!("cannot run {}", command.get_program().display()))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    /// The end of a started program's output.
    pub fn last_words(&self, name: &str) -> String {
        let log = fs::read(self.log(name)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }

    fn take_down_on_signals(&self) -> Result<()> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let (name, dir, weft) = (self.name.clone(), self.dir.clone(), self.weft.clone());
        SIGNALS.call_once(|| {
            thread::spawn(move || {
                if let Some(signal) = signals.forever().next() {
                    eprintln!("\n  … taking everything down");
                    // Never released: nothing is set up any more.
                    let _ending = ENDING.lock();
                    take_down(&name, &dir, &weft);
                    std::process::exit(128 + signal);
                }
            });
        });
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ending = ENDING.lock().unwrap_or_else(PoisonError::into_inner);
        take_down(&self.name, &self.dir, &self.weft);
    }
}

/// Removes what earlier runs left that were killed.
pub fn sweep(weft: &Path) {
    let mut stale: Vec<String> = namespaces(PREFIX)
        .iter()
        .filter_map(|netns| Some(netns.strip_prefix(PREFIX)?.split_once('-')?.0.to_owned()))
        .filter(|pid| pid.parse::<u32>().is_ok() && !is_xtask(pid))
        .collect();
    stale.sort();
    stale.dedup();
    for pid in stale {
        let name = format!("{PREFIX}{pid}");
        eprintln!("  … removing what a killed run left ({name})");
        take_down(&name, &std::env::temp_dir().join(&name), weft);
    }
}

fn is_xtask(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "xtask")
}

fn run_dirs(dir: &Path) -> PathBuf {
    dir.join("run")
}

/// Ends every program of a world, then removes its namespaces and its directory. What fails is left to the next run.
fn take_down(name: &str, dir: &Path, weft: &Path) {
    let netns = namespaces(&format!("{name}-"));
    let pids = || -> Vec<String> { netns.iter().flat_map(|netns| pids_in(netns)).collect() };
    kill("-TERM", &pids());
    let deadline = Instant::now() + PATIENCE;
    while !pids().is_empty() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    kill("-KILL", &pids());
    for run_dir in fs::read_dir(run_dirs(dir)).into_iter().flatten().flatten() {
        // Finds nothing after an agent that could drain.
        let mut cleanup = Command::new(weft);
        cleanup.arg("cleanup").arg("--run-dir").arg(run_dir.path());
        cleanup.stdout(Stdio::null()).stderr(Stdio::null()).status().ok();
    }
    for netns in &netns {
        ip(&["netns", "del", netns]).ok();
    }
    fs::remove_dir_all(dir).ok();
}

fn namespaces(prefix: &str) -> Vec<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(prefix)).collect()
}

fn pids_in(netns: &str) -> Vec<String> {
    let output = Command::new("ip").args(["netns", "pids", netns]).output();
    output.map_or_else(
        |_| Vec::new(),
        |output| String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect(),
    )
}

fn kill(signal: &str, pids: &[String]) {
    if !pids.is_empty() {
        Command::new("kill").arg(signal).args(pids).stderr(Stdio::null()).status().ok();
    }
}

fn ip(args: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(args).output().context("cannot run ip")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", args.join(" "), error.trim());
    Ok(())
}
