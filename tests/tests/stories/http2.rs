//! HTTP/2 with prior knowledge, and gRPC: trailers, streams both ways, many at once.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;
use weft_tests::{Mesh, story};

use crate::deploy;

/// A body of any kind.
pub type Body = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;

/// Runs to its end, or for a minute.
pub fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let patience = Duration::from_mins(1);
    runtime.block_on(async { tokio::time::timeout(patience, work).await.context("never ended")? })
}

/// A connection from the client.
pub async fn connect(mesh: &Mesh, service: &str) -> Result<SendRequest<Body>> {
    let stream = mesh.the("client")?.connect(mesh.service_at(service, 80)?)?;
    stream.set_nonblocking(true)?;
    let io = TokioIo::new(tokio::net::TcpStream::from_std(stream)?);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
    tokio::spawn(connection);
    Ok(sender)
}

fn grpc(path: &str, body: Body) -> Result<Request<Body>> {
    Ok(Request::post(format!("http://echo-grpc{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)?)
}

/// A message with gRPC's five bytes before it.
fn message(text: &str) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
    bytes.extend(text.as_bytes());
    bytes.into()
}

/// A body that is there.
pub fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).boxed()
}

async fn collect(response: Response<Incoming>) -> Result<(u16, Bytes, HeaderMap)> {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    Ok((status, body.to_bytes(), trailers))
}

#[test]
fn prior_knowledge_is_understood_on_every_kind_of_http_port() {
    story(|mesh| {
        deploy::echo(mesh)?;
        for service in ["echo", "echo-grpc", "echo-raw"] {
            let answer = mesh.http("client", &format!("http://{service}/a?b=c"))?.h2().send()?;
            let seen = answer.json()?;
            ensure!(
                answer.status == 200 && seen["path"] == "/a?b=c" && seen["host"] == service,
                "{answer:?}"
            );
            ensure!(deploy::got_header(&seen, "x-forwarded-proto").as_deref() == Some("http"), "{seen}");
        }
        // On a port declared http2 or grpc the application is spoken to in HTTP/2.
        let seen = mesh.http("client", "http://echo-grpc/")?.h2().send()?.json()?;
        ensure!(seen["httpVersion"] == "HTTP/2.0", "{seen}");
        let report = mesh.load("client", &["http://echo/", "--h2", "-n", "500", "-c", "4"])?.wait()?;
        report.none_failed()?;
        Ok(())
    });
}

#[test]
fn a_grpc_call_has_its_trailers() {
    story(|mesh| {
        deploy::echo(mesh)?;
        block_on(async {
            let mut sender = connect(mesh, "echo-grpc").await?;
            let sent = message("hello");
            let response = sender.send_request(grpc("/weft.test.Echo/Unary", whole(sent.clone()))?).await?;
            ensure!(response.headers()["content-type"] == "application/grpc");
            let (status, body, trailers) = collect(response).await?;
            ensure!(status == 200 && body == sent, "{status} {body:?}");
            ensure!(trailers["grpc-status"] == "0" && trailers["grpc-message"] == "echoed", "{trailers:?}");
            // No rule for it, nobody there: gRPC's own way to say so.
            mesh.apply_now(
                "rules",
                &deploy::virtual_service("echo-grpc", "http", "- match: [{uri: {exact: /weft.test.Echo/Unary}}]\n  fault: {abort: {grpcStatus: NOT_FOUND, percentage: {value: 100}}}\n  route: [{destination: {host: echo-grpc}}]\n"),
            )?;
            let response = sender.send_request(grpc("/weft.test.Echo/Unary", whole(sent))?).await?;
            let headers = response.headers().clone();
            let (status, _, trailers) = collect(response).await?;
            let grpc_status = headers.get("grpc-status").or_else(|| trailers.get("grpc-status")).cloned();
            ensure!(
                status == 200 && grpc_status.is_some_and(|s| s == "5"),
                "{status} {headers:?} {trailers:?}"
            );
            Ok(())
        })
    });
}

#[test]
fn a_grpc_stream_flows_both_ways_at_once() {
    story(|mesh| {
        deploy::echo(mesh)?;
        block_on(async {
            let mut sender = connect(mesh, "echo-grpc").await?;
            let (frames, receiver) = mpsc::channel::<Bytes>(1);
            let request = grpc("/weft.test.Echo/Stream", Receiver(receiver).boxed())?;
            let response = tokio::spawn(sender.send_request(request));
            // Headers of the answer come before the request's end.
            frames.send(message("first")).await?;
            let mut response = response.await??;
            for text in ["first", "second", "third"] {
                if text != "first" {
                    frames.send(message(text)).await?;
                }
                let frame = response.body_mut().frame().await.context("ended early")??;
                let data = frame.into_data().map_err(|_| anyhow::anyhow!("trailers too early"))?;
                ensure!(data == message(text), "{data:?}");
            }
            drop(frames);
            let (_, rest, trailers) = collect(response).await?;
            ensure!(rest.is_empty() && trailers["grpc-status"] == "0", "{rest:?} {trailers:?}");
            Ok(())
        })
    });
}

/// A channel as a body.
struct Receiver(mpsc::Receiver<Bytes>);

impl http_body::Body for Receiver {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[test]
fn many_streams_of_one_connection_go_their_own_ways() {
    story(|mesh| {
        deploy::echo(mesh)?;
        deploy::route(
            mesh,
            "- match: [{uri: {prefix: /two}}]\n  route: [{destination: {host: echo, subset: v2}}]\n\
             - route: [{destination: {host: echo, subset: v1}}]\n",
        )?;
        block_on(async {
            let sender = Arc::new(tokio::sync::Mutex::new(connect(mesh, "echo").await?));
            let mut calls = tokio::task::JoinSet::new();
            for number in 0..100 {
                let sender = sender.clone();
                calls.spawn(async move {
                    // Some are slow: the others do not wait for them.
                    let kind = if number % 2 == 0 { "one" } else { "two" };
                    let pause = if number % 10 == 0 { "?sleep" } else { "" };
                    let request = Request::get(format!("http://echo/{kind}/{number}{pause}"))
                        .body(whole(Bytes::new()))?;
                    let response = sender.lock().await.send_request(request);
                    let response = response.await?;
                    let version = response.headers()["x-app-version"].to_str()?.to_owned();
                    let (status, _, _) = collect(response).await?;
                    ensure!(
                        status == 200 && version == if kind == "one" { "v1" } else { "v2" },
                        "{number}: {version}"
                    );
                    Ok(())
                });
            }
            while let Some(call) = calls.join_next().await {
                call??;
            }
            Ok(())
        })
    });
}

#[test]
fn a_megabyte_of_messages_comes_back_whole() {
    story(|mesh| {
        deploy::echo(mesh)?;
        block_on(async {
            let mut sender = connect(mesh, "echo-grpc").await?;
            let big: Bytes = (0..4 << 20).map(|n: u32| n as u8).collect::<Vec<u8>>().into();
            let (status, body, trailers) =
                collect(sender.send_request(grpc("/weft.test.Echo/Unary", whole(big.clone()))?).await?)
                    .await?;
            ensure!(status == 200 && body == big, "{} of {} bytes", body.len(), big.len());
            ensure!(trailers["x-bytes"] == big.len().to_string().as_str());
            Ok(())
        })
    });
}
