//! A world: a bridge, network namespaces, a directory, and the certainty that all of it goes away again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, Once, PoisonError};

use anyhow::{Context, Result, bail};

use crate::network::{self, ip_batch};
use crate::process;
use crate::wait::lock;

/// Where worlds keep their files.
const WORLDS: &str = "/run/weft-tests";
/// How many worlds may stand at once, named ones apart.
const WORLDS_AT_ONCE: u8 = 100;

/// Worlds of this process, for Ctrl-C.
static STANDING: LazyLock<Mutex<BTreeMap<String, PathBuf>>> = LazyLock::new(Mutex::default);

/// A network with a name.
#[derive(Debug)]
pub struct World {
    label: String,
    index: u8,
    dir: PathBuf,
    next_host: AtomicU16,
    next_service: AtomicU16,
    /// Held as long as the world stands: who gets it may remove what a dead holder left.
    _lock: File,
}

/// The bridge's hardware address. Without one of its own a bridge takes the lowest of its ports', which changes as pods
/// come: what their neighbours then send to the old one is dropped as somebody else's.
const BRIDGE_MAC: &str = "02:77:65:66:74:01";

impl World {
    /// A world for one test.
    pub fn new() -> Result<Self> {
        for index in 0..WORLDS_AT_ONCE {
            if let Some(lock) = lock_label(&format!("t{index}"))? {
                return Self::build(format!("t{index}"), index, lock);
            }
        }
        bail!("{WORLDS_AT_ONCE} worlds stand already")
    }

    /// The world of that name; `index`, from 100, must be its own. There is one at a time.
    pub fn named(label: &str, index: u8) -> Result<Self> {
        let lock =
            lock_label(label)?.with_context(|| format!("another `{label}` is running on this machine"))?;
        Self::build(label.to_owned(), index, lock)
    }

    fn build(label: String, index: u8, held: File) -> Result<Self> {
        remove_on_signal();
        let dir = Path::new(WORLDS).join(&label);
        tear_down(&label, &dir);
        fs::create_dir_all(&dir)?;
        lock(&STANDING).insert(label.clone(), dir.clone());
        let world = Self { label, index, dir, next_host: 10.into(), next_service: 10.into(), _lock: held };
        let bridge = world.bridge();
        ip_batch(
            None,
            &format!(
                "link add {bridge} address {BRIDGE_MAC} type bridge forward_delay 0\n\
                 address add {}/24 dev {bridge}\n\
                 address add {}/64 dev {bridge} nodad\n\
                 link set {bridge} up\n",
                world.gateway(),
                world.gateway6(),
            ),
        )?;
        Ok(world)
    }

    /// Begins the name of everything that the world makes.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// A number that no other world has at the same time.
    pub fn index(&self) -> u8 {
        self.index
    }

    /// For files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where programs are written down.
    pub fn records(&self) -> PathBuf {
        self.dir.join("processes")
    }

    /// The bridge's name.
    pub fn bridge(&self) -> String {
        format!("wf{}-br", self.label)
    }

    /// The machine's address on the bridge.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.index, 1)
    }

    /// The same for IPv6.
    pub fn gateway6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x10, 0x244, self.index.into(), 0, 0, 0, 1)
    }

    /// The next Service's addresses. Nothing on the machine has or routes them.
    pub fn service_addresses(&self) -> Result<(Ipv4Addr, Ipv6Addr)> {
        let host = self.next_service.fetch_add(1, Ordering::Relaxed);
        let v4 = Ipv4Addr::new(10, 96, self.index, host.try_into().context("more than 245 services")?);
        Ok((v4, Ipv6Addr::new(0xfd00, 0x10, 0x96, self.index.into(), 0, 0, 0, host)))
    }

    /// The namespace's name for a pod.
    pub fn netns(&self, pod: &str) -> String {
        format!("weft-{}-{pod}", self.label)
    }

    /// Makes a pod's network: its namespace's name and its addresses.
    pub fn add_pod(&self, pod: &str) -> Result<(String, Ipv4Addr, Ipv6Addr)> {
        let host = self.next_host.fetch_add(1, Ordering::Relaxed);
        let netns = self.netns(pod);
        let v4 = Ipv4Addr::new(10, 244, self.index, host.try_into().context("more than 245 pods")?);
        let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x244, self.index.into(), 0, 0, 0, host);
        let veth = format!("wf{}-{host}", self.label);
        // `ip netns exec` lays these files over those in /etc: names of services, and no name server to wait for.
        let etc = Path::new("/etc/netns").join(&netns);
        fs::create_dir_all(&etc)?;
        fs::write(etc.join("hosts"), "127.0.0.1 localhost\n")?;
        fs::write(etc.join("resolv.conf"), "nameserver 127.0.0.1\noptions attempts:1 timeout:1\n")?;
        ip_batch(
            None,
            &format!(
                "netns add {netns}\n\
                 link add {veth} type veth peer name eth0 netns {netns}\n\
                 link set {veth} master {} up\n",
                self.bridge()
            ),
        )?;
        ip_batch(
            Some(&netns),
            &format!(
                "link set lo up\n\
                 address add {v4}/24 dev eth0\n\
                 address add {v6}/64 dev eth0 nodad\n\
                 link set eth0 up\n\
                 route add default via {}\n\
                 route add default via {}\n",
                self.gateway(),
                self.gateway6(),
            ),
        )?;
        Ok((netns, v4, v6))
    }

    /// The world's links, neighbours and routes as the machine sees them, for a person who looks for a failure.
    pub fn network(&self) -> String {
        let bridge = self.bridge();
        let all = [
            network::ip(&["-br", "link", "show", "master", &bridge]),
            network::ip(&["neigh", "show", "dev", &bridge]),
            network::ip(&["route", "show", "root", &format!("{}/24", self.gateway())]),
        ];
        let all = all.map(|told| told.unwrap_or_else(|error| format!("{error:#}")));
        all.map(|told| told.split_whitespace().collect::<Vec<_>>().join(" ")).join("; ")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        tear_down(&self.label, &self.dir);
        lock(&STANDING).remove(&self.label);
    }
}

