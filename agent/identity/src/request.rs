//! A key and the request for its certificate. The key is made here and never leaves memory.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::pki_types::{CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use weft_api::identity::Identity;

/// A fresh key, and what a CA is asked to sign.
pub struct Request {
    identity: Identity,
    key: KeyPair,
    csr: CertificateSigningRequestDer<'static>,
    pem: String,
}

impl Request {
    /// Makes a P-256 key and a request for a certificate of `identity`.
    pub fn new(identity: Identity) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
        let csr = params.serialize_request(&key)?;
        Ok(Self { identity, key, csr: csr.der().clone(), pem: csr.pem()? })
    }

    /// Whose certificate is asked for.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// PKCS #10, DER.
    pub fn csr(&self) -> &CertificateSigningRequestDer<'static> {
        &self.csr
    }

    /// PKCS #10, PEM.
    pub fn csr_pem(&self) -> &str {
        &self.pem
    }

    /// For the handshakes of this process.
    pub(super) fn private_key(&self) -> PrivatePkcs8KeyDer<'static> {
        self.key.serialize_der().into()
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("identity", &self.identity).finish_non_exhaustive()
    }
}
