//! The commands that work on this node itself: `agent`, `cleanup`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use weft_discovery::cluster::{ClusterOptions, kept};
use weft_identity::{CaOptions, LONGEST_LIFE, REVOCATIONS, SHORTEST_LIFE, ServiceOptions};
use weft_node::admin::{DEFAULT_READERS, Readers};
use weft_node::agent::{AgentOptions, SourceOptions, run};
use weft_node::cni::install::CniOptions;
use weft_telemetry::{AccessLog, METRIC_SERIES};

use crate::cni;
use crate::limits::LimitArgs;
use crate::logging;
use crate::output::{self, Outcome};
use crate::supervise;

const DEFAULT_RUN_DIR: &str = "/run/weft";
/// In the run directory of an agent in a cluster: the roots by which it knows its CA.
const CA_ROOT_FILE: &str = "ca-root.pem";
const DEFAULT_BPF_DIR: &str = "/sys/fs/bpf/weft";

/// Runs until SIGTERM or SIGINT: then it drains, leaves nothing behind and ends with 0; a second one ends it at once.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weft agent                                     in a pod of a DaemonSet: serve the cluster's pods of this node
  weft agent --standalone ./manifests            serve the pods that the YAML below ./manifests names
  weft agent --standalone d --node n2 --run-dir /run/weft-n2 \\
             --metrics-addr 127.0.0.1:25020 --readiness-addr 127.0.0.1:25021
                                                 a second node on the same machine

