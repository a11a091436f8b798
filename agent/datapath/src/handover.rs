//! Pods that pass from one agent to the next while both run: the listeners with all that is queued at them, and the
//! namespaces. What is pinned is the same for both, and stays.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use weft_common::{Listener, listener};

use super::error::Context;
use super::netns::Netns;
use super::sockets::{self, Bound, Listeners};
use super::{Datapath, DatapathError, LocalPod, PodListener, PodNetwork, lock};

/// A pod as another agent serves it.
#[derive(Debug)]
pub struct Standing {
    /// What that agent has enrolled.
    pub network: PodNetwork,
    /// `SO_NETNS_COOKIE` of its namespace.
    pub cookie: u64,
    /// The namespace.
    pub netns: OwnedFd,
    /// Every listener, and what the kernel programs know it by.
    pub listeners: Vec<(Listener, OwnedFd)>,
}

impl LocalPod {
    /// The pod's network namespace.
    pub fn netns(&self) -> BorrowedFd<'_> {
        self.prepared.netns.as_fd()
    }
}

impl Datapath {
    /// The pods that are in the mesh.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<LocalPod>> {
        self.pods.values()
    }

    /// Leaves everything to a successor, which has the listeners: nothing is changed in pods or in the kernel any more.
    pub fn hand_over(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// Takes a pod from an agent that still runs: connections go to the same listeners as before, and whoever accepts
    /// first has them.
    ///
    /// # Errors
    /// The pod is served by the other agent as before.
    pub fn adopt(
        &mut self,
        standing: Standing,
    ) -> Result<(Arc<LocalPod>, Vec<Vec<PodListener>>), DatapathError> {
        let Standing { network, cookie, netns, listeners } = standing;
        let what = || format!("cannot take over pod {}", network.key);
        let netns = Netns::from_fd(netns).context(what)?;
        if netns.run(sockets::netns_cookie).flatten().context(what)? != cookie {
            return Err(io::Error::other("its network namespace is another one")).context(what);
        }
        let prepared = self.prepare(&network, netns, cookie)?;
        self.held.push(Arc::clone(&prepared));
        let (listeners, slots) =
            prepared.netns.run(|| complete(listeners, self.workers)).flatten().context(what)?;
        self.switch_on(&network, &prepared, &listeners, slots)?;
        Ok(self.enrolled(network, prepared, listeners))
    }

    /// The agent that handed over has ended, and its last connection with it: what it left and nobody has enrolled is
    /// unclaimed.
    pub fn predecessor_ended(&mut self) -> Result<(), DatapathError> {
        self.held.clear();
        self.take_over()?;
        let in_use = |cookie: &u64| {
            self.pods.values().any(|pod| pod.cookie == *cookie)
                || lock(&self.prepared).get(cookie).is_some_and(|prepared| Weak::strong_count(prepared) > 0)
        };
        let unclaimed = std::mem::take(&mut self.unclaimed);
        self.unclaimed = unclaimed.into_iter().filter(|(cookie, _)| !in_use(cookie)).collect();
        Ok(())
    }
}

/// The listeners that were handed over, and those that more workers than before need; and how many there are of a kind.
fn complete(handed: Vec<(Listener, OwnedFd)>, workers: usize) -> io::Result<(Listeners, usize)> {
    let bound = handed.into_iter().map(|(place, fd)| Bound {
        kind: place.kind,
        worker: place.worker as usize,
        socket: TcpListener::from(fd),
    });
    let mut bound: Vec<Bound> = bound.collect();
    let before = bound.iter().map(|bound| bound.worker + 1).max().unwrap_or(0);
    let port = |kinds: [u32; 2]| {
        let found = bound.iter().find(|bound| kinds.contains(&bound.kind));
        found
            .ok_or_else(|| io::Error::other("a listener is missing"))?
            .socket
            .local_addr()
            .map(|at| at.port())
    };
    let outbound_port = port([listener::OUTBOUND_V4, listener::OUTBOUND_V6])?;
    let inbound_port = port([listener::INBOUND_V4, listener::INBOUND_V6])?;
    let more = sockets::listen_beside(&bound, before..workers.max(before))?;
    bound.extend(more);
    Ok((Listeners { bound, outbound_port, inbound_port }, before.max(workers)))
}
