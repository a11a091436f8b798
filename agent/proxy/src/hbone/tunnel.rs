//! A CONNECT stream as a stream of bytes; the same for both ends. Closing a direction is END_STREAM, a reset is a reset,
//! and the window opens as bytes are taken.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::ReadBuf;

use super::client::{Counted, GoingAway};
use crate::limits;

/// One end of a tunnelled connection.
#[derive(Debug)]
pub(crate) struct Tunnel {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// Received, not yet taken.
    rest: Bytes,
    closed: bool,
    local_address: Option<SocketAddr>,
    /// The connection that it is on, of a client.
    counted: Option<Counted>,
}

impl Tunnel {
    pub(super) fn new(
        send: SendStream<Bytes>,
        receive: RecvStream,
        local_address: Option<SocketAddr>,
        counted: Option<Counted>,
    ) -> Self {
        Self { send, receive, rest: Bytes::new(), closed: false, local_address, counted }
    }

    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        self.local_address
    }

    /// What tells whether its connection is about to end; only the server's end may say so.
    pub(crate) fn going_away(&self) -> Option<GoingAway> {
        self.counted.as_ref().map(Counted::going_away)
    }

    pub(crate) fn reset(mut self) {
        // What an end of the application by a reset is called (RFC 9113, 8.5).
        self.send.send_reset(Reason::CONNECT_ERROR);
    }

    /// Waits until there is something to take, or the end; takes nothing.
    pub(crate) fn poll_speaks(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.poll_fill(context).map(drop)
    }

    /// Takes what has come, without a copy. Empty: the other side has closed.
    pub(crate) fn poll_take(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        ready!(self.poll_fill(context))?;
        let bytes = std::mem::take(&mut self.rest);
        self.release(bytes.len());
        Poll::Ready(Ok(bytes))
    }

    pub(crate) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_fill(context))?;
        let count = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..count]);
        self.rest.advance(count);
        self.release(count);
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wanted = bytes.len().min(limits::HBONE_PIECE_BYTES);
        let count = ready!(self.poll_room(context, wanted))?;
        self.send(Bytes::copy_from_slice(&bytes[..count]))
    }

    pub(crate) fn poll_write_vectored(
        &mut self,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wanted = slices.iter().map(|slice| slice.len()).sum();
        let mut room = ready!(self.poll_room(context, wanted))?;
        let mut bytes = BytesMut::with_capacity(room);
        for slice in slices {
            let count = room.min(slice.len());
            bytes.extend_from_slice(&slice[..count]);
            room -= count;
        }
        self.send(bytes.freeze())
    }

    /// How many of `wanted` bytes may be sent now.
    fn poll_room(&mut self, context: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(wanted);
        let mut room = self.send.capacity();
        while room == 0 {
            match ready!(self.send.poll_capacity(context)) {
                Some(Ok(capacity)) => room = capacity,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        Poll::Ready(Ok(room.min(wanted)))
    }

    fn send(&mut self, bytes: Bytes) -> Poll<io::Result<usize>> {
        let count = bytes.len();
        if count > 0 {
            self.send.send_data(bytes, false).map_err(broken)?;
        }
        Poll::Ready(Ok(count))
    }

    pub(crate) fn poll_shutdown(&mut self) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.closed, true) {
            self.send.send_data(Bytes::new(), true).map_err(broken)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Sees to it that `rest` holds something, unless the other side has closed.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.receive.poll_data(context)) {
                Some(Ok(bytes)) => self.rest = bytes,
                // The other side has said all and wants no more (RFC 9113, 8.1).
                Some(Err(error)) if error.is_reset() && error.reason() == Some(Reason::NO_ERROR) => break,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn release(&mut self, count: usize) {
        // Fails only for a stream that has ended.
        drop(self.receive.flow_control().release_capacity(count));
    }
}

fn broken(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
    }
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
