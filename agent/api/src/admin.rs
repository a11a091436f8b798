//! What an agent's admin API says: the types between `weft agent` and the commands that ask it.
//!
//! HTTP over the unix socket `RUNDIR/admin.sock`, JSON in camel case. [`paths`] lists the resources; a tap is an
//! answer without an end, one [`TapEvent`] per line. Fields may be added; a reader ignores what it does not know.

mod certificates;
mod edges;
mod explain;
mod limits;
mod peer;
mod tap;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use certificates::{
    AuthorityKind, CertificateAuthority, CertificateRow, CertificateState, Certificates, RevocationsRow,
    RootRow, SecretRow, SecretState,
};
pub use edges::{EdgeEnd, EdgeRow, EdgeSecurity};
pub use explain::{Backend, Decision, ExplainRequest, Explanation, FaultPlan, Matched, RetryPlan};
pub use limits::{LimitRow, Limits};
pub use peer::{NotASelector, PeerSelector};
pub use tap::{
    HttpTap, Peer, StatusRange, TapClause, TapEvent, TapFilter, TapRecord, TapTerm, TcpState, TcpTap, Verdict,
};

use crate::finding::Finding;

/// Resources of the admin API.
pub mod paths {
    /// GET, answers [`super::Status`].
    pub const STATUS: &str = "/v1/status";
    /// POST [`super::WaitApplied`], answers [`super::Applied`].
    pub const WAIT_APPLIED: &str = "/v1/wait-applied";
    /// GET, answers a list of [`super::RouteRow`].
    pub const ROUTES: &str = "/v1/routes";
    /// GET, answers a list of [`super::EndpointRow`].
    pub const ENDPOINTS: &str = "/v1/endpoints";
    /// GET, answers a list of [`super::WorkloadRow`].
    pub const WORKLOADS: &str = "/v1/workloads";
    /// GET, answers [`super::Certificates`].
    pub const CERTIFICATES: &str = "/v1/certificates";
    /// GET, answers a list of [`super::PolicyRow`].
    pub const POLICIES: &str = "/v1/policies";
    /// GET, answers a list of [`super::GatewayRow`].
    pub const GATEWAYS: &str = "/v1/gateways";
    /// GET, answers a list of [`super::SecretRow`].
    pub const SECRETS: &str = "/v1/secrets";
    /// GET, answers a list of [`super::EdgeRow`].
    pub const EDGES: &str = "/v1/edges";
    /// POST [`super::ExplainRequest`], answers [`super::Explanation`].
    pub const EXPLAIN: &str = "/v1/explain";
    /// POST [`super::TapFilter`], answers [`super::TapEvent`] line by line until the caller leaves.
    pub const TAP: &str = "/v1/tap";
}

/// `weft status`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// Whether its TLS is made of FIPS-approved cryptography alone.
    pub fips: bool,
    /// The node that it serves.
    pub node: String,
    /// Where objects come from.
    pub mode: Mode,
    /// Counts the snapshots since start; the one in force on every worker.
    pub generation: u64,
    /// Whether pods are served with everything that was there at start.
    pub ready: bool,
    /// What readiness or the newest generation waits for: `first-sync`, `programs-attached`, `worker-1`, …
    pub waiting_for: Vec<String>,
    /// What keeps the agent from hearing of changes; it goes on by what it knows.
    pub troubles: Vec<String>,
    /// One entry per proxy thread.
    pub workers: Vec<Worker>,
    /// The pods of this node, enrolled or not.
    pub pods: Vec<PodEnrolment>,
    /// How many objects are in force, by kind.
    pub objects: BTreeMap<String, usize>,
    /// What was refused, and why; the last good versions stay in force.
    pub refused: Vec<Finding>,
    /// Fields and objects that are accepted and have no effect yet.
    pub not_in_force: Vec<Finding>,
    /// What is in force, and probably not meant: destinations that lead nowhere, hosts taken from another namespace.
    pub warnings: Vec<Finding>,
    /// The kernel's side.
    pub datapath: Datapath,
    /// Identities of this node's service accounts.
    pub certificates: Certificates,
    /// Who is at a bound of what is counted for it, in words.
    pub full: Vec<String>,
    /// What it may hold for others, and who is at a bound.
    pub limits: Limits,
}

/// Where an agent's objects come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A folder of YAML.
    #[default]
    Standalone,
    /// The Kubernetes API.
    Cluster,
}

/// A proxy thread.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Worker {
    /// From 0.
    pub index: usize,
    /// The generation that it works by.
    pub generation: u64,
    /// Connections that it carries now.
    pub connections: u64,
}

/// A pod of this node, and whether its traffic is in the mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodEnrolment {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Whether its sockets are captured.
    pub enrolled: bool,
    /// Why not; absent for an enrolled pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Path of its network namespace, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// Connections of its programs that were captured since it was enrolled.
    pub captured_outbound: u64,
    /// Connections to its programs that were captured since it was enrolled.
    pub captured_inbound: u64,
    /// Connections that the kernel's side refused: no agent was there, or the pod opened too many at once.
    pub refused_connections: u64,
}

