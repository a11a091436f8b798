//! What an object takes of an agent's memory, as written and as compiled: an estimate from above.

use std::collections::BTreeMap;

use crate::istio::{
    self, AuthorizationPolicySpec, ClientTlsSettings, CorsPolicy, Destination, DestinationRuleSpec,
    GatewaySpec, HeaderOperations, Headers, HttpMatchRequest, HttpRoute, RequestAuthenticationSpec,
    StringMatch, VirtualServiceSpec,
};
use crate::kubernetes::{EndpointSlice, ServiceSpec};
use crate::meta::Labels;
use crate::object::Object;
use crate::pattern;

/// Every object: its names, its place in the tables.
const OBJECT: u64 = 1 << 10;
/// One of `http`, with all fields that it could have.
const ROUTE: u64 = 2 << 10;
/// One of `match`.
const MATCH: u64 = 1 << 10;
/// A destination, a subset, a host, a server: an entry of a table.
const ENTRY: u64 = 512;
/// A text, a label, a condition, beside its length.
const TEXT: u64 = 64;
/// A part of a text that is kept by itself.
const PART: u64 = 48;
/// An endpoint on one port.
const ENDPOINT: u64 = 256;
/// How a gateway's server ends TLS, without its certificates: those are held once for each Secret.
const ENDED_TLS: u64 = 3 << 10;

/// On whose account an object goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Share {
    /// [`super::RULES`].
    Rules,
    /// [`super::ENDPOINTS`].
    Endpoints,
}

/// What an object takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weight {
    /// On whose account.
    pub share: Share,
    /// About so many bytes.
    pub bytes: u64,
    /// Its regular expressions, each once, with their instructions.
    pub patterns: BTreeMap<String, u64>,
}

impl Weight {
    /// Instructions of all regular expressions.
    pub fn instructions(&self) -> u64 {
        self.patterns.values().sum()
    }
}

/// Weighs an object; `None`: it is one that nobody counts.
pub fn weigh(object: &Object) -> Option<Weight> {
    let mut scale = Scale { bytes: OBJECT, patterns: Some(BTreeMap::new()) };
    let share = match object {
        Object::Pod(_)
        | Object::Namespace(_)
        | Object::ConfigMap(_)
        | Object::Secret(_)
        | Object::NetworkPolicy(_) => return None,
        Object::Service(o) => {
            scale.service(&o.spec);
            Share::Endpoints
        }
        Object::EndpointSlice(o) => {
            scale.slice(o);
            Share::Endpoints
        }
        Object::VirtualService(o) => {
            scale.virtual_service(&o.spec);
            Share::Rules
        }
        Object::DestinationRule(o) => {
            scale.destination_rule(&o.spec);
            Share::Rules
        }
        Object::Gateway(o) => {
            scale.gateway(&o.spec);
            Share::Rules
        }
        Object::AuthorizationPolicy(o) => {
            scale.authorization(&o.spec);
            Share::Rules
        }
        Object::RequestAuthentication(o) => {
            scale.tokens(&o.spec);
            Share::Rules
        }
        Object::PeerAuthentication(o) => {
            scale.add(ENTRY * o.spec.port_level_mtls.len() as u64);
            Share::Rules
        }
    };
    Some(Weight { share, bytes: scale.bytes, patterns: scale.patterns.unwrap_or_default() })
}

/// What one of `http` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RouteWeight {
    /// Of all but `match`, once.
    pub own: u64,
    /// How many of `match` give it a name of their own.
    pub named: u64,
    /// Of `match`.
    pub matches: u64,
}

/// Weighs one of `http`, without what its regular expressions stand for.
pub(crate) fn weigh_route(route: &HttpRoute) -> RouteWeight {
    Scale { bytes: 0, patterns: None }.route(route)
}

struct Scale {
    bytes: u64,
    /// `None`: they are not asked for.
    patterns: Option<BTreeMap<String, u64>>,
}

fn count<T>(list: &[T], each: u64) -> u64 {
    each * list.len() as u64
}

