//! Forwarding: an endpoint is chosen and tried, others after it, within the route's time.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::EXPECT;
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use http_body::Body;
use tokio::time::Instant;
use weft_rules::registry::protocol::Protocol;
use weft_rules::route::http_route::{
    HttpRoute, MatchedHttpRoute, RetryPolicy, TryOutcome, WeightedDestination,
};
use weft_rules::upstream::cluster::Cluster;
use weft_telemetry::ResponseFlag;

use super::admit::{self, Arrival};
use super::attempt::{self, Answer, Endpoint, Failed};
use super::body::{ClientBody, Metered, Replay, RequestBody, ResponseBody};
use super::exchange::Exchange;
use super::interim::Gate;
use super::target::Escaped;
use super::upgrade::Switch;
use super::{MeteredRequestBody, headers, interim, local_reply, mirror, upgrade};
use crate::error::{Error, Kind};
use crate::tcp::PASSTHROUGH_CLUSTER;
use crate::upstream::Towards;

/// Forwards a request to one of its route's destinations.
pub(super) async fn by_route(
    exchange: &Rc<Exchange>,
    matched: &MatchedHttpRoute,
    mut request: Parts,
    mut body: ClientBody,
    upgrade: bool,
) -> Response<ResponseBody> {
    let route = &*matched.route;
    let Some(chosen) = route.pick(fastrand::u64(..)) else {
        return local_reply::failure(exchange, &Kind::NoCluster.into());
    };
    let down = &exchange.down;
    let cluster = match down.cluster(&chosen.destination) {
        Ok(cluster) => cluster,
        Err(unroutable) => return local_reply::failure(exchange, &Error::new(Kind::NoCluster, unroutable)),
    };
    exchange.note(|outcome| {
        outcome.upstream.service = Some(Arc::clone(&cluster.service));
        outcome.upstream.cluster = Some(Arc::clone(&cluster.name));
    });
    route.rewrite_request(chosen, matched.matched_prefix, &mut request);
    mirror::start(exchange, route, &request, &mut body);
    let http2 = match cluster.protocol {
        Protocol::Http => false,
        Protocol::Http2 => true,
        Protocol::Detect | Protocol::Tcp => request.version == Version::HTTP_2,
    };
    let forwarding = Forwarding {
        exchange,
        target: Target::Cluster(cluster),
        http2: http2 && !upgrade,
        upgrade,
        timeout: Timeout::of(
            route.timeout,
            exchange.grpc.then(|| headers::grpc_timeout(&request.headers)).flatten(),
        ),
        retry: route.retry.as_deref(),
        rewrite: Some((route, chosen)),
    };
    forwarding.run(request, body).await
}

/// Forwards a request to the address that was dialled.
pub(super) async fn passthrough(
    exchange: &Rc<Exchange>,
    request: Parts,
    body: ClientBody,
    upgrade: bool,
) -> Response<ResponseBody> {
    let dialled = exchange.down.dialled;
    let cluster = if exchange.down.is_inbound() {
        format!("inbound|{}||", dialled.port()).into()
    } else {
        PASSTHROUGH_CLUSTER.into()
    };
    exchange.note(|outcome| outcome.upstream.cluster = Some(cluster));
    let forwarding = Forwarding {
        exchange,
        target: Target::Address(dialled),
        http2: request.version == Version::HTTP_2 && !upgrade,
        upgrade,
        timeout: None,
        retry: None,
        rewrite: None,
    };
    forwarding.run(request, body).await
}

/// Where all tries of a request go.
#[derive(Debug)]
enum Target {
    Cluster(Arc<Cluster>),
    Address(SocketAddr),
}

/// How long a request may take, and from when.
#[derive(Debug, Clone, Copy)]
struct Timeout {
    limit: Duration,
    /// A route's timeout counts from the request's end, as in Envoy: an upload takes what it takes. A gRPC client's own
    /// counts from its beginning.
    from_start: bool,
}

impl Timeout {
    fn of(route: Option<Duration>, grpc: Option<Duration>) -> Option<Self> {
        match (route, grpc) {
            (route, Some(grpc)) => {
                Some(Self { limit: route.map_or(grpc, |route| route.min(grpc)), from_start: true })
            }
            (Some(limit), None) => Some(Self { limit, from_start: false }),
            (None, None) => None,
        }
    }
}

