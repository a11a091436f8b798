//! Who may come as a client of a server that asks for certificates.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use weft_api::istio::{ServerTls, ServerTlsMode};

/// Checks clients as a Gateway's server wants it; `by_roots` is absent where anybody's certificate will do.
pub fn verifier(
    settings: &ServerTls,
    by_roots: Option<Arc<dyn ClientCertVerifier>>,
    provider: &Arc<CryptoProvider>,
) -> Arc<dyn ClientCertVerifier> {
    let optional = settings.mode == ServerTlsMode::OptionalMutual;
    Arc::new(Clients {
        by_roots,
        optional,
        names: settings.subject_alt_names.iter().filter(|name| !name.is_empty()).cloned().collect(),
        keys: settings.verify_certificate_spki.clone(),
        hashes: settings
            .verify_certificate_hash
            .iter()
            .map(|hash| hash.replace(':', "").to_ascii_lowercase())
            .collect(),
        provider: provider.clone(),
    })
}

/// Lets in who proves its certificate, and has one of some names and hashes where there are any.
#[derive(Debug)]
struct Clients {
    /// `None`: whoever has the key of what it shows.
    by_roots: Option<Arc<dyn ClientCertVerifier>>,
    optional: bool,
    names: Vec<String>,
    /// SHA-256 of public keys, in base64.
    keys: Vec<String>,
    /// SHA-256 of certificates, in hexadecimal digits.
    hashes: Vec<String>,
    provider: Arc<CryptoProvider>,
}

impl Clients {
    /// Whether a certificate is one of those that are named.
    fn is_named(&self, certificate: &CertificateDer<'_>) -> bool {
        let parsed = webpki::EndEntityCert::try_from(certificate);
        let Ok(parsed) = parsed else { return false };
        let has = |name: &String| {
            if name.contains("://") {
                return parsed.valid_uri_names().any(|uri| uri == name);
            }
            ServerName::try_from(&**name)
                .is_ok_and(|name| parsed.verify_is_valid_for_subject_name(&name).is_ok())
        };
        if !self.names.is_empty() && !self.names.iter().any(has) {
            return false;
        }
        if self.keys.is_empty() && self.hashes.is_empty() {
            return true;
        }
        // As Envoy has it: one of either list is enough.
        let hash = hex(digest(&SHA256, certificate).as_ref());
        let key = x509_parser::parse_x509_certificate(certificate)
            .map(|(_, parsed)| BASE64_STANDARD.encode(digest(&SHA256, parsed.public_key().raw)));
        self.hashes.contains(&hash) || key.is_ok_and(|key| self.keys.contains(&key))
    }
}

/// In hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl ClientCertVerifier for Clients {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        !self.optional
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.by_roots.as_ref().map_or(&[], |roots| roots.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(roots) = &self.by_roots {
            roots.verify_client_cert(leaf, intermediates, now)?;
        }
        if self.is_named(leaf) {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
