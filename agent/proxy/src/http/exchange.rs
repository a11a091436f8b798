//! One request and its response: what is known of them, and the record at their end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{HOST, UPGRADE, USER_AGENT};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Version};
use tokio::sync::Notify;
use tokio::time::Instant;
use weft_limits::Charge;
use weft_rules::route::http_route::HttpRoute;
use weft_rules::workload::Workload;
use weft_telemetry::{HttpRecord, ResponseFlag, Upstream};

use super::client::Client;
use super::half_close::Owed;
use super::headers::{self, X_FORWARDED_FOR};
use crate::connection::Downstream;
use crate::probe;

/// A request under way. Shared by its task and by both bodies; recorded once.
#[derive(Debug)]
pub(super) struct Exchange {
    /// The connection it came on.
    pub(super) client: Rc<Client>,
    /// Who opened that, and to where.
    pub(super) down: Rc<Downstream>,
    /// Who called.
    pub(super) caller: Arc<Workload>,
    /// When it began.
    pub(super) begun: Instant,
    /// Whether it is gRPC.
    pub(super) grpc: bool,
    /// Body bytes from the client.
    pub(super) request_bytes: Cell<u64>,
    /// Body bytes to the client.
    pub(super) response_bytes: Cell<u64>,
    /// When the request's last byte had come.
    pub(super) request_ended: Cell<Option<Instant>>,
    request_end: Notify,
    started: SystemTime,
    method: Method,
    target: Option<PathAndQuery>,
    /// It asks for another protocol.
    upgrade: bool,
    version: Version,
    authority: Option<HeaderValue>,
    request_id: RefCell<Option<HeaderValue>>,
    user_agent: Option<HeaderValue>,
    forwarded_for: Option<HeaderValue>,
    outcome: RefCell<Outcome>,
    recorded: Cell<bool>,
    /// What is paid for it, unless it is refused for that.
    _charge: Option<Charge>,
}

/// What became of it so far.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The route taken.
    pub(super) route: Option<Arc<HttpRoute>>,
    /// Where it went.
    pub(super) upstream: Upstream,
    /// Status sent; 0: none yet.
    pub(super) status: u16,
    /// gRPC status.
    pub(super) grpc_status: Option<u32>,
    /// Messages counted, both ways.
    pub(super) grpc_messages: (u64, u64),
    /// Envoy's details.
    pub(super) details: &'static str,
    /// Why the endpoint could not be reached.
    pub(super) failure: Option<String>,
    /// Time to response headers.
    pub(super) upstream_time: Option<Duration>,
    /// Tries made.
    pub(super) attempts: u32,
    /// Headers that an external authorizer gives to the client.
    pub(super) answer_headers: Option<Box<HeaderMap>>,
    flags: [Option<ResponseFlag>; 4],
}

impl Outcome {
    /// Adds a flag; it is there once.
    pub(super) fn flag(&mut self, flag: ResponseFlag) {
        for slot in &mut self.flags {
            if *slot == Some(flag) {
                return;
            }
            if slot.is_none() {
                *slot = Some(flag);
                return;
            }
        }
    }
}

impl Exchange {
    /// Begins with a request as the client sent it.
    pub(super) fn begin(client: &Rc<Client>, request: &Parts, charge: Option<Charge>) -> Rc<Self> {
        let headers = &request.headers;
        let down = &client.down;
        let mut outcome = Outcome::default();
        if let Some(caller) = down.visitor() {
            outcome.upstream.security = caller.security.clone();
            outcome.upstream.service = down.service_here();
            outcome.upstream.workload = Some(down.own_workload());
        }
        Rc::new(Self {
            client: Rc::clone(client),
            caller: down.decide(|_, caller| Arc::clone(caller)),
            down: Rc::clone(down),
            begun: Instant::now(),
            grpc: headers::is_grpc(headers),
            request_bytes: Cell::new(0),
            response_bytes: Cell::new(0),
            request_ended: Cell::new(None),
            request_end: Notify::new(),
            started: SystemTime::now(),
            method: request.method.clone(),
            target: request.uri.path_and_query().cloned(),
            upgrade: headers.contains_key(UPGRADE),
            version: request.version,
            authority: match request.uri.authority() {
                Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
                None => headers.get(HOST).cloned(),
            },
            request_id: RefCell::new(None),
            user_agent: headers.get(USER_AGENT).cloned(),
            forwarded_for: headers.get(X_FORWARDED_FOR).cloned(),
            outcome: RefCell::new(outcome),
            recorded: Cell::new(false),
            _charge: charge,
        })
    }