/// One request's way to an endpoint.
#[derive(Debug)]
struct Forwarding<'a> {
    exchange: &'a Rc<Exchange>,
    target: Target,
    http2: bool,
    upgrade: bool,
    timeout: Option<Timeout>,
    retry: Option<&'a RetryPolicy>,
    rewrite: Option<(&'a HttpRoute, &'a WeightedDestination)>,
}

/// A request that got no response from an endpoint.
#[derive(Debug)]
enum Ended {
    /// None could be had.
    Failed(Error),
    /// It is not let in: the client gets this answer.
    Refused(admit::Answer),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<admit::Answer> for Ended {
    fn from(answer: admit::Answer) -> Self {
        Self::Refused(answer)
    }
}

/// A request that can be sent again: its head, and its body as long as that is kept.
#[derive(Debug)]
struct Spare {
    head: Parts,
    body: Option<Replay<ClientBody>>,
}

impl Forwarding<'_> {
    async fn run(&self, mut request: Parts, body: ClientBody) -> Response<ResponseBody> {
        let started = Instant::now();
        if headers::address(&mut request, self.http2).is_err() {
            return local_reply::failure(self.exchange, &Kind::BadRequest.into());
        }
        let escaped = request.extensions.remove::<Escaped>();
        request.extensions.clear();
        if let Some(escaped) = escaped {
            request.extensions.insert(escaped);
        }
        let gate = self.gate(&mut request);
        let per_try = self.retry.and_then(|retry| retry.per_try_timeout);
        if let Some(limit) = per_try.or(self.timeout.map(|timeout| timeout.limit)) {
            headers::expect_within(&mut request.headers, limit);
        }
        let (body, spare) = self.keep(&request, body);
        let request = self.prepare(Request::from_parts(request, body), gate.as_ref());
        // Boxed: what calls this is moved several times on its way here, and would be as large.
        let tries = Box::pin(self.tries(request, spare, gate.as_ref()));
        let answered = tokio::select! {
            biased;
            answered = tries => answered,
            () = self.time_is_up(started) => Err(Ended::Failed(Kind::RequestTimeout.into())),
        };
        match answered {
            Ok(answer) => self.respond(answer, started, gate),
            Err(Ended::Failed(error)) => local_reply::failure(self.exchange, &error),
            Err(Ended::Refused(answer)) => *answer,
        }
    }

    /// `Expect: 100-continue` holds the body back until an HTTP/1.1 endpoint asks for it. HTTP/2 has no way to pass the
    /// asking on: there the body goes as it comes.
    fn gate(&self, request: &mut Parts) -> Option<Arc<Gate>> {
        if !headers::expects_continue(&request.headers) {
            return None;
        }
        if self.http2 || self.exchange.client.interim.is_none() {
            request.headers.remove(EXPECT);
            return None;
        }
        Some(Arc::default())
    }

    /// Connects a request with what its endpoint says before its response.
    fn prepare(
        &self,
        mut request: Request<RequestBody>,
        gate: Option<&Arc<Gate>>,
    ) -> Request<MeteredRequestBody> {
        if !self.http2 {
            interim::listen(&mut request, self.exchange.client.interim.as_ref(), gate);
        }
        request.map(|body| {
            let body = match gate {
                Some(gate) => body.held(Arc::clone(gate)),
                None => body,
            };
            Metered::new(body, &self.exchange.down.account)
        })
    }

    /// Keeps what a retry would need: only where a policy could ask for it.
    fn keep(&self, request: &Parts, body: ClientBody) -> (RequestBody, Option<Spare>) {
        let empty = body.is_end_stream();
        let needed = self.retry.is_some_and(|retry| {
            retry.attempts > 0 && (self.http2 || retry.needs_replay(self.exchange.grpc))
        });
        match (empty, needed) {
            (true, false) => (RequestBody::Empty, None),
            (true, true) => (RequestBody::Empty, Some(Spare { head: request.clone(), body: None })),
            (false, false) => (RequestBody::Stream(body), None),
            (false, true) => {
                let (replay, body) = Replay::new(body, Some(&self.exchange.down.account));
                (RequestBody::Kept(body), Some(Spare { head: request.clone(), body: Some(replay) }))
            }
        }
    }

