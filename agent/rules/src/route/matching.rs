//! Whether a request matches a route: the one place where a match is decided, for requests and for `explain`.

use std::sync::Arc;

use http::header::{COOKIE, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Extensions, HeaderMap};
use weft_api::istio::MESH;
use weft_api::meta::Labels;

use crate::claims::Claims;
use crate::pattern::TextMatch;
use crate::route::http_route::HttpRoute;
use crate::workload::Workload;

/// What matching reads of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestView<'a> {
    pub(crate) method: &'a str,
    pub(crate) scheme: &'a str,
    /// Host with its port, as sent.
    pub(crate) authority: &'a str,
    /// Without the query.
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) headers: &'a HeaderMap,
    extensions: &'a Extensions,
}

impl<'a> RequestView<'a> {
    pub(crate) fn of(request: &'a Parts) -> Self {
        Self {
            method: request.method.as_str(),
            scheme: crate::route::http_route::scheme(request),
            authority: crate::route::http_route::authority(request),
            path: request.uri.path(),
            query: request.uri.query(),
            headers: &request.headers,
            extensions: &request.extensions,
        }
    }

    /// What its token says, where one was looked at on the way here: at a gateway whose RequestAuthentication asks for it.
    fn claims(&self) -> Option<&'a Claims> {
        self.extensions.get::<Arc<Claims>>().map(|claims| &**claims)
    }
}

/// One entry of a route's `match`: all of it must hold.
#[derive(Debug)]
pub(crate) struct HttpMatch {
    pub(crate) source: SourceMatch,
    pub(crate) conditions: Box<[Condition]>,
    /// How much of the path a rewrite replaces.
    pub(crate) matched: MatchedPath,
    /// The route, named after this entry where it has a name.
    pub(crate) route: Arc<HttpRoute>,
}

/// What a match leaves of the path for a rewrite to replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MatchedPath {
    Prefix(usize),
    Whole,
}

impl MatchedPath {
    pub(crate) fn prefix(self, path: &str) -> Option<usize> {
        match self {
            Self::Prefix(length) if length <= path.len() => Some(length),
            _ => None,
        }
    }
}

impl HttpMatch {
    pub(crate) fn matches(&self, request: &RequestView<'_>) -> bool {
        self.conditions.iter().all(|condition| condition.holds(request))
    }

    /// Whether every request is so: nothing is asked for but a path that begins with `/`. Source: Istio 1.30,
    /// `IsCatchAllRoute`.
    pub(crate) fn is_catch_all(&self) -> bool {
        ask_for_nothing(&self.conditions)
    }
}

fn ask_for_nothing(conditions: &[Condition]) -> bool {
    match conditions {
        [] => true,
        [Condition::Path { matcher: TextMatch::Prefix(prefix), .. }] => &**prefix == "/",
        _ => false,
    }
}

/// Where a request is routed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum At<'a> {
    /// At its caller's node.
    Mesh,
    /// At a gateway pod, as one of these Gateways has it (`namespace/name`).
    Gateways(&'a [Arc<str>]),
}

/// Who may be the caller, and which port it must address. Where this excludes a caller, the route does not exist
/// for it.
#[derive(Debug, Default, Clone)]
pub(crate) struct SourceMatch {
    /// The entry names gateways: these, as `namespace/name`, and `mesh` where that is one of them.
    pub(crate) gateways: Option<Box<[Arc<str>]>>,
    pub(crate) port: Option<u32>,
    pub(crate) labels: Option<Arc<Labels>>,
    pub(crate) namespace: Option<Arc<str>>,
}

impl SourceMatch {
    pub(crate) fn admits(&self, caller: &Workload, port: u16, at: At<'_>) -> bool {
        self.admits_at_gateway(port, at)
            && self.namespace.as_ref().is_none_or(|wanted| *wanted == caller.namespace)
            && self.labels.as_ref().is_none_or(|wanted| is_subset(wanted, &caller.labels))
    }

