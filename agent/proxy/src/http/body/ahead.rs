//! The beginning of a body, for somebody who is asked about it before it is sent. What was looked at still goes its way.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

use super::{BodyError, ClientBody, Metered, RequestBody};

/// A body whose beginning has come already.
#[derive(Debug)]
pub(crate) struct Ahead {
    frames: VecDeque<Frame<Bytes>>,
    /// `None`: there is no more.
    rest: Option<RequestBody>,
}

/// What was looked at.
#[derive(Debug)]
pub(in crate::http) struct Peeked {
    /// The bytes, at most as many as were asked for.
    pub(in crate::http) bytes: Bytes,
    /// Whether that is all.
    pub(in crate::http) whole: bool,
}

/// A body that can be looked at before it is sent.
pub(in crate::http) trait LookAhead {
    /// Waits for the first `limit` bytes, or for the end.
    ///
    /// # Errors
    /// It broke off before.
    async fn look_ahead(&mut self, limit: usize) -> Result<Peeked, BodyError>;
}

impl LookAhead for RequestBody {
    async fn look_ahead(&mut self, limit: usize) -> Result<Peeked, BodyError> {
        if let Self::Held(held) = self {
            // Whoever wants to see it wants it to come.
            held.gate.open();
        }
        let (peeked, frames, ended) = begin(self, limit).await?;
        let rest = std::mem::replace(self, Self::Empty);
        *self = Self::Ahead(Box::new(Ahead { frames, rest: (!ended).then_some(rest) }));
        Ok(peeked)
    }
}

impl<B: LookAhead> LookAhead for Metered<B> {
    async fn look_ahead(&mut self, limit: usize) -> Result<Peeked, BodyError> {
        self.get_mut().look_ahead(limit).await
    }
}

impl LookAhead for ClientBody {
    async fn look_ahead(&mut self, limit: usize) -> Result<Peeked, BodyError> {
        let (peeked, frames, _) = begin(self, limit).await?;
        self.ahead = frames;
        Ok(peeked)
    }
}

/// Reads the first `limit` bytes of a body; answers the frames that they came in too, and whether those are all.
async fn begin<B>(body: &mut B, limit: usize) -> Result<(Peeked, VecDeque<Frame<Bytes>>, bool), BodyError>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    let mut frames = VecDeque::new();
    let mut bytes = BytesMut::new();
    let mut ended = body.is_end_stream();
    while !ended && bytes.len() <= limit {
        match std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
            None => ended = true,
            Some(Err(error)) => return Err(error),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    bytes.extend_from_slice(data);
                }
                frames.push_back(frame);
                ended = body.is_end_stream();
            }
        }
    }
    let whole = ended && bytes.len() <= limit;
    bytes.truncate(limit);
    Ok((Peeked { bytes: bytes.freeze(), whole }, frames, ended))
}

impl Ahead {
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match (self.frames.pop_front(), &mut self.rest) {
            (Some(frame), _) => Poll::Ready(Some(Ok(frame))),
            (None, Some(rest)) => Pin::new(rest).poll_frame(context),
            (None, None) => Poll::Ready(None),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let rest = self.rest.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint);
        with_frames(&self.frames, &rest)
    }
}

/// The size of a body whose beginning is in these frames.
pub(super) fn with_frames(frames: &VecDeque<Frame<Bytes>>, rest: &SizeHint) -> SizeHint {
    let here = frames.iter().filter_map(Frame::data_ref).map(Bytes::len).sum::<usize>() as u64;
    let mut hint = SizeHint::new();
    hint.set_lower(rest.lower() + here);
    if let Some(upper) = rest.upper() {
        hint.set_upper(upper + here);
    }
    hint
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn own(text: &'static str) -> RequestBody {
        RequestBody::Own(Some(Bytes::from_static(text.as_bytes())))
    }

    #[tokio::test]
    async fn what_was_looked_at_still_goes_its_way() {
        for (limit, seen, whole) in [(3, "abc", false), (6, "abcdef", true), (9, "abcdef", true)] {
            let mut body = own("abcdef");
            let peeked = body.look_ahead(limit).await.expect("a body");
            assert_eq!((&peeked.bytes[..], peeked.whole), (seen.as_bytes(), whole), "{limit}");
            assert_eq!(body.size_hint().exact(), Some(6));
            body.look_ahead(limit).await.expect("a body");
            assert_eq!(body.collect().await.expect("a body").to_bytes(), "abcdef");
        }
    }

    #[tokio::test]
    async fn an_empty_body_is_whole() {
        let mut body = RequestBody::Empty;
        let peeked = body.look_ahead(10).await.expect("a body");
        assert!(peeked.whole && peeked.bytes.is_empty() && body.is_end_stream());
    }
}
