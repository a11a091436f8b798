//! `Connection: upgrade`: after a 101 both connections leave HTTP, and their bytes are relayed.

use std::rc::Rc;

use bytes::Bytes;
use http::Request;
use tokio::sync::oneshot;

use super::MeteredRequestBody as RequestBody;
use super::attempt::{Answer, Endpoint, Failed, classify};
use super::body::{Lease, Leased};
use super::exchange::Exchange;
use super::target::Escaped;
use crate::connection::Downstream;
use crate::pool::Pool;
use crate::relay::{self, Ahead};
use crate::standing::{self, Activity};
use crate::stream::Stream;
use crate::upstream::Held;

/// An endpoint's socket, once its connection has left HTTP, and what was read from it beyond the 101.
pub(super) type Switched = oneshot::Receiver<(Stream, Held, Bytes)>;

/// A client's connection that is leaving HTTP.
#[derive(Debug)]
pub(super) struct Switch {
    /// The exchange that made it so; recorded when the relay ends.
    pub(super) exchange: Rc<Exchange>,
    /// The other socket.
    pub(super) upstream: Switched,
    /// What is held of the endpoint meanwhile.
    pub(super) lease: Lease,
}

/// Sends a request that asks for an upgrade, on a connection of its own.
pub(super) async fn send(
    down: &Rc<Downstream>,
    endpoint: Endpoint,
    request: Request<RequestBody>,
) -> Result<Answer, Failed> {
    let (mut connection, mut driver, pod) = match Pool::dedicated(down, &endpoint.to).await {
        Ok(opened) => opened,
        Err(error) => return Err(Failed { error, unsent: Some(Box::new(request)) }),
    };
    let (give, switched) = oneshot::channel();
    tokio::task::spawn_local(async move {
        // Unlike awaiting it, this leaves the socket open after a 101.
        let ended = std::future::poll_fn(|context| driver.poll_without_shutdown(context)).await;
        if ended.is_ok() {
            let parts = driver.into_parts();
            // Nobody takes it unless the answer was 101.
            drop(give.send((parts.io.into_inner().into_stream(), pod, parts.read_buf)));
        }
    });
    if request.extensions().get::<Escaped>().is_some() {
        connection.restore.set(true);
    }
    match connection.sender.try_send_request(request).await {
        Ok(response) => {
            let (head, body) = response.into_parts();
            let local_address = connection.local_address;
            let security = connection.security.clone();
            let lease = Lease { connection: Leased::Alone(connection), in_use: endpoint.in_use };
            Ok(Answer { head, body, lease, local_address, security, switched: Some(switched) })
        }
        Err(mut failure) => {
            let unsent = failure.take_message().map(Box::new);
            Err(Failed { error: classify(failure.into_error()), unsent })
        }
    }
}

impl Switch {
    /// Relays until the end; `client_first` was read from the client beyond its request.
    pub(super) async fn run(self, client: Stream, client_first: Bytes) {
        let Self { exchange, upstream, lease } = self;
        match upstream.await {
            Ok((stream, pod, server_first)) => {
                let ahead = Ahead { received: client_first, sent: server_first, line: None };
                let end = standing::unproved(&exchange.down);
                let totals = relay::run(
                    client,
                    stream,
                    ahead,
                    &Activity::default(),
                    Some(&exchange.down.account),
                    end,
                )
                .await;
                drop(pod);
                exchange.request_bytes.set(exchange.request_bytes.get() + totals.received);
                exchange.response_bytes.set(exchange.response_bytes.get() + totals.sent);
            }
            Err(_) => client.reset(),
        }
        drop(lease);
        exchange.finish();
    }
}
