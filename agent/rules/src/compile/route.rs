//! From a VirtualService as users write it to rules that match.
//!
//! What should have been refused before it got here becomes a route that answers 500 and says why: traffic never
//! takes a way that its author did not write.

use std::sync::Arc;

use http::StatusCode;
use weft_api::istio::{self, HttpMatchRequest, StringMatch, VirtualService};

use crate::draw::parts_per_million;
use crate::host::{self, HostPattern};
use crate::http_route::{
    Cors, Destination, DirectResponse, Fault, HeaderRules, HttpAction, HttpRoute, Mirror, Redirect,
    RetryPolicy, Rewrite, WeightedDestination,
};
use crate::intern::Interner;
use crate::matching::{Condition, HttpMatch, MESH, MatchedPath, SourceMatch};
use crate::mesh::MeshSettings;
use crate::pattern::TextMatch;
use crate::virtual_service::{Age, HttpEntry, Rules, Subnet, TcpEntry, TcpMatch};
use crate::visibility::Visibility;

/// Compiles one VirtualService.
pub(crate) fn compile(object: &VirtualService, mesh: &MeshSettings, intern: &mut Interner) -> Rules {
    let meta = &object.metadata;
    let namespace = intern.text(&meta.namespace);
    let key: Arc<str> = format!("{}/{}", meta.namespace, meta.name).into();
    let spec = &object.spec;
    let visibility =
        Visibility::compile(&spec.export_to, &mesh.virtual_service_export_to, &namespace, intern);
    let on_mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|gateway| gateway == MESH);
    let age = Age {
        created: intern.text(&meta.creation_timestamp),
        name: intern.text(&meta.name),
        namespace: namespace.clone(),
    };
    let bound = spec.gateways.iter().filter(|gateway| *gateway != MESH);
    let gateways = bound.map(|gateway| gateway_name(gateway, &meta.namespace, intern)).collect();
    let mut context = Context { key: &key, namespace: &meta.namespace, mesh, intern };
    let pattern =
        |name: &String| HostPattern::parse(&host::resolve(name, &meta.namespace, &mesh.cluster_domain));
    Rules {
        hosts: spec.hosts.iter().map(pattern).collect(),
        http: spec.http.iter().enumerate().map(|(index, route)| context.http_entry(index, route)).collect(),
        tcp: spec.tcp.iter().map(|route| context.tcp_entry(route)).collect(),
        key: key.clone(),
        age,
        visibility,
        on_mesh,
        gateways,
    }
}

/// A Gateway as a VirtualService of `namespace` names it: `name` or `namespace/name`, also `name.namespace.svc…` of old.
fn gateway_name(name: &str, namespace: &str, intern: &mut Interner) -> Arc<str> {
    if name == MESH || name.contains('/') {
        return intern.text(name);
    }
    match name.split_once('.') {
        Some((name, rest)) => {
            let namespace = rest.split_once('.').map_or(rest, |(namespace, _)| namespace);
            intern.text(&format!("{namespace}/{name}"))
        }
        None => intern.text(&format!("{namespace}/{name}")),
    }
}

struct Context<'a> {
    key: &'a Arc<str>,
    namespace: &'a str,
    mesh: &'a MeshSettings,
    intern: &'a mut Interner,
}

