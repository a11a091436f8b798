//! What is said to a certificate service as Istio's, and by one. Source: istio/api, security/v1alpha1/ca.proto.

use std::collections::HashMap;

/// The method's path.
pub const METHOD: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// Where a request's metadata names the identity that is asked for: a node's agent asks for others.
pub const IMPERSONATED: &str = "ImpersonatedIdentity";

/// Asks for a certificate.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateRequest {
    /// PKCS #10, PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// In seconds.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// Holds [`IMPERSONATED`].
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<prost_types::Struct>,
}

/// The certificates from leaf to root, each in PEM.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CertificateResponse {
    /// The last one holds every trusted root.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

impl CertificateRequest {
    /// Asks for a certificate of `identity`, to live so many seconds.
    pub fn new(csr: String, validity_duration: i64, identity: String) -> Self {
        let name = prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(identity)) };
        let metadata = prost_types::Struct { fields: [(IMPERSONATED.to_owned(), name)].into() };
        Self { csr, validity_duration, metadata: Some(metadata) }
    }

    /// Whose certificate is asked for, if the request says.
    pub fn identity(&self) -> Option<&str> {
        match self.metadata.as_ref()?.fields.get(IMPERSONATED)?.kind.as_ref()? {
            prost_types::value::Kind::StringValue(name) => Some(name),
            _ => None,
        }
    }
}

/// The path of the method by which agents hear of the Secrets of their gateways.
pub const SECRETS_METHOD: &str = "/weft.v1.GatewaySecrets/Changed";

/// Asks for Secrets that are others than the caller knows; the answer may be held back until there are some.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SecretsRequest {
    /// Which ones.
    #[prost(message, repeated, tag = "1")]
    pub secrets: Vec<SecretAsked>,
}

/// A Secret, and what the caller knows of it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SecretAsked {
    /// Namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// As it was told with [`SecretTold::version`]; empty: nothing.
    #[prost(string, tag = "3")]
    pub version: String,
}

/// What has changed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SecretsResponse {
    /// Those that are others than the caller knows.
    #[prost(message, repeated, tag = "1")]
    pub secrets: Vec<SecretTold>,
}

/// A Secret, or why there is none. Private keys are in it: what it holds is not shown.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct SecretTold {
    /// Namespace.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// To ask with the next time.
    #[prost(string, tag = "3")]
    pub version: String,
    /// Its values by key.
    #[prost(map = "string, bytes", tag = "4")]
    pub data: HashMap<String, Vec<u8>>,
    /// Why the caller cannot have it; empty: it can.
    #[prost(string, tag = "5")]
    pub refused: String,
}

impl std::fmt::Debug for SecretTold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretTold")
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .field("version", &self.version)
            .field("keys", &self.data.keys())
            .field("refused", &self.refused)
            .finish()
    }
}
