//! What the control thread tells the admin API.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_api::admin::PodEnrolment;
use weft_api::finding::Finding;

/// The state of the agent at one moment: immutable, published whole.
#[derive(Debug, Default)]
pub struct View {
    /// The newest snapshot that every worker works by.
    pub generation: u64,
    /// By worker, the snapshot that it last confirmed.
    pub workers: Vec<u64>,
    /// What the newest state waits for before it is all in force.
    pub waiting_for: Vec<String>,
    /// The pods of this node.
    pub pods: Arc<[PodEnrolment]>,
    /// Objects in force, by kind.
    pub objects: BTreeMap<String, usize>,
    /// What keeps the agent from hearing of changes.
    pub troubles: Vec<String>,
    /// What was refused.
    pub refused: Vec<Finding>,
    /// What is accepted and has no effect yet.
    pub not_in_force: Vec<Finding>,
}
