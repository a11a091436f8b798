//! Pods into the mesh and out of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use weft_api::admin::PodEnrolment;
use weft_api::causes;
use weft_datapath::{Asked, LocalPod, PodListener, PodNetwork};
use weft_proxy::{Command, LocalPods};

use super::{COMES_WITHIN, Control, OWN_CERTIFICATES};
use crate::agent::pods::{self, Desired, Enrolled, Left};

impl Control {
    /// Finds out which pods of this node should be in the mesh.
    pub(super) fn desire(&mut self) {
        let snapshot = self.shared.snapshot.load();
        let node = &self.shared.options.node;
        let local = snapshot.workloads().filter(|workload| pods::is_local(workload, node));
        self.local = local.map(|workload| (workload.key.clone(), workload.clone())).collect();
        let wanted = self.local.iter().filter(|(_, pod)| self.obstacle(pod).is_none());
        self.desired = wanted.map(|(key, pod)| (key.clone(), Desired::new(pod))).collect();
        self.finder.keep(|key| self.desired.contains_key(key));
    }

    /// Enrols and releases what differs. True: something changed.
    pub(super) fn enrol(&mut self) -> bool {
        self.pods_checked = Instant::now();
        for (key, want) in &mut self.desired {
            if let Some(pod) = self.local.get(key)
                && !self.told.locate(pod, want)
            {
                want.locate(pod, &mut self.finder);
            }
        }
        let standing =
            self.enrolled.iter().map(|(key, enrolled)| (key, &enrolled.pod.network, enrolled.netns));
        let mut plan = pods::plan(standing, &self.desired);
        self.hold_back(&mut plan);
        let moved = !plan.release.is_empty() || !plan.enrol.is_empty();
        let mut waiting = plan.waiting;
        let mut arrivals = Vec::new();
        for key in &plan.release {
            self.release(key);
        }
        for (network, netns) in plan.enrol {
            match self.datapath.enrol(network.clone()) {
                Ok((pod, listeners)) => {
                    tracing::info!(pod = %network.key, netns = %network.netns.display(), "in the mesh");
                    let workload = self.local.get(&network.key);
                    let uid = workload.map(|pod| pod.uid.clone()).unwrap_or_default();
                    let joins = workload.is_some_and(|pod| self.joins(pod)).then(std::time::Instant::now);
                    self.told.opened(&network.key);
                    pod.set_between(joins.is_some());
                    let enrolled = Enrolled { pod: pod.clone(), netns, uid, joins };
                    self.enrolled.insert(network.key.clone(), enrolled);
                    arrivals.push((pod, listeners));
                }
                Err(error) => _ = waiting.insert(network.key.clone(), causes::all(&error)),
            }
        }
        self.want_certificates();
        self.ask();
        if moved {
            self.unconfirmed = true;
            self.publish_pods();
        }
        self.serve(arrivals);
        self.note_waiting(waiting) || moved
    }

    /// Tells the kernel's side what the node asks of its pods.
    fn ask(&self) {
        let mut asked = Asked::new();
        for (key, enrolled) in &self.enrolled {
            let Some(workload) = self.local.get(key) else { continue };
            for address in &enrolled.pod.network.addresses {
                for port in workload.probes.ports() {
                    asked.insert((*address, port), workload.probes.connect_to(port));
                }
            }
        }
        if let Err(error) = self.datapath.ask(&asked) {
            tracing::warn!(error = causes::all(&error), "probes of kind tcpSocket are answered by the agent");
        }
    }

    /// Has the workers serve pods, which they know as local before the first connection arrives.
    pub(super) fn serve(&self, arrivals: Vec<(Arc<LocalPod>, Vec<Vec<PodListener>>)>) {
        for (pod, listeners) in arrivals {
            for (worker, listeners) in self.workers.iter().zip(listeners) {
                let _ = worker.commands.send(Command::Serve { pod: pod.clone(), listeners });
            }
        }
    }

    /// Takes note of pods that cannot be enrolled yet. True: there are others than before.
    fn note_waiting(&mut self, waiting: BTreeMap<Arc<str>, String>) -> bool {
        let now = Instant::now();
        self.waiting_from.retain(|key, _| waiting.contains_key(key));
        for key in waiting.keys() {
            self.waiting_from.entry(key.clone()).or_insert(now);
        }
        if waiting == self.waiting_pods {
            return false;
        }
        for (key, why) in &waiting {
            if self.waiting_pods.get(key) != Some(why) {
                tracing::warn!(pod = %key, "not in the mesh yet: {why}");
            }
        }
        self.waiting_pods = waiting;
        self.waiting_since = now;
        true
    }

