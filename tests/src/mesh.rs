//! A world with a folder of manifests and agents on it: what most stories need.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::builders::{PodBuilder, ServiceBuilder};
use crate::http::{Answer, Request};
use crate::manifest::{self, PodSpec, ServiceSpec};
use crate::metrics::Metrics;
use crate::network::ip_batch;
use crate::pod::Pod;
use crate::process::{Daemon, Output, write_whole};
use crate::traffic::{Load, LoadReport};
use crate::wait::{eventually, lock};
use crate::world::{World, built_binary};

/// For a line of an access log to be written.
const LOGGED: Duration = Duration::from_secs(5);
/// How much of an agent's log is shown with a failure.
const SHOWN_LINES: usize = 60;

#[derive(Debug)]
struct Service {
    spec: ServiceSpec,
    ip: Ipv4Addr,
    ip6: Ipv6Addr,
}

/// A world that weft serves. Dropping it removes everything, agents first.
#[derive(Debug)]
pub struct Mesh {
    pub(crate) agents: Mutex<Vec<Agent>>,
    next_agent: AtomicU16,
    kube_proxy: Mutex<Option<Daemon>>,
    pods: Mutex<BTreeMap<String, Arc<Pod>>>,
    services: Mutex<Vec<Service>>,
    manifests: PathBuf,
    /// For pods that name none.
    pub(crate) node: Option<String>,
    world: World,
}

impl Mesh {
    /// An empty world with the namespace `default`, which is in the mesh.
    pub fn new() -> Result<Self> {
        Self::on(World::new()?)
    }

    /// The same on a world that is there.
    pub fn on(world: World) -> Result<Self> {
        let manifests = world.dir().join("manifests");
        fs::create_dir_all(manifests.join("pods"))?;
        let mesh = Self {
            agents: Mutex::default(),
            next_agent: AtomicU16::default(),
            kube_proxy: Mutex::default(),
            pods: Mutex::default(),
            services: Mutex::default(),
            manifests,
            node: None,
            world,
        };
        mesh.namespace("default", true)?;
        Ok(mesh)
    }

    /// The network below.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The folder that agents read.
    pub fn manifests(&self) -> &Path {
        &self.manifests
    }

    /// Makes a namespace, or changes its label.
    pub fn namespace(&self, name: &str, in_mesh: bool) -> Result<()> {
        self.namespace_labels(name, if in_mesh { &[("weft.dev/mesh", "enabled")] } else { &[] })
    }

    /// Makes a namespace, or changes its labels.
    pub fn namespace_labels(&self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        let labels: Vec<_> = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        self.apply(&format!("namespace-{name}"), &manifest::namespace(name, &labels))
    }

