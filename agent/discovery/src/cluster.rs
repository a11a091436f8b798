//! Cluster mode: objects come from watches of the Kubernetes API.
//!
//! ```text
//! weft-discovery                                                 weft-control
//! watch (one per kind) ── events ──▶ set ── changes, in order ──▶ Cluster ──▶ compiler
//! contact ───────────── away, back ─────────────────────────────▶    │
//! announce: conditions of this node's pods ◀── what is true ─────────┘
//!                              kept: for an agent that finds no server
//! ```
//!
//! Objects are decoded on the watches' own thread, one at a time, and handed on in small batches: their number on the
//! way is bounded. Of an object that was handed on, only fingerprints stay.

pub mod announce;
mod ca_file;
pub mod connect;
mod contact;
mod follow;
mod item;
pub mod kept;
mod kinds;
mod served;
mod set;
mod trouble;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use kube::Client;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch as watch_channel};
use tokio::task::LocalSet;
use weft_api::finding::Finding;
use weft_api::kinds::Kind;
use weft_rules::compile::Change;

use self::announce::{Announcements, Order, Taken};
pub use self::connect::ConnectError;
use self::contact::{Away, Contact};
use self::kinds::Watched;
use self::set::{Delta, Report};

/// Objects on their way to the control thread, at most.
const ON_THE_WAY: usize = 1024;
/// Most of what the API server says that is shown in a status.
const SHOWN: usize = 300;

/// What cluster mode was told.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Credentials; `None`: those of the pod that this is.
    pub kubeconfig: Option<PathBuf>,
    /// The node that is served.
    pub node: String,
    /// The namespace of mesh-wide configuration.
    pub root_namespace: String,
    /// Where the roots of the mesh's own CA are kept.
    pub ca_root: PathBuf,
    /// Where its revocation lists are kept.
    pub ca_revocations: PathBuf,
    /// Where what is known is kept.
    pub kept: PathBuf,
}

/// How far a watch is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Before the first list's end.
    Listing,
    /// What is known is what is there.
    Current,
    /// What is known is what an agent of the past has known, then.
    Kept(SystemTime),
    /// The server does not have the kind.
    Absent,
    /// What is known may be of the past.
    Failing(String),
}

/// Something that the watches heard of.
#[derive(Debug)]
pub enum News {
    /// Objects of one watch.
    Objects(Batch),
    /// The server went away, or is back.
    Contact(Option<Away>),
    /// The server knows what was announced of a pod.
    Taken(Taken),
}

/// Events of one watch, in their order.
#[derive(Debug)]
pub struct Batch {
    watch: Arc<str>,
    delta: Delta,
    /// How many of its objects are in force then.
    in_force: usize,
    state: State,
    /// The last question that has been answered.
    caught_up: u64,
    /// Gives room to others when the batch was taken in.
    room: Option<OwnedSemaphorePermit>,
}

/// A watch, as the control thread knows it.
#[derive(Debug)]
struct Progress {
    kind: Kind,
    state: State,
    /// Its first list is complete, or its kind is not there.
    complete: bool,
    in_force: usize,
    /// The last question that it has answered.
    caught_up: u64,
    /// From when what is known is, where the server has not told it to this agent.
    kept: Option<SystemTime>,
}

/// What is known of the cluster: the control thread's side.
#[derive(Debug)]
pub struct Cluster {
    watches: BTreeMap<Arc<str>, Progress>,
    away: Option<Away>,
    reports: BTreeMap<String, Report>,
    changes: Vec<Change>,
    /// Held until the changes are asked for.
    room: Vec<OwnedSemaphorePermit>,
    reported: bool,
    /// Counts how often somebody asked for all that the server knows.
    asked: watch_channel::Sender<u64>,
    /// What the server is told of this node's pods.
    pub announcements: Announcements,
}

