//! Pods that a CNI plugin tells of before their first program runs.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use weft_datapath::Enclosed;
use weft_rules::last_known::LastKnown;
use weft_rules::workload::{Enrolment, Workload};

use super::Control;
use crate::agent::AgentError;
use crate::agent::pods::{self, Desired, NetnsId};
use crate::cni::protocol::{Answer, OBJECT, Pod};
use crate::cni::server::Told;

/// How long a pod may be told of before its object is known.
const UNKNOWN: Duration = Duration::from_mins(1);

/// What plugins have told.
#[derive(Debug, Default)]
pub(super) struct ToldPods {
    pods: BTreeMap<Arc<str>, ToldPod>,
    asking: Vec<Asking>,
    /// Something was told since the last round.
    news: bool,
}

/// A pod that has its network.
#[derive(Debug)]
struct ToldPod {
    pod: Pod,
    netns: OwnedFd,
    since: Instant,
    /// Its object has been seen.
    known: bool,
    /// A plugin has closed it before its first program ran, and nobody has opened it since: nobody was ever answered.
    closed: bool,
}

impl ToldPod {
    fn is_of(&self, pod: &Workload) -> bool {
        self.pod.uid.is_empty() || pod.uid.is_empty() || *self.pod.uid == *pod.uid
    }
}

/// A plugin that waits.
#[derive(Debug)]
struct Asking {
    key: Arc<str>,
    netns: NetnsId,
    reply: oneshot::Sender<Answer>,
    until: Instant,
}

impl ToldPods {
    /// A plugin tells of a pod that has its network.
    pub(super) fn add(&mut self, pod: Pod, netns: OwnedFd, reply: oneshot::Sender<Answer>) {
        self.news = true;
        match pods::netns_of(netns.as_fd()) {
            Ok(id) => {
                let key: Arc<str> = pod.key().into();
                let since = Instant::now();
                let same = |told: &&ToldPod| told.pod.container == pod.container;
                let closed = self.pods.get(&key).filter(same).is_some_and(|told| told.closed);
                self.pods.insert(key.clone(), ToldPod { pod, netns, since, known: false, closed });
                self.asking.push(Asking { key, netns: id, reply, until: since + OBJECT });
            }
            Err(error) => {
                let why = format!("its network namespace cannot be used: {error}");
                let _ = reply.send(Answer::NotYet(why));
            }
        }
    }

    /// A plugin has closed a pod by itself.
    fn closed(&mut self, pod: Pod, netns: OwnedFd) {
        self.news = true;
        let told = ToldPod { pod, netns, since: Instant::now(), known: false, closed: true };
        self.pods.insert(told.pod.key().into(), told);
    }

    /// Whether a pod has been closed from its first packet on.
    pub(super) fn is_closed(&self, key: &str) -> bool {
        self.pods.get(key).is_some_and(|told| told.closed)
    }

    /// A pod is in the mesh, or was let go.
    pub(super) fn opened(&mut self, key: &str) {
        if let Some(told) = self.pods.get_mut(key) {
            told.closed = false;
        }
    }

    /// A plugin tells that a pod's network goes. The pod's sandbox may have been made anew, and told of, before the old one
    /// goes.
    pub(super) fn forget(&mut self, pod: &Pod) {
        self.news = true;
        if self.is_told(pod) {
            self.pods.remove(&*pod.key());
        }
    }

    /// Whether it was told of with the same container.
    pub(super) fn is_told(&self, pod: &Pod) -> bool {
        self.pods.get(&*pod.key()).is_some_and(|told| told.pod.container == pod.container)
    }

    /// Forgets pods whose objects are gone, or never came. Where nobody tells that a network goes, as after a crash of the
    /// runtime, it would stay for as long as it is held open here.
    pub(super) fn forget_gone(&mut self, local: &BTreeMap<Arc<str>, Arc<Workload>>) {
        self.pods.retain(|key, told| {
            let is_there = local.get(key).is_some_and(|pod| told.is_of(pod));
            told.known |= is_there;
            is_there || (!told.known && told.since.elapsed() < UNKNOWN)
        });
    }

    /// Whether something was told since this was asked.
    pub(super) fn news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// When the next plugin has waited long enough.
    pub(super) fn due(&self) -> Option<Instant> {
        self.asking.iter().map(|asking| asking.until).min()
    }

    /// Whether a plugin has told of a pod that should be in the mesh. Then it is known where its network namespace is, and
    /// which addresses it has, before its object says so.
    fn of(&self, pod: &Workload) -> Option<&ToldPod> {
        let told = self.pods.get(&pod.key)?;
        (told.is_of(pod) && may_be_enrolled(pod)).then_some(told)
    }

