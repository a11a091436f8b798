//! `extensionProviders`: who is asked by AuthorizationPolicies with action CUSTOM.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::duration::Span;
use crate::finding::code;
use crate::validate::{Report, is_header_name, is_ip, is_label, wrong_host};
use crate::yaml::shorten;

/// One of `extensionProviders`. Those that are neither `envoyExtAuthzHttp` nor `envoyExtAuthzGrpc` have only a name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtensionProvider {
    /// What policies call it.
    pub name: String,
    /// Asked over HTTP.
    pub envoy_ext_authz_http: Option<ExtAuthzHttp>,
    /// Asked over gRPC (`envoy.service.auth.v3.Authorization`).
    pub envoy_ext_authz_grpc: Option<ExtAuthzGrpc>,
}

/// `envoyExtAuthzHttp`. Lists of headers may hold `PREFIX*`, `*SUFFIX` and `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtAuthzHttp {
    /// `HOST` or `NAMESPACE/HOST`.
    pub service: String,
    /// Of the service.
    pub port: u32,
    /// Longest wait for an answer; 10 minutes when absent.
    pub timeout: Option<Span>,
    /// Put before the path of the request that is asked about.
    pub path_prefix: String,
    /// A provider that does not answer lets pass.
    pub fail_open: bool,
    /// Status of requests that it could not be asked about; 403 when empty.
    pub status_on_error: String,
    /// The route is chosen anew after headers have been changed.
    pub clear_route_cache: bool,
    /// Older form of [`Self::include_request_headers_in_check`].
    pub include_headers_in_check: Vec<String>,
    /// Headers that the provider sees, besides Host, Method, Path, Content-Length and Authorization.
    pub include_request_headers_in_check: Vec<String>,
    /// Headers that it gets besides.
    pub include_additional_headers_in_check: BTreeMap<String, String>,
    /// How much of the body it sees; absent means none.
    pub include_request_body_in_check: Option<CheckedBody>,
    /// Of its answer: headers that the request goes on with.
    pub headers_to_upstream_on_allow: Vec<String>,
    /// Of its answer: headers that a refused client gets; empty means all.
    pub headers_to_downstream_on_deny: Vec<String>,
    /// Of its answer: headers that the client gets with the response.
    pub headers_to_downstream_on_allow: Vec<String>,
}

/// `envoyExtAuthzGrpc`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtAuthzGrpc {
    /// `HOST` or `NAMESPACE/HOST`.
    pub service: String,
    /// Of the service.
    pub port: u32,
    /// Longest wait for an answer; 10 minutes when absent.
    pub timeout: Option<Span>,
    /// A provider that does not answer lets pass.
    pub fail_open: bool,
    /// Status of requests that it could not be asked about; 403 when empty.
    pub status_on_error: String,
    /// The route is chosen anew after headers have been changed.
    pub clear_route_cache: bool,
    /// How much of the body it sees; absent means none.
    pub include_request_body_in_check: Option<CheckedBody>,
}

/// `includeRequestBodyInCheck`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CheckedBody {
    /// Longest body.
    pub max_request_bytes: u32,
    /// A longer one is cut; otherwise it is refused with 413.
    pub allow_partial_message: bool,
    /// As `raw_body`, not as text (gRPC only).
    pub pack_as_bytes: bool,
}

impl ExtAuthzHttp {
    /// Headers that the provider sees, by both fields.
    pub fn headers_in_check(&self) -> impl Iterator<Item = &str> {
        self.include_request_headers_in_check.iter().chain(&self.include_headers_in_check).map(String::as_str)
    }
}

/// Checks the list.
pub(super) fn check(report: &mut Report, providers: &[ExtensionProvider]) {
    let mut names = HashSet::new();
    report.each("extensionProviders", providers, |report, provider| {
        report.field("name", |r| {
            if provider.name.is_empty() {
                r.error(code::MISSING_FIELD, "the provider has no name");
            } else if !names.insert(provider.name.as_str()) {
                let shown = shorten(&provider.name);
                r.error(code::DUPLICATE_NAME, format!("there are two providers called {shown:?}"));
            }
        });
        if provider.envoy_ext_authz_http.is_some() && provider.envoy_ext_authz_grpc.is_some() {
            report.error(
                code::CONFLICTING_FIELDS,
                "a provider is either envoyExtAuthzHttp or envoyExtAuthzGrpc (keep one)",
            );
        }
        report
            .field("envoyExtAuthzHttp", |r| provider.envoy_ext_authz_http.iter().for_each(|it| http(r, it)));
        report
            .field("envoyExtAuthzGrpc", |r| provider.envoy_ext_authz_grpc.iter().for_each(|it| grpc(r, it)));
    });
}

