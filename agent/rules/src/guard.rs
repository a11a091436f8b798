//! What a workload lets in: PeerAuthentication, AuthorizationPolicy and RequestAuthentication, decided at the
//! destination's node. Same-node connections, tunnels and plaintext all come through here.
//!
//! A connection is admitted in this order: [`Snapshot::mtls`] (is a caller without identity acceptable at all?), then
//! [`Guard::admit_connection`]. What that leaves to requests goes, one by one, through [`Guard::tokens`] (checked by the
//! caller of this crate, which has the keys and a clock), [`Guard::consult`] and [`Guard::admit_request`]. A connection
//! of bytes that is allowed goes through [`Guard::consult_connection`] too.
//!
//! A policy whose `targetRefs` name a Service is for a waypoint in Istio. There is none here: it is enforced at the
//! workloads behind that Service, whatever address the caller has dialled. One that names Gateways, GatewayClasses or
//! ServiceEntries is for no pod.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::request::Parts;
use weft_api::identity::Identity;

use crate::claims::Claims;
use crate::guard::namespace::NamespaceSecurity;
use crate::guard::token::TokenRule;
use crate::pattern;
use crate::registry::protocol::Protocol;
use crate::snapshot::Snapshot;
use crate::upstream::cluster::Service;
use crate::workload::Workload;

pub(crate) mod compile;
pub(crate) mod condition;
mod dry_run;
pub(crate) mod namespace;
pub(crate) mod path;
pub(crate) mod peer;
pub(crate) mod policy;
pub mod provider;
pub(crate) mod text;
pub mod token;

use condition::{Truth, View};
pub use dry_run::{DryRun, DryRuns};
use policy::{Action, Policy};

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

impl fmt::Display for Mtls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "STRICT",
            Self::Permissive => "PERMISSIVE",
            Self::Disable => "DISABLE",
        })
    }
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

/// What may happen with a connection before anything of it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionVerdict {
    /// Everything on it may pass: nothing depends on requests.
    Allowed,
    /// It speaks, or may speak, HTTP, and each request is to be decided upon. Where it turns out to be bytes, ask
    /// again for [`Protocol::Tcp`].
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

/// Who is to be asked about a connection or a request before it may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consult {
    /// One of MeshConfig's `extensionProviders`; one that is not there refuses.
    pub provider: Arc<str>,
    /// `NAMESPACE/NAME` of the policy that wants it.
    pub policy: Arc<str>,
}

/// The rules of one workload.
#[derive(Debug, Default)]
pub struct Guard {
    /// Each oldest first.
    custom: Box<[Arc<Policy>]>,
    deny: Box<[Arc<Policy>]>,
    allow: Box<[Arc<Policy>]>,
    tokens: Box<[Arc<TokenRule>]>,
}

/// What a workload's node knows of it: rules, and what its ports speak.
#[derive(Debug, Default)]
pub(crate) struct Entrance {
    pub(crate) guard: Option<Arc<Guard>>,
    /// Policies that are tried out on it; mostly there are none.
    pub(crate) dry_runs: Option<Arc<DryRuns>>,
    /// Full names of the services that lead to it.
    pub(crate) services: Box<[Arc<str>]>,
    /// Ports that services lead to.
    pub(crate) ports: Box<[(u16, Protocol)]>,
}

impl Snapshot {
    /// What the port takes, on whatever node the workload is.
    pub fn mtls(&self, to: &Workload, port: u16) -> Mtls {
        self.peer_policy(to, port).0
    }

    /// As [`Self::mtls`], with the policy that says so.
    pub(crate) fn peer_policy(&self, to: &Workload, port: u16) -> (Mtls, Option<&Arc<peer::PeerPolicy>>) {
        let of = |namespace: &str| self.security.get(namespace).map(|security| &**security);
        peer::effective(of(&to.namespace), of(&self.root_namespace), to, port)
    }

    /// The policies that may be for a workload: its namespace's, then the mesh's.
    pub(crate) fn security_of(&self, workload: &Workload) -> Vec<&NamespaceSecurity> {
        let root = (workload.namespace != self.root_namespace).then_some(&self.root_namespace);
        let namespaces = std::iter::once(&workload.namespace).chain(root);
        namespaces.filter_map(|namespace| self.security.get(namespace)).map(|security| &**security).collect()
    }

