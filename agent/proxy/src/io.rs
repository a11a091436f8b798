//! Both sides of an HTTP connection: the client's stream, behind the bytes already read from it, and the endpoint's.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use weft_limits::Account;
use weft_limits::account::Waiting;

use super::http::{HalfClose, Heads, Interim, restore};
use super::stream::Stream;

/// A stream whose first bytes have been read already, and which writes interim responses between hyper's messages.
#[derive(Debug)]
pub(super) struct ClientIo {
    stream: Stream,
    first: Bytes,
    interim: Option<Arc<Interim>>,
    heads: Option<Rc<Heads>>,
    /// Interim responses being written.
    sending: Bytes,
    /// hyper has flushed, and has written nothing since. A message that begins now begins with its head: an interim
    /// response that waits belongs before it. (hyper starts on a request only after the response before it, and
    /// flushes or tries to at once, so bytes of an earlier response cannot come after such a flush.)
    flushed: bool,
    registered: bool,
    half_close: Option<Rc<HalfClose>>,
    paced: Option<(Rc<Account>, Waiting)>,
}

impl ClientIo {
    /// `interim`: where interim responses come from, and `heads`: who is told of what comes and goes, for HTTP/1.1.
    pub(super) fn new(
        stream: Stream,
        first: Bytes,
        interim: Option<Arc<Interim>>,
        heads: Option<Rc<Heads>>,
    ) -> Self {
        Self {
            stream,
            first,
            interim,
            heads,
            sending: Bytes::new(),
            flushed: true,
            registered: false,
            half_close: None,
            paced: None,
        }
    }

    /// Has it be read in `account`'s turn only: what is read of HTTP/2 may begin hundreds of requests.
    pub(super) fn paced(mut self, account: &Rc<Account>) -> Self {
        self.paced = Some((Rc::clone(account), Waiting::default()));
        self
    }

    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some((account, waiting)) = &mut self.paced else { return Poll::Ready(()) };
        let wait = || {
            let account = Rc::clone(account);
            async move { account.turn().await }
        };
        waiting.poll(!account.is_turn_over(), wait, context)
    }

    /// Has its reader hear of the client's end only when the answer to what it asked before is through, or it has waited for long.
    pub(super) fn half_closing(mut self, half_close: Option<Rc<HalfClose>>) -> Self {
        self.half_close = half_close;
        self
    }

    /// Whether the client's end is to be told now.
    fn poll_end(&self, context: &mut Context<'_>) -> Poll<()> {
        match &self.half_close {
            Some(half_close) => half_close.poll_end(self.flushed, context),
            None => Poll::Ready(()),
        }
    }

    /// The stream, and what of its first bytes nobody has taken.
    pub(super) fn into_parts(self) -> (Stream, Bytes) {
        (self.stream, self.first)
    }

    fn hold_back(&self, slices: &[io::IoSlice<'_>]) -> Option<usize> {
        self.heads.as_ref()?.hold_back(slices)
    }

    /// Writes interim responses, if any wait and this is a place for them.
    fn poll_interim(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.flushed
            && self.sending.is_empty()
            && let Some(interim) = &self.interim
        {
            self.sending = interim.take().into();
        }
        poll_sending(&mut self.sending, &mut self.stream, context)
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_turn(context));
        let before = buffer.filled().len();
        if self.first.is_empty() {
            if self.half_close.as_ref().is_some_and(|half_close| half_close.is_closed()) {
                ready!(self.poll_end(context));
                return Poll::Ready(Ok(()));
            }
            ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
            if buffer.filled().len() == before && buffer.remaining() > 0 {
                ready!(self.poll_end(context));
            }
        } else {
            let count = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first[..count]);
            self.first.advance(count);
        }
        if let Some(heads) = &self.heads {
            heads.note(&buffer.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(held) = self.hold_back(&[io::IoSlice::new(bytes)]) {
            return Poll::Ready(Ok(held));
        }
        ready!(self.poll_interim(context))?;
        self.flushed = false;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(held) = self.hold_back(slices) {
            return Poll::Ready(Ok(held));
        }
        ready!(self.poll_interim(context))?;
        self.flushed = false;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushed = true;
        if let Some(half_close) = &self.half_close {
            half_close.look_again();
        }
        if !std::mem::replace(&mut self.registered, true)
            && let Some(interim) = &self.interim
        {
            interim.register(context.waker());
        }
        if let Some(heads) = &self.heads {
            heads.flushed();
        }
        ready!(self.poll_interim(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.heads.as_ref().is_some_and(|heads| heads.is_held_back()) {
            // There may be another answer yet.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// An endpoint's stream, which can be told to write the next request's target as its client wrote it.
#[derive(Debug)]
pub(super) struct EndpointIo {
    stream: Stream,
    restore: Rc<Cell<bool>>,
    /// A restored head on its way.
    sending: Bytes,
}

impl EndpointIo {
    /// `restore` is set before such a request is given to hyper, and taken when it is written.
    pub(super) fn new(stream: Stream, restore: Rc<Cell<bool>>) -> Self {
        Self { stream, restore, sending: Bytes::new() }
    }

    /// The stream.
    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    /// Writes what is left of a restored head.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_sending(&mut self.sending, &mut self.stream, context)
    }
}

impl AsyncRead for EndpointIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for EndpointIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_head(context))?;
        if self.restore.take() {
            // hyper writes a head in one piece, and begins a message when all before it is written.
            self.sending = restore(bytes).into();
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_head(context))?;
        if self.restore.get() {
            let head = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            return self.poll_write(context, head);
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_head(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_head(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Writes what is to be sent before anything else.
fn poll_sending(sending: &mut Bytes, stream: &mut Stream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
    while !sending.is_empty() {
        let written = ready!(Pin::new(&mut *stream).poll_write(context, sending))?;
        sending.advance(written);
    }
    Poll::Ready(Ok(()))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response, StatusCode};
    use http_body_util::Full;
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Two requests in one write; the answer to the second is preceded by an interim one.
    #[tokio::test]
    async fn an_interim_response_comes_between_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let interim = Arc::<Interim>::default();
        let io = ClientIo::new(
            server.into(),
            Bytes::from_static(b"GET /one HT"),
            Some(Arc::clone(&interim)),
            None,
        );
        let service = service_fn(|request: Request<Incoming>| {
            let interim = Arc::clone(&interim);
            async move {
                if request.uri() == "/two" {
                    let hints =
                        [(http::header::LINK, http::HeaderValue::from_static("</a.css>; rel=preload"))];
                    interim.push(StatusCode::EARLY_HINTS, &hints.into_iter().collect());
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(request.uri().path().to_owned()))))
            }
        });
        let serving = hyper::server::conn::http1::Builder::new()
            .auto_date_header(false)
            .serve_connection(TokioIo::new(io), service);
        let talking = async {
            client.write_all(b"TP/1.1\r\n\r\nGET /two HTTP/1.1\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut heard = String::new();
            client.read_to_string(&mut heard).await.unwrap();
            heard
        };
        let (served, heard) = tokio::join!(serving, talking);
        served.unwrap();
        assert_eq!(
            heard,
            "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n/one\
             HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n\
             HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\n/two"
        );
    }
}
