//! The kernel edge: loads and pins the eBPF programs, enrols pods, owns the listeners inside their network
//! namespaces and opens the agent's own sockets there.
//!
//! [`Datapath`] is the agent's side of it, used by one task; [`LocalPod`] is the workers', used for every connection.
//! What is in the kernel outlives the agent: with it dead, enrolled pods fail closed; the next one takes over.

mod asked;
mod bpf;
pub mod cgroups;
mod enclose;
mod error;
mod handover;
mod listeners;
mod mounts;
mod netns;
mod node_process;
mod node_socket;
mod object;
mod pod;
mod ports;
mod probe;
mod record;
mod routing;
mod sock_diag;
mod sockets;
mod status;
mod unclaimed;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use weft_common::{Listener, LookupConfig, Pod, PodStats};

pub use asked::{Asked, Watched};
pub use enclose::{Enclosed, enclose};
pub use error::DatapathError;
pub use handover::Standing;
pub use netns::addresses_in;
pub use node_process::NodeProcesses;
pub use pod::{Life, LocalPod};
pub use probe::check;
pub use routing::leads_here;
pub use status::{DatapathStatus, PodStatus};
pub use unclaimed::cleanup;

use bpf::Insert;
use enclose::Enclosures;
use error::Context;
use mounts::Seat;
use netns::Netns;
use object::{Loader, Pins};
use pod::{Kernel, Prepared, Unused};
use ports::Ports;
use record::{Record, Records};
use sockets::Listeners;

/// What is weaker on kernels that do not tell `sk_lookup` over which device a packet came.
const UNPROVEN_OWN: &str = "this kernel does not say over which device a connection came (Linux 5.17 does): \
    who guesses address and port of a connection that the agent is opening to a slow program gets there past all policies";

/// Where the datapath keeps its state and how many proxy workers share each pod's connections.
#[derive(Debug, Clone)]
pub struct DatapathOptions {
    /// Directory of this agent's own files.
    pub run_dir: PathBuf,
    /// Directory on a bpffs for pinned programs, links and maps; mounted if missing.
    pub bpf_dir: PathBuf,
    /// Number of proxy workers; every pod gets one listener of each kind for each worker.
    pub workers: usize,
    /// Another agent serves these pods still, and is going to hand them over.
    pub beside: bool,
}

/// A pod to enrol: what the kernel side needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNetwork {
    /// `namespace/name`, unique on a node.
    pub key: Arc<str>,
    /// Path of the pod's network namespace.
    pub netns: PathBuf,
    /// The pod's addresses, the primary one first.
    pub addresses: Vec<IpAddr>,
}

impl PodNetwork {
    /// Whether these are its addresses. In another order they are the same: the runtime and the API server order them each in
    /// its own way.
    pub fn has_addresses(&self, addresses: &[IpAddr]) -> bool {
        self.addresses.len() == addresses.len() && addresses.iter().all(|ip| self.addresses.contains(ip))
    }
}

/// Why a listener exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Connections that the pod's programs open.
    Outbound,
    /// Connections that arrive for the pod's programs.
    Inbound,
}

/// A listening socket inside a pod's namespace, non-blocking, for one worker. Sockets accepted from it have
/// `TCP_NODELAY` and are blocking, as the kernel makes them.
#[derive(Debug)]
pub struct PodListener {
    /// Which way its connections go.
    pub direction: Direction,
    /// What the kernel programs know it by.
    pub place: Listener,
    /// The listening socket.
    pub socket: std::net::TcpListener,
}

/// Namespaces that have the agent's rules in them, by cookie.
type PreparedPods = Arc<Mutex<HashMap<u64, Weak<Prepared>>>>;

/// The kernel side of a node.
#[derive(Debug)]
pub struct Datapath {
    workers: usize,
    pins: Pins,
    loader: Loader,
    kernel: Arc<Kernel>,
    home_cookie: u64,
    run_dir: PathBuf,
    records: Records,
    /// What plugins have written down.
    enclosures: Enclosures,
    pods: BTreeMap<Arc<str>, Arc<LocalPod>>,
    /// What a dead agent or a plugin left and nobody has claimed, with its pod's name if it is known.
    unclaimed: BTreeMap<u64, Option<String>>,
    prepared: PreparedPods,
    unused: Sender<Unused>,
    /// What is there belongs to a successor: nothing of it may be taken back.
    left: Arc<AtomicBool>,
    /// Namespaces in which connections of the agent before may need the rules still.
    held: Vec<Arc<Prepared>>,
}

