//! Bytes between two streams: both directions in one task, half-close and reset passed on, back-pressure by not reading.
//!
//! An idle connection holds no buffer: a worker has one, filled and emptied within a poll.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use weft_limits::Account;
use weft_limits::account::Buffered;

use super::first_bytes::{FirstLine, Heard};
use super::scratch::with_scratch;
use super::standing::Activity;
use super::stream::Stream;

/// Size of a worker's buffer. Larger reads save system calls until the copy no longer fits the second-level cache.
const BUFFER_BYTES: usize = 256 * 1024;

/// The same where whoever pays for what is read has no room.
const NARROW_BYTES: usize = 8 * 1024;

/// What a relay moved.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    /// From the client.
    pub(super) received: u64,
    /// To the client.
    pub(super) sent: u64,
    /// A side ended by reset rather than by close.
    pub(super) reset: bool,
    /// It was reset here: what the client sent turned out to be a request.
    pub(super) turned: bool,
}

/// Bytes taken off a stream before the relay began.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// From the client, for the server.
    pub(super) received: Bytes,
    /// From the server, for the client.
    pub(super) sent: Bytes,
    /// The line that the client's begin, if it is not to become a request's.
    pub(super) line: Option<FirstLine>,
}

/// Relays until both sides have closed, one has reset, or `end` comes. Closes both.
pub(super) async fn run(
    mut down: Stream,
    mut up: Stream,
    ahead: Ahead,
    activity: &Activity,
    account: Option<&Rc<Account>>,
    end: impl Future<Output = ()>,
) -> Totals {
    let mut received = Flow { line: ahead.line, ..Flow::new(ahead.received, account) };
    let mut sent = Flow::new(ahead.sent, account);
    let moving = std::future::poll_fn(|context| {
        let before = (received.moved, sent.moved);
        let there = received.poll(context, &mut down, &mut up)?;
        let back = sent.poll(context, &mut up, &mut down)?;
        activity.note(received.moved != before.0, sent.moved != before.1);
        if there.is_ready() && back.is_ready() { Poll::Ready(io::Result::Ok(())) } else { Poll::Pending }
    });
    let outcome = tokio::select! {
        biased;
        outcome = moving => outcome,
        () = end => Err(io::ErrorKind::ConnectionAborted.into()),
    };
    if outcome.is_err() {
        down.reset();
        up.reset();
    }
    let reset = outcome.is_err();
    let turned = outcome.is_err_and(|error| error.kind() == io::ErrorKind::InvalidInput);
    Totals { received: received.moved, sent: sent.moved, reset, turned }
}

/// One direction.
#[derive(Debug)]
struct Flow {
    /// Read, not yet written.
    rest: Bytes,
    /// The first line of the source, while it is looked at.
    line: Option<FirstLine>,
    /// Who pays for that while it waits, and what.
    account: Option<Rc<Account>>,
    paid: Option<Buffered>,
    /// Something was written that the target may still hold.
    unflushed: bool,
    moved: u64,
    ended: bool,
    closed: bool,
}

impl Flow {
    fn new(ahead: Bytes, account: Option<&Rc<Account>>) -> Self {
        let account = account.map(Rc::clone);
        let (line, paid) = (None, None);
        Self { rest: ahead, line, account, paid, unflushed: false, moved: 0, ended: false, closed: false }
    }

