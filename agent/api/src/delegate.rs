//! Delegation: an `http` rule of a VirtualService, the root, that hands its requests to the rules of another one, which has
//! no hosts. Source: Istio's VirtualService reference, `Delegate`; what that leaves unsaid is as istiod does it: a rule that
//! cannot be handed over does not exist, and requests go on to the next one.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

pub mod room;

use crate::finding::code;
use crate::istio::{
    Delegate, Destination, HttpMatchRequest, HttpRoute, StringMatch, VirtualService, gateway_key,
};

/// What a root's `delegate` names.
#[derive(Debug, Clone, Copy)]
pub enum Found<'a> {
    /// A VirtualService without hosts, which the root's namespace sees.
    Delegate(&'a VirtualService),
    /// Nothing.
    Missing,
    /// A VirtualService with hosts of its own.
    HasHosts,
    /// One whose `exportTo` leaves the root's namespace out.
    Hidden,
    /// One with more rules than there is [`room`] for.
    NoRoom,
}

impl<'a> Found<'a> {
    /// What a VirtualService is as a delegate to those who see it or not.
    pub fn of(object: Option<&'a VirtualService>, is_seen: impl FnOnce(&VirtualService) -> bool) -> Self {
        match object {
            None => Self::Missing,
            Some(object) if !object.spec.hosts.is_empty() => Self::HasHosts,
            Some(object) if !is_seen(object) => Self::Hidden,
            Some(object) => Self::Delegate(object),
        }
    }
}

/// Why rules of a delegate are not the root's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untaken {
    /// [`Found::Missing`].
    #[error(
        "no VirtualService {0} is in force: requests that match go on to the next rule (create it, or correct the name)"
    )]
    Missing(String),
    /// [`Found::HasHosts`].
    #[error(
        "VirtualService {0} has hosts, so it is nobody's delegate: requests that match go on to the next rule (take its hosts \
         away)"
    )]
    HasHosts(String),
    /// [`Found::Hidden`].
    #[error(
        "VirtualService {0} is not exported to this namespace: requests that match go on to the next rule (add the namespace \
         to its exportTo)"
    )]
    Hidden(String),
    /// [`Found::NoRoom`].
    #[error(
        "the rules of VirtualService {0} are too large together with those that this namespace has from delegates already: \
         requests that match answer 503 (delegate fewer times, or have fewer and smaller rules)"
    )]
    NoRoom(String),
    /// A match of the delegate is not within any of the root's.
    #[error(
        "http[{1}] of VirtualService {0} is left out: it matches what this rule does not (make each of its matches narrower than \
         one of this rule's; a regex can only stand on one side)"
    )]
    Conflict(String, usize),
}

impl Untaken {
    /// Its code as a finding.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing(_) | Self::HasHosts(_) | Self::Hidden(_) => code::UNKNOWN_DELEGATE,
            Self::NoRoom(_) => code::TOO_LARGE,
            Self::Conflict(..) => code::DELEGATE_CONFLICT,
        }
    }
}

/// A rule that is in force for a root's hosts.
#[derive(Debug)]
pub struct Rule<'a> {
    /// Its place in the root's `http`.
    pub index: usize,
    /// The delegate that it is from, as `namespace/name`.
    pub delegate: Option<String>,
    /// What it says, as if the root did.
    pub route: Cow<'a, HttpRoute>,
}

impl Delegate {
    /// `namespace/name`, for a root in namespace `own`.
    pub fn key(&self, own: &str) -> String {
        let namespace = if self.namespace.is_empty() { own } else { &self.namespace };
        format!("{namespace}/{}", self.name)
    }
}

