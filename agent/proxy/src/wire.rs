//! A TLS connection between nodes, with as few system calls as its bytes allow: TLS libraries read 4 KiB at a time and
//! write each record by itself.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use rustls::CommonState;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::peers::Peer;

/// What is read from a socket at once.
const READ_BYTES: usize = 64 * 1024;
/// Encrypted bytes beyond which nothing is added before they have left.
const HELD_BYTES: usize = 48 * 1024;

/// A TLS connection.
#[derive(Debug)]
pub(super) struct Wire {
    /// In a box: it is kept, taken and handed on with each connection that it carries.
    tls: Box<TlsStream<Socket>>,
    peer: Rc<Peer>,
    /// Bytes written since all had left.
    held: usize,
}

impl Wire {
    /// A connection whose handshake is done.
    pub(super) fn new(tls: impl Into<TlsStream<Socket>>) -> Self {
        let mut tls = Box::new(tls.into());
        // The limit is here, where it does not cut records.
        match &mut *tls {
            TlsStream::Client(tls) => tls.get_mut().1.set_buffer_limit(None),
            TlsStream::Server(tls) => tls.get_mut().1.set_buffer_limit(None),
        }
        let peer = Peer::of(tls.get_ref().1);
        Self { tls, peer, held: 0 }
    }

    /// What the handshake has agreed upon.
    pub(super) fn state(&self) -> &CommonState {
        self.tls.get_ref().1
    }

    /// Makes the close that follows a reset (RFC 9293, 3.10.4).
    pub(super) fn reset(self) {
        // Fails only for a socket that is gone already.
        drop(self.tls.get_ref().0.tcp.set_zero_linger());
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.peer.check()?;
        let read = Pin::new(&mut self.tls).poll_read(context, buffer);
        if read.is_pending() {
            self.peer.wait(context);
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    /// Encrypts; the bytes leave with the next flush, or when there are many.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        use io::Write;
        self.peer.check()?;
        if self.held >= HELD_BYTES {
            ready!(self.as_mut().poll_flush(context))?;
        }
        let written = match &mut *self.tls {
            TlsStream::Client(tls) => tls.get_mut().1.writer().write_vectored(slices),
            TlsStream::Server(tls) => tls.get_mut().1.writer().write_vectored(slices),
        }?;
        self.held += written;
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.tls).poll_flush(context))?;
        self.held = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(context)
    }
}

/// A socket that is read in large pieces. It holds a buffer only while something is in it.
#[derive(Debug)]
pub(super) struct Socket {
    tcp: TcpStream,
    /// Read, not yet taken.
    rest: Bytes,
}

impl From<TcpStream> for Socket {
    fn from(tcp: TcpStream) -> Self {
        Self { tcp, rest: Bytes::new() }
    }
}

thread_local! {
    /// One buffer for all sockets of a worker: filled and emptied within one poll.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            SCRATCH.with_borrow_mut(|scratch| {
                let mut read = ReadBuf::new(scratch);
                ready!(Pin::new(&mut self.tcp).poll_read(context, &mut read))?;
                let (now, later) = read.filled().split_at(read.filled().len().min(buffer.remaining()));
                buffer.put_slice(now);
                self.rest = if later.is_empty() { Bytes::new() } else { Bytes::copy_from_slice(later) };
                Poll::Ready(Ok(()))
            })
        } else {
            let count = self.rest.len().min(buffer.remaining());
            buffer.put_slice(&self.rest[..count]);
            self.rest.advance(count);
            if self.rest.is_empty() {
                self.rest = Bytes::new();
            }
            Poll::Ready(Ok(()))
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}
