//! Puts the parts together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tokio::signal::unix::{Signal, SignalKind, signal};
use weft_api::names::{CA_SERVICE, NAMESPACE, WEBHOOK_SERVICE};

use crate::ca::Ca;
use crate::gateway_secrets::GatewaySecrets;
use crate::grpc::CertificateService;
use crate::health::Health;
use crate::issue::Issuer;
use crate::leader::Election;
use crate::listener::Listener;
use crate::metrics::Metrics;
use crate::pods::Pods;
use crate::serving::Serving;
use crate::tokens::Tokens;
use crate::webhook::Webhook;
use crate::{away, publish, root, statuses};

/// Where a pod's ServiceAccount says its namespace.
const OWN_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// Between SIGTERM and the end: so long, others may still connect, not having heard.
const LINGER: Duration = Duration::from_secs(5);
/// Longest wait for a connection to the API server.
const CONNECT: Duration = Duration::from_secs(10);

/// Longest wait for the watch to hear of a pod that an agent knows already.
const PATIENCE: Duration = Duration::from_secs(2);

/// What `weft ca` is told.
#[derive(Debug, Clone)]
pub struct ControllerOptions {
    /// Where agents ask for certificates.
    pub grpc_addr: SocketAddr,
    /// Where the API server asks about objects.
    pub webhook_addr: SocketAddr,
    /// Where `/healthz/ready` and `/healthz/live` answer.
    pub readiness_addr: SocketAddr,
    /// Where `/metrics` answers, if anywhere.
    pub metrics_addr: Option<SocketAddr>,
    /// The installation's; as the pod's ServiceAccount has it when absent.
    pub namespace: Option<String>,
    /// `cluster.local`.
    pub trust_domain: String,
    /// ServiceAccount of the agents, in the same namespace.
    pub agent_service_account: String,
    /// A kubeconfig file, for outside a cluster.
    pub kubeconfig: Option<PathBuf>,
    /// The longest life of a workload's certificate.
    pub certificate_life: Duration,
    /// What this replica is called: the pod's name.
    pub replica: String,
}

/// Runs until SIGTERM or SIGINT.
pub fn run(options: ControllerOptions) -> anyhow::Result<()> {
    weft_identity::crypto::install()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(start(options))
}

async fn start(options: ControllerOptions) -> anyhow::Result<()> {
    let mut end = Ending::new()?;
    let namespace = options.namespace.clone().unwrap_or_else(own_namespace);
    let client = client(&options).await?;
    let ca = Arc::new(Ca::new(options.trust_domain.clone(), options.certificate_life));
    let pods = Arc::new(Pods::new(&namespace));
    let metrics = Arc::new(Metrics::new());
    let agent = format!("system:serviceaccount:{namespace}:{}", options.agent_service_account);
    let secrets = Arc::new(GatewaySecrets::new(client.clone(), &namespace, pods.clone()));
    let certificates = CertificateService {
        secrets: secrets.clone(),
        tokens: Arc::new(Tokens::new(client.clone(), agent)),
        issuer: Arc::new(Issuer { ca: ca.clone(), pods: pods.clone(), patience: PATIENCE }),
        metrics: metrics.clone(),
    };
    let ending = Arc::new(AtomicBool::new(false));
    let election = Election::new(Api::namespaced(client.clone(), &namespace), options.replica.clone());
    let health = Health {
        ca: ca.clone(),
        pods: pods.clone(),
        ending: ending.clone(),
        metrics: metrics.clone(),
        leads: election.leads(),
    };

    let ca_serving = Serving::new(CA_SERVICE, &namespace);
    let webhook_serving = Serving::new(WEBHOOK_SERVICE, &namespace);
    let grpc = Listener::bind(options.grpc_addr, Some(ca_serving.tls(&[b"h2"])?)).await?;
    let webhook =
        Listener::bind(options.webhook_addr, Some(webhook_serving.tls(&[b"h2", b"http/1.1"])?)).await?;
    let readiness = Listener::bind(options.readiness_addr, None).await?;
    if let Some(address) = options.metrics_addr {
        tokio::spawn(Listener::bind(address, None).await?.serve(health.clone()));
    }
    tokio::spawn(readiness.serve(health));
    tokio::spawn(grpc.serve(certificates));
    tokio::spawn(webhook.serve(Webhook { metrics }));
    tracing::info!(
        namespace,
        trust_domain = options.trust_domain,
        grpc = %options.grpc_addr,
        webhook = %options.webhook_addr,
        "started"
    );
    let work = async {
        tokio::join!(
            root::follow(Api::namespaced(client.clone(), &namespace), &namespace, ca.clone()),
            pods.follow(client.clone()),
            secrets.follow(),
            ca.settle(),
            ca_serving.keep(&ca),
            webhook_serving.keep(&ca),
            publish::keep(client.clone(), &namespace, &ca),
            election.run(),
            statuses::keep(&client, election.leads(), &options.replica),
            away::keep(&client, &pods, election.leads()),
        )
    };
    tokio::select! {
        _ = work => anyhow::bail!("all work has ended"),
        () = end.told() => {}
    }
    ending.store(true, Ordering::Relaxed);
    tracing::info!("ending");
    let _ = tokio::time::timeout(LINGER, election.resign()).await;
    tokio::select! {
        () = tokio::time::sleep(LINGER) => {}
        () = end.told() => {}
    }
    Ok(())
}

fn own_namespace() -> String {
    let told = std::fs::read_to_string(OWN_NAMESPACE).unwrap_or_default();
    if told.trim().is_empty() { NAMESPACE.to_owned() } else { told.trim().to_owned() }
}

async fn client(options: &ControllerOptions) -> anyhow::Result<Client> {
    let mut config = match &options.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("cannot read the kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => Config::infer()
            .await
            .context("there is no cluster to talk to: run it in a pod, or give --kubeconfig FILE")?,
    };
    config.connect_timeout = Some(CONNECT);
    Ok(Client::try_from(config)?)
}

/// SIGTERM and SIGINT.
struct Ending {
    terminate: Signal,
    interrupt: Signal,
}

impl Ending {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
