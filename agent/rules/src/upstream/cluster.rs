//! A service's endpoints as one caller may use them: subset, policy and the choice among them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use weft_api::istio::ClientTlsSettings;

use crate::draw::{Use, draw};
use crate::registry::protocol::Protocol;
use crate::workload::Workload;

/// A service, for routing and telemetry.
#[derive(Debug, PartialEq, Eq)]
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
    /// A DestinationRule's `tls`, its mode always there; `None`: mTLS where the endpoint is in the mesh.
    pub tls: Option<Arc<ClientTlsSettings>>,
    /// Ready endpoints, in a stable order.
    pub endpoints: Arc<[Arc<Endpoint>]>,
    /// Turn of the round robin; outlives changes of the rules.
    pub(crate) turn: Arc<AtomicU32>,
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
    /// The endpoint whose address the caller dialled where there is one, else as [`Self::LeastRequest`]: what a
    /// headless service means by its addresses.
    Headless,
}

impl Balance {
    /// Istio's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::LeastRequest => "LEAST_REQUEST",
            Self::RoundRobin => "ROUND_ROBIN",
            Self::Random => "RANDOM",
            Self::Passthrough => "PASSTHROUGH",
            Self::Headless => "HEADLESS",
        }
    }
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

impl Endpoint {
    /// An endpoint that continues `load`, or begins without any.
    pub(crate) fn new(address: SocketAddr, workload: Option<Arc<Workload>>, load: Option<&Self>) -> Self {
        Self { address, workload, active: load.map(|old| old.active.clone()).unwrap_or_default() }
    }

    /// Requests and connections under way, from all of this node's callers.
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }
}

/// An endpoint in use: its load counts until this drops.
#[derive(Debug)]
pub struct InUse {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
}

