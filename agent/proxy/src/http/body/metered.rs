//! Bodies as they are paid for: what was read of one and is not written yet is on its holder's account. Whoever has too much on it is
//! not read on until some of that is written.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use weft_limits::Account;
use weft_limits::account::{Buffered, Waiting};

use super::BodyError;

/// A body whose bytes are paid for.
pub(crate) struct Metered<B> {
    body: B,
    account: Rc<Account>,
    waiting: Waiting,
}

impl<B> Metered<B> {
    /// Has `account` pay.
    pub(in crate::http) fn new(body: B, account: &Rc<Account>) -> Self {
        Self { body, account: Rc::clone(account), waiting: Waiting::default() }
    }

    /// The body itself.
    pub(super) fn get_mut(&mut self) -> &mut B {
        &mut self.body
    }

    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let account = &self.account;
        let wait = || {
            let account = Rc::clone(account);
            async move { account.room().await }
        };
        self.waiting.poll(account.may_read(), wait, context)
    }
}

impl<B> Body for Metered<B>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    type Data = Piece;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BodyError>>> {
        ready!(self.poll_room(context));
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(
            frame.map(|frame| frame.map(|frame| frame.map_data(|bytes| Piece::new(bytes, &self.account)))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: fmt::Debug> fmt::Debug for Metered<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metered").field("body", &self.body).finish_non_exhaustive()
    }
}

/// Bytes that are paid for until they are written or dropped.
#[derive(Debug)]
pub(crate) struct Piece {
    bytes: Bytes,
    #[expect(dead_code, reason = "held for its drop")]
    paid: Buffered,
}

impl Piece {
    fn new(bytes: Bytes, account: &Account) -> Self {
        let paid = Buffered::new(account, bytes.len());
        Self { bytes, paid }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        self.bytes.copy_to_bytes(count)
    }
}