impl Datapath {
    /// Loads and attaches the programs, or takes over what a dead agent with the same directories has pinned: its
    /// pods fail closed until they are enrolled again or [`Self::release_unclaimed`] lets them go.
    pub fn start(options: &DatapathOptions) -> Result<Self, DatapathError> {
        probe::check()?;
        let cgroup = mounts::cgroup_root(Seat::Anywhere)?;
        let pins = Pins::at(mounts::bpf_dir(&options.bpf_dir)?);
        fs::create_dir_all(&options.run_dir)
            .context(|| format!("cannot create {}", options.run_dir.display()))?;
        let home = Netns::current().context(|| "cannot open the agent's network namespace".to_owned())?;
        let home_cookie = sockets::netns_cookie().context(|| "cannot read SO_NETNS_COOKIE".to_owned())?;
        let held = enclose::hold_pins(&options.run_dir)?;
        let (loader, maps) = Loader::start(&pins, &cgroup)?;
        drop(held);
        if !loader.proves_own() {
            tracing::warn!("{UNPROVEN_OWN}");
        }
        let what = || "cannot tell the kernel programs whose node this is".to_owned();
        maps.home.insert(&0, &home_cookie, Insert::Any).context(what)?;
        asked::forget_node(&maps).context(what)?;
        let records = Records::of(&options.run_dir);
        let prepared = PreparedPods::default();
        let (unused, to_take_back) = mpsc::channel();
        let left = Arc::new(AtomicBool::new(false));
        let kernel = Arc::new(Kernel { maps, home, node: NodeProcesses::new(cgroup).into() });
        let mut datapath = Self {
            workers: options.workers.max(1),
            pins,
            loader,
            kernel: Arc::clone(&kernel),
            home_cookie,
            run_dir: options.run_dir.clone(),
            records: records.clone(),
            enclosures: Enclosures::of(&options.run_dir),
            pods: BTreeMap::new(),
            unclaimed: BTreeMap::new(),
            prepared: Arc::clone(&prepared),
            unused,
            left: Arc::clone(&left),
            held: Vec::new(),
        };
        if !options.beside {
            datapath.take_over()?;
        }
        thread::Builder::new()
            .name("weft-unused".into())
            .spawn(move || take_back_unused(&to_take_back, &kernel, &prepared, &records, &left))
            .context(|| "cannot start a thread".to_owned())?;
        Ok(datapath)
    }

    /// Puts a running pod in the mesh: connections that it opens or gets from now on go to the listeners returned,
    /// one list for each worker. Connections that it has live on as they are.
    ///
    /// # Errors
    /// Nothing is changed then, except that a pod that a dead agent had enrolled goes on failing closed.
    pub fn enrol(
        &mut self,
        network: PodNetwork,
    ) -> Result<(Arc<LocalPod>, Vec<Vec<PodListener>>), DatapathError> {
        let key = &network.key;
        if self.pods.contains_key(key) {
            return Err(DatapathError::AlreadyEnrolled { key: Arc::clone(key) });
        }
        if network.addresses.is_empty() {
            return Err(DatapathError::NoAddress { key: Arc::clone(key) });
        }
        let unusable =
            |source| DatapathError::Netns { key: Arc::clone(key), path: network.netns.clone(), source };
        let netns = Netns::open(&network.netns).map_err(unusable)?;
        let cookie = netns.run(sockets::netns_cookie).flatten().map_err(unusable)?;
        if cookie == self.home_cookie {
            return Err(DatapathError::HostNetwork { key: Arc::clone(key) });
        }
        if let Some(other) = self.pods.values().find(|pod| pod.cookie == cookie) {
            return Err(DatapathError::NetnsTaken {
                key: Arc::clone(key),
                other: Arc::clone(&other.network.key),
            });
        }
        let prepared = self.prepare(&network, netns, cookie)?;
        let workers = self.workers;
        let listeners = prepared
            .netns
            .run(|| sockets::listen(workers))
            .flatten()
            .context(|| format!("cannot listen in pod {key}"))?;
        // Its listeners died with it, and all that was queued at them.
        let _held = enclose::hold_pins(&self.run_dir)?;
        let left = self.unclaimed.contains_key(&cookie) || self.enclosures.load(cookie).is_some();
        let switched = if left { self.kernel.forget(cookie) } else { Ok(()) };
        if let Err(error) = switched.and_then(|()| self.switch_on(&network, &prepared, &listeners, workers)) {
            // A pod that a dead agent had enrolled stays closed.
            if !left {
                self.switch_off(cookie)?;
            }
            return Err(error);
        }
        self.unclaimed.remove(&cookie);
        self.enclosures.remove(cookie);
        Ok(self.enrolled(network, prepared, listeners))
    }

