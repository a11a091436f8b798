//! A worker: one thread, one runtime, the connections it accepted, and what they share.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::LocalRuntime;
use tokio::sync::{Notify, mpsc, watch};

use super::ends::{self, Ends};
use super::originate::Origins;
use super::pool::Pool;
use super::tunnels::Tunnels;
use super::{Command, Shared, accept, limits, peers};
use crate::datapath::{LocalPod, PodListener};
use crate::limits::Account;
use crate::limits::account::Accounts;
use crate::telemetry::{OpenConnection, Recorder};
use weft_common::Listener;

/// What the connections of one worker share.
#[derive(Debug)]
pub(super) struct Core {
    /// Rules and pods.
    pub(super) shared: Shared,
    /// Where finished exchanges go.
    pub(super) recorder: Recorder,
    /// Idle upstream connections.
    pub(super) pool: Pool,
    /// Connections to pods of other nodes.
    pub(super) tunnels: Tunnels,
    /// How endpoints outside of the mesh are spoken to in TLS.
    pub(super) origins: Origins,
    /// Who pays for what is held.
    pub(super) accounts: Accounts,
    /// Ends of pods.
    pub(super) ends: Ends,
    /// Copies of requests under way.
    pub(super) mirrors: Cell<usize>,
    connections: Cell<usize>,
    phase: Cell<Phase>,
    changed: Notify,
    /// Snapshots that came into force.
    rules: Notify,
    generation: Cell<u64>,
}

/// What becomes of connections that stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Phase {
    /// They go on.
    Serving,
    /// Another agent has the listeners: connections end where their clients lose nothing by it.
    Retiring,
    /// The worker is about to end.
    Draining,
}

impl Core {
    pub(super) fn new(shared: Shared, recorder: Recorder) -> Rc<Self> {
        Rc::new(Self {
            accounts: Accounts::new(Arc::clone(&shared.limits)),
            shared,
            recorder,
            pool: Pool::default(),
            tunnels: Tunnels::default(),
            origins: Origins::default(),
            ends: Ends::default(),
            mirrors: Cell::new(0),
            connections: Cell::new(0),
            phase: Cell::new(Phase::Serving),
            changed: Notify::new(),
            rules: Notify::new(),
            generation: Cell::new(0),
        })
    }

    /// Whether the worker is about to end.
    pub(super) fn is_draining(&self) -> bool {
        self.phase.get() >= Phase::Draining
    }

    /// Waits until new connections are another agent's, or the worker drains. Cancel-safe.
    pub(super) async fn retired(&self) {
        self.reached(Phase::Retiring).await;
    }

    /// Whether new connections are another agent's: those that stand should end when that does no harm.
    pub(super) fn is_retiring(&self) -> bool {
        self.phase.get() >= Phase::Retiring
    }

    async fn reached(&self, phase: Phase) {
        while self.phase.get() < phase {
            self.changed.notified().await;
        }
    }

    fn enter_phase(&self, phase: Phase) {
        self.phase.set(phase);
        self.changed.notify_waiters();
        self.ends.wake_all();
        self.sweep(Duration::ZERO);
    }

    /// Waits until other rules come into force. Cancel-safe.
    pub(super) async fn rules_changed(&self) {
        self.rules.notified().await;
    }

    /// Other rules may have come into force.
    fn note_rules(&self) {
        let generation = self.shared.snapshot.load().generation;
        if self.generation.replace(generation) != generation {
            self.rules.notify_waiters();
            let snapshot = self.shared.snapshot.load();
            self.pool.forget_strangers(&snapshot);
            self.tunnels.forget_strangers(&snapshot);
        }
    }

    /// Who pays for what a pod opens, or what comes to it, there from `peer`.
    pub(super) fn account(&self, pod: &LocalPod, inbound: bool, peer: Option<IpAddr>) -> Rc<Account> {
        let key = &pod.network.key;
        self.accounts.of((pod.cookie, key), inbound, peer, || {
            self.shared.snapshot.load().workload(key).is_some_and(|workload| workload.is_gateway())
        })
    }

    /// Counts a connection until the guard drops: a drain waits for it.
    pub(super) fn enter(self: &Rc<Self>) -> Entered {
        self.connections.set(self.connections.get() + 1);
        Entered { core: Rc::clone(self), _counted: self.recorder.connection() }
    }

    fn sweep(&self, idle: Duration) {
        let idle = if self.is_retiring() { Duration::ZERO } else { idle };
        let pods = self.shared.pods.load();
        self.pool.sweep(idle, &pods);
        self.tunnels.sweep(idle.min(limits::HBONE_IDLE), &pods);
        self.ends.sweep();
    }