    /// Looks for the network of a pod as it was told. False: it was not.
    pub(super) fn locate(&self, pod: &Workload, want: &mut Desired) -> bool {
        let Some(told) = self.of(pod) else { return false };
        // After a reboot, the object has those of the boot before for a while.
        if !told.pod.addresses.is_empty() {
            want.network.addresses.clone_from(&told.pod.addresses);
        }
        want.network.netns = PathBuf::from(format!("/proc/self/fd/{}", told.netns.as_raw_fd()));
        want.netns = pods::find_netns(&want.network.netns);
        true
    }
}

/// Whether nothing but a missing address keeps it from being in the mesh.
fn may_be_enrolled(pod: &Workload) -> bool {
    matches!(pod.enrolment, Enrolment::Enrolled | Enrolment::Starting)
}

impl Control {
    /// Takes note of what a plugin tells.
    pub(super) fn hear(&mut self, told: Told) {
        match told {
            Told::Add { pod, netns, reply } => self.told.add(pod, netns, reply),
            Told::Enclosed { pod, netns } => {
                self.datapath.found_enclosed(netns.as_fd());
                self.told.closed(pod, netns);
            }
            Told::Delete { pod, netns, reply } => self.network_goes(&pod, netns.as_ref(), reply),
        }
    }

    /// Takes note of what plugins have closed while no agent could be told.
    pub(super) fn learn_enclosed(&mut self) {
        for (pod, netns) in self.datapath.enclosed() {
            let Enclosed { key, uid, container, addresses, .. } = pod;
            let Some((namespace, name)) = key.split_once('/') else { continue };
            tracing::info!(pod = key, "started closed while no agent answered");
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            self.told.closed(Pod { namespace, name, uid, container, addresses }, netns);
            self.told.news = true;
        }
    }

    /// Lets go of pods that a dead agent or a plugin has left closed, unless they are to be enrolled.
    pub(super) fn let_go(&mut self) -> Result<(), AgentError> {
        let is_awaited = |key: &&str| {
            let Some(pod) = self.local.get(*key) else { return self.told.pods.contains_key(*key) };
            let wanted = self.obstacle(pod).is_none() || pod.enrolment == Enrolment::Starting;
            // One that is enrolled has another network namespace by now.
            wanted && !self.enrolled.contains_key(*key)
        };
        let awaited = self.datapath.unclaimed().filter(is_awaited).map(str::to_owned).collect();
        for key in self.datapath.release_unclaimed(&awaited)? {
            self.told.opened(&key);
        }
        Ok(())
    }

    /// Keeps what is known for the plugin, which decides by it while there is no agent.
    pub(super) fn remember(&mut self) {
        let Some(keeper) = &mut self.keeper else { return };
        let snapshot = self.shared.snapshot.load();
        let local = self.local.values().map(|pod| &**pod);
        keeper.keep(LastKnown::of(&snapshot, self.compiler.namespaces(), local));
    }

    /// Why a local workload should not be enrolled; `None` for one that should.
    pub(super) fn obstacle(&self, pod: &Workload) -> Option<&'static str> {
        if self.told.of(pod).is_some() { None } else { pods::obstacle(pod, &self.finder) }
    }

    /// Answers plugins whose pods are in the mesh, need not be, or have been waited for long enough.
    pub(super) fn answer_plugins(&mut self) {
        if self.told.asking.is_empty() {
            return;
        }
        let snapshot = self.shared.snapshot.load();
        let now = Instant::now();
        for asking in std::mem::take(&mut self.told.asking) {
            let key = &asking.key;
            let is_there = self.enrolled.get(key).is_some_and(|enrolled| enrolled.netns == asking.netns);
            let answer = match snapshot.workload(key) {
                _ if is_there && !self.unconfirmed => Some(Answer::Enrolled),
                Some(pod) if !may_be_enrolled(pod) => {
                    Some(Answer::NotInMesh(pods::reason(pod.enrolment).to_owned()))
                }
                _ if asking.until > now => None,
                Some(_) => {
                    let why = self.waiting_pods.get(key).cloned();
                    Some(Answer::NotYet(why.unwrap_or_else(|| "it is being enrolled".to_owned())))
                }
                None => Some(Answer::NotYet("its object is not known yet".to_owned())),
            };
            match answer {
                // A plugin that has gone needs none.
                Some(answer) => _ = asking.reply.send(answer),
                None => self.told.asking.push(asking),
            }
        }
    }
}
