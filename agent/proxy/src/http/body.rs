//! Bodies on their way: the client's towards an endpoint, the endpoint's towards the client. Both stream; both are
//! counted where they pass.

mod ahead;
mod grpc;
mod metered;
mod pace;
mod replay;

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};
use weft_rules::upstream::cluster::InUse;

pub(in crate::http) use self::ahead::{Ahead, LookAhead, Peeked};
use self::grpc::Messages;
pub(crate) use self::metered::Metered;
use self::pace::Pace;
pub(in crate::http) use self::replay::Replay;
use super::exchange::Exchange;
use super::headers;
use super::interim::Gate;
use super::mirror::Feed;
use crate::limits;
use crate::pool::{Http1, Http2Stream};
use weft_telemetry::ResponseFlag;

/// Why a body broke off.
pub(crate) type BodyError = Box<dyn StdError + Send + Sync>;

/// A request's body, on its way to an endpoint.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// None.
    Empty,
    /// As it comes.
    Stream(ClientBody),
    /// As it comes, kept for another try.
    Kept(replay::Reader<ClientBody>),
    /// A copy of what passes.
    Copy(Feed),
    /// Held back until the endpoint asks for it.
    Held(Box<Held>),
    /// Looked at before it is sent.
    Ahead(Box<Ahead>),
    /// Weft's own.
    Own(Option<Bytes>),
}

/// A body behind a gate. An endpoint that says nothing gets it after a while.
#[derive(Debug)]
pub(crate) struct Held {
    gate: Arc<Gate>,
    patience: Option<Pin<Box<Sleep>>>,
    body: RequestBody,
}

impl Held {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(patience) = &mut self.patience {
            if patience.as_mut().poll(context).is_ready() {
                self.gate.open();
            }
            if !ready!(self.gate.poll(context)) {
                return Poll::Ready(Some(Err("the endpoint did not want the body".into())));
            }
            self.patience = None;
        }
        Pin::new(&mut self.body).poll_frame(context)
    }
}

