//! A connection that weft serves: who opened it, and to where.

use std::cell::{OnceCell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use http::request::Parts;
use weft_api::identity::Identity;
use weft_api::istio::Termination;
use weft_datapath::LocalPod;
use weft_identity::ClientCertificate;
use weft_limits::Account;
use weft_limits::account::Charge;
use weft_rules::route::gateway::{AtServerName, GatewayPlace, GatewayProtocol};
use weft_rules::route::http_route::Destination;
use weft_rules::route::tcp_route::TcpDecision;
use weft_rules::snapshot::{HttpDecision, Outbound, Snapshot, Unroutable};
use weft_rules::upstream::cluster::{Cluster, Service};
use weft_rules::workload::{Enrolment, Workload};

use super::core::Core;
use super::inbound::{Caller, Seen};

/// A connection that a program in an enrolled pod opened, or one that arrived for a program in it.
#[derive(Debug)]
pub(super) struct Downstream {
    /// The worker's.
    pub(super) core: Rc<Core>,
    /// The pod that it comes from; of one that arrived, the pod that it is for.
    pub(super) pod: Arc<LocalPod>,
    /// The caller's address.
    pub(super) peer: SocketAddr,
    /// The address that the caller dialled.
    pub(super) dialled: SocketAddr,
    /// Who pays for its requests and bodies.
    pub(super) account: Rc<Account>,
    direction: Direction,
    caller: RefCell<Option<(u64, Arc<Workload>)>>,
    server_name: OnceCell<Box<str>>,
    ended_tls: OnceCell<EndedTls>,
}

/// TLS that has ended at a gateway.
#[derive(Debug)]
pub(super) struct EndedTls {
    /// As its server had it then.
    pub(super) termination: Arc<Termination>,
    /// What the client has proved to be, where it was asked and had something to show.
    pub(super) client: Option<ClientCertificate>,
    pub(super) _charge: Charge,
}

#[derive(Debug)]
enum Direction {
    Outbound,
    Inbound(Caller),
    Gateway,
}

impl Downstream {
    /// A connection that a program in `pod` opened.
    pub(super) fn new(core: Rc<Core>, pod: Arc<LocalPod>, peer: SocketAddr, dialled: SocketAddr) -> Rc<Self> {
        let (direction, account) = (Direction::Outbound, core.account(&pod, false, None));
        Self::begin(core, pod, (peer, dialled), direction, account)
    }

    /// A connection that arrived for a program in `pod`, and came from `caller`.
    pub(super) fn inbound(
        core: Rc<Core>,
        pod: Arc<LocalPod>,
        dialled: SocketAddr,
        caller: Caller,
    ) -> Rc<Self> {
        let account = core.account(&pod, true, Some(caller.peer.ip()));
        let (peer, direction) = (caller.peer, Direction::Inbound(caller));
        Self::begin(core, pod, (peer, dialled), direction, account)
    }

    /// A connection that came to `pod` as a gateway: from here on it is the pod's own, by the rules bound to that gateway.
    pub(super) fn at_gateway(
        core: Rc<Core>,
        pod: Arc<LocalPod>,
        peer: SocketAddr,
        dialled: SocketAddr,
    ) -> Rc<Self> {
        let (direction, account) = (Direction::Gateway, core.account(&pod, true, Some(peer.ip())));
        Self::begin(core, pod, (peer, dialled), direction, account)
    }

    fn begin(
        core: Rc<Core>,
        pod: Arc<LocalPod>,
        (peer, dialled): (SocketAddr, SocketAddr),
        direction: Direction,
        account: Rc<Account>,
    ) -> Rc<Self> {
        let (caller, server_name, ended_tls) = (RefCell::new(None), OnceCell::new(), OnceCell::new());
        Rc::new(Self { core, pod, peer, dialled, account, direction, caller, server_name, ended_tls })
    }

    /// Who pays for connections that are opened for it. A gateway's are the gateway's own: its callers share them.
    pub(super) fn pays_onward(&self) -> Rc<Account> {
        match self.direction {
            Direction::Gateway => self.core.account(&self.pod, false, None),
            Direction::Outbound | Direction::Inbound(_) => Rc::clone(&self.account),
        }
    }

    /// Whether the pod serves it as a gateway.
    pub(super) fn is_at_gateway(&self) -> bool {
        matches!(self.direction, Direction::Gateway)
    }

    /// Whether it arrived for the pod: then it goes to the address dialled, by the rules of the pod's policies alone.
    pub(super) fn is_inbound(&self) -> bool {
        matches!(self.direction, Direction::Inbound(_))
    }

    /// Whether it came to the pod, be it for a program there or as to a gateway.
    pub(super) fn arrived(&self) -> bool {
        self.is_inbound() || self.is_at_gateway()
    }

    /// Who calls, of a connection that arrived.
    pub(super) fn visitor(&self) -> Option<&Caller> {
        match &self.direction {
            Direction::Inbound(caller) => Some(caller),
            Direction::Outbound | Direction::Gateway => None,
        }
    }

    /// Whether its requests were read by an agent of the mesh before.
    pub(super) fn was_read(&self) -> bool {
        self.visitor().is_some_and(|caller| caller.seen == Seen::Requests)
    }

    /// Whether the node itself opened it, to a port that the pod's probes name.
    pub(super) fn is_of_node(&self) -> bool {
        self.visitor().is_some_and(|caller| caller.node)
    }

    /// The caller's identity, of a connection that arrived, where that is proved.
    pub(super) fn identity(&self) -> Option<&Arc<Identity>> {
        match self.visitor() {
            Some(caller) => caller.identity.as_ref(),
            None => self.ended_tls()?.client.as_ref()?.identity.as_ref(),
        }
    }

    /// Notes that its TLS has ended here.
    pub(super) fn end_tls(&self, ended: EndedTls) {
        // It ends once.
        let _ = self.ended_tls.set(ended);
    }

    /// The TLS that it came in, where that has ended at a gateway.
    pub(super) fn ended_tls(&self) -> Option<&EndedTls> {
        self.ended_tls.get()
    }

    /// Decides by the rules in force, as this connection's caller. Never held over a wait.
    pub(super) fn decide<T>(&self, decide: impl FnOnce(&Snapshot, &Arc<Workload>) -> T) -> T {
        let snapshot = self.core.shared.snapshot.load();
        let mut caller = self.caller.borrow_mut();
        match &*caller {
            Some((generation, caller)) if *generation == snapshot.generation => decide(&snapshot, caller),
            _ => {
                let workload = match &self.direction {
                    // By its name, never by an address: a program may take any in its own namespace.
                    Direction::Outbound | Direction::Gateway => workload_of(&snapshot, &self.pod),
                    Direction::Inbound(caller) => named(&snapshot, caller),
                };
                decide(&snapshot, &caller.insert((snapshot.generation, workload)).1)
            }
        }
    }

    /// The caller, where it is known.
    pub(super) fn source(&self) -> Option<Arc<Workload>> {
        self.decide(|_, caller| (!caller.namespace.is_empty()).then(|| Arc::clone(caller)))
    }

    /// The pod on this side, as the rules in force know it.
    pub(super) fn own_workload(&self) -> Arc<Workload> {
        workload_of(&self.core.shared.snapshot.load(), &self.pod)
    }

    /// Of a connection that arrived: the service by which its port is known. What the caller says is no proof.
    pub(super) fn service_here(&self) -> Option<Arc<Service>> {
        self.decide(|snapshot, _| {
            let own = snapshot.workload(&self.pod.network.key)?;
            snapshot.inbound_service(own, self.dialled.port()).map(Arc::clone)
        })
    }

    /// Where a request on this connection goes.
    pub(super) fn route_http(&self, request: &Parts) -> HttpDecision {
        self.decide(|snapshot, own| match self.direction {
            Direction::Gateway => match self.place_at_gateway(snapshot, own) {
                Some(place) => snapshot.route_at_gateway(own, &place, request),
                None => HttpDecision::NoRoute,
            },
            Direction::Outbound | Direction::Inbound(_) => snapshot.route_http(own, self.dialled, request),
        })
    }

    /// Where the bytes of this connection go. `seed` is fresh randomness.
    pub(super) fn route_tcp(&self, seed: u64) -> TcpDecision {
        let name = self.server_name();
        self.decide(|snapshot, own| match self.direction {
            Direction::Gateway => match self.place_at_gateway(snapshot, own).and_then(|place| place.served())
            {
                Some(served) => snapshot.route_tcp_at_gateway(own, served, name, seed),
                None => TcpDecision::NoRoute,
            },
            Direction::Outbound | Direction::Inbound(_) => snapshot.route_tcp(own, self.dialled, name, seed),
        })
    }

    /// Where at the gateway this connection is; `None`: no Gateway has the port any more.
    fn place_at_gateway<'a>(&'a self, snapshot: &'a Snapshot, own: &Workload) -> Option<GatewayPlace<'a>> {
        let port = snapshot.gateway_port(&own.key, self.dialled.port())?;
        let tls = self.ended_tls().map(|ended| (self.server_name(), &ended.termination));
        Some(GatewayPlace { port, tls })
    }

    /// How what came in TLS that has ended here is read; `None`: its server went, or lets in other clients now.
    pub(super) fn behind_tls(&self) -> Option<GatewayProtocol> {
        self.decide(|snapshot, own| Some(self.place_at_gateway(snapshot, own)?.served()?.protocol()))
    }

    /// What a gateway does with this connection of TLS, by the server name.
    pub(super) fn at_server_name(&self) -> AtServerName {
        let port = self.dialled.port();
        self.decide(|snapshot, own| match snapshot.gateway_port(&own.key, port) {
            Some(served) => served.at_server_name(self.server_name()),
            None => AtServerName::Nobody,
        })
    }

    /// How a gateway reads this connection; `None`: no Gateway has the port.
    pub(super) fn read_at_gateway(&self) -> Option<GatewayProtocol> {
        let port = self.dialled.port();
        self.decide(|snapshot, own| Some(snapshot.gateway_port(&own.key, port)?.protocol()))
    }

    /// The endpoints of a destination, as this connection's caller sees them.
    pub(super) fn cluster(&self, destination: &Destination) -> Result<Arc<Cluster>, Unroutable> {
        self.decide(|snapshot, own| match self.direction {
            Direction::Gateway => match self.place_at_gateway(snapshot, own).and_then(|place| place.served())
            {
                Some(served) => snapshot.cluster_at_gateway(own, served, destination),
                None => snapshot.cluster(own, destination, self.dialled.port()),
            },
            Direction::Outbound | Direction::Inbound(_) => {
                snapshot.cluster(own, destination, self.dialled.port())
            }
        })
    }

    /// What the rules say of the address that was dialled.
    pub(super) fn outbound(&self) -> Outbound {
        self.decide(|snapshot, caller| snapshot.outbound(caller, self.dialled))
    }

    /// Notes which server a TLS client asks for.
    pub(super) fn name_server(&self, name: Option<Box<str>>) {
        if let Some(name) = name {
            // It is read once.
            let _ = self.server_name.set(name);
        }
    }

    /// Which server a TLS client asks for, where that was read.
    pub(super) fn server_name(&self) -> Option<&str> {
        self.server_name.get().map(|name| &**name)
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
}

/// The caller of a connection that arrived: whose address it is, unless it proves to be somebody else.
fn named(snapshot: &Snapshot, caller: &Caller) -> Arc<Workload> {
    let by_address = snapshot.workload_at(caller.peer.ip().to_canonical());
    match (by_address, caller.identity.as_deref()) {
        (Some(workload), None) => Arc::clone(workload),
        (Some(workload), Some(identity))
            if workload.namespace == identity.namespace
                && workload.service_account == identity.service_account =>
        {
            Arc::clone(workload)
        }
        (_, Some(identity)) => {
            Arc::new(Workload::unknown(identity.namespace.clone(), identity.service_account.clone()))
        }
        (None, None) => Arc::new(Workload::unknown("".into(), "".into())),
    }
}

/// A pod of this node as the rules in force know it.
pub(super) fn workload_of(snapshot: &Snapshot, pod: &LocalPod) -> Arc<Workload> {
    snapshot.workload(&pod.network.key).map_or_else(|| Arc::new(named_only(pod)), Arc::clone)
}

/// The pod by its name alone: it was enrolled by rules newer or older than those in force.
fn named_only(pod: &LocalPod) -> Workload {
    let key = Arc::clone(&pod.network.key);
    let (namespace, name) = key.split_once('/').unwrap_or(("", &key));
    Workload {
        name: name.into(),
        workload_name: name.into(),
        canonical_service: name.into(),
        addresses: pod.network.addresses.clone(),
        enrolment: Enrolment::Enrolled,
        key: Arc::clone(&key),
        ..Workload::unknown(namespace.into(), "default".into())
    }
}