/// The kernel's side of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Datapath {
    /// `uname -r`.
    pub kernel: String,
    /// Where the cgroup2 tree is mounted.
    pub cgroup: String,
    /// Where links and maps are pinned.
    pub bpf_dir: String,
    /// Programs that should be attached.
    pub programs: Vec<Program>,
    /// Entries by map.
    pub maps: BTreeMap<String, u64>,
    /// What newer kernels prove and this one does not, in sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unproven: Vec<String>,
}

/// A kernel program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Program {
    /// For example `connect4`.
    pub name: String,
    /// Whether it is in force.
    pub attached: bool,
    /// What stands in its way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Asks to be answered when all that the source held at the time of the call is in force on every worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WaitApplied {
    /// How long to wait at most; 0 asks without waiting.
    pub timeout_ms: u64,
}

/// Answers [`WaitApplied`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Applied {
    /// Whether it is all in force.
    pub applied: bool,
    /// The generation in force on every worker.
    pub generation: u64,
    /// What is still missing, when the time ran out.
    pub waiting_for: Vec<String>,
}

/// A line of `weft get routes`: one rule of one VirtualService.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteRow {
    /// The VirtualService's namespace.
    pub namespace: String,
    /// The VirtualService's name; empty for a service's default route.
    pub virtual_service: String,
    /// Hosts that it answers for; of many, the first ones, and a note says so.
    pub hosts: Vec<String>,
    /// Where: `mesh` for callers in the mesh, `namespace/name` of Gateways; of many, as above.
    pub gateways: Vec<String>,
    /// `http`, `tls` or `tcp`.
    pub protocol: String,
    /// Position in the list, from 0.
    pub index: usize,
    /// The route's own name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The match in words; `*` for all.
    pub r#match: String,
    /// `route`, `redirect`, `directResponse`, …
    pub action: String,
    /// Where requests go.
    pub backends: Vec<Backend>,
    /// Deadline over all tries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Why it is not as written: shadowed by an older one, a backend that does not resolve, …
    pub notes: Vec<String>,
}

/// A line of `weft get endpoints`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointRow {
    /// The service's full host name.
    pub service: String,
    /// The service's port.
    pub port: u16,
    /// The service port's name; empty for an unnamed one.
    pub port_name: String,
    /// As weft reads it: `http`, `http2`, `grpc`, `tcp`, `detect`, …
    pub protocol: String,
    /// Address and port of the endpoint.
    pub address: String,
    /// `pod/NAME` where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The node that it is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Whether it is on this node.
    pub local: bool,
    /// `healthy`, `not-ready`, `draining`, `ejected`.
    pub health: String,
    /// Subsets that it is in.
    pub subsets: Vec<String>,
}

/// A line of `weft get workloads`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadRow {
    /// Namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The name of what made it, where that is another: `reviews-v1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// `spiffe://…`.
    pub identity: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Services that select it, as full host names.
    pub services: Vec<String>,
    /// Whether it is in the mesh, on whatever node.
    pub enrolled: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its deletion was asked for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ending: bool,
}

/// A line of `weft get policies`: one PeerAuthentication, AuthorizationPolicy or RequestAuthentication.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRow {
    /// The object's kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `ALLOW`, `DENY`, `CUSTOM (PROVIDER)`, …; `STRICT` or `STRICT, 8080=DISABLE`; the issuers of tokens.
    pub action: String,
    /// Whom it is for: `mesh`, `namespace`, `app=web`, `service/web`.
    pub scope: String,
    /// How many rules it has.
    pub rules: usize,
    /// `NAMESPACE/NAME` of the pods of this node that it applies to; of many, of the first ones.
    pub workloads: Vec<String>,
    /// How many there are beside these.
    #[serde(skip_serializing_if = "explain::is_zero")]
    pub more_workloads: usize,
    /// Why it is not enforced as written: a dry run, another one that is older, …
    pub notes: Vec<String>,
}

/// A line of `weft get gateways`: a port of a gateway pod of this node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayRow {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The port as Gateways call it: its Service's.
    pub port: u16,
    /// The pod's own port, where it is served.
    pub pod_port: u16,
    /// How it is read: `HTTP`, `TCP`, or `TLS`, which goes through.
    pub protocol: String,
    /// `NAMESPACE/NAME` of the Gateways that have it.
    pub gateways: Vec<String>,
    /// Hosts that it serves, server names for TLS, `*` for bytes; of many, the first ones, and a note says so.
    pub hosts: Vec<String>,
    /// `NAMESPACE/NAME` of the VirtualServices that it serves by; of many, as above.
    pub virtual_services: Vec<String>,
    /// What is not as written.
    pub notes: Vec<String>,
}

#[cfg(test)]
mod tests;
