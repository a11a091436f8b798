//! Where a connection of bytes goes, and which rule says so.

use std::sync::Arc;

use crate::route::http_route::Destination;
use crate::route::matching::SourceMatch;
use crate::route::virtual_service::{Rules, TlsMatch, pick};

/// What to do with a connection.
#[derive(Debug, Clone)]
pub enum TcpDecision {
    /// To a destination, by rule or because the address is a service's.
    Forward {
        /// Where to.
        destination: Destination,
        /// `namespace/name` of the VirtualService that decided; `None` for a default.
        virtual_service: Option<Arc<str>>,
    },
    /// There are rules, and none takes it: close, flag `NR`.
    NoRoute,
    /// Nobody knows the address: to where the caller dialled.
    Passthrough,
    /// Nobody knows the address, under REGISTRY_ONLY: reset.
    BlackHole,
}

/// What the `tls` or `tcp` rules of a host say of a connection.
pub(crate) enum L4Rules<'a> {
    /// There are none for this caller and port.
    None,
    /// None of its `tls` rules has the server name.
    NoMatch,
    /// This one takes it.
    Matched(L4Rule<'a>),
}

/// A rule for connections.
pub(crate) struct L4Rule<'a> {
    pub(crate) rules: &'a Arc<Rules>,
    /// `tls` or `tcp`, and its place there.
    pub(crate) place: (&'static str, usize),
    pub(crate) route: &'a [(Destination, u32)],
}

impl<'a> L4Rules<'a> {
    /// The `tls` rule that takes a connection. The most specific name decides, and of equal ones the first of the oldest
    /// VirtualService; where there are rules for this caller, and none has the name, it goes nowhere.
    pub(crate) fn by_name(
        all: impl Iterator<Item = &'a Arc<Rules>>,
        is_for: impl Fn(&SourceMatch) -> bool,
        fits: impl Fn(&TlsMatch) -> Option<usize>,
    ) -> Self {
        let (mut found, mut best) = (Self::None, None);
        for rules in all {
            for (index, entry) in rules.tls.iter().enumerate() {
                for candidate in entry.matches.iter().filter(|candidate| is_for(&candidate.source)) {
                    let fits = fits(candidate);
                    if fits > best {
                        best = fits;
                        found = Self::Matched(L4Rule { rules, place: ("tls", index), route: &entry.route });
                    } else if best.is_none() {
                        found = Self::NoMatch;
                    }
                }
            }
        }
        found
    }

    /// What that means for a connection; `None`: there are no rules. `seed` is fresh randomness.
    pub(crate) fn decision(&self, seed: u64) -> Option<TcpDecision> {
        match self {
            Self::None => None,
            Self::NoMatch => Some(TcpDecision::NoRoute),
            Self::Matched(rule) => {
                let forward = |destination: &Destination| TcpDecision::Forward {
                    destination: destination.clone(),
                    virtual_service: Some(rule.rules.key.clone()),
                };
                Some(pick(rule.route, seed).map_or(TcpDecision::NoRoute, forward))
            }
        }
    }
}
