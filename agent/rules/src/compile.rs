//! Objects in, snapshot out; a change recompiles only what depends on it.

use std::sync::Arc;

use weft_api::meta::ObjectKey;
use weft_api::object::Object;

use crate::snapshot::Snapshot;

/// What stands outside the objects.
#[derive(Debug, Clone)]
pub struct CompilerOptions {
    /// Name of this node.
    pub node: String,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// `istio-system`.
    pub root_namespace: String,
    /// A pod without `spec.nodeName` runs here (standalone mode).
    pub absent_node_is_local: bool,
}

/// A change of one object. An object that is not valid never gets here.
#[derive(Debug, Clone)]
pub enum Change {
    /// Added, or changed.
    Put(Object),
    /// Gone.
    Delete(ObjectKey),
}

/// Holds the objects and what was compiled from each.
#[derive(Debug)]
pub struct Compiler {
    _options: CompilerOptions,
}

impl Compiler {
    /// An empty world.
    pub fn new(options: CompilerOptions) -> Self {
        Self { _options: options }
    }

    /// Applies changes, all at once, and returns the snapshot after them.
    pub fn apply(&mut self, _changes: Vec<Change>) -> Arc<Snapshot> {
        Arc::new(Snapshot::default())
    }
}
