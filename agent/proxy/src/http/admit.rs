//! A request at its destination's node: whether the pod's policies let it in. Tokens first, then external authorizers, then
//! the rules, as Istio orders its filters. Requests that arrive, plain or by tunnel, come through here, and those between
//! pods of this node, at the same point: after an endpoint is chosen, before it is sent.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use weft_rules::guard::{Denial, DryRun, DryRuns, Guard, Inbound, InboundRequest, Mtls, RequestVerdict};
use weft_rules::path;
use weft_rules::workload::Workload;
use weft_telemetry::{Refusal, ResponseFlag, Security};

use super::authenticate::{self, authenticate};
use super::body::{LookAhead, ResponseBody};
use super::exchange::Exchange;
use super::ext_authz::{self, Parties};
use super::headers::{self, X_FORWARDED_FOR};
use super::local_reply;
use crate::connection::{self, Downstream};
use crate::error::{Error, Kind};
use crate::inbound;
use crate::tokens;
use crate::upstream::Towards;

/// The answer to a request that is not let in.
pub(super) type Answer = Box<Response<ResponseBody>>;

/// A request that may pass.
#[derive(Debug)]
pub(super) struct Admitted<B> {
    /// The request.
    pub(super) request: Request<B>,
    /// Headers that an external authorizer gives to the client.
    pub(super) answer_headers: HeaderMap,
    /// What policies that are tried out say of it.
    pub(super) dry_runs: Vec<DryRun>,
}

/// Why a request may not.
#[derive(Debug)]
pub(super) enum Refused {
    /// Its token, and the URL that was asked for.
    Token(tokens::Refusal, String),
    /// An external authorizer, with this answer.
    Elsewhere {
        /// Status.
        status: StatusCode,
        /// Headers.
        headers: HeaderMap,
        /// Body.
        body: Bytes,
        /// Envoy's details.
        details: &'static str,
    },
    /// A policy.
    Policy(Denial),
    /// PeerAuthentication STRICT: the caller has no identity.
    Unproved,
}

/// Decides upon the request of an exchange.
///
/// # Errors
/// It is not let in: the client gets this answer.
pub(super) async fn admit<B: LookAhead>(
    exchange: &Rc<Exchange>,
    arrival: &Arrival,
    request: Request<B>,
) -> Result<Request<B>, Answer> {
    if exchange.is_probe() {
        exchange.note(|outcome| outcome.upstream.probe = true);
        return Ok(request);
    }
    match arrival.decide(request).await {
        Ok(Admitted { request, answer_headers, dry_runs }) => {
            if !dry_runs.is_empty() {
                exchange.note(|outcome| outcome.upstream.dry_runs = dry_runs);
            }
            if !answer_headers.is_empty() {
                exchange.note(|outcome| outcome.answer_headers = Some(answer_headers.into()));
            }
            Ok(request)
        }
        Err(refused) => {
            if !exchange.down.arrived() && arrival.parties.identity.is_some() {
                let trust_domain = Arc::clone(&exchange.down.core.shared.trust_domain);
                exchange.note(|outcome| outcome.upstream.security = Security::SameNode { trust_domain });
            }
            Err(Box::new(answer(exchange, refused)))
        }
    }
}

fn answer(exchange: &Rc<Exchange>, refused: Refused) -> Response<ResponseBody> {
    match refused {
        Refused::Token(refusal, realm) => {
            let (status, headers) = authenticate::refusal_head(refusal, &realm);
            let answer = local_reply::plain_with(exchange, status, headers, refusal.to_string().into());
            exchange.note(|outcome| outcome.details = refusal.details());
            answer
        }
        Refused::Elsewhere { status, headers, body, details } => {
            let answer = local_reply::plain_with(exchange, status, headers, body);
            exchange.note(|outcome| {
                outcome.flag(ResponseFlag::UnauthorizedExternalService);
                outcome.upstream.refused = Some(Box::new(Refusal::Elsewhere));
                outcome.details = details;
            });
            answer
        }
        Refused::Unproved => {
            let error = Error::refused(Kind::ConnectionTermination, Refusal::Strict);
            local_reply::failure(exchange, &error)
        }
        Refused::Policy(denial) => {
            let body = Bytes::from_static(b"RBAC: access denied");
            let answer = local_reply::plain(exchange, StatusCode::FORBIDDEN, body);
            exchange.note(|outcome| outcome.upstream.refused = Some(Box::new(Refusal::Policy(denial))));
            answer
        }
    }
}

