//! The destination's side: takes connections at a pod's port 15008, and lets tunnels through to the pod's programs.

use std::rc::Rc;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, Response, StatusCode};
use tokio::sync::watch;

use super::{Tunnel, head, until_silent};
use crate::limits;
use crate::tunnels::{Carrier, NotOpened};
use crate::wire::Wire;

/// Serves a connection on which both ends have agreed to speak HBONE. `stop` ends with the pod's time in the mesh.
pub(crate) async fn serve(carrier: Rc<Carrier>, stream: Wire, stop: watch::Receiver<()>) {
    match tokio::time::timeout(limits::HANDSHAKE, head::builder().handshake(stream)).await {
        Ok(Ok(connection)) => carry(carrier, connection, stop).await,
        Ok(Err(error)) => {
            tracing::debug!(pod = %carrier.pod.network.key, peer = %carrier.peer, %error, "no HTTP/2 in the tunnel");
        }
        Err(_) => {
            tracing::debug!(pod = %carrier.pod.network.key, peer = %carrier.peer, "HTTP/2 in the tunnel does not begin");
        }
    }
}

/// Takes tunnels until the connection ends. When the pod leaves the mesh or the agent ends, no new ones: those that
/// stand may finish.
async fn carry(carrier: Rc<Carrier>, mut connection: Connection<Wire, Bytes>, mut stop: watch::Receiver<()>) {
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
            () = carrier.left(&mut stop), if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
            }
            () = &mut silent => return,
        }
    }
}

/// One tunnel: decided upon, connected, and only then answered 200.
async fn tunnel(carrier: &Carrier, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let Some(to) = head::destination(&request, &carrier.pod.network.addresses) else {
        return answer(&mut respond, StatusCode::BAD_REQUEST);
    };
    let opened = tokio::select! {
        opened = carrier.open(to, false) => opened,
        // The caller waits no longer.
        _ = std::future::poll_fn(|context| respond.poll_reset(context)) => return,
    };
    let opened = match opened {
        Ok(opened) => opened,
        Err(NotOpened::Denied) => return answer(&mut respond, StatusCode::UNAUTHORIZED),
        Err(NotOpened::Unavailable) => return answer(&mut respond, StatusCode::SERVICE_UNAVAILABLE),
    };
    let Ok(send) = respond.send_response(Response::new(()), false) else { return };
    let stream = Tunnel::new(send, request.into_body(), carrier.local_address, None);
    opened.serve(stream.into()).await;
}

fn answer(respond: &mut SendResponse<Bytes>, status: StatusCode) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    if respond.send_response(response, true).is_err() {
        respond.send_reset(Reason::CANCEL);
    }
}
