//! Clients of HTTP/1.1 that have said all they want to say (`nc -N`, BusyBox) and wait for the answer. hyper takes the end of what a
//! client says for its end, and gives up what it asked: it hears of it later.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Sleep;

use crate::limits;

/// What a client that has closed its side is waited for.
#[derive(Debug, Default)]
pub(crate) struct HalfClose {
    owed: Cell<Owed>,
    waker: RefCell<Option<Waker>>,
    /// When it is taken to have gone, once it has closed its side.
    patience: RefCell<Option<(Owed, Pin<Box<Sleep>>)>>,
}

/// What a client is owed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Owed {
    /// Nothing.
    #[default]
    Nothing,
    /// The answer to a request of which not all has been seen: it may be that there is no more to come.
    Unseen,
    /// The answer to a request.
    Answer,
}

impl Owed {
    fn patience(self) -> Duration {
        match self {
            Self::Unseen => limits::HALF_ASKED,
            // Or its last bytes, which are not written yet.
            Self::Answer | Self::Nothing => limits::HALF_CLOSED,
        }
    }
}

impl HalfClose {
    /// A request has begun or was seen whole, or its answer has ended.
    pub(super) fn owe(&self, owed: Owed) {
        self.owed.set(owed);
        self.look_again();
    }

    /// All was written so far, or something else has changed.
    pub(crate) fn look_again(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// A request was seen whole.
    pub(super) fn seen(&self) {
        if self.owed.get() == Owed::Unseen {
            self.owe(Owed::Answer);
        }
    }

    /// Whether the client has closed its side.
    pub(crate) fn is_closed(&self) -> bool {
        self.patience.borrow().is_some()
    }

    /// The client has closed its side: waits until that may be told, as nothing is owed or it was long enough. `written`: all that was
    /// to be sent so far was.
    pub(crate) fn poll_end(&self, written: bool, context: &mut Context<'_>) -> Poll<()> {
        let owed = self.owed.get();
        if written && owed == Owed::Nothing {
            return Poll::Ready(());
        }
        self.waker.replace(Some(context.waker().clone()));
        let mut patience = self.patience.borrow_mut();
        let (_, patience) = match patience.take_if(|(since, _)| *since == owed) {
            Some(same) => patience.insert(same),
            None => patience.insert((owed, Box::pin(tokio::time::sleep(owed.patience())))),
        };
        patience.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_told(half_close: &HalfClose, written: bool) -> bool {
        half_close.poll_end(written, &mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn the_end_is_told_when_nothing_is_owed_and_all_is_written() {
        let half_close = HalfClose::default();
        assert!(is_told(&half_close, true));
        half_close.owe(Owed::Unseen);
        assert!(!is_told(&half_close, true) && half_close.is_closed());
        half_close.seen();
        assert_eq!(half_close.owed.get(), Owed::Answer);
        assert!(!is_told(&half_close, true));
        half_close.owe(Owed::Nothing);
        assert!(!is_told(&half_close, false));
        assert!(is_told(&half_close, true));
        // Said of what came before.
        half_close.seen();
        assert_eq!(half_close.owed.get(), Owed::Nothing);
    }
}
