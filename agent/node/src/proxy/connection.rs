//! A captured connection: who opened it, and to where.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use weft_rules::snapshot::{Protocol, Snapshot};
use weft_rules::workload::{Enrolment, Workload};

use super::worker::Core;
use crate::datapath::LocalPod;

/// A connection from a program in an enrolled pod.
#[derive(Debug)]
pub(super) struct Downstream {
    /// The worker's.
    pub(super) core: Rc<Core>,
    /// The pod it comes from.
    pub(super) pod: Arc<LocalPod>,
    /// The program's address.
    pub(super) peer: SocketAddr,
    /// The address that the program dialled.
    pub(super) dialled: SocketAddr,
    caller: RefCell<Option<(u64, Arc<Workload>)>>,
}

impl Downstream {
    pub(super) fn new(core: Rc<Core>, pod: Arc<LocalPod>, peer: SocketAddr, dialled: SocketAddr) -> Rc<Self> {
        Rc::new(Self { core, pod, peer, dialled, caller: RefCell::new(None) })
    }

    /// Decides by the rules in force, as this connection's caller. Never held over a wait.
    pub(super) fn decide<T>(&self, decide: impl FnOnce(&Snapshot, &Arc<Workload>) -> T) -> T {
        let snapshot = self.core.shared.snapshot.load();
        let mut caller = self.caller.borrow_mut();
        match &*caller {
            Some((generation, caller)) if *generation == snapshot.generation => decide(&snapshot, caller),
            _ => {
                let workload = self.resolve(&snapshot);
                decide(&snapshot, &caller.insert((snapshot.generation, workload)).1)
            }
        }
    }

    /// How the rules say this connection is to be read.
    pub(super) fn protocol(&self) -> Protocol {
        self.decide(|snapshot, caller| snapshot.outbound(caller, self.dialled).protocol)
    }

    /// The pod's address of the same family as `to`; `None`: it has none.
    pub(super) fn source_towards(&self, to: IpAddr) -> Option<IpAddr> {
        let peer = self.peer.ip().to_canonical();
        let addresses = &self.pod.network.addresses;
        std::iter::once(&peer)
            .filter(|peer| addresses.contains(peer))
            .chain(addresses)
            .find(|address| address.is_ipv4() == to.is_ipv4())
            .copied()
    }

    fn resolve(&self, snapshot: &Snapshot) -> Arc<Workload> {
        std::iter::once(&self.peer.ip().to_canonical())
            .chain(&self.pod.network.addresses)
            .find_map(|address| snapshot.workload_at(*address))
            .map_or_else(|| Arc::new(self.unknown()), Arc::clone)
    }

    /// The pod by its name alone: it was enrolled by rules newer or older than those in force.
    fn unknown(&self) -> Workload {
        let key = Arc::clone(&self.pod.network.key);
        let (namespace, name) = key.split_once('/').unwrap_or(("", &key));
        Workload {
            namespace: namespace.into(),
            name: name.into(),
            service_account: "default".into(),
            labels: Arc::default(),
            addresses: self.pod.network.addresses.clone(),
            node: "".into(),
            workload_name: name.into(),
            canonical_service: name.into(),
            canonical_revision: "latest".into(),
            netns: None,
            enrolment: Enrolment::Enrolled,
            key,
        }
    }
}