fn texts<'a>(list: impl IntoIterator<Item = &'a String>) -> u64 {
    list.into_iter().map(|text| TEXT + text.len() as u64).sum()
}

fn pairs(map: &BTreeMap<String, String>) -> u64 {
    texts(map.keys()) + texts(map.values())
}

/// What the parts of a text take that is cut at these bytes: short parts take more than the text.
fn parts(text: &str, cut: &[char]) -> u64 {
    PART * text.matches(cut).count() as u64
}

/// Values of headers may name what is put in their place.
fn values(map: &BTreeMap<String, String>) -> u64 {
    map.values().map(|value| parts(value, &['%', '?'])).sum()
}

fn labels(labels: &Labels) -> u64 {
    labels.iter().map(|(key, value)| 2 * TEXT + (key.len() + value.len()) as u64).sum()
}

fn operations(headers: Option<&Headers>) -> u64 {
    let of = |one: &HeaderOperations| {
        pairs(&one.set) + pairs(&one.add) + texts(&one.remove) + values(&one.set) + values(&one.add)
    };
    headers.map_or(0, |headers| [&headers.request, &headers.response].into_iter().flatten().map(of).sum())
}

/// Each of a subset's clusters has its own.
fn client_tls(tls: Option<&ClientTlsSettings>) -> u64 {
    let Some(tls) = tls else { return 0 };
    let files = [&tls.client_certificate, &tls.private_key, &tls.ca_certificates, &tls.ca_crl];
    let names = [&tls.credential_name, &tls.sni].into_iter().flatten().chain(&tls.subject_alt_names);
    4 * texts(files.into_iter().flatten().chain(names))
}

