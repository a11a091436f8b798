//! Fetching an issuer's keys: one GET over HTTP or HTTPS, bounded in time and size. Redirects are not followed, and no proxy is
//! asked: the address that was found fit is the one that is dialled.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::uri::{Scheme, Uri};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use weft_rules::guard::token::KeySource;
use weft_rules::snapshot::Snapshot;

use super::keys::{KeySet, NotKeys};
use super::reach;

/// Largest document that an issuer may send.
const LARGEST: usize = 1024 * 1024;

/// Why an issuer's keys could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not an `http` or `https` URL with a host.
    #[error("{0} is not an http or https URL")]
    Url(String),
    /// Nobody knows the host.
    #[error("{0} has no address")]
    NoAddress(String),
    /// Users may not send a node there.
    #[error(
        "{host} has the address {address}, {why}: keys are not fetched from there (name the issuer's Service, or start \
         the agents with --jwks-allow {address})"
    )]
    Refused {
        /// The host.
        host: String,
        /// An address of it.
        address: IpAddr,
        /// What that is.
        why: &'static str,
    },
    /// Name, connection or TLS.
    #[error("cannot reach {host}")]
    Connect {
        /// Whom.
        host: String,
        /// Why.
        source: std::io::Error,
    },
    /// The exchange broke off.
    #[error("the exchange broke off")]
    Http(#[from] hyper::Error),
    /// The answer is too long, or broke off.
    #[error("the answer could not be read: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// Not 200.
    #[error("the answer was {0}")]
    Status(StatusCode),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// Not an OpenID configuration.
    #[error("not an OpenID configuration with jwks_uri")]
    Discovery(#[source] serde_json::Error),
    /// Not keys.
    #[error(transparent)]
    Keys(#[from] NotKeys),
}

#[derive(Deserialize)]
struct OpenIdConfiguration {
    jwks_uri: String,
}

/// Where keys are fetched from: services by the rules in force, other hosts by their names; and what the agent was told to
/// allow besides.
#[derive(Debug, Clone, Copy)]
pub struct Network<'a> {
    /// The rules in force.
    pub snapshot: &'a ArcSwap<Snapshot>,
    /// `--jwks-allow`.
    pub allowed: &'a [IpNet],
}

/// Has the keys of a source, within `limit`.
pub async fn keys(source: &KeySource, network: Network<'_>, limit: Duration) -> Result<KeySet, FetchError> {
    let fetching = async {
        let document = match source {
            KeySource::Inline(keys) => Bytes::copy_from_slice(keys.as_bytes()),
            KeySource::Uri(uri) => get(uri, network).await?,
            KeySource::Discovery(uri) => {
                let configuration: OpenIdConfiguration =
                    serde_json::from_slice(&get(uri, network).await?).map_err(FetchError::Discovery)?;
                get(&configuration.jwks_uri, network).await?
            }
        };
        Ok(KeySet::read(&document)?)
    };
    tokio::time::timeout(limit, fetching).await.unwrap_or(Err(FetchError::Timeout(limit)))
}

async fn get(url: &str, network: Network<'_>) -> Result<Bytes, FetchError> {
    let not_a_url = || FetchError::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| not_a_url())?;
    let https = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => false,
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        _ => return Err(not_a_url()),
    };
    let host = uri.host().ok_or_else(not_a_url)?.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    let unreachable = |source| FetchError::Connect { host: host.clone(), source };
    let stream = connect(&host, port, network).await?;
    if https {
        let name = ServerName::try_from(host.clone()).map_err(|_| not_a_url())?;
        let stream = TlsConnector::from(tls()).connect(name, stream).await.map_err(unreachable)?;
        exchange(stream, &uri).await
    } else {
        exchange(stream, &uri).await
    }
}

/// A service of the mesh is reached at one of its endpoints, any other host as the system resolves it.
async fn connect(host: &str, port: u16, network: Network<'_>) -> Result<TcpStream, FetchError> {
    let unreachable = |source| FetchError::Connect { host: host.to_owned(), source };
    let cluster = network.snapshot.load().named_cluster(host, port).cloned();
    let (service, addresses) = if let Some(cluster) = &cluster {
        let anywhere = SocketAddr::from(([0, 0, 0, 0], port));
        let in_use = cluster.pick(anywhere, &[], fastrand::u64(..));
        (Some(&*cluster.service), in_use.map(|in_use| in_use.endpoint.address).into_iter().collect())
    } else {
        let found = tokio::net::lookup_host((host, port)).await.map_err(unreachable)?;
        (None, found.collect::<Vec<SocketAddr>>())
    };
    let mut last = FetchError::NoAddress(host.to_owned());
    for address in addresses {
        let why = reach::refusal(&network.snapshot.load(), address.ip(), service, network.allowed);
        last = match why {
            Some(why) => FetchError::Refused { host: host.to_owned(), address: address.ip(), why },
            None => match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => unreachable(error),
            },
        };
    }
    Err(last)
}

async fn exchange<S>(stream: S, uri: &Uri) -> Result<Bytes, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let request = Request::get(target)
        .header(HOST, uri.authority().map_or("", |authority| authority.as_str()))
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("weft/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::Url(uri.to_string()))?;
    let talking = async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), LARGEST);
        Ok(body.collect().await.map_err(FetchError::Body)?.to_bytes())
    };
    let mut talking = std::pin::pin!(talking);
    tokio::select! {
        answer = &mut talking => answer,
        ended = connection => { ended?; talking.await }
    }
}

/// Trusts what the system trusts.
fn tls() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let build = || {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "a root certificate of the system is unreadable");
        }
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            tracing::warn!(
                "the system trusts no certificate authority: keys at https URLs cannot be fetched"
            );
        }
        Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
    };
    Arc::clone(CONFIG.get_or_init(build))
}
