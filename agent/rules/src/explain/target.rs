//! Who calls, and what is called, from the words of a command line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use weft_api::admin::{Peer, PeerSelector};

use crate::registry::host::Host;
use crate::registry::hostname::{self, HostBuffer, RequestHost};
use crate::snapshot::Snapshot;
use crate::workload::Workload;

/// Services that are named where another was asked for, at most.
const MOST_MEANT: usize = 3;

/// Why a request cannot be explained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// The caller's name is none.
    #[error("{0}")]
    NotASelector(String),
    /// Nothing fits the caller's name.
    #[error("no workload fits {0:?}; `weft get workloads` lists them")]
    NoSuchWorkload(String),
    /// The caller's address is none.
    #[error("{0:?} is no address of IPv4 or IPv6")]
    NotAnAddress(String),
    /// A caller that is in the mesh, and an address of one that is not.
    #[error("{0} is no gateway: an address of a caller goes with a gateway, or stands alone")]
    TwoCallers(String),
    /// The destination is none.
    #[error("{0:?} is no destination; write HOST[:PORT], a URL or ADDRESS:PORT")]
    NotATarget(String),
    /// The destination's name is nobody's.
    #[error(
        "nobody knows the name {name:?} in namespace {namespace}: no Service, no ready pod of a headless Service and no rule has \
         it{hint}; `weft get endpoints` lists what there is. Of a name outside of the cluster, write its address: ADDRESS:PORT \
         -H 'Host: {name}'"
    )]
    UnknownName {
        /// The name.
        name: String,
        /// Where it was looked for.
        namespace: String,
        /// What may be meant, if anything.
        hint: String,
    },
    /// Method, path or headers do not make a request.
    #[error("this is no request: {0}")]
    NotARequest(String),
}

/// The workloads that a selector of `weft explain` means, in the order of their names, those last that are ending; at least
/// one.
pub fn callers<'a>(snapshot: &'a Snapshot, from: &str) -> Result<Vec<&'a Workload>, ExplainError> {
    let selector: PeerSelector = from
        .parse()
        .map_err(|error: weft_api::admin::NotASelector| ExplainError::NotASelector(error.to_string()))?;
    let mut found: Vec<&Workload> = match &selector {
        PeerSelector::Address(address) => {
            snapshot.workload_at(address.to_canonical()).map(|workload| &**workload).into_iter().collect()
        }
        _ => snapshot
            .workloads()
            .map(|workload| &**workload)
            .filter(|workload| selector.matches(&peer(workload)))
            .collect(),
    };
    // After a rollout there are pods that are ending, and such as have no network yet.
    let order = |workload: &Workload| (workload.terminating, workload.addresses.is_empty());
    found.sort_unstable_by(|a, b| (order(a), &a.key).cmp(&(order(b), &b.key)));
    if found.is_empty() { Err(ExplainError::NoSuchWorkload(from.to_owned())) } else { Ok(found) }
}

fn peer(workload: &Workload) -> Peer {
    Peer {
        namespace: workload.namespace.to_string(),
        pod: workload.name.to_string(),
        workload: workload.workload_name.to_string(),
        address: workload.addresses.first().map(|address| SocketAddr::new(*address, 0)),
        labels: (*workload.labels).clone(),
        ..Peer::default()
    }
}

/// A destination as a command line has it.
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: Option<String>,
}

impl Target {
    pub(super) fn parse(text: &str) -> Result<Self, ExplainError> {
        let err = || ExplainError::NotATarget(text.to_owned());
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) => (&rest[..at], Some(&rest[at..])),
            None => (rest, None),
        };
        let authority: http::uri::Authority = authority.parse().map_err(|_| err())?;
        let default = if scheme == "https" { 443 } else { 80 };
        let host = authority.host().to_owned();
        if host.is_empty() {
            return Err(err());
        }
        let path = path.map(|path| if path.starts_with('?') { format!("/{path}") } else { path.to_owned() });
        Ok(Self { host, port: authority.port_u16().unwrap_or(default), path })
    }
}

/// What a host stands for.
pub(super) enum Meaning<'a> {
    /// Itself.
    Address(IpAddr),
    /// A service.
    Service(&'a Arc<Host>),
    /// A pod of a headless service, by its own name, and the address that DNS gives for it.
    Pod(&'a Arc<Workload>, IpAddr),
    /// Somebody outside, whose address DNS alone knows.
    Outside,
}

/// What a caller's resolver would give for a host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resolved {
    /// The address; the unspecified one where DNS alone knows it.
    pub(super) address: SocketAddr,
    /// It is one of several that the name stands for.
    is_one_of_many: bool,
}

impl Resolved {
    /// The address, where no other could be dialled as well.
    pub(super) fn dialled(&self) -> Option<SocketAddr> {
        (!self.is_one_of_many).then_some(self.address)
    }