    /// Whether it is the node that asks, for what the pod's probes want, as it was sent.
    pub(super) fn is_probe(&self) -> bool {
        let path = self.target.as_ref().map_or("/", |target| target.as_str());
        probe::is_request(&self.down, &self.method, path, self.upgrade)
    }

    /// The pod that it was last sent to, where that is known.
    pub(super) fn destination(&self) -> Option<Arc<Workload>> {
        self.outcome.borrow().upstream.workload.clone()
    }

    /// Takes what an external authorizer gives to the client.
    pub(super) fn take_answer_headers(&self) -> Option<Box<HeaderMap>> {
        self.outcome.borrow_mut().answer_headers.take()
    }

    /// Changes what became of it.
    pub(super) fn note(&self, change: impl FnOnce(&mut Outcome)) {
        change(&mut self.outcome.borrow_mut());
    }

    /// Notes the request's id, once it has one.
    pub(super) fn note_request_id(&self, headers: &HeaderMap) {
        *self.request_id.borrow_mut() = headers.get(headers::X_REQUEST_ID).cloned();
    }

    /// Notes `grpc-status` where a response's head or trailers have it.
    pub(super) fn note_grpc_status(&self, headers: &HeaderMap) {
        if self.grpc
            && let Some(status) =
                headers.get("grpc-status").and_then(|status| status.to_str().ok()?.parse().ok())
        {
            self.note(|outcome| outcome.grpc_status = Some(status));
        }
    }

    /// The request's last byte has come.
    pub(super) fn end_request(&self) {
        if self.request_ended.get().is_none() {
            self.request_ended.set(Some(Instant::now()));
            self.request_end.notify_waiters();
            if let Some(half_close) = &self.client.half_close {
                half_close.seen();
            }
        }
    }

    /// Waits for [`Self::end_request`]. Cancel-safe.
    pub(super) async fn request_end(&self) -> Instant {
        loop {
            match self.request_ended.get() {
                Some(at) => return at,
                None => self.request_end.notified().await,
            }
        }
    }

    /// The client has left before the end.
    pub(super) fn abandoned(&self) {
        self.note(|outcome| {
            outcome.flag(ResponseFlag::DownstreamConnectionTermination);
            outcome.details = "downstream_remote_disconnect";
        });
        self.finish();
    }

    /// Reports the exchange, if it has not been.
    pub(super) fn finish(&self) {
        if self.recorded.replace(true) {
            return;
        }
        self.client.heads.answered();
        if let Some(half_close) = &self.client.half_close {
            half_close.owe(Owed::Nothing);
        }
        let outcome = self.outcome.borrow();
        let count = outcome.flags.iter().flatten().count();
        let mut flags = [ResponseFlag::NoRouteFound; 4];
        flags.iter_mut().zip(outcome.flags.iter().flatten()).for_each(|(to, from)| *to = *from);
        self.down.core.recorder.http(&HttpRecord {
            started: self.started,
            inbound: self.down.is_inbound(),
            source: Some(&self.caller).filter(|caller| !caller.namespace.is_empty()),
            downstream: self.down.peer,
            dialled: self.down.dialled,
            upstream: &outcome.upstream,
            method: &self.method,
            path: self.target.as_ref().map_or("", |target| target.as_str()),
            version: self.version,
            authority: self.authority.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default(),
            request_id: self.request_id.borrow().as_ref(),
            user_agent: self.user_agent.as_ref(),
            forwarded_for: self.forwarded_for.as_ref(),
            status: outcome.status,
            grpc_status: outcome.grpc_status,
            flags: &flags[..count],
            details: outcome.details,
            upstream_failure: outcome.failure.as_deref(),
            route: outcome.route.as_ref().map(|route| &*route.name),
            virtual_service: outcome.route.as_ref().and_then(|route| route.virtual_service.as_deref()),
            request_bytes: self.request_bytes.get(),
            response_bytes: self.response_bytes.get(),
            duration: self.begun.elapsed(),
            upstream_time: outcome.upstream_time,
            server_name: self.down.server_name(),
            attempts: outcome.attempts,
            grpc_messages: self.grpc.then_some(outcome.grpc_messages),
            mirrored: false,
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.finish();
    }
}
