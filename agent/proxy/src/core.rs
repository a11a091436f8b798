//! What the connections of one worker share, and how far its life has gone.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use weft_datapath::LocalPod;
use weft_limits::Account;
use weft_limits::account::Accounts;
use weft_telemetry::{OpenConnection, Recorder};

use super::ends::Ends;
use super::originate::Origins;
use super::pool::Pool;
use super::tunnels::Tunnels;
use super::{Shared, limits};

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
pub(super) enum Phase {
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

    pub(super) fn enter_phase(&self, phase: Phase) {
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
    pub(super) fn note_rules(&self) {
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

    pub(super) fn sweep(&self, idle: Duration) {
        let idle = if self.is_retiring() { Duration::ZERO } else { idle };
        let pods = self.shared.pods.load();
        self.pool.sweep(idle, &pods);
        self.tunnels.sweep(idle.min(limits::HBONE_IDLE), &pods);
        self.ends.sweep();
    }

    pub(super) async fn empty(&self) {
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
