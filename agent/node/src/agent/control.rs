//! The control thread: objects → rules → snapshot → pods → workers, in rounds. One round takes in everything that
//! happened since the last, so that a burst of changes costs one compilation.

mod announce;
mod cni;
mod ends;
mod enrol;
mod handover;
mod intake;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use weft_api::admin::{Applied, PodEnrolment};
use weft_api::kinds::Kind;
use weft_api::object::Object;
use weft_datapath::{Datapath, DatapathOptions, DatapathStatus};
use weft_discovery::{News, Source};
use weft_identity::Revoked;
use weft_proxy::{Command, LocalPods, Worker};
use weft_rules::compile::{Change, Compiler, CompilerOptions, Done, Intake};
use weft_rules::workload::Workload;

use super::handover::Request;
use super::netns::NetnsFinder;
use super::pods::{Desired, Enrolled, Left};
use super::readiness::Guard;
use super::{AgentError, Shared};
use crate::cni::kept::{self, Keeper};
use crate::cni::server::Told;

pub use handover::Succeeding;

/// Events of one change arrive within so long of each other; the first starts the clock.
const DEBOUNCE: Duration = Duration::from_millis(4);
/// How often a worker that did not answer is asked again.
const WORKER_RETRY: Duration = Duration::from_millis(15);
/// How often a network namespace that is not there is looked for, at first and later.
const NETNS_RETRY: Duration = Duration::from_millis(25);
const NETNS_RETRY_LATER: Duration = Duration::from_millis(250);
/// How often the namespaces of enrolled pods are looked at: a pod may come back under its name with another.
const NETNS_CHECK: Duration = Duration::from_millis(500);
/// The longest that nothing is looked at.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
/// A worker that does not answer for so long is reported.
const WORKER_ANSWER: Duration = Duration::from_secs(1);

/// How long pods that are new in the mesh wait for certificates that this agent signs by itself.
const OWN_CERTIFICATES: Duration = Duration::from_millis(500);
/// In a cluster, a pod whose programs do not run after so long is not waited for any more.
const COMES_WITHIN: Duration = Duration::from_secs(5);
/// How long captured connections may take to reach their listeners.
const LAST_CAPTURES: Duration = Duration::from_millis(20);

/// What the control thread is told.
#[derive(Debug)]
pub enum Message {
    /// Something happened where objects come from.
    News(News),
    /// Somebody waits until all that is there now is in force.
    Wait {
        /// Where to answer.
        reply: oneshot::Sender<Applied>,
        /// How long to wait.
        timeout: Duration,
    },
    /// Somebody asks what the kernel's side counts.
    Datapath(oneshot::Sender<DatapathStatus>),
    /// An attempt to get a certificate has ended, or other certificates are revoked than before.
    Certificates,
    /// A CNI plugin tells of a pod.
    Cni(Told),
    /// Regular expressions are compiled.
    Prepared(Done),
    /// A successor is prepared to take over.
    HandOver(Request),
    /// After a handover, the last connection has ended.
    Emptied,
    /// The agent from which this one has taken over has ended.
    PredecessorEnded,
    /// Drain and end.
    Shutdown,
}

#[derive(Debug)]
struct Waiter {
    reply: oneshot::Sender<Applied>,
    until: Instant,
}

/// Starts the control thread; `ended` hears how it ends.
pub fn spawn(
    shared: Arc<Shared>,
    source: Source,
    succeeding: Option<Succeeding>,
    messages: mpsc::UnboundedReceiver<Message>,
    ended: oneshot::Sender<Result<(), AgentError>>,
) -> std::io::Result<()> {
    let guard = shared.readiness.hold("first-sync");
    let programs = shared.readiness.hold("programs-attached");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("weft-control".to_owned()).spawn(move || {
        let outcome = Control::start(shared, source, succeeding, guard, programs)
            .and_then(|control| runtime.block_on(control.run(messages)));
        let _ = ended.send(outcome);
    })?;
    Ok(())
}

