//! `weft tap`: finished requests and connections as they happen.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::peer::PeerSelector;

/// A line of a tap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum TapEvent {
    /// A request has been answered, or given up.
    Http(TapRecord<HttpTap>),
    /// A connection of opaque bytes was opened or closed.
    Tcp(TapRecord<TcpTap>),
    /// The reader was too slow: so many events were left out here.
    LeftOut {
        /// How many.
        count: u64,
    },
}

/// What every event has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TapRecord<Detail> {
    /// When it began, RFC 3339 with milliseconds.
    pub time: String,
    /// Which side reports: `source` or `destination`.
    pub reporter: String,
    /// The caller.
    pub source: Peer,
    /// The destination.
    pub destination: Peer,
    /// What became of it.
    pub verdict: Verdict,
    /// Envoy's response flags, `-` for none.
    pub flags: String,
    /// `NAMESPACE/NAME` of the policy that refused it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub policy: String,
    /// `NAMESPACE/NAME` of policies that are tried out (dry runs) and would have refused it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub would_deny: Vec<String>,
    /// `mutual_tls` (also between pods of one node), `none`, or `unknown` where no endpoint was reached.
    pub connection_security_policy: String,
    /// The node itself asked, for what the pod's probes want.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub probe: bool,
    /// In milliseconds, from the first byte to the last.
    pub duration_ms: f64,
    /// Bytes from the caller: of the body for HTTP.
    pub request_bytes: u64,
    /// Bytes to the caller: of the body for HTTP.
    pub response_bytes: u64,
    /// What is particular to the protocol.
    #[serde(flatten)]
    pub detail: Detail,
}

/// One side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Peer {
    /// Namespace; empty outside the cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The pod's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// The name of what made the pod: `reviews-v1`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workload: String,
    /// The service's full host name (destination only).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// Address and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// `spiffe://…`; empty when unauthenticated.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub identity: String,
    /// The pod's labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What became of a request or connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Reached a destination, whatever it said.
    #[default]
    Forwarded,
    /// Answered by a rule: redirect, direct response, injected fault, no route.
    Answered,
    /// Refused by a policy.
    Denied,
    /// No destination could be reached, or it broke.
    Failed,
}

/// A request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpTap {
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: String,
    /// Method.
    pub method: String,
    /// Host header.
    pub authority: String,
    /// Path with its query, as the caller sent it.
    pub path: String,
    /// 0 when the caller left first.
    pub status: u16,
    /// Present for gRPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u32>,
    /// `NS/NAME` of the VirtualService; empty for default routing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub virtual_service: String,
    /// The route's name, or its place.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub route: String,
    /// The subset chosen.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subset: String,
    /// Tries made, the first included.
    pub attempts: u32,
    /// It is the copy of a request, whose answer nobody gets.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mirrored: bool,
    /// `x-request-id`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// `user-agent`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
}

/// A connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpTap {
    /// Opened or closed.
    pub state: TcpState,
    /// The address that the caller dialled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialled: Option<SocketAddr>,
}

/// Where in its life a connection is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TcpState {
    /// Just opened.
    #[default]
    Opened,
    /// Just closed.
    Closed,
}

/// Which events a reader wants: those that satisfy every clause. Empty wants all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TapFilter {
    /// All must hold.
    pub clauses: Vec<TapClause>,
    /// Probes too, which are nobody's traffic.
    pub probes: bool,
}

/// Alternatives of one kind: `--to a --to b`; with `--not`, none of them may hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TapClause {
    /// Turns the clause round.
    pub not: bool,
    /// One must hold.
    pub any: Vec<TapTerm>,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TapTerm {
    /// The caller.
    From(PeerSelector),
    /// The destination.
    To(PeerSelector),
    /// HTTP status.
    Status(StatusRange),
    /// Start of the path; with `*`, a pattern of the whole path.
    Path(String),
    /// HTTP method.
    Method(String),
    /// What became of it.
    Verdict(Verdict),
    /// `http` or `tcp`.
    Protocol(String),
    /// A policy that is tried out would have refused it.
    WouldDeny,
}

/// HTTP statuses: `503`, `5xx`, `400-499`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusRange {
    /// First.
    pub from: u16,
    /// Last.
    pub to: u16,
}

impl std::str::FromStr for StatusRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let err = || format!("{text:?} is no status (write 503, 5xx or 400-499)");
        let lower = text.to_ascii_lowercase();
        if let Some(class) = lower.strip_suffix("xx") {
            let class: u16 = class.parse().map_err(|_| err())?;
            return if (1..=9).contains(&class) {
                Ok(Self { from: class * 100, to: class * 100 + 99 })
            } else {
                Err(err())
            };
        }
        let (from, to) = lower.split_once('-').unwrap_or((&lower, &lower));
        let (from, to) = (from.trim().parse().map_err(|_| err())?, to.trim().parse().map_err(|_| err())?);
        if from <= to { Ok(Self { from, to }) } else { Err(err()) }
    }
}

impl TapFilter {
    /// Says whether the reader wants `event`. A count of those left out is always wanted.
    pub fn matches(&self, event: &TapEvent) -> bool {
        let probe = match event {
            TapEvent::Http(record) => record.probe,
            TapEvent::Tcp(record) => record.probe,
            TapEvent::LeftOut { .. } => return true,
        };
        let holds = |clause: &TapClause| clause.any.iter().any(|term| term.matches(event)) != clause.not;
        (self.probes || !probe) && self.clauses.iter().all(holds)
    }
}

impl TapTerm {
    fn matches(&self, event: &TapEvent) -> bool {
        let (source, destination, verdict, would_deny, http) = match event {
            TapEvent::Http(TapRecord { source, destination, verdict, would_deny, detail, .. }) => {
                (source, destination, *verdict, would_deny, Some(detail))
            }
            TapEvent::Tcp(TapRecord { source, destination, verdict, would_deny, .. }) => {
                (source, destination, *verdict, would_deny, None)
            }
            TapEvent::LeftOut { .. } => return true,
        };
        match self {
            Self::From(selector) => selector.matches(source),
            Self::To(selector) => selector.matches(destination),
            Self::Status(range) => http.is_some_and(|http| (range.from..=range.to).contains(&http.status)),
            Self::Path(pattern) => http.is_some_and(|http| path_matches(pattern, &http.path)),
            Self::Method(method) => http.is_some_and(|http| http.method.eq_ignore_ascii_case(method)),
            Self::Verdict(wanted) => verdict == *wanted,
            Self::Protocol(protocol) => {
                protocol.eq_ignore_ascii_case(if http.is_some() { "http" } else { "tcp" })
            }
            Self::WouldDeny => !would_deny.is_empty(),
        }
    }
}

/// Matches greedily from the left; linear in the pattern's pieces.
fn path_matches(pattern: &str, path: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return path.starts_with(pattern);
    };
    let Some(mut path) = path.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or("");
    for piece in pieces {
        let Some(at) = path.find(piece) else { return false };
        path = &path[at + piece.len()..];
    }
    path.ends_with(last)
}
