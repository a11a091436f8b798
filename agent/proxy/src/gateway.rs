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
use weft_api::names;
use weft_datapath::{Life, LocalPod};
use weft_rules::route::gateway::GatewayProtocol;

use super::connection::{self, Downstream};
use super::core::Core;
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
                down.name_server(hello.name);
                pass(&down, stream, hello.bytes).await;
            }
        }
        // It was the port of one a moment ago.
        None => stream.reset(),
    }
}

/// Passes bytes on, if the pod's policies let them; `first` has been read of them.
async fn pass(down: &Rc<Downstream>, stream: Stream, first: Bytes) {
    let verdict = inbound::consult(down, inbound::decide_as_bytes(down)).await;
    match inbound::refusal(&verdict) {
        None => tcp::serve(down, stream, first).await,
        Some(error) => inbound::refuse(down, stream, &error),
    }
}