A pod joins by its namespace's label weft.dev/mesh=enabled (or istio-injection=enabled, or
istio.io/dataplane-mode=ambient); the annotation weft.dev/netns says which network namespace is its own.
WEFT_LOG sets the log level of the agent's own messages (on standard error): info, debug, weft=debug.")]
pub struct AgentArgs {
    /// Read objects from the YAML files below DIR, and follow changes [default: read them from the Kubernetes API]
    #[arg(long, value_name = "DIR", env = "WEFT_STANDALONE")]
    standalone: Option<PathBuf>,
    /// Without --standalone, reach the API server by FILE [default: as the pod that this is]
    #[arg(long, value_name = "FILE", env = "WEFT_KUBECONFIG", conflicts_with = "standalone")]
    kubeconfig: Option<PathBuf>,
    /// Name of this node [default: the host's name]
    #[arg(long, value_name = "NAME", env = "WEFT_NODE")]
    node: Option<String>,
    /// Directory of this agent's own files
    #[arg(long, value_name = "DIR", env = "WEFT_RUN_DIR", default_value = DEFAULT_RUN_DIR)]
    run_dir: PathBuf,
    /// Directory on a bpffs for what is pinned [default: /sys/fs/bpf/weft, or a name made from another --run-dir]
    #[arg(long, value_name = "DIR", env = "WEFT_BPF_DIR")]
    bpf_dir: Option<PathBuf>,
    /// Where /metrics answers
    #[arg(long, value_name = "ADDR:PORT", env = "WEFT_METRICS_ADDR", default_value = "0.0.0.0:15020")]
    metrics_addr: SocketAddr,
    /// Where /healthz/ready answers
    #[arg(long, value_name = "ADDR:PORT", env = "WEFT_READINESS_ADDR", default_value = "0.0.0.0:15021")]
    readiness_addr: SocketAddr,
    /// Who may read these two, beside the node itself: NAMESPACE/SERVICEACCOUNT, NAMESPACE/* or a CIDR, separated by commas.
    /// Known by the caller's address: docs/metrics.md
    #[arg(long, value_name = "LIST", env = "WEFT_METRICS_ALLOW", default_value = DEFAULT_READERS)]
    metrics_allow: Readers,
    /// The most combinations of labels in Istio's metrics. One workload may make a fifth of them, two between them a
    /// hundredth; what is beyond is counted as `other`
    #[arg(long, value_name = "N", env = "WEFT_METRIC_SERIES", default_value_t = METRIC_SERIES)]
    metric_series: usize,
    /// Where the registry answers: /v1/registration lists all services and their endpoints as Istio's old discovery API did,
    /// to whoever asks, so for trying things out only [default: nowhere]
    #[arg(long, value_name = "ADDR:PORT", env = "WEFT_REGISTRY_ADDR")]
    registry_addr: Option<SocketAddr>,
    /// Sign certificates with the CA in DIR (ca-key.pem, ca-cert.pem, cert-chain.pem, root-cert.pem, as Istio's cacerts;
    /// made if it is empty). Agents of one mesh share it
    #[arg(long, value_name = "DIR", env = "WEFT_CA_DIR")]
    ca_dir: Option<PathBuf>,
    /// Get certificates from the IstioCertificateService at URL (https://HOST:PORT; http:// where the network is trusted)
    #[arg(long, value_name = "URL", env = "WEFT_CA_ADDRESS", conflicts_with = "ca_dir")]
    ca_address: Option<String>,
    /// Root certificates by which an https --ca-address is recognised
    #[arg(long, value_name = "FILE", env = "WEFT_CA_ROOT", requires = "ca_address")]
    ca_root: Option<PathBuf>,
    /// Token for --ca-address, read again for each request
    #[arg(long, value_name = "FILE", env = "WEFT_CA_TOKEN", requires = "ca_address")]
    ca_token: Option<PathBuf>,
    /// Certificates that the CA has taken back: revocation lists in PEM, read again when they change [default: ca-crl.pem
    /// in --ca-dir; in a cluster what ConfigMap weft-ca-crl holds]
    #[arg(long, value_name = "FILE", env = "WEFT_CA_CRL")]
    ca_crl: Option<PathBuf>,
    /// Life of a workload's certificate; renewed at two thirds of it
    #[arg(long, value_name = "DURATION", env = "WEFT_CERTIFICATE_LIFE", default_value = "24h", value_parser = life)]
    certificate_life: Duration,
    /// Trust domain of workload identities
    #[arg(long, value_name = "NAME", env = "WEFT_TRUST_DOMAIN", default_value = "cluster.local")]
    trust_domain: String,
    /// Namespace of mesh-wide rules and of the MeshConfig
    #[arg(long, value_name = "NAME", env = "WEFT_ROOT_NAMESPACE", default_value = "istio-system")]
    root_namespace: String,
    /// Fetch the keys of issuers (jwksUri) from these addresses too: loopback, link-local and metadata addresses, and those of
    /// the node, of pods and of services are refused otherwise; a Service is named by its host
    #[arg(long, value_name = "CIDR,…", env = "WEFT_JWKS_ALLOW", value_delimiter = ',', value_parser = block)]
    jwks_allow: Vec<IpNet>,
    /// Log each finished request and connection on standard output
    #[arg(long, value_name = "FORMAT", env = "WEFT_ACCESS_LOG", default_value = "text")]
    access_log: LogFormat,
    /// On SIGTERM, leave what is pinned for the agent that follows: pods fail closed until it is there
    #[arg(long, env = "WEFT_KEEP_PINNED")]
    keep_pinned: bool,
    /// Proxy threads [default: one per core]
    #[arg(long, value_name = "N", env = "WEFT_WORKERS", value_parser = clap::value_parser!(u16).range(1..=512))]
    workers: Option<u16>,
    /// On SIGTERM, wait so long for open connections to end [default: 5s; 5m when another agent has taken over]
    #[arg(long, value_name = "DURATION", env = "WEFT_DRAIN_TIMEOUT", value_parser = duration)]
    drain_timeout: Option<Duration>,
    /// Take over from the agent that uses the run directory, without cutting a connection; it goes on with those that it
    /// has until they end, for --drain-timeout at most
    #[arg(long, env = "WEFT_TAKE_OVER")]
    take_over: bool,
    /// Start the agent as a process of its own, and start it again at once when a signal has ended it
    #[arg(long, env = "WEFT_SUPERVISE")]
    supervise: bool,
    /// Stand by, with --supervise: start an agent only where the one that uses the run directory is gone, and hand over to
    /// the next that comes
    #[arg(long, env = "WEFT_STANDBY")]
    standby: bool,
    /// Be the last of this node's CNI plugins, so that pods are in the mesh before their first program runs
    #[arg(long, env = "WEFT_CNI")]
    cni: bool,
    /// The node's CNI configurations: the one in force gets the plugin, and keeps it until the agent leaves for good
    #[arg(long, value_name = "DIR", env = "WEFT_CNI_CONF_DIR", default_value = cni::CONF_DIR)]
    cni_conf_dir: PathBuf,
    /// The node's CNI plugins
    #[arg(long, value_name = "DIR", env = "WEFT_CNI_BIN_DIR", default_value = cni::BIN_DIR)]
    cni_bin_dir: PathBuf,
    /// Let no pod start that the agent cannot take into the mesh first [default: it starts closed]
    #[arg(long, env = "WEFT_CNI_STRICT")]
    cni_strict: bool,
    /// Take the taint weft.dev/agent-not-ready from this node when the agent is ready
    #[arg(long, env = "WEFT_NODE_TAINT")]
    node_taint: bool,
    #[command(flatten)]
    limits: LimitArgs,
    /// Name of the pod that the agent is in: then it takes over by itself
    #[arg(long, value_name = "NAME", env = "WEFT_POD_NAME", hide = true)]
    pod_name: Option<String>,
}