impl Context<'_> {
    fn http_entry(&mut self, index: usize, source: &istio::HttpRoute) -> HttpEntry {
        let route = Arc::new(self.route_or_failure(index, source, None));
        let matches = source.r#match.iter().map(|entry| {
            // A named match gives its route a name of its own.
            let route = match &entry.name {
                Some(name) => Arc::new(self.route_or_failure(index, source, Some(name))),
                None => route.clone(),
            };
            let (conditions, matched) = conditions(entry, self.intern);
            // A match that names gateways is not restricted by its source.
            let by_source = entry.gateways.is_empty();
            let source = SourceMatch {
                gateways: self.match_gateways(&entry.gateways),
                port: entry.port,
                labels: (by_source && !entry.source_labels.is_empty())
                    .then(|| self.intern.labels(&entry.source_labels)),
                namespace: self.source_namespace(by_source, entry.source_namespace.as_deref()),
            };
            HttpMatch { source, conditions: conditions.into(), matched, route }
        });
        HttpEntry { matches: matches.collect(), route }
    }

    fn match_gateways(&mut self, names: &[String]) -> Option<Box<[Arc<str>]>> {
        let (namespace, intern) = (self.namespace, &mut *self.intern);
        (!names.is_empty()).then(|| names.iter().map(|name| gateway_name(name, namespace, intern)).collect())
    }

    fn source_namespace(&mut self, by_source: bool, namespace: Option<&str>) -> Option<Arc<str>> {
        namespace.filter(|name| by_source && !name.is_empty()).map(|name| self.intern.text(name))
    }

    fn route_or_failure(
        &mut self,
        index: usize,
        source: &istio::HttpRoute,
        name: Option<&String>,
    ) -> HttpRoute {
        let mut text = source.name.clone().unwrap_or_default();
        if let Some(name) = name {
            text.push('.');
            text.push_str(name);
        }
        let name = self.intern.text(&text);
        self.route(index, source, name.clone()).unwrap_or_else(|(status, reason)| {
            let body = format!("{} http[{index}]: {reason}", self.key);
            HttpRoute {
                virtual_service: Some(self.key.clone()),
                index,
                action: HttpAction::Respond(DirectResponse { status, body: body.into() }),
                ..HttpRoute::default_for("".into(), name, None)
            }
        })
    }

    fn route(
        &mut self,
        index: usize,
        source: &istio::HttpRoute,
        name: Arc<str>,
    ) -> Result<HttpRoute, (StatusCode, String)> {
        let broken = |reason: String| (StatusCode::INTERNAL_SERVER_ERROR, reason);
        let mut headers = HeaderRules::compile(source.headers.as_ref()).map_err(broken)?;
        let action = self.action(source, &mut headers)?;
        let retry = match &source.retries {
            Some(retries) => RetryPolicy::compile(retries).map(Arc::new),
            None => self.mesh.retry.clone(),
        };
        let cors = source.cors_policy.as_ref().map(|policy| Cors::compile(policy, self.intern));
        let rewrite = source.rewrite.as_ref();
        let rewrite = rewrite.map(|rewrite| Rewrite::compile(rewrite, self.intern).map(Box::new));
        Ok(HttpRoute {
            name,
            virtual_service: Some(self.key.clone()),
            index,
            action,
            timeout: source.timeout.map(|span| span.0).filter(|span| !span.is_zero()),
            retry,
            fault: source.fault.as_ref().map(Fault::compile).transpose().map_err(broken)?,
            mirrors: self.mirrors(source),
            cors: cors.transpose().map_err(broken)?,
            headers,
            rewrite: rewrite.transpose().map_err(broken)?,
        })
    }

    fn action(
        &mut self,
        source: &istio::HttpRoute,
        headers: &mut HeaderRules,
    ) -> Result<HttpAction, (StatusCode, String)> {
        let broken = |reason: String| (StatusCode::INTERNAL_SERVER_ERROR, reason);
        if let Some(redirect) = &source.redirect {
            return Ok(HttpAction::Redirect(Redirect::compile(redirect).map_err(broken)?));
        }
        if let Some(response) = &source.direct_response {
            return direct_response(response).map(HttpAction::Respond).map_err(broken);
        }
        let unavailable = |reason: &str| (StatusCode::SERVICE_UNAVAILABLE, reason.to_owned());
        if source.delegate.is_some() {
            return Err(unavailable("delegates are not in force yet"));
        }
        if let [only] = source.route.as_slice() {
            // Istio puts a single destination's operations behind the route's own, in one list.
            if let Some(own) = &only.headers {
                headers.append(own).map_err(broken)?;
            }
            let destination = self.destination(&only.destination);
            let only = WeightedDestination { destination, weight: 1, headers: HeaderRules::default() };
            return Ok(HttpAction::Forward(vec![only]));
        }
        let mut destinations = Vec::with_capacity(source.route.len());
        for entry in &source.route {
            destinations.push(WeightedDestination {
                destination: self.destination(&entry.destination),
                weight: entry.weight.try_into().unwrap_or(0),
                headers: HeaderRules::compile(entry.headers.as_ref()).map_err(broken)?,
            });
        }
        if destinations.iter().all(|destination| destination.weight == 0) {
            return Err(unavailable("no destination has a weight"));
        }
        Ok(HttpAction::Forward(destinations))
    }

    fn mirrors(&mut self, source: &istio::HttpRoute) -> Vec<Mirror> {
        let single = source.mirror.as_ref().map(|destination| {
            let percent = source.mirror_percentage.map(|percent| percent.value);
            let percent = percent.or(source.mirror_percent.map(f64::from)).unwrap_or(100.0);
            (destination, percent)
        });
        let several = source
            .mirrors
            .iter()
            .map(|mirror| (&mirror.destination, mirror.percentage.map_or(100.0, |percent| percent.value)));
        let all: Vec<_> = single.into_iter().chain(several).collect();
        all.into_iter()
            .map(|(destination, percent)| Mirror {
                destination: self.destination(destination),
                parts_per_million: parts_per_million(percent),
            })
            .filter(|mirror| mirror.parts_per_million > 0)
            .collect()
    }

    fn destination(&mut self, source: &istio::Destination) -> Destination {
        let host = host::resolve(&source.host, self.namespace, &self.mesh.cluster_domain);
        // A port out of range is no service's.
        let port = source.port.as_ref().map(|port| u16::try_from(port.number).unwrap_or(0));
        Destination {
            host: self.intern.text(&host),
            subset: source
                .subset
                .as_deref()
                .filter(|name| !name.is_empty())
                .map(|name| self.intern.text(name)),
            port: port.filter(|port| *port != 0),
        }
    }

    fn tcp_entry(&mut self, source: &istio::TcpRoute) -> TcpEntry {
        let matches = source.r#match.iter().map(|entry| {
            let by_source = entry.gateways.is_empty();
            // Subnets of which none can be read match nobody. sourceSubnet is deprecated, and Istio ignores it too.
            let subnets = entry.destination_subnets.iter().filter_map(|text| Subnet::parse(text)).collect();
            TcpMatch {
                source: SourceMatch {
                    gateways: self.match_gateways(&entry.gateways),
                    port: entry.port,
                    labels: (by_source && !entry.source_labels.is_empty())
                        .then(|| self.intern.labels(&entry.source_labels)),
                    namespace: self.source_namespace(by_source, entry.source_namespace.as_deref()),
                },
                subnets: (!entry.destination_subnets.is_empty()).then_some(subnets),
            }
        });
        let matches = matches.collect();
        let route = source
            .route
            .iter()
            .map(|entry| (self.destination(&entry.destination), u32::try_from(entry.weight).unwrap_or(0)));
        TcpEntry { matches, route: route.collect() }
    }
}