    /// A pod to be, in `default`.
    pub fn pod(&self, name: &str) -> PodBuilder<'_> {
        let spec = PodSpec {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            labels: Vec::new(),
            annotations: Vec::new(),
            node: self.node.clone(),
            service_account: "default".to_owned(),
            probes: Vec::new(),
            container: Vec::new(),
        };
        PodBuilder { mesh: self, spec, app: Vec::new() }
    }

    /// A pod that is there.
    pub fn the(&self, pod: &str) -> Result<Arc<Pod>> {
        lock(&self.pods).get(pod).cloned().with_context(|| format!("no pod `{pod}` in this world"))
    }

    /// Gives a pod its network and its names; nothing runs in it yet, and no agent knows of it.
    pub(crate) fn add_pod(&self, spec: PodSpec) -> Result<Arc<Pod>> {
        let pod = Arc::new(Pod::create(&self.world, spec)?);
        lock(&self.pods).insert(pod.spec.name.clone(), pod.clone());
        self.update_names()?;
        Ok(pod)
    }

    /// Takes a pod away: its programs and its manifest. Its network goes with the world.
    pub fn delete_pod(&self, name: &str) -> Result<()> {
        self.the(name)?.stop();
        fs::remove_file(self.pod_file(name))?;
        lock(&self.pods).remove(name);
        self.update_kube_proxy()
    }

    /// Where a pod's manifest is.
    pub fn pod_file(&self, name: &str) -> PathBuf {
        self.manifests.join("pods").join(format!("{name}.yaml"))
    }

    /// A service to be, in `default`.
    pub fn service(&self, name: &str) -> ServiceBuilder<'_> {
        let spec = ServiceSpec {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            ports: Vec::new(),
            selector: Vec::new(),
        };
        ServiceBuilder { mesh: self, spec }
    }

    /// The Service address of `NAME`, or `NAME.NAMESPACE`, with a port.
    pub fn service_at(&self, name: &str, port: u16) -> Result<SocketAddr> {
        self.find_service(name).map(|(ip, _)| (ip, port).into())
    }

    /// The IPv6 one.
    pub fn service_at6(&self, name: &str, port: u16) -> Result<SocketAddr> {
        self.find_service(name).map(|(_, ip)| (ip, port).into())
    }

    pub(crate) fn add_service(&self, spec: ServiceSpec) -> Result<()> {
        let (ip, ip6) = self.world.service_addresses()?;
        self.apply(&format!("service-{}-{}", spec.namespace, spec.name), &spec.yaml(ip, ip6))?;
        lock(&self.services).push(Service { spec, ip, ip6 });
        self.update_names()?;
        self.update_kube_proxy()
    }

    fn find_service(&self, name: &str) -> Result<(Ipv4Addr, Ipv6Addr)> {
        let services = lock(&self.services);
        let found = services.iter().find(|service| {
            service.spec.name == name || format!("{}.{}", service.spec.name, service.spec.namespace) == name
        });
        found.map(|service| (service.ip, service.ip6)).with_context(|| format!("no service `{name}`"))
    }

    /// Writes a manifest of any kind, whole, as `NAME.yaml`.
    pub fn apply(&self, name: &str, yaml: &str) -> Result<()> {
        write_whole(&self.manifests.join(format!("{name}.yaml")), yaml)
    }

    /// [`Mesh::apply`], and waits until it is in force.
    pub fn apply_now(&self, name: &str, yaml: &str) -> Result<()> {
        self.apply(name, yaml)?;
        self.wait_applied()
    }

    /// Removes a manifest.
    pub fn delete(&self, name: &str) -> Result<()> {
        fs::remove_file(self.manifests.join(format!("{name}.yaml"))).with_context(|| name.to_owned())
    }

    /// Starts the agent of node `node-a`.
    pub fn start_agent(&self) -> Result<()> {
        self.start_agent_with("node-a", &[])
    }

    /// A number for the next agent.
    pub(crate) fn next_agent(&self) -> u16 {
        self.next_agent.fetch_add(1, Ordering::Relaxed)
    }

    /// Works with the first agent, whatever it does to it.
    pub fn with_agent<T>(&self, work: impl FnOnce(&mut Agent) -> Result<T>) -> Result<T> {
        work(lock(&self.agents).first_mut().context("no agent was started")?)
    }

    /// Works with a node's agent.
    pub fn with_agent_of<T>(&self, node: &str, work: impl FnOnce(&mut Agent) -> Result<T>) -> Result<T> {
        let mut agents = lock(&self.agents);
        work(agents.iter_mut().find(|agent| agent.node() == node).context("no such agent was started")?)
    }

    /// Waits until all agents have everything in force.
    pub fn wait_applied(&self) -> Result<()> {
        lock(&self.agents).iter().try_for_each(Agent::wait_applied)
    }

    /// `weft WORDS…` with the first agent's run directory.
    pub fn weft(&self, words: &[&str]) -> Result<Output> {
        let mut command = self.with_agent(|agent| agent.weft_command(words))?;
        Output::of(&mut command)
    }

    /// `weft WORDS…` that asks no agent.
    pub fn weft_alone(&self, words: &[&str]) -> Result<Output> {
        Output::of(Command::new(built_binary("weft")?).args(words))
    }

    /// `weft explain FROM TO …` as JSON.
    pub fn explain(&self, from: &str, to: &str, flags: &[&str]) -> Result<Value> {
        let mut words = vec!["explain", from, to];
        words.extend(flags);
        words.extend(["-o", "json"]);
        self.weft(&words)?.json()
    }

    /// Metrics of the first agent.
    pub fn metrics(&self) -> Result<Metrics> {
        self.with_agent(|agent| agent.metrics())
    }

    /// Access log of the first agent.
    pub fn access_log(&self) -> Result<Vec<String>> {
        self.with_agent(|agent| Ok(agent.access_log()))
    }

    /// Waits until a line of the first agent's access log has `part`: lines are written a moment after their answers.
    pub fn is_logged(&self, part: &str) -> Result<()> {
        eventually("its line in the access log", LOGGED, || {
            let log = self.access_log()?;
            ensure!(log.iter().any(|line| line.contains(part)), "no line has {part:?}");
            Ok(())
        })
    }

    /// Runs a program in a pod.
    pub fn exec(&self, pod: &str, words: &[&str]) -> Result<Output> {
        self.the(pod)?.exec(words)
    }

    /// A request from a pod, to be refined and sent.
    pub fn http(&self, from: &str, url: &str) -> Result<Request> {
        Ok(Request::new(self.the(from)?.caller(), url))
    }

    /// A GET from a pod.
    pub fn get(&self, from: &str, url: &str) -> Result<Answer> {
        self.http(from, url)?.send()
    }

    /// Starts a load generator: `weft-app load ARGS…`.
    pub fn load(&self, from: &str, args: &[&str]) -> Result<Load> {
        Load::start(self.the(from)?.command(built_binary("weft-app")?).arg("load").args(args))
    }

    /// Sends `count` requests over `connections` and counts.
    pub fn many(&self, from: &str, url: &str, count: u32, connections: u32) -> Result<LoadReport> {
        self.load(from, &[url, "-n", &count.to_string(), "-c", &connections.to_string()])?.wait()
    }

    /// Makes Service addresses reachable outside of the mesh, as kube-proxy would.
    pub fn start_kube_proxy(&self) -> Result<()> {
        let table = self.world.dir().join("kube-proxy.json");
        fs::write(&table, "")?;
        let mut command = Command::new(built_binary("weft-app")?);
        command.arg("kube-proxy").arg("--table").arg(&table);
        let daemon = Daemon::start(&mut command, &table.with_extension("log"), &self.world.records())?;
        *lock(&self.kube_proxy) = Some(daemon);
        self.update_kube_proxy()
    }

    pub(crate) fn update_kube_proxy(&self) -> Result<()> {
        if lock(&self.kube_proxy).is_none() {
            return Ok(());
        }
        let pods: Vec<_> = lock(&self.pods).values().cloned().collect();
        let mut table = Vec::new();
        let mut addresses = String::new();
        for service in lock(&self.services).iter() {
            let behind: Vec<_> = pods.iter().filter(|pod| service.spec.selects(&pod.spec)).collect();
            let bridge = self.world.bridge();
            let _ = writeln!(addresses, "address replace {}/32 dev {bridge}", service.ip);
            let _ = writeln!(addresses, "address replace {}/128 dev {bridge} nodad", service.ip6);
            for (_, port, target, _) in &service.spec.ports {
                let v4: Vec<_> = behind.iter().map(|pod| pod.at(*target)).collect();
                let v6: Vec<_> = behind.iter().map(|pod| pod.at6(*target)).collect();
                table.push(json!({"listen": SocketAddr::from((service.ip, *port)), "endpoints": v4}));
                table.push(json!({"listen": SocketAddr::from((service.ip6, *port)), "endpoints": v6}));
            }
        }
        ip_batch(None, &addresses)?;
        write_whole(&self.world.dir().join("kube-proxy.json"), &Value::from(table).to_string())
    }

    /// Tells every pod the names of all services, as cluster DNS would.
    fn update_names(&self) -> Result<()> {
        for pod in lock(&self.pods).values() {
            let mut hosts = String::from("127.0.0.1 localhost\n::1 localhost\n");
            for Service { spec, ip, .. } in lock(&self.services).iter() {
                let (name, namespace) = (&spec.name, &spec.namespace);
                let near = if pod.spec.namespace == *namespace { name.as_str() } else { "" };
                let _ = writeln!(
                    hosts,
                    "{ip} {name}.{namespace}.svc.cluster.local {name}.{namespace}.svc {name}.{namespace} {near}"
                );
            }
            // In place: programs that run have this very file mounted.
            fs::write(Path::new("/etc/netns").join(&pod.netns).join("hosts"), hosts)?;
        }
        Ok(())
    }

    /// What a person wants to see beside a failure.
    pub fn explain_failure(&self) -> String {
        let mut text = String::new();
        let Ok(agents) = self.agents.try_lock() else { return text };
        for agent in agents.iter() {
            let errors = agent.errors();
            let lines: Vec<&str> = errors.lines().collect();
            let _ = writeln!(text, "--- agent of {}, its last words:", agent.node());
            for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
                let _ = writeln!(text, "{line}");
            }
            let log = agent.access_log();
            let _ = writeln!(text, "--- its access log's end:");
            for line in &log[log.len().saturating_sub(8)..] {
                let _ = writeln!(text, "{line}");
            }
            if let Ok(status) = agent.weft(&["status"]) {
                let _ = writeln!(text, "--- weft status:\n{}{}", status.stdout, status.stderr);
            }
        }
        text
    }
}