    /// Pods that are about to be enrolled, and what each waits for. In a cluster one that does not come is not waited for
    /// by others: its node may never get its programs to run.
    pub(super) fn coming(&self) -> impl Iterator<Item = (&Arc<str>, &String)> {
        let patience = if self.source.is_cluster() { COMES_WITHIN } else { Duration::MAX };
        let waits = move |key: &Arc<str>| self.waiting_from.get(key).is_none_or(|at| at.elapsed() < patience);
        self.waiting_pods.iter().filter(move |(key, _)| waits(key))
    }

    /// Stops the capture first: new connections go past the mesh, and those that were captured are still accepted.
    fn release(&mut self, key: &Arc<str>) {
        if let Some(Enrolled { pod, uid, .. }) = self.enrolled.remove(key) {
            self.left.push(Left { pod: Arc::downgrade(&pod), key: key.clone(), uid });
        }
        if let Err(error) = self.datapath.release(key) {
            tracing::warn!(pod = %key, error = causes::all(&error), "could not be released cleanly");
        }
        for worker in &self.workers {
            let _ = worker.commands.send(Command::Release { key: key.clone() });
        }
        tracing::info!(pod = %key, "out of the mesh");
    }

    pub(super) fn release_all(&mut self) {
        let keys: Vec<Arc<str>> = self.enrolled.keys().cloned().collect();
        for key in keys {
            self.release(&key);
        }
        self.publish_pods();
    }

    pub(super) fn publish_pods(&self) {
        let mut local = LocalPods::default();
        for enrolled in self.enrolled.values() {
            let PodNetwork { addresses, .. } = &enrolled.pod.network;
            local.extend(addresses.iter().map(|address| (*address, enrolled.pod.clone())));
        }
        self.local_pods.store(Arc::new(local));
    }

    /// Says whose certificates are wanted: those of the service accounts that the enrolled pods have now, and of pods that
    /// have left, for as long as connections of their time in the mesh stand: more is asked on these.
    pub(super) fn want_certificates(&mut self) {
        let local = &self.local;
        self.left.retain(|left| {
            left.pod.strong_count() > 0 && local.get(&left.key).is_some_and(|pod| pod.uid == left.uid)
        });
        self.want_certificates_of(self.enrolled.keys().chain(self.left.iter().map(|left| &left.key)));
    }

    /// Says that certificates are wanted for the service accounts of these pods, and of no others.
    pub(super) fn want_certificates_of<'a>(&self, pods: impl Iterator<Item = &'a Arc<str>>) {
        if let Some(identities) = &self.shared.identities {
            let snapshot = self.shared.snapshot.load();
            let workloads = pods.filter_map(|key| snapshot.workload(key));
            identities.want(
                &workloads
                    .map(|workload| (workload.namespace.clone(), workload.service_account.clone()))
                    .collect(),
            );
        }
    }

    /// Waits a moment for the certificates of new pods, where this agent signs them: they are there before the pods are
    /// reported in the mesh.
    pub(super) async fn own_certificates(&self) {
        if let Some(identities) = self.shared.identities.as_ref().filter(|all| all.is_embedded()) {
            // One that takes longer is waited for by whoever asks for all to be applied.
            let _ = timeout(OWN_CERTIFICATES, identities.attempted()).await;
        }
    }

    /// The lines of `weft status`: every pod of this node.
    pub(super) fn pod_rows(&self) -> Vec<PodEnrolment> {
        let mut rows: Vec<PodEnrolment> = (self.local.values())
            .map(|workload| {
                let enrolled = self.enrolled.get(&workload.key);
                let problem = match self.obstacle(workload) {
                    Some(_) if self.leaving.contains(&workload.key) => None,
                    Some(problem) => Some(problem.to_owned()),
                    None if enrolled.is_some() => None,
                    None => Some(
                        self.waiting_pods
                            .get(&workload.key)
                            .cloned()
                            .unwrap_or_else(|| "not enrolled yet".to_owned()),
                    ),
                };
                let netns = enrolled.map(|enrolled| &*enrolled.pod.network.netns);
                pods::row(workload, problem.as_deref(), netns)
            })
            .collect();
        rows.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        rows
    }
}
