//! The destination's side: takes connections at a pod's port 15008, and lets tunnels through to the pod's programs.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Method, Request, Response, StatusCode};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::server::TlsStream;
use weft_rules::identity::Identity;

use super::{Tunnel, authority, until_silent};
use crate::datapath::LocalPod;
use crate::proxy::connection;
use crate::proxy::inbound;
use crate::proxy::mtls::{self, Account, MtlsError};
use crate::proxy::worker::Core;
use crate::proxy::{limits, tcp};
use crate::telemetry::Security;

/// A connection that carries tunnels.
#[derive(Debug)]
struct Carrier {
    core: Rc<Core>,
    /// Where it arrived.
    pod: Arc<LocalPod>,
    /// The other end, which is the calling pod.
    peer: SocketAddr,
    local_address: Option<SocketAddr>,
    identity: Arc<Identity>,
    security: Security,
}

/// Serves a connection to a pod's port 15008. `stop` ends with the pod's time in the mesh.
pub(in crate::proxy) async fn serve(
    core: &Rc<Core>,
    pod: &Arc<LocalPod>,
    socket: TcpStream,
    peer: SocketAddr,
    handshakes: &Semaphore,
    stop: watch::Receiver<()>,
) {
    let local_address = socket.local_addr().ok();
    let shared = &core.shared;
    let account = Account::of(&connection::workload_of(&shared.snapshot.load(), pod));
    let opened = async {
        // Fails only for a semaphore that was closed; this one never is.
        let _permit = handshakes.acquire().await.ok();
        let tls = mtls::of_account(shared.identities.as_ref(), &account, limits::HANDSHAKE).await?;
        let (stream, identity) = mtls::accept(&tls, socket).await?;
        let handshake = builder().handshake(stream);
        match tokio::time::timeout(limits::HANDSHAKE, handshake).await {
            Ok(Ok(connection)) => Ok((connection, identity)),
            Ok(Err(error)) => Err(MtlsError::Handshake(std::io::Error::other(error))),
            Err(_) => Err(MtlsError::Timeout),
        }
    };
    match opened.await {
        Ok((connection, identity)) => {
            let own = Identity {
                trust_domain: shared.trust_domain.clone(),
                namespace: account.namespace,
                service_account: account.name,
            };
            let carrier = Carrier {
                core: Rc::clone(core),
                pod: Arc::clone(pod),
                peer,
                local_address,
                security: Security::mutual_tls(identity.clone(), own),
                identity: Arc::new(identity),
            };
            carry(Rc::new(carrier), connection, stop).await;
        }
        Err(error) => tracing::debug!(pod = %pod.network.key, %peer, %error, "no tunnel"),
    }
}

fn builder() -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(limits::HBONE_STREAMS)
        .initial_window_size(limits::HBONE_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HBONE_CONNECTION_WINDOW_BYTES)
        .max_frame_size(limits::HBONE_FRAME_BYTES)
        .max_header_list_size(limits::HBONE_HEADER_BYTES)
        .max_send_buffer_size(limits::HBONE_SEND_BUFFER_BYTES);
    builder
}

/// Takes tunnels until the connection ends. When the pod leaves the mesh or the agent ends, no new ones: those that
/// stand may finish.
async fn carry(
    carrier: Rc<Carrier>,
    mut connection: Connection<TlsStream<TcpStream>, Bytes>,
    mut stop: watch::Receiver<()>,
) {
    let mut silent = std::pin::pin!(until_silent(connection.ping_pong()));
    let mut leaving = false;
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let entered = carrier.core.enter();
                    let carrier = Rc::clone(&carrier);
                    tokio::task::spawn_local(async move {
                        tunnel(&carrier, request, respond).await;
                        drop(entered);
                    });
                }
                Some(Err(error)) => {
                    tracing::debug!(pod = %carrier.pod.network.key, peer = %carrier.peer, %error, "tunnels broke off");
                    return;
                }
                None => return,
            },
            () = left(&carrier.core, &mut stop), if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
            }
            () = &mut silent => return,
        }
    }
}

/// Waits until the pod has left the mesh, or the agent is about to end.
async fn left(core: &Core, stop: &mut watch::Receiver<()>) {
    tokio::select! {
        _ = stop.changed() => {}
        () = core.drained() => {}
    }
}

/// One tunnel: decided upon, connected, and only then answered 200.
async fn tunnel(carrier: &Carrier, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let Carrier { core, pod, peer, identity, .. } = carrier;
    if request.method() != Method::CONNECT {
        return answer(&mut respond, StatusCode::BAD_REQUEST);
    }
    let Some(to) = authority::destination(request.uri(), &pod.network.addresses) else {
        return answer(&mut respond, StatusCode::BAD_REQUEST);
    };
    let caller = inbound::Caller {
        peer: *peer,
        identity: Some(Arc::clone(identity)),
        security: carrier.security.clone(),
    };
    let (down, verdict) = inbound::decide(core, pod, to, caller, |_| false);
    if let Some(error) = inbound::refusal(&verdict) {
        tcp::report_refused(&down, &error);
        return answer(&mut respond, StatusCode::UNAUTHORIZED);
    }
    let dialled = tokio::select! {
        dialled = tcp::dial(&down) => dialled,
        // The caller waits no longer.
        _ = std::future::poll_fn(|context| respond.poll_reset(context)) => return,
    };
    let upstream = match dialled {
        Ok(upstream) => upstream,
        Err(error) => {
            tcp::report_refused(&down, &error);
            return answer(&mut respond, StatusCode::SERVICE_UNAVAILABLE);
        }
    };
    let Ok(send) = respond.send_response(Response::new(()), false) else { return };
    let stream = Tunnel::new(send, request.into_body(), carrier.local_address, None);
    inbound::serve(down, stream.into(), verdict, Some(upstream)).await;
}

fn answer(respond: &mut SendResponse<Bytes>, status: StatusCode) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    if respond.send_response(response, true).is_err() {
        respond.send_reset(Reason::CANCEL);
    }
}