impl Cluster {
    /// Starts the thread of watches. `report` is called there with what [`Self::take`] should be told, `received` with
    /// the kind and the size in bytes of each object that the server sends.
    pub async fn start(
        options: ClusterOptions,
        report: impl Fn(News) + Clone + 'static + Send,
        received: impl Fn(&'static str, usize) + Clone + 'static + Send,
    ) -> Result<Self, ConnectError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(ConnectError::Thread)?;
        let all = Watched::all(&options.root_namespace);
        let (sender, orders) = mpsc::unbounded_channel();
        let (asks, asked) = watch_channel::channel(0);
        let cluster = Self::knowing_of(&all, sender, asks);
        let (started, outcome) = oneshot::channel();
        std::thread::Builder::new()
            .name("weft-discovery".to_owned())
            .spawn(move || {
                let local = LocalSet::new();
                local.block_on(&runtime, async {
                    let config = connect::config(options.kubeconfig.as_ref()).await;
                    match config.and_then(connect::client) {
                        Ok(client) => {
                            let _ = started.send(Ok(()));
                            let tell = Tell { report, received, node: options.node.as_str().into() };
                            run(client, all, asked, options, orders, tell).await;
                        }
                        Err(error) => _ = started.send(Err(error)),
                    }
                });
            })
            .map_err(ConnectError::Thread)?;
        outcome.await.unwrap_or(Err(ConnectError::Ended))?;
        Ok(cluster)
    }

    fn knowing_of(
        all: &[Watched],
        orders: mpsc::UnboundedSender<Order>,
        asked: watch_channel::Sender<u64>,
    ) -> Self {
        let progress = |kind| Progress {
            kind,
            state: State::Listing,
            complete: false,
            in_force: 0,
            caught_up: 0,
            kept: None,
        };
        Self {
            watches: all.iter().map(|watched| (watched.name().into(), progress(watched.kind))).collect(),
            away: None,
            reports: BTreeMap::new(),
            changes: Vec::new(),
            room: Vec::new(),
            reported: true,
            asked,
            announcements: Announcements::new(orders),
        }
    }

    /// Takes note of news.
    pub fn take(&mut self, news: News) {
        self.reported = true;
        match news {
            News::Contact(away) => self.away = away,
            News::Taken(taken) => self.announcements.taken(&taken, Instant::now()),
            News::Objects(batch) => {
                self.changes.extend(batch.delta.changes);
                self.room.extend(batch.room);
                for report in batch.delta.reports {
                    let key = report.key.to_string();
                    if report.is_empty() {
                        self.reports.remove(&key);
                    } else {
                        self.reports.insert(key, report);
                    }
                }
                if let Some(progress) = self.watches.get_mut(&batch.watch) {
                    progress.in_force = batch.in_force;
                    progress.caught_up = batch.caught_up;
                    match batch.state {
                        State::Current | State::Absent => (progress.complete, progress.kept) = (true, None),
                        State::Kept(as_of) => (progress.complete, progress.kept) = (true, Some(as_of)),
                        State::Listing | State::Failing(_) => {}
                    }
                    progress.state = batch.state;
                }
            }
        }
    }

    /// What changed since the last time, and whether anything did.
    pub fn changes(&mut self) -> (Vec<Change>, bool) {
        self.room.clear();
        (std::mem::take(&mut self.changes), std::mem::take(&mut self.reported))
    }

    /// Asks for all that the server knows now; until it is here, [`Self::waiting_for`] says so.
    pub fn catch_up(&mut self) {
        self.asked.send_modify(|times| *times += 1);
    }

    /// Whether all first lists are complete.
    pub fn is_complete(&self) -> bool {
        self.watches.values().all(|progress| progress.complete)
    }

    /// What the first sync waits for; later, watches that have not told yet what they were asked for. One that is
    /// interrupted is not waited for.
    pub fn waiting_for(&self) -> Vec<String> {
        let incomplete = self.watches.iter().filter(|(_, progress)| !progress.complete);
        let mut lists = Vec::new();
        let mut all = Vec::new();
        for (name, progress) in incomplete {
            match &progress.state {
                State::Failing(why) if self.away.is_none() => all.push(format!("list of {name}: {why}")),
                _ => lists.push(&**name),
            }
        }
        if !lists.is_empty() {
            all.insert(0, format!("lists of {}", lists.join(", ")));
            all.extend(self.away.iter().map(|away| format!("the API server does not answer: {}", away.why)));
        }
        let asked = *self.asked.borrow();
        let behind = self.watches.iter().filter(|(_, progress)| {
            self.away.is_none() && progress.state == State::Current && progress.caught_up < asked
        });
        all.extend(behind.map(|(name, _)| format!("news of {name}")));
        all
    }

