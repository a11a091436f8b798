//! Names one side of a connection on a command line: `--from deploy/reviews.bookinfo`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::tap::Peer;

/// Which peers are meant.
///
/// `KIND/NAME[.NS]` with the kind `pod`, `svc`, `ns`, or of a workload (`deploy`, `sts`, `ds`, `job`); a bare
/// `NAME[.NS]` is any of them; `KEY=VALUE` is a label; an address is itself; `:PORT` a port of the destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PeerSelector {
    /// A pod by name; a trailing `*` means any ending.
    Pod(Name),
    /// What made the pod: the Deployment, StatefulSet, … by name.
    Workload(Name),
    /// A service.
    Service(Name),
    /// A whole namespace.
    Namespace(String),
    /// Pod, workload, service or app of that name.
    Any(Name),
    /// A label of the pod.
    Label(String, String),
    /// An address.
    Address(IpAddr),
    /// A port.
    Port(u16),
}

/// A name, and maybe its namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Name.
    pub name: String,
    /// Any namespace when absent.
    pub namespace: Option<String>,
}

/// Not a selector of peers: the text that was found.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} names no peer; write pod/NAME.NS, deploy/NAME.NS, svc/NAME.NS, ns/NAME, NAME.NS, KEY=VALUE, an address or :PORT"
)]
pub struct NotASelector(String);

impl Name {
    fn parse(text: &str) -> Option<Self> {
        let (name, namespace) = match text.split_once('.') {
            Some((name, ns)) => (name, Some(ns)),
            None => (text, None),
        };
        // `reviews.bookinfo.svc.cluster.local` is the service's own full name.
        let namespace = namespace.map(|ns| ns.split('.').next().unwrap_or(ns).to_owned());
        (!name.is_empty() && namespace.as_deref() != Some(""))
            .then(|| Self { name: name.to_owned(), namespace })
    }

    fn matches(&self, name: &str, namespace: &str) -> bool {
        let named = match self.name.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => self.name == name,
        };
        named && !name.is_empty() && self.namespace.as_ref().is_none_or(|ns| ns == namespace)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        self.namespace.as_ref().map_or(Ok(()), |ns| write!(f, ".{ns}"))
    }
}

impl std::str::FromStr for PeerSelector {
    type Err = NotASelector;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let err = || NotASelector(text.to_owned());
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        if let Some(port) = text.strip_prefix(':') {
            return port.parse().map(Self::Port).map_err(|_| err());
        }
        if let Some((key, value)) = text.split_once('=') {
            return if key.is_empty() {
                Err(err())
            } else {
                Ok(Self::Label(key.to_owned(), value.to_owned()))
            };
        }
        let Some((kind, name)) = text.split_once('/') else {
            return Name::parse(text).map(Self::Any).ok_or_else(err);
        };
        let name = Name::parse(name).ok_or_else(err)?;
        match kind.to_ascii_lowercase().as_str() {
            "pod" | "pods" | "po" => Ok(Self::Pod(name)),
            "svc" | "service" | "services" => Ok(Self::Service(name)),
            "ns" | "namespace" | "namespaces" if name.namespace.is_none() => Ok(Self::Namespace(name.name)),
            "deploy" | "deployment" | "deployments" | "sts" | "statefulset" | "ds" | "daemonset" | "job"
            | "cronjob" | "rs" | "replicaset" | "workload" => Ok(Self::Workload(name)),
            _ => Err(err()),
        }
    }
}

impl std::fmt::Display for PeerSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pod(name) => write!(f, "pod/{name}"),
            Self::Workload(name) => write!(f, "workload/{name}"),
            Self::Service(name) => write!(f, "svc/{name}"),
            Self::Namespace(name) => write!(f, "ns/{name}"),
            Self::Any(name) => write!(f, "{name}"),
            Self::Label(key, value) => write!(f, "{key}={value}"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Port(port) => write!(f, ":{port}"),
        }
    }
}

impl TryFrom<String> for PeerSelector {
    type Error = NotASelector;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PeerSelector> for String {
    fn from(selector: PeerSelector) -> Self {
        selector.to_string()
    }
}

impl PeerSelector {
    /// The same in a namespace, where it names none itself.
    #[must_use]
    pub fn within(mut self, namespace: &str) -> Self {
        if let Self::Pod(name) | Self::Workload(name) | Self::Service(name) | Self::Any(name) = &mut self {
            name.namespace.get_or_insert_with(|| namespace.to_owned());
        }
        self
    }

    /// Says whether `peer` is meant.
    pub fn matches(&self, peer: &Peer) -> bool {
        let ns = &peer.namespace;
        // A service is known by its host: `reviews.bookinfo.svc.cluster.local`.
        let mut host = peer.service.split('.');
        let (service, service_ns) = (host.next().unwrap_or(""), host.next().unwrap_or(ns));
        match self {
            Self::Pod(name) => name.matches(&peer.pod, ns),
            Self::Workload(name) => name.matches(&peer.workload, ns),
            Self::Service(name) => name.matches(service, service_ns),
            Self::Namespace(name) => name == ns,
            Self::Any(name) => {
                name.matches(&peer.pod, ns)
                    || name.matches(&peer.workload, ns)
                    || name.matches(service, service_ns)
                    || peer.labels.get("app").is_some_and(|app| name.matches(app, ns))
            }
            Self::Label(key, value) => peer.labels.get(key) == Some(value),
            Self::Address(address) => {
                peer.address.is_some_and(|at| at.ip().to_canonical() == address.to_canonical())
            }
            Self::Port(port) => peer.address.is_some_and(|at| at.port() == *port),
        }
    }
}
