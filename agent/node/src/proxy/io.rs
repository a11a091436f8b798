//! The client's side of an HTTP connection: its stream, behind the bytes already read from it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::http::Interim;
use super::stream::Stream;

/// A stream whose first bytes have been read already, and which writes interim responses between hyper's messages.
#[derive(Debug)]
pub(super) struct ClientIo {
    stream: Stream,
    first: Bytes,
    interim: Option<Arc<Interim>>,
    /// Interim responses being written.
    sending: Bytes,
    /// hyper has flushed, and has written nothing since. A message that begins now begins with its head: an interim
    /// response that waits belongs before it. (hyper starts on a request only after the response before it, and
    /// flushes or tries to at once, so bytes of an earlier response cannot come after such a flush.)
    flushed: bool,
    registered: bool,
}

impl ClientIo {
    /// `interim`: where interim responses come from, for HTTP/1.1.
    pub(super) fn new(stream: Stream, first: Bytes, interim: Option<Arc<Interim>>) -> Self {
        Self { stream, first, interim, sending: Bytes::new(), flushed: true, registered: false }
    }

    /// The stream, and what of its first bytes nobody has taken.
    pub(super) fn into_parts(self) -> (Stream, Bytes) {
        (self.stream, self.first)
    }

    /// Writes interim responses, if any wait and this is a place for them.
    fn poll_interim(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.flushed
            && self.sending.is_empty()
            && let Some(interim) = &self.interim
        {
            self.sending = interim.take().into();
        }
        while !self.sending.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.sending))?;
            self.sending.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let count = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first[..count]);
        self.first.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(context))?;
        self.flushed = false;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(context))?;
        self.flushed = false;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushed = true;
        if !std::mem::replace(&mut self.registered, true)
            && let Some(interim) = &self.interim
        {
            interim.register(context.waker());
        }
        ready!(self.poll_interim(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
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
        let io = ClientIo::new(server.into(), Bytes::from_static(b"GET /one HT"), Some(Arc::clone(&interim)));
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