    /// From when what is in force is, where some of it is not from the API server but from what an agent before has kept.
    pub fn kept(&self) -> Option<SystemTime> {
        self.watches.values().filter_map(|progress| progress.kept).min()
    }

    /// What makes the known state one of the past, for those who ask for the agent's health.
    pub fn troubles(&self) -> Vec<String> {
        let kept = self.kept().map(|as_of| {
            let age = as_of.elapsed().unwrap_or_default().as_secs();
            format!(
                "the API server has told this agent nothing yet: in force is what the agent before knew at {}, {age} s ago",
                time(as_of)
            )
        });
        if let Some(away) = &self.away {
            let since = time(away.since);
            let away = format!("the API server does not answer since {since}: {}", away.why);
            return std::iter::once(away).chain(kept).collect();
        }
        let failing = self.watches.iter().filter(|(_, progress)| progress.complete);
        failing
            .filter_map(|(name, progress)| match &progress.state {
                State::Failing(why) => Some(format!("watch of {name}: {why}")),
                _ => None,
            })
            .chain(kept)
            .collect()
    }

    /// Objects that were refused.
    pub fn refused(&self) -> Vec<Finding> {
        self.reports.values().flat_map(|report| report.problems.iter().cloned()).collect()
    }

    /// What accepted objects ask for that weft does not do yet.
    pub fn not_in_force(&self) -> Vec<Finding> {
        self.reports.values().flat_map(|report| report.not_in_force.iter().cloned()).collect()
    }

    /// How many objects are in force, by kind.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for progress in self.watches.values().filter(|progress| progress.in_force > 0) {
            *counts.entry(progress.kind.name().to_owned()).or_default() += progress.in_force;
        }
        counts
    }
}

fn time(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at)
        .map_or_else(|_| "long ago".to_owned(), |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// Who is told of what the watches hear.
#[derive(Clone)]
struct Tell<N, R> {
    report: N,
    received: R,
    /// The node that is served: other nodes' pods are their agents' to tell of.
    node: Arc<str>,
}

/// Runs the watches, forever.
async fn run(
    client: Client,
    all: Vec<Watched>,
    asked: watch_channel::Receiver<u64>,
    options: ClusterOptions,
    orders: mpsc::UnboundedReceiver<Order>,
    tell: Tell<impl Fn(News) + Clone + 'static, impl Fn(&'static str, usize) + Clone + 'static>,
) {
    let contact = Contact::new();
    let keeping = follow::Keeping::start(&options, all.len(), &contact);
    let room = Arc::new(Semaphore::new(ON_THE_WAY));
    for watched in all {
        let follower = follow::Follower {
            client: client.clone(),
            contact: contact.clone(),
            asked: asked.clone(),
            room: room.clone(),
            keeping: keeping.clone(),
            tell: tell.clone(),
        };
        tokio::task::spawn_local(follower.follow(watched));
    }
    for file in [ca_file::Kept::roots(options.ca_root), ca_file::Kept::revocations(options.ca_revocations)] {
        tokio::task::spawn_local(ca_file::keep(client.clone(), contact.clone(), asked.clone(), file));
    }
    let told = tell.report.clone();
    let taken = move |taken| told(News::Taken(taken));
    tokio::task::spawn_local(announce::keep(client.clone(), contact.clone(), orders, taken));
    let report = |away: Option<Away>| {
        if away.is_some() {
            keeping.resort();
        }
        (tell.report)(News::Contact(away));
    };
    contact.keep(client, report).await;
}

#[cfg(test)]
mod tests;
