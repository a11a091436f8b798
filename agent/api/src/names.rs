//! Names of weft's own objects in a cluster, each written down once.

use crate::meta::Labels;

/// Namespace of an installation.
pub const NAMESPACE: &str = "weft-system";

/// DaemonSet and ServiceAccount of the node agents.
pub const AGENT: &str = "weft-agent";
/// Deployment, ServiceAccount and Lease of what a mesh has once.
pub const CONTROLLER: &str = "weft-controller";

/// Service of the CA, port [`CA_PORT`].
pub const CA_SERVICE: &str = "weft-ca";
/// Port of the CA's gRPC service, in its pod and of its Service.
pub const CA_PORT: u16 = 15012;
/// Audience of the tokens by which agents show themselves to the CA.
pub const CA_AUDIENCE: &str = "weft-ca";
/// Secret with the CA that a user brings, laid out as Istio's.
pub const USER_CA_SECRET: &str = "cacerts";
/// Secret with the CA that weft makes when there is no [`USER_CA_SECRET`]; laid out alike.
pub const OWN_CA_SECRET: &str = "weft-ca";
/// ConfigMap with the roots of the mesh, under [`CA_ROOT_KEY`].
pub const CA_ROOT_CONFIG_MAP: &str = "weft-ca-root";
/// Where [`CA_ROOT_CONFIG_MAP`] has the roots, in PEM.
pub const CA_ROOT_KEY: &str = "root-cert.pem";
/// ConfigMap with the certificates that the CA has taken back, under [`CA_REVOCATIONS_KEY`]: made by whoever runs the CA.
pub const CA_REVOCATIONS_CONFIG_MAP: &str = "weft-ca-crl";
/// Where [`CA_REVOCATIONS_CONFIG_MAP`] has revocation lists, in PEM; the name that Istio has for it.
pub const CA_REVOCATIONS_KEY: &str = "ca-crl.pem";

/// Service of the validating webhook, port 443.
pub const WEBHOOK_SERVICE: &str = "weft-webhook";
/// ValidatingWebhookConfiguration.
pub const WEBHOOK_CONFIGURATION: &str = "weft-validation";

/// Port of each enrolled pod to which tunnels from other nodes come.
pub const TUNNEL_PORT: u16 = 15008;

/// A taint with which nodes may be registered, until their agents are ready.
pub const AGENT_TAINT: &str = "weft.dev/agent-not-ready";

/// Port of each gateway pod that says whether its node's agent serves it, as Istio's gateways have it.
pub const GATEWAY_HEALTH_PORT: u16 = 15021;

/// Condition of a Pod: whether its traffic is in the mesh.
pub const ENROLLED_CONDITION: &str = "weft.dev/Enrolled";
/// Condition of an Istio object: whether weft accepts it.
pub const ACCEPTED_CONDITION: &str = "weft.dev/Accepted";

/// Labels by which a namespace opts in or out, and the values that do.
const NAMESPACE_SWITCHES: [(&str, &str, &str); 3] = [
    ("weft.dev/mesh", "enabled", "disabled"),
    ("istio-injection", "enabled", "disabled"),
    ("istio.io/dataplane-mode", "ambient", "none"),
];

/// Whether a namespace's labels put its pods into the mesh, or keep them out; `None`: they do not say. The first that says
/// decides.
pub fn namespace_opts_in(labels: &Labels) -> Option<bool> {
    NAMESPACE_SWITCHES.iter().find_map(|(label, on, off)| match labels.get(*label) {
        Some(value) if value == on => Some(true),
        Some(value) if value == off => Some(false),
        _ => None,
    })
}
