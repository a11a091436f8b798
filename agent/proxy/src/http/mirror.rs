//! Copies of requests: sent, reported as requests of their own, and forgotten. A copy's body is fed as the request's own passes;
//! a copy that cannot keep up is given up, the request is never slowed.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{EXPECT, HOST, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Version};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio::sync::Notify;
use tokio::time::Instant;
use weft_limits::Account;
use weft_limits::account::Buffered;
use weft_rules::registry::protocol::Protocol;
use weft_rules::route::http_route::{HttpRoute, Mirror};
use weft_rules::upstream::cluster::Cluster;
use weft_rules::workload::Workload;
use weft_telemetry::{CopyEnd, HttpRecord, Refusal, ResponseFlag, Security, Upstream};

use super::admit::{Arrival, Refused};
use super::attempt::{self, Endpoint};
use super::body::{BodyError, ClientBody, Leased, Metered, RequestBody};
use super::exchange::Exchange;
use super::headers;
use crate::connection::Downstream;
use crate::limits;
use crate::upstream::Towards;

/// A copy's body: what has passed and was not sent yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Feed(Rc<RefCell<State>>);

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Piece>,
    bytes: usize,
    /// Bytes that were sent on.
    passed: u64,
    /// Who pays for them; without, nobody counts.
    account: Option<Rc<Account>>,
    ended: bool,
    given_up: Option<CopyEnd>,
    /// Rings when it is given up: who reads its body may wait for its endpoint.
    gone: Rc<Notify>,
    waker: Option<Waker>,
}

#[derive(Debug)]
enum Piece {
    Data(Bytes, #[expect(dead_code, reason = "held for its drop")] Option<Buffered>),
    Trailers(HeaderMap),
}

impl Feed {
    /// A copy that `account` pays for; it is given up where that has no room.
    pub(in crate::http) fn paid_by(account: &Rc<Account>) -> Self {
        let state = State { account: Some(Rc::clone(account)), ..State::default() };
        Self(Rc::new(RefCell::new(state)))
    }

    /// A frame of the request passes.
    pub(in crate::http) fn push(&self, frame: &Frame<Bytes>) {
        self.change(|state| {
            if let Some(bytes) = frame.data_ref() {
                state.bytes += bytes.len();
                let paid = state.account.as_ref().map(|account| Buffered::new(account, bytes.len()));
                state.queue.push_back(Piece::Data(bytes.clone(), paid));
            } else if let Some(trailers) = frame.trailers_ref() {
                state.queue.push_back(Piece::Trailers(trailers.clone()));
            }
            if state.bytes > limits::MIRROR_BYTES
                || state.account.as_ref().is_some_and(|account| !account.may_buffer())
            {
                state.give_up(CopyEnd::TooSlow);
            }
        });
    }

    /// Waits until the copy is given up. Cancel-safe.
    async fn gone(&self) {
        let gone = Rc::clone(&self.0.borrow().gone);
        gone.notified().await;
    }

    /// The request's last byte has passed.
    pub(in crate::http) fn end(&self) {
        self.change(|state| state.ended = true);
    }

    /// The request has broken off.
    pub(in crate::http) fn break_off(&self) {
        self.change(|state| state.give_up(CopyEnd::BrokenOff));
    }

