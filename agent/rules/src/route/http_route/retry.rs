//! `retries`, compiled.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use weft_api::istio::HttpRetry;

use crate::draw::{Use, draw};

/// Retries after the first, where nothing says otherwise.
const DEFAULT_ATTEMPTS: u32 = 2;
/// What is retried, where nothing says otherwise.
const DEFAULT_CONDITIONS: &str = "connect-failure,refused-stream,unavailable,cancelled";
/// Base of the backoff, where nothing says otherwise.
const DEFAULT_BACKOFF: Duration = Duration::from_millis(25);
/// The longest backoff, as a multiple of its base.
const BACKOFF_CAP: u32 = 10;

/// When a try is repeated, how often, and after how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Retries after the first try.
    pub attempts: u32,
    /// Deadline of each try.
    pub per_try_timeout: Option<Duration>,
    /// Do not go where an earlier try went, if another endpoint exists.
    pub avoid_previous_hosts: bool,
    conditions: Vec<Condition>,
    statuses: Vec<u16>,
    backoff: Duration,
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

/// A token of `retryOn`. Source: Envoy's router filter, `x-envoy-retry-on` and `x-envoy-retry-grpc-on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    AnyServerError,
    GatewayError,
    Reset,
    ResetBeforeRequest,
    ConnectFailure,
    RefusedStream,
    Conflict,
    RateLimited,
    Grpc(u32),
}

impl Condition {
    /// `None`: a token that can never hold here (HTTP/3, headers that Istio has no field for).
    fn parse(token: &str) -> Option<Self> {
        Some(match token {
            "5xx" => Self::AnyServerError,
            "gateway-error" => Self::GatewayError,
            "reset" => Self::Reset,
            "reset-before-request" => Self::ResetBeforeRequest,
            "connect-failure" => Self::ConnectFailure,
            "refused-stream" => Self::RefusedStream,
            "retriable-4xx" => Self::Conflict,
            "envoy-ratelimited" => Self::RateLimited,
            "cancelled" => Self::Grpc(1),
            "deadline-exceeded" => Self::Grpc(4),
            "resource-exhausted" => Self::Grpc(8),
            "internal" => Self::Grpc(13),
            "unavailable" => Self::Grpc(14),
            _ => return None,
        })
    }
}

impl Default for RetryPolicy {
    /// Istio's own default: two retries of what certainly was not processed.
    fn default() -> Self {
        let mut policy = Self {
            attempts: DEFAULT_ATTEMPTS,
            per_try_timeout: None,
            avoid_previous_hosts: true,
            conditions: Vec::new(),
            statuses: Vec::new(),
            backoff: DEFAULT_BACKOFF,
        };
        policy.set_conditions(DEFAULT_CONDITIONS);
        policy
    }
}

impl RetryPolicy {
    /// Compiles `retries`. What it leaves out is as in Istio's default. `None`: retries are off.
    pub(crate) fn compile(source: &HttpRetry) -> Option<Self> {
        let attempts = u32::try_from(source.attempts).ok().filter(|attempts| *attempts > 0)?;
        let mut policy = Self { attempts, ..Self::default() };
        if let Some(tokens) = source.retry_on.as_deref().filter(|tokens| !tokens.trim().is_empty()) {
            policy.set_conditions(tokens);
        }
        policy.per_try_timeout = source.per_try_timeout.map(|span| span.0).filter(|span| !span.is_zero());
        policy.avoid_previous_hosts = source.retry_ignore_previous_hosts.unwrap_or(true);
        policy.backoff = source.backoff.map_or(DEFAULT_BACKOFF, |span| span.0).max(Duration::from_millis(1));
        Some(policy)
    }

    fn set_conditions(&mut self, tokens: &str) {
        let tokens = || tokens.split(',').map(str::trim);
        self.conditions = tokens().filter_map(Condition::parse).collect();
        self.statuses = tokens().filter_map(|token| token.parse().ok()).collect();
    }

    fn has(&self, any_of: &[Condition]) -> bool {
        any_of.iter().any(|condition| self.conditions.contains(condition))
    }

    /// Whether a try that ended so may be repeated (the caller counts attempts). A client's `x-envoy-retry-on` is
    /// not read.
    pub fn retries(&self, outcome: &TryOutcome<'_>) -> bool {
        use Condition::{
            AnyServerError, ConnectFailure, GatewayError, RefusedStream, Reset, ResetBeforeRequest,
        };
        // Envoy counts every reset as a 5xx and as a gateway error.
        let any_reset = [AnyServerError, GatewayError, Reset];
        match outcome {
            TryOutcome::ConnectFailure => {
                self.has(&any_reset) || self.has(&[ConnectFailure, ResetBeforeRequest])
            }
            TryOutcome::RefusedStream => self.has(&any_reset) || self.has(&[RefusedStream]),
            TryOutcome::Reset { request_sent } => {
                self.has(&any_reset) || (!request_sent && self.has(&[ResetBeforeRequest]))
            }
            TryOutcome::PerTryTimeout => self.has(&any_reset),
            TryOutcome::Response { status, headers } => self.retries_response(*status, headers),
        }
    }

    fn retries_response(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let status = status.as_u16();
        if headers.contains_key("x-envoy-ratelimited") {
            return self.has(&[Condition::RateLimited]);
        }
        let by_status = match status {
            502..=504 => self.has(&[Condition::AnyServerError, Condition::GatewayError]),
            500..=599 => self.has(&[Condition::AnyServerError]),
            409 => self.has(&[Condition::Conflict]),
            _ => false,
        };
        by_status || self.statuses.contains(&status) || self.retries_grpc(headers)
    }

