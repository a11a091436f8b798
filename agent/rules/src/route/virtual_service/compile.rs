//! From a VirtualService as users write it to rules that match.
//!
//! What should have been refused before it got here becomes a route that answers 500 and says why: traffic never
//! takes a way that its author did not write.

use std::sync::Arc;

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine, alphabet};
use http::StatusCode;
use weft_api::delegate::{self, Found, Rule};
use weft_api::istio::{self, HttpMatchRequest, MESH, StringMatch, VirtualService, claim_path, gateway_key};
use weft_api::meta::Labels;

use crate::draw::parts_per_million;
use crate::intern::Interner;
use crate::mesh::MeshSettings;
use crate::pattern::TextMatch;
use crate::registry::hostname::{self, HostPattern};
use crate::registry::scope::Scope;
use crate::route::http_route::{
    Cors, Destination, DirectResponse, Fault, HeaderRules, HttpAction, HttpRoute, Mirror, Redirect,
    RetryPolicy, Rewrite, WeightedDestination,
};
use crate::route::matching::{Condition, HttpMatch, MatchedPath, SourceMatch};
use crate::route::virtual_service::{Age, HttpEntry, L4Entry, Rules, Subnet, TcpMatch, TlsMatch};

/// Who an object is, and who sees it.
pub(crate) fn age_and_scope(
    object: &VirtualService,
    mesh: &MeshSettings,
    intern: &mut Interner,
) -> (Age, Scope) {
    let meta = &object.metadata;
    let namespace = intern.text(&meta.namespace);
    let scope = Scope::compile(&object.spec.export_to, &mesh.virtual_service_export_to, &namespace, intern);
    let age =
        Age { created: intern.text(&meta.creation_timestamp), name: intern.text(&meta.name), namespace };
    (age, scope)
}

/// Compiles one VirtualService, with the rules of its delegates, which `find` knows by `namespace/name`, in their places.
pub(crate) fn compile<'d>(
    object: &VirtualService,
    (age, scope): (Age, Scope),
    find: impl Fn(&str) -> Found<'d>,
    mesh: &MeshSettings,
    intern: &mut Interner,
) -> Rules {
    let meta = &object.metadata;
    let key: Arc<str> = format!("{}/{}", meta.namespace, meta.name).into();
    let spec = &object.spec;
    let on_mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|gateway| gateway == MESH);
    let bound = spec.gateways.iter().filter(|gateway| *gateway != MESH);
    let gateways = bound.map(|gateway| intern.text(&gateway_key(gateway, &meta.namespace))).collect();
    let mut context = Context { key: &key, namespace: &meta.namespace, mesh, intern };
    let full = |host: &str, namespace: &str| hostname::resolve(host, namespace, &mesh.cluster_domain);
    let pattern = |name: &String| HostPattern::parse(&full(name, &meta.namespace));
    let mut http = Vec::new();
    let untaken = delegate::expand(object, find, full, |rule| http.push(context.http_entry(&rule)));
    Rules {
        hosts: spec.hosts.iter().map(pattern).collect(),
        http: http.into(),
        tls: spec.tls.iter().map(|route| context.tls_entry(route)).collect(),
        tcp: spec.tcp.iter().map(|route| context.tcp_entry(route)).collect(),
        untaken: untaken.into(),
        key: key.clone(),
        age,
        scope,
        on_mesh,
        gateways,
    }
}

struct Context<'a> {
    key: &'a Arc<str>,
    namespace: &'a str,
    mesh: &'a MeshSettings,
    intern: &'a mut Interner,
}