    /// What a local workload's own port speaks, by the services that lead to it; undeclared where there are none or
    /// where they disagree.
    pub fn inbound_protocol(&self, to: &Workload, port: u16) -> Protocol {
        let ports = self.entrances.get(&to.key).map_or(&[][..], |entrance| &entrance.ports);
        ports.iter().find(|(number, _)| *number == port).map_or(Protocol::Detect, |(_, protocol)| *protocol)
    }

    /// The service by which a local workload's port is known: one that leads to it, the first by name where several do.
    pub fn inbound_service(&self, to: &Workload, port: u16) -> Option<&Arc<Service>> {
        let entrance = self.entrances.get(&to.key)?;
        let is_known = entrance.ports.iter().any(|(number, _)| *number == port);
        let host = entrance.services.iter().filter(|_| is_known).min()?;
        self.registry.host(host).map(|entry| &entry.service)
    }

    /// Every rule about tokens that some local workload has; one that many have may come many times.
    pub fn token_rules(&self) -> impl Iterator<Item = &Arc<TokenRule>> {
        let guards = self.entrances.iter().filter_map(|(_, entrance)| entrance.guard.as_ref());
        guards.flat_map(|guard| guard.tokens())
    }

    /// The rules of a local workload; `None`: there are none, and all may pass. A workload that is not known here (any
    /// more), and one of another node, has rules that let nothing pass.
    pub fn guard(&self, to: &Workload) -> Option<&Arc<Guard>> {
        match self.entrances.get(&to.key) {
            Some(entrance) => entrance.guard.as_ref(),
            None => Some(&self.closed),
        }
    }

    /// As [`Self::guard`], with the policies that are tried out.
    pub fn guard_and_dry_runs(&self, to: &Workload) -> (Option<&Arc<Guard>>, Option<&Arc<DryRuns>>) {
        match self.entrances.get(&to.key) {
            Some(entrance) => (entrance.guard.as_ref(), entrance.dry_runs.as_ref()),
            None => (Some(&self.closed), None),
        }
    }
}

/// Where a connection or a request stands after all policies but those that ask elsewhere.
enum Stand {
    Allowed,
    Open,
    Denied(Denial),
}

impl Guard {
    /// Chooses those of the policies that are for a workload behind these services; `None`: there are none.
    pub(crate) fn of(
        security: &[&NamespaceSecurity],
        workload: &Workload,
        services: &[Arc<str>],
    ) -> Option<Self> {
        let (mut custom, mut deny, mut allow) = (Vec::new(), Vec::new(), Vec::new());
        let policies = security.iter().flat_map(|security| &security.authorizations);
        for policy in policies.filter(|policy| !policy.dry_run && policy.scope.includes(workload, services)) {
            match policy.action {
                Action::Allow => allow.push(policy.clone()),
                Action::Deny => deny.push(policy.clone()),
                Action::Custom(_) => custom.push(policy.clone()),
                Action::Audit => {}
            }
        }
        let tokens = security.iter().flat_map(|security| &security.tokens);
        let mut tokens: Vec<_> = tokens.filter(|policy| policy.scope.includes(workload, services)).collect();
        tokens.sort_by(|a, b| a.age.cmp(&b.age));
        let tokens: Box<[_]> = tokens.into_iter().flat_map(|policy| &policy.rules).cloned().collect();
        for list in [&mut custom, &mut deny, &mut allow] {
            list.sort_by(|a, b| a.age.cmp(&b.age));
        }
        let several = custom.iter().any(|policy| policy.action != custom[0].action);
        if several {
            // As in Istio: with several providers nobody is asked, and what would have been asked about is refused.
            deny.append(&mut custom);
        }
        let some = !(custom.is_empty() && deny.is_empty() && allow.is_empty() && tokens.is_empty());
        some.then(|| Self { custom: custom.into(), deny: deny.into(), allow: allow.into(), tokens })
    }

    /// Rules that let nothing pass.
    pub(crate) fn closed() -> Self {
        Self { allow: [Arc::new(Policy::allow_nothing())].into(), ..Self::default() }
    }

    /// Whether it holds the very same policies.
    pub(crate) fn is(&self, other: &Self) -> bool {
        fn same<T>(a: &[Arc<T>], b: &[Arc<T>]) -> bool {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
        }
        same(&self.custom, &other.custom)
            && same(&self.deny, &other.deny)
            && same(&self.allow, &other.allow)
            && same(&self.tokens, &other.tokens)
    }

