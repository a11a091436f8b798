//! Gateway.

use std::collections::BTreeSet;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::meta::{Labels, Resource, not_empty};

/// `networking.istio.io` Gateway.
pub type Gateway = Resource<GatewaySpec>;

/// `Gateway.spec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GatewaySpec {
    /// The gateway pods that serve it, of any namespace.
    pub selector: Labels,
    /// What they serve.
    pub servers: Vec<GatewayServer>,
}

/// One of `servers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GatewayServer {
    /// Where it listens.
    pub port: GatewayPort,
    /// The address to listen on; Istio's gateways take any.
    pub bind: Option<String>,
    /// Names that it answers to: `host`, `*.domain`, `*`, each with `namespace/`, `./` or `*/` before it where only
    /// VirtualServices of certain namespaces may serve it.
    pub hosts: Vec<String>,
    /// How TLS ends here.
    pub tls: Option<ServerTls>,
    /// Deprecated.
    pub default_endpoint: Option<String>,
    /// A name that is unique in the Gateway.
    pub name: Option<String>,
}

/// `servers[].port`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GatewayPort {
    /// A port of the Service that selects the gateway's pods; of the pod itself where there is none.
    pub number: u32,
    /// `HTTP`, `HTTPS`, `GRPC`, `GRPC-WEB`, `HTTP2`, `MONGO`, `TCP`, `TLS`.
    pub protocol: String,
    /// Its name.
    pub name: String,
    /// Deprecated, as in Istio.
    pub target_port: Option<u32>,
}

/// `servers[].tls`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServerTls {
    /// Answers plain HTTP with a redirect to https.
    pub https_redirect: bool,
    /// Who is asked for a certificate.
    pub mode: ServerTlsMode,
    /// File of the certificate chain.
    pub server_certificate: Option<String>,
    /// File of the key.
    pub private_key: Option<String>,
    /// File of the roots for client certificates.
    pub ca_certificates: Option<String>,
    /// File of a revocation list.
    pub ca_crl: Option<String>,
    /// Names that a client's certificate may bear.
    pub subject_alt_names: Vec<String>,
    /// Secret with certificate and key.
    pub credential_name: Option<String>,
    /// Secret with the roots for client certificates.
    pub ca_cert_credential_name: Option<String>,
    /// Takes client certificates of anybody.
    pub insecure_skip_verify: Option<bool>,
    /// At most two of them, for two kinds of keys.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("minItems" = 1, "maxItems" = 2))]
    pub credential_names: Vec<String>,
    /// Files, at most two of each.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("minItems" = 1, "maxItems" = 2))]
    pub tls_certificates: Vec<ServerTlsCertificate>,
    /// Hashes of public keys that a client may have.
    pub verify_certificate_spki: Vec<String>,
    /// Hashes of certificates that a client may have.
    pub verify_certificate_hash: Vec<String>,
    /// The oldest version of TLS.
    pub min_protocol_version: Option<String>,
    /// The newest.
    pub max_protocol_version: Option<String>,
    /// Cipher suites.
    pub cipher_suites: Vec<String>,
}

/// One of `tls.tlsCertificates`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServerTlsCertificate {
    /// File of the certificate chain.
    pub server_certificate: Option<String>,
    /// File of the key.
    pub private_key: Option<String>,
    /// File of the roots for client certificates.
    pub ca_certificates: Option<String>,
}

/// `tls.mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServerTlsMode {
    /// TLS goes through; its server name routes.
    #[default]
    Passthrough,
    /// TLS ends here.
    Simple,
    /// TLS ends here, and clients show a certificate.
    Mutual,
    /// As `PASSTHROUGH`; every service has a server name of its own.
    AutoPassthrough,
    /// As `MUTUAL`, by certificates of the mesh.
    IstioMutual,
    /// As `MUTUAL`, for clients that have a certificate.
    OptionalMutual,
}

/// What a Gateway's port speaks, by its `protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerProtocol {
    /// HTTP, HTTP2, GRPC, GRPC-WEB.
    Http,
    /// HTTPS, TLS.
    Tls,
    /// TCP, MONGO.
    Tcp,
}

