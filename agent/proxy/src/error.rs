//! How an exchange can fail, and what each failure says: to the client, to the log and to the retry decision.

use std::borrow::Cow;

use http::StatusCode;
use weft_telemetry::{Refusal, ResponseFlag};

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The client's.
    Downstream,
    /// The endpoint's.
    Upstream,
    /// The rules': nothing was tried.
    Rules,
}

/// What may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// Nothing reached an application: always safe.
    Safe,
    /// Something may have; a policy decides.
    ByPolicy,
    /// Never.
    Never,
}

/// What failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// No rule matched.
    NoRoute,
    /// The destination does not exist.
    NoCluster,
    /// The destination has no endpoint.
    NoHealthyUpstream,
    /// Nobody knows the host, and only known ones may be called.
    BlackHole,
    /// The endpoint refused or could not be reached.
    ConnectFailure,
    /// The endpoint did not answer the connect.
    ConnectTimeout,
    /// HTTP/2 REFUSED_STREAM, or GOAWAY before the stream.
    RefusedStream,
    /// The endpoint closed the connection before response headers.
    ConnectionTermination,
    /// The endpoint reset the stream.
    RemoteReset,
    /// The endpoint broke the protocol.
    UpstreamProtocol,
    /// The request's deadline passed.
    RequestTimeout,
    /// The last try's deadline passed.
    PerTryTimeout,
    /// The destination's policies refuse the caller.
    Denied,
    /// The client's request is not one.
    BadRequest,
    /// The client went away.
    DownstreamGone,
    /// The caller holds as much of the agent as it may.
    Overloaded,
}

/// A failure, with its cause where one is known.
#[derive(Debug)]
pub(super) struct Error {
    /// What failed.
    pub(super) kind: Kind,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    refusal: Option<Box<Refusal>>,
}

impl Error {
    pub(super) fn new(kind: Kind, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { kind, source: Some(source.into()), refusal: None }
    }

    /// The destination refused.
    pub(super) fn refused(kind: Kind, refusal: Refusal) -> Self {
        Self { kind, source: None, refusal: Some(Box::new(refusal)) }
    }

    /// Who refused, where the destination did.
    pub(super) fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_deref()
    }

    /// The cause in words, for the access log's `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub(super) fn cause(&self) -> Option<String> {
        let mut cause = self.source.as_deref()? as &dyn std::error::Error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        Some(cause.to_string())
    }

    /// Body of the local reply, as Envoy words it.
    pub(super) fn body(&self) -> Cow<'static, str> {
        match self.kind {
            Kind::NoHealthyUpstream => "no healthy upstream".into(),
            Kind::RequestTimeout | Kind::PerTryTimeout => "upstream request timeout".into(),
            Kind::ConnectFailure => match self.cause() {
                Some(cause) => format!(
                    "upstream connect error or disconnect/reset before headers. reset reason: remote connection \
                     failure, transport failure reason: delayed connect error: {cause}"
                )
                .into(),
                None => reset_body(Kind::ConnectFailure).into(),
            },
            kind @ (Kind::ConnectTimeout
            | Kind::RefusedStream
            | Kind::ConnectionTermination
            | Kind::RemoteReset
            | Kind::UpstreamProtocol
            | Kind::Overloaded) => reset_body(kind).into(),
            Kind::Denied => "RBAC: access denied".into(),
            Kind::BadRequest => "Bad Request".into(),
            Kind::NoRoute | Kind::NoCluster | Kind::BlackHole | Kind::DownstreamGone => "".into(),
        }
    }
}

