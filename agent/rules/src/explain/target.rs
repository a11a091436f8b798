//! Who calls, and what is called, from the words of a command line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use weft_api::admin::{Peer, PeerSelector};

use crate::host::{self, HostBuffer, RequestHost};
use crate::snapshot::Snapshot;
use crate::workload::Workload;

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
    /// Method, path or headers do not make a request.
    #[error("this is no request: {0}")]
    NotARequest(String),
}

/// The workloads that a selector of `weft explain` means, in the order of their names; at least one.
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
    found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
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

/// What a caller's resolver would give for a host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resolved {
    /// The address; the unspecified one for names that only DNS knows.
    pub(super) address: SocketAddr,
    /// It is one of several that the name stands for.
    is_one_of_many: bool,
}

impl Resolved {
    /// The address, where no other could be dialled as well.
    pub(super) fn dialled(&self) -> Option<SocketAddr> {
        (!self.is_one_of_many).then_some(self.address)
    }
}

impl Target {
    /// Looks the host up as the caller would.
    pub(super) fn resolve(&self, snapshot: &Snapshot, caller: &Workload) -> Resolved {
        let (mut lower, mut full) = (HostBuffer::new(), HostBuffer::new());
        let (address, is_one_of_many) = match host::normalize(&self.host, &mut lower) {
            RequestHost::Address(address) => (Some(address), false),
            RequestHost::Name(name) => {
                let service = snapshot.service(name).or_else(|| {
                    let domain = &snapshot.mesh.cluster_domain;
                    snapshot.service(host::expand(name, &caller.namespace, domain, &mut full)?)
                });
                let is_headless = service.is_some_and(|entry| entry.address.is_none());
                (service.and_then(|entry| entry.first_address()), is_headless)
            }
            RequestHost::Nothing => (None, false),
        };
        let address = SocketAddr::new(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), self.port);
        Resolved { address, is_one_of_many }
    }
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