    /// The same for a connection of bytes at a gateway, where nobody asks whose pod that is. Source: Istio 1.30,
    /// `l4SingleMatch`.
    pub(crate) fn admits_at_gateway(&self, port: u16, at: At<'_>) -> bool {
        self.is_for(at) && self.port.is_none_or(|wanted| wanted == u32::from(port))
    }

    fn is_for(&self, at: At<'_>) -> bool {
        self.gateways.as_deref().is_none_or(|names| match at {
            At::Mesh => names.iter().any(|name| **name == *MESH),
            At::Gateways(here) => names.iter().any(|name| here.contains(name)),
        })
    }

    /// Whether every caller of every port is admitted.
    pub(crate) fn is_open(&self) -> bool {
        self.gateways.is_none() && self.port.is_none() && self.labels.is_none() && self.namespace.is_none()
    }

    /// What it asks for, in words.
    pub(crate) fn describe(&self) -> Vec<String> {
        let mut wanted = Vec::new();
        if let Some(names) = &self.gateways {
            wanted.push(format!("at {}", names.join(", ")));
        }
        wanted.extend(self.port.map(|port| format!("port {port}")));
        wanted.extend(self.namespace.as_ref().map(|namespace| format!("source namespace {namespace}")));
        let labels = self.labels.iter().flat_map(|labels| labels.iter());
        wanted.extend(labels.map(|(key, value)| format!("source label {key}={value}")));
        wanted
    }

    /// Why this caller is excluded; `None` if it is not.
    pub(crate) fn miss(&self, caller: &Workload, port: u16, at: At<'_>) -> Option<String> {
        if self.admits(caller, port, at) {
            return None;
        }
        let mut wanted = Vec::new();
        if !self.is_for(at) {
            wanted.push(match (at, &self.gateways) {
                (At::Gateways(_), Some(names)) => format!("is for {} only", names.join(", ")),
                _ => "is for gateways only".to_owned(),
            });
        }
        if let Some(wants) = self.port.filter(|wants| *wants != u32::from(port)) {
            wanted.push(format!("wants port {wants}, addressed is {port}"));
        }
        if let Some(wants) = self.namespace.as_ref().filter(|wants| **wants != caller.namespace) {
            wanted.push(format!("wants sourceNamespace {wants}, the caller is in {}", caller.namespace));
        }
        for (key, value) in self.labels.iter().flat_map(|labels| labels.iter()) {
            if caller.labels.get(key) != Some(value) {
                let has = caller.labels.get(key).map_or("none".to_owned(), |has| format!("{key}={has}"));
                wanted.push(format!("wants source label {key}={value}, the caller has {has}"));
            }
        }
        Some(wanted.join("; "))
    }
}

