//! Services and where they are, as the registry lists them.

use weft_api::registry::{Host, Hosts, Registration};

use crate::registry::host::{self, HostPort};
use crate::snapshot::Snapshot;

/// One registration for each port of each service, sorted by key. A service that is but another's name has none.
pub fn registrations(snapshot: &Snapshot) -> Vec<Registration> {
    let services = snapshot.registry.hosts.iter().map(|(_, entry)| entry);
    let mut all: Vec<Registration> = services
        .filter(|entry| entry.alias_of.is_none())
        .flat_map(|entry| {
            let of = |port| Registration { service_key: key(entry, port), hosts: hosts_of(entry, port) };
            entry.ports.iter().map(of)
        })
        .collect();
    all.sort_unstable_by(|a, b| a.service_key.cmp(&b.service_key));
    all
}

/// The endpoints of a service key; of all the service's ports where it names none. `None`: there is no such service or port.
pub fn hosts(snapshot: &Snapshot, key: &str) -> Option<Hosts> {
    let (host, name) = key.split_once('|').map_or((key, None), |(host, name)| (host, Some(name)));
    let entry = snapshot.registry.hosts.get(host).filter(|entry| entry.alias_of.is_none())?;
    let mut ports = entry.ports.iter().filter(|port| name.is_none_or(|name| *port.name == *name)).peekable();
    ports.peek()?;
    let mut hosts: Vec<Host> = ports.flat_map(|port| hosts_of(entry, port)).collect();
    hosts.sort_unstable();
    hosts.dedup();
    Some(Hosts { hosts })
}

fn key(entry: &host::Host, port: &HostPort) -> String {
    let host = &entry.service.host;
    if port.name.is_empty() { host.to_string() } else { format!("{host}|{}", port.name) }
}

fn hosts_of(entry: &host::Host, port: &HostPort) -> Vec<Host> {
    let cluster = entry.policies.others.port(port.port).map(|clusters| &clusters.whole);
    let endpoints = cluster.into_iter().flat_map(|cluster| cluster.endpoints.iter());
    let mut hosts: Vec<Host> = endpoints
        .map(|endpoint| Host { ip_address: endpoint.address.ip(), port: endpoint.address.port() })
        .collect();
    hosts.sort_unstable();
    hosts
}
