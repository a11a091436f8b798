//! Proves who a peer is during a handshake, for both sides.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerMisbehaved,
    SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage, RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy};

use super::SKEW;
use super::certificate::{self, Facts, Refusal};
use super::trust::Trust;

/// Believes a peer whose certificate chains to a root of the mesh, is good now (within [`SKEW`]) and not revoked, and names
/// one workload of a trusted domain. Reads roots and revocation lists anew in each handshake.
#[derive(Debug)]
pub struct Verifier {
    trust: Arc<Trust>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// Believes whom `trust` believes.
    pub fn new(trust: Arc<Trust>, algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self { trust, algorithms }
    }

    /// What a certificate says, if all of it holds.
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: &KeyUsage,
    ) -> Result<Facts, Refusal> {
        let facts = certificate::read(leaf)?;
        if !self.trust.knows(&facts.identity.trust_domain) {
            return Err(Refusal::TrustDomain(facts.identity));
        }
        let parsed = EndEntityCert::try_from(leaf).map_err(|_| Refusal::Malformed)?;
        let anchors = self.trust.anchors();
        let by = |time, revocation: Option<RevocationOptions<'_>>| {
            let algorithms = self.algorithms.all;
            parsed
                .verify_for_usage(algorithms, &anchors, intermediates, time, *usage, revocation, None)
                .map(drop)
        };
        let revoked = self.trust.revoked();
        let holds_at = |time| {
            by(time, None)?;
            // One by one: a list that is not of this chain's issuers says nothing of it, though it may bear their name, as
            // that of a root which another has followed.
            let is_revoked = |list| {
                let list = [list];
                let options = RevocationOptionsBuilder::new(&list).ok();
                let options = options.map(|it| it.with_status_policy(UnknownStatusPolicy::Allow).build());
                matches!(by(time, options), Err(webpki::Error::CertRevoked))
            };
            if revoked.iter().any(is_revoked) { Err(webpki::Error::CertRevoked) } else { Ok(()) }
        };
        let outcome = match holds_at(now) {
            Err(webpki::Error::CertExpired { .. }) => holds_at(moved(now, |at| at.saturating_sub(SKEW))),
            Err(webpki::Error::CertNotValidYet { .. }) => holds_at(moved(now, |at| at.saturating_add(SKEW))),
            outcome => outcome,
        };
        outcome.map_err(|problem| Refusal::Chain { identity: facts.identity.clone(), problem })?;
        Ok(facts)
    }

    /// Whether a chain that was believed is revoked now. A workload's certificate serves both sides.
    pub fn is_revoked(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> bool {
        let [leaf, intermediates @ ..] = chain else { return false };
        let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        let held = self.verify(leaf, intermediates, now, &KeyUsage::client_auth());
        matches!(held, Err(Refusal::Chain { problem: webpki::Error::CertRevoked, .. }))
    }

    fn verify_peer(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: &KeyUsage,
    ) -> Result<(), Error> {
        self.verify(leaf, intermediates, now, usage).map(drop).map_err(|refusal| {
            tracing::debug!(%refusal, "a peer's certificate is refused");
            // A peer hears the alert that fits; the reason stays here.
            Error::InvalidCertificate(match refusal {
                Refusal::Chain { problem: webpki::Error::UnknownIssuer, .. } => {
                    CertificateError::UnknownIssuer
                }
                Refusal::Chain { problem: webpki::Error::CertRevoked, .. } => CertificateError::Revoked,
                refusal => CertificateError::Other(OtherError(Arc::new(refusal))),
            })
        })
    }

    fn signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &self.algorithms)
    }
}

fn moved(time: UnixTime, by: impl Fn(Duration) -> Duration) -> UnixTime {
    UnixTime::since_unix_epoch(by(Duration::from_secs(time.as_secs())))
}

/// TLS 1.2 is not offered; its signatures are never asked for.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedCipherSuite))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify_peer(leaf, intermediates, now, &KeyUsage::server_auth())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify_peer(leaf, intermediates, now, &KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
