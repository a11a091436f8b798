//! What the other nodes are told of this node's pods, in cluster mode, and what waits for that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use weft_discovery::Source;
use weft_discovery::cluster::announce::{GRACE, Statement, Subject};
use weft_rules::workload::{Announced, Enrolment, Workload};

use super::{Control, Message};
use crate::agent::pods::{self, Plan};

/// A pod that is not enrolled for so long is said to wait.
const WAITS: Duration = Duration::from_secs(1);
/// A pod of which the API server has not heard for so long joins no more: what is asked of callers is asked of all.
const JOINS: Duration = Duration::from_secs(10);
/// At the end, the API server is given so long to take what is announced last.
const LAST_WORDS: Duration = Duration::from_secs(3);

impl Control {
    /// Takes out of a plan the pods that have to stay until the other nodes know that they leave. A pod that is gone, or
    /// has another namespace or address now, is not waited for.
    pub(super) fn hold_back(&mut self, plan: &mut Plan) {
        let Source::Cluster(cluster) = &self.source else { return };
        let now = std::time::Instant::now();
        let replaced: BTreeSet<Arc<str>> =
            plan.enrol.iter().map(|(network, _)| network.key.clone()).collect();
        let mut leaving = BTreeSet::new();
        let mut next = None;
        plan.release.retain(|key| {
            let (Some(pod), Some(enrolled)) = (self.local.get(key), self.enrolled.get(key)) else {
                return true;
            };
            if pod.uid != enrolled.uid || replaced.contains(key) || is_down(pod.enrolment) {
                return true;
            }
            let may = cluster.announcements.may_leave(key, &pod.uid, pod.announced, now);
            if may.is_some_and(|at| at <= now) {
                return true;
            }
            next = [next, may].into_iter().flatten().min();
            leaving.insert(key.clone());
            false
        });
        // One that stays after all is announced anew.
        for key in self.leaving.difference(&leaving) {
            if let Some(enrolled) = self.enrolled.get_mut(key) {
                enrolled.joins = Some(now);
            }
        }
        self.leaving = leaving;
        self.leaves_at = next.map(Instant::from_std);
    }

    /// Whether a pod that is about to be enrolled was called before, by nodes that do not know it for one of the mesh. One
    /// that starts was not, nor one that was closed since; one that an agent of the past has announced is called as it should
    /// be.
    pub(super) fn joins(&self, pod: &Workload) -> bool {
        self.source.is_cluster()
            && pod.enrolment == Enrolment::Enrolled
            && !pod.announced.is_some_and(Announced::is_called)
            && !self.told.is_closed(&pod.key)
    }

    /// Has pods that join or leave let in whoever comes in plain text, until the other nodes know on which side they are.
    pub(super) fn open_between(&mut self) {
        let Source::Cluster(cluster) = &self.source else { return };
        let now = std::time::Instant::now();
        let mut next = None;
        for (key, enrolled) in &mut self.enrolled {
            if let Some(since) = enrolled.joins {
                let known = cluster.announcements.known_to_join(key, &enrolled.uid);
                let last = since + JOINS;
                let until = known.map_or(last, |at| last.min(at + GRACE));
                if until <= now {
                    enrolled.joins = None;
                } else {
                    next = [next, Some(until)].into_iter().flatten().min();
                }
            }
            enrolled.pod.set_between(enrolled.joins.is_some() || self.leaving.contains(key));
        }
        self.joined_at = next.map(Instant::from_std);
    }

