//! What a workload lets in: PeerAuthentication, AuthorizationPolicy and RequestAuthentication, decided at the
//! destination's node. Same-node connections, tunnels and plaintext all come through here.
//!
//! A connection is admitted in this order: [`Snapshot::mtls`] (is a caller without identity acceptable at all?), then
//! [`Guard::admit_connection`]. What that leaves to requests goes, one by one, through [`Guard::tokens`] (checked by the
//! caller of this crate, which has the keys and a clock), [`Guard::consult`] and [`Guard::admit_request`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::request::Parts;
use serde_json::{Map, Value};

use crate::identity::Identity;
use crate::snapshot::{Protocol, Snapshot};
use crate::workload::Workload;

/// What a workload's port takes in the way of mutual TLS (the same node's proof of identity counts as that).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mtls {
    /// Only callers with an identity.
    Strict,
    /// Any caller.
    Permissive,
    /// Any caller, and none has an identity.
    Disable,
}

/// A connection to a workload, as its node knows it.
#[derive(Debug, Clone)]
pub struct Inbound<'a> {
    /// Who calls, where that is proved.
    pub identity: Option<&'a Identity>,
    /// The caller's own address.
    pub peer: IpAddr,
    /// The workload's address and port.
    pub to: SocketAddr,
    /// TLS server name that the caller sent.
    pub sni: Option<&'a str>,
}

/// A request on such a connection.
#[derive(Debug, Clone)]
pub struct InboundRequest<'a> {
    /// Its head, with its path normalised.
    pub head: &'a Parts,
    /// The client's address as `X-Forwarded-For` tells it, as far as that is trusted; else the peer's.
    pub remote: IpAddr,
    /// The claims of its token, where it had one that is good.
    pub claims: Option<&'a Claims>,
}

/// A token that was found good.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// `iss`.
    pub issuer: String,
    /// `ISS/SUB`.
    pub principal: String,
    /// The whole payload.
    pub all: Map<String, Value>,
}

/// What may happen with a connection before anything of it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionVerdict {
    /// Everything on it may pass: nothing depends on requests.
    Allowed,
    /// It speaks, or may speak, HTTP, and each request is to be decided upon.
    ByRequest,
    /// Nothing on it may pass. Where it speaks HTTP each request may be answered 403; else it is closed.
    Denied(Denial),
}

/// What may happen with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestVerdict {
    /// It may pass.
    Allowed,
    /// 403 `RBAC: access denied`.
    Denied(Denial),
}

/// Who refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// `NAMESPACE/NAME` of the policy; `None`: there are ALLOW policies, and none of them matched.
    pub policy: Option<Arc<str>>,
    /// Which of its rules.
    pub rule: Option<usize>,
}

/// The rules of one workload; shared by all that have the same.
#[derive(Debug, Default)]
pub struct Guard {}

impl Snapshot {
    /// What the port takes.
    pub fn mtls(&self, _to: &Workload, _port: u16) -> Mtls {
        Mtls::Permissive
    }

    /// What a workload's own port speaks, by the services that lead to it; undeclared where they disagree.
    pub fn inbound_protocol(&self, _to: &Workload, _port: u16) -> Protocol {
        Protocol::Detect
    }

    /// The rules of a workload; `None`: there are none, and all may pass.
    pub fn guard(&self, _to: &Workload) -> Option<&Arc<Guard>> {
        None
    }
}

impl Guard {
    /// Decides on a connection. `protocol` is what it speaks: for [`Protocol::Tcp`] rules about requests count as Istio
    /// has them count on TCP ports, and the answer is never [`ConnectionVerdict::ByRequest`].
    pub fn admit_connection(&self, _connection: &Inbound<'_>, _protocol: Protocol) -> ConnectionVerdict {
        ConnectionVerdict::Allowed
    }

    /// Decides on a request, after tokens and [`Self::consult`].
    pub fn admit_request(&self, _connection: &Inbound<'_>, _request: &InboundRequest<'_>) -> RequestVerdict {
        RequestVerdict::Allowed
    }
}