/// Whether all of `wanted` are among `labels`.
pub(crate) fn is_subset(wanted: &Labels, labels: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// One thing that a request must be.
#[derive(Debug)]
pub(crate) enum Condition {
    Path {
        matcher: TextMatch,
        ignore_case: bool,
    },
    Scheme(TextMatch),
    Method(TextMatch),
    Authority(TextMatch),
    /// Method and path in one text, query included, as `:path` has it.
    FullPath(TextMatch),
    Header(HeaderName, TextMatch),
    /// The header must not be so; an absent one counts as empty, and `Present` means that it must be absent.
    WithoutHeader(HeaderName, TextMatch),
    Query(Box<str>, TextMatch),
    /// A claim of the request's token.
    Claim(Box<[Box<str>]>, TextMatch),
    /// Inverts another one (`withoutHeaders` on a pseudo-header, or a claim).
    Not(Box<Condition>),
    /// Cannot hold; says why.
    Never(Box<str>),
}

impl Condition {
    pub(crate) fn holds(&self, request: &RequestView<'_>) -> bool {
        match self {
            Self::Path { matcher, ignore_case } => path_matches(matcher, *ignore_case, request.path),
            Self::Scheme(matcher) => matcher.matches(request.scheme.as_bytes()),
            Self::Method(matcher) => matcher.matches(request.method.as_bytes()),
            Self::Authority(matcher) => matcher.matches(request.authority.as_bytes()),
            Self::FullPath(matcher) => match request.query {
                None => matcher.matches(request.path.as_bytes()),
                Some(query) => matcher.matches(format!("{}?{query}", request.path).as_bytes()),
            },
            Self::Header(name, matcher) => any_value(request.headers, name, |value| matcher.matches(value)),
            Self::WithoutHeader(name, TextMatch::Present) => !request.headers.contains_key(name),
            Self::WithoutHeader(name, matcher) if !request.headers.contains_key(name) => {
                !matcher.matches(b"")
            }
            Self::WithoutHeader(name, matcher) => {
                !any_value(request.headers, name, |value| matcher.matches(value))
            }
            Self::Query(name, matcher) => query_parameter(request.query.unwrap_or_default(), name)
                .is_some_and(|value| matcher.matches(value.as_bytes())),
            Self::Claim(path, TextMatch::Present) => {
                request.claims().is_some_and(|claims| claims.find(path).is_some())
            }
            Self::Claim(path, matcher) => {
                request.claims().is_some_and(|claims| claims.any(path, |value| matcher.matches(value)))
            }
            Self::Not(condition) => !condition.holds(request),
            Self::Never(_) => false,
        }
    }

    /// What the request has instead, for `explain`.
    pub(crate) fn found(&self, request: &RequestView<'_>) -> String {
        let header = |name: &HeaderName| {
            let mut values = Vec::new();
            any_value(request.headers, name, |value| {
                values.push(format!("{:?}", String::from_utf8_lossy(value)));
                false
            });
            match values.as_slice() {
                [] => format!("there is no {name}"),
                values => format!("{name} is {}", values.join(" and ")),
            }
        };
        match self {
            Self::Path { .. } | Self::FullPath(_) => format!("the path is {:?}", request.path),
            Self::Scheme(_) => format!("the scheme is {:?}", request.scheme),
            Self::Method(_) => format!("the method is {:?}", request.method),
            Self::Authority(_) => format!("the authority is {:?}", request.authority),
            Self::Header(name, _) | Self::WithoutHeader(name, _) => header(name),
            Self::Query(name, _) => match query_parameter(request.query.unwrap_or_default(), name) {
                Some(value) => format!("{name} is {value:?}"),
                None => format!("there is no parameter {name}"),
            },
            Self::Claim(path, _) => match request.claims().map(|claims| claims.find(path)) {
                Some(Some(value)) => format!("claim {} is {value}", path.join(".")),
                Some(None) => format!("the token has no claim {}", path.join(".")),
                None => "no token was looked at (that is done at gateways, for a RequestAuthentication)"
                    .to_owned(),
            },
            Self::Not(condition) => condition.found(request),
            Self::Never(reason) => reason.to_string(),
        }
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path { matcher, ignore_case: false } => write!(f, "uri {matcher}"),
            Self::Path { matcher, ignore_case: true } => write!(f, "uri {matcher} (ignoring case)"),
            Self::Scheme(matcher) => write!(f, "scheme {matcher}"),
            Self::Method(matcher) => write!(f, "method {matcher}"),
            Self::Authority(matcher) => write!(f, "authority {matcher}"),
            Self::FullPath(matcher) => write!(f, ":path {matcher}"),
            Self::Header(name, matcher) => write!(f, "header {name} {matcher}"),
            Self::WithoutHeader(name, matcher) => write!(f, "no header {name} {matcher}"),
            Self::Query(name, matcher) => write!(f, "query parameter {name} {matcher}"),
            Self::Claim(path, matcher) => write!(f, "claim {} {matcher}", path.join(".")),
            Self::Not(condition) => write!(f, "not {condition}"),
            Self::Never(reason) => write!(f, "never ({reason})"),
        }
    }
}

fn path_matches(matcher: &TextMatch, ignore_case: bool, path: &str) -> bool {
    match matcher {
        TextMatch::Exact(exact) if ignore_case => exact.eq_ignore_ascii_case(path),
        TextMatch::Prefix(prefix) if ignore_case => path
            .as_bytes()
            .get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes())),
        _ => matcher.matches(path.as_bytes()),
    }
}