impl Scale {
    fn add(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn pattern(&mut self, source: &str) {
        if let Some(patterns) = &mut self.patterns {
            let instructions = pattern::parse(source).map_or(0, |parsed| parsed.instructions);
            patterns.insert(source.to_owned(), instructions);
        }
        self.add(TEXT + source.len() as u64);
    }

    fn text_match(&mut self, text: &StringMatch) {
        self.add(2 * TEXT + texts(text.exact.iter().chain(&text.prefix)));
        if let Some(regex) = &text.regex {
            self.pattern(regex);
        }
    }

    fn virtual_service(&mut self, spec: &VirtualServiceSpec) {
        self.add(
            count(&spec.hosts, ENTRY) + texts(&spec.hosts) + texts(&spec.gateways) + texts(&spec.export_to),
        );
        for route in &spec.http {
            let RouteWeight { own, named, .. } = self.route(route);
            // As written and as compiled; and once for each match that gives it a name of its own.
            self.add(own.saturating_mul(1 + named));
        }
        for route in &spec.tls {
            self.add(ENTRY);
            route.route.iter().for_each(|one| self.destination(&one.destination));
            for one in &route.r#match {
                self.add(
                    ENTRY + texts(&one.sni_hosts) + texts(&one.destination_subnets) + texts(&one.gateways),
                );
                self.add(labels(&one.source_labels));
            }
        }
        for route in &spec.tcp {
            self.add(ENTRY);
            route.route.iter().for_each(|one| self.destination(&one.destination));
            for one in &route.r#match {
                self.add(ENTRY + texts(&one.destination_subnets) + texts(&one.gateways));
                self.add(labels(&one.source_labels));
            }
        }
    }

    fn route(&mut self, route: &HttpRoute) -> RouteWeight {
        let before = self.bytes;
        self.add(ROUTE + operations(route.headers.as_ref()) + texts(&route.name));
        let mirrors = route.mirrors.iter().map(|mirror| &mirror.destination).chain(&route.mirror);
        mirrors.for_each(|to| self.destination(to));
        for one in &route.route {
            self.destination(&one.destination);
            self.add(operations(one.headers.as_ref()));
        }
        if let Some(redirect) = &route.redirect {
            let all = [&redirect.uri, &redirect.prefix_rewrite, &redirect.authority, &redirect.scheme];
            self.add(texts(all.into_iter().flatten()));
        }
        if let Some(retries) = &route.retries {
            self.add(retries.retry_on.iter().map(|on| texts([on]) + parts(on, &[','])).sum());
        }
        if let Some(delegate) = &route.delegate {
            // By whom it is asked for, for whom, and where it is missing.
            self.add(4 * texts([&delegate.name, &delegate.namespace]));
        }
        if let Some(body) = route.direct_response.as_ref().and_then(|response| response.body.as_ref()) {
            self.add(texts(body.string.iter().chain(&body.bytes)));
        }
        if let Some(cors) = &route.cors_policy {
            self.cors(cors);
        }
        if let Some(rewrite) = &route.rewrite {
            // One that is none is told in the answer, in which its letters may take six.
            self.add(texts(&rewrite.uri) + 6 * texts(&rewrite.authority));
            if let Some(regex) = &rewrite.uri_regex_rewrite {
                self.pattern(&regex.r#match);
                self.add(texts([&regex.rewrite]) + parts(&regex.rewrite, &['\\']));
            }
        }
        let own = self.bytes - before;
        let named = route.r#match.iter().filter(|one| one.name.is_some()).count() as u64;
        for one in &route.r#match {
            self.r#match(one);
        }
        RouteWeight { own, named, matches: self.bytes - before - own }
    }

    fn destination(&mut self, to: &Destination) {
        self.add(ENTRY + texts([&to.host]) + texts(&to.subset));
    }

    fn r#match(&mut self, one: &HttpMatchRequest) {
        self.add(MATCH + texts(&one.gateways) + labels(&one.source_labels) + texts(&one.name));
        self.add(texts(&one.source_namespace) + texts(&one.stat_prefix));
        let of_request = [&one.uri, &one.scheme, &one.method, &one.authority];
        of_request.into_iter().flatten().for_each(|text| self.text_match(text));
        for (name, text) in one.headers.iter().chain(&one.without_headers).chain(&one.query_params) {
            // A claim of a token is named by its path.
            self.add(texts([name]) + parts(name, &['.', '[']));
            self.text_match(text);
        }
    }

    fn cors(&mut self, cors: &CorsPolicy) {
        let lists = [&cors.allow_origin, &cors.allow_methods, &cors.allow_headers, &cors.expose_headers];
        self.add(lists.into_iter().map(texts).sum());
        cors.allow_origins.iter().for_each(|origin| self.text_match(origin));
    }

    fn destination_rule(&mut self, spec: &DestinationRuleSpec) {
        self.add(texts(&spec.export_to));
        let ports = |policy: Option<&istio::TrafficPolicy>| {
            let of_ports = policy.into_iter().flat_map(|policy| &policy.port_level_settings);
            let of_ports: u64 = of_ports.map(|port| ROUTE + client_tls(port.tls.as_ref())).sum();
            policy.map_or(0, |policy| ROUTE + client_tls(policy.tls.as_ref()) + of_ports)
        };
        self.add(ports(spec.traffic_policy.as_ref()));
        self.add(texts([&spec.host]));
        for subset in &spec.subsets {
            self.add(texts([&subset.name]));
            // A cluster for each of the service's ports.
            self.add(4 * ENTRY + labels(&subset.labels) + ports(subset.traffic_policy.as_ref()));
        }
    }

    fn gateway(&mut self, spec: &GatewaySpec) {
        self.add(labels(&spec.selector));
        for server in &spec.servers {
            self.add(ENTRY + count(&server.hosts, ENTRY) + texts(&server.hosts));
            if let Some(tls) = &server.tls {
                // As the Gateway has it, and made into what handshakes need.
                let written = serde_json::to_vec(tls).map_or(0, |text| text.len() as u64);
                self.add(ENDED_TLS + 2 * written);
            }
        }
    }

    fn authorization(&mut self, spec: &AuthorizationPolicySpec) {
        for rule in &spec.rules {
            self.add(ENTRY);
            for source in rule.from.iter().filter_map(|from| from.source.as_ref()) {
                self.add(ENTRY);
                let lists = [
                    &source.principals,
                    &source.not_principals,
                    &source.request_principals,
                    &source.not_request_principals,
                    &source.namespaces,
                    &source.not_namespaces,
                    &source.service_accounts,
                    &source.not_service_accounts,
                    &source.ip_blocks,
                    &source.not_ip_blocks,
                    &source.remote_ip_blocks,
                    &source.not_remote_ip_blocks,
                    &source.trust_domains,
                    &source.not_trust_domains,
                ];
                self.add(lists.into_iter().map(texts).sum());
            }
            for operation in rule.to.iter().filter_map(|to| to.operation.as_ref()) {
                self.add(ENTRY);
                let lists = [
                    &operation.hosts,
                    &operation.not_hosts,
                    &operation.ports,
                    &operation.not_ports,
                    &operation.methods,
                    &operation.not_methods,
                ];
                self.add(lists.into_iter().map(texts).sum());
                for path in operation.paths.iter().chain(&operation.not_paths) {
                    match pattern::path_template(path) {
                        Some(regex) => self.pattern(&regex),
                        None => self.add(texts([path])),
                    }
                }
            }
            for when in &rule.when {
                self.add(ENTRY + texts([&when.key]) + texts(&when.values) + texts(&when.not_values));
            }
        }
    }

    fn tokens(&mut self, spec: &RequestAuthenticationSpec) {
        for rule in &spec.jwt_rules {
            self.add(ROUTE + texts([&rule.issuer]) + texts(rule.jwks_uri.iter()));
            // As text, and as keys.
            self.add(4 * texts(rule.jwks.iter()));
            let lists =
                [&rule.audiences, &rule.from_params, &rule.from_cookies, &rule.space_delimited_claims];
            self.add(lists.into_iter().map(texts).sum());
            self.add(count(&rule.from_headers, ENTRY) + count(&rule.output_claim_to_headers, ENTRY));
        }
    }

    fn service(&mut self, spec: &ServiceSpec) {
        self.add(count(&spec.ports, 2 * ENTRY) + labels(&spec.selector));
    }

    fn slice(&mut self, slice: &EndpointSlice) {
        let ports = slice.ports.len().max(1) as u64;
        self.add(count(&slice.ports, TEXT) + count(&slice.endpoints, ENDPOINT).saturating_mul(ports));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::budget::{PATTERNS, RULES};
    use crate::istio::{
        Delegate, Gateway, GatewayServer, HttpBody, HttpDirectResponse, HttpRedirect, HttpRetry, HttpRewrite,
        RegexRewrite, ServerTls, VirtualService,
    };
    use crate::validate::validate;

    fn of(http: Vec<HttpRoute>) -> Object {
        let mut object = VirtualService::default();
        "large".clone_into(&mut object.metadata.name);
        object.spec =
            VirtualServiceSpec { hosts: vec!["a.example".into()], http, ..VirtualServiceSpec::default() };
        Object::VirtualService(Arc::new(object))
    }

    fn route() -> HttpRoute {
        HttpRoute {
            direct_response: Some(HttpDirectResponse { status: 200, body: None }),
            ..HttpRoute::default()
        }
    }

    fn by_regex(regex: String) -> HttpMatchRequest {
        HttpMatchRequest {
            uri: Some(StringMatch { regex: Some(regex), ..StringMatch::default() }),
            ..HttpMatchRequest::default()
        }
    }

    fn told(object: &Object) -> Vec<String> {
        let findings = validate(object);
        let large = findings.iter().filter(|finding| finding.is_error());
        large.map(|finding| format!("{} {} {}", finding.code, finding.resource, finding.path)).collect()
    }

    #[test]
    fn an_object_is_refused_for_what_it_would_take_and_not_for_its_length() {
        assert_eq!(told(&of(vec![route(); 1000])), [""; 0]);
        assert_eq!(told(&of(vec![route(); 5000])), ["TooLarge VirtualService/large spec"]);
        // A match with a name has a route of its own, with all that belongs to it.
        let body = HttpBody { string: Some("x".repeat(90 << 10)), bytes: None };
        let mut named = route();
        named.direct_response = Some(HttpDirectResponse { status: 200, body: Some(body) });
        named.r#match = (0..10)
            .map(|n| HttpMatchRequest { name: Some(format!("m{n}")), ..by_regex("a".into()) })
            .collect();
        assert_eq!(told(&of(vec![named.clone()])), [""; 0]);
        named.r#match = (0..100)
            .map(|n| HttpMatchRequest { name: Some(format!("m{n}")), ..by_regex("a".into()) })
            .collect();
        let object = of(vec![named]);
        assert!(weigh(&object).unwrap().bytes > RULES.object);
        assert_eq!(told(&object), ["TooLarge VirtualService/large spec"]);
    }

    #[test]
    fn every_text_of_a_gateways_tls_weighs() {
        let of = |tls: ServerTls| {
            let server = GatewayServer { tls: Some(tls), ..GatewayServer::default() };
            let mut gateway = Gateway::default();
            gateway.spec.servers = vec![server];
            weigh(&Object::Gateway(gateway.into())).unwrap().bytes
        };
        let long = "x".repeat(1 << 20);
        let text = Some(long.clone());
        for tls in [
            ServerTls { credential_name: text.clone(), ..ServerTls::default() },
            ServerTls { server_certificate: text.clone(), ..ServerTls::default() },
            ServerTls { subject_alt_names: vec![long.clone()], ..ServerTls::default() },
            ServerTls { cipher_suites: vec![long.clone()], ..ServerTls::default() },
        ] {
            assert!(of(tls) > 2 << 20);
        }
        assert!(of(ServerTls::default()) > ENDED_TLS);
    }

    #[test]
    fn every_text_of_a_route_weighs() {
        let long = "x".repeat(1 << 20);
        let text = Some(long.clone());
        let redirect = HttpRedirect { prefix_rewrite: text.clone(), ..HttpRedirect::default() };
        let retries = HttpRetry { retry_on: text.clone(), ..HttpRetry::default() };
        let of_match = HttpMatchRequest { name: text.clone(), ..HttpMatchRequest::default() };
        let rewrite = HttpRewrite { authority: text.clone(), ..HttpRewrite::default() };
        let delegate = Delegate { name: long.clone(), namespace: String::new() };
        for (what, route) in [
            ("name", HttpRoute { name: text.clone(), ..HttpRoute::default() }),
            ("redirect", HttpRoute { redirect: Some(redirect), ..HttpRoute::default() }),
            ("retries", HttpRoute { retries: Some(retries), ..HttpRoute::default() }),
            ("match", HttpRoute { r#match: vec![of_match], ..HttpRoute::default() }),
            ("rewrite", HttpRoute { rewrite: Some(rewrite), ..HttpRoute::default() }),
            ("delegate", HttpRoute { delegate: Some(delegate), ..HttpRoute::default() }),
        ] {
            let weight = weigh(&of(vec![route])).unwrap().bytes;
            assert!(weight > long.len() as u64, "{what}: {weight}");
        }
        // Of which much more is kept than is written.
        let regex = RegexRewrite { r#match: "a".into(), rewrite: "\\0".repeat(1 << 10) };
        let parts = HttpRewrite { uri_regex_rewrite: Some(regex), ..HttpRewrite::default() };
        let route = HttpRoute { rewrite: Some(parts), ..HttpRoute::default() };
        assert!(weigh(&of(vec![route])).unwrap().bytes > 48 << 10);
    }

    #[test]
    fn the_regular_expressions_of_an_object_have_a_sum() {
        let mut several = route();
        several.r#match = (0..10).map(|n| by_regex(format!("/{n}a{{1500}}"))).collect();
        assert_eq!(told(&of(vec![several.clone()])), [""; 0], "{}", PATTERNS.object);
        several.r#match = (0..100).map(|n| by_regex(format!("/{n}a{{1500}}"))).collect();
        assert_eq!(told(&of(vec![several.clone()])), ["TooLarge VirtualService/large spec"]);
        several.r#match = (0..100).map(|_| by_regex("/a{1500}".into())).collect();
        assert_eq!(told(&of(vec![several])), [""; 0], "equal ones are one");
    }
}
