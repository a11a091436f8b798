//! TLS that a DestinationRule has weft begin towards an endpoint: modes SIMPLE and MUTUAL, with files instead of mesh
//! identities.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use weft_api::istio::{ClientTlsSettings, TlsMode};

use super::core::Core;
use super::error::{Error, Kind};
use super::stream::Stream;
use super::upstream::{Purpose, Towards};

/// How long files that were read are good for.
const FRESH: Duration = Duration::from_secs(10);

/// What TLS to an endpoint is made by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Origination {
    /// The DestinationRule's.
    pub(super) settings: Arc<ClientTlsSettings>,
    /// The service's name: what the endpoint is called where the settings do not say.
    pub(super) host: Option<Arc<str>>,
}

/// One worker's configurations, by what they were made of.
#[derive(Debug, Default)]
pub(super) struct Origins(RefCell<HashMap<(Origination, Alpn), (Instant, Loaded)>>);

type Loaded = Result<Arc<ClientConfig>, Arc<str>>;

/// What is to be spoken inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Alpn {
    None,
    Http1,
    Http2,
}

/// Begins TLS on a connection, where a DestinationRule wants it.
pub(super) async fn wrap(
    core: &Rc<Core>,
    socket: TcpStream,
    to: &Towards,
    purpose: Purpose,
) -> Result<Stream, Error> {
    let Some(origination) = to.originated() else { return Ok(socket.into()) };
    let alpn = match purpose {
        Purpose::Bytes { .. } => Alpn::None,
        Purpose::Requests { http2: false } => Alpn::Http1,
        Purpose::Requests { http2: true } => Alpn::Http2,
    };
    let name = server_name(&origination, to)?;
    let config = config(&core.origins, origination, alpn)
        .await
        .map_err(|reason| Error::new(Kind::ConnectFailure, format!("TLS by DestinationRule: {reason}")))?;
    // Boxed: connections in plain text need no room for it.
    let handshake = Box::pin(TlsConnector::from(config).connect(name, socket));
    match tokio::time::timeout(to.timeout, handshake).await {
        Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream.into()))),
        Ok(Err(error)) => Err(Error::new(Kind::ConnectFailure, format!("TLS handshake: {error}"))),
        Err(_) => Err(Kind::ConnectTimeout.into()),
    }
}

/// What the endpoint is called: what the settings say, else the service's name.
fn server_name(origination: &Origination, to: &Towards) -> Result<ServerName<'static>, Error> {
    let named = origination.settings.sni.as_deref().filter(|sni| !sni.is_empty());
    match named.or(origination.host.as_deref()) {
        Some(name) => ServerName::try_from(name.to_owned())
            .map_err(|_| Error::new(Kind::ConnectFailure, format!("{name} is no name of a TLS server"))),
        None => Ok(ServerName::IpAddress(to.address.ip().to_canonical().into())),
    }
}

async fn config(origins: &Origins, origination: Origination, alpn: Alpn) -> Loaded {
    let key = (origination, alpn);
    let known =
        origins.0.borrow().get(&key).filter(|(at, _)| at.elapsed() < FRESH).map(|(_, known)| known.clone());
    if let Some(known) = known {
        return known;
    }
    let settings = Arc::clone(&key.0.settings);
    let loading = tokio::task::spawn_blocking(move || load(&settings, alpn).map(Arc::new));
    let loaded = match loading.await {
        Ok(loaded) => loaded.map_err(Arc::from),
        Err(error) => Err(Arc::from(error.to_string())),
    };
    if let Err(reason) = &loaded {
        tracing::warn!(host = key.0.host.as_deref().unwrap_or_default(), %reason, "TLS by DestinationRule cannot begin");
    }
    let mut origins = origins.0.borrow_mut();
    origins.retain(|_, (at, _)| at.elapsed() < FRESH);
    origins.insert(key, (Instant::now(), loaded.clone()));
    loaded
}