/// Plays a story in a world of its own, and fails with what the agent said.
///
/// # Panics
/// When the story does not end well.
pub fn story(play: impl FnOnce(&Mesh) -> Result<()>) {
    let start = Instant::now();
    let mesh = Mesh::new().expect("a world");
    if let Err(error) = play(&mesh) {
        let error = anyhow::anyhow!("{error:#} (network: {})", mesh.world().network());
        note_failure(&error);
        panic!("{error:#}");
    }
    drop(mesh);
    note_time(start.elapsed());
}

/// Writes down how long a story took, where the runner wants to know.
pub(crate) fn note_time(took: Duration) {
    note(|story| format!("{:.3} {story}", took.as_secs_f32()));
}

/// Writes down why a story failed, where the runner wants to know: its summary says it where nobody has to look for it.
pub(crate) fn note_failure(error: &anyhow::Error) {
    let why = format!("{error:#}").replace('\n', " ");
    note(|story| format!("failed {story}: {why}"));
}

fn note(line: impl FnOnce(&str) -> String) {
    let Some(path) = std::env::var_os("WEFT_TEST_NOTES") else { return };
    if let Ok(mut file) = fs::OpenOptions::new().create(true).append(true).open(path) {
        // Tests run on threads of their names.
        let thread = std::thread::current();
        writeln!(file, "{}", line(thread.name().unwrap_or("?"))).ok();
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.explain_failure());
        }
    }
}