/// A request that is about to reach a program in a pod of this node.
#[derive(Debug)]
pub(super) struct Arrival {
    /// What the pod lets in; `None`: everything.
    guard: Option<Arc<Guard>>,
    /// What is tried out there.
    dry_runs: Option<Arc<DryRuns>>,
    /// The pod lets in callers with an identity only, and this one has none: it was let in before that was so.
    unproved: bool,
    parties: Parties,
}

impl Arrival {
    /// `None`: it goes elsewhere, or to a pod that lets in everything. The latter costs two look-ups.
    pub(super) fn of(down: &Downstream, destination: Option<Arc<Workload>>, to: &Towards) -> Option<Self> {
        let shared = &down.core.shared;
        let snapshot = shared.snapshot.load();
        let identity_of = |workload: &Workload| workload.identity(&shared.trust_domain);
        if down.is_inbound() {
            let workload = connection::workload_of(&snapshot, &down.pod);
            let parties = Parties {
                core: Rc::clone(&down.core),
                pod: Arc::clone(&down.pod),
                to: to.address,
                own_identity: identity_of(&workload),
                peer: down.peer,
                identity: down.identity().cloned(),
                server_name: None,
            };
            let unproved = inbound::is_unproved(down, &workload);
            let (guard, dry_runs) = snapshot.guard_and_dry_runs(&workload);
            let guard = guard.filter(|_| !inbound::came_between(down)).cloned();
            return Some(Self { guard, dry_runs: dry_runs.cloned(), unproved, parties });
        }
        let address = to.address.ip().to_canonical();
        let pods = shared.pods.load();
        let pod = pods.get(&address)?;
        let workload = match destination {
            Some(workload) if workload.key == pod.network.key => workload,
            _ => connection::workload_of(&snapshot, pod),
        };
        let (guard, dry_runs) = snapshot.guard_and_dry_runs(&workload);
        let mtls = snapshot.mtls(&workload, to.address.port());
        let unproved = mtls == Mtls::Strict && to.is_plaintext();
        if guard.is_none() && dry_runs.is_none() && !unproved {
            return None;
        }
        let from = down.source_towards(address)?;
        let proved = !to.is_plaintext() && mtls != Mtls::Disable;
        let identity = proved.then(|| Arc::new(down.decide(|_, caller| identity_of(caller))));
        let parties = Parties {
            core: Rc::clone(&down.core),
            pod: Arc::clone(pod),
            to: to.address,
            own_identity: identity_of(&workload),
            peer: SocketAddr::new(from, down.peer.port()),
            identity,
            server_name: None,
        };
        Some(Self { guard: guard.cloned(), dry_runs: dry_runs.cloned(), unproved, parties })
    }

    /// A request that came to a gateway pod, whose own policies decide first. `None`: it lets in everything.
    pub(super) fn at_gateway(down: &Downstream) -> Option<Self> {
        let shared = &down.core.shared;
        let snapshot = shared.snapshot.load();
        let workload = connection::workload_of(&snapshot, &down.pod);
        let (guard, dry_runs) = snapshot.guard_and_dry_runs(&workload);
        if guard.is_none() && dry_runs.is_none() {
            return None;
        }
        let parties = Parties {
            core: Rc::clone(&down.core),
            pod: Arc::clone(&down.pod),
            to: down.dialled,
            own_identity: workload.identity(&shared.trust_domain),
            peer: down.peer,
            identity: down.identity().cloned(),
            server_name: down.server_name().map(Into::into),
        };
        Some(Self { guard: guard.cloned(), dry_runs: dry_runs.cloned(), unproved: false, parties })
    }