/// Puts the rules of its delegates into a root: `each` gets what is in force, in the order in which it is asked, one at a
/// time, for together they may be large. `find` gets a delegate's key; `full` makes a host of a namespace's rule a full name.
/// Returns what is missing, with the place in the root's `http`.
pub fn expand<'d>(
    root: &VirtualService,
    find: impl Fn(&str) -> Found<'d>,
    full: impl Fn(&str, &str) -> String,
    mut each: impl FnMut(Rule<'_>),
) -> Vec<(usize, Untaken)> {
    let mut all_untaken = Vec::new();
    let namespace = &root.metadata.namespace;
    for (index, rule) in root.spec.http.iter().enumerate() {
        let as_it_is = Rule { index, delegate: None, route: Cow::Borrowed(rule) };
        let Some(delegate) = &rule.delegate else {
            each(as_it_is);
            continue;
        };
        let key = delegate.key(namespace);
        let untaken = match find(&key) {
            Found::Delegate(delegate) => {
                let mut outer = rule.clone();
                outer.delegate = None;
                name_gateways(&mut outer, namespace);
                for (at, inner) in delegate.spec.http.iter().enumerate() {
                    let mut inner = inner.clone();
                    in_full(&mut inner, &delegate.metadata.namespace, &full);
                    match merge(&outer, inner) {
                        Some(route) => {
                            each(Rule { index, delegate: Some(key.clone()), route: Cow::Owned(route) });
                        }
                        None => all_untaken.push((index, Untaken::Conflict(key.clone(), at))),
                    }
                }
                continue;
            }
            Found::Missing => Untaken::Missing(key),
            Found::HasHosts => Untaken::HasHosts(key),
            Found::Hidden => Untaken::Hidden(key),
            Found::NoRoom => {
                // It stays what it is: a rule that leads nowhere.
                each(as_it_is);
                Untaken::NoRoom(key)
            }
        };
        all_untaken.push((index, untaken));
    }
    all_untaken
}

/// What is relative to the delegate's namespace means the same in the root's.
fn in_full(route: &mut HttpRoute, namespace: &str, full: &impl Fn(&str, &str) -> String) {
    name_gateways(route, namespace);
    let name = |destination: &mut Destination| destination.host = full(&destination.host, namespace);
    route.route.iter_mut().for_each(|one| name(&mut one.destination));
    route.mirror.iter_mut().for_each(name);
    route.mirrors.iter_mut().for_each(|one| name(&mut one.destination));
}

fn name_gateways(route: &mut HttpRoute, namespace: &str) {
    for gateway in route.r#match.iter_mut().flat_map(|one| &mut one.gateways) {
        *gateway = gateway_key(gateway, namespace);
    }
}

/// A delegate's rule within one of the root's: what it does not say is as the root says. `None`: it matches what the root's
/// does not.
fn merge(root: &HttpRoute, delegate: HttpRoute) -> Option<HttpRoute> {
    let matches = match (root.r#match.as_slice(), delegate.r#match.as_slice()) {
        ([], inner) => inner.to_vec(),
        (outer, []) => outer.to_vec(),
        (outer, inner) => {
            let mut all = Vec::new();
            for one in inner {
                let before = all.len();
                all.extend(outer.iter().filter(|wide| holds(wide, one)).map(|wide| both(wide, one)));
                if all.len() == before {
                    return None;
                }
            }
            all
        }
    };
    let or = |inner: Vec<_>, outer: &Vec<_>| if inner.is_empty() { outer.clone() } else { inner };
    Some(HttpRoute {
        name: joined(root.name.as_deref(), delegate.name),
        r#match: matches,
        route: delegate.route,
        redirect: delegate.redirect,
        direct_response: delegate.direct_response.or_else(|| root.direct_response.clone()),
        delegate: None,
        rewrite: delegate.rewrite.or_else(|| root.rewrite.clone()),
        timeout: delegate.timeout.or(root.timeout),
        retries: delegate.retries.or_else(|| root.retries.clone()),
        fault: delegate.fault.or_else(|| root.fault.clone()),
        mirror: delegate.mirror.or_else(|| root.mirror.clone()),
        mirrors: or(delegate.mirrors, &root.mirrors),
        mirror_percent: delegate.mirror_percent.or(root.mirror_percent),
        mirror_percentage: delegate.mirror_percentage.or(root.mirror_percentage),
        cors_policy: delegate.cors_policy.or_else(|| root.cors_policy.clone()),
        headers: delegate.headers.or_else(|| root.headers.clone()),
    })
}

/// `ROOT-DELEGATE`, or the one that there is.
fn joined(root: Option<&str>, delegate: Option<String>) -> Option<String> {
    let root = root.filter(|name| !name.is_empty());
    match (root, delegate.filter(|name| !name.is_empty())) {
        (Some(root), Some(delegate)) => Some(format!("{root}-{delegate}")),
        (Some(only), None) => Some(only.to_owned()),
        (None, delegate) => delegate,
    }
}

