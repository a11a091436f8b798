//! The client's side: hyper reads requests off a connection, [`super::route`] answers them.

use std::convert::Infallible;
use std::rc::Rc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::LocalExecutor;
use super::body::ResponseBody;
use super::exchange::Exchange;
use crate::proxy::connection::Downstream;
use crate::proxy::detect::HttpStart;
use crate::proxy::io::ClientIo;
use crate::proxy::limits;

/// Serves a connection until either side ends it.
pub(in crate::proxy) async fn serve(down: Rc<Downstream>, stream: TcpStream, start: HttpStart) {
    let io = TokioIo::new(ClientIo::new(stream, start.bytes));
    if start.http2 {
        serve_http2(down, io).await;
    } else {
        serve_http1(down, io).await;
    }
}

async fn serve_http1(down: Rc<Downstream>, io: TokioIo<ClientIo>) {
    let service = service_fn(|request| respond(Rc::clone(&down), request));
    let connection = http1::Builder::new()
        .max_buf_size(limits::HTTP1_BUFFER_BYTES)
        .max_header_size(limits::HEADER_BYTES)
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = down.core.drained() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    log_end(&down, ended);
}

async fn serve_http2(down: Rc<Downstream>, io: TokioIo<ClientIo>) {
    let service = service_fn(|request| respond(Rc::clone(&down), request));
    let connection = http2::Builder::new(LocalExecutor)
        .max_concurrent_streams(limits::HTTP2_STREAMS)
        .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW_BYTES)
        .max_header_list_size(limits::HEADER_BYTES as u32)
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = down.core.drained() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    log_end(&down, ended);
}

fn log_end(down: &Downstream, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(peer = %down.peer, dialled = %down.dialled, %error, "client connection ended early");
    }
}

/// Answers one request. The answer's body records the exchange; without one, this does.
async fn respond(
    down: Rc<Downstream>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let (parts, body) = request.into_parts();
    let unanswered = Unanswered(Some(Exchange::begin(&down, &parts)));
    let response = super::route::answer(unanswered.exchange(), parts, body).await;
    Ok(unanswered.answered(response))
}

/// An exchange whose client may leave while it waits: hyper then drops the future that holds this.
struct Unanswered(Option<Rc<Exchange>>);

impl Unanswered {
    fn exchange(&self) -> &Rc<Exchange> {
        self.0.as_ref().unwrap_or_else(|| unreachable!("taken only when answered"))
    }

    fn answered<T>(mut self, response: T) -> T {
        self.0 = None;
        response
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(exchange) = &self.0 {
            exchange.abandoned();
        }
    }
}
