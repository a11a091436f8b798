//! What comes to a gateway pod: the node's agent serves it from inside the pod's namespace, by the Gateways that select the
//! pod and the VirtualServices bound to these. The pod's own program serves nothing there.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use ::http::{Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::server::Accepted;
use tokio_rustls::StartHandshake;
use weft_api::istio::{ServerTlsMode, Termination};
use weft_api::names;
use weft_datapath::{Life, LocalPod};
use weft_identity::ClientCertificate;
use weft_rules::route::gateway::{AtServerName, GatewayProtocol};

use super::client_hello::ClientHello;
use super::connection::{self, Downstream, EndedTls};
use super::core::Core;
use super::error::{Error, Kind};
use super::stream::Stream;
use super::{client_hello, detect, http, inbound, limits, tcp};

/// Whether somebody who comes to this port asks how the gateway is: its readiness probe, or a load balancer before it.
pub(super) fn is_asked_how_it_is(core: &Core, pod: &LocalPod, port: u16) -> bool {
    port == names::GATEWAY_HEALTH_PORT
        && connection::workload_of(&core.shared.snapshot.load(), pod).is_gateway()
        && !serves(core, pod, port)
}

/// Says how the gateway is: that this answers at all means that the node's agent serves it.
pub(super) async fn tell_how_it_is(core: &Rc<Core>, pod: &Arc<LocalPod>, stream: Stream) {
    let service = service_fn(|request: Request<Incoming>| {
        let (status, said) = match request.uri().path() {
            "/healthz/ready" => health(core, pod),
            _ => (StatusCode::NOT_FOUND, "there is /healthz/ready\n"),
        };
        let mut answer = Response::new(Full::new(Bytes::from_static(said.as_bytes())));
        *answer.status_mut() = status;
        async { Ok::<_, Infallible>(answer) }
    });
    let serving = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(limits::HEALTH_BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    drop(tokio::time::timeout(limits::HEALTH, serving).await);
}

fn health(core: &Core, pod: &LocalPod) -> (StatusCode, &'static str) {
    let workload = connection::workload_of(&core.shared.snapshot.load(), pod);
    let lacks_certificate =
        core.shared.identities.as_ref().is_some_and(|identities| {
            identities.tls(&workload.namespace, &workload.service_account).is_none()
        });
    if pod.life() >= Life::Ending {
        (StatusCode::SERVICE_UNAVAILABLE, "the pod is being ended\n")
    } else if lacks_certificate {
        (StatusCode::SERVICE_UNAVAILABLE, "its certificate is on its way\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}

/// Whether a Gateway has this port of the pod.
pub(super) fn serves(core: &Core, pod: &LocalPod, port: u16) -> bool {
    core.shared.snapshot.load().gateway_port(&pod.network.key, port).is_some()
}

/// Serves a connection from outside: each request, or all of its bytes, is decided upon by the pod's own policies, then by
/// the rules.
pub(super) async fn arrive(
    core: &Rc<Core>,
    pod: &Arc<LocalPod>,
    mut stream: Stream,
    peer: SocketAddr,
    to: SocketAddr,
) {
    let down = Downstream::at_gateway(Rc::clone(core), Arc::clone(pod), peer, to);
    match down.read_at_gateway() {
        Some(GatewayProtocol::Http) => {
            if let Some(first) = detect::http_version(&mut stream).await {
                http::serve(down, stream, first).await;
            }
        }
        Some(GatewayProtocol::Bytes) => pass(&down, stream, Bytes::new()).await,
        Some(GatewayProtocol::ServerName) => {
            if let Some(hello) = client_hello::read(&mut stream).await {
                serve_tls(&down, stream, hello).await;
            }
        }
        // It was the port of one a moment ago.
        None => stream.reset(),
    }
}

/// Ends TLS, or leaves that to a destination, as the server has it for whom the client asks.
async fn serve_tls(down: &Rc<Downstream>, stream: Stream, hello: ClientHello) {
    down.name_server(hello.name);
    match (down.at_server_name(), hello.accepted) {
        (AtServerName::Ends(termination), Some(accepted)) => {
            match end_tls(down, stream, *accepted, termination).await {
                Ok(stream) => serve_inside(down, stream).await,
                Err(error) => tcp::report_refused(down, &error),
            }
        }
        (AtServerName::Ends(_), None) => {
            inbound::refuse(down, stream, &Error::new(Kind::DownstreamGone, "it does not speak TLS"));
        }
        (AtServerName::Passed | AtServerName::Nobody, _) => pass(down, stream, hello.bytes).await,
    }
}

/// Serves what was inside of TLS that has ended here.
async fn serve_inside(down: &Rc<Downstream>, mut stream: Stream) {
    match down.behind_tls() {
        Some(GatewayProtocol::Http) => {
            if let Some(first) = detect::http_version(&mut stream).await {
                http::serve(Rc::clone(down), stream, first).await;
            }
        }
        Some(GatewayProtocol::Bytes) => pass(down, stream, Bytes::new()).await,
        // Its server went, or lets in other clients now.
        Some(GatewayProtocol::ServerName) | None => stream.reset(),
    }
}

/// The server's side of a handshake with a client from outside the mesh.
async fn end_tls(
    down: &Rc<Downstream>,
    stream: Stream,
    accepted: Accepted,
    termination: Arc<Termination>,
) -> Result<Stream, Error> {
    let failed = |why: String| Error::new(Kind::DownstreamGone, why);
    let Stream::Tcp(socket) = stream else { return Err(failed("it is no socket".to_owned())) };
    let config = match handshakes(down, &termination) {
        Ok(config) => config,
        Err(why) => {
            Stream::from(socket).reset();
            return Err(Error::new(Kind::NoRoute, format!("TLS is not served: {why}")));
        }
    };
    let Some(charge) = down.account.charge(limits::ENDED_TLS) else {
        Stream::from(socket).reset();
        return Err(Kind::Overloaded.into());
    };
    down.account.turn_for_handshake().await;
    let handshake = StartHandshake::from_parts(accepted, socket).into_stream(config);
    let stream = match tokio::time::timeout(limits::HANDSHAKE, Box::pin(handshake)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(failed(format!("TLS handshake: {error}"))),
        Err(_) => return Err(failed("TLS handshake: timed out".to_owned())),
    };
    let mut client = ClientCertificate::of(stream.get_ref().1);
    if termination.settings.insecure_skip_verify == Some(true)
        && let Some(client) = &mut client
    {
        // Nobody has checked who signed it.
        client.identity = None;
    }
    down.end_tls(EndedTls { termination, client, _charge: charge });
    Ok(Stream::Tls(Box::new(stream.into())))
}

/// What handshakes are made by; else why there are none.
fn handshakes(down: &Downstream, termination: &Arc<Termination>) -> Result<Arc<ServerConfig>, Arc<str>> {
    let shared = &down.core.shared;
    if termination.settings.mode != ServerTlsMode::IstioMutual {
        return shared.credentials.server(termination);
    }
    let account = down.own_workload().service_account.clone();
    let tls = shared.identities.as_ref().and_then(|all| all.tls(&termination.namespace, &account));
    let tls = tls.ok_or_else(|| Arc::from("the gateway's service account has no certificate"))?;
    Ok(tls.gateway(termination.requests))
}

/// Passes bytes on, if the pod's policies let them; `first` has been read of them.
async fn pass(down: &Rc<Downstream>, stream: Stream, first: Bytes) {
    let verdict = inbound::consult(down, inbound::decide_as_bytes(down)).await;
    match inbound::refusal(&verdict) {
        None => tcp::serve(down, stream, first).await,
        Some(error) => inbound::refuse(down, stream, &error),
    }
}
