//! A service's endpoints as one caller may use them: subset, policy and the choice among them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::snapshot::Protocol;
use crate::workload::Workload;

/// A service, for routing and telemetry.
#[derive(Debug)]
pub struct Service {
    /// `name.namespace.svc.domain`.
    pub host: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
}

/// Envoy's cluster: a (host, port, subset) with the policy in force for a caller.
#[derive(Debug)]
pub struct Cluster {
    /// `outbound|PORT|SUBSET|HOST`, as Envoy's logs have it.
    pub name: Arc<str>,
    /// The service.
    pub service: Arc<Service>,
    /// The service's port.
    pub port: u16,
    /// The subset.
    pub subset: Option<Arc<str>>,
    /// What the port speaks.
    pub protocol: Protocol,
    /// Longest wait for a connection; 10 s unless a DestinationRule says otherwise.
    pub connect_timeout: Duration,
    /// How to choose.
    pub balance: Balance,
    /// Ready endpoints, in a stable order.
    pub endpoints: Arc<[Arc<Endpoint>]>,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// The less busy of two random ones.
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// Any.
    Random,
    /// The address that the caller dialled.
    Passthrough,
}

/// An address that serves, with its load. The load survives changes of the rules.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// The pod behind it, where known.
    pub workload: Option<Arc<Workload>>,
    active: Arc<AtomicU32>,
}

/// An endpoint in use: its load counts until this drops.
#[derive(Debug)]
pub struct InUse {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.endpoint.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Cluster {
    /// Chooses an endpoint and counts it busy. `tried` are addresses to avoid if there is another (5 picks, then
    /// any). `None`: there is no endpoint (503, flag `UH`).
    pub fn pick(&self, _dialled: SocketAddr, _tried: &[SocketAddr], _seed: u64) -> Option<InUse> {
        None
    }
}
