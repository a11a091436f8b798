//! How much of every node's memory the rules of delegates may take.
//!
//! They are made anew for each rule that delegates, so what is taken is a product of what two people write. What is over a
//! bound is decided from all objects that there are, in a fixed order: every agent decides the same, whatever came first,
//! and room that is given back goes to the next.

use std::collections::{HashMap, HashSet};

use crate::budget::{RouteWeight, weigh_route};
use crate::istio::{HttpRoute, VirtualService};

/// What the delegates of all VirtualServices may bring, in bytes.
pub const ALL: u64 = 64 << 20;
/// The same for those of one namespace, and for the delegates of one namespace.
pub const OF_NAMESPACE: u64 = 32 << 20;
/// The same for what one namespace's delegates bring to another's.
pub const OF_PAIR: u64 = 16 << 20;
/// What one namespace's delegates may bring to another's even where the bounds above are reached: small rules are never out of
/// force for what others write.
pub const GUARANTEED: u64 = 256 << 10;
/// What a namespace may have so from all.
pub const GUARANTEED_OF_NAMESPACE: u64 = 4 << 20;

/// The `http` rules of a VirtualService as factors of what they take together with others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bulk {
    rules: u64,
    /// Matches; a rule without any counts as one.
    matches: u64,
    /// Whether a match has a name: then each gets the whole rule once more.
    named: bool,
    /// Bytes of the rules, but for their matches.
    own: u64,
    /// The same, of each as often as it has matches.
    own_by_matches: u64,
    /// Bytes of the matches.
    match_bytes: u64,
}

impl Bulk {
    /// Of what others get from a VirtualService that they delegate to.
    pub fn of(delegate: &VirtualService) -> Self {
        let mut bulk = Self::default();
        delegate.spec.http.iter().for_each(|rule| bulk.add(rule));
        bulk
    }

    /// Of the rules of a VirtualService that delegate, by the delegate's `namespace/name`.
    pub fn of_roots(root: &VirtualService) -> HashMap<String, Self> {
        let mut bulks: HashMap<String, Self> = HashMap::new();
        for rule in &root.spec.http {
            if let Some(delegate) = &rule.delegate {
                bulks.entry(delegate.key(&root.metadata.namespace)).or_default().add(rule);
            }
        }
        bulks
    }

    fn add(&mut self, rule: &HttpRoute) {
        let RouteWeight { own, named, matches: bytes } = weigh_route(rule);
        let matches = rule.r#match.len().max(1) as u64;
        self.rules += 1;
        self.matches += matches;
        self.named |= named > 0;
        self.own += own;
        self.own_by_matches = self.own_by_matches.saturating_add(own.saturating_mul(matches));
        self.match_bytes += bytes;
    }

    /// The most bytes that rules which delegate and those of the delegate take together.
    pub fn with(&self, delegate: &Self) -> u64 {
        let mut products = vec![
            (self.own, delegate.rules),
            (delegate.own, self.rules),
            (self.match_bytes, delegate.matches),
            (delegate.match_bytes, self.matches),
        ];
        if self.named || delegate.named {
            products
                .extend([(self.own_by_matches, delegate.matches), (delegate.own_by_matches, self.matches)]);
        }
        products.into_iter().fold(0, |sum, (one, times)| sum.saturating_add(one.saturating_mul(times)))
    }
}

/// A VirtualService that delegates to another one.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// Who delegates, as `namespace/name`.
    pub root: &'a str,
    /// To whom.
    pub delegate: &'a str,
    /// What that takes: [`Bulk::with`].
    pub bytes: u64,
}

/// What has been given.
#[derive(Default)]
struct Given<'a> {
    all: u64,
    /// To VirtualServices of a namespace.
    to: HashMap<&'a str, u64>,
    /// For delegates of a namespace.
    of: HashMap<&'a str, u64>,
    pairs: HashMap<(&'a str, &'a str), u64>,
    /// To VirtualServices of a namespace as guaranteed, beyond the bounds.
    guaranteed: HashMap<&'a str, u64>,
}