    /// Takes note of a pod that is in the mesh now.
    fn enrolled(
        &mut self,
        network: PodNetwork,
        prepared: Arc<Prepared>,
        listeners: Listeners,
    ) -> (Arc<LocalPod>, Vec<Vec<PodListener>>) {
        let cookie = prepared.cookie;
        let kernel = Arc::clone(&self.kernel);
        let pod =
            Arc::new(LocalPod { network, cookie, prepared, kernel, between: false.into(), life: 0.into() });
        self.pods.insert(Arc::clone(&pod.network.key), Arc::clone(&pod));
        let mut by_worker: Vec<Vec<PodListener>> = (0..self.workers).map(|_| Vec::new()).collect();
        for bound in listeners.bound {
            by_worker[bound.worker % self.workers].push(PodListener {
                direction: bound.direction(),
                place: Listener { cookie, kind: bound.kind, worker: bound.worker as u32 },
                socket: bound.socket,
            });
        }
        (pod, by_worker)
    }

    /// The pod's namespace with the agent's rules in it. They may be there still, for connections of an earlier
    /// enrolment.
    fn prepare(
        &self,
        network: &PodNetwork,
        netns: Netns,
        cookie: u64,
    ) -> Result<Arc<Prepared>, DatapathError> {
        let mut all = lock(&self.prepared);
        if let Some(prepared) = all.get(&cookie).and_then(Weak::upgrade) {
            return Ok(prepared);
        }
        let what = || format!("cannot prepare the network of pod {}", network.key);
        let record = Record {
            cookie,
            key: network.key.as_ref().to_owned(),
            netns: network.netns.clone(),
            addresses: network.addresses.clone(),
            sysctls: netns.run(routing::read_sysctls).flatten().context(what)?,
            boot: record::boot_id(),
        };
        let record = self.records.save(record)?;
        if let Err(error) = netns.run(|| routing::set_up(&record.sysctls)).flatten() {
            netns.run(|| routing::tear_down(&record.sysctls)).flatten().ok();
            self.records.remove(cookie);
            return Err(error).context(what);
        }
        let prepared = Arc::new(Prepared {
            netns: Arc::new(netns),
            cookie,
            ports: Ports::default(),
            unused: self.unused.clone(),
        });
        all.insert(cookie, Arc::downgrade(&prepared));
        Ok(prepared)
    }

    /// Redirects from now on. Listeners first, then what arrives, then what the pod opens: nothing is redirected to
    /// nowhere.
    fn switch_on(
        &mut self,
        network: &PodNetwork,
        prepared: &Prepared,
        listeners: &Listeners,
        workers: usize,
    ) -> Result<(), DatapathError> {
        let (cookie, kernel) = (prepared.cookie, Arc::clone(&self.kernel));
        let maps = &kernel.maps;
        let what = || format!("cannot write the maps for pod {}", network.key);
        maps.stats.insert(&cookie, &PodStats::default(), Insert::IfAbsent).context(what)?;
        for bound in &listeners.bound {
            let key = Listener { cookie, kind: bound.kind, worker: bound.worker as u32 };
            maps.listeners.insert(&key, &bound.socket.as_raw_fd(), Insert::Any).context(what)?;
        }
        let config = LookupConfig {
            cookie,
            workers: workers as u32,
            outbound_port: listeners.outbound_port,
            inbound_port: listeners.inbound_port,
        };
        self.loader.attach_pod(&self.pins, config, prepared.netns.as_fd())?;
        maps.pods.insert(&cookie, &kernel_pod(&network.addresses), Insert::Any).context(what)
    }

