//! What the control thread tells the admin API.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use weft_api::admin::PodEnrolment;
use weft_api::finding::{Finding, Severity};

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

/// What accepted objects ask for in vain, as far as it concerns this node: of pods only those that are in the mesh here, for
/// elsewhere the same words may be another mesh's, and only what they are not spared.
pub fn not_in_force(all: Vec<Finding>, pods: &[PodEnrolment]) -> Vec<Finding> {
    let enrolled = pods.iter().filter(|pod| pod.enrolled);
    let enrolled: HashSet<String> =
        enrolled.map(|pod| format!("Pod/{}/{}", pod.namespace, pod.name)).collect();
    let counts = |finding: &Finding| {
        !finding.resource.starts_with("Pod/")
            || finding.severity == Severity::Warning && enrolled.contains(&finding.resource)
    };
    all.into_iter().filter(counts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_pods_only_those_in_the_mesh_are_told() {
        let finding = |resource: &str, severity| Finding {
            severity,
            code: weft_api::finding::code::NOT_IN_FORCE.to_owned(),
            resource: resource.to_owned(),
            path: "metadata.annotations".to_owned(),
            message: String::new(),
            file: None,
            line: None,
        };
        let pod = |name: &str, enrolled| PodEnrolment {
            namespace: "shop".into(),
            name: name.into(),
            enrolled,
            ..PodEnrolment::default()
        };
        let all = vec![
            finding("Pod/shop/in", Severity::Warning),
            finding("Pod/shop/in", Severity::Info),
            finding("Pod/shop/out", Severity::Warning),
            finding("Pod/shop/unknown", Severity::Warning),
            finding("Sidecar/shop/all", Severity::Warning),
        ];
        let told = not_in_force(all, &[pod("in", true), pod("out", false)]);
        let told: Vec<_> = told.iter().map(|finding| finding.resource.as_str()).collect();
        assert_eq!(told, ["Pod/shop/in", "Sidecar/shop/all"]);
    }
}
