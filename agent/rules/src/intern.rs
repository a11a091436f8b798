//! One copy of each text and label set: in a cluster of 100,000 pods there are few namespaces, nodes and versions.

use std::sync::Arc;

use weft_api::meta::Labels;

use crate::shard::Set;

/// A pod's container ports by name.
pub(crate) type NamedPorts = Arc<[(Arc<str>, u16)]>;

/// Shares equal strings, label sets and port lists.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    texts: Set<Arc<str>>,
    labels: Set<Arc<Labels>>,
    ports: Set<NamedPorts>,
    sweep_at: usize,
}

/// No sweeping below this many entries.
const SMALLEST_SWEEP: usize = 1024;

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

    /// Forgets what nobody else holds, when the tables have doubled since the last time.
    pub(crate) fn sweep(&mut self) {
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
}