impl From<Kind> for Error {
    fn from(kind: Kind) -> Self {
        Self { kind, source: None, refusal: None }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind.details())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl Kind {
    /// Whose fault it is.
    pub(super) fn side(self) -> Side {
        match self {
            Self::NoRoute | Self::NoCluster | Self::NoHealthyUpstream | Self::BlackHole | Self::Denied => {
                Side::Rules
            }
            Self::ConnectFailure
            | Self::ConnectTimeout
            | Self::RefusedStream
            | Self::ConnectionTermination
            | Self::RemoteReset
            | Self::UpstreamProtocol
            | Self::RequestTimeout
            | Self::PerTryTimeout => Side::Upstream,
            Self::BadRequest | Self::DownstreamGone | Self::Overloaded => Side::Downstream,
        }
    }

    /// Whether a try that ended so may be repeated.
    pub(super) fn retry(self) -> Retry {
        match self {
            Self::ConnectFailure | Self::ConnectTimeout | Self::RefusedStream => Retry::Safe,
            Self::ConnectionTermination
            | Self::RemoteReset
            | Self::UpstreamProtocol
            | Self::PerTryTimeout => Retry::ByPolicy,
            Self::NoRoute
            | Self::NoCluster
            | Self::NoHealthyUpstream
            | Self::BlackHole
            | Self::RequestTimeout
            | Self::Denied
            | Self::BadRequest
            | Self::DownstreamGone
            | Self::Overloaded => Retry::Never,
        }
    }

    /// Status of the local reply.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::NoCluster
            | Self::NoHealthyUpstream
            | Self::ConnectFailure
            | Self::ConnectTimeout
            | Self::RefusedStream
            | Self::ConnectionTermination
            | Self::RemoteReset
            | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::BlackHole | Self::UpstreamProtocol => StatusCode::BAD_GATEWAY,
            Self::RequestTimeout | Self::PerTryTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::BadRequest | Self::DownstreamGone => StatusCode::BAD_REQUEST,
        }
    }

    /// Envoy's response flag; `None`: Envoy sets none.
    pub(super) fn flag(self) -> Option<ResponseFlag> {
        Some(match self {
            Self::NoRoute => ResponseFlag::NoRouteFound,
            Self::NoCluster => ResponseFlag::NoClusterFound,
            Self::NoHealthyUpstream => ResponseFlag::NoHealthyUpstream,
            Self::BlackHole | Self::Denied => return None,
            Self::ConnectFailure | Self::ConnectTimeout => ResponseFlag::UpstreamConnectionFailure,
            Self::RefusedStream | Self::RemoteReset => ResponseFlag::UpstreamRemoteReset,
            Self::ConnectionTermination => ResponseFlag::UpstreamConnectionTermination,
            Self::UpstreamProtocol => ResponseFlag::UpstreamProtocolError,
            Self::RequestTimeout | Self::PerTryTimeout => ResponseFlag::UpstreamRequestTimeout,
            Self::BadRequest => ResponseFlag::DownstreamProtocolError,
            Self::DownstreamGone => ResponseFlag::DownstreamConnectionTermination,
            Self::Overloaded => ResponseFlag::UpstreamOverflow,
        })
    }

    /// Envoy's `%RESPONSE_CODE_DETAILS%`.
    pub(super) fn details(self) -> &'static str {
        match self {
            Self::NoRoute => "route_not_found",
            Self::NoCluster => "cluster_not_found",
            Self::NoHealthyUpstream => "no_healthy_upstream",
            Self::BlackHole => "direct_response",
            Self::ConnectFailure => "upstream_reset_before_response_started{remote_connection_failure}",
            Self::ConnectTimeout => "upstream_reset_before_response_started{connection_timeout}",
            Self::RefusedStream => "upstream_reset_before_response_started{remote_refused_stream_reset}",
            Self::ConnectionTermination => "upstream_reset_before_response_started{connection_termination}",
            Self::RemoteReset => "upstream_reset_before_response_started{remote_reset}",
            Self::UpstreamProtocol => "upstream_reset_before_response_started{protocol_error}",
            Self::RequestTimeout => "response_timeout",
            Self::PerTryTimeout => "upstream_per_try_timeout",
            Self::Denied => "rbac_access_denied",
            Self::BadRequest => "http1.codec_error",
            Self::DownstreamGone => "downstream_remote_disconnect",
            Self::Overloaded => "upstream_reset_before_response_started{overflow}",
        }
    }
}

fn reset_body(kind: Kind) -> String {
    let details = kind.details();
    let reason = details.split_once('{').map_or(details, |(_, reason)| reason.trim_end_matches('}'));
    format!(
        "upstream connect error or disconnect/reset before headers. reset reason: {}",
        reason.replace('_', " ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_worded_as_envoy_words_them() {
        let refused = Error::new(Kind::ConnectFailure, "Connection refused");
        assert_eq!(
            refused.body(),
            "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure, \
             transport failure reason: delayed connect error: Connection refused"
        );
        assert_eq!(
            Error::from(Kind::ConnectionTermination).body(),
            "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
        );
        assert_eq!(Error::from(Kind::NoHealthyUpstream).body(), "no healthy upstream");
        assert_eq!(Error::from(Kind::NoRoute).body(), "");
    }
}