/// Reads the files and makes a configuration of them.
fn load(settings: &ClientTlsSettings, alpn: Alpn) -> Result<ClientConfig, String> {
    if settings.credential_name.as_deref().is_some_and(|name| !name.is_empty()) {
        return Err("credentialName is for gateways; name files".to_owned());
    }
    if settings.ca_crl.as_deref().is_some_and(|file| !file.is_empty()) {
        return Err("revocation lists (caCrl) are not looked at".to_owned());
    }
    let provider = Arc::new(weft_identity::crypto::provider());
    let verifier = Verifier {
        roots: roots(settings)?,
        names: settings.subject_alt_names.clone(),
        provider: Arc::clone(&provider),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = if settings.mode == Some(TlsMode::Mutual) {
        let chain = certificates(required(settings.client_certificate.as_deref(), "clientCertificate")?)?;
        let file = required(settings.private_key.as_deref(), "privateKey")?;
        let key = PrivateKeyDer::from_pem_file(file).map_err(|error| format!("{file}: {error}"))?;
        builder.with_client_auth_cert(chain, key).map_err(|error| format!("{file}: {error}"))?
    } else {
        builder.with_no_client_auth()
    };
    config.alpn_protocols = match alpn {
        Alpn::None => Vec::new(),
        Alpn::Http1 => vec![b"http/1.1".to_vec()],
        Alpn::Http2 => vec![b"h2".to_vec()],
    };
    Ok(config)
}

fn required<'a>(file: Option<&'a str>, field: &str) -> Result<&'a str, String> {
    file.filter(|file| !file.is_empty()).ok_or_else(|| format!("mode MUTUAL needs {field}"))
}

/// Whom to believe; `None`: anybody.
fn roots(settings: &ClientTlsSettings) -> Result<Option<Arc<RootCertStore>>, String> {
    if settings.insecure_skip_verify == Some(true) {
        return Ok(None);
    }
    let Some(file) = settings.ca_certificates.as_deref().filter(|file| !file.is_empty()) else {
        return Ok(Some(Arc::clone(&SYSTEM)));
    };
    let mut store = RootCertStore::empty();
    for certificate in certificates(file)? {
        store.add(certificate).map_err(|error| format!("{file}: {error}"))?;
    }
    Ok(Some(Arc::new(store)))
}

/// What the system believes. Read once.
static SYSTEM: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let mut store = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (_, unusable) = store.add_parsable_certificates(found.certs);
    for error in &found.errors {
        tracing::warn!(%error, "a system's root certificate cannot be read");
    }
    tracing::debug!(roots = store.len(), unusable, "system's root certificates");
    Arc::new(store)
});

fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = |error| format!("{file}: {error}");
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(file).map_err(read)?.collect::<Result<_, _>>().map_err(read)?;
    if certificates.is_empty() { Err(format!("{file} holds no certificate")) } else { Ok(certificates) }
}

/// Believes a server's certificate by roots and by its names.
#[derive(Debug)]
struct Verifier {
    roots: Option<Arc<RootCertStore>>,
    /// Names of which the server must have one; empty: the one it is called by.
    names: Vec<String>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Some(roots) = &self.roots else { return Ok(ServerCertVerified::assertion()) };
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        if self.names.is_empty() {
            verify_server_name(&certificate, server_name)?;
        } else if !self.names.iter().any(|name| has_name(&certificate, end_entity, name)) {
            return Err(CertificateError::NotValidForName.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether a certificate has this name: a URI, an address or a DNS name.
fn has_name(certificate: &ParsedCertificate<'_>, der: &CertificateDer<'_>, name: &str) -> bool {
    if name.contains("://") {
        return webpki::EndEntityCert::try_from(der)
            .is_ok_and(|certificate| certificate.valid_uri_names().any(|uri| uri == name));
    }
    ServerName::try_from(name).is_ok_and(|name| verify_server_name(certificate, &name).is_ok())
}
