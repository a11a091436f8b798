//! What a node knows of the mesh while its agent is away, and what becomes of a pod that starts meanwhile.
//!
//! The agent writes [`LastKnown`] down whenever it changes; the CNI plugin decides by it. Labels of a pod that the node has
//! never seen cannot be known then, so such a pod follows its namespace, and one whose namespace is not known either is
//! closed: a pod that is refused for a while can be helped by starting the agent, one that was open cannot be helped any more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weft_api::names;

use crate::snapshot::Snapshot;
use crate::workload::{Enrolment, Workload};

/// What the agent knew last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastKnown {
    /// Every namespace, and whether a pod that it holds is in the mesh if nothing else is known of the pod.
    pub namespaces: BTreeMap<String, bool>,
    /// The pods of this node, by `namespace/name`.
    pub pods: BTreeMap<String, KnownPod>,
}

/// A pod of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownPod {
    /// Tells it from others of its name; empty in standalone mode.
    pub uid: String,
    /// Whether it is in the mesh, or would be if it ran.
    pub mesh: bool,
}

/// What is left of what the agent knew.
#[derive(Debug, Clone, Copy)]
pub enum Memory<'a> {
    /// The agent of this node has never known anything.
    Never,
    /// This.
    Known(&'a LastKnown),
    /// There was something, and it cannot be read.
    Lost,
}

/// A pod as the container runtime names it.
#[derive(Debug, Clone, Copy)]
pub struct StartingPod<'a> {
    /// Kubernetes namespace.
    pub namespace: &'a str,
    /// `namespace/name`.
    pub key: &'a str,
    /// UID; may be empty.
    pub uid: &'a str,
}

/// How a pod starts while nobody can take it into the mesh, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// As without weft.
    Open(&'static str),
    /// Nothing reaches it and it reaches nothing, until the agent is there.
    Closed(&'static str),
}

/// Namespaces without which a node, or weft itself, does not come up: their pods are closed only where it is known that they
/// should be.
const VITAL: [&str; 2] = ["kube-system", names::NAMESPACE];

/// Decides how a pod starts.
pub fn start(memory: Memory<'_>, pod: StartingPod<'_>) -> Start {
    let known = match memory {
        Memory::Never => return Start::Open("the agent of this node has never known of any pod"),
        Memory::Known(known) => Some(known),
        Memory::Lost => None,
    };
    // A pod of the same name may be another one, with other labels.
    let seen = known.and_then(|known| known.pods.get(pod.key));
    let seen = seen.filter(|seen| seen.uid.is_empty() || pod.uid.is_empty() || seen.uid == pod.uid);
    match (seen, known.and_then(|known| known.namespaces.get(pod.namespace))) {
        (Some(KnownPod { mesh: true, .. }), _) => Start::Closed("it was in the mesh"),
        (Some(_), _) => Start::Open("it was outside of the mesh"),
        (None, Some(true)) => Start::Closed("its namespace was in the mesh"),
        (None, Some(false)) => Start::Open("its namespace was outside of the mesh"),
        (None, None) if VITAL.contains(&pod.namespace) => {
            Start::Open("its namespace must work for the node to come up")
        }
        (None, None) if known.is_none() => Start::Closed("what the agent knew last cannot be read"),
        (None, None) => Start::Closed("the agent has never seen its namespace"),
    }
}

impl LastKnown {
    /// What is to be remembered of a snapshot. `namespaces`: all that are known, with whether their labels opt in; `local`: the
    /// pods of this node.
    pub fn of<'a>(
        snapshot: &Snapshot,
        namespaces: impl Iterator<Item = (&'a str, bool)>,
        local: impl Iterator<Item = &'a Workload>,
    ) -> Self {
        let mut all: BTreeMap<String, bool> =
            namespaces.map(|(name, opts_in)| (name.to_owned(), opts_in)).collect();
        for pod in snapshot.workloads() {
            // Where some pods opt in by labels of their own, so may one that nobody has seen.
            // A gateway has no program that could be reached, and what is vital must not be closed for one pod's sake.
            let counts = !pod.is_gateway() && !VITAL.contains(&&*pod.namespace);
            let opts_in = counts && is_of_mesh(pod.enrolment);
            match all.get_mut(&*pod.namespace) {
                Some(known) => *known |= opts_in,
                None => _ = all.insert(pod.namespace.to_string(), opts_in),
            }
        }
        let pods = local.filter(|pod| pod.enrolment != Enrolment::NotRunning).map(|pod| {
            (pod.key.to_string(), KnownPod { uid: pod.uid.to_string(), mesh: is_of_mesh(pod.enrolment) })
        });
        Self { namespaces: all, pods: pods.collect() }
    }
}

/// Whether a pod is in the mesh, or will be when it runs.
fn is_of_mesh(enrolment: Enrolment) -> bool {
    matches!(enrolment, Enrolment::Enrolled | Enrolment::Starting | Enrolment::NotYet)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> LastKnown {
        let pod = |uid: &str, mesh| KnownPod { uid: uid.to_owned(), mesh };
        LastKnown {
            namespaces: [("shop", true), ("tools", false), ("kube-system", false)]
                .map(|(name, opts_in)| (name.to_owned(), opts_in))
                .into(),
            pods: [
                ("shop/web-0", pod("u1", true)),
                ("shop/job", pod("u2", false)),
                ("tools/gate", pod("u3", true)),
            ]
            .map(|(key, pod)| (key.to_owned(), pod))
            .into(),
        }
    }

    fn begins(memory: Memory<'_>, key: &str, uid: &str) -> Start {
        let namespace = key.split('/').next().unwrap_or_default();
        start(memory, StartingPod { namespace, key, uid })
    }

    fn is_closed(start: Start) -> bool {
        matches!(start, Start::Closed(_))
    }

    #[test]
    fn pods_that_the_node_knows_are_as_they_were() {
        let known = known();
        let begins = |key, uid| begins(Memory::Known(&known), key, uid);
        assert!(is_closed(begins("shop/web-0", "u1")));
        assert!(is_closed(begins("tools/gate", "u3")), "by a label of its own");
        assert!(!is_closed(begins("shop/job", "u2")), "it had opted out");
        assert!(is_closed(begins("shop/job", "u9")), "another of its name may not have");
    }

    #[test]
    fn others_follow_their_namespaces_and_where_nothing_is_known_are_closed() {
        let known = known();
        let begins = |key| begins(Memory::Known(&known), key, "u9");
        assert!(is_closed(begins("shop/new")));
        assert!(!is_closed(begins("tools/new")));
        assert!(is_closed(begins("unheard-of/new")));
        assert!(!is_closed(begins("kube-system/coredns")));
    }

    #[test]
    fn a_lost_memory_closes_all_but_what_the_node_needs() {
        let begins = |key| begins(Memory::Lost, key, "u9");
        assert!(is_closed(begins("shop/web-0")) && is_closed(begins("tools/new")));
        assert!(!is_closed(begins("kube-system/coredns")) && !is_closed(begins("weft-system/weft-ca")));
    }

    #[test]
    fn vital_pods_are_closed_where_their_labels_were_seen() {
        let mut known = known();
        known.namespaces.insert("kube-system".to_owned(), true);
        assert!(is_closed(begins(Memory::Known(&known), "kube-system/coredns", "u9")));
    }

    #[test]
    fn before_weft_has_known_anything_pods_start_as_without_it() {
        assert!(!is_closed(begins(Memory::Never, "shop/web-0", "u1")));
    }
}
