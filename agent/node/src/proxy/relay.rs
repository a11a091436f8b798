//! Bytes between two sockets: both directions in one task, half-close and reset passed on, back-pressure by not reading.
//!
//! An idle connection holds no buffer: a worker has one, filled and emptied within a poll.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::worker;

/// Size of a worker's buffer. Larger reads save system calls until the copy no longer fits the second-level cache.
const BUFFER_BYTES: usize = 256 * 1024;

/// What a relay moved.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    /// From the client.
    pub(super) received: u64,
    /// To the client.
    pub(super) sent: u64,
    /// A side ended by reset rather than by close.
    pub(super) reset: bool,
}

/// Bytes taken off a socket before the relay began.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// From the client, for the server.
    pub(super) received: Bytes,
    /// From the server, for the client.
    pub(super) sent: Bytes,
}

/// Relays until both sides have closed, or one has reset. Closes both.
pub(super) async fn run(mut down: TcpStream, mut up: TcpStream, ahead: Ahead) -> Totals {
    let mut received = Flow::new(ahead.received);
    let mut sent = Flow::new(ahead.sent);
    let outcome = {
        let (mut down_read, mut down_write) = down.split();
        let (mut up_read, mut up_write) = up.split();
        std::future::poll_fn(|context| {
            let there = received.poll(context, &mut down_read, &mut up_write)?;
            let back = sent.poll(context, &mut up_read, &mut down_write)?;
            if there.is_ready() && back.is_ready() { Poll::Ready(io::Result::Ok(())) } else { Poll::Pending }
        })
        .await
    };
    if outcome.is_err() {
        reset(&down);
        reset(&up);
    }
    Totals { received: received.moved, sent: sent.moved, reset: outcome.is_err() }
}

/// Makes the close that follows a reset (RFC 9293, 3.10.4).
pub(super) fn reset(stream: &TcpStream) {
    // Fails only for a socket that is gone already.
    drop(stream.set_zero_linger());
}

/// One direction.
#[derive(Debug)]
struct Flow {
    /// Read, not yet written.
    rest: Bytes,
    moved: u64,
    ended: bool,
    closed: bool,
}

impl Flow {
    fn new(ahead: Bytes) -> Self {
        Self { rest: ahead, moved: 0, ended: false, closed: false }
    }

    /// Moves what can be moved. Ready: the source has closed, and so has this direction of the target.
    fn poll<R, W>(&mut self, context: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            while !self.rest.is_empty() {
                let written = ready!(Pin::new(&mut *to).poll_write(context, &self.rest))?;
                self.rest.advance(written);
                self.moved += written as u64;
            }
            if self.closed {
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(context))?;
                self.closed = true;
                return Poll::Ready(Ok(()));
            }
            ready!(worker::with_scratch(BUFFER_BYTES, |buffer| self.pass(context, from, to, buffer)))?;
        }
    }

    /// Reads once and writes at once; what the target does not take is kept.
    fn pass<R, W>(
        &mut self,
        context: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        buffer: &mut [u8],
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut read = ReadBuf::new(buffer);
        ready!(Pin::new(&mut *from).poll_read(context, &mut read))?;
        let mut bytes = read.filled();
        self.ended = bytes.is_empty();
        while !bytes.is_empty() {
            match Pin::new(&mut *to).poll_write(context, bytes)? {
                Poll::Ready(written) => {
                    self.moved += written as u64;
                    bytes = &bytes[written..];
                }
                Poll::Pending => {
                    self.rest = Bytes::copy_from_slice(bytes);
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}