impl RequestBody {
    /// Holds this body back until `gate` opens.
    pub(in crate::http) fn held(self, gate: Arc<Gate>) -> Self {
        let patience = Some(Box::pin(tokio::time::sleep(limits::EXPECT_WAIT)));
        Self::Held(Box::new(Held { gate, patience, body: self }))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Stream(body) => Pin::new(body).poll_frame(context),
            Self::Kept(body) => body.poll(context),
            Self::Copy(feed) => feed.poll(context),
            Self::Held(held) => held.poll(context),
            Self::Ahead(ahead) => ahead.poll(context),
            Self::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(body) => body.is_end_stream(),
            Self::Kept(body) => body.is_end_stream(),
            Self::Copy(feed) => feed.is_end_stream(),
            Self::Held(held) => held.body.is_end_stream(),
            Self::Ahead(ahead) => ahead.is_end_stream(),
            Self::Own(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(body) => body.size_hint(),
            Self::Kept(body) => body.size_hint(),
            Self::Copy(_) => SizeHint::default(),
            Self::Held(held) => held.body.size_hint(),
            Self::Ahead(ahead) => ahead.size_hint(),
            Self::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}

/// A body that a client sends: counted, and its end noted.
#[derive(Debug)]
pub(crate) struct ClientBody {
    incoming: Incoming,
    exchange: Rc<Exchange>,
    messages: Messages,
    pace: Pace,
    copies: Vec<Feed>,
    /// What has come already and was looked at.
    ahead: VecDeque<Frame<Bytes>>,
}

impl ClientBody {
    pub(in crate::http) fn new(incoming: Incoming, exchange: &Rc<Exchange>) -> Self {
        let exchange = Rc::clone(exchange);
        let body = Self {
            incoming,
            exchange,
            messages: Messages::default(),
            pace: Pace::default(),
            copies: Vec::new(),
            ahead: VecDeque::new(),
        };
        if body.incoming.is_end_stream() {
            body.exchange.end_request();
        }
        body
    }

    /// A copy of the body, fed as it passes.
    pub(in crate::http) fn feed(&mut self) -> RequestBody {
        if self.is_end_stream() {
            return RequestBody::Empty;
        }
        let feed = Feed::paid_by(&self.exchange.down.account);
        self.copies.push(feed.clone());
        RequestBody::Copy(feed)
    }

    /// Something came from the client.
    fn count(&mut self, frame: &Frame<Bytes>) {
        if let Some(bytes) = frame.data_ref() {
            self.pace.note(bytes.len());
            let exchange = &self.exchange;
            exchange.request_bytes.set(exchange.request_bytes.get() + bytes.len() as u64);
            if exchange.grpc {
                let count = self.messages.count(bytes);
                exchange.note(|outcome| outcome.grpc_messages.0 += count);
            }
        }
        if self.incoming.is_end_stream() {
            self.exchange.end_request();
        }
    }

    /// All of it has passed.
    fn end(&mut self) {
        self.copies.drain(..).for_each(|copy| copy.end());
        self.exchange.end_request();
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = if let Some(frame) = this.ahead.pop_front() {
            Some(Ok(frame))
        } else {
            ready!(this.pace.poll(context));
            let frame = ready!(Pin::new(&mut this.incoming).poll_frame(context));
            if let Some(Ok(frame)) = &frame {
                this.count(frame);
            }
            frame.map(|frame| frame.map(headers::admit_frame))
        };
        match &frame {
            Some(Ok(frame)) => {
                this.copies.iter().for_each(|copy| copy.push(frame));
                if this.is_end_stream() {
                    this.end();
                }
            }
            None => this.end(),
            Some(Err(_)) => this.copies.iter().for_each(Feed::break_off),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.incoming.size_hint();
        if self.ahead.is_empty() { rest } else { ahead::with_frames(&self.ahead, &rest) }
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        self.copies.iter().for_each(Feed::break_off);
    }
}

/// What an exchange holds of an endpoint until its response is through.
#[derive(Debug)]
pub(in crate::http) struct Lease {
    /// The connection.
    pub(in crate::http) connection: Leased,
    /// Its load counts so long.
    #[expect(dead_code, reason = "held for its drop")]
    pub(in crate::http) in_use: Option<InUse>,
}

/// A connection in use.
#[derive(Debug)]
pub(in crate::http) enum Leased {
    /// HTTP/1.1: this exchange's alone.
    Http1(Http1),
    /// HTTP/1.1, not to be used again.
    Alone(#[expect(dead_code, reason = "held for its drop")] Http1),
    /// HTTP/2: one stream of it.
    Http2(#[expect(dead_code, reason = "held for its drop")] Http2Stream),
}

/// A response's body, on its way to the client. The exchange is recorded when it ends, breaks off or is dropped.
#[derive(Debug)]
pub(in crate::http) struct ResponseBody {
    source: Source,
    exchange: Rc<Exchange>,
    messages: Messages,
    pace: Pace,
    deadline: Option<Pin<Box<Sleep>>>,
    gate: Option<Arc<Gate>>,
    ended: bool,
}

#[derive(Debug)]
enum Source {
    Own(Option<Bytes>),
    Endpoint { incoming: Incoming, lease: Option<Lease> },
}

impl ResponseBody {
    /// A body of weft's own.
    pub(in crate::http) fn own(bytes: Bytes, exchange: Rc<Exchange>) -> Self {
        let source = Source::Own((!bytes.is_empty()).then_some(bytes));
        let (messages, pace) = (Messages::default(), Pace::default());
        Self { source, exchange, messages, pace, deadline: None, gate: None, ended: false }
    }

    /// An endpoint's body. At `deadline` it breaks off; with its end `gate` closes.
    pub(in crate::http) fn endpoint(
        incoming: Incoming,
        lease: Lease,
        deadline: Option<Instant>,
        gate: Option<Arc<Gate>>,
        exchange: Rc<Exchange>,
    ) -> Self {
        let deadline = deadline
            .filter(|_| !incoming.is_end_stream())
            .map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
        let source = Source::Endpoint { incoming, lease: Some(lease) };
        let (messages, pace) = (Messages::default(), Pace::default());
        Self { source, exchange, messages, pace, deadline, gate, ended: false }
    }

    /// Nothing: the connection leaves HTTP, and the exchange is recorded by what follows.
    pub(in crate::http) fn switching(exchange: Rc<Exchange>) -> Self {
        let mut body = Self::own(Bytes::new(), exchange);
        body.ended = true;
        body
    }

    fn pass_data(&mut self, bytes: &Bytes) {
        self.pace.note(bytes.len());
        let exchange = &self.exchange;
        exchange.response_bytes.set(exchange.response_bytes.get() + bytes.len() as u64);
        if exchange.grpc {
            let count = self.messages.count(bytes);
            exchange.note(|outcome| outcome.grpc_messages.1 += count);
        }
    }

    /// The last byte is through.
    fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.deadline = None;
        if let Source::Endpoint { lease, .. } = &mut self.source
            && let Some(Lease { connection: Leased::Http1(connection), in_use: _ }) = lease.take()
            && self.exchange.request_ended.get().is_some()
        {
            self.exchange.down.core.pool.give_back(connection);
        }
        self.exchange.finish();
    }

    /// It broke off.
    fn fail(&mut self, flag: ResponseFlag, details: &'static str) {
        self.ended = true;
        self.exchange.note(|outcome| {
            outcome.flag(flag);
            outcome.details = details;
        });
        if let Source::Endpoint { lease, .. } = &mut self.source {
            *lease = None;
        }
        self.exchange.finish();
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            self.deadline = None;
            self.fail(ResponseFlag::UpstreamRequestTimeout, "response_timeout");
            return Poll::Ready(Some(Err("upstream request timeout".into())));
        }
        ready!(self.pace.poll(context));
        let frame = match &mut self.source {
            Source::Own(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Source::Endpoint { incoming, .. } => ready!(Pin::new(incoming).poll_frame(context)),
        };
        match &frame {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    self.pass_data(bytes);
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.exchange.note_grpc_status(trailers);
                }
                if self.is_end_stream() {
                    self.end();
                }
            }
            None => self.end(),
            Some(Err(error)) => {
                let (flag, details) = super::attempt::broken_off(error);
                self.fail(flag, details);
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(bytes) => bytes.is_none(),
            Source::Endpoint { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Source::Endpoint { incoming, .. } => incoming.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            gate.close();
        }
        if self.ended {
            return;
        }
        if self.is_end_stream() {
            self.end();
        } else {
            self.exchange.abandoned();
        }
    }
}
