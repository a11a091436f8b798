//! What a byte stream may be. Everything between accepting and relaying works on this, and does not ask which it is.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::hbone::{GoingAway, Tunnel};
use super::lean::Leg;
use super::scratch::with_scratch;

/// A stream of bytes with two directions that close separately.
#[derive(Debug)]
pub(super) enum Stream {
    /// A socket.
    Tcp(TcpStream),
    /// One end of a tunnel between nodes, an HTTP/2 stream.
    Tunnel(Box<Tunnel>),
    /// One end of a lean tunnel between nodes.
    Leg(Box<Leg>),
    /// TLS that is not the mesh's own: to an endpoint as a DestinationRule has it, or from a client of a gateway.
    Tls(Box<TlsStream<TcpStream>>),
    /// One end of a pipe within the worker.
    Pipe(Pipe),
}

/// One end of a pipe.
#[derive(Debug)]
pub(super) struct Pipe {
    io: BufReader<DuplexStream>,
    /// Either end was reset.
    reset: Arc<AtomicBool>,
}

/// Tells of a stream that somebody else has whether its other end wants it to end when that does no harm: the agent there
/// has a successor.
#[derive(Debug)]
pub(super) enum Leaving {
    /// Nobody says so on streams of this kind.
    Never,
    /// Said on a lean tunnel.
    Leg(Rc<Cell<bool>>),
    /// Said for all tunnels of an HTTP/2 connection.
    Tunnel(GoingAway),
}

impl Leaving {
    /// Whether that was said.
    pub(super) fn is_wanted(&self) -> bool {
        match self {
            Self::Never => false,
            Self::Leg(leaving) => leaving.get(),
            Self::Tunnel(going_away) => going_away.is_said(),
        }
    }
}

/// Bytes that a pipe holds for each direction.
const PIPE_BYTES: usize = 64 * 1024;

impl Stream {
    /// Two ends of a pipe.
    pub(super) fn pipe() -> (Self, Self) {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let reset = Arc::new(AtomicBool::new(false));
        let end = |io| Self::Pipe(Pipe { io: BufReader::new(io), reset: Arc::clone(&reset) });
        (end(near), end(far))
    }

    /// Whether it is within the worker.
    pub(super) fn is_pipe(&self) -> bool {
        matches!(self, Self::Pipe(_))
    }

    /// What tells whether the other end wants this one to end.
    pub(super) fn leaving(&self) -> Leaving {
        match self {
            Self::Leg(leg) => Leaving::Leg(leg.leaving()),
            Self::Tunnel(tunnel) => tunnel.going_away().map_or(Leaving::Never, Leaving::Tunnel),
            Self::Tcp(_) | Self::Tls(_) | Self::Pipe(_) => Leaving::Never,
        }
    }

    /// The agent's own address, where there is one.
    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Tunnel(tunnel) => tunnel.local_addr(),
            Self::Leg(leg) => leg.local_addr(),
            Self::Tls(stream) => stream.get_ref().0.local_addr().ok(),
            Self::Pipe(_) => None,
        }
    }

    /// Ends it by a reset (RFC 9293, 3.10.4).
    pub(super) fn reset(self) {
        match self {
            // Fails only for a socket that is gone already.
            Self::Tcp(stream) => drop(stream.set_zero_linger()),
            Self::Tls(stream) => drop(stream.get_ref().0.set_zero_linger()),
            Self::Tunnel(tunnel) => tunnel.reset(),
            Self::Leg(leg) => leg.reset(),
            Self::Pipe(pipe) => pipe.reset.store(true, Ordering::Relaxed),
        }
    }

    /// Waits until the other side has said something, or has closed; takes nothing of it. Cancel-safe.
    pub(super) async fn speaks(&mut self) {
        match self {
            Self::Tcp(stream) => drop(stream.readable().await),
            Self::Tunnel(tunnel) => std::future::poll_fn(|context| tunnel.poll_speaks(context)).await,
            Self::Leg(leg) => std::future::poll_fn(|context| leg.poll_speaks(context)).await,
            Self::Tls(stream) => drop(stream.fill_buf().await),
            Self::Pipe(pipe) => drop(pipe.io.fill_buf().await),
        }
    }

    /// Takes what has come, where that costs no copy; empty: the other side has closed. `None`: it must be read.
    pub(super) fn poll_take(&mut self, context: &mut Context<'_>) -> Option<Poll<io::Result<Bytes>>> {
        match self {
            Self::Tunnel(tunnel) => Some(tunnel.poll_take(context)),
            Self::Tcp(_) | Self::Leg(_) | Self::Tls(_) | Self::Pipe(_) => None,
        }
    }

    /// Reads what there is, `limit` bytes at the most, behind what `into` holds. False: the other side has closed.
    /// Cancel-safe. Holds no buffer while it waits.
    pub(super) async fn read_some(&mut self, into: &mut BytesMut, limit: usize) -> io::Result<bool> {
        self.read_with(limit, |bytes| {
            into.extend_from_slice(bytes);
            !bytes.is_empty()
        })
        .await
    }

    /// As [`Self::read_some`], and throws the bytes away; answers how many.
    pub(super) async fn discard_some(&mut self, limit: usize) -> io::Result<usize> {
        self.read_with(limit, <[u8]>::len).await
    }

    async fn read_with<T>(&mut self, limit: usize, mut take: impl FnMut(&[u8]) -> T) -> io::Result<T> {
        std::future::poll_fn(|context| {
            with_scratch(limit, |buffer| {
                let mut read = ReadBuf::new(buffer);
                ready!(Pin::new(&mut *self).poll_read(context, &mut read))?;
                Poll::Ready(Ok(take(read.filled())))
            })
        })
        .await
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<Leg> for Stream {
    fn from(leg: Leg) -> Self {
        Self::Leg(Box::new(leg))
    }
}

impl From<Tunnel> for Stream {
    fn from(tunnel: Tunnel) -> Self {
        Self::Tunnel(Box::new(tunnel))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tunnel(tunnel) => tunnel.poll_read(context, buffer),
            Self::Leg(leg) => leg.poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Pipe(pipe) => pipe.poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tunnel(tunnel) => tunnel.poll_write(context, bytes),
            Self::Leg(leg) => leg.poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Pipe(pipe) => Pin::new(&mut pipe.io).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tunnel(tunnel) => tunnel.poll_write_vectored(context, slices),
            Self::Leg(leg) => leg.poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Pipe(pipe) => Pin::new(&mut pipe.io).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(_) | Self::Tunnel(_) => Poll::Ready(Ok(())),
            Self::Leg(leg) => leg.poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            Self::Pipe(pipe) => Pin::new(&mut pipe.io).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tunnel(tunnel) => tunnel.poll_shutdown(),
            Self::Leg(leg) => leg.poll_end(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Pipe(pipe) => Pin::new(&mut pipe.io).poll_shutdown(context),
        }
    }
}

impl Pipe {
    /// An end that is dropped reads as closed: whether it was reset, the other end is told here.
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        if buffer.filled().len() == before && self.reset.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_pipe_closes_one_direction_at_a_time_and_tells_a_reset() {
        let (mut near, mut far) = Stream::pipe();
        near.write_all(b"question").await.unwrap();
        near.shutdown().await.unwrap();
        let mut heard = String::new();
        far.read_to_string(&mut heard).await.unwrap();
        far.write_all(b"answer").await.unwrap();
        let mut answer = [0; 6];
        near.read_exact(&mut answer).await.unwrap();
        assert_eq!((heard.as_str(), &answer), ("question", b"answer"));
        far.reset();
        assert_eq!(near.read(&mut answer).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