/// Two matches of which the root's holds the delegate's, as one.
fn both(root: &HttpMatchRequest, delegate: &HttpMatchRequest) -> HttpMatchRequest {
    let text =
        |inner: &Option<StringMatch>, outer: &Option<StringMatch>| inner.clone().or_else(|| outer.clone());
    let name = |inner: &Option<String>, outer: &Option<String>| {
        word(inner.as_deref()).map(str::to_owned).or_else(|| outer.clone())
    };
    HttpMatchRequest {
        name: joined(root.name.as_deref(), delegate.name.clone()),
        uri: text(&delegate.uri, &root.uri),
        scheme: text(&delegate.scheme, &root.scheme),
        method: text(&delegate.method, &root.method),
        authority: text(&delegate.authority, &root.authority),
        headers: over(&root.headers, &delegate.headers),
        without_headers: over(&root.without_headers, &delegate.without_headers),
        query_params: over(&root.query_params, &delegate.query_params),
        port: delegate.port.filter(|port| *port > 0).or(root.port),
        source_labels: over(&root.source_labels, &delegate.source_labels),
        source_namespace: name(&delegate.source_namespace, &root.source_namespace),
        gateways: if delegate.gateways.is_empty() {
            root.gateways.clone()
        } else {
            delegate.gateways.clone()
        },
        ignore_uri_case: delegate.ignore_uri_case,
        stat_prefix: name(&delegate.stat_prefix, &root.stat_prefix),
    }
}

fn over<V: Clone>(under: &BTreeMap<String, V>, above: &BTreeMap<String, V>) -> BTreeMap<String, V> {
    let mut all = under.clone();
    all.extend(above.iter().map(|(key, value)| (key.clone(), value.clone())));
    all
}

/// Whether the delegate's match is within the root's.
fn holds(root: &HttpMatchRequest, delegate: &HttpMatchRequest) -> bool {
    let texts = [
        (&root.uri, &delegate.uri),
        (&root.scheme, &delegate.scheme),
        (&root.method, &delegate.method),
        (&root.authority, &delegate.authority),
    ];
    let fit = |(outer, inner): (&Option<StringMatch>, &Option<StringMatch>)| match (outer, inner) {
        (Some(outer), Some(inner)) => is_within(inner, outer),
        (None, _) | (_, None) => true,
    };
    let maps = [
        (&root.headers, &delegate.headers),
        (&root.without_headers, &delegate.without_headers),
        (&root.query_params, &delegate.query_params),
    ];
    let all_fit = |(outer, inner): (&BTreeMap<String, StringMatch>, &BTreeMap<String, StringMatch>)| {
        inner.iter().all(|(name, inner)| outer.get(name).is_none_or(|outer| is_within(inner, outer)))
    };
    let mut labels = delegate.source_labels.iter();
    let (outer, inner) = (root.port.unwrap_or(0), delegate.port.unwrap_or(0));
    let namespace = root.source_namespace.as_deref().unwrap_or_default();
    texts.into_iter().all(fit)
        && maps.into_iter().all(all_fit)
        && root.ignore_uri_case == delegate.ignore_uri_case
        && (outer == 0 || inner == 0 || outer == inner)
        && (namespace.is_empty() || delegate.source_namespace.as_deref() == Some(namespace))
        && labels.all(|(key, value)| root.source_labels.get(key).is_none_or(|outer| outer == value))
        && (root.gateways.is_empty() || all_among(&delegate.gateways, &root.gateways))
}

/// Both may be long.
fn all_among(some: &[String], all: &[String]) -> bool {
    let all: HashSet<&String> = all.iter().collect();
    some.iter().all(|one| all.contains(one))
}

/// Whether one text matches only what another does too, as far as istiod looks: a regex is within nothing, and holds nothing.
fn is_within(inner: &StringMatch, outer: &StringMatch) -> bool {
    let (prefix, exact) = (word(inner.prefix.as_deref()), word(inner.exact.as_deref()));
    if word(inner.regex.as_deref()).or(word(outer.regex.as_deref())).is_some() {
        return false;
    }
    match (word(outer.exact.as_deref()), word(outer.prefix.as_deref())) {
        (Some(outer), _) => prefix.is_none() && exact == Some(outer),
        (None, Some(outer)) => prefix.or(exact).is_some_and(|inner| inner.starts_with(outer)),
        (None, None) => false,
    }
}

fn word(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