/// Whether one of a header's values is so. Each line is a value, as in Envoy since 1.39: joined, a rule about `guest` would
/// not see it beside `member`. The lines of `cookie` are one value: HTTP/2 clients cut it up as they like (RFC 9113, 8.2.3).
pub(crate) fn any_value(
    headers: &HeaderMap,
    name: &HeaderName,
    mut holds: impl FnMut(&[u8]) -> bool,
) -> bool {
    let mut lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    match (lines.next(), lines.next()) {
        (None, _) => false,
        (Some(only), None) => holds(only),
        (Some(first), Some(second)) if *name == COOKIE => {
            let all: Vec<&[u8]> = [first, second].into_iter().chain(lines).collect();
            holds(&all.join(&b"; "[..]))
        }
        (Some(first), Some(second)) => holds(first) || holds(second) || lines.any(holds),
    }
}

/// The first value of a query parameter, as it is written; empty where it has no `=`.
fn query_parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name && !pair.is_empty()).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_for_nothing_matches_all() {
        let path = |matcher| [Condition::Path { matcher, ignore_case: false }];
        assert!(ask_for_nothing(&[]));
        assert!(ask_for_nothing(&path(TextMatch::Prefix("/".into()))));
        assert!(!ask_for_nothing(&path(TextMatch::Prefix("/a".into()))));
        assert!(!ask_for_nothing(&path(TextMatch::Exact("/".into()))));
    }

    #[test]
    fn a_source_is_open_that_asks_for_nothing_at_all() {
        assert!(SourceMatch::default().is_open());
        for asked in [
            SourceMatch { gateways: Some(Box::default()), ..SourceMatch::default() },
            SourceMatch { port: Some(80), ..SourceMatch::default() },
            SourceMatch { labels: Some(Arc::default()), ..SourceMatch::default() },
            SourceMatch { namespace: Some("shop".into()), ..SourceMatch::default() },
        ] {
            assert!(!asked.is_open(), "{asked:?}");
        }
    }

    #[test]
    fn letters_are_alike_only_where_the_rule_says_so() {
        for (matcher, ignore_case, path, expected) in [
            (TextMatch::Prefix("/Shop".into()), true, "/sHOP/1", true),
            (TextMatch::Prefix("/Shop".into()), false, "/sHOP/1", false),
            (TextMatch::Prefix("/Shop".into()), false, "/Shop/1", true),
            (TextMatch::Prefix("/Shop".into()), true, "/sh", false),
            (TextMatch::Exact("/Shop".into()), true, "/sHOP", true),
            (TextMatch::Exact("/Shop".into()), false, "/sHOP", false),
        ] {
            assert_eq!(path_matches(&matcher, ignore_case, path), expected, "{matcher} {ignore_case} {path}");
        }
    }

    #[test]
    fn query_parameters_are_read_as_written() {
        for (query, expected) in [
            ("a=1&b=2", Some("1")),
            ("b=2&a=x%20y", Some("x%20y")),
            ("a", Some("")),
            ("A=1", None),
            ("aa=1", None),
            ("", None),
            ("a=1&a=2", Some("1")),
            ("a==", Some("=")),
        ] {
            assert_eq!(query_parameter(query, "a"), expected, "{query}");
        }
    }

    #[test]
    fn each_line_of_a_header_is_a_value_and_a_cookie_is_one() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-a", "1"), ("x-a", "2,3"), ("cookie", "a=1"), ("cookie", "b=2")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let values = |name| {
            let mut values = Vec::new();
            any_value(&headers, &HeaderName::from_static(name), |value| {
                values.push(String::from_utf8_lossy(value).into_owned());
                false
            });
            values
        };
        assert_eq!(values("x-a"), ["1", "2,3"]);
        for wanted in ["1", "2,3"] {
            assert!(any_value(&headers, &HeaderName::from_static("x-a"), |value| value == wanted.as_bytes()));
        }
        assert_eq!(values("cookie"), ["a=1; b=2"]);
        assert!(values("x-b").is_empty());
    }
}
