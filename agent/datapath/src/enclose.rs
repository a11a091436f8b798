//! Pods that the CNI plugin closes while no agent answers: in the mesh as far as the kernel knows, with no listeners. What
//! arrives for them and what they open is refused until an agent enrols them or lets them go.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use weft_common::{LookupConfig, PodStats};

use super::bpf::Insert;
use super::error::Context;
use super::mounts::{self, Seat};
use super::netns::{self, Netns};
use super::node_process::NodeProcesses;
use super::object::{Loader, Pins};
use super::pod::Kernel;
use super::{Datapath, DatapathError, kernel_pod, probe, record, sockets};

/// What is written down of a closed pod, for the agent that comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enclosed {
    /// `namespace/name`.
    pub key: String,
    /// UID; may be empty.
    pub uid: String,
    /// The container that holds its network.
    pub container: String,
    /// Path of its network namespace, as the node has it.
    pub netns: PathBuf,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// [`Enclosed`] in a file.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    cookie: u64,
    /// Cookies begin again with every boot.
    boot: String,
    pod: Enclosed,
}

impl Enclosed {
    /// Opens its network namespace by its path, if it is there still. An agent in a container sees the node's paths below the
    /// root directories of others.
    fn open(&self, cookie: u64) -> Option<Netns> {
        mounts::roots().iter().find_map(|root| {
            let netns = Netns::open(&mounts::below(root, &self.netns)).ok()?;
            let found = netns.run(sockets::netns_cookie).flatten().ok()?;
            (found == cookie).then_some(netns)
        })
    }
}

/// What is written down of all closed pods.
#[derive(Debug, Clone)]
pub struct Enclosures(PathBuf);

impl Enclosures {
    /// Those in an agent's run directory.
    pub fn of(run_dir: &Path) -> Self {
        Self(run_dir.join("closed"))
    }

    fn path(&self, cookie: u64) -> PathBuf {
        self.0.join(format!("{cookie:x}.json"))
    }

    fn save(&self, entry: &Entry) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        let path = self.path(entry.cookie);
        let partial = path.with_extension("partial");
        fs::write(&partial, serde_json::to_vec(entry)?)?;
        fs::rename(&partial, &path)
    }

    /// Reads an entry of this boot.
    pub fn load(&self, cookie: u64) -> Option<Enclosed> {
        let entry: Entry = serde_json::from_slice(&fs::read(self.path(cookie)).ok()?).ok()?;
        (entry.cookie == cookie && entry.boot == record::boot_id()).then_some(entry.pod)
    }

    /// Removes an entry.
    pub fn remove(&self, cookie: u64) {
        fs::remove_file(self.path(cookie)).ok();
    }

    /// The cookies of all entries.
    fn cookies(&self) -> Vec<u64> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let cookie = |entry: fs::DirEntry| {
            u64::from_str_radix(entry.file_name().to_str()?.strip_suffix(".json")?, 16).ok()
        };
        entries.filter_map(cookie).collect()
    }

    /// Removes everything, and answers whose entries there were.
    pub fn remove_all(&self) -> Vec<String> {
        let keys = self.cookies().into_iter().filter_map(|cookie| Some(self.load(cookie)?.key)).collect();
        fs::remove_dir_all(&self.0).ok();
        keys
    }
}

/// Keeps others from pinning: the programs of the machine, or a pod's, are loaded by one process at a time. Given back when
/// the file is closed, also by a process that dies.
pub fn hold_pins(run_dir: &Path) -> Result<File, DatapathError> {
    let what = || format!("cannot lock {}", run_dir.display());
    let dir = File::open(run_dir).context(what)?;
    flock(&dir, FlockOperation::LockExclusive).map_err(io::Error::from).context(what)?;
    Ok(dir)
}

/// Closes the pod whose network namespace is `netns`, of which no agent has heard: by what is pinned, or with programs that
/// are pinned now. Leaves it as it is if it is closed or in the mesh already.
///
/// For a process in the node's own namespaces.
///
/// # Errors
/// Nothing is changed in the pod then.
pub fn enclose(
    run_dir: &Path,
    bpf_dir: &Path,
    pod: &Enclosed,
    netns: BorrowedFd<'_>,
) -> Result<(), DatapathError> {
    let outcome = close(run_dir, bpf_dir, pod, netns);
    // What the kernel lacks is a better answer than what it said.
    outcome.or_else(|error| probe::check().and(Err(error)))
}

