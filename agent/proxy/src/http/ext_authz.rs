//! External authorizers: policies with action CUSTOM have somebody else asked, over HTTP ([`over_http`]) or gRPC
//! ([`over_grpc`]). Asked is from the destination's pod, as its sidecar would.

mod check;
mod decision;
mod over_grpc;
mod over_http;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, StatusCode, response};
use http_body_util::{BodyExt as _, Limited};
use weft_api::identity::Identity;
use weft_datapath::LocalPod;
use weft_rules::guard::provider::{Dialect, Provider};
use weft_rules::guard::{Consult, Denial};

use self::decision::Decision;
use self::over_grpc::{Asked, Ends};
use super::admit::{Arrival, Refused};
use super::attempt::{self, Answer, Endpoint};
use super::body::{Leased, LookAhead, Metered, Peeked, RequestBody};
use super::headers;
use crate::connection::Downstream;
use crate::core::Core;
use crate::upstream::Towards;

/// Largest answer of a provider.
const LARGEST_ANSWER: usize = 1024 * 1024;

/// Whom it is about: a caller, and the pod of this node that it calls.
#[derive(Debug, Clone)]
pub(crate) struct Parties {
    /// The server name that the client asked for in TLS, where that has ended at a gateway.
    pub(crate) server_name: Option<Box<str>>,
    /// The worker's.
    pub(crate) core: Rc<Core>,
    /// The pod that is called.
    pub(crate) pod: Arc<LocalPod>,
    /// At this address and port.
    pub(crate) to: SocketAddr,
    /// Who that is.
    pub(crate) own_identity: Identity,
    /// The caller's address.
    pub(crate) peer: SocketAddr,
    /// Who that is, where it is proved.
    pub(crate) identity: Option<Arc<Identity>>,
}

/// Why a provider has not decided.
#[derive(Debug, thiserror::Error)]
enum Undecided {
    #[error("no service {0} with port {1}")]
    NoService(Box<str>, u16),
    #[error("service {0} has no endpoint")]
    NoEndpoint(Box<str>),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the provider could not be asked: {0}")]
    Failed(String),
    #[error("the provider's answer is none (status {0})")]
    NoDecision(StatusCode),
}

/// Has a provider decide upon a request, looking at its body where the provider wants that, and changes the request as it
/// says. Answers headers for the client.
///
/// # Errors
/// It may not pass.
pub(super) async fn ask(
    parties: &Parties,
    consult: Consult,
    head: &mut Parts,
    body: &mut impl LookAhead,
) -> Result<HeaderMap, Refused> {
    let provider = parties.core.shared.snapshot.load().provider(&consult.provider).cloned();
    let Some(provider) = provider else {
        return Err(Refused::Policy(Denial { policy: Some(consult.policy), rule: None }));
    };
    let peeked = match provider.body {
        None => None,
        Some(wanted) => match body.look_ahead(wanted.max_request_bytes as usize).await {
            Ok(peeked) if !peeked.whole && !wanted.allow_partial_message => {
                let body = Bytes::from_static(b"Payload Too Large");
                return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, body, "request_payload_too_large"));
            }
            Ok(peeked) => Some((peeked, wanted.pack_as_bytes)),
            Err(_) => {
                return Err(refused(StatusCode::BAD_REQUEST, Bytes::new(), "downstream_remote_disconnect"));
            }
        },
    };
    let deciding = decide(parties, &provider, head, peeked.as_ref());
    let decided = tokio::time::timeout(provider.timeout, deciding).await;
    match decided.unwrap_or(Err(Undecided::Timeout(provider.timeout))) {
        Ok(Decision::Allowed(changes)) => {
            changes.apply(&mut head.headers);
            Ok(changes.answer)
        }
        Ok(Decision::Denied(answer)) => Err(Refused::Elsewhere {
            status: answer.status,
            headers: answer.headers,
            body: answer.body,
            details: "ext_authz_denied",
        }),
        Err(undecided) => {
            note(&consult, &provider, &undecided);
            if provider.fail_open {
                Ok(HeaderMap::new())
            } else {
                Err(refused(provider.status_on_error, Bytes::new(), "ext_authz_error"))
            }
        }
    }
}

/// Has a provider decide upon a connection of bytes. One that speaks HTTP cannot be asked, and, as in Istio, does not
/// refuse either.
pub(crate) async fn admits_connection(parties: &Parties, consult: &Consult) -> bool {
    let provider = parties.core.shared.snapshot.load().provider(&consult.provider).cloned();
    let Some(provider) = provider else { return false };
    if provider.dialect != Dialect::Grpc {
        return true;
    }
    let deciding = by_grpc(parties, &provider, None);
    let decided = tokio::time::timeout(provider.timeout, deciding).await;
    match decided.unwrap_or(Err(Undecided::Timeout(provider.timeout))) {
        Ok(decision) => matches!(decision, Decision::Allowed(_)),
        Err(undecided) => {
            note(consult, &provider, &undecided);
            provider.fail_open
        }
    }
}

