//! The whole of the rules at one moment: immutable, shared by all workers, swapped whole. Parts that did not
//! change are shared with the snapshot before.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::request::Parts;

use crate::cluster::{Cluster, Service};
use crate::http_route::{Destination, MatchedHttpRoute};
use crate::tcp_route::TcpDecision;
use crate::workload::Workload;

/// Everything that routing reads.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Increases by one with each publication.
    pub generation: u64,
}

/// What a service port speaks, by declaration (`appProtocol`, then the port's name).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1 or h2c from the client; HTTP/1.1 to the endpoint.
    Http,
    /// HTTP (either version) from the client; HTTP/2 with prior knowledge to the endpoint. `http2`, `grpc`, `grpc-web`, `h2c`.
    Http2,
    /// Bytes. `tcp`, `tls`, `https`, `mongo`, `mysql`, `redis`, …
    Tcp,
    /// Undeclared: what the first bytes show; the endpoint is spoken to in the client's version.
    Detect,
}

/// What a captured connection is for.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// How to read it.
    pub protocol: Protocol,
    /// The service that owns the address, where one does.
    pub service: Option<Arc<Service>>,
}

/// What to do with a request.
#[derive(Debug, Clone)]
pub enum HttpDecision {
    /// A route of a VirtualService, or the default route of a service.
    Route(MatchedHttpRoute),
    /// The host has rules and none matches: 404, flag `NR`.
    NoRoute,
    /// Nobody knows the host: to the address dialled (ALLOW_ANY, `PassthroughCluster`).
    Passthrough,
    /// Nobody knows the host: 502, `BlackHoleCluster` (REGISTRY_ONLY).
    BlackHole,
}

/// Why a destination leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unroutable {
    /// No such service is visible: 503, flag `NC`.
    #[error("no service {host} is visible from namespace {namespace}")]
    UnknownHost {
        /// The host asked for.
        host: Arc<str>,
        /// The caller's namespace.
        namespace: Arc<str>,
    },
    /// No DestinationRule defines the subset: 503, flag `NC`.
    #[error("no DestinationRule visible from namespace {namespace} defines subset {subset} of {host}")]
    UnknownSubset {
        /// The host asked for.
        host: Arc<str>,
        /// The subset asked for.
        subset: Arc<str>,
        /// The caller's namespace.
        namespace: Arc<str>,
    },
    /// The service lacks the port: 503, flag `NC`.
    #[error("service {host} has no port {port}")]
    UnknownPort {
        /// The host asked for.
        host: Arc<str>,
        /// The port asked for.
        port: u16,
    },
}

impl Snapshot {
    /// The workload that has this address.
    pub fn workload_at(&self, _address: IpAddr) -> Option<&Arc<Workload>> {
        None
    }

    /// All workloads known, in no particular order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        std::iter::empty()
    }

    /// Classifies a captured connection by the address that was dialled.
    pub fn outbound(&self, _caller: &Workload, _dst: SocketAddr) -> Outbound {
        Outbound { protocol: Protocol::Detect, service: None }
    }

    /// Decides where a request goes. `dst` is the address that was dialled; `seed` is fresh randomness.
    pub fn route_http(&self, _caller: &Workload, _dst: SocketAddr, _request: &Parts) -> HttpDecision {
        HttpDecision::Passthrough
    }

    /// Decides where a TCP connection goes.
    pub fn route_tcp(&self, _caller: &Workload, _dst: SocketAddr, _seed: u64) -> TcpDecision {
        TcpDecision::Passthrough
    }

    /// Resolves a destination for this caller. `addressed` is the port that the caller dialled: it counts where
    /// the destination names none.
    pub fn cluster(
        &self,
        caller: &Workload,
        destination: &Destination,
        _addressed: u16,
    ) -> Result<Arc<Cluster>, Unroutable> {
        Err(Unroutable::UnknownHost { host: destination.host.clone(), namespace: caller.namespace.clone() })
    }
}