fn http(report: &mut Report, provider: &ExtAuthzHttp) {
    service(report, &provider.service, provider.port);
    common(report, provider.timeout, &provider.status_on_error, provider.include_request_body_in_check);
    if !(provider.path_prefix.is_empty() || provider.path_prefix.starts_with('/')) {
        report.field("pathPrefix", |r| r.error(code::INVALID_VALUE, "a path begins with /"));
    }
    if !provider.include_headers_in_check.is_empty() {
        report.field("includeHeadersInCheck", |r| {
            r.warning(code::DEPRECATED_FIELD, "an old field (use includeRequestHeadersInCheck)");
        });
    }
    for (name, headers) in [
        ("includeHeadersInCheck", &provider.include_headers_in_check),
        ("includeRequestHeadersInCheck", &provider.include_request_headers_in_check),
        ("headersToUpstreamOnAllow", &provider.headers_to_upstream_on_allow),
        ("headersToDownstreamOnDeny", &provider.headers_to_downstream_on_deny),
        ("headersToDownstreamOnAllow", &provider.headers_to_downstream_on_allow),
    ] {
        report.each(name, headers, |r, header| header_pattern(r, header));
    }
    report.field("includeAdditionalHeadersInCheck", |report| {
        for name in provider.include_additional_headers_in_check.keys().filter(|name| !is_header_name(name)) {
            report.field(name.clone(), |r| {
                r.error(code::INVALID_HEADER, format!("{:?} can be no header's name", shorten(name)));
            });
        }
    });
}

fn grpc(report: &mut Report, provider: &ExtAuthzGrpc) {
    service(report, &provider.service, provider.port);
    common(report, provider.timeout, &provider.status_on_error, provider.include_request_body_in_check);
}

fn service(report: &mut Report, service: &str, port: u32) {
    report.field("service", |r| {
        let (namespace, host) =
            service.split_once('/').map_or((None, service), |(namespace, host)| (Some(namespace), host));
        if namespace.is_some_and(|namespace| !is_label(namespace)) {
            r.error(
                code::INVALID_HOST,
                format!("{:?} is no service (write HOST or NAMESPACE/HOST)", shorten(service)),
            );
        } else if let Some(wrong) = wrong_host(host).filter(|_| !is_ip(host)) {
            r.error(if host.is_empty() { code::MISSING_FIELD } else { code::INVALID_HOST }, wrong);
        } else if host.starts_with('*') {
            r.error(code::INVALID_HOST, "a provider is one service, not a wildcard");
        }
    });
    report.field("port", |r| {
        if port == 0 {
            r.error(code::MISSING_FIELD, "the provider's port is missing");
        } else {
            r.port(port);
        }
    });
}

fn common(report: &mut Report, timeout: Option<Span>, status: &str, body: Option<CheckedBody>) {
    report.duration_field("timeout", timeout);
    let valid = |status: &str| status.parse::<u16>().is_ok_and(|status| (100..=599).contains(&status));
    if !(status.is_empty() || valid(status)) {
        report.field("statusOnError", |r| {
            r.error(code::INVALID_VALUE, format!("{:?} is no HTTP status (write \"403\")", shorten(status)));
        });
    }
    if body.is_some_and(|body| body.max_request_bytes == 0) {
        report.field("includeRequestBodyInCheck", |r| {
            r.field("maxRequestBytes", |r| {
                r.error(code::MISSING_FIELD, "how much of a body is sent is missing (write more than 0)");
            });
        });
    }
}

/// A header's name, its beginning, its end, or `*`.
fn header_pattern(report: &mut Report, pattern: &str) {
    let name = pattern.strip_prefix('*').or_else(|| pattern.strip_suffix('*')).unwrap_or(pattern);
    let wrong = match name {
        "" => pattern.is_empty(),
        name => name.contains('*') || !is_header_name(name),
    };
    if wrong {
        report.error(
            code::INVALID_HEADER,
            format!("{:?} can be no header's name (NAME, PREFIX*, *SUFFIX or *)", shorten(pattern)),
        );
    }
}
