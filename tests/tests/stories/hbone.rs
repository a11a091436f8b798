//! HBONE as Istio ambient's ztunnel speaks it, either side: HTTP/2 CONNECT over mutual TLS to port 15008 of a pod.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use weft_tests::Pod;

use crate::forge::{Authority, Credentials, spiffe_id};

/// HBONE's port.
pub const PORT: u16 = 15008;
/// For a peer to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs to its end, or for a minute.
pub fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(PATIENCE * 6, work).await.context("never ended")? })
}

/// A client's connection to a node, with tunnels in it.
pub struct Client {
    sender: SendRequest<Empty<Bytes>>,
    /// The server's certificates, leaf first.
    pub server: Vec<CertificateDer<'static>>,
}

/// A tunnel's bytes.
pub type Tunnel = TokioIo<Upgraded>;

impl Client {
    /// Dials from a pod, with or without a certificate. The server's is taken as it comes: see [`Client::server`].
    ///
    /// A refused certificate shows with the first request: with TLS 1.3 the client has finished by then.
    pub async fn dial(from: &Pod, to: SocketAddr, credentials: Option<&Credentials>) -> Result<Self> {
        let tls = tls(from, to, credentials, b"h2").await?;
        let server = tls.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, server })
    }

    /// Sends any request; answers its status and, if that is 200 to a CONNECT, the tunnel.
    pub async fn send(
        &mut self,
        request: Request<Empty<Bytes>>,
    ) -> Result<(StatusCode, HeaderMap, Option<Tunnel>)> {
        let is_connect = request.method() == Method::CONNECT;
        let answer = tokio::time::timeout(PATIENCE, self.sender.send_request(request))
            .await
            .context("no answer")??;
        let (status, headers) = (answer.status(), answer.headers().clone());
        if !is_connect || status != StatusCode::OK {
            return Ok((status, headers, None));
        }
        let tunnel = tokio::time::timeout(PATIENCE, hyper::upgrade::on(answer)).await??;
        Ok((status, headers, Some(TokioIo::new(tunnel))))
    }

    /// CONNECTs to an address, as ztunnel does.
    pub async fn connect(&mut self, authority: &str) -> Result<(StatusCode, Option<Tunnel>)> {
        let request = Request::connect(authority).body(Empty::new())?;
        let (status, _, tunnel) = self.send(request).await?;
        Ok((status, tunnel))
    }
}

/// TLS from a pod, with any ALPN.
pub async fn tls(
    from: &Pod,
    to: SocketAddr,
    credentials: Option<&Credentials>,
    alpn: &[u8],
) -> Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = from.connect(to)?;
    stream.set_nonblocking(true)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match credentials {
        Some(credentials) => config.with_client_auth_cert(credentials.chain.clone(), credentials.key())?,
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::IpAddress(to.ip().into());
    let stream = connector.connect(name, TcpStream::from_std(stream)?);
    Ok(tokio::time::timeout(PATIENCE, stream).await.context("no handshake")??)
}

/// Takes every server: what it showed is looked at afterwards.
#[derive(Debug)]
pub struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A CONNECT that a [`Server`] got.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its `:authority`.
    pub authority: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// The client's SPIFFE ID.
    pub client: String,
}

/// The server side in a pod that no agent of weft serves: it ends TLS and connects to the application.
pub struct Server {
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Server {
    /// Listens on 15008 in the pod.
    pub fn start(pod: &Arc<Pod>, credentials: &Credentials, authority: &Authority) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(authority.verifier()?)
            .with_single_cert(credentials.chain.clone(), credentials.key())?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (stop, stopped) = oneshot::channel();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (inside, noted) = (pod.clone(), seen.clone());
        let thread = std::thread::spawn(move || {
            // Sockets of this thread are the pod's.
            inside.enter(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    tokio::select! {
                        result = serve(acceptor, noted) => result,
                        _ = stopped => Ok(()),
                    }
                })
            })?
        });
        pod.listening(PORT)?;
        Ok(Self { seen, stop: Some(stop), thread: Some(thread) })
    }

    /// All CONNECTs so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().map(JoinHandle::join);
    }
}

async fn serve(acceptor: TlsAcceptor, seen: Arc<Mutex<Vec<Seen>>>) -> Result<()> {
    let listener = TcpListener::bind(("::", PORT)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (acceptor, seen) = (acceptor.clone(), seen.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let client = spiffe_id(stream.get_ref().1.peer_certificates().unwrap_or_default());
            let Ok(client) = client else { return };
            let service =
                hyper::service::service_fn(move |request| tunnel(request, client.clone(), seen.clone()));
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            http.serve_connection(TokioIo::new(stream), service).await.ok();
        });
    }
}

async fn tunnel(
    request: Request<Incoming>,
    client: String,
    seen: Arc<Mutex<Vec<Seen>>>,
) -> Result<Response<Empty<Bytes>>> {
    let authority = request.uri().authority().context("no authority")?.to_string();
    let headers = request.headers().clone();
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(Seen {
        authority: authority.clone(),
        headers,
        client,
    });
    let Ok(mut application) = TcpStream::connect(&authority).await else {
        return Ok(Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).body(Empty::new())?);
    };
    tokio::spawn(async move {
        let Ok(tunnel) = hyper::upgrade::on(request).await else { return };
        tokio::io::copy_bidirectional(&mut TokioIo::new(tunnel), &mut application).await.ok();
    });
    Ok(Response::new(Empty::new()))
}