    /// Tries endpoints until one answers for good.
    async fn tries(
        &self,
        request: Request<MeteredRequestBody>,
        spare: Option<Spare>,
        gate: Option<&Arc<Gate>>,
    ) -> Result<Answer, Ended> {
        let mut tried = Vec::new();
        let mut request = request;
        let mut attempt = 1;
        loop {
            if !self.exchange.down.is_inbound() {
                headers::count_attempt(request.headers_mut(), attempt);
            }
            self.exchange.note(|outcome| outcome.attempts = attempt);
            let endpoint = self.endpoint(&tried)?;
            if self.retry.is_some_and(|retry| retry.avoid_previous_hosts) {
                tried.push(endpoint.to.address);
            }
            let mut as_asked = None;
            if let Some(arrival) = Arrival::of(&self.exchange.down, self.exchange.destination(), &endpoint.to)
            {
                // Another endpoint may have to decide upon it anew.
                let again = self.retry.is_some_and(|retry| retry.attempts > 0);
                as_asked = again.then(|| (request.headers().clone(), request.uri().clone()));
                request = admit::admit(self.exchange, &arrival, request).await?;
            }
            let mut result = self.try_once(endpoint, request).await;
            if let (Err(Failed { unsent: Some(unsent), .. }), Some(head)) = (&mut result, as_asked) {
                *unsent.headers_mut() = head.0;
                *unsent.uri_mut() = head.1;
            }
            let again = match &result {
                Ok(answer) => self.wants_retry(
                    attempt,
                    &TryOutcome::Response { status: answer.head.status, headers: &answer.head.headers },
                ),
                Err(failed) => {
                    outcome_of(failed.error.kind).is_some_and(|outcome| self.wants_retry(attempt, &outcome))
                }
            };
            let next = if again { self.next_request(&mut result, spare.as_ref(), gate) } else { None };
            match (next, result) {
                (Some(next), result) => {
                    drop(result);
                    request = next;
                }
                (None, Ok(answer)) => {
                    if let Some(Spare { body: Some(replay), .. }) = &spare {
                        replay.release();
                    }
                    return Ok(answer);
                }
                (None, Err(failed)) => return Err(failed.error.into()),
            }
            if let Some(retry) = self.retry {
                tokio::time::sleep(retry.backoff(attempt, fastrand::u64(..))).await;
            }
            attempt += 1;
        }
    }

    /// Whether the policy wants such an outcome tried again; notes where only the count forbids it.
    fn wants_retry(&self, attempt: u32, outcome: &TryOutcome<'_>) -> bool {
        let Some(retry) = self.retry.filter(|retry| retry.attempts > 0 && retry.retries(outcome)) else {
            return false;
        };
        let left = attempt <= retry.attempts;
        if !left {
            self.exchange.note(|outcome| outcome.flag(ResponseFlag::UpstreamRetryLimitExceeded));
        }
        left
    }

    /// The request for another try: what was not sent, else what was kept. `None`: there is no such thing.
    fn next_request(
        &self,
        result: &mut Result<Answer, Failed>,
        spare: Option<&Spare>,
        gate: Option<&Arc<Gate>>,
    ) -> Option<Request<MeteredRequestBody>> {
        if let Err(Failed { unsent, .. }) = result
            && let Some(request) = unsent.take()
        {
            return Some(*request);
        }
        let spare = spare?;
        let body = match &spare.body {
            None => RequestBody::Empty,
            Some(replay) => RequestBody::Kept(replay.read()?),
        };
        Some(self.prepare(Request::from_parts(spare.head.clone(), body), gate))
    }

    async fn try_once(
        &self,
        endpoint: Endpoint,
        request: Request<MeteredRequestBody>,
    ) -> Result<Answer, Failed> {
        let down = &self.exchange.down;
        let sending = async {
            if self.upgrade {
                upgrade::send(down, endpoint, request).await
            } else {
                attempt::send(down, endpoint, request).await
            }
        };
        match self.retry.and_then(|retry| retry.per_try_timeout) {
            None => sending.await,
            Some(limit) => tokio::time::timeout(limit, sending)
                .await
                .unwrap_or_else(|_| Err(Failed { error: Kind::PerTryTimeout.into(), unsent: None })),
        }
    }

