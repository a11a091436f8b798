//! A worker: one thread, one runtime, and the pods whose connections it accepts.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::LocalRuntime;
use tokio::sync::{mpsc, watch};
use weft_common::Listener;
use weft_datapath::{LocalPod, PodListener};
use weft_telemetry::Recorder;

use super::core::{Core, Phase};
use super::{Command, Shared, accept, ends, limits, peers};

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