    pub(in crate::http) fn poll(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.0.borrow_mut();
        if state.given_up.is_some() {
            return Poll::Ready(Some(Err("the copy was given up".into())));
        }
        match state.queue.pop_front() {
            Some(Piece::Data(bytes, _)) => {
                state.bytes -= bytes.len();
                state.passed += bytes.len() as u64;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Some(Piece::Trailers(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            None if state.ended => Poll::Ready(None),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(in crate::http) fn is_end_stream(&self) -> bool {
        let state = self.0.borrow();
        state.ended && state.given_up.is_none() && state.queue.is_empty()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.borrow_mut();
        if state.given_up.is_none() {
            change(&mut state);
        }
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

impl State {
    fn give_up(&mut self, why: CopyEnd) {
        self.given_up = Some(why);
        self.queue = VecDeque::new();
        self.gone.notify_one();
    }
}

/// Starts the copies that a route asks for, and has the body feed them.
pub(super) fn start(exchange: &Rc<Exchange>, route: &HttpRoute, request: &Parts, body: &mut ClientBody) {
    let seed = fastrand::u64(..);
    for (index, mirror) in route.mirrors.iter().enumerate() {
        if mirror.draws(index, seed)
            && let Err(end) = send(exchange, (route, mirror), request, body)
        {
            exchange.down.core.recorder.copy(end);
        }
    }
}

/// # Errors
/// There is no copy, and this is why.
fn send(
    exchange: &Rc<Exchange>,
    (route, mirror): (&HttpRoute, &Mirror),
    request: &Parts,
    body: &mut ClientBody,
) -> Result<(), CopyEnd> {
    let down = &exchange.down;
    let core = &down.core;
    if core.mirrors.get() >= limits::MIRRORS {
        return Err(CopyEnd::TooMany);
    }
    let cluster = down.cluster(&mirror.destination).map_err(|_| CopyEnd::NoDestination)?;
    let in_use = cluster.pick(down.dialled, &[], fastrand::u64(..)).ok_or(CopyEnd::NoDestination)?;
    let http2 = match cluster.protocol {
        Protocol::Http => false,
        Protocol::Http2 => true,
        Protocol::Detect | Protocol::Tcp => request.version == Version::HTTP_2,
    };
    let mut copy = request.clone();
    copy.extensions.clear();
    copy.headers.remove(EXPECT);
    headers::address(&mut copy, http2).map_err(|_| CopyEnd::NoDestination)?;
    headers::count_attempt(&mut copy.headers, 1);
    let mut report = Report::new(exchange, route, request, &cluster);
    report.upstream.address = Some(in_use.endpoint.address);
    report.upstream.workload.clone_from(&in_use.endpoint.workload);
    let body = body.feed();
    if let RequestBody::Copy(feed) = &body {
        report.feed = Some(feed.clone());
    }
    let copy = Request::from_parts(copy, body);
    let endpoint =
        Endpoint { to: Towards::endpoint(&cluster, in_use.endpoint.address), in_use: Some(in_use), http2 };
    core.mirrors.set(core.mirrors.get() + 1);
    tokio::task::spawn_local(async move {
        let feed = report.feed.clone();
        let gone = async {
            match feed {
                Some(feed) => feed.gone().await,
                None => std::future::pending().await,
            }
        };
        let end = tokio::select! {
            sent = tokio::time::timeout(limits::MIRROR_TIMEOUT, exchange_copy(&mut report, endpoint, copy)) => {
                sent.unwrap_or(CopyEnd::TimedOut)
            }
            () = gone => CopyEnd::Failed,
        };
        let core = &report.down.core;
        core.mirrors.set(core.mirrors.get() - 1);
        report.end(end);
    });
    Ok(())
}

/// Sends a copy and reads its answer to the end, so that the connection can be used again.
async fn exchange_copy(report: &mut Report, endpoint: Endpoint, mut copy: Request<RequestBody>) -> CopyEnd {
    let down = Rc::clone(&report.down);
    let destination = endpoint.in_use.as_ref().and_then(|in_use| in_use.endpoint.workload.clone());
    if let Some(arrival) = Arrival::of(&down, destination, &endpoint.to) {
        match arrival.decide(copy).await {
            Ok(admitted) => {
                copy = admitted.request;
                report.upstream.dry_runs = admitted.dry_runs;
            }
            Err(refused) => {
                report.upstream.refused = Some(Box::new(match refused {
                    Refused::Policy(denial) => Refusal::Policy(denial),
                    Refused::Unproved => Refusal::Strict,
                    Refused::Token(..) | Refused::Elsewhere { .. } => Refusal::Elsewhere,
                }));
                let trust_domain = Arc::clone(&down.core.shared.trust_domain);
                report.upstream.security = Security::SameNode { trust_domain };
                return CopyEnd::Refused;
            }
        }
    }
    let copy = copy.map(|body| Metered::new(body, &down.account));
    let mut answer = match attempt::send(&down, endpoint, copy).await {
        Ok(answer) => answer,
        Err(failed) => {
            report.flag = failed.error.kind.flag();
            report.failure = failed.error.cause();
            return CopyEnd::Failed;
        }
    };
    report.status = answer.head.status.as_u16();
    report.upstream.security = answer.security.clone();
    report.upstream.local_address = answer.local_address;
    report.upstream_time = Some(report.begun.elapsed());
    if !discard(&mut answer.body, &report.response_bytes).await {
        report.flag = Some(ResponseFlag::UpstreamConnectionTermination);
        return CopyEnd::Failed;
    }
    if let Leased::Http1(connection) = answer.lease.connection {
        down.core.pool.give_back(connection);
    }
    CopyEnd::Answered
}

/// What is told of a copy at its end.
#[derive(Debug)]
struct Report {
    down: Rc<Downstream>,
    caller: Arc<Workload>,
    begun: Instant,
    started: SystemTime,
    method: Method,
    path: String,
    version: Version,
    authority: String,
    request_id: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    route: String,
    virtual_service: Option<Arc<str>>,
    upstream: Upstream,
    feed: Option<Feed>,
    status: u16,
    flag: Option<ResponseFlag>,
    failure: Option<String>,
    upstream_time: Option<Duration>,
    response_bytes: Cell<u64>,
}

impl Report {
    fn new(exchange: &Rc<Exchange>, route: &HttpRoute, request: &Parts, cluster: &Cluster) -> Self {
        let authority = match request.uri.authority() {
            Some(authority) => Some(authority.as_str()),
            None => request.headers.get(HOST).and_then(|value| value.to_str().ok()),
        };
        Self {
            down: Rc::clone(&exchange.down),
            caller: Arc::clone(&exchange.caller),
            begun: Instant::now(),
            started: SystemTime::now(),
            method: request.method.clone(),
            path: request.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            version: request.version,
            authority: authority.unwrap_or_default().to_owned(),
            request_id: request.headers.get(headers::X_REQUEST_ID).cloned(),
            user_agent: request.headers.get(USER_AGENT).cloned(),
            route: format!("{} (mirror)", route.name),
            virtual_service: route.virtual_service.clone(),
            upstream: Upstream {
                service: Some(Arc::clone(&cluster.service)),
                cluster: Some(Arc::clone(&cluster.name)),
                ..Upstream::default()
            },
            feed: None,
            status: 0,
            flag: None,
            failure: None,
            upstream_time: None,
            response_bytes: Cell::new(0),
        }
    }

    /// Reports the copy as a request to where it went.
    fn end(self, end: CopyEnd) {
        let (passed, given_up) = match &self.feed {
            Some(feed) => (feed.0.borrow().passed, feed.0.borrow().given_up),
            None => (0, None),
        };
        // Who gave it up knows better than who saw it break off.
        let end = if end == CopyEnd::Answered { end } else { given_up.unwrap_or(end) };
        let recorder = &self.down.core.recorder;
        recorder.copy(end);
        let flag = if given_up.is_some() { None } else { self.flag };
        recorder.http(&HttpRecord {
            started: self.started,
            inbound: false,
            source: Some(&self.caller).filter(|caller| !caller.namespace.is_empty()),
            downstream: self.down.peer,
            dialled: self.down.dialled,
            upstream: &self.upstream,
            method: &self.method,
            path: &self.path,
            version: self.version,
            authority: &self.authority,
            request_id: self.request_id.as_ref(),
            user_agent: self.user_agent.as_ref(),
            forwarded_for: None,
            status: self.status,
            grpc_status: None,
            flags: flag.as_slice(),
            details: end.details(),
            upstream_failure: self.failure.as_deref(),
            route: Some(&self.route),
            virtual_service: self.virtual_service.as_deref(),
            request_bytes: passed,
            response_bytes: self.response_bytes.get(),
            duration: self.begun.elapsed(),
            upstream_time: self.upstream_time,
            server_name: None,
            attempts: 1,
            grpc_messages: None,
            mirrored: true,
        });
    }
}

async fn discard(body: &mut Incoming, bytes: &Cell<u64>) -> bool {
    loop {
        match std::future::poll_fn(|context| std::pin::Pin::new(&mut *body).poll_frame(context)).await {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                bytes.set(bytes.get() + length as u64);
            }
            Some(Err(_)) => return false,
            None => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn next(feed: &Feed) -> Option<Result<usize, String>> {
        let frame = poll_fn(|context| feed.poll(context)).await?;
        Some(frame.map(|frame| frame.data_ref().map_or(0, Bytes::len)).map_err(|error| error.to_string()))
    }

    #[tokio::test]
    async fn a_copy_follows_its_request() {
        let feed = Feed::default();
        feed.push(&Frame::data(Bytes::from_static(b"abc")));
        assert_eq!(next(&feed).await, Some(Ok(3)));
        let (heard, ()) = tokio::join!(next(&feed), async {
            tokio::task::yield_now().await;
            feed.push(&Frame::data(Bytes::from_static(b"d")));
            feed.end();
        });
        assert_eq!(heard, Some(Ok(1)));
        assert!(feed.is_end_stream());
        assert_eq!(next(&feed).await, None);
    }

    #[tokio::test]
    async fn a_copy_that_is_too_slow_is_given_up() {
        let feed = Feed::default();
        for _ in 0..3 {
            feed.push(&Frame::data(Bytes::from(vec![0; limits::MIRROR_BYTES / 2])));
        }
        assert!(next(&feed).await.unwrap().is_err());
        assert!(feed.0.borrow().queue.is_empty());
        // That its request then breaks off changes nothing.
        feed.break_off();
        assert_eq!(feed.0.borrow().given_up, Some(CopyEnd::TooSlow));
    }
}