/// The lock of a label, if nobody holds it.
fn lock_label(label: &str) -> Result<Option<File>> {
    fs::create_dir_all(WORLDS).with_context(|| format!("cannot create {WORLDS} (run as root)"))?;
    let file = File::create(Path::new(WORLDS).join(format!("{label}.lock")))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error).context("cannot lock a world"),
    }
}

/// Removes what worlds left whose makers are gone.
pub fn sweep_all() {
    for entry in fs::read_dir(WORLDS).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(label) = name.strip_suffix(".lock") else { continue };
        if let Ok(Some(_lock)) = lock_label(label) {
            tear_down(label, &Path::new(WORLDS).join(label));
        }
    }
}

/// Ends and removes everything that bears the label. What is not there is no error.
fn tear_down(label: &str, dir: &Path) {
    process::end_recorded(&dir.join("processes"));
    let namespaces = network::namespaces(&format!("weft-{label}-"));
    network::end_processes_in(&namespaces);
    let left: Vec<PathBuf> =
        children(&dir.join("agents")).filter(|agent| agent.join("run").exists()).collect();
    for agent in left {
        // Links in the kernel outlive an agent that was killed.
        if let Ok(weft) = built_binary("weft") {
            let mut command = Command::new(weft);
            command.arg("cleanup").arg("--run-dir").arg(agent.join("run"));
            if let Some(node) = agent.file_name() {
                command.arg("--bpf-dir").arg(bpf_dir(label, &node.to_string_lossy()));
            }
            process::Output::of(&mut command).ok();
        }
    }
    for pinned in children(Path::new("/sys/fs/bpf")) {
        let name = pinned.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(&format!("weft-{label}-")) {
            fs::remove_dir_all(pinned).ok();
        }
    }
    network::remove_namespaces(&namespaces);
    for link in network::links(&format!("wf{label}-")) {
        network::ip(&["link", "delete", &link]).ok();
    }
    fs::remove_dir_all(dir).ok();
}

/// Where an agent of the world pins its programs.
pub fn bpf_dir(label: &str, node: &str) -> PathBuf {
    Path::new("/sys/fs/bpf").join(format!("weft-{label}-{node}"))
}

fn children(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Set once somebody waits for the signal and takes the worlds down by himself.
static AWAITED: AtomicBool = AtomicBool::new(false);

/// On SIGINT, SIGTERM and SIGHUP the worlds of this process go first, then the process.
fn remove_on_signal() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
        std::thread::spawn(move || {
            for signal in signals.forever() {
                if AWAITED.swap(false, Ordering::Relaxed) {
                    *lock(&INTERRUPTED.0) = true;
                    INTERRUPTED.1.notify_all();
                    continue;
                }
                eprintln!("\nTaking everything down…");
                for (label, dir) in lock(&STANDING).iter() {
                    tear_down(label, dir);
                }
                std::process::exit(128 + signal);
            }
        });
    });
}

static INTERRUPTED: LazyLock<(Mutex<bool>, Condvar)> = LazyLock::new(Default::default);

/// Waits for Ctrl-C and returns, so that the caller's worlds go in order; a second one ends the process at once.
pub fn until_interrupted() {
    remove_on_signal();
    AWAITED.store(true, Ordering::Relaxed);
    let mut interrupted = lock(&INTERRUPTED.0);
    while !*interrupted {
        interrupted = INTERRUPTED.1.wait(interrupted).unwrap_or_else(PoisonError::into_inner);
    }
}

/// A binary of this workspace, as built: `$WEFT_BIN_DIR`, else beside the program that asks.
pub fn built_binary(name: &str) -> Result<PathBuf> {
    let dir = if let Some(dir) = std::env::var_os("WEFT_BIN_DIR") {
        PathBuf::from(dir)
    } else {
        let exe = std::env::current_exe()?;
        let dir = exe.parent().context("a program without a directory")?;
        // Tests are in `deps`, one below.
        if dir.ends_with("deps") { dir.join("..") } else { dir.to_path_buf() }
    };
    let path = dir.join(name);
    anyhow::ensure!(path.is_file(), "{} does not exist: run `cargo xtask build` first", path.display());
    Ok(path)
}
