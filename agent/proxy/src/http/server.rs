//! The client's side: hyper reads requests off a connection, [`super::route`] answers them.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{Either, Ready, ready};
use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use weft_datapath::Life;

use super::body::{Metered, ResponseBody};
use super::client::Client;
use super::exchange::Exchange;
use super::half_close::Owed;
use super::interim::Interim;
use super::target::Escaped;
use super::{LocalExecutor, framing, local_reply};
use crate::connection::Downstream;
use crate::detect::HttpStart;
use crate::error::Kind;
use crate::io::ClientIo;
use crate::stream::Stream;
use crate::{ends, limits, standing};

/// How much is thrown away at a time.
const SCRATCH_BYTES: usize = 16 * 1024;

/// Serves a connection until either side ends it. One that has said nothing yet has no room for what that takes.
pub(crate) async fn serve(down: Rc<Downstream>, stream: Stream, start: HttpStart) {
    if start.http2 {
        Box::pin(serve_http2(down, stream, start.bytes)).await;
    } else {
        Box::pin(serve_http1(down, stream, start.bytes)).await;
    }
}

async fn serve_http1(down: Rc<Downstream>, mut stream: Stream, mut first: Bytes) {
    let interim = Arc::<Interim>::default();
    let client = Client::http1(Rc::clone(&down), Arc::clone(&interim));
    while let Some(better) = read_http1(&down, &client, &interim, stream, first).await {
        (stream, first) = better;
    }
}

/// Has hyper read requests until the connection's end. `Some`: until one that it did not read, and this is what it shall be
/// given instead.
async fn read_http1(
    down: &Rc<Downstream>,
    client: &Rc<Client>,
    interim: &Arc<Interim>,
    stream: Stream,
    first: Bytes,
) -> Option<(Stream, Bytes)> {
    let heads = Some(Rc::clone(&client.heads));
    let io = ClientIo::new(stream, first, Some(Arc::clone(interim)), heads);
    let io = TokioIo::new(io.half_closing(client.half_close.clone()));
    let service = service_fn(|request| {
        // At once: hyper looks for the client's end before it polls what answers.
        if let Some(half_close) = &client.half_close {
            half_close.owe(Owed::Unseen);
        }
        answer(client, request)
    });
    let mut connection = http1::Builder::new()
        .max_buf_size(limits::HTTP1_BUFFER_BYTES)
        .max_header_size(limits::HEADER_BYTES)
        .serve_connection(io, service);
    let place = down.core.ends.of(down);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        () = standing::unproved(down) => None,
        () = place.idle_ends(down) => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            Some((&mut connection).await)
        }
    };
    let http1::Parts { io, read_buf, .. } = connection.into_parts();
    let (mut stream, first) = io.into_inner().into_parts();
    let Some(ended) = ended else {
        stream.reset();
        return None;
    };
    if matches!(&ended, Err(error) if error.is_parse())
        && let Some(better) = client.heads.again(&read_buf)
    {
        let first = if first.is_empty() { better } else { [better, first].concat().into() };
        return Some((stream, first));
    }
    let refusal = client.heads.refusal();
    if !refusal.is_empty() {
        // Fails for a client that has left.
        if stream.write_all(&refusal).await.is_ok() {
            drop(stream.shutdown().await);
        }
    }
    let switch = client.switch.take();
    match (&ended, switch) {
        (Ok(()), Some(switch)) => {
            let first = if first.is_empty() { read_buf } else { [read_buf, first].concat().into() };
            switch.run(stream, first).await;
        }
        // A response broke off: the client must not take its end for a whole one.
        (Err(error), _) if error.is_user() => stream.reset(),
        _ => linger(stream).await,
    }
    log_end(down, ended);
    None
}

/// Reads what a client still sends after its last answer: closing at once would reset the connection, and the reset may
/// overtake the answer.
async fn linger(mut stream: Stream) {
    let mut left = limits::LINGER_BYTES;
    let drain = async {
        loop {
            match stream.discard_some(SCRATCH_BYTES).await {
                Ok(count) if (1..left).contains(&count) => left -= count,
                Ok(_) | Err(_) => return,
            }
        }
    };
    drop(tokio::time::timeout(limits::LINGER, drain).await);
}

