//! A certificate made into what handshakes need.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::sign;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CipherSuite, ClientConfig, NamedGroup, ServerConfig};
use webpki::KeyUsage;

use super::certificate::{Facts, Refusal};
use super::request::Request;
use super::trust::Trust;
use super::verify::Verifier;
use crate::crypto;

/// What nodes speak inside TLS, by ALPN.
pub mod alpn {
    /// weft's own tunnel.
    pub const LEAN: &[u8] = b"weft/1";
    /// HTTP/2, which HBONE is.
    pub const HBONE: &[u8] = b"h2";
}

/// What is offered, the favourite first.
const OFFERED: [&[u8]; 2] = [alpn::LEAN, alpn::HBONE];

/// One service account's TLS, until its next rotation. Handshakes prove that the peer's certificate is good (chain,
/// time, one SPIFFE ID of a trusted domain); whether it is the expected one, the caller checks with [`super::peer`].
#[derive(Debug)]
pub struct Tls {
    /// For connections to the account's pods: asks for a certificate, TLS 1.3.
    pub server: Arc<ServerConfig>,
    /// For connections from the account's pods.
    pub client: Arc<ClientConfig>,
    /// The same, to peers that are known to speak HBONE.
    pub hbone_client: Arc<ClientConfig>,
    /// When the certificate ends.
    pub not_after: SystemTime,
}

impl Tls {
    /// For connections that come to the account's pods as gateways, of clients with certificates of the mesh; `requests`: HTTP is
    /// inside.
    pub fn gateway(&self, requests: bool) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.server);
        let spoken: &[&[u8]] = if requests { &[b"h2", b"http/1.1"] } else { &[] };
        config.alpn_protocols = spoken.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }
}

/// Why a certificate that a CA gave does not serve.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Not a good certificate of this mesh.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Of somebody else.
    #[error("the CA answered a certificate of {0}")]
    OtherIdentity(weft_api::identity::Identity),
    /// It has ended, or is for another key.
    #[error("the CA answered a certificate that does not serve: {0}")]
    Broken(String),
}

/// The signatures that certificates are proved by.
pub(super) fn algorithms() -> WebPkiSupportedAlgorithms {
    crypto::provider().signature_verification_algorithms
}

/// Makes [`Tls`] of certificates.
#[derive(Debug)]
pub struct Handshakes {
    provider: Arc<CryptoProvider>,
    verifier: Arc<Verifier>,
}

impl Handshakes {
    /// For peers whom `trust` believes.
    pub fn new(trust: Arc<Trust>) -> Self {
        let mut provider = crypto::provider();
        provider.cipher_suites.retain(|suite| suite.tls13().is_some());
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        // What is recorded today is not to be read by a quantum computer later. The client sends a share of X25519 along:
        // a peer that knows nothing of ML-KEM costs no further round trip.
        provider.kx_groups.sort_by_key(|group| group.name() != NamedGroup::X25519MLKEM768);
        let verifier = Verifier::new(trust, provider.signature_verification_algorithms);
        Self { provider: Arc::new(provider), verifier: Arc::new(verifier) }
    }

    /// TLS by a certificate that a CA gave for a request, after making sure that it is what was asked for.
    pub fn tls(
        &self,
        request: &Request,
        chain: Vec<CertificateDer<'static>>,
        now: SystemTime,
    ) -> Result<(Tls, Facts), Unusable> {
        let broken = |error: rustls::Error| Unusable::Broken(error.to_string());
        let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let [leaf, intermediates @ ..] = &*chain else {
            return Err(Unusable::Broken("the answer is empty".to_owned()));
        };
        let unix = UnixTime::since_unix_epoch(since_1970);
        let facts = self.verifier.verify(leaf, intermediates, unix, &KeyUsage::server_auth())?;
        self.verifier.verify(leaf, intermediates, unix, &KeyUsage::client_auth())?;
        if facts.identity != *request.identity() {
            return Err(Unusable::OtherIdentity(facts.identity));
        }
        if facts.not_after <= now {
            return Err(Unusable::Broken("it has ended".to_owned()));
        }
        let key = sign::any_ecdsa_type(&PrivateKeyDer::from(request.private_key())).map_err(broken)?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(broken)?;
        let (server, client) = self.configs(certified).map_err(broken)?;
        let mut hbone_client = client.clone();
        hbone_client.alpn_protocols = vec![alpn::HBONE.to_vec()];
        let tls = Tls {
            server: Arc::new(server),
            client: Arc::new(client),
            hbone_client: Arc::new(hbone_client),
            not_after: facts.not_after,
        };
        Ok((tls, facts))
    }

    /// The two sides that a certificate makes.
    pub(super) fn configs(
        &self,
        certified: CertifiedKey,
    ) -> Result<(ServerConfig, ClientConfig), rustls::Error> {
        let resolver = Arc::new(SingleCertAndKey::from(certified));
        let mut server = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(self.verifier.clone())
            .with_cert_resolver(resolver.clone());
        // Each handshake proves both identities anew.
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.max_early_data_size = 0;
        server.alpn_protocols = OFFERED.map(<[u8]>::to_vec).into();

        let mut client = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier.clone())
            .with_client_cert_resolver(resolver);
        client.resumption = Resumption::disabled();
        client.enable_early_data = false;
        client.enable_sni = false;
        client.alpn_protocols = OFFERED.map(<[u8]>::to_vec).into();
        if cfg!(feature = "fips") && !(server.fips() && client.fips()) {
            return Err(rustls::Error::General("not all of it is FIPS-approved".to_owned()));
        }
        Ok((server, client))
    }
}
