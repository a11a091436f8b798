//! Who may read the node's own ports: the node itself, and who is named. A caller is known by its address alone, which it must
//! have, for it is answered there; whose an address is, the rules in force know.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use weft_rules::snapshot::Snapshot;

/// Prometheus as it is usually installed.
pub const DEFAULT_READERS: &str = "weft-system/prometheus,istio-system/prometheus,monitoring/prometheus-k8s,\
                                   monitoring/kube-prometheus-stack-prometheus";

/// Who is named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readers(Vec<Reader>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Reader {
    /// Pods of a service account; `None`: of any in the namespace.
    Account { namespace: String, name: Option<String> },
    /// Addresses.
    Network(IpNet),
}

/// An entry that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names nobody (write NAMESPACE/SERVICEACCOUNT, NAMESPACE/*, an address or a CIDR)")]
pub struct NotAReader(String);

/// A caller of the node's ports.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// A process of the node.
    Node,
    /// Somebody who is named.
    Named,
    /// Somebody else, in words.
    Stranger(String),
}

impl FromStr for Readers {
    type Err = NotAReader;

    fn from_str(text: &str) -> Result<Self, NotAReader> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Reader {
    type Err = NotAReader;

    fn from_str(text: &str) -> Result<Self, NotAReader> {
        let wrong = || NotAReader(text.to_owned());
        if let Ok(network) = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
            return Ok(Self::Network(network));
        }
        // A namespace's has no dots: an address that was mistyped names nobody.
        let is_name = |name: &str| {
            let mut bytes = name.bytes();
            !name.is_empty() && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
        };
        let (namespace, name) = text.split_once('/').ok_or_else(wrong)?;
        let name = if name == "*" { None } else { Some(name.to_owned()) };
        if is_name(namespace) && !namespace.contains('.') && name.as_deref().is_none_or(is_name) {
            Ok(Self::Account { namespace: namespace.to_owned(), name })
        } else {
            Err(wrong())
        }
    }
}

impl fmt::Display for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&all.join(","))
    }
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account { namespace, name } => write!(f, "{namespace}/{}", name.as_deref().unwrap_or("*")),
            Self::Network(network) => network.fmt(f),
        }
    }
}

impl Readers {
    /// Says who calls from `peer`, at `local`.
    pub(super) fn know(&self, snapshot: &Snapshot, peer: SocketAddr, local: SocketAddr) -> Caller {
        let address = peer.ip().to_canonical();
        // Who dials an address of its own machine comes from that address.
        if address.is_loopback() || address == local.ip().to_canonical() {
            return Caller::Node;
        }
        let workload = snapshot.workload_at(address);
        let is = |reader: &Reader| match reader {
            Reader::Account { namespace, name } => workload.is_some_and(|pod| {
                *pod.namespace == **namespace
                    && name.as_ref().is_none_or(|name| *pod.service_account == **name)
            }),
            Reader::Network(network) => network.contains(&address),
        };
        if self.0.iter().any(is) {
            return Caller::Named;
        }
        Caller::Stranger(workload.map_or_else(
            || address.to_string(),
            |pod| format!("{address} (service account {}/{})", pod.namespace, pod.service_account),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readers(text: &str) -> Readers {
        text.parse().unwrap()
    }

    fn know(readers: &str, peer: &str) -> Caller {
        let local = "10.1.0.2:15020".parse().unwrap();
        readers.parse::<Readers>().unwrap().know(
            &Snapshot::default(),
            format!("{peer}:4711").parse().unwrap(),
            local,
        )
    }

    #[test]
    fn entries_are_accounts_namespaces_and_networks() {
        let text = "monitoring/prometheus-k8s,istio-system/*,10.0.0.0/24,fd00::/8,10.9.9.9/32";
        assert_eq!(readers(text).to_string(), text);
        assert_eq!(readers(" a/b , 1.2.3.4 ").to_string(), "a/b,1.2.3.4/32");
        assert_eq!(readers(""), Readers::default());
        readers(DEFAULT_READERS);
        for wrong in ["prometheus", "a/", "/b", "*/b", "a/b/c", "10.0.0.0/33", "a b/c", "10.0.0.0/"] {
            let error = wrong.parse::<Readers>().unwrap_err();
            assert!(error.to_string().contains("NAMESPACE/SERVICEACCOUNT"), "{error}");
        }
    }

    #[test]
    fn the_node_itself_is_always_let_in() {
        for own in ["127.0.0.1", "10.1.0.2", "[::ffff:10.1.0.2]", "[::1]"] {
            assert_eq!(know("", own), Caller::Node, "{own}");
        }
        assert_eq!(know("", "10.1.0.3"), Caller::Stranger("10.1.0.3".to_owned()));
    }

    #[test]
    fn networks_are_compared_by_their_bits() {
        for (network, peer, is_in) in [
            ("10.1.4.0/22", "10.1.7.255", true),
            ("10.1.4.0/22", "10.1.8.0", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("10.1.7.7", "10.1.7.7", true),
            ("10.1.7.7", "10.1.7.6", false),
            ("fd00::/8", "[fdff::1]", true),
            ("::/0", "[2001:db8::1]", true),
            ("::/0", "192.0.2.1", false),
        ] {
            assert_eq!(know(network, peer) == Caller::Named, is_in, "{network} {peer}");
        }
    }
}
