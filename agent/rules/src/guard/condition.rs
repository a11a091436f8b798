//! One condition of a rule, and whether it holds.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::header::HeaderName;
use http::request::Parts;
use ipnet::IpNet;
use weft_api::identity::Identity;

use super::path::PathPattern;
use super::text::{Glob, Text};
use super::{Inbound, InboundRequest};
use crate::route::http_route::{authority, scheme};
use crate::route::matching::any_value;

/// Whether something holds, as far as that is known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Truth {
    No,
    /// It depends on the request.
    Open,
    Yes,
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl Truth {
    /// All of these; the first `No` ends the looking.
    pub(crate) fn all(truths: impl Iterator<Item = Self>) -> Self {
        let mut all = Self::Yes;
        for truth in truths {
            all = all.min(truth);
            if all == Self::No {
                break;
            }
        }
        all
    }

    /// One of these; of none, `No`. The first `Yes` ends the looking.
    pub(crate) fn any(truths: impl Iterator<Item = Self>) -> Self {
        let mut any = Self::No;
        for truth in truths {
            any = any.max(truth);
            if any == Self::Yes {
                break;
            }
        }
        any
    }
}

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum View<'a> {
    /// A connection that carries bytes: there are no requests.
    Bytes,
    /// A connection that carries requests, before any was read.
    Requests,
    /// One of its requests.
    Request(&'a InboundRequest<'a>),
}

/// One list of values of a policy. The caller must be among them, or, where negated, must not.
#[derive(Debug)]
pub(crate) struct Condition {
    pub(crate) test: Test,
    pub(crate) negated: bool,
}

/// An attribute, and the values that it may have.
#[derive(Debug)]
pub(crate) enum Test {
    /// `TRUST_DOMAIN/ns/NS/sa/SA`.
    Principal(Box<[Text]>),
    Namespace(Box<[Glob]>),
    /// Namespace and name.
    ServiceAccount(Box<[(Arc<str>, Arc<str>)]>),
    TrustDomain(Box<[Text]>),
    /// The connection's own peer.
    Peer(Box<[IpNet]>),
    /// The client that the request comes from; on a connection of bytes, the peer.
    Remote(Box<[IpNet]>),
    DestinationAddress(Box<[IpNet]>),
    DestinationPort(Box<[u16]>),
    ServerName(Box<[Text]>),
    RequestPrincipal(Box<[Text]>),
    /// A claim within claims: of the token, as text or as a list of texts.
    Claim(Box<[Box<str>]>, Box<[Text]>),
    /// Without regard to case.
    Host(Box<[Text]>),
    /// The same as a header: to the letter.
    Authority(Box<[Text]>),
    Method(Box<[Text]>),
    /// Without its query.
    Path(Box<[PathPattern]>),
    /// `:path` as a header: with its query.
    PathAndQuery(Box<[Text]>),
    Scheme(Box<[Text]>),
    Header(HeaderName, Box<[Text]>),
    /// An attribute that nothing has here (the metadata of Envoy's filters).
    Nothing,
}

impl Test {
    /// Whether it looks at requests, and so means nothing for a connection of bytes.
    pub(crate) fn is_of_requests(&self) -> bool {
        matches!(
            self,
            Self::RequestPrincipal(_)
                | Self::Claim(..)
                | Self::Host(_)
                | Self::Authority(_)
                | Self::Method(_)
                | Self::Path(_)
                | Self::PathAndQuery(_)
                | Self::Scheme(_)
                | Self::Header(..)
        )
    }
}

impl Condition {
    pub(crate) fn holds(&self, connection: &Inbound<'_>, view: View<'_>) -> Truth {
        let found = match (&self.test, view) {
            // A rule that refuses or asks elsewhere goes without them; one that allows is not asked.
            (test, View::Bytes) if test.is_of_requests() => return Truth::Yes,
            (Test::Remote(_), View::Requests) => return Truth::Open,
            (test, View::Requests) if test.is_of_requests() => return Truth::Open,
            (Test::Remote(nets), View::Bytes) => contain(nets, connection.peer),
            (Test::Remote(nets), View::Request(request)) => contain(nets, request.remote),
            (test, View::Request(request)) if test.is_of_requests() => of_request(test, request),
            (test, _) => of_connection(test, connection),
        };
        (found != self.negated).into()
    }
}

fn of_connection(test: &Test, connection: &Inbound<'_>) -> bool {
    let identified = |test: &dyn Fn(&Identity) -> bool| connection.identity.is_some_and(test);
    match test {
        Test::Principal(texts) => identified(&|identity| {
            let Identity { trust_domain, namespace, service_account } = identity;
            let pieces = [&**trust_domain, "/ns/", &**namespace, "/sa/", &**service_account];
            texts.iter().any(|text| text.matches_joined(&pieces))
        }),
        Test::Namespace(globs) => {
            identified(&|identity| globs.iter().any(|glob| glob.matches(&identity.namespace)))
        }
        Test::ServiceAccount(accounts) => identified(&|identity| {
            let is = |(namespace, name): &(Arc<str>, Arc<str>)| {
                *namespace == identity.namespace && *name == identity.service_account
            };
            accounts.iter().any(is)
        }),
        Test::TrustDomain(texts) => identified(&|identity| any(texts, identity.trust_domain.as_bytes())),
        Test::Peer(nets) => contain(nets, connection.peer),
        Test::DestinationAddress(nets) => contain(nets, connection.to.ip()),
        Test::DestinationPort(ports) => ports.contains(&connection.to.port()),
        Test::ServerName(texts) => any(texts, connection.sni.unwrap_or_default().as_bytes()),
        _ => false,
    }
}

fn of_request(test: &Test, request: &InboundRequest<'_>) -> bool {
    let head = request.head;
    match test {
        Test::RequestPrincipal(texts) => {
            request.claims.is_some_and(|claims| any(texts, claims.principal.as_bytes()))
        }
        Test::Claim(path, texts) => {
            request.claims.is_some_and(|claims| claims.any(path, |value| any(texts, value)))
        }
        Test::Host(texts) => texts.iter().any(|text| text.matches_any_case(authority(head).as_bytes())),
        Test::Authority(texts) => any(texts, authority(head).as_bytes()),
        Test::Method(texts) => any(texts, head.method.as_str().as_bytes()),
        Test::Path(paths) => paths.iter().any(|path| path.matches(head.uri.path())),
        Test::PathAndQuery(texts) => any(texts, path_and_query(head).as_bytes()),
        Test::Scheme(texts) => any(texts, scheme(head).as_bytes()),
        Test::Header(name, texts) => header(&head.headers, name, texts),
        _ => false,
    }
}

fn any(texts: &[Text], text: &[u8]) -> bool {
    texts.iter().any(|wanted| wanted.matches(text))
}

fn contain(nets: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    nets.iter().any(|net| net.contains(&address))
}

fn path_and_query(head: &Parts) -> &str {
    head.uri.path_and_query().map_or("/", |path| path.as_str())
}

/// An empty header is there too.
fn header(headers: &HeaderMap, name: &HeaderName, texts: &[Text]) -> bool {
    any_value(headers, name, |value| texts.iter().any(|text| *text == Text::Present || text.matches(value)))
}
