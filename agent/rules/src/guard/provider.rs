//! Services that weft itself asks: external authorizers (MeshConfig `extensionProviders`), and issuers' keys.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use weft_api::duration::Span;
use weft_api::mesh_config::{CheckedBody, ExtAuthzGrpc, ExtAuthzHttp, ExtensionProvider};

use crate::registry::hostname::{self, HostBuffer};
use crate::snapshot::Snapshot;
use crate::upstream::cluster::Cluster;

/// Longest wait for an answer where the provider says nothing, as in Istio.
const TIMEOUT: Duration = Duration::from_mins(10);

/// Who decides upon requests for policies with action CUSTOM.
#[derive(Debug, Clone, PartialEq)]
pub struct Provider {
    /// `HOST` or `NAMESPACE/HOST`.
    pub service: Box<str>,
    /// Of the service.
    pub port: u16,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// One that does not answer lets pass.
    pub fail_open: bool,
    /// Status of requests that it could not be asked about.
    pub status_on_error: StatusCode,
    /// How much of the body it sees.
    pub body: Option<CheckedBody>,
    /// How it is asked.
    pub dialect: Dialect,
}

/// How a provider is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Dialect {
    /// By a request like the one that it decides upon.
    Http(Box<HttpCheck>),
    /// By gRPC: `envoy.service.auth.v3.Authorization`.
    Grpc,
}

/// What passes between a request, the one that asks about it, and the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpCheck {
    /// Put before the path.
    pub path_prefix: Box<str>,
    /// Headers that it sees, besides those that it always does.
    pub sees: Names,
    /// Headers that it gets besides.
    pub adds: HeaderMap,
    /// Of its answer: headers that the request goes on with.
    pub to_upstream: Names,
    /// Of its answer: headers that a refused client gets; `None`: all.
    pub to_refused: Option<Names>,
    /// Of its answer: headers that the client gets with the response.
    pub to_client: Names,
}

/// Names of headers: `NAME`, `PREFIX*`, `*SUFFIX`, `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names(Box<[Box<str>]>);

impl Names {
    fn of<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        Self(patterns.into_iter().map(|pattern| pattern.to_ascii_lowercase().into()).collect())
    }

    /// Whether a name is among them.
    pub fn contain(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        self.0.iter().any(|pattern| {
            if let Some(prefix) = pattern.strip_suffix('*') {
                name.starts_with(prefix)
            } else if let Some(suffix) = pattern.strip_prefix('*') {
                name.ends_with(suffix)
            } else {
                name == &**pattern
            }
        })
    }
}

impl Provider {
    /// Compiles a provider; `None`: nobody can be asked about requests by it.
    pub fn compile(source: &ExtensionProvider) -> Option<Self> {
        match (&source.envoy_ext_authz_http, &source.envoy_ext_authz_grpc) {
            (Some(http), _) => Self::http(http),
            (None, Some(grpc)) => Self::grpc(grpc),
            (None, None) => None,
        }
    }

    fn http(source: &ExtAuthzHttp) -> Option<Self> {
        let names = |patterns: &[String]| Names::of(patterns.iter().map(String::as_str));
        let adds = source.include_additional_headers_in_check.iter().filter_map(|(name, value)| {
            Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
        });
        let check = HttpCheck {
            path_prefix: source.path_prefix.as_str().into(),
            sees: Names::of(source.headers_in_check()),
            adds: adds.collect(),
            to_upstream: names(&source.headers_to_upstream_on_allow),
            to_refused: Some(names(&source.headers_to_downstream_on_deny))
                .filter(|names| !names.0.is_empty()),
            to_client: names(&source.headers_to_downstream_on_allow),
        };
        Some(Self {
            service: source.service.as_str().into(),
            port: u16::try_from(source.port).ok()?,
            timeout: timeout(source.timeout),
            fail_open: source.fail_open,
            status_on_error: status(&source.status_on_error),
            body: source.include_request_body_in_check,
            dialect: Dialect::Http(Box::new(check)),
        })
    }

    fn grpc(source: &ExtAuthzGrpc) -> Option<Self> {
        Some(Self {
            service: source.service.as_str().into(),
            port: u16::try_from(source.port).ok()?,
            timeout: timeout(source.timeout),
            fail_open: source.fail_open,
            status_on_error: status(&source.status_on_error),
            body: source.include_request_body_in_check,
            dialect: Dialect::Grpc,
        })
    }
}

fn timeout(given: Option<Span>) -> Duration {
    given.map_or(TIMEOUT, |span| span.0)
}

fn status(given: &str) -> StatusCode {
    given.parse().unwrap_or(StatusCode::FORBIDDEN)
}

impl Snapshot {
    /// The provider of this name.
    pub fn provider(&self, name: &str) -> Option<&Arc<Provider>> {
        self.mesh.providers.get(name)
    }

    /// The service that MeshConfig or a URL names as `HOST` or `NAMESPACE/HOST`, with that port, whoever may see it.
    /// Short names need their namespace: `name.namespace`, `name.namespace.svc`, or `namespace/name`.
    pub fn named_cluster(&self, name: &str, port: u16) -> Option<&Arc<Cluster>> {
        let (namespace, host) = name.split_once('/').unwrap_or(("", name));
        let host = host.strip_suffix('.').unwrap_or(host);
        let mut full = HostBuffer::new();
        let entry = self.registry.host(host).or_else(|| {
            if namespace.is_empty() && !host.contains('.') {
                return None;
            }
            self.registry.host(hostname::expand(host, namespace, &self.mesh.cluster_domain, &mut full)?)
        })?;
        Some(&entry.policies.others.port(port)?.whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(source: serde_json::Value) -> Provider {
        Provider::compile(&serde_json::from_value(source).expect("a provider")).expect("one that is asked")
    }

    #[test]
    fn a_provider_has_istios_defaults() {
        let provider = compile(serde_json::json!({
            "name": "a", "envoyExtAuthzGrpc": {"service": "authz.auth.svc.cluster.local", "port": 9000},
        }));
        assert_eq!((provider.timeout, provider.fail_open), (TIMEOUT, false));
        assert_eq!((provider.status_on_error, provider.dialect), (StatusCode::FORBIDDEN, Dialect::Grpc));
        let logs = serde_json::json!({"name": "b", "envoyFileAccessLog": {"path": "/dev/stdout"}});
        assert_eq!(Provider::compile(&serde_json::from_value(logs).expect("a provider")), None);
    }

    #[test]
    fn headers_are_named_exactly_by_prefix_and_by_suffix() {
        let provider = compile(serde_json::json!({
            "name": "a",
            "envoyExtAuthzHttp": {
                "service": "auth/authz", "port": 80, "statusOnError": "503",
                "includeRequestHeadersInCheck": ["X-Ext-Authz", "x-b3-*", "*-id"],
                "includeAdditionalHeadersInCheck": {"x-from": "weft"},
            },
        }));
        assert_eq!(provider.status_on_error, StatusCode::SERVICE_UNAVAILABLE);
        let Dialect::Http(check) = provider.dialect else { panic!("asked over HTTP") };
        let sees = |name: &str| check.sees.contain(&HeaderName::try_from(name).expect("a name"));
        assert!(sees("x-ext-authz") && sees("x-b3-traceid") && sees("x-request-id"));
        assert!(!sees("x-ext-authz-2") && !sees("cookie"));
        assert_eq!(check.adds["x-from"], "weft");
        assert!(check.to_refused.is_none() && !check.to_upstream.contain(&http::header::COOKIE));
    }
}
