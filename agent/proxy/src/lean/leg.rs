//! One end of an application connection that goes through a lean tunnel.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncWrite, ReadBuf};

use super::client::Home;
use super::frames::Frames;
use crate::core::Core;
use crate::wire::Wire;

/// The end of an application connection. When it has ended well, the TLS connection goes on to its next.
#[derive(Debug)]
pub(crate) struct Leg {
    /// Taken when it is over.
    io: Option<Wire>,
    frames: Frames,
    local_address: Option<SocketAddr>,
    next: Option<Next>,
    leaving: Rc<Cell<bool>>,
}

/// Where a TLS connection goes.
#[derive(Debug)]
pub(super) enum Next {
    /// To the callers that need one.
    Kept(Box<Home>),
    /// Back to whoever serves it.
    Served {
        /// Where it is put.
        slot: Rc<RefCell<Option<Wire>>>,
        /// The worker that serves it.
        core: Rc<Core>,
    },
}

impl Leg {
    pub(super) fn new(io: Wire, local_address: Option<SocketAddr>, next: Next) -> Self {
        Self {
            io: Some(io),
            frames: Frames::default(),
            local_address,
            next: Some(next),
            leaving: Rc::default(),
        }
    }

    /// Becomes true when the server wants this to end.
    pub(crate) fn leaving(&self) -> Rc<Cell<bool>> {
        Rc::clone(&self.leaving)
    }

    fn poll_leave(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match (&mut self.io, &self.next) {
            (Some(io), Some(Next::Served { core, .. })) if core.is_retiring() => {
                self.frames.poll_leave(io, context)
            }
            _ => Poll::Ready(Ok(())),
        }
    }

    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        self.local_address
    }

    pub(crate) fn reset(mut self) {
        if let Some(io) = self.io.take() {
            io.reset();
        }
    }

    /// Waits until there is something to take, or the end; takes nothing.
    pub(crate) fn poll_speaks(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.io {
            Some(io) => self.frames.poll_speaks(io, context),
            None => Poll::Ready(()),
        }
    }

    pub(crate) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(io) = &mut self.io else { return Poll::Ready(Ok(())) };
        let read = self.frames.poll_read(io, context, buffer);
        self.leaving.set(self.frames.is_leaving());
        read
    }

    pub(crate) fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_leave(context))?;
        match &mut self.io {
            Some(io) => self.frames.poll_write(io, context, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    pub(crate) fn poll_write_vectored(
        &mut self,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_leave(context))?;
        match &mut self.io {
            Some(io) => self.frames.poll_write_vectored(io, context, slices),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    pub(crate) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Some(io) => Pin::new(io).poll_flush(context),
            None => Poll::Ready(Ok(())),
        }
    }

    pub(crate) fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Some(io) => self.frames.poll_end(io, context),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl Drop for Leg {
    fn drop(&mut self) {
        if !self.frames.is_over() {
            return;
        }
        match (self.io.take(), self.next.take()) {
            (Some(io), Some(Next::Kept(home))) => home.keep(io),
            (Some(io), Some(Next::Served { slot, .. })) => *slot.borrow_mut() = Some(io),
            _ => {}
        }
    }
}
