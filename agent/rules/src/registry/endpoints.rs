//! The ready endpoints of a service's ports, with the load that they carried before.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::registry::Registry;
use crate::registry::host::Host;
use crate::registry::pod::PodRecord;
use crate::registry::pods::Pods;
use crate::registry::services::{Addressing, ServiceRecord, Services, Target};
use crate::shard::Map;
use crate::upstream::cluster::Endpoint;
use crate::workload::Workload;

/// Addresses of one port with the pods behind them, in no order.
type Found = Vec<(SocketAddr, Option<Arc<Workload>>)>;

/// The endpoints of one port, in the order of their addresses.
pub(crate) type PortEndpoints = Arc<[Arc<Endpoint>]>;

/// Resolves the endpoints of each port, in the order of the ports.
pub(crate) fn resolve(
    record: &ServiceRecord,
    services: &Services,
    pods: &Pods,
    registry: &Registry,
    old: Option<&Host>,
) -> Vec<PortEndpoints> {
    let mut found: Vec<Found> = vec![Vec::new(); record.ports.len()];
    if services.slices_of(&record.service.host).next().is_some() {
        from_slices(record, services, pods, registry, &mut found);
    } else if let Some(selector) = &record.selector {
        for pod in pods.select(&record.service.namespace, selector) {
            from_pod(record, pod, &mut found);
        }
    }
    let known = Known::of(old);
    found.into_iter().map(|addresses| known.endpoints(addresses)).collect()
}

fn from_slices(
    record: &ServiceRecord,
    services: &Services,
    pods: &Pods,
    registry: &Registry,
    found: &mut [Found],
) {
    let slices = || services.slices_of(&record.service.host);
    // A dual-stack service has each pod twice: once is enough, unless callers dial the pods' addresses.
    let both = slices().any(|slice| slice.v6) && slices().any(|slice| !slice.v6);
    let family =
        (both && record.addressing != Addressing::Headless).then(|| record.prefers_v6().unwrap_or(false));
    for slice in slices().filter(|slice| family.is_none_or(|v6| v6 == slice.v6)) {
        for (port, addresses) in record.ports.iter().zip(&mut *found) {
            let Some((_, number)) = slice.ports.iter().find(|(name, _)| *name == port.entry.name) else {
                continue;
            };
            let own_number = match &port.target {
                Target::Number(number) => *number,
                Target::Named(_) => port.entry.port,
            };
            let number = number.unwrap_or(own_number);
            let serving =
                slice.endpoints.iter().filter(|endpoint| endpoint.ready || record.publish_not_ready);
            addresses.extend(serving.map(|endpoint| {
                let workload = match &endpoint.pod {
                    Some(pod) => pods.get(pod).map(|pod| &pod.workload),
                    None => registry.addresses.get(&endpoint.address),
                };
                (SocketAddr::new(endpoint.address, number), workload.cloned())
            }));
        }
    }
}

fn from_pod(record: &ServiceRecord, pod: &PodRecord, found: &mut [Found]) {
    if !(pod.ready || record.publish_not_ready && pod.serving) {
        return;
    }
    let addresses = &pod.workload.addresses;
    let preferred =
        record.prefers_v6().and_then(|v6| addresses.iter().position(|address| address.is_ipv6() == v6));
    let first = preferred.unwrap_or(0);
    let dialled =
        if record.addressing == Addressing::Headless { 0..addresses.len() } else { first..first + 1 };
    for (port, found) in record.ports.iter().zip(found) {
        if let Some(number) = port.target.on(&pod.ports) {
            let endpoint = |address: &IpAddr| (SocketAddr::new(*address, number), Some(pod.workload.clone()));
            found.extend(addresses.get(dialled.clone()).unwrap_or_default().iter().map(endpoint));
        }
    }
}

/// The endpoints as they were: an address with the same pod behind it goes on with its load.
struct Known<'a>(Map<(SocketAddr, Option<&'a str>), &'a Arc<Endpoint>>);

impl<'a> Known<'a> {
    fn of(old: Option<&'a Host>) -> Self {
        let ports = old.into_iter().flat_map(|entry| &entry.policies.others.ports);
        let endpoints = ports.flat_map(|port| port.whole.endpoints.iter());
        Self(
            endpoints
                .map(|endpoint| ((endpoint.address, key(endpoint.workload.as_ref())), endpoint))
                .collect(),
        )
    }

    fn endpoints(&self, mut addresses: Found) -> PortEndpoints {
        addresses.sort_by(|a, b| (a.0, key(a.1.as_ref())).cmp(&(b.0, key(b.1.as_ref()))));
        addresses.dedup_by_key(|(address, _)| *address);
        let endpoint = |(address, workload): (SocketAddr, Option<Arc<Workload>>)| {
            let old = self.0.get(&(address, key(workload.as_ref()))).map(|old| Arc::clone(old));
            match old {
                Some(old) if same(old.workload.as_ref(), workload.as_ref()) => old,
                old => Arc::new(Endpoint::new(address, workload, old.as_deref())),
            }
        };
        addresses.into_iter().map(endpoint).collect()
    }
}

fn key(workload: Option<&Arc<Workload>>) -> Option<&str> {
    workload.map(|workload| &*workload.key)
}

fn same(a: Option<&Arc<Workload>>, b: Option<&Arc<Workload>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// All addresses of a headless service: callers dial its endpoints.
pub(crate) fn addresses(ports: &[PortEndpoints]) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = ports.iter().flat_map(|port| port.iter()).map(|e| e.address.ip()).collect();
    all.sort_unstable();
    all.dedup();
    all
}