impl ServerTls {
    /// Suites of TLS 1.2 that weft speaks, by OpenSSL's names; those of TLS 1.3 are not for choice, as in Envoy.
    pub const CIPHERS: [&str; 6] = [
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-CHACHA20-POLY1305",
    ];
    /// TLS 1.2, as [`Self::version_number`] has it.
    pub const OLDEST_VERSION: u8 = 2;

    /// What stands behind `TLSV1_`; `None`: it is no version.
    pub fn version_number(text: &str) -> Option<u8> {
        match text.strip_prefix("TLSV1_")? {
            "0" => Some(0),
            "1" => Some(1),
            "2" => Some(2),
            "3" => Some(3),
            _ => None,
        }
    }

    /// Whether TLS ends here, by a certificate that the settings name.
    pub fn ends_here(&self) -> bool {
        use ServerTlsMode::{Mutual, OptionalMutual, Simple};
        matches!(self.mode, Simple | Mutual | OptionalMutual)
    }

    /// Whether clients are asked for a certificate.
    pub fn asks_clients(&self) -> bool {
        self.ends_here() && self.mode != ServerTlsMode::Simple
    }

    /// The Secrets with the server's own certificates.
    pub fn certificate_secrets(&self) -> impl Iterator<Item = &str> {
        let own = self.credential_name.iter().chain(&self.credential_names);
        own.map(String::as_str).filter(|name| self.ends_here() && !name.is_empty())
    }

    /// The Secrets that may hold the roots for clients' certificates, the one that counts first.
    pub fn roots_secrets(&self) -> Vec<String> {
        if !self.asks_clients() {
            return Vec::new();
        }
        match self.ca_cert_credential_name.as_deref() {
            Some(name) if !name.is_empty() => vec![name.to_owned()],
            // As istiod looks for them.
            _ => self
                .certificate_secrets()
                .flat_map(|name| [format!("{name}{CA_SUFFIX}"), name.to_owned()])
                .collect(),
        }
    }

    /// Every Secret that ending TLS here takes, by its name in the namespace of the gateway's pods.
    pub fn secrets(&self) -> BTreeSet<String> {
        self.certificate_secrets().map(str::to_owned).chain(self.roots_secrets()).collect()
    }
}

/// How one server of a gateway's pods ends TLS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Termination {
    /// What its Gateway says.
    pub settings: ServerTls,
    /// The pods' namespace, in which the Secrets are.
    pub namespace: Arc<str>,
    /// Whether there is HTTP inside.
    pub requests: bool,
}

impl Termination {
    /// Whether whoever was let in by the other settings may stay under these: nothing else is asked of clients.
    pub fn lets_in_as(&self, other: &Self) -> bool {
        self == other || !(self.settings.asks_clients() || other.settings.asks_clients())
    }
}

/// Behind the name of a Secret: the one with the roots for clients.
const CA_SUFFIX: &str = "-cacert";

impl GatewayPort {
    /// What it speaks; `None`: nothing that Istio knows.
    pub fn speaks(&self) -> Option<ServerProtocol> {
        Some(match self.protocol.to_ascii_uppercase().as_str() {
            "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" | "HTTP_PROXY" => ServerProtocol::Http,
            "HTTPS" | "TLS" => ServerProtocol::Tls,
            "TCP" | "MONGO" | "MYSQL" | "REDIS" => ServerProtocol::Tcp,
            _ => return None,
        })
    }
}

/// Labels by which a pod says that it is a gateway. Without one, nobody's Gateway object takes its ports: a selector
/// reaches into every namespace.
const GATEWAY_LABELS: [&str; 2] = ["weft.dev/gateway", "istio"];
/// Istio's own control plane bears the second one too.
const CONTROL_PLANE: [&str; 2] = ["pilot", "istiod"];

/// Whether a pod's labels say that it is a gateway.
pub fn is_gateway_pod(labels: &Labels) -> bool {
    let said = GATEWAY_LABELS.iter().find_map(|label| labels.get(*label));
    said.is_some_and(|value| value != "disabled" && !CONTROL_PLANE.contains(&value.as_str()))
}
