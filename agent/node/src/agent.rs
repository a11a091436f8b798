//! The node agent: starts everything in order, and ends it in order.
//!
//! Threads: the caller's thread runs signals, the admin API, metrics and readiness; `weft-control` reads objects,
//! compiles them and enrols pods; one `weft-worker-N` per core carries the traffic; `weft-identity` fetches certificates; `weft-log` writes the access log.
//! Traffic never waits for any of the others.

mod control;
mod doors;
mod handover;
mod netns;
mod pods;
mod process;
mod readiness;
mod run_dir;
mod successor;
mod taint;
mod view;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use weft_discovery::cluster::{Cluster, ClusterOptions, ConnectError, kept};
use weft_discovery::folder::Followed;
use weft_discovery::{News, Source};
use weft_identity::{CaOptions, Credentials, Identities, IdentityOptions, SecretsFrom};
use weft_limits::machine::Machine;
use weft_limits::{Budget, LimitOptions, Limits, watch};
use weft_proxy::tokens::Keyring;
use weft_rules::snapshot::Snapshot;
use weft_telemetry::{AccessLog, Telemetry};

use crate::admin::Readers;
use crate::cni::install::{self, CniOptions, Installed};
pub use control::{Message, Succeeding};
pub use doors::{Doors, Public};
pub use handover::Succession;
pub use readiness::Readiness;
pub use run_dir::is_taken as is_run_dir_taken;
pub use view::View;

/// Where an agent's objects come from.
#[derive(Debug, Clone)]
pub enum SourceOptions {
    /// Standalone mode: a folder of manifests.
    Folder(PathBuf),
    /// The API server of a cluster.
    Cluster(ClusterOptions),
}

/// Version of weft.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Longest wait for open connections of an agent that ends.
const DRAIN_ALONE: Duration = Duration::from_secs(5);
/// The same of one that has handed over.
const DRAIN_REPLACED: Duration = Duration::from_mins(5);

/// How often series of pods that are gone are looked for.
const SWEEP: Duration = Duration::from_mins(1);

/// What `weft agent` was told.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// Where objects come from.
    pub source: SourceOptions,
    /// Name of this node.
    pub node: String,
    /// Directory of this agent's own files.
    pub run_dir: PathBuf,
    /// Directory on a bpffs for what is pinned.
    pub bpf_dir: PathBuf,
    /// Where `/metrics` answers.
    pub metrics_addr: SocketAddr,
    /// Where `/healthz/ready` answers.
    pub readiness_addr: SocketAddr,
    /// Who may read these two, beside the node itself.
    pub metrics_allow: Readers,
    /// The most combinations of labels in Istio's metrics.
    pub metric_series: usize,
    /// Where the registry answers, to everybody; `None`: nowhere.
    pub registry_addr: Option<SocketAddr>,
    /// `cluster.local`, of SPIFFE names.
    pub trust_domain: String,
    /// Who signs certificates; `None`: traffic between nodes is plain text.
    pub ca: Option<CaOptions>,
    /// Where the CA's revocation lists are, if there may be any.
    pub revocations: Option<PathBuf>,
    /// How long certificates live.
    pub certificate_life: Duration,
    /// The namespace of mesh-wide configuration.
    pub root_namespace: String,
    /// Where keys of issuers may be fetched from, although users may not send a node there.
    pub jwks_allow: Vec<IpNet>,
    /// How finished requests are logged.
    pub access_log: AccessLog,
    /// Leave what is pinned, for the agent that follows.
    pub keep_pinned: bool,
    /// Proxy threads.
    pub workers: usize,
    /// Longest wait for open connections at the end, where it is not left to the agent.
    pub drain_timeout: Option<Duration>,
    /// Take over from the agent that uses the run directory.
    pub take_over: bool,
    /// It stands in for an agent that is gone: it ends when it has handed over to the next.
    pub stands_by: bool,
    /// The Kubernetes pod that the agent is in, if any.
    pub pod: Option<String>,
    /// Where the CNI plugin is to be, if anywhere.
    pub cni: Option<CniOptions>,
    /// Take the taint of a node without an agent from this one.
    pub node_taint: bool,
    /// What may be held for others.
    pub limits: LimitOptions,
}

impl AgentOptions {
    /// Longest wait for open connections when nobody has taken over. What is kept for a successor keeps pods closed until
    /// that is there: it may only come after this agent's end.
    fn drain_alone(&self) -> Duration {
        let told = self.drain_timeout.unwrap_or(DRAIN_ALONE);
        if self.keep_pinned { told.min(DRAIN_ALONE) } else { told }
    }

