//! A compiled HTTP route: what a match decided, and every effect on the request and its response as a function.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, StatusCode};

/// The route that a request matched, and how its path did.
#[derive(Debug, Clone)]
pub struct MatchedHttpRoute {
    /// The route.
    pub route: Arc<HttpRoute>,
    /// Length of the path prefix that matched, where a prefix did: what a rewrite replaces.
    pub matched_prefix: Option<usize>,
}

/// One of a VirtualService's `http` entries, or a service's default route.
#[derive(Debug)]
pub struct HttpRoute {
    /// The route's name as access logs have it; `default` for a default route.
    pub name: Arc<str>,
    /// `namespace/name` of the VirtualService; `None` for a default route.
    pub virtual_service: Option<Arc<str>>,
    /// What answers.
    pub action: HttpAction,
    /// Deadline over all tries; `None` is no deadline.
    pub timeout: Option<Duration>,
    /// Retries; `None` switches them off.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Faults to inject.
    pub fault: Option<Fault>,
    /// Where copies go.
    pub mirrors: Vec<Mirror>,
    /// Cross-origin policy.
    pub cors: Option<Cors>,
    /// Header operations of the route.
    pub headers: HeaderRules,
}

/// What answers a request.
#[derive(Debug)]
pub enum HttpAction {
    /// One of these, by weight.
    Forward(Vec<WeightedDestination>),
    /// A redirect.
    Redirect(Redirect),
    /// A fixed answer.
    Respond(DirectResponse),
}

/// A destination with its share.
#[derive(Debug)]
pub struct WeightedDestination {
    /// Where to.
    pub destination: Destination,
    /// Share of the sum of weights; 0 is never chosen.
    pub weight: u32,
    /// Header operations when this one is chosen.
    pub headers: HeaderRules,
}

/// A service by its full name, maybe a subset and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Full name, lower case.
    pub host: Arc<str>,
    /// Subset.
    pub subset: Option<Arc<str>>,
    /// Service port; `None`: the service's only one, or the one addressed.
    pub port: Option<u16>,
}

/// Header operations, compiled: names and values parsed once.
#[derive(Debug, Default)]
pub struct HeaderRules {}

/// `redirect`, compiled.
#[derive(Debug)]
pub struct Redirect {}

/// `directResponse`, compiled.
#[derive(Debug)]
pub struct DirectResponse {
    /// Status.
    pub status: StatusCode,
    /// Body; empty for none.
    pub body: bytes::Bytes,
}

/// A copy of the request.
#[derive(Debug)]
pub struct Mirror {
    /// Where to.
    pub destination: Destination,
    /// Share, in millionths.
    pub parts_per_million: u32,
}

/// `fault`, compiled.
#[derive(Debug)]
pub struct Fault {}

/// What a fault draws for one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FaultDraw {
    /// Wait so long first.
    pub delay: Option<Duration>,
    /// Then answer so instead of forwarding.
    pub abort: Option<Abort>,
}

/// How an injected abort answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// HTTP status; body `fault filter abort`.
    Http(StatusCode),
    /// gRPC status (200 with `grpc-status`, towards gRPC clients).
    Grpc(u32),
}

/// `corsPolicy`, compiled.
#[derive(Debug)]
pub struct Cors {}

/// `retries`, compiled.
#[derive(Debug)]
pub struct RetryPolicy {
    /// Retries after the first try.
    pub attempts: u32,
    /// Deadline of each try.
    pub per_try_timeout: Option<Duration>,
    /// Do not go where an earlier try went, if another endpoint exists.
    pub avoid_previous_hosts: bool,
}

/// How a try ended, for the retry decision.
#[derive(Debug)]
pub enum TryOutcome<'a> {
    /// The connection was not made.
    ConnectFailure,
    /// HTTP/2 REFUSED_STREAM: certainly not processed.
    RefusedStream,
    /// The connection ended before response headers. `request_sent`: some of the request was written.
    Reset {
        /// Whether any of the request was written.
        request_sent: bool,
    },
    /// The try's own deadline passed.
    PerTryTimeout,
    /// A response began.
    Response {
        /// Status.
        status: StatusCode,
        /// Headers (`grpc-status` of a trailers-only response counts).
        headers: &'a HeaderMap,
    },
}

impl HttpRoute {
    /// Chooses a destination by weight. `None` if the route does not forward.
    pub fn pick(&self, _seed: u64) -> Option<&WeightedDestination> {
        None
    }

    /// Applies `rewrite` and the request header operations of the route and of the chosen destination,
    /// `x-envoy-original-path` included.
    pub fn rewrite_request(
        &self,
        _chosen: &WeightedDestination,
        _matched_prefix: Option<usize>,
        _request: &mut Parts,
    ) {
    }

    /// Applies the response header operations of the route and of the chosen destination (`None` for redirects,
    /// direct responses and faults).
    pub fn rewrite_response(&self, _chosen: Option<&WeightedDestination>, _headers: &mut HeaderMap) {}
}

impl Redirect {
    /// Status and `location` for a request that came with `scheme` to port `addressed`.
    pub fn location(
        &self,
        _request: &Parts,
        _matched_prefix: Option<usize>,
        _scheme: &str,
        _addressed: u16,
    ) -> (StatusCode, String) {
        (StatusCode::MOVED_PERMANENTLY, String::new())
    }
}

impl Fault {
    /// Decides for one request.
    pub fn draw(&self, _seed: u64) -> FaultDraw {
        FaultDraw::default()
    }
}

impl Cors {
    /// The answer to a preflight that this policy answers itself; `None`: forward it.
    pub fn preflight(&self, _request: &Parts) -> Option<HeaderMap> {
        None
    }

    /// Adds the headers that an actual request's response needs.
    pub fn decorate(&self, _request_headers: &HeaderMap, _response_headers: &mut HeaderMap) {}
}

impl RetryPolicy {
    /// Whether a try that ended so may be repeated (the caller counts attempts). Reads the request's
    /// `x-envoy-retry-on` family no more than Istio's sidecars let callers do.
    pub fn retries(&self, _outcome: &TryOutcome<'_>) -> bool {
        false
    }

    /// Whether a try that reached its endpoint may be repeated, so that the request must be kept until its response
    /// begins. `grpc`: the request is gRPC, whose statuses count.
    pub fn needs_replay(&self, _grpc: bool) -> bool {
        true
    }

    /// How long to wait before retry number `retry` (from 1): exponential with full jitter.
    pub fn backoff(&self, _retry: u32, _seed: u64) -> Duration {
        Duration::ZERO
    }
}