/// `--access-log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// Istio's default text format
    Text,
    /// One JSON object per line, with Istio's field names
    Json,
    /// No access log
    Off,
}

impl AgentArgs {
    /// Runs the agent until it is told to end.
    pub fn run(self) -> anyhow::Result<Outcome> {
        logging::start();
        if self.supervise {
            return supervise::run(self.standby.then_some(&self.run_dir));
        }
        supervise::end_with_supervisor()?;
        run(self.options())?;
        Ok(Outcome::Good)
    }

    fn options(&self) -> AgentOptions {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        AgentOptions {
            source: self.source(),
            node: self.node_name(),
            run_dir: self.run_dir.clone(),
            bpf_dir: bpf_dir(self.bpf_dir.as_deref(), &self.run_dir),
            metrics_addr: self.metrics_addr,
            readiness_addr: self.readiness_addr,
            metrics_allow: self.metrics_allow.clone(),
            metric_series: self.metric_series,
            registry_addr: self.registry_addr,
            trust_domain: self.trust_domain.clone(),
            ca: self.ca(),
            revocations: self.revocations(),
            certificate_life: self.certificate_life,
            root_namespace: self.root_namespace.clone(),
            jwks_allow: self.jwks_allow.clone(),
            access_log: match self.access_log {
                LogFormat::Text => AccessLog::Text,
                LogFormat::Json => AccessLog::Json,
                LogFormat::Off => AccessLog::Off,
            },
            keep_pinned: self.keep_pinned,
            workers: self.workers.map_or(cores, usize::from),
            drain_timeout: self.drain_timeout,
            take_over: !self.standby && (self.take_over || self.pod_name.is_some()),
            stands_by: self.standby,
            pod: self.pod_name.clone(),
            cni: self.cni.then(|| CniOptions {
                conf_dir: self.cni_conf_dir.clone(),
                bin_dir: self.cni_bin_dir.clone(),
                strict: self.cni_strict,
            }),
            node_taint: self.node_taint,
            limits: self.limits.options(),
        }
    }

    fn node_name(&self) -> String {
        self.node.clone().filter(|name| !name.is_empty()).unwrap_or_else(host_name)
    }

    fn source(&self) -> SourceOptions {
        match &self.standalone {
            Some(dir) => SourceOptions::Folder(dir.clone()),
            None => SourceOptions::Cluster(ClusterOptions {
                node: self.node_name(),
                kubeconfig: self.kubeconfig.clone(),
                root_namespace: self.root_namespace.clone(),
                ca_root: self.run_dir.join(CA_ROOT_FILE),
                ca_revocations: self.run_dir.join(REVOCATIONS),
                kept: self.run_dir.join(kept::FILE),
            }),
        }
    }

    fn revocations(&self) -> Option<PathBuf> {
        let dir = self.ca_dir.as_ref().or_else(|| self.standalone.is_none().then_some(&self.run_dir));
        self.ca_crl.clone().or_else(|| Some(dir?.join(REVOCATIONS)))
    }

    fn ca(&self) -> Option<CaOptions> {
        let service = |address: &String| {
            CaOptions::Service(ServiceOptions {
                address: address.clone(),
                root: self.ca_root.clone(),
                root_comes: self.standalone.is_none(),
                token: self.ca_token.clone(),
            })
        };
        self.ca_dir.clone().map(CaOptions::Folder).or_else(|| self.ca_address.as_ref().map(service))
    }
}

/// What this machine is called.
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// Where things are pinned: as told, or a name that agents with other run directories do not share.
fn bpf_dir(told: Option<&Path>, run_dir: &Path) -> PathBuf {
    match told {
        Some(dir) => dir.to_owned(),
        None if run_dir == Path::new(DEFAULT_RUN_DIR) => DEFAULT_BPF_DIR.into(),
        None => {
            let run_dir = std::path::absolute(run_dir).unwrap_or_else(|_| run_dir.to_owned());
            // A bpffs refuses dots in names.
            let name: String = run_dir
                .to_string_lossy()
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' })
                .collect();
            format!("{DEFAULT_BPF_DIR}{name}").into()
        }
    }
}

/// Reads `5s`, `1m30s`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0);
        let Some(digits) = digits else {
            return Err(format!("{text:?} is no duration (write 5s, 1m30s or 500ms)"));
        };
        let (number, tail) = rest.split_at(digits);
        let unit_ends = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_ends);
        let number: u64 = number.parse().map_err(|_| format!("{text:?} is too long"))?;
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(format!("{text:?} has no unit that is known (ms, s, m, h)")),
        };
        let part = number.checked_mul(millis).ok_or_else(|| format!("{text:?} is too long"))?;
        total = total.saturating_add(Duration::from_millis(part));
        rest = tail;
    }
    if text.is_empty() { Err("empty; write 5s".to_owned()) } else { Ok(total) }
}