    /// What tokens of requests are taken, the oldest policy's first; empty: nobody looks at tokens.
    pub fn tokens(&self) -> &[Arc<TokenRule>] {
        &self.tokens
    }

    /// Decides on a connection. `protocol` is what it speaks: for [`Protocol::Tcp`] rules about requests count as Istio
    /// has them count on TCP ports, and the answer is never [`ConnectionVerdict::ByRequest`].
    pub fn admit_connection(&self, connection: &Inbound<'_>, protocol: Protocol) -> ConnectionVerdict {
        let bytes = || match self.stand(connection, View::Bytes) {
            Stand::Denied(denial) => ConnectionVerdict::Denied(denial),
            Stand::Allowed | Stand::Open => ConnectionVerdict::Allowed,
        };
        match protocol {
            Protocol::Tcp => bytes(),
            Protocol::Http | Protocol::Http2 => self.admit_requests(connection),
            Protocol::Detect => match (self.admit_requests(connection), bytes()) {
                (ConnectionVerdict::Denied(denial), ConnectionVerdict::Denied(_)) => {
                    ConnectionVerdict::Denied(denial)
                }
                // Nobody is asked about any request, and so about no bytes, of which less is known.
                (ConnectionVerdict::Allowed, ConnectionVerdict::Allowed) => ConnectionVerdict::Allowed,
                _ => ConnectionVerdict::ByRequest,
            },
        }
    }

    /// Decides on a connection of which it is known that it carries requests.
    fn admit_requests(&self, connection: &Inbound<'_>) -> ConnectionVerdict {
        match self.stand(connection, View::Requests) {
            Stand::Denied(denial) => ConnectionVerdict::Denied(denial),
            Stand::Allowed if self.is_passive(connection) => ConnectionVerdict::Allowed,
            Stand::Allowed | Stand::Open => ConnectionVerdict::ByRequest,
        }
    }

    /// Whether no request is checked for a token, and nobody is asked about any.
    fn is_passive(&self, connection: &Inbound<'_>) -> bool {
        self.tokens.is_empty()
            && self.custom.iter().all(|policy| policy.matches(connection, View::Requests).0 == Truth::No)
    }

    /// Decides on a request, after tokens and [`Self::consult`].
    pub fn admit_request(&self, connection: &Inbound<'_>, request: &InboundRequest<'_>) -> RequestVerdict {
        match pattern::bounded(|| self.stand(connection, View::Request(request))) {
            Some(Stand::Allowed | Stand::Open) => RequestVerdict::Allowed,
            Some(Stand::Denied(denial)) => RequestVerdict::Denied(denial),
            // Its path and the templates in question need too much work: nobody knows what they say of it.
            None => RequestVerdict::Denied(Denial { policy: None, rule: None }),
        }
    }

    /// Who is to be asked about a request, by the policies with action CUSTOM.
    pub fn consult(&self, connection: &Inbound<'_>, request: &InboundRequest<'_>) -> Option<Consult> {
        pattern::bounded(|| self.consulted(connection, View::Request(request))).unwrap_or_else(|| {
            // Nobody knows who is to be asked: somebody is.
            self.custom.iter().find_map(|policy| policy.consult())
        })
    }

    /// Who is to be asked about a connection of bytes. A provider that speaks HTTP only is not asked about these, and
    /// does not refuse them either.
    pub fn consult_connection(&self, connection: &Inbound<'_>) -> Option<Consult> {
        self.consulted(connection, View::Bytes)
    }

    fn consulted(&self, connection: &Inbound<'_>, view: View<'_>) -> Option<Consult> {
        self.custom.iter().find_map(|policy| {
            let consult = policy.consult()?;
            (policy.matches(connection, view).0 == Truth::Yes).then_some(consult)
        })
    }

    fn stand(&self, connection: &Inbound<'_>, view: View<'_>) -> Stand {
        let mut open = false;
        for policy in &self.deny {
            match policy.matches(connection, view) {
                (Truth::Yes, rule) => {
                    return Stand::Denied(Denial { policy: Some(policy.key.clone()), rule });
                }
                (truth, _) => open |= truth == Truth::Open,
            }
        }
        let allowed = Truth::any(self.allow.iter().map(|policy| policy.matches(connection, view).0));
        match allowed {
            Truth::No if !self.allow.is_empty() => Stand::Denied(Denial { policy: None, rule: None }),
            Truth::Open => Stand::Open,
            _ if open => Stand::Open,
            _ => Stand::Allowed,
        }
    }
}
