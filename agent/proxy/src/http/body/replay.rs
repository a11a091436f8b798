//! A request body kept while it streams, so that another try can send it again. Bounded: a longer body is sent once.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use weft_limits::Account;
use weft_limits::account::Buffered;

use super::BodyError;
use crate::limits;

/// A body that can be read again from its beginning, until it is too long or [`Replay::release`]d.
#[derive(Debug)]
pub(in crate::http) struct Replay<B>(Rc<RefCell<Kept<B>>>);

#[derive(Debug)]
struct Kept<B> {
    body: B,
    pieces: Vec<Piece>,
    bytes: usize,
    /// The body has been read to its end.
    ended: bool,
    /// Pieces are still kept.
    keeping: bool,
    /// Who pays for them, and what; without, nobody counts.
    account: Option<Rc<Account>>,
    paid: Option<Buffered>,
    /// The reader that may read: an earlier try's must not take what belongs to a later one.
    reader: u32,
}

#[derive(Debug, Clone)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Piece {
    fn frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(bytes) => Frame::data(bytes),
            Self::Trailers(trailers) => Frame::trailers(trailers),
        }
    }
}

/// One try's reading of the body.
#[derive(Debug)]
pub(crate) struct Reader<B> {
    kept: Rc<RefCell<Kept<B>>>,
    number: u32,
    next: usize,
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Replay<B> {
    /// Keeps a body for as long as `account` has room for it, and reads it for the first time.
    pub(in crate::http) fn new(body: B, account: Option<&Rc<Account>>) -> (Self, Reader<B>) {
        let ended = body.is_end_stream();
        let account = account.map(Rc::clone);
        let kept =
            Kept { body, pieces: Vec::new(), bytes: 0, ended, keeping: true, account, paid: None, reader: 0 };
        let replay = Self(Rc::new(RefCell::new(kept)));
        let first = replay.reader();
        (replay, first)
    }

    /// The body from its beginning, for the next try; the readers before it read no more. `None`: it is no longer kept.
    pub(in crate::http) fn read(&self) -> Option<Reader<B>> {
        let keeping = self.0.borrow().keeping;
        keeping.then(|| self.reader())
    }

    /// Keeps no more: the try under way is the last.
    pub(in crate::http) fn release(&self) {
        self.0.borrow_mut().keeping = false;
    }

    fn reader(&self) -> Reader<B> {
        let mut kept = self.0.borrow_mut();
        kept.reader += 1;
        Reader { kept: Rc::clone(&self.0), number: kept.reader, next: 0 }
    }
}

impl<B> Kept<B> {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        if let Some(bytes) = frame.data_ref() {
            self.bytes += bytes.len();
            if let Some(account) = &self.account {
                self.keeping = account.may_buffer();
                self.paid.get_or_insert_with(|| Buffered::new(account, 0)).add(account, bytes.len());
            }
            self.pieces.push(Piece::Data(bytes.clone()));
        } else if let Some(trailers) = frame.trailers_ref() {
            self.pieces.push(Piece::Trailers(trailers.clone()));
        }
        if self.bytes > limits::REPLAY_BYTES {
            self.keeping = false;
        }
    }
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Reader<B> {
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut kept = self.kept.borrow_mut();
        let kept = &mut *kept;
        if kept.reader != self.number {
            return Poll::Ready(Some(Err("another try has taken over".into())));
        }
        if let Some(piece) = kept.pieces.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(piece.clone().frame())));
        }
        if !kept.keeping && !kept.pieces.is_empty() {
            kept.pieces = Vec::new();
            kept.paid = None;
            self.next = 0;
        }
        if kept.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut kept.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) if kept.keeping => {
                kept.keep(frame);
                self.next += 1;
            }
            Some(Ok(_)) => {}
            Some(Err(_)) => {
                kept.ended = true;
                kept.keeping = false;
            }
            None => kept.ended = true,
        }
        kept.ended |= kept.body.is_end_stream();
        Poll::Ready(frame)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let kept = self.kept.borrow();
        kept.reader == self.number && kept.ended && self.next >= kept.pieces.len()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let kept = self.kept.borrow();
        let before: u64 = kept.pieces[self.next.min(kept.pieces.len())..]
            .iter()
            .map(|piece| if let Piece::Data(bytes) = piece { bytes.len() as u64 } else { 0 })
            .sum();
        let rest = if kept.ended { SizeHint::with_exact(0) } else { kept.body.size_hint() };
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(before + upper);
        }
        hint.set_lower(before + rest.lower());
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::poll_fn;

    use super::*;

    /// Frames that are there already.
    struct Script(VecDeque<Frame<Bytes>>);

    impl Body for Script {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    fn script(pieces: &[usize]) -> Script {
        Script(pieces.iter().map(|&size| Frame::data(Bytes::from(vec![b'x'; size]))).collect())
    }

    async fn next(reader: &mut Reader<Script>) -> Option<Result<usize, String>> {
        let frame = poll_fn(|context| reader.poll(context)).await?;
        Some(frame.map(|frame| frame.data_ref().map_or(0, Bytes::len)).map_err(|error| error.to_string()))
    }

    async fn rest(reader: &mut Reader<Script>) -> usize {
        let mut total = 0;
        while let Some(size) = next(reader).await {
            total += size.unwrap();
        }
        total
    }

    #[tokio::test]
    async fn a_later_try_reads_from_the_beginning() {
        let (replay, mut first) = Replay::new(script(&[3, 4, 5]), None);
        assert_eq!(next(&mut first).await, Some(Ok(3)));
        assert_eq!(next(&mut first).await, Some(Ok(4)));
        let mut second = replay.read().unwrap();
        assert_eq!(rest(&mut second).await, 12);
        assert!(second.is_end_stream());
        assert_eq!(second.size_hint().exact(), Some(0));
    }

    #[tokio::test]
    async fn an_earlier_try_reads_no_more() {
        let (replay, mut first) = Replay::new(script(&[3, 4]), None);
        assert_eq!(next(&mut first).await, Some(Ok(3)));
        let mut second = replay.read().unwrap();
        assert!(next(&mut first).await.unwrap().is_err());
        assert_eq!(rest(&mut second).await, 7);
    }

    #[tokio::test]
    async fn a_long_body_is_sent_once_and_not_kept() {
        let (replay, mut first) = Replay::new(script(&[limits::REPLAY_BYTES, 1, 1, 1]), None);
        assert_eq!(next(&mut first).await, Some(Ok(limits::REPLAY_BYTES)));
        assert_eq!(next(&mut first).await, Some(Ok(1)));
        assert!(replay.read().is_none());
        assert_eq!(rest(&mut first).await, 2);
        assert!(replay.0.borrow().pieces.is_empty());
    }

    #[tokio::test]
    async fn a_released_body_is_read_through_and_forgotten() {
        let (replay, mut first) = Replay::new(script(&[3, 4, 5]), None);
        assert_eq!(next(&mut first).await, Some(Ok(3)));
        let mut second = replay.read().unwrap();
        replay.release();
        assert_eq!(rest(&mut second).await, 12);
        assert!(replay.read().is_none());
        assert!(replay.0.borrow().pieces.is_empty());
    }
}
