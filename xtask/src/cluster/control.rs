//! The control plane: etcd, the API server, the controller manager and the scheduler, on the machine itself.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weft_tests::process::{Output, end_now};

use super::layout::{self, API_PORT, CONTROL, DOMAIN, ETCD_PEER_PORT, ETCD_PORT, SERVICES, kubeconfig, pki};
use super::{kubernetes, processes};

/// In the order of their start.
pub const PROGRAMS: [&str; 4] = ["etcd", APISERVER, CONTROLLERS, SCHEDULER];
/// The API server's name as a process.
pub const APISERVER: &str = "kube-apiserver";
/// The controller manager's.
pub const CONTROLLERS: &str = "kube-controller-manager";
/// The scheduler's.
pub const SCHEDULER: &str = "kube-scheduler";

/// How long an API server may take to be ready.
const PATIENCE: Duration = Duration::from_mins(1);

/// Starts a program.
fn start(name: &str, lines: &str) -> Result<()> {
    processes::start(name, &mut program(name, lines)?)
}

/// A program whose flags are `lines`, one in each: `name value`, or a name alone.
fn program(name: &str, lines: &str) -> Result<Command> {
    let mut command = processes::session(&kubernetes::bin(name)?);
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.split_once(' ') {
            Some((flag, value)) => command.arg(format!("--{flag}={value}")),
            None => command.arg(format!("--{line}")),
        };
    }
    Ok(command)
}

/// Starts etcd. Nothing of it is to outlive a crash, so it need not wait for the disk.
pub fn start_etcd() -> Result<()> {
    start(
        "etcd",
        &format!(
            "name weft
             data-dir {data}
             unsafe-no-fsync
             listen-client-urls https://127.0.0.1:{ETCD_PORT}
             advertise-client-urls https://127.0.0.1:{ETCD_PORT}
             listen-peer-urls http://127.0.0.1:{ETCD_PEER_PORT}
             initial-advertise-peer-urls http://127.0.0.1:{ETCD_PEER_PORT}
             initial-cluster weft=http://127.0.0.1:{ETCD_PEER_PORT}
             client-cert-auth
             trusted-ca-file {ca}
             cert-file {certificate}
             key-file {key}
             log-level warn",
            data = layout::state("etcd").display(),
            ca = pki("etcd-ca.crt"),
            certificate = pki("etcd.crt"),
            key = pki("etcd.key"),
        ),
    )
}

/// Starts the API server. Tokens are for itself by default (`api-audiences` is the issuer), and for whichever audience a
/// pod asks; webhooks are called at their pods' addresses, since the machine has routes to those. `flags` come last.
pub fn start_apiserver(flags: &[String]) -> Result<()> {
    let mut command = program(
        APISERVER,
        &format!(
            "etcd-servers https://127.0.0.1:{ETCD_PORT}
             etcd-cafile {etcd_ca}
             etcd-certfile {etcd_certificate}
             etcd-keyfile {etcd_key}
             bind-address {CONTROL}
             advertise-address {CONTROL}
             secure-port {API_PORT}
             service-cluster-ip-range {SERVICES}
             authorization-mode Node,RBAC
             enable-admission-plugins NodeRestriction
             anonymous-auth false
             allow-privileged
             client-ca-file {ca}
             tls-cert-file {certificate}
             tls-private-key-file {key}
             kubelet-client-certificate {kubelet_certificate}
             kubelet-client-key {kubelet_key}
             kubelet-certificate-authority {ca}
             kubelet-preferred-address-types InternalIP
             service-account-issuer https://kubernetes.default.svc.{DOMAIN}
             service-account-signing-key-file {token_key}
             service-account-key-file {token_public}
             requestheader-client-ca-file {front_ca}
             requestheader-allowed-names front-proxy-client
             requestheader-extra-headers-prefix X-Remote-Extra-
             requestheader-group-headers X-Remote-Group
             requestheader-username-headers X-Remote-User
             proxy-client-cert-file {front_certificate}
             proxy-client-key-file {front_key}
             enable-aggregator-routing
             profiling false",
            etcd_ca = pki("etcd-ca.crt"),
            etcd_certificate = pki("etcd-client.crt"),
            etcd_key = pki("etcd-client.key"),
            ca = pki("ca.crt"),
            certificate = pki("apiserver.crt"),
            key = pki("apiserver.key"),
            kubelet_certificate = pki("kubelet-client.crt"),
            kubelet_key = pki("kubelet-client.key"),
            token_key = pki("sa.key"),
            token_public = pki("sa.pub"),
            front_ca = pki("front-ca.crt"),
            front_certificate = pki("front-client.crt"),
            front_key = pki("front-client.key"),
        ),
    )?;
    processes::start(APISERVER, command.args(flags))
}

/// The flags that all have which work on objects.
fn common(name: &str) -> String {
    let config = kubeconfig(name);
    format!(
        "kubeconfig {config}
         authentication-kubeconfig {config}
         authorization-kubeconfig {config}
         bind-address 127.0.0.1
         leader-elect false
         profiling false"
    )
}

/// Starts the scheduler. Before the API server answers it would only wait longer and longer.
pub fn start_scheduler() -> Result<()> {
    start(SCHEDULER, &common(SCHEDULER))
}

/// Starts the controller manager, likewise.
pub fn start_controllers() -> Result<()> {
    start(
        CONTROLLERS,
        &format!(
            "{common}
             use-service-account-credentials
             service-account-private-key-file {token_key}
             root-ca-file {ca}
             cluster-signing-cert-file {ca}
             cluster-signing-key-file {ca_key}
             client-ca-file {ca}
             requestheader-client-ca-file {front_ca}
             allocate-node-cidrs false
             service-cluster-ip-range {SERVICES}
             kube-api-qps 300
             kube-api-burst 600",
            common = common(CONTROLLERS),
            token_key = pki("sa.key"),
            ca = pki("ca.crt"),
            ca_key = pki("ca.key"),
            front_ca = pki("front-ca.crt"),
        ),
    )
}

/// Waits until the API server says that it is ready.
pub fn wait_ready() -> Result<()> {
    let begun = Instant::now();
    loop {
        ensure!(
            processes::running(APISERVER).is_some(),
            "the API server has ended: {}",
            layout::log(APISERVER).display()
        );
        match is_ready() {
            Ok(()) => return Ok(()),
            Err(error) if begun.elapsed() > PATIENCE => {
                return Err(error.context(format!("the API server is not ready within {PATIENCE:?}")));
            }
            // Each question costs what the server needs to start.
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Asks the API server once. `curl`, since `kubectl` takes ten times as long to say the same.
pub fn is_ready() -> Result<()> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "2"]);
    curl.args(["--cacert", &pki("ca.crt"), "--cert", &pki("admin.crt"), "--key", &pki("admin.key")]);
    curl.arg(format!("https://{CONTROL}:{API_PORT}/readyz"));
    Output::of(&mut curl)?.good().map(drop)
}

/// Starts again what works on objects and was running while the API server was away. With other replicas beside them, they
/// would have ended when they could not renew their leases; alone they ask less and less often, for a minute and more.
pub fn start_over() -> Result<()> {
    if processes::running(CONTROLLERS).is_some() {
        stop(CONTROLLERS);
        start_controllers()?;
    }
    if processes::running(SCHEDULER).is_some() {
        stop(SCHEDULER);
        start_scheduler()?;
    }
    Ok(())
}

/// Ends one of these programs as a machine's end would: no goodbye to anybody.
pub fn stop(name: &str) {
    if let Some(process) = processes::running(name) {
        end_now(process.id);
    }
}
