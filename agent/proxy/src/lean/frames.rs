//! The byte stream of one application connection within a lean tunnel.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// Kind and length of what follows: one byte, and three in network order.
const HEADER_BYTES: usize = 4;
/// Payload of a DATA frame: with its header it fills one TLS record (RFC 8446, 5.1).
const DATA_BYTES: usize = 16 * 1024 - HEADER_BYTES;
/// Pieces that go into one frame; what is in more goes into the next.
const PIECES: usize = 16;
/// Payload of a frame that is read whole.
const WORDS_BYTES: usize = 1024;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The client asks for a connection to an address; the text is that address.
    Open = 1,
    /// The server's answer: a status of HTTP and, if it is not 200, why.
    Answer = 2,
    /// Bytes.
    Data = 3,
    /// No more bytes in this direction.
    End = 4,
    /// Bytes go on, but should soon come to an end: the server's agent is about to.
    Leave = 5,
}

impl Kind {
    fn of(byte: u8) -> io::Result<Self> {
        Ok(match byte {
            1 => Self::Open,
            2 => Self::Answer,
            3 => Self::Data,
            4 => Self::End,
            5 => Self::Leave,
            other => return Err(invalid(format!("a frame of unknown kind {other}"))),
        })
    }
}

fn invalid(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn header(kind: Kind, length: usize) -> [u8; HEADER_BYTES] {
    // No frame is longer than a TLS record.
    [kind as u8, (length >> 16) as u8, (length >> 8) as u8, length as u8]
}

/// Writes a frame of words, and sees it off.
pub(crate) async fn say<S>(io: &mut S, kind: Kind, words: &[u8]) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    let words = &words[..words.len().min(WORDS_BYTES)];
    let frame = [&header(kind, words.len()), words].concat();
    io.write_all(&frame).await?;
    io.flush().await
}

/// Reads a frame of words. `None`: the peer has closed between two frames.
pub(crate) async fn hear<S>(io: &mut S, kind: Kind) -> io::Result<Option<Vec<u8>>>
where
    S: AsyncRead + Unpin,
{
    let mut head = [0; HEADER_BYTES];
    let first = io.read(&mut head).await?;
    if first == 0 {
        return Ok(None);
    }
    io.read_exact(&mut head[first..]).await?;
    let length = length_of(head);
    if Kind::of(head[0])? != kind || length > WORDS_BYTES {
        return Err(invalid(format!("kind {} of {length} bytes where {kind:?} was due", head[0])));
    }
    let mut words = vec![0; length];
    io.read_exact(&mut words).await?;
    Ok(Some(words))
}

fn length_of([_, a, b, c]: [u8; HEADER_BYTES]) -> usize {
    usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)
}

/// An application's connection: DATA frames in both directions, each until its END.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    head: [u8; HEADER_BYTES],
    head_read: usize,
    /// Bytes of the frame being read that are still to come.
    due: usize,
    heard_end: bool,
    heard_leave: bool,
    /// Bytes of the frame being written that are still to come.
    owed: usize,
    /// Bytes of END that are written.
    end_written: usize,
    said_end: bool,
    /// Bytes of LEAVE that are written.
    leave_written: usize,
}

impl Frames {
    /// Both directions have ended: the tunnel is free for another connection.
    pub(crate) fn is_over(&self) -> bool {
        self.heard_end && self.said_end
    }

    /// The peer wants this to end when that does no harm.
    pub(crate) fn is_leaving(&self) -> bool {
        self.heard_leave
    }