    /// Decides, and changes the request as tokens and external authorizers have it.
    ///
    /// # Errors
    /// It may not pass.
    pub(super) async fn decide<B: LookAhead>(&self, request: Request<B>) -> Result<Admitted<B>, Refused> {
        if self.unproved {
            return Err(Refused::Unproved);
        }
        let (mut head, mut body) = request.into_parts();
        let (mut answer_headers, mut claims) = (HeaderMap::new(), None);
        if let Some(guard) = &self.guard {
            // Rules at the source may have made another path of a normal one.
            let paths = self.parties.core.shared.snapshot.load().path_normalization();
            if path::settle(&mut head.uri, paths).is_err() {
                return Err(Refused::Policy(Denial { policy: None, rule: None }));
            }
            claims = match guard.tokens() {
                [] => None,
                rules => {
                    let realm = authenticate::realm(&head);
                    let keyring = &self.parties.core.shared.keyring;
                    let checked = authenticate(keyring, rules, &mut head, SystemTime::now()).await;
                    checked.map_err(|refusal| Refused::Token(refusal, realm))?.map(Arc::new)
                }
            };
            // For routes that ask for claims.
            if let Some(claims) = &claims {
                head.extensions.insert(Arc::clone(claims));
            }
            let connection = self.connection();
            let remote = remote_of(&head.headers, connection.peer);
            let asked = InboundRequest { head: &head, remote, claims: claims.as_deref() };
            if let Some(consult) = guard.consult(&connection, &asked) {
                // Seldom asked, and large: requests that ask nobody need no room for it.
                let asking = Box::pin(ext_authz::ask(&self.parties, consult, &mut head, &mut body));
                answer_headers = asking.await?;
            }
            let asked = InboundRequest { head: &head, remote, claims: claims.as_deref() };
            if let RequestVerdict::Denied(denial) = guard.admit_request(&connection, &asked) {
                return Err(Refused::Policy(denial));
            }
        }
        let dry_runs = self.dry_runs.as_ref().map_or_else(Vec::new, |dry_runs| {
            let connection = self.connection();
            let remote = remote_of(&head.headers, connection.peer);
            let asked = InboundRequest { head: &head, remote, claims: claims.as_deref() };
            dry_runs.judge(self.guard.as_deref(), &connection, Some(&asked))
        });
        self.tell(&mut head.headers);
        Ok(Admitted { request: Request::from_parts(head, body), answer_headers, dry_runs })
    }

    /// Whether the rules let in a request of weft's own, which has no token and about which nobody else is asked.
    pub(super) fn lets_in(&self, head: &Parts) -> bool {
        let Some(guard) = &self.guard else { return true };
        let connection = self.connection();
        let asked = InboundRequest { head, remote: connection.peer, claims: None };
        guard.admit_request(&connection, &asked) == RequestVerdict::Allowed
    }

    fn connection(&self) -> Inbound<'_> {
        Inbound {
            identity: self.parties.identity.as_deref(),
            peer: self.parties.peer.ip().to_canonical(),
            to: self.parties.to,
            sni: self.parties.server_name.as_deref(),
        }
    }

    /// Tells the program who calls, where that is proved. What others said of it was removed before.
    fn tell(&self, headers: &mut HeaderMap) {
        let own = &self.parties.own_identity;
        if let Some(identity) = &self.parties.identity
            && let Ok(value) = HeaderValue::try_from(format!("By={own};URI={identity}"))
        {
            // A gateway has told more by now.
            headers.entry(headers::X_FORWARDED_CLIENT_CERT).or_insert(value);
        }
    }
}

/// The client's address, as Envoy has it behind Istio's inbound listener: the last one that `x-forwarded-for` names, which is
/// what the proxy before has seen; without any, the caller's own.
fn remote_of(headers: &HeaderMap, peer: IpAddr) -> IpAddr {
    let last = headers.get_all(X_FORWARDED_FOR).iter().next_back().and_then(|line| line.to_str().ok());
    let last = last.and_then(|line| line.rsplit(',').next()).map(str::trim);
    let address =
        last.and_then(|text| text.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip())));
    IpAddr::to_canonical(&address.unwrap_or(peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_forwarded_address_is_the_clients() {
        let remote = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(X_FORWARDED_FOR, HeaderValue::from_static(line));
            }
            remote_of(&headers, "10.0.0.9".parse().unwrap()).to_string()
        };
        assert_eq!(remote(&[]), "10.0.0.9");
        assert_eq!(remote(&["1.1.1.1"]), "1.1.1.1");
        assert_eq!(remote(&["1.1.1.1, 2.2.2.2"]), "2.2.2.2");
        assert_eq!(remote(&["1.1.1.1", "3.3.3.3,::ffff:4.4.4.4"]), "4.4.4.4");
        assert_eq!(remote(&["5.5.5.5:80"]), "5.5.5.5");
        assert_eq!(remote(&["unknown"]), "10.0.0.9");
    }
}