async fn serve_http2(down: Rc<Downstream>, stream: Stream, first: Bytes) {
    let client = Client::http2(Rc::clone(&down));
    let io = TokioIo::new(ClientIo::new(stream, first, None, None).paced(&down.account));
    let service = service_fn(|request| answer(&client, request));
    let mut connection = http2::Builder::new(LocalExecutor)
        .max_concurrent_streams(limits::HTTP2_STREAMS)
        .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW_BYTES)
        .max_header_list_size(limits::HTTP2_HEADER_BYTES)
        .max_send_buf_size(limits::HTTP2_SEND_BUFFER_BYTES)
        .serve_connection(io, service);
    let (place, began) =
        (down.core.ends.of(&down), if down.arrived() { down.pod.life() } else { Life::Ending });
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        () = standing::unproved(&down) => None,
        () = place.takes_no_more(&down.core, &down.pod, began) => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            Some((&mut connection).await)
        }
    };
    // What is dropped is closed.
    let Some(ended) = ended else { return };
    log_end(&down, ended);
}

fn log_end(down: &Downstream, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(peer = %down.peer, dialled = %down.dialled, %error, "client connection ended early");
    }
}

/// What hyper is given for a request.
type Answered = Result<Response<Metered<ResponseBody>>, Infallible>;

/// A request that is to be answered.
struct Begun {
    unanswered: Unanswered,
    parts: Parts,
    body: Incoming,
}

/// Answers a request. What that takes is large, and made only for those that are not refused: hyper makes a task of each of a
/// thousand requests of HTTP/2 before it runs any, and keeps room for the next one on each idle connection of HTTP/1.
fn answer(
    client: &Rc<Client>,
    request: Request<Incoming>,
) -> Either<impl Future<Output = Answered> + use<>, Ready<Answered>> {
    match begin(client, request) {
        Either::Left(begun) => Either::Left(Box::pin(respond(begun))),
        Either::Right(answered) => Either::Right(ready(answered)),
    }
}

/// Begins with a request. Right: it is refused, and has its answer: many that come at once hold no more than that.
fn begin(client: &Rc<Client>, request: Request<Incoming>) -> Either<Begun, Answered> {
    let (mut parts, body) = request.into_parts();
    if client.is_http1() && client.heads.begin() {
        parts.extensions.insert(Escaped);
    }
    let head_bytes = framing::head_bytes(&parts);
    if !client.is_http1() {
        client.down.account.note_request();
    }
    let charge = client.down.account.charge(limits::request(head_bytes));
    let has_room = charge.is_some();
    let exchange = Exchange::begin(client, &parts, charge);
    let refused = match framing::refusal(&parts, head_bytes) {
        Some((status, details)) => {
            let response = local_reply::plain(&exchange, status, Bytes::new());
            exchange.note(|outcome| outcome.details = details);
            response
        }
        None if !has_room => local_reply::failure(&exchange, &Kind::Overloaded.into()),
        None => return Either::Left(Begun { unanswered: Unanswered(Some(exchange)), parts, body }),
    };
    Either::Right(Ok(finish(client, refused)))
}

/// Answers one request. The answer's body records the exchange; without one, this does.
async fn respond(begun: Begun) -> Answered {
    let Begun { unanswered, parts, body } = begun;
    let response = super::route::answer(unanswered.exchange(), parts, body).await;
    let client = Rc::clone(&unanswered.exchange().client);
    Ok(finish(&client, unanswered.answered(response)))
}

fn finish(client: &Client, mut response: Response<ResponseBody>) -> Response<Metered<ResponseBody>> {
    // A connection between two requests is not closed: its next request may be on its way.
    if client.is_http1()
        && (client.down.core.is_retiring() || ends::is_last_answer(&client.down))
        && response.status() != StatusCode::SWITCHING_PROTOCOLS
    {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.map(|body| Metered::new(body, &client.down.account))
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
