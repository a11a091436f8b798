//! The way of a connection: accept, detect, route, balance, forward. One worker thread for each core; a connection
//! stays on the worker that accepted it.
//!
//! ```text
//! worker ── accept ──┬─ outbound ── detect ──┬─ tcp ──────────────── upstream ── relay
//!                    │                       └─ http/server                │
//!                    │                            └ headers, route         │
//!                    │                              └ forward ── pool ─────┘
//!                    └─ inbound ── admitted? ── as bytes, or detect as above; the rules of its policies decide
//! ```
//!
//! `upstream` is the one connector: to a program on this node, through [`hbone`] to a pod of another one, by [`originate`]d
//! TLS, or as it is.
//!
//! Each phase is one file, and all of them work on a [`stream`]. What the connections of a worker share is in `core`, what one is
//! for in `connection`, what an exchange came to in `http::exchange`, how anything can fail in `error`, every bound of one
//! connection in `limits`.

mod accept;
mod authority;
mod client_hello;
mod connection;
mod core;
mod detect;
mod ends;
mod error;
mod first_bytes;
mod gateway;
mod hbone;
mod http;
mod inbound;
mod io;
mod lean;
mod limits;
mod mtls;
mod originate;
mod peers;
mod pool;
mod probe;
mod relay;
mod scratch;
mod standing;
mod stream;
mod tcp;
pub mod tokens;
mod tunnels;
mod upstream;
mod wire;
mod worker;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::runtime::LocalOptions;
use weft_datapath::{LocalPod, PodListener};
use weft_identity::{Credentials, Identities};
use weft_limits::Budget;
use weft_rules::snapshot::Snapshot;
use weft_telemetry::Recorder;

use crate::tokens::Keyring;

/// What a worker shares with the rest of the agent.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The rules in force. Read without a lock, for each request and connection.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// The enrolled pods of this node by address: the same-node shortcut. Replaced whole when pods come or go.
    pub pods: Arc<ArcSwap<LocalPods>>,
    /// The trust domain of this mesh.
    pub trust_domain: Arc<str>,
    /// Keys of the issuers of tokens.
    pub keyring: Arc<Keyring>,
    /// Certificates of this node's service accounts; `None`: there is no CA, and nothing is encrypted.
    pub identities: Option<Arc<Identities>>,
    /// What gateways end TLS by.
    pub credentials: Arc<Credentials>,
    /// Who may hold how much.
    pub limits: Arc<Budget>,
}

/// Enrolled pods by address.
pub type LocalPods = std::collections::HashMap<std::net::IpAddr, Arc<LocalPod>, foldhash::fast::RandomState>;

/// What the control side tells a worker.
#[derive(Debug)]
pub enum Command {
    /// Accept the connections of this pod.
    Serve {
        /// The pod.
        pod: Arc<LocalPod>,
        /// Its listeners for this worker.
        listeners: Vec<PodListener>,
    },
    /// Stop accepting for this pod; connections that stand live on.
    Release {
        /// `namespace/name`.
        key: Arc<str>,
    },
    /// A pod's life has gone on: have its connections see how far.
    GoOn {
        /// The pod.
        pod: Arc<LocalPod>,
        /// Hears when the connections that had to be closed are.
        done: Option<tokio::sync::oneshot::Sender<()>>,
    },
    /// Answer duplicates of all listeners: another agent is going to accept from them, too.
    Lend(tokio::sync::oneshot::Sender<std::io::Result<Vec<Lent>>>),
    /// Leave the listeners to another agent, which has them too: accept no more, and end what stands where its client loses
    /// nothing by it.
    Retire {
        /// Hears when the last connection has ended.
        emptied: tokio::sync::oneshot::Sender<()>,
    },
    /// Other certificates are revoked than before: end the connections with peers that had those.
    EndRevoked,
    /// Stop accepting at all; end when the last connection has ended or the deadline passes.
    Drain {
        /// Longest wait.
        deadline: std::time::Duration,
    },
    /// Answer when every command before this one is in force.
    Barrier(tokio::sync::oneshot::Sender<()>),
}

/// A listener in other hands, and what the kernel programs know it by.
pub type Lent = (weft_common::Listener, std::os::fd::OwnedFd);

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    /// Commands to it.
    pub commands: tokio::sync::mpsc::UnboundedSender<Command>,
    /// Its thread.
    pub thread: std::thread::JoinHandle<()>,
}

/// Starts one worker on a thread of its own with a current-thread runtime.
///
/// # Errors
/// The thread or its runtime cannot be made.
pub fn spawn(index: usize, shared: Shared, recorder: Recorder) -> std::io::Result<Worker> {
    let (commands, queue) = tokio::sync::mpsc::unbounded_channel();
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(format!("weft-worker-{index}")).spawn(move || {
        // It belongs to its thread: tasks are woken without a lock, and need not be `Send`.
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        match runtime {
            Ok(runtime) => {
                drop(tell.send(Ok(())));
                worker::run(&runtime, shared, recorder, queue);
            }
            Err(error) => drop(tell.send(Err(error))),
        }
    })?;
    told.recv().map_err(std::io::Error::other)??;
    Ok(Worker { commands, thread })
}
