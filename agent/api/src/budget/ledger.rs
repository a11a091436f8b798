//! Adds up what the objects in force take, and says which one would be too much.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use super::{
    Bounds, ENDPOINTS, GUARANTEED, GUARANTEED_PATTERNS, PATTERNS, RULES, Share, Sums, Weight, weigh,
};
use crate::finding::{Finding, Severity, code};
use crate::meta::ObjectKey;
use crate::object::Object;

/// What the objects in force take.
#[derive(Debug)]
pub struct Ledger {
    most: Sums,
    sums: Sums,
    /// By a hash of the key: in a large cluster the names alone would take megabytes.
    objects: HashMap<u64, Weight>,
    hasher: RandomState,
    namespaces: HashMap<Box<str>, Account>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::within(Sums::MOST)
    }
}

/// What the objects of a namespace take.
#[derive(Debug, Default)]
struct Account {
    rules: u64,
    endpoints: u64,
    instructions: u64,
    /// How many objects have each regular expression.
    patterns: BTreeMap<String, u32>,
}

impl Account {
    fn bytes(&mut self, share: Share) -> &mut u64 {
        match share {
            Share::Rules => &mut self.rules,
            Share::Endpoints => &mut self.endpoints,
        }
    }
}

impl Ledger {
    /// Without any object; all together may take `most`.
    pub fn within(most: Sums) -> Self {
        Self {
            most,
            sums: Sums::default(),
            objects: HashMap::new(),
            hasher: RandomState::new(),
            namespaces: HashMap::new(),
        }
    }

    /// Enters an object in place of its version before.
    ///
    /// # Errors
    /// A finding about the object where a bound would be crossed by what it takes more than before; nothing has changed
    /// then.
    pub fn put(&mut self, object: &Object) -> Result<(), Box<Finding>> {
        let Some(weight) = weigh(object) else { return Ok(()) };
        let key = object.key();
        let before = self.take_out(&key);
        let (share, bytes, instructions) = (weight.share, weight.bytes, weight.instructions());
        let namespace = key.namespace.clone();
        self.enter(&key, weight);
        let more_bytes = before.as_ref().is_none_or(|before| bytes > before.bytes);
        let more_patterns = before.as_ref().is_none_or(|before| instructions > before.instructions());
        let wrong = match (more_bytes, more_patterns) {
            (true, _) if self.bytes_over(&namespace, share).is_some() => self.bytes_over(&namespace, share),
            (_, true) => self.patterns_over(&namespace, instructions),
            _ => None,
        };
        let Some(message) = wrong else { return Ok(()) };
        self.take_out(&key);
        if let Some(before) = before {
            self.enter(&key, before);
        }
        Err(Box::new(Finding {
            severity: Severity::Error,
            code: code::TOO_LARGE.to_owned(),
            resource: key.to_string(),
            path: "spec".to_owned(),
            message,
            file: None,
            line: None,
        }))
    }

    /// Takes out what is gone.
    pub fn remove(&mut self, key: &ObjectKey) {
        self.take_out(key);
    }

    /// What the objects of all namespaces take.
    pub fn sums(&self) -> Sums {
        self.sums
    }

    fn bytes_over(&self, namespace: &str, share: Share) -> Option<String> {
        let account = self.namespaces.get(namespace)?;
        let (bounds, own, all, what) = match share {
            Share::Rules => (RULES.of(self.most.rules), account.rules, self.sums.rules, "rules and policies"),
            Share::Endpoints => {
                let bounds = ENDPOINTS.of(self.most.endpoints);
                (bounds, account.endpoints, self.sums.endpoints, "Services and EndpointSlices")
            }
        };
        let unit = |bytes: u64| format!("{} MiB", bytes.div_ceil(1 << 20));
        over(bounds, GUARANTEED, own, all, namespace, &unit, &format!("{what} take about"))
    }

    fn patterns_over(&self, namespace: &str, instructions: u64) -> Option<String> {
        if instructions == 0 {
            return None;
        }
        let own = self.namespaces.get(namespace)?.instructions;
        let unit = |instructions: u64| format!("{instructions} instructions");
        let what = "regular expressions stand for about";
        let bounds = PATTERNS.of(self.most.instructions);
        over(bounds, GUARANTEED_PATTERNS, own, self.sums.instructions, namespace, &unit, what)
    }

    fn enter(&mut self, key: &ObjectKey, weight: Weight) {
        let account = self.namespaces.entry(key.namespace.clone()).or_default();
        *account.bytes(weight.share) += weight.bytes;
        for (source, instructions) in &weight.patterns {
            let holders = account.patterns.entry(source.clone()).or_default();
            *holders += 1;
            if *holders == 1 {
                account.instructions += instructions;
                self.sums.instructions += instructions;
            }
        }
        *self.all(weight.share) += weight.bytes;
        self.objects.insert(self.hasher.hash_one(key), weight);
    }