impl<'a> Given<'a> {
    /// Gives room, if there is any.
    fn give(&mut self, root: &'a str, delegate: &'a str, bytes: u64) -> bool {
        let with = |sum: u64| sum.saturating_add(bytes);
        let (to, of) = (self.to.entry(root).or_default(), self.of.entry(delegate).or_default());
        let pair = self.pairs.entry((root, delegate)).or_default();
        if with(self.all) <= ALL
            && with(*to) <= OF_NAMESPACE
            && with(*of) <= OF_NAMESPACE
            && with(*pair) <= OF_PAIR
        {
            (self.all, *to, *of, *pair) = (with(self.all), with(*to), with(*of), with(*pair));
            return true;
        }
        let guaranteed = self.guaranteed.entry(root).or_default();
        let fits = with(*pair) <= GUARANTEED && with(*guaranteed) <= GUARANTEED_OF_NAMESPACE;
        if fits {
            (*guaranteed, *pair) = (with(*guaranteed), with(*pair));
        }
        fits
    }
}

/// Of claims, oldest first, those for which there is no room: who delegates, and to whom.
pub fn beyond<'a>(claims: impl IntoIterator<Item = Claim<'a>>) -> HashSet<(&'a str, &'a str)> {
    let namespace = |key: &'a str| key.split_once('/').map_or(key, |(namespace, _)| namespace);
    let mut given = Given::default();
    let refused = claims
        .into_iter()
        .filter(|claim| !given.give(namespace(claim.root), namespace(claim.delegate), claim.bytes));
    refused.map(|claim| (claim.root, claim.delegate)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims<'a>(all: &'a [(&'a str, &'a str, u64)]) -> impl Iterator<Item = Claim<'a>> {
        all.iter().map(|(root, delegate, bytes)| Claim { root, delegate, bytes: *bytes })
    }

    fn roots<'a>(all: &'a [(&'a str, &'a str, u64)]) -> Vec<&'a str> {
        let mut roots: Vec<_> = beyond(claims(all)).into_iter().map(|(root, _)| root).collect();
        roots.sort_unstable();
        roots
    }

    #[test]
    fn the_first_have_room_and_what_is_too_large_keeps_no_smaller_one_out() {
        let half = OF_PAIR / 2;
        let all = [
            ("shop/a", "team/d", half),
            ("shop/b", "team/d", half + 1),
            ("shop/c", "team/e", half),
            ("shop/d", "team/d", 1),
        ];
        assert_eq!(roots(&all), ["shop/b", "shop/d"]);
        assert_eq!(roots(&all[1..]), ["shop/c"], "room is given back: {:?}", roots(&all[1..]));
    }

    #[test]
    fn nobody_takes_what_is_guaranteed_to_others() {
        let mut all = vec![];
        for delegate in ["large/d", "larger/d"] {
            all.push(("shop/a", delegate, OF_PAIR));
        }
        all.extend([
            ("shop/b", "small/d", GUARANTEED),
            ("shop/c", "small/d", 1),
            ("bank/a", "team/d", OF_PAIR),
        ]);
        assert_eq!(roots(&all), ["shop/c"]);
        let names: Vec<String> = (0..40).map(|number| format!("small-{number}/d")).collect();
        all.truncate(2);
        all.extend(names.iter().map(|name| ("shop/b", &**name, GUARANTEED)));
        let most = usize::try_from(GUARANTEED_OF_NAMESPACE / GUARANTEED).unwrap();
        assert_eq!(beyond(claims(&all)).len(), 40 - most, "nor more of that than its share");
    }

    #[test]
    fn the_owner_of_delegates_takes_no_more_than_a_namespaces_share() {
        let names: Vec<String> = (0..6).map(|number| format!("n{number}/r")).collect();
        let mut all: Vec<(&str, &str, u64)> = names.iter().map(|root| (&**root, "team/d", OF_PAIR)).collect();
        all.push(("late/r", "other/d", OF_PAIR));
        assert_eq!(roots(&all), ["n2/r", "n3/r", "n4/r", "n5/r"]);
    }

    #[test]
    fn all_together_have_a_bound() {
        let names: Vec<(String, String)> = (0..20).map(|n| (format!("n{n}/r"), format!("d{n}/d"))).collect();
        let all: Vec<(&str, &str, u64)> = names.iter().map(|(root, to)| (&**root, &**to, OF_PAIR)).collect();
        assert_eq!(beyond(claims(&all)).len(), 20 - usize::try_from(ALL / OF_PAIR).unwrap());
    }
}
