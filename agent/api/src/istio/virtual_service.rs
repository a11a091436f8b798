//! VirtualService.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Span;
use crate::meta::{Labels, Resource};

/// The gateway that stands for the mesh itself: callers that are pods of it.
pub const MESH: &str = "mesh";

/// Begins a header's name that means a claim of the request's token instead.
const CLAIM: &str = "@request.auth.claims";

/// The claim that a header's name in a match means: `@request.auth.claims.a.b` and `@request.auth.claims[a][b]` are `b` in `a`.
/// `None`: it means a header, or nothing. Source: Istio's reference of HTTPMatchRequest, `headers`.
pub fn claim_path(name: &str) -> Option<Vec<&str>> {
    let (begin, path) = name.split_at_checked(CLAIM.len())?;
    if !begin.eq_ignore_ascii_case(CLAIM) {
        return None;
    }
    let names: Vec<&str> = match path.strip_prefix('.') {
        Some(path) => path.split('.').collect(),
        None => path.strip_prefix('[')?.strip_suffix(']')?.split("][").collect(),
    };
    names.iter().all(|name| !name.is_empty()).then_some(names)
}

/// A Gateway as a VirtualService of `namespace` names it: `name`, `./name` or `namespace/name`, also `name.namespace.svc…` of
/// old. Answers `namespace/name`, or `mesh`.
pub fn gateway_key(name: &str, namespace: &str) -> String {
    if name == MESH {
        return name.to_owned();
    }
    match (name.split_once('/'), name.split_once('.')) {
        (Some((".", name)), _) => format!("{namespace}/{name}"),
        (Some(_), _) => name.to_owned(),
        (None, Some((name, rest))) => {
            let namespace = rest.split_once('.').map_or(rest, |(namespace, _)| namespace);
            format!("{namespace}/{name}")
        }
        (None, None) => format!("{namespace}/{name}"),
    }
}

/// `networking.istio.io` VirtualService.
pub type VirtualService = Resource<VirtualServiceSpec>;

/// `VirtualService.spec`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct VirtualServiceSpec {
    /// Names of the destinations it applies to.
    pub hosts: Vec<String>,
    /// Gateways it is bound to; empty means `[mesh]`.
    pub gateways: Vec<String>,
    /// Rules for HTTP, first match wins.
    pub http: Vec<HttpRoute>,
    /// Rules for TLS by SNI.
    pub tls: Vec<TlsRoute>,
    /// Rules for opaque TCP.
    pub tcp: Vec<TcpRoute>,
    /// Namespaces that see it; empty means all.
    pub export_to: Vec<String>,
}

/// One of `spec.http`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpRoute {
    /// For access logs and metrics.
    pub name: Option<String>,
    /// Any of these; empty matches all.
    pub r#match: Vec<HttpMatchRequest>,
    /// Weighted destinations.
    pub route: Vec<HttpRouteDestination>,
    /// Answers with a redirect.
    pub redirect: Option<HttpRedirect>,
    /// Answers with a fixed response.
    pub direct_response: Option<HttpDirectResponse>,
    /// Hands the routing to another VirtualService.
    pub delegate: Option<Delegate>,
    /// Changes path or authority before forwarding.
    pub rewrite: Option<HttpRewrite>,
    /// Deadline over all tries.
    pub timeout: Option<Span>,
    /// Retry policy.
    pub retries: Option<HttpRetry>,
    /// Faults to inject.
    pub fault: Option<HttpFaultInjection>,
    /// Copies requests there (older, single form).
    pub mirror: Option<Destination>,
    /// Copies requests to each of these.
    pub mirrors: Vec<HttpMirrorPolicy>,
    /// Whole-number share for `mirror`; deprecated.
    pub mirror_percent: Option<u32>,
    /// Share for `mirror`.
    pub mirror_percentage: Option<Percent>,
    /// Cross-origin policy.
    pub cors_policy: Option<CorsPolicy>,
    /// Header operations for the whole route.
    pub headers: Option<Headers>,
}