    /// The same after a handover.
    fn drain_replaced(&self) -> Duration {
        self.drain_timeout.unwrap_or(DRAIN_REPLACED)
    }
}

/// Why an agent does not start, or ends badly.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The run directory is in use, or cannot be.
    #[error(transparent)]
    RunDir(#[from] run_dir::RunDirError),
    /// The agent that uses the run directory cannot be followed.
    #[error(transparent)]
    Handover(#[from] handover::HandoverError),
    /// Nothing to read objects from.
    #[error("cannot read the folder {dir}")]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No client of the API server.
    #[error(transparent)]
    Cluster(#[from] ConnectError),
    /// An address is taken, or not ours.
    #[error("cannot listen on {address} for {what}")]
    Listen {
        /// What would have answered there.
        what: &'static str,
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The kernel's side does not start, or does not end cleanly.
    #[error(transparent)]
    Datapath(#[from] weft_datapath::DatapathError),
    /// There is no CA to be used.
    #[error(transparent)]
    Identity(#[from] weft_identity::IdentityError),
    /// Its cryptography is not what the build promises.
    #[error(transparent)]
    Crypto(#[from] weft_identity::crypto::NotApproved),
    /// A thread, signal handler or runtime did not start.
    #[error("cannot start {what}")]
    Start {
        /// What.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The control thread ended by itself.
    #[error("the control thread has ended; see the log above")]
    Control,
}

/// What the admin API, metrics and readiness read.
#[derive(Debug)]
pub struct Shared {
    /// What the agent was told.
    pub options: AgentOptions,
    /// The rules in force.
    pub snapshot: Arc<arc_swap::ArcSwap<Snapshot>>,
    /// The state that the control thread publishes.
    pub view: arc_swap::ArcSwap<View>,
    /// What readiness waits for.
    pub readiness: Arc<Readiness>,
    /// Counters, log and taps.
    pub telemetry: Arc<Telemetry>,
    /// Certificates of this node's service accounts.
    pub identities: Option<Arc<Identities>>,
    /// What gateways of this node end TLS by.
    pub credentials: Arc<Credentials>,
    /// Keys of the issuers of tokens.
    pub keyring: Arc<Keyring>,
    /// Who may hold how much.
    pub limits: Arc<Budget>,
    /// To the control thread.
    pub control: mpsc::UnboundedSender<Message>,
    /// Who comes after this agent.
    pub succession: Succession,
    /// At its end, leave what is pinned: another agent is expected.
    pub keep_pinned: AtomicBool,
}

/// Runs an agent until SIGTERM or SIGINT. A second signal ends the process at once.
pub fn run(options: AgentOptions) -> Result<(), AgentError> {
    weft_identity::crypto::install()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| AgentError::Start { what: "the runtime", source })?;
    runtime.block_on(serve(options))
}

/// Removes what a dead agent with these directories has left; answers the pods that it had in the mesh. Refused while
/// an agent runs there.
pub fn cleanup(run_dir: &std::path::Path, bpf_dir: &std::path::Path) -> Result<Vec<String>, AgentError> {
    let _taken = run_dir.exists().then(|| run_dir::RunDir::take(run_dir)).transpose()?;
    kept::remove(&run_dir.join(kept::FILE));
    Ok(weft_datapath::cleanup(run_dir, bpf_dir)?)
}

async fn serve(options: AgentOptions) -> Result<(), AgentError> {
    let start = |what| move |source| AgentError::Start { what, source };
    let mut terminate = signal(SignalKind::terminate()).map_err(start("the signal handler"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(start("the signal handler"))?;
    let mut hangup = signal(SignalKind::hangup()).map_err(start("the signal handler"))?;
    allow_many_files();

    check_source(&options.source)?;
    let (opened, doors) = oneshot::channel();
    let succeeding = enter(&options, opened)?;

    let telemetry =
        Telemetry::start(options.access_log, &options.node, options.workers, options.metric_series)
            .map_err(start("the log writer"))?;
    let limits = Budget::new(Limits::new(&options.limits, &Machine::here()));
    watch::start(&limits).map_err(start("the watcher of limits"))?;
    telemetry.tell_limits(&limits);
    let (control, messages) = mpsc::unbounded_channel();
    let readiness = Arc::new(Readiness::default());
    let credentials = Credentials::new(match (&options.source, &options.ca) {
        (SourceOptions::Folder(_), _) => SecretsFrom::Folder,
        (SourceOptions::Cluster(_), Some(CaOptions::Service(_))) => SecretsFrom::Controller,
        (SourceOptions::Cluster(_), _) => SecretsFrom::Nobody,
    });
    let identities = identities(&options, &control, &credentials)?;
    let (keyring, fetcher) = Keyring::new(&options.jwks_allow);
    let shared = Arc::new(Shared {
        snapshot: Arc::default(),
        view: arc_swap::ArcSwap::default(),
        readiness,
        telemetry,
        identities,
        credentials,
        keyring,
        limits,
        control,
        succession: Succession::default(),
        keep_pinned: AtomicBool::new(options.keep_pinned),
        options,
    });
    let local = tokio::task::LocalSet::new();
    let answering = local.spawn_local(answer(doors, shared.clone()));
    local.spawn_local(fetcher.run(shared.snapshot.clone()));
    if shared.options.node_taint {
        local.spawn_local(taint::lift(shared.clone()));
    }
    local.spawn_local(sweep(shared.clone()));

    let (ended, mut control_ended) = oneshot::channel();
    let source = source(&shared).await?;
    control::spawn(shared.clone(), source, succeeding, messages, ended)
        .map_err(start("the control thread"))?;
    tracing::info!(
        node = %shared.options.node,
        source = ?shared.options.source,
        run_dir = %shared.options.run_dir.display(),
        metrics = %shared.options.metrics_addr,
        readiness = %shared.options.readiness_addr,
        "weft agent {} has started", env!("CARGO_PKG_VERSION")
    );

    local
        .run_until(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                // The terminal has gone: without a mesh is better than closed.
                _ = hangup.recv() => {}
                outcome = &mut control_ended => return finished(outcome),
            }
            tracing::info!("draining; a second signal ends at once");
            let end = async {
                // Whoever prepares to take over is not kept from it.
                let _ = timeout(shared.options.drain_replaced(), shared.succession.settled()).await;
                if shared.options.keep_pinned && !successor::is_expected(&shared.options.source).await {
                    tracing::info!("weft is being uninstalled: nothing stays");
                    shared.keep_pinned.store(false, Ordering::Relaxed);
                }
                let _ = shared.control.send(Message::Shutdown);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                outcome = &mut control_ended => return finished(outcome),
                () = end => {}
            }
            tracing::warn!("ended at once by a second signal; `weft cleanup` removes what is left");
            std::process::exit(1);
        })
        .await?;
    shared.telemetry.flush(Duration::from_secs(1));
    // With it goes the hold on the run directory.
    answering.abort();
    drop(local);
    let stays =
        shared.keep_pinned.load(Ordering::Relaxed) || shared.succession.state() == handover::State::Done;
    if let (false, SourceOptions::Cluster(options)) = (stays, &shared.options.source) {
        kept::remove(&options.kept);
    }
    if let Some(CniOptions { conf_dir, bin_dir, .. }) = shared.options.cni.as_ref().filter(|_| !stays)
        && let Err(error) = install::remove(conf_dir, bin_dir)
    {
        tracing::warn!(%error, "the CNI plugin cannot be removed; `weft cni uninstall` does it");
    }
    Ok(())
}

/// Looks after the CNI plugin on this node, where that is wanted.
fn plugin(options: &AgentOptions) -> Option<Installed> {
    let installed = Installed::start(options.cni.clone()?, &options.run_dir, &options.bpf_dir);
    installed.inspect_err(|error| tracing::error!(%error, "the CNI plugin cannot be installed")).ok()
}

/// Refuses a source of which nothing can be had.
fn check_source(source: &SourceOptions) -> Result<(), AgentError> {
    let SourceOptions::Folder(dir) = source else { return Ok(()) };
    match std::fs::read_dir(dir) {
        Ok(_) => Ok(()),
        Err(source) => Err(AgentError::Folder { dir: dir.clone(), source }),
    }
}

/// Starts what learns of objects; the control thread hears of it.
async fn source(shared: &Shared) -> Result<Source, AgentError> {
    let control = shared.control.clone();
    let report = move |news| _ = control.send(Message::News(news));
    Ok(match &shared.options.source {
        SourceOptions::Folder(dir) => {
            Source::Folder(Box::new(Followed::new(dir.clone(), move |seen| report(News::Folder(seen)))))
        }
        SourceOptions::Cluster(options) => {
            let telemetry = shared.telemetry.clone();
            let received = move |kind, bytes| telemetry.received(kind, bytes);
            let cluster = Cluster::start(options.clone(), move |news| report(News::Cluster(news)), received);
            Source::Cluster(Box::new(cluster.await?))
        }
    })
}

/// Starts what fetches certificates, where there is a CA; the control thread hears of each attempt.
fn identities(
    options: &AgentOptions,
    control: &mpsc::UnboundedSender<Message>,
    credentials: &Arc<Credentials>,
) -> Result<Option<Arc<Identities>>, AgentError> {
    let Some(ca) = options.ca.clone() else {
        tracing::warn!("no CA (--ca-dir or --ca-address): traffic between nodes is plain text");
        return Ok(None);
    };
    let control = control.clone();
    let report = move || _ = control.send(Message::Certificates);
    let options = IdentityOptions {
        trust_domain: options.trust_domain.clone(),
        ca,
        life: options.certificate_life,
        revocations: options.revocations.clone(),
        credentials: credentials.clone(),
    };
    Ok(Some(Identities::start(options, report)?))
}

/// Each connection takes two descriptors or more; the usual soft limit of 1,024 is for programs that use `select`.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, limit = ?limit.current, "cannot raise the limit on open files");
    }
}

type Ended = Result<Result<(), AgentError>, oneshot::error::RecvError>;

fn finished(outcome: Ended) -> Result<(), AgentError> {
    outcome.unwrap_or(Err(AgentError::Control))
}

/// Takes the run directory and opens what the agent answers at, or finds the agent to take over from, which has both.
fn enter(options: &AgentOptions, opened: oneshot::Sender<Doors>) -> Result<Option<Succeeding>, AgentError> {
    match run_dir::RunDir::take(&options.run_dir) {
        Ok(run_dir) => {
            // Nobody has dropped the other end yet.
            let _ = opened.send(Doors::open(options, run_dir)?);
            Ok(None)
        }
        Err(run_dir::RunDirError::Taken { holder, .. }) if options.take_over => {
            let socket = run_dir::handover_socket(&options.run_dir);
            let predecessor = handover::Predecessor::greet(&socket, &holder, options)?;
            tracing::info!("taking over from the agent{holder} that uses {}", options.run_dir.display());
            let public = Public::open(options, &predecessor.welcome().doors)?;
            Ok(Some(Succeeding { predecessor, public, opened }))
        }
        Err(error) => Err(error.into()),
    }
}

/// Ends what is counted of pods that are gone.
async fn sweep(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let shared = shared.clone();
        let sweeping = tokio::task::spawn_blocking(move || {
            let snapshot = shared.snapshot.load_full();
            let there: HashSet<(&str, &str)> =
                snapshot.workloads().map(|pod| (&*pod.namespace, &*pod.workload_name)).collect();
            shared.telemetry.sweep(Instant::now(), |namespace, name| there.contains(&(namespace, name)));
        });
        if let Err(error) = sweeping.await {
            tracing::error!(%error, "series of pods that are gone cannot be ended");
        }
    }
}

/// Answers at the agent's own sockets, until they are a successor's. Holds the run directory.
async fn answer(doors: oneshot::Receiver<Doors>, shared: Arc<Shared>) {
    let Ok(doors) = doors.await.map(Arc::new) else { return };
    let serving = || -> std::io::Result<_> {
        let (admin, metrics, readiness) = (doors.admin()?, doors.metrics()?, doors.readiness()?);
        handover::listen(&doors, shared.clone())?;
        let plugins = crate::cni::server::Server::start(doors.cni()?, shared.control.clone())?;
        let registry = doors.registry()?;
        let mut tasks = vec![
            tokio::task::spawn_local(crate::admin::serve_admin(admin, shared.clone())),
            tokio::task::spawn_local(crate::admin::serve_metrics(metrics, shared.clone())),
            tokio::task::spawn_local(crate::admin::serve_readiness(readiness, shared.clone())),
        ];
        tasks.extend(registry.map(|registry| {
            tokio::task::spawn_local(crate::admin::serve_registry(registry, shared.clone()))
        }));
        Ok((tasks, plugins))
    };
    let plugin = plugin(&shared.options);
    match serving() {
        Ok((tasks, plugins)) => {
            shared.succession.done().await;
            tasks.iter().for_each(tokio::task::JoinHandle::abort);
            drop((plugin, plugins));
            // Should the successor die, nothing here keeps the next one out.
            drop(doors);
        }
        Err(error) => tracing::error!(%error, "the agent cannot be reached"),
    }
    std::future::pending::<()>().await;
}