struct Control {
    shared: Arc<Shared>,
    source: Source,
    compiler: Compiler,
    intake: Intake,
    /// Changes whose regular expressions are compiled.
    released: Vec<Change>,
    datapath: Datapath,
    workers: Vec<Worker>,
    /// By worker, the generation that it last confirmed.
    confirmed: Vec<u64>,
    /// Commands were sent, or a snapshot published, since the workers last confirmed.
    unconfirmed: bool,
    /// An attempt to get a certificate has ended since the last round, or revocation lists have come.
    certificates_moved: bool,
    /// What the workers were last told to hold against peers.
    revoked: Option<Revoked>,
    local_pods: Arc<ArcSwap<LocalPods>>,
    enrolled: BTreeMap<Arc<str>, Enrolled>,
    finder: NetnsFinder,
    /// All pods of this node.
    local: BTreeMap<Arc<str>, Arc<Workload>>,
    desired: BTreeMap<Arc<str>, Desired>,
    /// Pods that should leave the mesh, and stay until the other nodes know of it.
    leaving: BTreeSet<Arc<str>>,
    /// When to look at them again.
    leaves_at: Option<Instant>,
    /// Pods that have left, some of whose connections stand.
    left: Vec<Left>,
    /// When the next of those that join is known to the other nodes.
    joined_at: Option<Instant>,
    /// Pods that should be enrolled and are not, and why.
    waiting_pods: BTreeMap<Arc<str>, String>,
    waiting_since: Instant,
    /// Since when each of them waits.
    waiting_from: BTreeMap<Arc<str>, Instant>,
    pods_checked: Instant,
    waiters: Vec<Waiter>,
    /// Pods that CNI plugins have told of.
    told: cni::ToldPods,
    /// Keeps what plugins decide by while there is no agent.
    keeper: Option<Keeper>,
    /// What is to be kept may have changed.
    unkept: bool,
    /// All that was there at start is known.
    begun: bool,
    first_sync: Option<Guard>,
    /// The lines of `weft status`: every pod of this node.
    rows: Arc<[PodEnrolment]>,
    rows_stale: bool,
    /// All pods of this node have been enrolled that could be; others that a dead agent enrolled were let go.
    claimed: bool,
    started: Instant,
    /// Another agent serves the pods of this node, and is going to hand them over.
    succeeding: Option<Succeeding>,
    /// When it was last said that certificates are missing for that.
    warned_at: Option<Instant>,
    /// The agent that handed over has not ended yet.
    follows: bool,
    /// Set when this agent has handed over itself.
    retired: Option<handover::Retired>,
}

impl Control {
    fn start(
        shared: Arc<Shared>,
        source: Source,
        succeeding: Option<Succeeding>,
        first_sync: Guard,
        programs: Guard,
    ) -> Result<Self, AgentError> {
        let options = &shared.options;
        let datapath = Datapath::start(&DatapathOptions {
            run_dir: options.run_dir.clone(),
            bpf_dir: options.bpf_dir.clone(),
            workers: options.workers,
            beside: succeeding.is_some(),
        })?;
        drop(programs);

        let local_pods: Arc<ArcSwap<LocalPods>> = Arc::default();
        let workers = (0..options.workers)
            .map(|index| {
                let recorder = shared.telemetry.recorder(index);
                let proxy_shared = weft_proxy::Shared {
                    snapshot: shared.snapshot.clone(),
                    pods: local_pods.clone(),
                    trust_domain: options.trust_domain.as_str().into(),
                    keyring: shared.keyring.clone(),
                    identities: shared.identities.clone(),
                    credentials: shared.credentials.clone(),
                    limits: shared.limits.clone(),
                };
                weft_proxy::spawn(index, proxy_shared, recorder)
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| AgentError::Start { what: "a proxy worker", source })?;
        let compiler = Compiler::new(CompilerOptions {
            node: options.node.clone(),
            cluster_domain: "cluster.local".to_owned(),
            root_namespace: options.root_namespace.clone(),
            trust_domain: options.trust_domain.clone(),
            cluster: source.is_cluster(),
        });
        let keeper = options.cni.as_ref().map(|cni| Keeper::start(kept::path(&cni.conf_dir))).transpose();
        let keeper = keeper.map_err(|source| AgentError::Start { what: "a thread", source })?;
        let finder = match &source {
            Source::Folder(_) => NetnsFinder::by_annotation(),
            Source::Cluster(_) => NetnsFinder::by_processes(),
        };
        let mut control = Self {
            source,
            compiler,
            intake: Intake::within(shared.limits.limits().objects),
            released: Vec::new(),
            datapath,
            confirmed: vec![0; workers.len()],
            workers,
            unconfirmed: true,
            certificates_moved: false,
            revoked: None,
            local_pods,
            enrolled: BTreeMap::new(),
            finder,
            local: BTreeMap::new(),
            desired: BTreeMap::new(),
            leaving: BTreeSet::new(),
            leaves_at: None,
            left: Vec::new(),
            joined_at: None,
            waiting_pods: BTreeMap::new(),
            waiting_since: Instant::now(),
            waiting_from: BTreeMap::new(),
            pods_checked: Instant::now(),
            waiters: Vec::new(),
            told: cni::ToldPods::default(),
            keeper,
            unkept: true,
            begun: false,
            first_sync: Some(first_sync),
            claimed: false,
            started: Instant::now(),
            succeeding,
            warned_at: None,
            follows: false,
            retired: None,
            rows: Arc::default(),
            rows_stale: true,
            shared,
        };
        control.learn_enclosed();
        Ok(control)
    }

    async fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) -> Result<(), AgentError> {
        loop {
            self.round().await?;
            if self.is_over() {
                return self.shut_down(messages).await;
            }
            let wake = self.next_wake();
            match timeout_at(wake, messages.recv()).await {
                Ok(Some(message)) => {
                    if self.take(message, &mut messages).await {
                        return self.shut_down(messages).await;
                    }
                }
                Ok(None) => return self.shut_down(messages).await,
                Err(_) => {}
            }
        }
    }