    /// Tells the API server what is true of this node's pods.
    pub(super) fn announce(&mut self) {
        let Source::Cluster(cluster) = &self.source else { return };
        let identities = self.shared.identities.as_ref();
        let requested: BTreeSet<String> =
            identities.map(|all| all.on_their_way().into_iter().collect()).unwrap_or_default();
        let subjects = self.local.iter().map(|(key, pod)| {
            let told = cluster.announcements.told(key).filter(|told| told.uid == pod.uid);
            let subject = Subject {
                truth: self.truth(key, pod, told, &requested),
                uid: pod.uid.clone(),
                carried: pod.announced,
            };
            (key.clone(), subject)
        });
        let subjects: BTreeMap<_, _> = subjects.collect();
        let Source::Cluster(cluster) = &mut self.source else { return };
        cluster.announcements.say(subjects, std::time::Instant::now());
        // What has just been taken may let a pod leave.
        if self.leaves_at.is_none() && !self.leaving.is_empty() {
            let now = std::time::Instant::now();
            let pods = self.leaving.iter().filter_map(|key| Some((key, self.local.get(key)?)));
            let may = pods
                .filter_map(|(key, pod)| cluster.announcements.may_leave(key, &pod.uid, pod.announced, now));
            self.leaves_at = may.min().map(Instant::from_std);
        }
    }

    /// What is true of a pod; `None`: it is not time to say anything.
    fn truth(
        &self,
        key: &Arc<str>,
        pod: &Workload,
        told: Option<&Statement>,
        requested: &BTreeSet<String>,
    ) -> Option<Statement> {
        let say = |enrolled, reason, message: &str| {
            Some(Statement { uid: pod.uid.clone(), enrolled, reason, message: message.to_owned() })
        };
        let enrolled = self.enrolled.get(key).is_some_and(|enrolled| enrolled.uid == pod.uid);
        if enrolled && self.desired.contains_key(key) {
            if requested.contains(&format!("{}/{}", pod.namespace, pod.service_account)) {
                return told.cloned();
            }
            return say(true, "Enrolled", "its traffic is in the mesh");
        }
        if let Some(why) = self.waiting_pods.get(key) {
            let long = self.waiting_from.get(key).is_some_and(|at| at.elapsed() > WAITS);
            let waits = told.is_some() || pod.announced.is_some() || long;
            return if waits { say(false, "Waiting", why) } else { None };
        }
        // Of pods that never were in the mesh nothing is said.
        let known = told.is_some() || pod.announced.is_some_and(Announced::is_called);
        if known { say(false, word(pod.enrolment), pods::reason(pod.enrolment)) } else { None }
    }

    /// Announces that all pods leave the mesh, and waits a moment for the other nodes to hear of it.
    pub(super) async fn withdraw(&mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        let Source::Cluster(cluster) = &mut self.source else { return };
        if self.enrolled.is_empty() {
            return;
        }
        for enrolled in self.enrolled.values() {
            enrolled.pod.set_between(true);
        }
        let subjects = self.local.iter().map(|(key, pod)| {
            let truth = self.enrolled.contains_key(key).then(|| Statement {
                uid: pod.uid.clone(),
                enrolled: false,
                reason: "AgentStopped",
                message: "the agent of its node has been stopped".to_owned(),
            });
            (key.clone(), Subject { truth, uid: pod.uid.clone(), carried: pod.announced })
        });
        cluster.announcements.say(subjects.collect(), std::time::Instant::now());
        let until = Instant::now() + LAST_WORDS;
        while !cluster.announcements.all_taken() {
            match timeout_at(until, messages.recv()).await {
                Ok(Some(Message::News(weft_discovery::News::Cluster(news)))) => cluster.take(news),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => {
                    tracing::warn!(
                        "the API server has not taken that all pods leave; other nodes may call them in vain"
                    );
                    return;
                }
            }
        }
        sleep(GRACE).await;
    }
}

/// Whether nobody can call the pod.
fn is_down(enrolment: Enrolment) -> bool {
    matches!(enrolment, Enrolment::NotRunning | Enrolment::Starting)
}

/// Why a pod is not in the mesh, in one word.
fn word(enrolment: Enrolment) -> &'static str {
    match enrolment {
        Enrolment::Enrolled | Enrolment::Starting | Enrolment::NotYet => "Waiting",
        Enrolment::NotSelected => "NotSelected",
        Enrolment::OptedOut | Enrolment::AnnotatedOut => "OptedOut",
        Enrolment::HostNetwork => "HostNetwork",
        Enrolment::HasSidecar => "HasSidecar",
        Enrolment::NotRunning => "NotRunning",
    }
}
