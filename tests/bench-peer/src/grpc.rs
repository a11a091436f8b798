//! Unary calls of gRPC, 1 KiB each way, as its libraries make them: several at once on each connection of HTTP/2. What they
//! say is not decoded: the frames and heads are gRPC's, the message is any.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use crate::client::Outcome;
use crate::histogram::Histogram;

/// Bytes of a message.
const MESSAGE: usize = 1 << 10;
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

#[derive(clap::Args)]
pub struct Args {
    /// The server
    to: SocketAddr,
    /// The server's name
    #[arg(long)]
    authority: String,
    /// Connections at once
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Calls at once on each
    #[arg(long, default_value_t = 8)]
    calls: usize,
    /// How long, in seconds
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
}

/// A message behind its flag and length.
fn message() -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(MESSAGE as u32);
    bytes.put_bytes(b'm', MESSAGE);
    bytes.freeze()
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Serves until killed.
pub fn serve(listen: SocketAddr) -> Result<()> {
    LocalSet::new().block_on(&runtime()?, async {
        let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot bind {listen}"))?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let service = service_fn(answer);
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::task::spawn_local(serving);
        }
    })
}

async fn answer(
    request: Request<Incoming>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>> {
    let asked = request.into_body().collect().await?.to_bytes();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let mut response = Response::new(Full::new(asked).with_trailers(async { Some(Ok(trailers)) }));
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    Ok(response)
}

/// Calls, and answers what came of it.
pub fn run(args: &Args) -> Result<Outcome> {
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(args.seconds);
    let clients: Vec<_> = (0..args.connections)
        .map(|_| {
            let (to, authority, calls) = (args.to, args.authority.clone(), args.calls);
            thread::spawn(move || LocalSet::new().block_on(&runtime()?, call(to, authority, calls, end)))
        })
        .collect();
    Outcome::of(start, clients)
}

/// Makes calls on one connection, so many at once, until the end.
async fn call(to: SocketAddr, authority: String, calls: usize, end: Instant) -> Result<Histogram> {
    let stream = TcpStream::connect(to).await.with_context(|| format!("cannot connect to {to}"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::task::spawn_local(connection);
    let uri: Rc<str> = format!("http://{authority}/bench.Echo/Say").into();
    let callers: Vec<_> = (0..calls)
        .map(|_| {
            let (mut sender, uri) = (sender.clone(), Rc::clone(&uri));
            tokio::task::spawn_local(async move {
                let mut latencies = Histogram::new();
                while Instant::now() < end {
                    let began = Instant::now();
                    let request = Request::post(&*uri).header(CONTENT_TYPE, GRPC).header("te", "trailers");
                    let response = sender.send_request(request.body(Full::new(message()))?).await?;
                    let status = response.status();
                    let collected = response.into_body().collect().await?;
                    let is_ok = collected.trailers().is_some_and(|trailers| trailers["grpc-status"] == "0");
                    let length = collected.to_bytes().len();
                    ensure!(status == 200 && is_ok && length == MESSAGE + 5, "a call was answered {status}");
                    latencies.record(began.elapsed());
                }
                Ok(latencies)
            })
        })
        .collect();
    let mut all = Histogram::new();
    for caller in callers {
        all.merge(&caller.await??);
    }
    Ok(all)
}