    /// Takes a message and all that follow closely; true means to end.
    async fn take(&mut self, first: Message, messages: &mut mpsc::UnboundedReceiver<Message>) -> bool {
        let until = Instant::now() + DEBOUNCE;
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::News(news) => self.source.take(news),
                Message::Wait { reply, timeout } => {
                    self.source.look_everywhere();
                    self.waiters.push(Waiter { reply, until: Instant::now() + timeout });
                }
                Message::Datapath(reply) => _ = reply.send(self.datapath.status()),
                Message::Certificates => self.certificates_moved = true,
                Message::Cni(told) => self.hear(told),
                Message::Prepared(done) => self.prepared(done),
                Message::HandOver(request) => self.hand_over(request).await,
                Message::Emptied => self.emptied(),
                Message::PredecessorEnded => self.predecessor_ended(),
                Message::Shutdown if self.told_to_end() => return true,
                Message::Shutdown => {}
            }
            // Whoever waits is not kept waiting for more news than there is.
            next = if self.waiters.is_empty() {
                timeout_at(until, messages.recv()).await.ok().flatten()
            } else {
                messages.try_recv().ok()
            };
        }
        false
    }

    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let look = self.source.next_look().map(Instant::from_std);
        let pods = (!self.waiting_pods.is_empty()).then(|| {
            let young = self.waiting_since.elapsed() < Duration::from_secs(5);
            now + if young { NETNS_RETRY } else { NETNS_RETRY_LATER }
        });
        let looks = !self.desired.is_empty() || !self.left.is_empty() || self.datapath.has_unclaimed();
        let netns = looks.then(|| self.pods_checked + NETNS_CHECK);
        // Before and after its time, an agent leaves pods alone.
        let enrols = self.succeeding.is_none() && self.retired.is_none();
        let pods =
            [pods, netns, self.leaves_at, self.joined_at].into_iter().flatten().filter(|_| enrols).min();
        let workers = self.unconfirmed.then(|| now + WORKER_RETRY);
        let waiter = self.waiters.iter().map(|waiter| waiter.until).min();
        let preparing = self.succeeding.is_some().then(|| now + handover::PREPARING);
        let all = [look, pods, workers, waiter, preparing, self.over_at(), self.told.due()];
        all.into_iter().flatten().fold(now + LONGEST_SLEEP, Instant::min).max(now)
    }

    /// Brings everything up to date.
    async fn round(&mut self) -> Result<(), AgentError> {
        self.shared.credentials.look_at_files();
        let mut scan = self.source.changes(self.first_sync.is_some());
        scan.changes = self.take_in(scan.changes);
        if !self.source.is_complete() {
            self.compiler.take_in(scan.changes);
            if scan.reported {
                self.publish();
            }
            self.answer();
            self.answer_plugins();
            return Ok(());
        }
        let begins = !std::mem::replace(&mut self.begun, true);
        let pods_changed =
            begins || self.told.news() || scan.changes.iter().any(|change| self.concerns_pods(change));
        let changed = begins || !scan.changes.is_empty();
        let reported = scan.reported || changed;
        self.rows_stale |= pods_changed;
        self.unkept |= pods_changed;
        if changed {
            self.compile(scan.changes);
        }
        if pods_changed {
            self.desire();
            self.note_ends();
        }
        self.told.forget_gone(&self.local);
        let succeeding = self.succeeding.is_some();
        if succeeding && !self.succeed()? {
            self.answer_plugins();
            return Ok(());
        }
        let pods_due = self.pods_checked + NETNS_CHECK <= Instant::now();
        let leaves_due = self.leaves_at.is_some_and(|at| at <= Instant::now());
        let pods = pods_changed || pods_due || leaves_due || succeeding || !self.waiting_pods.is_empty();
        let moved = pods && self.retired.is_none() && self.enrol();
        if self.retired.is_none() {
            let settles = !std::mem::replace(&mut self.claimed, true);
            if settles || (pods && self.datapath.has_unclaimed()) {
                self.let_go()?;
            }
            if settles {
                self.datapath.remove_other_versions()?;
            }
            if std::mem::take(&mut self.unkept) {
                self.remember();
            }
        }
        if moved {
            self.own_certificates().await;
        }
        if self.retired.is_none() {
            self.open_between();
            self.announce();
        }
        let confirmed = self.confirm().await?;
        self.rows_stale |= moved;
        let certificates = std::mem::take(&mut self.certificates_moved);
        if certificates {
            self.end_revoked();
        }
        if reported || moved || confirmed || certificates || self.first_sync.is_some() {
            self.publish();
        }
        self.answer();
        self.answer_plugins();
        Ok(())
    }

    fn compile(&mut self, changes: Vec<Change>) {
        let began = std::time::Instant::now();
        let count = changes.len();
        for change in &changes {
            self.keep_secret(change);
        }
        let snapshot = self.compiler.apply(changes);
        self.shared.credentials.want(snapshot.terminations());
        let generation = snapshot.generation;
        if let Some(identities) = &self.shared.identities {
            identities.set_trust_domains(snapshot.trust_domains());
        }
        self.shared.snapshot.store(snapshot);
        self.unconfirmed = true;
        let took = began.elapsed();
        self.shared.telemetry.compiled(took);
        tracing::debug!(generation, changes = count, ?took, "compiled");
    }

    /// Secrets that are files go past the rules.
    fn keep_secret(&self, change: &Change) {
        let credentials = &self.shared.credentials;
        match change {
            Change::Put(Object::Secret(secret)) => {
                credentials.put_object(&secret.metadata.namespace, &secret.metadata.name, Some(secret));
            }
            Change::Delete(key) if key.known_kind() == Some(Kind::Secret) => {
                credentials.put_object(&key.namespace, &key.name, None);
            }
            Change::Put(_) | Change::Delete(_) => {}
        }
    }

    /// Waits until every worker has seen all that came before. True: something new is in force.
    async fn confirm(&mut self) -> Result<bool, AgentError> {
        if !self.unconfirmed {
            return Ok(false);
        }
        let generation = self.shared.snapshot.load().generation;
        let mut answers = Vec::with_capacity(self.workers.len());
        for worker in &self.workers {
            let (sender, answer) = oneshot::channel();
            worker.commands.send(Command::Barrier(sender)).map_err(|_| AgentError::Control)?;
            answers.push(answer);
        }
        let until = Instant::now() + WORKER_ANSWER;
        self.unconfirmed = false;
        for (confirmed, answer) in self.confirmed.iter_mut().zip(answers) {
            match timeout_at(until, answer).await {
                Ok(Ok(())) => *confirmed = generation,
                Ok(Err(_)) => return Err(AgentError::Control),
                Err(_) => self.unconfirmed = true,
            }
        }
        Ok(true)
    }

    /// Lets traffic past the mesh (or leaves everything to a successor), waits for open connections, takes down the rest.
    async fn shut_down(mut self, messages: mpsc::UnboundedReceiver<Message>) -> Result<(), AgentError> {
        let _draining = self.shared.readiness.hold("draining");
        let last_answers = self.last_answers();
        let keep = self.shared.keep_pinned.load(Ordering::Relaxed)
            || last_answers.is_some()
            || self.succeeding.take().is_some();
        if !keep {
            self.withdraw(messages).await;
            self.release_all();
            // Connections that were captured just before are still on their way to the listeners.
            tokio::time::sleep(LAST_CAPTURES).await;
        }
        let deadline = last_answers.unwrap_or_else(|| self.shared.options.drain_alone());
        let mut threads = Vec::with_capacity(self.workers.len());
        for worker in self.workers.drain(..) {
            let _ = worker.commands.send(Command::Drain { deadline });
            threads.push(tokio::task::spawn_blocking(move || worker.thread.join()));
        }
        let patience = deadline + Duration::from_secs(2);
        for (index, thread) in threads.into_iter().enumerate() {
            if timeout(patience, thread).await.is_err() {
                tracing::warn!(worker = index, "did not end in time; its connections are cut");
            }
        }
        self.datapath.shutdown(keep)?;
        tracing::info!(keep_pinned = keep, "ended");
        Ok(())
    }

    /// Whether a change may bring pods of this node into the mesh or out of it.
    fn concerns_pods(&self, change: &Change) -> bool {
        let is_known = |namespace: &str, name: &str| self.local.contains_key(&*format!("{namespace}/{name}"));
        match change {
            Change::Put(Object::Pod(pod)) => {
                let node = &pod.spec.node_name;
                node.is_empty()
                    || *node == self.shared.options.node
                    || is_known(&pod.metadata.namespace, &pod.metadata.name)
            }
            Change::Put(object) => object.kind() == Kind::Namespace,
            Change::Delete(key) => match key.known_kind() {
                Some(Kind::Pod) => is_known(&key.namespace, &key.name),
                kind => kind == Some(Kind::Namespace),
            },
        }
    }
}