impl Context<'_> {
    fn http_entry(&mut self, rule: &Rule<'_>) -> HttpEntry {
        let route = Arc::new(self.route_or_failure(rule, None));
        let matches = rule.route.r#match.iter().map(|entry| {
            // A named match gives its route a name of its own.
            let route = match &entry.name {
                Some(name) => Arc::new(self.route_or_failure(rule, Some(name))),
                None => route.clone(),
            };
            let (conditions, matched) = conditions(entry, self.intern);
            let source = self.source(
                &entry.gateways,
                entry.port,
                &entry.source_labels,
                entry.source_namespace.as_deref(),
            );
            HttpMatch { source, conditions: conditions.into(), matched, route }
        });
        HttpEntry { matches: matches.collect(), route }
    }

    /// Whom a match is for. One that names gateways is not restricted by its source.
    fn source(
        &mut self,
        gateways: &[String],
        port: Option<u32>,
        labels: &Labels,
        namespace: Option<&str>,
    ) -> SourceMatch {
        let (own, intern) = (self.namespace, &mut *self.intern);
        let by_source = gateways.is_empty();
        let names = gateways.iter().map(|name| intern.text(&gateway_key(name, own))).collect();
        SourceMatch {
            gateways: (!by_source).then_some(names),
            port,
            labels: (by_source && !labels.is_empty()).then(|| intern.labels(labels)),
            namespace: namespace.filter(|name| by_source && !name.is_empty()).map(|name| intern.text(name)),
        }
    }

    fn route_or_failure(&mut self, rule: &Rule<'_>, name: Option<&String>) -> HttpRoute {
        let (index, source) = (rule.index, &*rule.route);
        let mut text = source.name.clone().unwrap_or_default();
        if let Some(name) = name {
            text.push('.');
            text.push_str(name);
        }
        let name = self.intern.text(&text);
        let route = self.route(index, source, name.clone()).unwrap_or_else(|(status, reason)| {
            let body = format!("{} http[{index}]: {reason}", self.key);
            HttpRoute {
                virtual_service: Some(self.key.clone()),
                index,
                action: HttpAction::Respond(DirectResponse { status, body: body.into() }),
                ..HttpRoute::default_for("".into(), name, None)
            }
        });
        HttpRoute { delegate: rule.delegate.as_ref().map(|key| self.intern.text(key)), ..route }
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
            delegate: None,
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
            return Err(unavailable("there is no room for the rules of its delegate"));
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
        let host = hostname::resolve(&source.host, self.namespace, &self.mesh.cluster_domain);
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

    fn tls_entry(&mut self, source: &istio::TlsRoute) -> L4Entry<TlsMatch> {
        let matches = source.r#match.iter().map(|entry| TlsMatch {
            source: self.source(
                &entry.gateways,
                entry.port,
                &entry.source_labels,
                entry.source_namespace.as_deref(),
            ),
            names: entry
                .sni_hosts
                .iter()
                .map(|name| HostPattern::parse(&name.to_ascii_lowercase()))
                .collect(),
            subnets: subnets(&entry.destination_subnets),
        });
        L4Entry { matches: matches.collect(), route: self.l4_route(&source.route) }
    }

    fn l4_route(&mut self, source: &[istio::RouteDestination]) -> Box<[(Destination, u32)]> {
        let weighted = source
            .iter()
            .map(|entry| (self.destination(&entry.destination), u32::try_from(entry.weight).unwrap_or(0)));
        weighted.collect()
    }

    fn tcp_entry(&mut self, source: &istio::TcpRoute) -> L4Entry<TcpMatch> {
        let matches = source.r#match.iter().map(|entry| {
            let from = entry.source_subnet.as_ref().filter(|text| !text.is_empty());
            TcpMatch {
                source: self.source(
                    &entry.gateways,
                    entry.port,
                    &entry.source_labels,
                    entry.source_namespace.as_deref(),
                ),
                from: subnets(from.map_or(&[], std::slice::from_ref)),
                subnets: subnets(&entry.destination_subnets),
            }
        });
        L4Entry { matches: matches.collect(), route: self.l4_route(&source.route) }
    }
}

/// Where an address has to be; `None`: anywhere. Subnets of which none can be read hold nobody.
fn subnets(source: &[String]) -> Option<Box<[Subnet]>> {
    (!source.is_empty()).then(|| source.iter().filter_map(|text| Subnet::parse(text)).collect())
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

/// What is named like a header and is none.
fn claim_or_pseudo_header(name: &str, matcher: &TextMatch) -> Option<Condition> {
    let matcher = matcher.clone();
    if let Some(path) = claim_path(name) {
        return Some(Condition::Claim(path.into_iter().map(Into::into).collect(), matcher));
    }
    Some(match name {
        ":method" => Condition::Method(matcher),
        ":path" => Condition::FullPath(matcher),
        ":authority" => Condition::Authority(matcher),
        ":scheme" => Condition::Scheme(matcher),
        _ => return None,
    })
}

fn header_condition(name: &str, matcher: TextMatch) -> Condition {
    if let Some(condition) = claim_or_pseudo_header(name, &matcher) {
        return condition;
    }
    match http::header::HeaderName::from_bytes(name.as_bytes()) {
        Ok(http::header::HOST) => Condition::Authority(matcher),
        Ok(name) => Condition::Header(name, matcher),
        Err(_) => Condition::Never(format!("{name:?} is not a header name").into()),
    }
}

fn without_condition(name: &str, matcher: TextMatch) -> Condition {
    if let Some(condition) = claim_or_pseudo_header(name, &matcher) {
        return Condition::Not(Box::new(condition));
    }
    match http::header::HeaderName::from_bytes(name.as_bytes()) {
        Ok(http::header::HOST) => Condition::Not(Box::new(Condition::Authority(matcher))),
        Ok(name) => Condition::WithoutHeader(name, matcher),
        Err(_) => Condition::Never(format!("{name:?} is not a header name").into()),
    }
}

/// What `directResponse.body.bytes` stands for: JSON of Protocol Buffers takes both alphabets of RFC 4648, padded or not.
fn bytes_of(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
    // A long text has line ends in YAML.
    let text: String = text.split_ascii_whitespace().collect();
    let engine = if text.contains(['-', '_']) { URL_SAFE } else { STANDARD };
    engine.decode(text).ok()
}

fn direct_response(source: &istio::HttpDirectResponse) -> Result<DirectResponse, String> {
    let status = u16::try_from(source.status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    let body = match &source.body {
        Some(istio::HttpBody { string: Some(text), .. }) => text.clone().into(),
        Some(istio::HttpBody { bytes: Some(base64), .. }) => {
            bytes_of(base64).ok_or("directResponse.body.bytes is not base64")?.into()
        }
        _ => bytes::Bytes::new(),
    };
    Ok(DirectResponse { status: status.ok_or(format!("{} is not a status", source.status))?, body })
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_of_a_body_are_decoded_from_both_alphabets_with_and_without_padding() {
        let decoded = |text: &str| super::bytes_of(text).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(decoded("aGVsbG8=").as_deref(), Some("hello"));
        assert_eq!(decoded("aGVs\n  bG8\n").as_deref(), Some("hello"));
        assert_eq!(decoded("").as_deref(), Some(""));
        assert_eq!(super::bytes_of("+/8="), super::bytes_of("-_8"));
        assert_eq!(decoded("a"), None);
        assert_eq!(decoded("a$=="), None);
    }
}