/// One alternative of `match`: all given fields must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpMatchRequest {
    /// Joined to the route's name in logs.
    pub name: Option<String>,
    /// Path, without the query.
    pub uri: Option<StringMatch>,
    /// `http` or `https`.
    pub scheme: Option<StringMatch>,
    /// Method.
    pub method: Option<StringMatch>,
    /// Host header with its port, case-sensitive.
    pub authority: Option<StringMatch>,
    /// By header name; `{}` means present.
    pub headers: BTreeMap<String, StringMatch>,
    /// Must not match; an absent header counts as empty.
    pub without_headers: BTreeMap<String, StringMatch>,
    /// The service's port that was addressed.
    pub port: Option<u32>,
    /// The caller's labels must include these.
    pub source_labels: Labels,
    /// The caller's namespace.
    pub source_namespace: Option<String>,
    /// Overrides the VirtualService's `gateways`, and switches source matches off.
    pub gateways: Vec<String>,
    /// By query parameter; `{}` means present.
    pub query_params: BTreeMap<String, StringMatch>,
    /// Ignores case in `uri` (exact and prefix).
    pub ignore_uri_case: bool,
    /// Prefix for the route's statistics.
    pub stat_prefix: Option<String>,
}

/// Exactly one of three ways to match a text; none at all means "present" where that makes sense.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct StringMatch {
    /// Equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// Starts with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// RE2, anchored at both ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
}

/// A weighted destination.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpRouteDestination {
    /// Where to.
    pub destination: Destination,
    /// Its share of the sum of weights.
    pub weight: i32,
    /// Header operations when this one is chosen.
    pub headers: Option<Headers>,
}

/// A service, and maybe a subset and a port of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Destination {
    /// Service name; short names are relative to the rule's namespace.
    pub host: String,
    /// A subset that a DestinationRule defines.
    pub subset: Option<String>,
    /// The service's port.
    pub port: Option<PortSelector>,
}

/// A port by number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PortSelector {
    /// Port number.
    pub number: u32,
}

/// `redirect`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpRedirect {
    /// Replaces the whole path; the query stays.
    pub uri: Option<String>,
    /// Replaces the matched prefix.
    pub prefix_rewrite: Option<String>,
    /// Replaces the host; may hold a port.
    pub authority: Option<String>,
    /// Replaces the port.
    pub port: Option<u32>,
    /// `FROM_PROTOCOL_DEFAULT` or `FROM_REQUEST_PORT`.
    pub derive_port: Option<String>,
    /// Replaces the scheme.
    pub scheme: Option<String>,
    /// 301 when absent.
    pub redirect_code: Option<u32>,
}

/// `directResponse`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpDirectResponse {
    /// 200 to 599.
    pub status: u32,
    /// At most 1 MiB.
    pub body: Option<HttpBody>,
}

/// A literal body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpBody {
    /// As text.
    pub string: Option<String>,
    /// As base64.
    pub bytes: Option<String>,
}

/// `delegate`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Delegate {
    /// Name of the delegate VirtualService.
    pub name: String,
    /// Its namespace; the root's own when empty.
    pub namespace: String,
}

/// `rewrite`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpRewrite {
    /// Replaces the matched prefix, or the whole path.
    pub uri: Option<String>,
    /// Replaces the Host header.
    pub authority: Option<String>,
    /// Replaces by regex.
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// `rewrite.uriRegexRewrite`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RegexRewrite {
    /// RE2, every occurrence is replaced.
    pub r#match: String,
    /// With `\1` for groups.
    pub rewrite: String,
}

/// `retries`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpRetry {
    /// Retries after the first try; 0 switches them off.
    pub attempts: i32,
    /// Deadline of each try.
    pub per_try_timeout: Option<Span>,
    /// Comma-separated conditions and status codes.
    pub retry_on: Option<String>,
    /// Also other localities.
    pub retry_remote_localities: Option<bool>,
    /// Avoid hosts that were tried (the default) or not.
    pub retry_ignore_previous_hosts: Option<bool>,
    /// Base of the exponential backoff.
    pub backoff: Option<Span>,
}

/// `fault`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpFaultInjection {
    /// Delay before forwarding.
    pub delay: Option<FaultDelay>,
    /// Answer instead of forwarding.
    pub abort: Option<FaultAbort>,
}

/// `fault.delay`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FaultDelay {
    /// How long.
    pub fixed_delay: Option<Span>,
    /// Share of the requests; absent means none.
    pub percentage: Option<Percent>,
    /// Whole-number share; deprecated.
    pub percent: Option<i32>,
    /// Not implemented by Istio either.
    pub exponential_delay: Option<Span>,
}