fn close(run_dir: &Path, bpf_dir: &Path, pod: &Enclosed, netns: BorrowedFd<'_>) -> Result<(), DatapathError> {
    let what = || format!("cannot use the network namespace of pod {}", pod.key);
    let netns = netns.try_clone_to_owned().and_then(Netns::from_fd).context(what)?;
    let cookie = netns.run(sockets::netns_cookie).flatten().context(what)?;
    if cookie == sockets::netns_cookie().context(|| "cannot read SO_NETNS_COOKIE".to_owned())? {
        return Err(DatapathError::HostNetwork { key: pod.key.as_str().into() });
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(run_dir)
        .context(|| format!("cannot create {}", run_dir.display()))?;
    let _held = hold_pins(run_dir)?;
    let pins = Pins::at(match mounts::existing_bpf_dir(bpf_dir) {
        Some(dir) => dir,
        None => mounts::bpf_dir(bpf_dir)?,
    });
    let (mut loader, maps) = match Loader::of_pinned(&pins)? {
        Some(standing) => standing,
        None => Loader::start(&pins, &mounts::cgroup_root(Seat::Node)?)?,
    };
    let home = Netns::current().context(|| "cannot open the node's network namespace".to_owned())?;
    let kernel = Kernel { maps, home, node: NodeProcesses::unasked().into() };
    let entries = Enclosures::of(run_dir);
    let pinned = pins.pods()?;
    // An agent that stays away for long collects nothing, and the kernel's maps have an end.
    for gone in pinned.iter().filter(|pinned| !pinned.alive) {
        kernel.maps.pods.remove(&gone.cookie).context(what)?;
        kernel.forget(gone.cookie)?;
        pins.remove_pod(gone.cookie)?;
        entries.remove(gone.cookie);
    }
    if pinned.iter().any(|pinned| pinned.alive && pinned.cookie == cookie) {
        return Ok(());
    }
    let entry = Entry { cookie, boot: record::boot_id(), pod: pod.clone() };
    let mut switch_off = || -> Result<(), DatapathError> {
        entries.save(&entry).context(|| format!("cannot write down that pod {} is closed", pod.key))?;
        kernel.maps.stats.insert(&cookie, &PodStats::default(), Insert::IfAbsent).context(what)?;
        // Nobody listens: ports that the pod's own programs may have are not to be kept from them.
        let config = LookupConfig { cookie, workers: 1, outbound_port: 0, inbound_port: 0 };
        loader.attach_pod(&pins, config, netns.as_fd())?;
        kernel.maps.pods.insert(&cookie, &kernel_pod(&pod.addresses), Insert::Any).context(what)
    };
    switch_off().inspect_err(|_| {
        kernel.maps.pods.remove(&cookie).ok();
        pins.remove_pod(cookie).ok();
        kernel.forget(cookie).ok();
        entries.remove(cookie);
    })
}

impl Datapath {
    /// The pods that a plugin has closed and nobody has claimed, with their namespaces.
    pub fn enclosed(&self) -> Vec<(Enclosed, OwnedFd)> {
        // Its first processes run in it before long.
        let mut others: Option<HashMap<u64, Netns>> = None;
        let mut found = Vec::new();
        for &cookie in self.unclaimed.keys() {
            let Some(pod) = self.enclosures.load(cookie) else { continue };
            let netns =
                pod.open(cookie).or_else(|| others.get_or_insert_with(netns::of_processes).remove(&cookie));
            found.extend(netns.map(|netns| (pod, netns.into_fd())));
        }
        found
    }

    /// A plugin has closed a pod while this agent ran: it waits to be claimed.
    pub fn found_enclosed(&mut self, netns: BorrowedFd<'_>) {
        let cookie = netns.try_clone_to_owned().and_then(Netns::from_fd);
        let cookie = cookie.and_then(|netns| netns.run(sockets::netns_cookie).flatten());
        if let Ok(cookie) = cookie
            && self.pods.values().all(|pod| pod.cookie != cookie)
            && let Some(pod) = self.enclosures.load(cookie)
        {
            self.unclaimed.insert(cookie, Some(pod.key));
        }
    }

    /// Names unclaimed pods that a plugin has closed, and drops what was written down of others.
    pub(super) fn learn_enclosed(&mut self) {
        for cookie in self.enclosures.cookies() {
            match (self.unclaimed.get_mut(&cookie), self.enclosures.load(cookie)) {
                (Some(key), Some(pod)) => *key = Some(pod.key),
                _ => self.enclosures.remove(cookie),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn pod(key: &str) -> Enclosed {
        Enclosed {
            key: key.to_owned(),
            uid: "u1".to_owned(),
            container: "c1".to_owned(),
            netns: "/var/run/netns/cni-1".into(),
            addresses: vec!["10.0.0.7".parse().unwrap()],
        }
    }

    #[test]
    fn what_is_written_down_is_found_by_the_next_agent_of_the_same_boot() {
        let dir = TempDir::new().unwrap();
        let entries = Enclosures::of(dir.path());
        assert_eq!(entries.remove_all(), [""; 0], "there is no directory yet");
        entries.save(&Entry { cookie: 0xab, boot: record::boot_id(), pod: pod("shop/a") }).unwrap();
        entries.save(&Entry { cookie: 7, boot: "another".to_owned(), pod: pod("shop/b") }).unwrap();
        assert_eq!(entries.load(0xab), Some(pod("shop/a")));
        assert_eq!(entries.load(7), None, "cookies of another boot mean other namespaces");
        assert_eq!(entries.remove_all(), ["shop/a"]);
        assert_eq!(entries.load(0xab), None);
    }

    #[test]
    fn one_process_at_a_time_pins() {
        let dir = TempDir::new().unwrap();
        let held = hold_pins(dir.path()).unwrap();
        let other = File::open(dir.path()).unwrap();
        assert!(flock(&other, FlockOperation::NonBlockingLockExclusive).is_err());
        drop(held);
        assert!(flock(&other, FlockOperation::NonBlockingLockExclusive).is_ok());
    }
}
