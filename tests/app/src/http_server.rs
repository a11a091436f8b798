//! What all HTTP roles share: listening, HTTP/1.1 and h2c on one port, answers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};

/// Why an answer breaks off.
pub type BoxError = anyhow::Error;
/// The body of every answer.
pub type Body = BoxBody<Bytes, BoxError>;

/// Flags of every HTTP role.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where to listen; may be repeated
    #[arg(long = "port", required = true)]
    pub ports: Vec<u16>,
    /// The version that answers name
    #[arg(long, default_value = "v1")]
    pub version: String,
    /// The name that answers bear
    #[arg(long, default_value = "app")]
    pub name: String,
}

/// A request and both ends of the connection that it came by.
pub struct Call {
    /// The request.
    pub request: Request<Incoming>,
    /// Who is connected.
    pub peer: SocketAddr,
    /// Where to.
    pub local: SocketAddr,
}

/// Serves `handler` on every port for ever. An error of the handler closes the connection without an answer.
pub async fn serve<Handler, Answer>(args: &Args, handler: Handler) -> Result<()>
where
    Handler: Fn(Call) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<Response<Body>, BoxError>> + Send + 'static,
{
    let handler = Arc::new(handler);
    let mut servers = tokio::task::JoinSet::new();
    for port in &args.ports {
        let listener = TcpListener::from_std(crate::listen(*port)?)?;
        servers.spawn(accept(listener, handler.clone(), args.clone()));
    }
    servers.join_next().await.context("no port to serve")?.context("a listener ended")
}

async fn accept<Handler, Answer>(listener: TcpListener, handler: Arc<Handler>, args: Args)
where
    Handler: Fn(Call) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<Response<Body>, BoxError>> + Send + 'static,
{
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // Out of file descriptors; some connection will end.
            tokio::task::yield_now().await;
            continue;
        };
        tokio::spawn(connection(stream, crate::canonical(peer), handler.clone(), args.clone()));
    }
}

async fn connection<Handler, Answer>(stream: TcpStream, peer: SocketAddr, handler: Arc<Handler>, args: Args)
where
    Handler: Fn(Call) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<Response<Body>, BoxError>> + Send + 'static,
{
    stream.set_nodelay(true).ok();
    let Ok(local) = stream.local_addr().map(crate::canonical) else { return };
    let version = HeaderValue::from_str(&args.version).unwrap_or(HeaderValue::from_static("?"));
    let name = HeaderValue::from_str(&args.name).unwrap_or(HeaderValue::from_static("?"));
    let service = service_fn(|request| {
        let answer = handler(Call { request, peer, local });
        let (version, name) = (version.clone(), name.clone());
        async move {
            let mut response = answer.await?;
            response.headers_mut().insert("x-app-version", version);
            response.headers_mut().insert("x-app", name);
            Ok::<_, BoxError>(response)
        }
    });
    // How a connection ends is the client's business.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await;
}

/// A body that is all there.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// An answer in text of the given type.
pub fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// 200 with JSON.
pub fn json(value: &serde_json::Value) -> Response<Body> {
    answer(StatusCode::OK, "application/json", format!("{value}\n"))
}

/// 404.
pub fn not_found() -> Response<Body> {
    answer(StatusCode::NOT_FOUND, "text/plain", "not found\n")
}