impl InUse {
    fn of(endpoint: Arc<Endpoint>) -> Self {
        endpoint.active.fetch_add(1, Ordering::Relaxed);
        Self { endpoint }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.endpoint.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How often a retry picks anew before it looks for an untried endpoint one by one. Source: Istio's default
/// `hostSelectionRetryMaxAttempts`.
const PICKS: usize = 5;

impl Cluster {
    /// Chooses an endpoint and counts it busy. `dialled` is the caller's own destination; `tried` are addresses to
    /// avoid if there is another. `None`: there is no endpoint (503, flag `UH`). Takes no lock.
    pub fn pick(&self, dialled: SocketAddr, tried: &[SocketAddr], seed: u64) -> Option<InUse> {
        if self.balance == Balance::Passthrough {
            return Some(InUse::of(self.endpoint_at(dialled)));
        }
        if let Some(endpoint) = self.own(dialled) {
            return Some(InUse::of(endpoint.clone()));
        }
        let count = self.endpoints.len();
        let mut rng = draw(seed, Use::Endpoint);
        let endpoint = match count {
            0 => return None,
            1 => &self.endpoints[0],
            _ => {
                let mut pick = || self.candidate(count, &mut rng);
                let mut endpoint = pick();
                for _ in 1..PICKS {
                    if !tried.contains(&endpoint.address) {
                        break;
                    }
                    endpoint = pick();
                }
                if tried.contains(&endpoint.address) {
                    let untried = |endpoint: &&Arc<Endpoint>| !tried.contains(&endpoint.address);
                    self.endpoints.iter().find(untried).unwrap_or(endpoint)
                } else {
                    endpoint
                }
            }
        };
        Some(InUse::of(endpoint.clone()))
    }

    /// The only endpoint that answers who dialled this address: of a headless service, the one that has it, be it at another
    /// port than the service's. `None`: any may answer.
    pub(crate) fn own(&self, dialled: SocketAddr) -> Option<&Arc<Endpoint>> {
        if self.balance != Balance::Headless {
            return None;
        }
        let address = dialled.ip().to_canonical();
        let mut there = self.endpoints.iter().filter(|endpoint| endpoint.address.ip() == address);
        let first = there.next()?;
        if first.address.port() == dialled.port() {
            return Some(first);
        }
        Some(there.find(|endpoint| endpoint.address.port() == dialled.port()).unwrap_or(first))
    }

    /// The endpoints that may answer who dialled this address; any address, where it is not known.
    pub(crate) fn answering(&self, dialled: Option<SocketAddr>) -> &[Arc<Endpoint>] {
        dialled.and_then(|dialled| self.own(dialled)).map_or(&self.endpoints, std::slice::from_ref)
    }

    /// One pick among two or more.
    fn candidate(&self, count: usize, rng: &mut fastrand::Rng) -> &Arc<Endpoint> {
        match self.balance {
            Balance::RoundRobin => {
                &self.endpoints[self.turn.fetch_add(1, Ordering::Relaxed) as usize % count]
            }
            Balance::Random => &self.endpoints[rng.usize(0..count)],
            Balance::LeastRequest | Balance::Headless | Balance::Passthrough => {
                let first = rng.usize(0..count);
                // One of the others: two different ones.
                let second = (first + 1 + rng.usize(0..count - 1)) % count;
                let (first, second) = (&self.endpoints[first], &self.endpoints[second]);
                if second.active() < first.active() { second } else { first }
            }
        }
    }

    /// The known endpoint of this address, or one made up for it.
    fn endpoint_at(&self, address: SocketAddr) -> Arc<Endpoint> {
        let known = self.endpoints.iter().find(|endpoint| endpoint.address == address);
        known.cloned().unwrap_or_else(|| Arc::new(Endpoint::new(address, None, None)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(balance: Balance, endpoints: u16) -> Cluster {
        let service = Service { host: "a.b".into(), name: "a".into(), namespace: "b".into() };
        let endpoint = |n| Arc::new(Endpoint::new(address(n), None, None));
        Cluster {
            name: "outbound|80||a.b".into(),
            service: Arc::new(service),
            port: 80,
            subset: None,
            protocol: Protocol::Http,
            connect_timeout: Duration::from_secs(10),
            balance,
            tls: None,
            endpoints: (0..endpoints).map(endpoint).collect(),
            turn: Arc::default(),
        }
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    #[test]
    fn round_robin_takes_turns_from_the_first() {
        let cluster = cluster(Balance::RoundRobin, 3);
        let ports: Vec<u16> = (0..6)
            .map(|seed| cluster.pick(address(80), &[], seed).unwrap().endpoint.address.port())
            .collect();
        assert_eq!(ports, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn least_request_avoids_the_busy() {
        let cluster = cluster(Balance::LeastRequest, 2);
        let held: Vec<InUse> = (0..50).map(|seed| cluster.pick(address(80), &[], seed).unwrap()).collect();
        assert_eq!(cluster.endpoints[0].active(), 25);
        assert_eq!(cluster.endpoints[1].active(), 25);
        drop(held);
        assert_eq!(cluster.endpoints[0].active() + cluster.endpoints[1].active(), 0);
    }

    #[test]
    fn a_retry_goes_elsewhere_while_there_is_elsewhere() {
        for balance in [Balance::LeastRequest, Balance::RoundRobin, Balance::Random] {
            let cluster = cluster(balance, 3);
            for seed in 0..200 {
                let tried = [address(0), address(2)];
                assert_eq!(cluster.pick(address(80), &tried, seed).unwrap().endpoint.address, address(1));
                let all = [address(0), address(1), address(2)];
                assert!(cluster.pick(address(80), &all, seed).is_some());
            }
        }
    }

    #[test]
    fn random_and_least_request_spread_evenly() {
        for balance in [Balance::LeastRequest, Balance::Random] {
            let cluster = cluster(balance, 4);
            let mut hits = [0; 4];
            for seed in 0..8000 {
                hits[cluster.pick(address(80), &[], seed).unwrap().endpoint.address.port() as usize] += 1;
            }
            assert!(hits.iter().all(|hits| (1850..2150).contains(hits)), "{balance:?} {hits:?}");
        }
    }

    #[test]
    fn passthrough_and_headless_go_where_the_caller_dialled() {
        let pass = cluster(Balance::Passthrough, 2);
        assert_eq!(pass.pick(address(99), &[], 1).unwrap().endpoint.address, address(99));
        let headless = cluster(Balance::Headless, 2);
        for seed in 0..20 {
            assert_eq!(headless.pick(address(1), &[], seed).unwrap().endpoint.address, address(1));
        }
        let elsewhere = SocketAddr::from(([10, 0, 0, 2], 0));
        assert!(headless.pick(elsewhere, &[], 1).unwrap().endpoint.address.port() < 2);
        // As IPv6 sockets write addresses of IPv4, and at the service's port where the pod has another.
        let mapped = SocketAddr::new("::ffff:10.0.0.1".parse().unwrap(), 1);
        assert_eq!(headless.pick(mapped, &[], 1).unwrap().endpoint.address, address(1));
        assert_eq!(headless.pick(address(80), &[], 1).unwrap().endpoint.address, address(0));
        assert!(cluster(Balance::Headless, 0).pick(address(99), &[], 1).is_none());
        assert!(cluster(Balance::Random, 0).pick(address(99), &[], 1).is_none());
    }
}