    /// Takes a pod out of the mesh at once; what is not enrolled is not missed. Its open connections live on for as
    /// long as their [`LocalPod`]s do. Whoever has its listeners should go on accepting for a while: connections that
    /// were captured just before are still on their way.
    pub fn release(&mut self, key: &str) -> Result<(), DatapathError> {
        match self.pods.remove(key) {
            Some(pod) => self.switch_off(pod.cookie),
            None => Ok(()),
        }
    }

    /// Redirects nothing any more.
    fn switch_off(&self, cookie: u64) -> Result<(), DatapathError> {
        let what = || format!("cannot remove the pod with network namespace {cookie} from map PODS");
        self.kernel.maps.pods.remove(&cookie).context(what)?;
        self.pins.remove_pod(cookie)
    }

    /// What this kernel does not prove, in a sentence.
    fn unproven(&self) -> Option<String> {
        (!self.loader.proves_own()).then(|| UNPROVEN_OWN.to_owned())
    }

    /// What is enrolled, and the kernel's counters.
    pub fn status(&self) -> DatapathStatus {
        let pods = self.pods.values().map(|pod| {
            let stats = self.kernel.maps.stats.get(&pod.cookie).ok().flatten().unwrap_or_default();
            PodStatus::new(&pod.network, pod.cookie, &stats)
        });
        DatapathStatus {
            bpf_dir: self.pins.name().to_owned(),
            workers: self.workers,
            unproven: self.unproven().into_iter().collect(),
            pods: pods.collect(),
            unclaimed: self.unclaimed.values().flatten().cloned().collect(),
        }
    }

    /// Ends. `keep_pinned`: everything stays for a successor, and pods fail closed until it is there. Otherwise nothing
    /// is left, and connections that are still open are on their own.
    pub fn shutdown(mut self, keep_pinned: bool) -> Result<(), DatapathError> {
        if keep_pinned {
            self.left.store(true, Ordering::Relaxed);
            return Ok(());
        }
        let pods = std::mem::take(&mut self.pods);
        for cookie in pods.values().map(|pod| pod.cookie).chain(self.unclaimed.keys().copied()) {
            self.switch_off(cookie)?;
        }
        let all = lock(&self.prepared);
        unclaimed::take_back_all(&self.records);
        self.enclosures.remove_all();
        drop(all);
        self.pins.remove_all()
    }
}

/// Takes back the rules in namespaces whose last connection has let go, until the datapath is gone.
fn take_back_unused(
    unused: &Receiver<Unused>,
    kernel: &Kernel,
    prepared: &PreparedPods,
    records: &Records,
    left: &AtomicBool,
) {
    for Unused { netns, cookie } in unused {
        if left.load(Ordering::Relaxed) {
            continue;
        }
        let mut all = lock(prepared);
        // The pod may have been enrolled again meanwhile.
        if all.get(&cookie).is_some_and(|prepared| prepared.strong_count() > 0) {
            continue;
        }
        all.remove(&cookie);
        if let Err(error) = kernel.forget(cookie) {
            tracing::warn!(%error, "the kernel still counts a pod that has left");
        }
        let Some(record) = records.load(cookie) else { continue };
        if let Err(error) = netns.run(|| routing::tear_down(&record.sysctls)).flatten() {
            tracing::warn!(pod = record.key, %error, "cannot take back the network rules of a pod");
        }
        records.remove(cookie);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pod as the kernel programs know it: the first address of each family.
fn kernel_pod(addresses: &[IpAddr]) -> Pod {
    let addresses = || addresses.iter().map(IpAddr::to_canonical);
    let addr4_be = addresses().find(IpAddr::is_ipv4).map_or(0, |ip| pod::to_words(ip)[3]);
    let addr6_be = addresses().find(IpAddr::is_ipv6).map_or([0; 4], pod::to_words);
    Pod { addr6_be, addr4_be, reserved: 0 }
}
