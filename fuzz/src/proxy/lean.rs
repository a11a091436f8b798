//! The tunnel between two agents.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use super::{ADDRESSES, check};

#[path = "../../../agent/proxy/src/lean/frames.rs"]
mod frames;
#[path = "../../../agent/proxy/src/lean/words.rs"]
mod words;

use frames::{Frames, Kind, hear};

/// What a server heard of one connection after another.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    opened: Vec<Vec<u8>>,
    bytes: Vec<u8>,
    left: Vec<bool>,
    ended: Option<io::ErrorKind>,
}

/// Whatever a client sends, and however it is cut into packets: the server hears the same, and goes nowhere but to its pod.
pub fn listens(sent: &[u8], piece: usize) {
    let hear = |piece, room| block_on(serve(Pieces { rest: sent, piece }, room));
    assert_eq!(hear(usize::MAX, 64 * 1024), hear(piece.max(1), piece % 7 + 1));
}

async fn serve(mut io: Pieces<'_>, room: usize) -> Heard {
    let mut heard = Heard::default();
    let ended: io::Result<()> = async {
        while let Some(asked) = hear(&mut io, Kind::Open).await? {
            if let Some((to, read)) = words::read(&asked, &*ADDRESSES) {
                check(to);
                assert_eq!(words::read(words::write(to, read).as_bytes(), &*ADDRESSES), Some((to, read)));
            }
            heard.opened.push(asked);
            let mut frames = Frames::default();
            loop {
                let mut bytes = vec![0; room];
                let mut buffer = ReadBuf::new(&mut bytes);
                poll_fn(|context| frames.poll_read(&mut io, context, &mut buffer)).await?;
                if buffer.filled().is_empty() {
                    break;
                }
                heard.bytes.extend(buffer.filled());
            }
            assert!(!frames.is_over(), "nothing was said");
            heard.left.push(frames.is_leaving());
        }
        Ok(())
    }
    .await;
    heard.ended = ended.err().map(|error| error.kind());
    heard
}

/// What one end writes, in whatever pieces, the other reads.
pub fn carries(bytes: &[u8], piece: usize) {
    let mut wire = Vec::new();
    block_on(async {
        let mut frames = Frames::default();
        for mut part in bytes.chunks(piece.max(1)) {
            while !part.is_empty() {
                let (one, two) = part.split_at(part.len() / 2);
                let pieces = [io::IoSlice::new(one), io::IoSlice::new(two)];
                let count = poll_fn(|context| frames.poll_write_vectored(&mut wire, context, &pieces)).await;
                part = &part[count.expect("room")..];
            }
            poll_fn(|context| frames.poll_leave(&mut wire, context)).await.expect("room");
        }
        poll_fn(|context| frames.poll_end(&mut wire, context)).await.expect("room");
    });
    let open = [&[1, 0, 0, 11][..], b"10.0.0.7:80"].concat();
    let sent = [open, wire].concat();
    let heard = block_on(serve(Pieces { rest: &sent, piece: usize::MAX }, 64 * 1024));
    assert!(heard.bytes == bytes && heard.ended.is_none(), "{heard:?}");
}

/// A connection on which bytes arrive some at a time, and then its end.
struct Pieces<'a> {
    rest: &'a [u8],
    piece: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.rest.len().min(self.piece).min(buffer.remaining());
        let (now, later) = self.rest.split_at(count);
        buffer.put_slice(now);
        self.rest = later;
        Poll::Ready(Ok(()))
    }
}

/// Nothing here ever waits.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}