    /// Chooses an endpoint and notes it.
    fn endpoint(&self, tried: &[SocketAddr]) -> Result<Endpoint, Error> {
        let down = &self.exchange.down;
        let (to, in_use) = match &self.target {
            Target::Address(address) => (Towards::address(*address), None),
            Target::Cluster(cluster) => {
                let in_use = cluster
                    .pick(down.dialled, tried, fastrand::u64(..))
                    .ok_or(Error::from(Kind::NoHealthyUpstream))?;
                (Towards::endpoint(cluster, in_use.endpoint.address), Some(in_use))
            }
        };
        let address = to.address;
        let workload = match &in_use {
            Some(in_use) => in_use.endpoint.workload.clone(),
            None => down.decide(|snapshot, _| snapshot.workload_at(address.ip().to_canonical()).cloned()),
        };
        self.exchange.note(|outcome| {
            outcome.upstream.address = Some(address);
            outcome.upstream.workload = workload;
        });
        Ok(Endpoint { to, in_use, http2: self.http2 })
    }

    fn respond(&self, answer: Answer, started: Instant, gate: Option<Arc<Gate>>) -> Response<ResponseBody> {
        let Answer { head, body, lease, local_address, security, switched } = answer;
        let (took, deadline) = (self.since_sent(started).elapsed(), self.deadline(started));
        let mut answered = head.headers;
        let switched = switched.filter(|_| head.status == StatusCode::SWITCHING_PROTOCOLS);
        headers::admit_response(&mut answered, took, switched.is_some());
        if let Some((route, chosen)) = self.rewrite {
            route.rewrite_response(Some(chosen), &mut answered);
        }
        if let Some(added) = self.exchange.take_answer_headers() {
            answered.extend(*added);
        }
        headers::sign(&mut answered);
        self.exchange.note(|outcome| {
            outcome.status = head.status.as_u16();
            outcome.details = "via_upstream";
            outcome.upstream_time = Some(took);
            outcome.upstream.local_address = local_address;
            // Of what arrived, the caller's way here counts.
            if !self.exchange.down.is_inbound() {
                outcome.upstream.security = security;
            }
        });
        self.exchange.note_grpc_status(&answered);
        let exchange = Rc::clone(self.exchange);
        let body = match switched {
            Some(upstream) => {
                let switch = Switch { exchange: Rc::clone(&exchange), upstream, lease };
                self.exchange.client.switch.replace(Some(switch));
                ResponseBody::switching(exchange)
            }
            None => ResponseBody::endpoint(body, lease, deadline, gate, exchange),
        };
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        *response.headers_mut() = answered;
        response
    }

    /// From when the endpoint's time counts: the request's end, but not what came before it was forwarded. A request
    /// that is still on its way counts from its start.
    fn since_sent(&self, started: Instant) -> Instant {
        self.exchange.request_ended.get().map_or(started, |ended| ended.max(started))
    }

    async fn time_is_up(&self, started: Instant) {
        let Some(Timeout { limit, from_start }) = self.timeout else { return std::future::pending().await };
        let from =
            if from_start { self.exchange.begun } else { started.max(self.exchange.request_end().await) };
        tokio::time::sleep_until(from + limit).await;
    }

    /// When the response must be through. `None` also where the request is still being sent.
    fn deadline(&self, started: Instant) -> Option<Instant> {
        let Timeout { limit, from_start } = self.timeout?;
        let from =
            if from_start { self.exchange.begun } else { started.max(self.exchange.request_ended.get()?) };
        Some(from + limit)
    }
}

/// How the retry policy calls a failure; `None`: not to be retried.
fn outcome_of(kind: Kind) -> Option<TryOutcome<'static>> {
    match kind {
        Kind::ConnectFailure | Kind::ConnectTimeout => Some(TryOutcome::ConnectFailure),
        Kind::RefusedStream => Some(TryOutcome::RefusedStream),
        Kind::ConnectionTermination | Kind::RemoteReset | Kind::UpstreamProtocol => {
            Some(TryOutcome::Reset { request_sent: true })
        }
        Kind::PerTryTimeout => Some(TryOutcome::PerTryTimeout),
        Kind::NoRoute
        | Kind::NoCluster
        | Kind::NoHealthyUpstream
        | Kind::BlackHole
        | Kind::Denied
        | Kind::RequestTimeout
        | Kind::BadRequest
        | Kind::DownstreamGone
        | Kind::Overloaded => None,
    }
}