    /// The address, or whose it is where that is all that is known.
    pub(super) fn in_words(&self, host: &str) -> String {
        if self.address.ip().is_unspecified() {
            format!("port {} of {host}, wherever the caller's resolver says that is", self.address.port())
        } else {
            self.address.to_string()
        }
    }
}

impl Target {
    /// Looks the host up as a caller in this namespace would.
    pub(super) fn meaning<'a>(
        &self,
        snapshot: &'a Snapshot,
        namespace: &str,
    ) -> Result<Meaning<'a>, ExplainError> {
        let mut lower = HostBuffer::new();
        let name = match hostname::normalize(&self.host, &mut lower) {
            RequestHost::Address(address) => return Ok(Meaning::Address(address)),
            RequestHost::Name(name) => name,
            RequestHost::Nothing => return Err(ExplainError::NotATarget(self.host.clone())),
        };
        if let Some(service) = service(snapshot, namespace, name) {
            return Ok(service);
        }
        if let Some((label, rest)) = name.split_once('.')
            && let Some(Meaning::Service(entry)) = service(snapshot, namespace, rest)
            && let Some((pod, address)) = entry.pod_called(label)
        {
            return Ok(Meaning::Pod(pod, address));
        }
        // A rule is enough to know a name outside; and where only what is known may be called, its address is no matter.
        let is_known = snapshot.mesh.registry_only || snapshot.rules_for(name).next().is_some();
        if is_known && may_be_outside(snapshot, name) {
            return Ok(Meaning::Outside);
        }
        let hint = meant(snapshot, name);
        Err(ExplainError::UnknownName { name: self.host.clone(), namespace: namespace.to_owned(), hint })
    }

    /// The address that the caller would dial.
    pub(super) fn resolve(&self, snapshot: &Snapshot, caller: &Workload) -> Result<Resolved, ExplainError> {
        let (address, is_one_of_many) = match self.meaning(snapshot, &caller.namespace)? {
            Meaning::Address(address) | Meaning::Pod(_, address) => (Some(address), false),
            Meaning::Service(entry) => (entry.first_address(), entry.address.is_none()),
            Meaning::Outside => (None, false),
        };
        let address = SocketAddr::new(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), self.port);
        Ok(Resolved { address, is_one_of_many })
    }
}

/// The service of this name, in full or as short as it may be in a namespace. One that stands for a name outside is that.
fn service<'a>(snapshot: &'a Snapshot, namespace: &str, name: &str) -> Option<Meaning<'a>> {
    let found = |name: &str| {
        snapshot.registry.hosts.get(name)?;
        Some(snapshot.registry.host(name).map_or(Meaning::Outside, Meaning::Service))
    };
    let mut full = HostBuffer::new();
    found(name)
        .or_else(|| found(hostname::expand(name, namespace, &snapshot.mesh.cluster_domain, &mut full)?))
}

/// Whether others than the cluster's own DNS could know a name.
fn may_be_outside(snapshot: &Snapshot, name: &str) -> bool {
    let is_below = name.strip_suffix(&*snapshot.mesh.cluster_domain).is_some_and(|rest| rest.ends_with('.'));
    !is_below && name.rsplit_once('.').is_some_and(|(_, last)| last != "svc")
}

/// Services that are called so in other namespaces.
fn meant(snapshot: &Snapshot, name: &str) -> String {
    let label = name.split('.').next().unwrap_or(name);
    let services = snapshot.registry.hosts.iter().map(|(_, entry)| &entry.service);
    let mut names: Vec<String> = services
        .filter(|service| *service.name == *label)
        .map(|service| format!("{}.{}", service.name, service.namespace))
        .collect();
    names.sort_unstable();
    names.truncate(MOST_MEANT);
    if names.is_empty() { String::new() } else { format!(" (did you mean {}?)", names.join(" or ")) }
}

/// The service that a port of nodes leads to, and its port there.
pub(super) fn node_port(snapshot: &Snapshot, number: u16) -> Option<(&Arc<Host>, u16)> {
    snapshot.registry.hosts.iter().find_map(|(_, entry)| {
        let port = entry.ports.iter().find(|port| port.node_port == Some(number))?;
        Some((entry, port.port))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_hosts_urls_and_addresses() {
        for (text, host, port, path) in [
            ("reviews", "reviews", 80, None),
            ("reviews:9080", "reviews", 9080, None),
            ("http://reviews:9080/a?b", "reviews", 9080, Some("/a?b")),
            ("https://reviews", "reviews", 443, None),
            ("reviews?x", "reviews", 80, Some("/?x")),
            ("10.0.0.1:3306", "10.0.0.1", 3306, None),
            ("[fd00::1]:80", "[fd00::1]", 80, None),
        ] {
            let target = Target::parse(text).unwrap();
            assert_eq!((target.host.as_str(), target.port, target.path.as_deref()), (host, port, path));
        }
        for text in ["", ":80", "http://", "a b"] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }
}
