//! One copy of each text, label set and regular expression: in a cluster of 100,000 pods there are few namespaces, nodes and
//! versions.

use std::sync::Arc;

use weft_api::meta::Labels;

use crate::pattern::{Finder, Whole};
use crate::shard::{Map, Set};

/// A pod's container ports by name.
pub(crate) type NamedPorts = Arc<[(Arc<str>, u16)]>;

/// Shares equal strings, label sets, port lists and regular expressions.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    texts: Set<Arc<str>>,
    labels: Set<Arc<Labels>>,
    ports: Set<NamedPorts>,
    sweep_at: usize,
    patterns: Map<Box<str>, Arc<Whole>>,
    finders: Map<Box<str>, Arc<Finder>>,
    sweep_patterns_at: usize,
}

/// No sweeping below this many entries.
const SMALLEST_SWEEP: usize = 1024;
/// The same for regular expressions, which are larger.
const SMALLEST_PATTERN_SWEEP: usize = 64;

impl Interner {
    pub(crate) fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return known.clone();
        }
        let shared: Arc<str> = text.into();
        self.texts.insert(shared.clone());
        shared
    }

    pub(crate) fn labels(&mut self, labels: &Labels) -> Arc<Labels> {
        if let Some(known) = self.labels.get(labels) {
            return known.clone();
        }
        let shared = Arc::new(labels.clone());
        self.labels.insert(shared.clone());
        shared
    }

    pub(crate) fn ports(&mut self, ports: &[(Arc<str>, u16)]) -> NamedPorts {
        if let Some(known) = self.ports.get(ports) {
            return known.clone();
        }
        let shared: NamedPorts = ports.into();
        self.ports.insert(shared.clone());
        shared
    }

    /// A regular expression over whole texts.
    pub(crate) fn pattern(&mut self, source: &str) -> Result<Arc<Whole>, String> {
        if let Some(known) = self.patterns.get(source) {
            return Ok(known.clone());
        }
        let shared = Arc::new(Whole::compile(source)?);
        self.patterns.insert(source.into(), shared.clone());
        Ok(shared)
    }

    /// One that is looked for in texts.
    pub(crate) fn finder(&mut self, source: &str) -> Result<Arc<Finder>, String> {
        if let Some(known) = self.finders.get(source) {
            return Ok(known.clone());
        }
        let shared = Arc::new(Finder::compile(source)?);
        self.finders.insert(source.into(), shared.clone());
        Ok(shared)
    }

    pub(crate) fn has_pattern(&self, source: &str) -> bool {
        self.patterns.contains_key(source)
    }

    pub(crate) fn has_finder(&self, source: &str) -> bool {
        self.finders.contains_key(source)
    }

    pub(crate) fn take_pattern(&mut self, source: &str, program: Arc<Whole>) {
        self.patterns.entry(source.into()).or_insert(program);
    }

    pub(crate) fn take_finder(&mut self, source: &str, program: Arc<Finder>) {
        self.finders.entry(source.into()).or_insert(program);
    }

    /// Forgets what nobody else holds, when the tables have doubled since the last time.
    pub(crate) fn sweep(&mut self) {
        let patterns = self.patterns.len() + self.finders.len();
        if patterns >= self.sweep_patterns_at.max(SMALLEST_PATTERN_SWEEP) {
            self.patterns.retain(|_, pattern| Arc::strong_count(pattern) > 1);
            self.finders.retain(|_, finder| Arc::strong_count(finder) > 1);
            self.sweep_patterns_at = 2 * (self.patterns.len() + self.finders.len());
        }
        let size = self.texts.len() + self.labels.len();
        if size < self.sweep_at.max(SMALLEST_SWEEP) {
            return;
        }
        self.ports.retain(|ports| Arc::strong_count(ports) > 1);
        self.texts.retain(|text| Arc::strong_count(text) > 1);
        self.labels.retain(|labels| Arc::strong_count(labels) > 1);
        self.sweep_at = 2 * (self.texts.len() + self.labels.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_and_unused_ones_go() {
        let mut interner = Interner::default();
        let kept = interner.text("kept");
        assert!(Arc::ptr_eq(&kept, &interner.text("kept")));
        for n in 0..SMALLEST_SWEEP {
            interner.text(&n.to_string());
        }
        interner.sweep();
        assert_eq!(interner.texts.len(), 1);
    }

    #[test]
    fn equal_regular_expressions_are_one_and_unused_ones_go() {
        let mut interner = Interner::default();
        let kept = interner.pattern("a+").unwrap();
        assert!(Arc::ptr_eq(&kept, &interner.pattern("a+").unwrap()));
        for n in 0..SMALLEST_PATTERN_SWEEP {
            interner.pattern(&format!("b{n}")).unwrap();
            interner.finder(&format!("b{n}")).unwrap();
        }
        interner.sweep();
        assert_eq!((interner.patterns.len(), interner.finders.len()), (1, 0));
    }
}