/// Names of gRPC statuses, by their numbers: what `fault.abort.grpcStatus` may say. Source: grpc `doc/statuscodes.md`.
pub const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// `fault.abort`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FaultAbort {
    /// 200 to 599.
    pub http_status: Option<u32>,
    /// Number or name of a gRPC status.
    pub grpc_status: Option<String>,
    /// Not implemented by Istio either.
    pub http2_error: Option<String>,
    /// Share of the requests; absent means none.
    pub percentage: Option<Percent>,
    /// Whole-number share; deprecated.
    pub percent: Option<i32>,
}

/// One of `mirrors`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpMirrorPolicy {
    /// Where to.
    pub destination: Destination,
    /// Share; all when absent.
    pub percentage: Option<Percent>,
}

/// A share, 0.0 to 100.0, in steps of 0.0001.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Percent {
    /// The share.
    pub value: f64,
}

/// `corsPolicy`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CorsPolicy {
    /// Exact origins; deprecated form.
    pub allow_origin: Vec<String>,
    /// Origins.
    pub allow_origins: Vec<StringMatch>,
    /// Methods.
    pub allow_methods: Vec<String>,
    /// Request headers.
    pub allow_headers: Vec<String>,
    /// Response headers that scripts may read.
    pub expose_headers: Vec<String>,
    /// How long a preflight's answer may be kept.
    pub max_age: Option<Span>,
    /// Whether credentials may be sent.
    pub allow_credentials: Option<bool>,
    /// `FORWARD` (default) or `IGNORE`.
    pub unmatched_preflights: Option<String>,
}

/// `headers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Headers {
    /// On the request.
    pub request: Option<HeaderOperations>,
    /// On the response.
    pub response: Option<HeaderOperations>,
}

/// What to do to headers: all `set`, then all `add`, then `remove`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HeaderOperations {
    /// Overwrites.
    pub set: BTreeMap<String, String>,
    /// Appends.
    pub add: BTreeMap<String, String>,
    /// Removes.
    pub remove: Vec<String>,
}

/// One of `spec.tls`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TlsRoute {
    /// Any of these.
    pub r#match: Vec<TlsMatch>,
    /// Weighted destinations.
    pub route: Vec<RouteDestination>,
}

/// One alternative of a TLS route's match.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TlsMatch {
    /// Server names.
    pub sni_hosts: Vec<String>,
    /// Addresses of the destination, as CIDR.
    pub destination_subnets: Vec<String>,
    /// Port addressed.
    pub port: Option<u32>,
    /// The caller's labels must include these.
    pub source_labels: Labels,
    /// Overrides the VirtualService's `gateways`.
    pub gateways: Vec<String>,
    /// The caller's namespace.
    pub source_namespace: Option<String>,
}

/// One of `spec.tcp`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TcpRoute {
    /// Any of these; empty matches all.
    pub r#match: Vec<L4Match>,
    /// Weighted destinations.
    pub route: Vec<RouteDestination>,
}

/// One alternative of a TCP route's match.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct L4Match {
    /// Addresses of the destination, as CIDR.
    pub destination_subnets: Vec<String>,
    /// Port addressed.
    pub port: Option<u32>,
    /// Deprecated by Istio: one address of the caller.
    pub source_subnet: Option<String>,
    /// The caller's labels must include these.
    pub source_labels: Labels,
    /// Overrides the VirtualService's `gateways`.
    pub gateways: Vec<String>,
    /// The caller's namespace.
    pub source_namespace: Option<String>,
}

/// A weighted L4 destination.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RouteDestination {
    /// Where to.
    pub destination: Destination,
    /// Its share of the sum of weights.
    pub weight: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_named_in_four_ways() {
        for (name, key) in [
            ("edge", "own/edge"),
            ("./edge", "own/edge"),
            ("a/edge", "a/edge"),
            ("edge.a", "a/edge"),
            ("edge.a.svc.cluster.local", "a/edge"),
            ("mesh", "mesh"),
        ] {
            assert_eq!(gateway_key(name, "own"), key);
        }
    }

    #[test]
    fn a_claim_is_named_like_a_header() {
        for (name, path) in [
            ("@request.auth.claims.a", Some(vec!["a"])),
            ("@request.auth.claims.a.b", Some(vec!["a", "b"])),
            ("@Request.Auth.Claims[https://x.example/a.b][c]", Some(vec!["https://x.example/a.b", "c"])),
            ("@request.auth.claims", None),
            ("@request.auth.claims.", None),
            ("@request.auth.claims.a..b", None),
            ("@request.auth.claims[a][]", None),
            ("@request.auth.claimsa", None),
            ("x-claim", None),
        ] {
            assert_eq!(claim_path(name), path, "{name}");
        }
    }
}
