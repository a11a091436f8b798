//! What the node asks of its pods, as the kernel's side has to know it: a connection that only asks whether somebody is there
//! goes to the program itself, once its opener is known to be the node.
#![allow(unsafe_code, reason = "the kernel's clock, and the runtime's way to wait for the end of a process")]

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use weft_common::{Expected, Opener, PROCESS, Probed, asks};

use super::bpf::Insert;
use super::error::Context;
use super::object::Maps;
use super::pod::{Kernel, to_words};
use super::{Datapath, DatapathError, LocalPod};

/// How long after its SYN a connection may be accepted and still be known: later somebody else may have its port.
const RECENT: Duration = Duration::from_secs(10);

/// Ports of pods that their node asks something of; whether that is a connection alone.
pub type Asked = BTreeMap<(IpAddr, u16), bool>;

impl Datapath {
    /// Tells the kernel's side what the node asks.
    pub fn ask(&self, asked: &Asked) -> Result<(), DatapathError> {
        let what = || "cannot write map PROBED".to_owned();
        let probed = &self.kernel.maps.probed;
        let wanted: BTreeMap<Probed, u32> = asked
            .iter()
            .map(|((address, port), connection)| {
                let key = Probed { addr_be: to_words(*address), port: u32::from(*port) };
                (key, if *connection { asks::CONNECTION } else { asks::REQUEST })
            })
            .collect();
        for key in probed.keys().context(what)?.iter().filter(|key| !wanted.contains_key(key)) {
            probed.remove(key).context(what)?;
        }
        for (key, value) in &wanted {
            if probed.get(key).context(what)? != Some(*value) {
                probed.insert(key, value, Insert::Any).context(what)?;
            }
        }
        Ok(())
    }
}

/// Forgets who was the node itself: it may have ended while nobody watched.
pub fn forget_node(maps: &Maps) -> io::Result<()> {
    maps.node_itself.keys()?.iter().try_for_each(|key| maps.node_itself.remove(key))
}

/// A process that is the node itself for as long as it runs.
#[derive(Debug)]
pub struct Watched {
    process: OwnedFd,
    id: u64,
    kernel: Arc<Kernel>,
}

impl Watched {
    /// Waits for its end: its id may be anybody's then.
    pub async fn end(self) -> io::Result<()> {
        // SAFETY: the descriptor is owned, and stays the same until it is dropped.
        let process = unsafe { AsyncFd::register_with_interest(self.process, Interest::READABLE) };
        if let Ok(process) = process {
            // Where that cannot be waited for, it is not trusted.
            process.readable().await.ok();
        }
        self.kernel.node.forget(self.id);
        self.kernel.maps.node_itself.remove(&self.id)
    }
}

impl LocalPod {
    /// Who opened a connection from the agent's own namespace to a port that the pod's probes name; `None`: nobody, or that was
    /// long ago.
    pub fn opener(&self, peer: SocketAddr, to: SocketAddr) -> Option<Opener> {
        let connection = Expected {
            cookie: 0,
            local_be: to_words(to.ip()),
            remote_be: to_words(peer.ip()),
            local_port: u32::from(to.port()),
            remote_port: u32::from(peer.port()),
        };
        // What cannot be asked is not known.
        let opener = self.kernel.maps.node_connects.get(&connection).ok().flatten()?;
        (since_boot().saturating_sub(Duration::from_nanos(opener.at)) < RECENT).then_some(opener)
    }

    /// Lets the kernel's side know that this opener is the node itself. Answers a process whose end has to be told.
    pub fn is_node(&self, opener: Opener) -> io::Result<Option<Watched>> {
        let node = &self.kernel.node;
        let (id, watched) = if node.knows_groups() {
            (opener.group, None)
        } else {
            let id = opener.process | PROCESS;
            let Some(process) = node.watch(opener, id)? else { return Ok(None) };
            (id, Some(Watched { process, id, kernel: Arc::clone(&self.kernel) }))
        };
        self.kernel.maps.node_itself.insert(&id, &1, Insert::Any)?;
        Ok(watched)
    }
}

/// The time as `bpf_ktime_get_ns` has it.
fn since_boot() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure outlives the call. It does not fail for this clock, and would leave zeros.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}