    /// Reads bytes; none at the END. As many as there are: several frames, where they have arrived.
    pub(crate) fn poll_read<S>(
        &mut self,
        io: &mut S,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>>
    where
        S: AsyncRead + Unpin,
    {
        let before = buffer.filled().len();
        while !self.heard_end && buffer.remaining() > 0 {
            match self.poll_some(io, context, buffer) {
                Poll::Ready(Ok(())) => {}
                // What has been read is not lost by what comes after it: the next read tells.
                _ if buffer.filled().len() > before => break,
                other => return other,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_some<S>(
        &mut self,
        io: &mut S,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>>
    where
        S: AsyncRead + Unpin,
    {
        if self.due > 0 {
            let room = buffer.remaining().min(self.due);
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
            ready!(Pin::new(io).poll_read(context, &mut part))?;
            let count = part.filled().len();
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            buffer.advance(count);
            self.due -= count;
            return Poll::Ready(Ok(()));
        }
        self.poll_head(io, context)
    }

    /// Waits until there is something to read, or the end; reads nothing.
    pub(crate) fn poll_speaks<S>(&mut self, io: &mut S, context: &mut Context<'_>) -> Poll<()>
    where
        S: AsyncRead + Unpin,
    {
        while self.due == 0 && !self.heard_end {
            if ready!(self.poll_head(io, context)).is_err() {
                break;
            }
        }
        Poll::Ready(())
    }

    /// Reads some of a frame's header. One that is nonsense stays, and so does the error.
    fn poll_head<S>(&mut self, io: &mut S, context: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncRead + Unpin,
    {
        if self.head_read < HEADER_BYTES {
            let mut head = ReadBuf::new(&mut self.head[self.head_read..]);
            ready!(Pin::new(io).poll_read(context, &mut head))?;
            let count = head.filled().len();
            if count == 0 {
                // Closed without END: the peer's application, or its agent, was cut off.
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            self.head_read += count;
        }
        if self.head_read == HEADER_BYTES {
            match (Kind::of(self.head[0])?, length_of(self.head)) {
                (Kind::Data, length @ 1..=DATA_BYTES) => self.due = length,
                (Kind::End, 0) => self.heard_end = true,
                (Kind::Leave, 0) => self.heard_leave = true,
                (kind, length) => {
                    return Poll::Ready(Err(invalid(format!("{kind:?} of {length} bytes amid data"))));
                }
            }
            self.head_read = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes some bytes: as one frame, in one TLS record.
    pub(crate) fn poll_write<S>(
        &mut self,
        io: &mut S,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>>
    where
        S: AsyncWrite + Unpin,
    {
        self.poll_write_vectored(io, context, &[io::IoSlice::new(bytes)])
    }

    /// As [`Self::poll_write`], of bytes in pieces.
    pub(crate) fn poll_write_vectored<S>(
        &mut self,
        io: &mut S,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>>
    where
        S: AsyncWrite + Unpin,
    {
        if self.owed > 0 {
            let Some(bytes) = pieces.iter().find(|piece| !piece.is_empty()) else {
                return Poll::Ready(Ok(0));
            };
            let count = ready!(Pin::new(io).poll_write(context, &bytes[..bytes.len().min(self.owed)]))?;
            self.owed -= count;
            return Poll::Ready(Ok(count));
        }
        let mut slices = [io::IoSlice::new(&[]); PIECES + 1];
        let mut length = 0;
        for (slice, piece) in slices[1..].iter_mut().zip(pieces) {
            let part = &piece[..piece.len().min(DATA_BYTES - length)];
            *slice = io::IoSlice::new(part);
            length += part.len();
        }
        if length == 0 {
            return Poll::Ready(Ok(0));
        }
        let head = header(Kind::Data, length);
        slices[0] = io::IoSlice::new(&head);
        let written =
            ready!(Pin::new(io).poll_write_vectored(context, &slices[..=pieces.len().min(PIECES)]))?;
        // TLS takes a whole record or nothing; a part of the header alone could not be told to the caller.
        let Some(count) = written.checked_sub(HEADER_BYTES) else {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        };
        self.owed = length - count;
        Poll::Ready(Ok(count))
    }

    /// Says, once and between two frames, that this should end when that does no harm. It leaves with what is written next.
    pub(crate) fn poll_leave<S>(&mut self, io: &mut S, context: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        if self.owed > 0 {
            return Poll::Ready(Ok(()));
        }
        poll_bare(Kind::Leave, &mut self.leave_written, io, context)
    }

    /// Says that no more bytes will come, and sees it off.
    pub(crate) fn poll_end<S>(&mut self, io: &mut S, context: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        if self.owed > 0 {
            // Whoever was writing broke off in the middle.
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        ready!(poll_bare(Kind::End, &mut self.end_written, io, context))?;
        ready!(Pin::new(io).poll_flush(context))?;
        self.said_end = true;
        Poll::Ready(Ok(()))
    }
}

/// Writes a frame that is a header and nothing else, from where it was left.
fn poll_bare<S>(
    kind: Kind,
    written: &mut usize,
    io: &mut S,
    context: &mut Context<'_>,
) -> Poll<io::Result<()>>
where
    S: AsyncWrite + Unpin,
{
    let header = header(kind, 0);
    while *written < HEADER_BYTES {
        *written += ready!(Pin::new(&mut *io).poll_write(context, &header[*written..]))?;
    }
    Poll::Ready(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One end of a tunnel, as the proxy uses it.
    struct End<S> {
        io: S,
        frames: Frames,
    }

    impl<S: AsyncRead + AsyncWrite + Unpin> End<S> {
        fn new(io: S) -> Self {
            Self { io, frames: Frames::default() }
        }

        async fn read(&mut self, most: usize) -> io::Result<Vec<u8>> {
            let mut bytes = vec![0; most];
            let mut buffer = ReadBuf::new(&mut bytes);
            std::future::poll_fn(|cx| self.frames.poll_read(&mut self.io, cx, &mut buffer)).await?;
            let count = buffer.filled().len();
            bytes.truncate(count);
            Ok(bytes)
        }

        async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
            while !bytes.is_empty() {
                let count =
                    std::future::poll_fn(|cx| self.frames.poll_write(&mut self.io, cx, bytes)).await?;
                bytes = &bytes[count..];
            }
            Ok(())
        }

        async fn end(&mut self) -> io::Result<()> {
            std::future::poll_fn(|cx| self.frames.poll_end(&mut self.io, cx)).await
        }
    }

    #[tokio::test]
    async fn a_tunnel_carries_one_connection_after_another() {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (mut near, mut far) = (near, far);
        for turn in 0..3_u8 {
            say(&mut near, Kind::Open, b"10.0.0.1:80").await.unwrap();
            assert_eq!(hear(&mut far, Kind::Open).await.unwrap().unwrap(), b"10.0.0.1:80");
            say(&mut far, Kind::Answer, b"200").await.unwrap();
            assert_eq!(hear(&mut near, Kind::Answer).await.unwrap().unwrap(), b"200");
            let (mut client, mut server) = (End::new(near), End::new(far));
            client.write_all(&[turn; 5]).await.unwrap();
            client.end().await.unwrap();
            assert_eq!(server.read(64).await.unwrap(), [turn; 5]);
            assert!(server.read(64).await.unwrap().is_empty());
            assert!(!server.frames.is_over());
            server.write_all(b"answer").await.unwrap();
            server.end().await.unwrap();
            assert_eq!(client.read(3).await.unwrap(), b"ans");
            assert_eq!(client.read(64).await.unwrap(), b"wer");
            assert!(client.read(64).await.unwrap().is_empty());
            assert!(client.frames.is_over() && server.frames.is_over());
            (near, far) = (client.io, server.io);
        }
        drop(near);
        assert_eq!(hear(&mut far, Kind::Open).await.unwrap(), None);
    }

    #[tokio::test]
    async fn who_leaves_says_so_once_between_two_frames() {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (mut client, mut server) = (End::new(near), End::new(far));
        for word in [b"one", b"two"] {
            std::future::poll_fn(|cx| server.frames.poll_leave(&mut server.io, cx)).await.unwrap();
            server.write_all(word).await.unwrap();
        }
        server.end().await.unwrap();
        assert!(!client.frames.is_leaving());
        assert_eq!(client.read(64).await.unwrap(), b"onetwo");
        assert!(client.frames.is_leaving());
        assert!(client.read(64).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn many_bytes_pass_through_a_narrow_pipe() {
        let (near, far) = tokio::io::duplex(1000);
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|index| (index % 251) as u8).collect();
        let sent = bytes.clone();
        let sending = async {
            let mut near = End::new(near);
            near.write_all(&sent).await.unwrap();
            near.end().await.unwrap();
            near.io
        };
        let receiving = async {
            let (mut far, mut received) = (End::new(far), Vec::new());
            loop {
                let some = far.read(70_000).await.unwrap();
                if some.is_empty() {
                    return received;
                }
                received.extend(some);
            }
        };
        let (_open, received) = tokio::join!(sending, receiving);
        assert!(received == bytes);
    }

    #[tokio::test]
    async fn nonsense_behind_data_is_an_error_from_then_on() {
        for nonsense in [[5, 0, 126, 0], [9, 0, 0, 0], [3, 0, 0, 0]] {
            let (mut near, far) = tokio::io::duplex(100);
            near.write_all(&[&[3, 0, 0, 1, b'x'][..], &nonsense, &[3, 0, 0, 1, b'y', 4, 0, 0, 0]].concat())
                .await
                .unwrap();
            let mut far = End::new(far);
            assert_eq!(far.read(100).await.unwrap(), b"x");
            for _ in 0..2 {
                assert_eq!(
                    far.read(100).await.unwrap_err().kind(),
                    io::ErrorKind::InvalidData,
                    "{nonsense:?}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_peer_that_breaks_off_or_talks_nonsense_is_an_error() {
        for (bytes, expected) in [
            (&[][..], io::ErrorKind::ConnectionReset),
            (&[3, 0, 0], io::ErrorKind::ConnectionReset),
            (&[3, 0, 0, 9, 1], io::ErrorKind::ConnectionReset),
            (&[3, 0, 0, 0], io::ErrorKind::InvalidData),
            (&[3, 1, 0, 0], io::ErrorKind::InvalidData),
            (&[4, 0, 0, 1], io::ErrorKind::InvalidData),
            (&[1, 0, 0, 1, b'x'], io::ErrorKind::InvalidData),
            (&[9, 0, 0, 0], io::ErrorKind::InvalidData),
        ] {
            let (mut near, far) = tokio::io::duplex(100);
            near.write_all(bytes).await.unwrap();
            drop(near);
            let mut far = End::new(far);
            let mut outcome = far.read(100).await;
            if matches!(&outcome, Ok(read) if !read.is_empty()) {
                outcome = far.read(100).await;
            }
            assert_eq!(outcome.unwrap_err().kind(), expected, "{bytes:?}");
        }
        let (mut near, mut far) = tokio::io::duplex(100);
        near.write_all(&[1, 0, 255, 255]).await.unwrap();
        assert_eq!(hear(&mut far, Kind::Open).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