    async fn empty(&self) {
        while self.connections.get() > 0 {
            self.changed.notified().await;
        }
    }
}

/// A connection that a drain waits for.
#[derive(Debug)]
pub(super) struct Entered {
    core: Rc<Core>,
    _counted: OpenConnection,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let core = &self.core;
        core.connections.set(core.connections.get() - 1);
        if core.is_retiring() && core.connections.get() == 0 {
            core.changed.notify_waiters();
        }
    }
}

/// Runs a worker until it is told to drain, or until nobody can tell it anything more.
pub(super) fn run(
    runtime: &LocalRuntime,
    shared: Shared,
    recorder: Recorder,
    commands: mpsc::UnboundedReceiver<Command>,
) {
    runtime.block_on(serve(Core::new(shared, recorder), commands));
}

/// A pod whose connections a worker accepts.
struct Served {
    /// Dropping it tells the pod's accept tasks to stop.
    _keep: watch::Sender<()>,
    pod: Arc<LocalPod>,
    listeners: Vec<(Listener, Rc<TcpListener>)>,
}

async fn serve(core: Rc<Core>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let sweeper = tokio::task::spawn_local(sweep(Rc::clone(&core)));
    let keeper = tokio::task::spawn_local(keep_accounts(Rc::clone(&core)));
    let mut served: HashMap<Arc<str>, Served> = HashMap::new();
    let mut longest = Duration::ZERO;
    while let Some(command) = commands.recv().await {
        match command {
            Command::Serve { pod, listeners } => {
                let (keep, stop) = watch::channel(());
                let key = Arc::clone(&pod.network.key);
                let mut standing = Vec::new();
                for PodListener { direction, place, socket } in listeners {
                    match TcpListener::from_std(socket).map(Rc::new) {
                        Ok(socket) => {
                            standing.push((place, Rc::clone(&socket)));
                            let (core, pod, stop) = (Rc::clone(&core), Arc::clone(&pod), stop.clone());
                            tokio::task::spawn_local(accept::run(core, pod, (direction, socket), stop));
                        }
                        Err(error) => {
                            tracing::error!(pod = %key, ?direction, %error, "listener cannot be served");
                        }
                    }
                }
                served.insert(key, Served { _keep: keep, pod, listeners: standing });
            }
            Command::Release { key } => {
                if let Some(Served { pod, .. }) = served.remove(&key) {
                    core.pool.release(&pod);
                    core.tunnels.release(&pod);
                }
            }
            Command::GoOn { pod, done } => ends::go_on(&core, &pod, done),
            Command::Lend(reply) => {
                let all = served.values().flat_map(|served| &served.listeners);
                let lent = all.map(|(place, socket)| Ok((*place, socket.as_fd().try_clone_to_owned()?)));
                _ = reply.send(lent.collect());
            }
            Command::Retire { emptied } => {
                core.enter_phase(Phase::Retiring);
                served.clear();
                let core = Rc::clone(&core);
                tokio::task::spawn_local(async move {
                    core.empty().await;
                    _ = emptied.send(());
                });
            }
            Command::EndRevoked => {
                if let Some(identities) = core.shared.identities.clone() {
                    tokio::task::spawn_local(async move { peers::end_revoked(&identities).await });
                }
            }
            Command::Drain { deadline } => {
                longest = deadline;
                break;
            }
            // The listeners exist and queue connections: what was sent before is in force.
            Command::Barrier(done) => {
                core.note_rules();
                _ = done.send(());
            }
        }
    }
    core.enter_phase(Phase::Draining);
    served.clear();
    drop(tokio::time::timeout(longest, core.empty()).await);
    sweeper.abort();
    keeper.abort();
}

/// Looks after the accounts, and closes what is idle where memory is short.
async fn keep_accounts(core: Rc<Core>) {
    let mut trimmed = core.shared.limits.trimmed();
    loop {
        tokio::time::sleep(limits::ACCOUNTS_TICK).await;
        core.accounts.tick();
        let asked = core.shared.limits.trimmed();
        if std::mem::replace(&mut trimmed, asked) != asked {
            core.sweep(Duration::ZERO);
        }
    }
}

async fn sweep(core: Rc<Core>) {
    loop {
        tokio::time::sleep(limits::POOL_SWEEP).await;
        core.sweep(limits::POOL_IDLE_TIMEOUT);
    }
}

thread_local! {
    /// One buffer for all relays of a worker: filled and emptied within one poll, so that idle connections hold none.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends this worker's buffer. Never held over a wait.
pub(super) fn with_scratch<T>(size: usize, use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|buffer| {
        if buffer.len() < size {
            buffer.resize(size, 0);
        }
        use_it(&mut buffer[..size])
    })
}