/// The conditions of a match entry, the cheap ones first, and what its path leaves for a rewrite.
fn conditions(source: &HttpMatchRequest, intern: &mut Interner) -> (Vec<Condition>, MatchedPath) {
    let mut conditions = Vec::new();
    let mut matched = MatchedPath::Prefix(1);
    let mut add = |matcher: &StringMatch, build: &dyn Fn(TextMatch) -> Condition| {
        conditions.push(match TextMatch::compile(matcher, intern) {
            Ok(matcher) => build(matcher),
            Err(reason) => Condition::Never(reason.into()),
        });
    };
    if let Some(method) = given(source.method.as_ref()) {
        add(method, &Condition::Method);
    }
    if let Some(uri) = given(source.uri.as_ref()) {
        matched = match &uri.prefix {
            Some(prefix) if uri.exact.is_none() => MatchedPath::Prefix(prefix.len()),
            _ => MatchedPath::Whole,
        };
        add(uri, &|matcher| Condition::Path { matcher, ignore_case: source.ignore_uri_case });
    }
    if let Some(scheme) = given(source.scheme.as_ref()) {
        add(scheme, &Condition::Scheme);
    }
    if let Some(authority) = given(source.authority.as_ref()) {
        add(authority, &Condition::Authority);
    }
    for (name, matcher) in &source.headers {
        add(matcher, &|matcher| header_condition(name, matcher));
    }
    for (name, matcher) in &source.without_headers {
        add(matcher, &|matcher| without_condition(name, matcher));
    }
    for (name, matcher) in &source.query_params {
        add(matcher, &|matcher| Condition::Query(name.as_str().into(), matcher));
    }
    (conditions, matched)
}

/// A matcher that restricts: `{}` and the regex `*` do not.
fn given(matcher: Option<&StringMatch>) -> Option<&StringMatch> {
    matcher.filter(|matcher| {
        let all = matcher.exact.is_none() && matcher.prefix.is_none();
        !all || matcher.regex.as_deref().is_some_and(|regex| regex != "*")
    })
}

fn pseudo_header(name: &str, matcher: TextMatch) -> Option<Condition> {
    Some(match name {
        ":method" => Condition::Method(matcher),
        ":path" => Condition::FullPath(matcher),
        ":authority" => Condition::Authority(matcher),
        ":scheme" => Condition::Scheme(matcher),
        _ => return None,
    })
}

fn header_condition(name: &str, matcher: TextMatch) -> Condition {
    if name.starts_with("@request.auth.claims") {
        return Condition::Never("JWT claims are not verified yet".into());
    }
    if let Some(condition) = pseudo_header(name, matcher.clone()) {
        return condition;
    }
    match http::header::HeaderName::from_bytes(name.as_bytes()) {
        Ok(http::header::HOST) => Condition::Authority(matcher),
        Ok(name) => Condition::Header(name, matcher),
        Err(_) => Condition::Never(format!("{name:?} is not a header name").into()),
    }
}

fn without_condition(name: &str, matcher: TextMatch) -> Condition {
    if name.starts_with("@request.auth.claims") {
        return Condition::Never("JWT claims are not verified yet".into());
    }
    if let Some(condition) = pseudo_header(name, matcher.clone()) {
        return Condition::Not(Box::new(condition));
    }
    match http::header::HeaderName::from_bytes(name.as_bytes()) {
        Ok(http::header::HOST) => Condition::Not(Box::new(Condition::Authority(matcher))),
        Ok(name) => Condition::WithoutHeader(name, matcher),
        Err(_) => Condition::Never(format!("{name:?} is not a header name").into()),
    }
}

fn direct_response(source: &istio::HttpDirectResponse) -> Result<DirectResponse, String> {
    let status = u16::try_from(source.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    let body = match &source.body {
        Some(istio::HttpBody { string: Some(text), .. }) => text.clone().into(),
        Some(istio::HttpBody { bytes: Some(base64), .. }) => {
            super::base64::decode(base64).ok_or("directResponse.body.bytes is not base64")?.into()
        }
        _ => bytes::Bytes::new(),
    };
    Ok(DirectResponse { status: status.ok_or(format!("{} is not a status", source.status))?, body })
}
