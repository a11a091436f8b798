//! Copies of requests: sent and forgotten. A copy's body is fed as the request's own passes; a copy that cannot keep up is
//! given up, the request is never slowed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header::EXPECT;
use http::request::Parts;
use http::{HeaderMap, Request, Version};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use weft_rules::http_route::{HttpRoute, Mirror};
use weft_rules::snapshot::Protocol;

use super::admit::Arrival;
use super::attempt::{self, Endpoint};
use super::body::{BodyError, ClientBody, Leased, RequestBody};
use super::exchange::Exchange;
use super::headers;
use crate::proxy::connection::Downstream;
use crate::proxy::limits;
use crate::proxy::upstream::Towards;

/// A copy's body: what has passed and was not sent yet.
#[derive(Debug, Clone, Default)]
pub(in crate::proxy) struct Feed(Rc<RefCell<State>>);

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Piece>,
    bytes: usize,
    ended: bool,
    given_up: bool,
    waker: Option<Waker>,
}

#[derive(Debug)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Feed {
    /// A frame of the request passes.
    pub(in crate::proxy::http) fn push(&self, frame: &Frame<Bytes>) {
        self.change(|state| {
            if let Some(bytes) = frame.data_ref() {
                state.bytes += bytes.len();
                state.queue.push_back(Piece::Data(bytes.clone()));
            } else if let Some(trailers) = frame.trailers_ref() {
                state.queue.push_back(Piece::Trailers(trailers.clone()));
            }
            if state.bytes > limits::MIRROR_BYTES {
                state.give_up();
            }
        });
    }

    /// The request's last byte has passed.
    pub(in crate::proxy::http) fn end(&self) {
        self.change(|state| state.ended = true);
    }

    /// The request has broken off.
    pub(in crate::proxy::http) fn break_off(&self) {
        self.change(State::give_up);
    }

    pub(in crate::proxy::http) fn poll(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.0.borrow_mut();
        if state.given_up {
            return Poll::Ready(Some(Err("the copy was given up".into())));
        }
        match state.queue.pop_front() {
            Some(Piece::Data(bytes)) => {
                state.bytes -= bytes.len();
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Some(Piece::Trailers(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            None if state.ended => Poll::Ready(None),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(in crate::proxy::http) fn is_end_stream(&self) -> bool {
        let state = self.0.borrow();
        state.ended && !state.given_up && state.queue.is_empty()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.borrow_mut();
        if !state.given_up {
            change(&mut state);
        }
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

impl State {
    fn give_up(&mut self) {
        self.given_up = true;
        self.queue = VecDeque::new();
    }
}

/// Starts the copies that a route asks for, and has the body feed them.
pub(super) fn start(exchange: &Rc<Exchange>, route: &HttpRoute, request: &Parts, body: &mut ClientBody) {
    let seed = fastrand::u64(..);
    for (index, mirror) in route.mirrors.iter().enumerate() {
        if mirror.draws(index, seed) {
            send(&exchange.down, mirror, request, body);
        }
    }
}

fn send(down: &Rc<Downstream>, mirror: &Mirror, request: &Parts, body: &mut ClientBody) {
    let core = &down.core;
    if core.mirrors.get() >= limits::MIRRORS {
        return;
    }
    let Ok(cluster) = down.cluster(&mirror.destination) else { return };
    let Some(in_use) = cluster.pick(down.dialled, &[], fastrand::u64(..)) else { return };
    let http2 = match cluster.protocol {
        Protocol::Http => false,
        Protocol::Http2 => true,
        Protocol::Detect | Protocol::Tcp => request.version == Version::HTTP_2,
    };
    let mut copy = request.clone();
    copy.extensions.clear();
    copy.headers.remove(EXPECT);
    if headers::address(&mut copy, http2).is_err() {
        return;
    }
    headers::count_attempt(&mut copy.headers, 1);
    let copy = Request::from_parts(copy, body.feed());
    let endpoint =
        Endpoint { to: Towards::endpoint(&cluster, in_use.endpoint.address), in_use: Some(in_use), http2 };
    core.mirrors.set(core.mirrors.get() + 1);
    let down = Rc::clone(down);
    tokio::task::spawn_local(async move {
        drop(tokio::time::timeout(limits::MIRROR_TIMEOUT, exchange_copy(&down, endpoint, copy)).await);
        down.core.mirrors.set(down.core.mirrors.get() - 1);
    });
}

/// Sends a copy and reads its answer to the end, so that the connection can be used again.
async fn exchange_copy(down: &Rc<Downstream>, endpoint: Endpoint, mut copy: Request<RequestBody>) {
    let destination = endpoint.in_use.as_ref().and_then(|in_use| in_use.endpoint.workload.clone());
    if let Some(arrival) = Arrival::of(down, destination, &endpoint.to) {
        match arrival.decide(copy).await {
            Ok(admitted) => copy = admitted.request,
            Err(_) => return,
        }
    }
    if let Ok(mut answer) = attempt::send(down, endpoint, copy).await
        && discard(&mut answer.body).await
        && let Leased::Http1(connection) = answer.lease.connection
    {
        down.core.pool.give_back(connection);
    }
}

async fn discard(body: &mut Incoming) -> bool {
    loop {
        match std::future::poll_fn(|context| std::pin::Pin::new(&mut *body).poll_frame(context)).await {
            Some(Ok(_)) => {}
            Some(Err(_)) => return false,
            None => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn next(feed: &Feed) -> Option<Result<usize, String>> {
        let frame = poll_fn(|context| feed.poll(context)).await?;
        Some(frame.map(|frame| frame.data_ref().map_or(0, Bytes::len)).map_err(|error| error.to_string()))
    }

    #[tokio::test]
    async fn a_copy_follows_its_request() {
        let feed = Feed::default();
        feed.push(&Frame::data(Bytes::from_static(b"abc")));
        assert_eq!(next(&feed).await, Some(Ok(3)));
        let (heard, ()) = tokio::join!(next(&feed), async {
            tokio::task::yield_now().await;
            feed.push(&Frame::data(Bytes::from_static(b"d")));
            feed.end();
        });
        assert_eq!(heard, Some(Ok(1)));
        assert!(feed.is_end_stream());
        assert_eq!(next(&feed).await, None);
    }

    #[tokio::test]
    async fn a_copy_that_is_too_slow_is_given_up() {
        let feed = Feed::default();
        for _ in 0..3 {
            feed.push(&Frame::data(Bytes::from(vec![0; limits::MIRROR_BYTES / 2])));
        }
        assert!(next(&feed).await.unwrap().is_err());
        assert!(feed.0.borrow().queue.is_empty());
    }
}