fn refused(status: StatusCode, body: Bytes, details: &'static str) -> Refused {
    Refused::Elsewhere { status, headers: HeaderMap::new(), body, details }
}

fn note(consult: &Consult, provider: &Provider, undecided: &Undecided) {
    let Consult { provider: name, policy } = consult;
    tracing::debug!(provider = %name, %policy, %undecided, fail_open = provider.fail_open, "external authorizer");
}

async fn decide(
    parties: &Parties,
    provider: &Provider,
    head: &Parts,
    peeked: Option<&(Peeked, bool)>,
) -> Result<Decision, Undecided> {
    match &provider.dialect {
        Dialect::Http(check) => {
            let question = over_http::question(check, head, peeked.map(|(peeked, _)| peeked))
                .ok_or_else(|| Undecided::Failed("its path prefix is none".to_owned()))?;
            let (answer, body, _) = exchange(parties, provider, question, false).await?;
            over_http::decision(check, &answer, body).ok_or(Undecided::NoDecision(answer.status))
        }
        Dialect::Grpc => {
            let body = peeked.map(|(peeked, as_bytes)| (peeked, *as_bytes));
            by_grpc(parties, provider, Some(&Asked { head, body })).await
        }
    }
}

async fn by_grpc(
    parties: &Parties,
    provider: &Provider,
    asked: Option<&Asked<'_>>,
) -> Result<Decision, Undecided> {
    let ends = Ends {
        source: (parties.peer, parties.identity.as_deref()),
        destination: (parties.to, Some(&parties.own_identity)),
    };
    let message = over_grpc::message(ends, asked, SystemTime::now());
    let host = provider.service.rsplit('/').next().unwrap_or_default();
    let call = over_grpc::call(&format!("{host}:{}", provider.port), message, provider.timeout.as_millis())
        .ok_or_else(|| Undecided::Failed("its service is no host".to_owned()))?;
    let (answer, body, trailers) = exchange(parties, provider, call, true).await?;
    let succeeded = over_grpc::succeeded(&answer.headers, trailers.as_ref());
    succeeded.then(|| over_grpc::decision(&body)).flatten().ok_or(Undecided::NoDecision(answer.status))
}

/// Sends a question to one of the provider's endpoints.
async fn exchange(
    parties: &Parties,
    provider: &Provider,
    question: Request<RequestBody>,
    http2: bool,
) -> Result<(response::Parts, Bytes, Option<HeaderMap>), Undecided> {
    let core = &parties.core;
    let cluster = core.shared.snapshot.load().named_cluster(&provider.service, provider.port).cloned();
    let cluster = cluster.ok_or_else(|| Undecided::NoService(provider.service.clone(), provider.port))?;
    let anywhere = SocketAddr::new(parties.to.ip(), provider.port);
    let in_use = cluster
        .pick(anywhere, &[], fastrand::u64(..))
        .ok_or_else(|| Undecided::NoEndpoint(provider.service.clone()))?;
    let address = in_use.endpoint.address;
    let to = Towards::endpoint(&cluster, address);
    let own = SocketAddr::new(parties.to.ip(), 0);
    let down = Downstream::new(Rc::clone(core), Arc::clone(&parties.pod), own, address);
    let (head, question) = question.into_parts();
    if Arrival::of(&down, in_use.endpoint.workload.clone(), &to)
        .is_some_and(|arrival| !arrival.lets_in(&head))
    {
        return Err(Undecided::Failed("its own policies refuse it".to_owned()));
    }
    let question = Request::from_parts(head, Metered::new(question, &down.account));
    let answer = attempt::send(&down, Endpoint { to, in_use: Some(in_use), http2 }, question).await;
    let Answer { mut head, body, lease, .. } = answer.map_err(|failed| {
        Undecided::Failed(failed.error.cause().unwrap_or_else(|| failed.error.to_string()))
    })?;
    headers::strip_hop_by_hop(&mut head.headers, false);
    let collected = Limited::new(body, LARGEST_ANSWER).collect().await;
    let collected = collected.map_err(|error| Undecided::Failed(error.to_string()))?;
    if let Leased::Http1(connection) = lease.connection {
        core.pool.give_back(connection);
    }
    let trailers = collected.trailers().cloned();
    Ok((head, collected.to_bytes(), trailers))
}