    fn retries_grpc(&self, headers: &HeaderMap) -> bool {
        let status = headers.get("grpc-status").and_then(|value| value.to_str().ok());
        let Some(code) = status.and_then(|text| text.trim().parse().ok()) else { return false };
        self.has(&[Condition::Grpc(code)])
    }

    /// Whether a try that reached its endpoint may be repeated, so that the request must be kept until its response
    /// begins. `grpc`: the request is gRPC, whose statuses count.
    pub fn needs_replay(&self, grpc: bool) -> bool {
        let after_sending = |condition: &Condition| match condition {
            Condition::ConnectFailure | Condition::ResetBeforeRequest => false,
            // Only HTTP/2 endpoints refuse streams; which kind this one is, nobody knows here.
            Condition::RefusedStream | Condition::Grpc(_) => grpc,
            _ => true,
        };
        !self.statuses.is_empty() || self.conditions.iter().any(after_sending)
    }

    /// How long to wait before retry number `retry` (from 1): exponential with full jitter.
    pub fn backoff(&self, retry: u32, seed: u64) -> Duration {
        let doublings = retry.saturating_sub(1).min(16);
        let longest =
            self.backoff.saturating_mul(1 << doublings).min(self.backoff.saturating_mul(BACKOFF_CAP));
        let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX).max(1);
        Duration::from_nanos(draw(seed, Use::Backoff).u64(0..nanos))
    }

    /// What is retried, comma-separated.
    pub(crate) fn conditions(&self) -> String {
        let conditions = self.conditions.iter().map(|condition| condition_name(*condition));
        conditions.chain(self.statuses.iter().map(u16::to_string)).collect::<Vec<_>>().join(",")
    }
}

fn condition_name(condition: Condition) -> String {
    match condition {
        Condition::AnyServerError => "5xx",
        Condition::GatewayError => "gateway-error",
        Condition::Reset => "reset",
        Condition::ResetBeforeRequest => "reset-before-request",
        Condition::ConnectFailure => "connect-failure",
        Condition::RefusedStream => "refused-stream",
        Condition::Conflict => "retriable-4xx",
        Condition::RateLimited => "envoy-ratelimited",
        Condition::Grpc(1) => "cancelled",
        Condition::Grpc(4) => "deadline-exceeded",
        Condition::Grpc(8) => "resource-exhausted",
        Condition::Grpc(13) => "internal",
        Condition::Grpc(_) => "unavailable",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(retry_on: &str) -> RetryPolicy {
        let source = HttpRetry { attempts: 3, retry_on: Some(retry_on.into()), ..Default::default() };
        RetryPolicy::compile(&source).unwrap()
    }

    #[test]
    fn tokens_decide_what_is_retried() {
        let none = HeaderMap::new();
        let grpc = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "14".parse().unwrap())]);
        let limited =
            HeaderMap::from_iter([("x-envoy-ratelimited".parse().unwrap(), "true".parse().unwrap())]);
        let response = |status: u16, headers| TryOutcome::Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
        };
        let default = RetryPolicy::default();
        assert!(default.retries(&TryOutcome::ConnectFailure));
        assert!(default.retries(&TryOutcome::RefusedStream));
        assert!(!default.retries(&TryOutcome::Reset { request_sent: true }));
        assert!(!default.retries(&response(503, &none)));
        assert!(default.retries(&response(200, &grpc)));
        for (token, status) in [
            ("cancelled", "1"),
            ("deadline-exceeded", "4"),
            ("resource-exhausted", "8"),
            ("internal", "13"),
            ("unavailable", "14"),
        ] {
            let said = HeaderMap::from_iter([("grpc-status".parse().unwrap(), status.parse().unwrap())]);
            let answer = TryOutcome::Response { status: StatusCode::OK, headers: &said };
            assert!(policy(token).retries(&answer), "{token}");
            assert!(!policy("reset").retries(&answer), "{status}");
        }
        for (tokens, outcome, expected) in [
            ("5xx", response(500, &none), true),
            ("5xx", TryOutcome::PerTryTimeout, true),
            ("5xx", response(503, &limited), false),
            ("5xx,envoy-ratelimited", response(503, &limited), true),
            ("gateway-error", response(500, &none), false),
            ("gateway-error", response(504, &none), true),
            ("gateway-error", TryOutcome::Reset { request_sent: true }, true),
            ("reset", TryOutcome::Reset { request_sent: true }, true),
            ("reset-before-request", TryOutcome::Reset { request_sent: true }, false),
            ("reset-before-request", TryOutcome::Reset { request_sent: false }, true),
            ("retriable-4xx", response(409, &none), true),
            ("retriable-4xx", response(404, &none), false),
            ("404, 503", response(404, &none), true),
            ("404, 503", response(503, &none), true),
            ("cancelled", response(200, &grpc), false),
            ("retriable-headers", response(503, &none), false),
        ] {
            assert_eq!(policy(tokens).retries(&outcome), expected, "{tokens} {outcome:?}");
        }
    }

    #[test]
    fn only_what_may_be_repeated_after_sending_is_kept() {
        assert!(!RetryPolicy::default().needs_replay(false));
        assert!(RetryPolicy::default().needs_replay(true));
        assert!(policy("5xx").needs_replay(false));
        assert!(policy("503").needs_replay(false));
    }

    #[test]
    fn backoff_doubles_to_ten_times_its_base() {
        let policy = RetryPolicy::default();
        let longest = |retry| (0..2000).map(|seed| policy.backoff(retry, seed)).max().unwrap().as_millis();
        assert_eq!(longest(1), 24);
        assert_eq!(longest(2), 49);
        assert_eq!(longest(9), 249);
    }

    #[test]
    fn no_attempts_switch_retries_off() {
        assert!(RetryPolicy::compile(&HttpRetry::default()).is_none());
    }
}