    fn take_out(&mut self, key: &ObjectKey) -> Option<Weight> {
        let weight = self.objects.remove(&self.hasher.hash_one(key))?;
        *self.all(weight.share) -= weight.bytes;
        let account = self.namespaces.get_mut(&*key.namespace)?;
        *account.bytes(weight.share) -= weight.bytes;
        for (source, instructions) in &weight.patterns {
            let Some(holders) = account.patterns.get_mut(source) else { continue };
            *holders -= 1;
            if *holders == 0 {
                account.patterns.remove(source);
                account.instructions -= instructions;
                self.sums.instructions -= instructions;
            }
        }
        if account.rules + account.endpoints == 0 {
            self.namespaces.remove(&*key.namespace);
        }
        Some(weight)
    }

    fn all(&mut self, share: Share) -> &mut u64 {
        match share {
            Share::Rules => &mut self.sums.rules,
            Share::Endpoints => &mut self.sums.endpoints,
        }
    }
}

/// Says which bound is crossed, if one is.
fn over(
    bounds: Bounds,
    guaranteed: u64,
    own: u64,
    all: u64,
    namespace: &str,
    unit: &dyn Fn(u64) -> String,
    what: &str,
) -> Option<String> {
    let cure = "(take some away, or make them smaller; what was in force stays so)";
    if own > bounds.namespace {
        let (own, most) = (unit(own), unit(bounds.namespace));
        return Some(format!(
            "with it the {what} {own} in namespace {namespace}, of {most} that it may have {cure}"
        ));
    }
    if all > bounds.all && own > guaranteed {
        let (all, most) = (unit(all), unit(bounds.all));
        return Some(format!("with it the {what} {all} in all namespaces together, of {most} {cure}"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(namespace: &str, name: &str, spec: &str) -> Object {
        let yaml = format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  \
             hosts: [{name}.example.com]\n  http:\n{spec}"
        );
        let mut loaded = crate::load::load("a.yaml", &yaml);
        assert!(loaded.refused.is_empty(), "{:?}", loaded.refused);
        loaded.objects.remove(0).object
    }

    /// About 1 MiB.
    fn large(namespace: &str, name: &str) -> Object {
        let body = "x".repeat(500_000);
        object(namespace, name, &format!("  - directResponse: {{status: 200, body: {{string: {body}}}}}\n"))
    }

    fn by_regex(namespace: &str, name: &str, regex: &str) -> Object {
        object(
            namespace,
            name,
            &format!("  - match: [{{uri: {{regex: '{regex}'}}}}]\n    redirect: {{uri: /}}\n"),
        )
    }

    #[test]
    fn a_namespace_at_its_bound_gets_no_more_and_all_others_do() {
        let mut ledger = Ledger::default();
        let refused = (0..100).find_map(|n| ledger.put(&large("shop", &format!("v{n}"))).err());
        let refused = refused.expect("32 MiB are not without end");
        assert_eq!((&*refused.code, &*refused.path), (code::TOO_LARGE, "spec"));
        assert!(refused.message.contains("namespace shop, of 32 MiB"), "{}", refused.message);
        assert_eq!(ledger.put(&large("other", "v")), Ok(()));
        assert_eq!(ledger.put(&large("shop", "v0")), Ok(()), "what is in force can be written again");
        ledger.remove(&large("shop", "v1").key());
        assert_eq!(ledger.put(&large("shop", "new")), Ok(()), "room was made");
    }

    #[test]
    fn what_all_have_taken_keeps_no_namespace_from_its_first_objects() {
        let mut ledger = Ledger::default();
        for namespace in 0..10 {
            for n in 0..20 {
                let _ = ledger.put(&large(&format!("n{namespace}"), &format!("v{n}")));
            }
        }
        assert!(ledger.sums().rules > RULES.all - (2 << 20), "{:?}", ledger.sums());
        assert_eq!(ledger.put(&large("late", "first")), Ok(()));
        assert!(ledger.put(&large("late", "second")).unwrap_err().message.contains("all namespaces"));
        assert_eq!(ledger.put(&by_regex("late", "small", "a+")), Ok(()));
    }

    #[test]
    fn where_all_may_have_less_a_namespace_may_too() {
        let mut ledger = Ledger::within(Sums { rules: 8 << 20, ..Sums::MOST });
        let refused = (0..100).find_map(|n| ledger.put(&large("shop", &format!("v{n}"))).err());
        let message = refused.expect("2 MiB are not without end").message;
        assert!(message.contains("namespace shop, of 2 MiB"), "{message}");
    }

    #[test]
    fn equal_regular_expressions_of_a_namespace_count_once() {
        let mut ledger = Ledger::default();
        for n in 0..1000 {
            assert_eq!(ledger.put(&by_regex("shop", &format!("v{n}"), "/a{1000}")), Ok(()));
        }
        let one = ledger.sums().instructions;
        assert!((1000..3000).contains(&one), "{one}");
        let refused = (0..1000)
            .find_map(|n| ledger.put(&by_regex("shop", &format!("w{n}"), &format!("/{n}a{{1000}}"))).err());
        let message = refused.expect("131072 instructions are not without end").message;
        assert!(message.contains("131072 instructions"), "{message}");
        for n in 0..1000 {
            for name in ["v", "w"] {
                ledger.remove(&by_regex("shop", &format!("{name}{n}"), "a").key());
            }
        }
        assert_eq!(ledger.sums(), Sums::default());
        assert!(ledger.namespaces.is_empty() && ledger.objects.is_empty());
    }
}
