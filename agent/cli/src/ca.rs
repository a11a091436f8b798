//! `weft ca`: what a mesh has once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use weft_api::names::AGENT;
use weft_controller::{ControllerOptions, run};

use crate::logging;
use crate::node::{host_name, life};
use crate::output::Outcome;

/// Runs the mesh's certificate authority and the webhook that checks objects, until SIGTERM or SIGINT. Any number of
/// replicas work side by side.
///
/// The CA is the Secret `cacerts` of its namespace where there is one (ca-cert.pem, ca-key.pem, root-cert.pem,
/// cert-chain.pem as Istio has it, or cert-manager's tls.crt, tls.key, ca.crt), else the Secret `weft-ca`, made by the first
/// replica. Changes of it are followed. An agent gets certificates for the service accounts of the pods that are on its
/// own node, which its token names, and for no other.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weft ca                                        in a pod of the Deployment weft-controller
  weft ca --kubeconfig ~/.kube/config --namespace weft-system
                                                 from outside a cluster

WEFT_LOG sets the log level (on standard error): info, debug, weft_controller=debug.")]
pub struct CaArgs {
    /// Where agents ask for certificates (gRPC over TLS)
    #[arg(long, value_name = "ADDR:PORT", env = "WEFT_GRPC_ADDR", default_value = "0.0.0.0:15012")]
    grpc_addr: SocketAddr,
    /// Where the API server asks about objects (HTTPS, /validate)
    #[arg(long, value_name = "ADDR:PORT", env = "WEFT_WEBHOOK_ADDR", default_value = "0.0.0.0:15017")]
    webhook_addr: SocketAddr,
    /// Where /healthz/ready and /healthz/live answer
    #[arg(long, value_name = "ADDR:PORT", env = "WEFT_READINESS_ADDR", default_value = "0.0.0.0:15021")]
    readiness_addr: SocketAddr,
    /// Where /metrics answers [default: nowhere]
    #[arg(long, value_name = "ADDR:PORT", env = "WEFT_METRICS_ADDR")]
    metrics_addr: Option<SocketAddr>,
    /// Namespace of the installation [default: this pod's own, else weft-system]
    #[arg(long, value_name = "NAME", env = "WEFT_NAMESPACE")]
    namespace: Option<String>,
    /// Trust domain of workload identities
    #[arg(long, value_name = "NAME", env = "WEFT_TRUST_DOMAIN", default_value = "cluster.local")]
    trust_domain: String,
    /// ServiceAccount of the agents, in the same namespace
    #[arg(long, value_name = "NAME", env = "WEFT_AGENT_SERVICE_ACCOUNT", default_value = AGENT)]
    agent_service_account: String,
    /// How to reach the cluster from outside [default: as this pod is told, or as kubectl finds it]
    #[arg(long, value_name = "FILE", env = "WEFT_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Longest life of a workload's certificate
    #[arg(long, value_name = "DURATION", env = "WEFT_CERTIFICATE_LIFE", default_value = "24h", value_parser = life)]
    certificate_life: Duration,
    /// Name of this replica's pod [default: the host's name]
    #[arg(long, value_name = "NAME", env = "WEFT_POD_NAME")]
    pod_name: Option<String>,
}

impl CaArgs {
    /// Runs until it is told to end.
    pub fn run(self) -> anyhow::Result<Outcome> {
        logging::start();
        run(ControllerOptions {
            grpc_addr: self.grpc_addr,
            webhook_addr: self.webhook_addr,
            readiness_addr: self.readiness_addr,
            metrics_addr: self.metrics_addr,
            namespace: self.namespace.filter(|name| !name.is_empty()),
            trust_domain: self.trust_domain,
            agent_service_account: self.agent_service_account,
            kubeconfig: self.kubeconfig,
            certificate_life: self.certificate_life,
            replica: self.pod_name.filter(|name| !name.is_empty()).unwrap_or_else(host_name),
        })?;
        Ok(Outcome::Good)
    }
}
