//! A pod seen as a network party.

use std::net::IpAddr;
use std::sync::Arc;

use weft_api::identity::Identity;
use weft_api::istio::is_gateway_pod;
use weft_api::meta::Labels;

use crate::probe::Probes;

/// A pod, reduced to what rules, identity and telemetry need. Shared; a changed pod is a new value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// `namespace/name`.
    pub key: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Pod name.
    pub name: Arc<str>,
    /// Service account; `default` when the pod names none.
    pub service_account: Arc<str>,
    /// The pod's labels.
    pub labels: Arc<Labels>,
    /// Addresses, the primary one first.
    pub addresses: Vec<IpAddr>,
    /// Node it runs on; empty when not said (in standalone mode that means this one, and then it is named).
    pub node: Arc<str>,
    /// Istio's `*_workload`: the Deployment's name where one owns it, else the owner's, else the pod's.
    pub workload_name: Arc<str>,
    /// Istio's `*_canonical_service`: label `service.istio.io/canonical-name`, `app.kubernetes.io/name`, `app`, else the workload name.
    pub canonical_service: Arc<str>,
    /// Istio's `*_canonical_revision`: `service.istio.io/canonical-revision`, `app.kubernetes.io/version`, `version`, else `latest`.
    pub canonical_revision: Arc<str>,
    /// Tells it from others that had its name, or will; known for pods of this node only.
    pub uid: Arc<str>,
    /// Network namespace from the annotation `weft.dev/netns`: a name below `/var/run/netns`, or an absolute path.
    /// Not read in a cluster.
    pub netns: Option<Arc<str>>,
    /// What its node's kubelet asks of it; known for pods of this node only.
    pub probes: Probes,
    /// In a cluster, what its condition `weft.dev/Enrolled` says; `None`: nothing.
    pub announced: Option<Announced>,
    /// What DNS knows it by, where that is a name of its own.
    pub dns_name: Option<Box<DnsName>>,
    /// Its deletion was asked for.
    pub terminating: bool,
    /// Whether its sockets should be redirected, if it is of this node; whether they are, if it is of another.
    pub enrolment: Enrolment,
}

/// A pod's own name in DNS: `HOSTNAME.SUBDOMAIN`, the latter a headless service of its namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsName {
    /// Of a StatefulSet's pod: the pod's name.
    pub hostname: Box<str>,
    /// The service.
    pub subdomain: Box<str>,
}

impl Workload {
    /// Somebody of whom no more is known: without a key, and called by the names that telemetry has for that.
    pub fn unknown(namespace: Arc<str>, service_account: Arc<str>) -> Self {
        let (none, unknown): (Arc<str>, Arc<str>) = ("".into(), "unknown".into());
        Self {
            key: none.clone(),
            namespace,
            name: none.clone(),
            service_account,
            labels: Arc::default(),
            addresses: Vec::new(),
            node: none.clone(),
            workload_name: unknown.clone(),
            canonical_service: unknown,
            canonical_revision: "latest".into(),
            uid: none,
            netns: None,
            probes: Probes::default(),
            announced: None,
            dns_name: None,
            terminating: false,
            enrolment: Enrolment::NotSelected,
        }
    }

    /// Who it is to its peers.
    pub fn identity(&self, trust_domain: &Arc<str>) -> Identity {
        Identity {
            trust_domain: trust_domain.clone(),
            namespace: self.namespace.clone(),
            service_account: self.service_account.clone(),
        }
    }

    /// Whether it says that it is a gateway: then Gateways may select it, and others call it as what is outside the mesh,
    /// as Istio's gateways are called.
    pub fn is_gateway(&self) -> bool {
        is_gateway_pod(&self.labels)
    }
}

/// What the condition `weft.dev/Enrolled` of a pod says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    /// Its node's agent: it is in the mesh.
    Enrolled,
    /// Its node's agent: it is not.
    Left,
    /// The controller: it was in the mesh, and the agent that said so is away. Its traffic is refused until that is back;
    /// nobody is to try it in plain text.
    Unsure,
}

impl Announced {
    /// Whether others call the pod by mutual TLS.
    pub fn is_called(self) -> bool {
        self != Self::Left
    }
}

/// Whether a pod is in the mesh, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enrolment {
    /// Opted in, and able to.
    Enrolled,
    /// Neither its namespace nor it opts in.
    NotSelected,
    /// Label `weft.dev/mesh: disabled` (or Istio's `sidecar.istio.io/inject: "false"` and `istio.io/dataplane-mode: none`).
    OptedOut,
    /// Annotation `sidecar.istio.io/inject: "false"`.
    AnnotatedOut,
    /// Shares the node's network.
    HostNetwork,
    /// Brings its own `istio-proxy`.
    HasSidecar,
    /// Finished.
    NotRunning,
    /// Opted in, and has no address yet.
    Starting,
    /// Opted in, and of another node, whose agent has not said yet that it is in the mesh.
    NotYet,
}

impl Enrolment {
    /// Why a pod is not in the mesh; `None` for one that is.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Enrolled => None,
            Self::NotSelected => Some("not selected"),
            Self::OptedOut => Some("opted out"),
            Self::AnnotatedOut => Some("opted out by an annotation"),
            Self::HostNetwork => Some("uses the host's network"),
            Self::HasSidecar => Some("has its own sidecar"),
            Self::NotRunning => Some("not running"),
            Self::Starting => Some("starting"),
            Self::NotYet => Some("not enrolled yet"),
        }
    }
}