/// Reads `--certificate-life`.
pub fn life(text: &str) -> Result<Duration, String> {
    let life = duration(text)?;
    if (SHORTEST_LIFE..=LONGEST_LIFE).contains(&life) {
        Ok(life)
    } else {
        Err(format!("{text} is not between {SHORTEST_LIFE:?} and 24h"))
    }
}

/// A block of addresses, or one address.
fn block(text: &str) -> Result<IpNet, String> {
    let one = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse()
        .ok()
        .or_else(one)
        .ok_or_else(|| format!("{text:?} is no block of addresses (write 10.0.0.0/8)"))
}

/// Removes what a dead agent left: pinned programs, rules in pods, its CNI plugin. Pods are out of the mesh then. Refused while the
/// agent runs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weft cleanup                          after an agent that was killed and is not started again
  weft cleanup --run-dir /run/weft-n2")]
#[expect(clippy::struct_field_names, reason = "they are called as the flags are")]
pub struct CleanupArgs {
    /// Run directory of the dead agent
    #[arg(long, value_name = "DIR", env = "WEFT_RUN_DIR", default_value = DEFAULT_RUN_DIR)]
    run_dir: PathBuf,
    /// Its directory on the bpffs [default: as `weft agent` chooses it]
    #[arg(long, value_name = "DIR", env = "WEFT_BPF_DIR")]
    bpf_dir: Option<PathBuf>,
    /// Also take weft's plugin out of the CNI chain of the configurations in DIR
    #[arg(long, value_name = "DIR", env = "WEFT_CNI_CONF_DIR", requires = "cni_bin_dir")]
    cni_conf_dir: Option<PathBuf>,
    /// And its binary out of the CNI plugins in DIR
    #[arg(long, value_name = "DIR", env = "WEFT_CNI_BIN_DIR", requires = "cni_conf_dir")]
    cni_bin_dir: Option<PathBuf>,
}

impl CleanupArgs {
    /// Removes what is left.
    pub fn run(&self) -> anyhow::Result<Outcome> {
        let bpf_dir = bpf_dir(self.bpf_dir.as_deref(), &self.run_dir);
        let pods = weft_node::agent::cleanup(&self.run_dir, &bpf_dir)?;
        if let (Some(conf_dir), Some(bin_dir)) = (&self.cni_conf_dir, &self.cni_bin_dir) {
            weft_node::cni::install::remove(conf_dir, bin_dir)?;
        }
        for name in [CA_ROOT_FILE, REVOCATIONS] {
            match std::fs::remove_file(self.run_dir.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        remove_empty(&self.run_dir);
        output::print(&match &*pods {
            [] => format!("Nothing of pods was left in {}.\n", self.run_dir.display()),
            pods => format!("Out of the mesh: {}.\n", pods.join(", ")),
        })?;
        Ok(Outcome::Good)
    }
}

/// Removes a directory that has nothing in it any more. In a container it is a mount, and is removed as the node's first
/// process sees it.
fn remove_empty(dir: &Path) {
    const HOST: &str = "/proc/1/root";
    if std::fs::remove_dir(dir).is_err() {
        // Somebody's files are in it, or it is gone: nothing to be done.
        let _ = std::fs::remove_dir(Path::new(HOST).join(dir.strip_prefix("/").unwrap_or(dir)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_with_other_run_directories_pin_elsewhere() {
        let of = |run_dir: &str| bpf_dir(None, Path::new(run_dir)).display().to_string();
        assert_eq!(of("/run/weft"), "/sys/fs/bpf/weft");
        assert_eq!(of("/run/weft-n2"), "/sys/fs/bpf/weft_run_weft-n2");
        assert_eq!(of("/tmp/a.b/run"), "/sys/fs/bpf/weft_tmp_a_b_run");
        assert_eq!(bpf_dir(Some(Path::new("/x")), Path::new("/run/weft")), Path::new("/x"));
    }

    #[test]
    fn blocks_of_addresses() {
        assert_eq!(block("10.0.0.0/8").map(|net| net.to_string()), Ok("10.0.0.0/8".to_owned()));
        assert_eq!(block("fd00::1").map(|net| net.to_string()), Ok("fd00::1/128".to_owned()));
        for wrong in ["", "10.0.0.0/33", "issuer.example.com", "10.0.0"] {
            assert!(block(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["", "5", "s", "5 s", "-1s", "5y", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
