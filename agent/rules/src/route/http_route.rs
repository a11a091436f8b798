//! A compiled HTTP route: every effect on the request and its response as a function. Which route a request takes
//! is decided in `matching.rs`.

use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::request::Parts;
use http::uri::Scheme;
use http::{HeaderMap, StatusCode};

use crate::draw::{Use, draw, happens};

mod cors;
mod fault;
mod headers;
mod redirect;
mod retry;
mod rewrite;

pub use cors::Cors;
pub use fault::{Abort, Fault, FaultDraw};
pub use headers::HeaderRules;
pub use redirect::Redirect;
pub use retry::{RetryPolicy, TryOutcome};

pub(crate) use rewrite::Rewrite;

/// The route that a request matched, and how its path did.
#[derive(Debug, Clone)]
pub struct MatchedHttpRoute {
    /// The route.
    pub route: Arc<HttpRoute>,
    /// Length of the path prefix that matched, where a prefix did: what a rewrite replaces.
    pub matched_prefix: Option<usize>,
}

/// One of a VirtualService's `http` entries, or a service's default route.
#[derive(Debug)]
pub struct HttpRoute {
    /// The route's name as access logs have it, with the match's name after a dot; `default` for a default route,
    /// empty where the rule names none.
    pub name: Arc<str>,
    /// `namespace/name` of the VirtualService; `None` for a default route.
    pub virtual_service: Option<Arc<str>>,
    /// `namespace/name` of the VirtualService that it was delegated to.
    pub delegate: Option<Arc<str>>,
    /// Position in the VirtualService's `http`, from 0.
    pub index: usize,
    /// What answers.
    pub action: HttpAction,
    /// Deadline over all tries; `None` is no deadline.
    pub timeout: Option<Duration>,
    /// Retries; `None` switches them off.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Faults to inject.
    pub fault: Option<Fault>,
    /// Where copies go.
    pub mirrors: Vec<Mirror>,
    /// Cross-origin policy.
    pub cors: Option<Cors>,
    /// Header operations of the route.
    pub headers: HeaderRules,
    pub(crate) rewrite: Option<Box<Rewrite>>,
}

/// What answers a request.
#[derive(Debug)]
pub enum HttpAction {
    /// One of these, by weight.
    Forward(Vec<WeightedDestination>),
    /// A redirect.
    Redirect(Redirect),
    /// A fixed answer.
    Respond(DirectResponse),
}

/// A destination with its share.
#[derive(Debug)]
pub struct WeightedDestination {
    /// Where to.
    pub destination: Destination,
    /// Share of the sum of weights; 0 is never chosen.
    pub weight: u32,
    /// Header operations when this one is chosen.
    pub headers: HeaderRules,
}

/// A service by its full name, maybe a subset and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Full name, lower case.
    pub host: Arc<str>,
    /// Subset.
    pub subset: Option<Arc<str>>,
    /// Service port; `None`: the one addressed.
    pub port: Option<u16>,
}

/// `directResponse`, compiled; also what stands in for a route that cannot be served.
#[derive(Debug)]
pub struct DirectResponse {
    /// Status.
    pub status: StatusCode,
    /// Body; empty for none.
    pub body: bytes::Bytes,
}

/// A copy of the request.
#[derive(Debug)]
pub struct Mirror {
    /// Where to.
    pub destination: Destination,
    /// Share, in millionths.
    pub parts_per_million: u32,
}

impl Mirror {
    /// Whether this request is copied; `index` is the mirror's position in its route.
    pub fn draws(&self, index: usize, seed: u64) -> bool {
        happens(seed.rotate_left(17).wrapping_add(index as u64), Use::Mirror, self.parts_per_million)
    }
}

impl HttpRoute {
    /// A service's route where no rule says otherwise.
    pub(crate) fn default_for(host: Arc<str>, name: Arc<str>, retry: Option<Arc<RetryPolicy>>) -> Self {
        let destination = Destination { host, subset: None, port: None };
        let only = WeightedDestination { destination, weight: 1, headers: HeaderRules::default() };
        Self {
            name,
            virtual_service: None,
            delegate: None,
            index: 0,
            action: HttpAction::Forward(vec![only]),
            timeout: None,
            retry,
            fault: None,
            mirrors: Vec::new(),
            cors: None,
            headers: HeaderRules::default(),
            rewrite: None,
        }
    }

    /// Chooses a destination by weight. `None` if the route does not forward.
    pub fn pick(&self, seed: u64) -> Option<&WeightedDestination> {
        let HttpAction::Forward(destinations) = &self.action else { return None };
        pick_weighted(destinations, |destination| destination.weight, seed)
    }

    /// Applies `rewrite` and the request header operations of the route and of the chosen destination,
    /// `x-envoy-original-path` included. Envoy's order: the destination's headers, the route's, Host, path.
    pub fn rewrite_request(
        &self,
        chosen: &WeightedDestination,
        matched_prefix: Option<usize>,
        request: &mut Parts,
    ) {
        chosen.headers.apply_to_request(request);
        self.headers.apply_to_request(request);
        let rewritten = self.rewrite.as_ref().and_then(|rewrite| rewrite.authority.as_ref());
        if let Some(host) = rewritten.or(self.headers.host()).or(chosen.headers.host()) {
            headers::set_authority(request, host);
        }
        if let Some(rewrite) = &self.rewrite {
            rewrite.rewrite_path(matched_prefix, request);
        }
    }

    /// Applies the response header operations of the route and of the chosen destination (`None` for redirects,
    /// direct responses and faults).
    pub fn rewrite_response(&self, chosen: Option<&WeightedDestination>, headers: &mut HeaderMap) {
        if let Some(chosen) = chosen {
            chosen.headers.apply_to_response(headers);
        }
        self.headers.apply_to_response(headers);
    }
}

/// One of a list by its weights; the only one regardless of its weight.
pub(crate) fn pick_weighted<T>(list: &[T], weight: impl Fn(&T) -> u32, seed: u64) -> Option<&T> {
    if let [only] = list {
        return Some(only);
    }
    let total: u64 = list.iter().map(|item| u64::from(weight(item))).sum();
    if total == 0 {
        return None;
    }
    let mut point = draw(seed, Use::Destination).u64(0..total);
    list.iter().find(|item| {
        let share = u64::from(weight(item));
        let hit = point < share;
        point = point.saturating_sub(share);
        hit
    })
}

/// The host that a request names: the target's own authority before the Host header (RFC 9112, section 3.2.2).
pub(crate) fn authority(request: &Parts) -> &str {
    match request.uri.authority() {
        Some(authority) => authority.as_str(),
        None => request.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
    }
}

/// `https` where TLS has ended on this node, as whoever ended it has noted in the request's extensions; else what the target
/// says, and `http` where that says nothing.
pub(crate) fn scheme(request: &Parts) -> &str {
    let noted = request.extensions.get::<Scheme>().or(request.uri.scheme());
    noted.map_or("http", Scheme::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_shares_of_their_sum() {
        let list = [("a", 95), ("zero", 0), ("b", 5)];
        let picked = |name| {
            let of = |seed| pick_weighted(&list, |item| item.1, seed).unwrap().0;
            (0..20_000).filter(|seed| of(*seed) == name).count()
        };
        assert!((18_850..19_150).contains(&picked("a")), "{}", picked("a"));
        assert_eq!(picked("zero"), 0);
        assert_eq!(picked("a") + picked("b"), 20_000);
        assert_eq!(pick_weighted(&[0], |item| *item, 1), Some(&0));
        assert_eq!(pick_weighted(&[0, 0], |item| *item, 1), None);
    }
}
