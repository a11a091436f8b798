//! Accepts connections, with TLS or without, and serves HTTP on them within limits.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// Longest wait for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest wait for a request's headers.
const HEADERS: Duration = Duration::from_secs(10);
/// Most connections at once: more wait in the kernel.
const CONNECTIONS: usize = 4096;
/// Most requests at once on a connection.
const STREAMS: u32 = 256;
/// A connection that says nothing is asked whether it lives.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// After an error of accepting, such as no file descriptor being left.
const PAUSE: Duration = Duration::from_millis(200);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A port to be served.
pub struct Listener {
    socket: TcpListener,
    tls: Option<TlsAcceptor>,
}

impl Listener {
    /// Takes the port.
    pub async fn bind(address: SocketAddr, tls: Option<Arc<ServerConfig>>) -> anyhow::Result<Self> {
        let socket = TcpListener::bind(address)
            .await
            .map_err(|error| anyhow::anyhow!("cannot listen on {address}: {error}"))?;
        Ok(Self { socket, tls: tls.map(TlsAcceptor::from) })
    }

    /// Answers every request by `answer`, for as long as the process lives.
    pub async fn serve<B, A>(self, answer: A)
    where
        B: Body<Error: Into<BoxError>, Data: Send> + Send + 'static,
        A: AsyncAnswer<B>,
    {
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(turn) = connections.clone().acquire_owned().await else { return };
            let stream = match self.socket.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (tls, answer) = (self.tls.clone(), answer.clone());
            tokio::spawn(async move {
                if let Err(error) = connection(stream, tls, answer).await {
                    tracing::debug!("a connection ended: {error}");
                }
                drop(turn);
            });
        }
    }
}

/// Answers requests, each with a value of its own.
pub trait AsyncAnswer<B>: Clone + Send + Sync + 'static {
    /// The answer to one request.
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response<B>> + Send;
}

async fn connection<B, A>(stream: TcpStream, tls: Option<TlsAcceptor>, answer: A) -> Result<(), BoxError>
where
    B: Body<Error: Into<BoxError>, Data: Send> + Send + 'static,
    A: AsyncAnswer<B>,
{
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return serve(stream, false, answer).await };
    let stream = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await??;
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    serve(stream, h2, answer).await
}

async fn serve<B, A, S>(stream: S, h2: bool, answer: A) -> Result<(), BoxError>
where
    B: Body<Error: Into<BoxError>, Data: Send> + Send + 'static,
    A: AsyncAnswer<B>,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = answer.clone();
        async move { Ok::<_, Infallible>(answer.answer(request).await) }
    });
    let stream = TokioIo::new(stream);
    if h2 {
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .keep_alive_interval(KEEPALIVE)
            .serve_connection(stream, service)
            .await?;
    } else {
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS)
            .serve_connection(stream, service)
            .await?;
    }
    Ok(())
}
