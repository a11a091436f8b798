//! What is said to a certificate service as Istio's, and by one. Source: istio/api, security/v1alpha1/ca.proto.

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
