//! A request body kept while it streams, so that another try can send it again. Bounded: a longer body is sent once.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::{BodyError, ClientBody, RequestBody};
use crate::proxy::limits;

/// A body that can be read again from its beginning, until it is too long or [`Replay::release`]d.
#[derive(Debug, Clone)]
pub(in crate::proxy::http) struct Replay(Rc<RefCell<Kept>>);

#[derive(Debug)]
struct Kept {
    client: ClientBody,
    pieces: Vec<Piece>,
    bytes: usize,
    /// The client's body has been read to its end.
    ended: bool,
    /// Pieces are still kept.
    keeping: bool,
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
pub(in crate::proxy) struct Reader {
    kept: Rc<RefCell<Kept>>,
    number: u32,
    next: usize,
}

impl Replay {
    /// Keeps a body, and reads it for the first time.
    pub(in crate::proxy::http) fn new(client: ClientBody) -> (Self, RequestBody) {
        let ended = client.is_empty();
        let kept = Kept { client, pieces: Vec::new(), bytes: 0, ended, keeping: true, reader: 0 };
        let replay = Self(Rc::new(RefCell::new(kept)));
        let first = replay.reader();
        (replay, first)
    }

    /// The body from its beginning, for the next try; the readers before it read no more. `None`: it is no longer kept.
    pub(in crate::proxy::http) fn read(&self) -> Option<RequestBody> {
        let keeping = self.0.borrow().keeping;
        keeping.then(|| self.reader())
    }

    /// Keeps no more: the try under way is the last.
    pub(in crate::proxy::http) fn release(&self) {
        self.0.borrow_mut().keeping = false;
    }

    fn reader(&self) -> RequestBody {
        let mut kept = self.0.borrow_mut();
        kept.reader += 1;
        RequestBody::Kept(Reader { kept: Rc::clone(&self.0), number: kept.reader, next: 0 })
    }
}

impl Kept {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        if let Some(bytes) = frame.data_ref() {
            self.bytes += bytes.len();
            self.pieces.push(Piece::Data(bytes.clone()));
        } else if let Some(trailers) = frame.trailers_ref() {
            self.pieces.push(Piece::Trailers(trailers.clone()));
        }
        if self.bytes > limits::REPLAY_BYTES {
            self.keeping = false;
        }
    }
}

impl Reader {
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
            self.next = 0;
        }
        if kept.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(kept.client.poll(context));
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
        kept.ended |= kept.client.incoming.is_end_stream();
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
        let rest =
            if kept.ended { SizeHint::with_exact(0) } else { Pin::new(&kept.client.incoming).size_hint() };
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(before + upper);
        }
        hint.set_lower(before + rest.lower());
        hint
    }
}