    /// Moves what can be moved. Ready: the source has closed, and so has this direction of the target.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
    ) -> Poll<io::Result<()>> {
        loop {
            while !self.rest.is_empty() {
                self.unflushed = true;
                let Poll::Ready(written) = Pin::new(&mut *to).poll_write(context, &self.rest)? else {
                    self.pay();
                    return Poll::Pending;
                };
                self.rest.advance(written);
                self.moved += written as u64;
            }
            self.paid = None;
            if self.closed {
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(context))?;
                self.closed = true;
                return Poll::Ready(Ok(()));
            }
            let moved = match from.poll_take(context) {
                Some(Poll::Ready(taken)) => Poll::Ready(taken.and_then(|bytes| {
                    self.look(&bytes)?;
                    self.ended = bytes.is_empty();
                    self.rest = bytes;
                    Ok(())
                })),
                Some(Poll::Pending) => Poll::Pending,
                None => with_scratch(self.most(), |buffer| self.pass(context, from, to, buffer)),
            };
            if moved.is_pending() && self.unflushed {
                // Nothing follows for now: what was written must not wait for more.
                self.unflushed = Pin::new(&mut *to).poll_flush(context)?.is_pending();
            }
            ready!(moved)?;
        }
    }

    /// Fails when the first line turns out to be a request's: nothing of its end has passed.
    fn look(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(line) = &mut self.line else { return Ok(()) };
        match line.hear(bytes) {
            Heard::More => {}
            Heard::Over => self.line = None,
            Heard::LikeHttp => return Err(io::ErrorKind::InvalidInput.into()),
        }
        Ok(())
    }

    /// How much may be read at once: what the target does not take has to be kept.
    fn most(&self) -> usize {
        match &self.account {
            Some(account) if !account.may_buffer() => NARROW_BYTES,
            Some(_) | None => BUFFER_BYTES,
        }
    }

    /// Pays for what is kept.
    fn pay(&mut self) {
        if self.paid.is_none() {
            self.paid = self.account.as_ref().map(|account| Buffered::new(account, self.rest.len()));
        }
    }

    /// Reads once and writes at once; what the target does not take is kept.
    fn pass(
        &mut self,
        context: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        buffer: &mut [u8],
    ) -> Poll<io::Result<()>> {
        let mut read = ReadBuf::new(buffer);
        ready!(Pin::new(from).poll_read(context, &mut read))?;
        let mut bytes = read.filled();
        self.look(bytes)?;
        self.ended = bytes.is_empty();
        self.unflushed |= !bytes.is_empty();
        while !bytes.is_empty() {
            match Pin::new(&mut *to).poll_write(context, bytes)? {
                Poll::Ready(written) => {
                    self.moved += written as u64;
                    bytes = &bytes[written..];
                }
                Poll::Pending => {
                    self.rest = Bytes::copy_from_slice(bytes);
                    self.pay();
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(near, listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    /// A client, a server, and a relay between them.
    async fn relayed(ahead: Ahead) -> (TcpStream, TcpStream, tokio::task::JoinHandle<Totals>) {
        let ((client, down), (server, up)) = (pair().await, pair().await);
        (
            client,
            server,
            tokio::task::spawn_local(async move {
                let activity = Activity::default();
                run(down.into(), up.into(), ahead, &activity, None, std::future::pending()).await
            }),
        )
    }

    #[tokio::test(flavor = "local")]
    async fn each_side_may_close_first_and_still_hear() {
        let (mut client, mut server, relay) = relayed(Ahead::default()).await;
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        server.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "question");
        server.write_all(b"a long answer").await.unwrap();
        drop(server);
        heard.clear();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "a long answer");
        assert_eq!(relay.await.unwrap(), Totals { received: 8, sent: 13, ..Totals::default() });
    }

    #[tokio::test(flavor = "local")]
    async fn a_reset_stays_a_reset() {
        let (mut client, server, relay) = relayed(Ahead::default()).await;
        server.set_zero_linger().unwrap();
        drop(server);
        let error = client.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(relay.await.unwrap().reset);

        let (client, mut server, relay) = relayed(Ahead::default()).await;
        client.set_zero_linger().unwrap();
        drop(client);
        let error = server.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(relay.await.unwrap().reset);
    }

    #[tokio::test(flavor = "local")]
    async fn what_was_read_ahead_comes_first() {
        let ahead = Ahead {
            received: Bytes::from_static(b"first "),
            sent: Bytes::from_static(b"welcome "),
            ..Ahead::default()
        };
        let (mut client, mut server, relay) = relayed(ahead).await;
        client.write_all(b"second").await.unwrap();
        client.shutdown().await.unwrap();
        server.write_all(b"back").await.unwrap();
        server.shutdown().await.unwrap();
        let (mut there, mut back) = (String::new(), String::new());
        server.read_to_string(&mut there).await.unwrap();
        client.read_to_string(&mut back).await.unwrap();
        assert_eq!((there.as_str(), back.as_str()), ("first second", "welcome back"));
        assert_eq!(relay.await.unwrap(), Totals { received: 12, sent: 12, ..Totals::default() });
    }

    #[tokio::test(flavor = "local")]
    async fn what_was_taken_for_bytes_does_not_go_on_as_a_request() {
        let begun = |first: &'static [u8]| Ahead {
            received: Bytes::from_static(first),
            line: FirstLine::begun_by(first),
            ..Ahead::default()
        };
        let (mut client, mut server, relay) = relayed(begun(b"get /")).await;
        client.write_all(b" HTTP/1.1\r\nx-forwarded-client-cert: By=me\r\n\r\n").await.unwrap();
        let mut heard = [0; 64];
        let mut count = 0;
        let error = loop {
            match server.read(&mut heard[count..]).await {
                Ok(more) => count += more,
                Err(error) => break error,
            }
        };
        assert_eq!((&heard[..count], error.kind()), (&b"get /"[..], io::ErrorKind::ConnectionReset));
        let totals = relay.await.unwrap();
        assert!(totals.turned && totals.reset, "{totals:?}");

        let (mut client, mut server, relay) = relayed(begun(b"get ")).await;
        client.write_all(b"key\r\nget / HTTP/1.1\r\n").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        server.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "get key\r\nget / HTTP/1.1\r\n");
        drop((server, client));
        assert!(!relay.await.unwrap().turned);
    }

    #[tokio::test(flavor = "local")]
    async fn a_slow_reader_gets_every_byte() {
        const BYTES: usize = 32 * 1024 * 1024;
        let (mut client, mut server, relay) = relayed(Ahead::default()).await;
        let sending = async {
            let piece: Vec<u8> = (0..65_536_u32).map(|index| (index % 251) as u8).collect();
            for _ in 0..BYTES / piece.len() {
                client.write_all(&piece).await.unwrap();
            }
            client.shutdown().await.unwrap();
        };
        let reading = async {
            let (mut total, mut buffer) = (0, vec![0; 8192]);
            loop {
                let count = server.read(&mut buffer).await.unwrap();
                if count == 0 {
                    return total;
                }
                for (at, byte) in buffer[..count].iter().enumerate() {
                    assert_eq!(*byte, ((total + at) % 65_536 % 251) as u8);
                }
                total += count;
                tokio::task::yield_now().await;
            }
        };
        let ((), total) = tokio::join!(sending, reading);
        assert_eq!(total, BYTES);
        drop((client, server));
        assert_eq!(relay.await.unwrap().received, BYTES as u64);
    }
}
