//! What a connection speaks: from its first bytes where they decide, from who speaks first where the port is undeclared.

use std::io;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::connection::Downstream;
use super::first_bytes::{FirstLine, PREFACE, Verdict, verdict};
use super::inbound;
use super::stream::Stream;
use super::{limits, tcp};

/// An HTTP connection's first bytes, already taken off the stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HttpStart {
    /// Whether they are HTTP/2's preface.
    pub(super) http2: bool,
    /// The bytes.
    pub(super) bytes: Bytes,
}

/// The server's side of a connection to an undeclared port.
#[derive(Debug)]
pub(super) enum Server {
    /// It may be dialled once the client has been silent for a while.
    Silent,
    /// The connection stands already.
    Stands(Box<tcp::Upstream>),
    /// Nothing may reach it.
    Forbidden,
}

impl Server {
    /// One that may stand already.
    pub(super) fn of(upstream: Option<Box<tcp::Upstream>>) -> Self {
        upstream.map_or(Self::Silent, Self::Stands)
    }
}

/// What became clear of a connection to an undeclared port.
#[derive(Debug)]
pub(super) enum Spoke {
    /// The client, in HTTP.
    Http(HttpStart),
    /// The client in something else, or the server first.
    Bytes {
        /// What the client sent so far.
        first: Bytes,
        /// The line that they begin, where it may still end as a request's.
        line: Option<FirstLine>,
        /// The connection that was opened meanwhile.
        upstream: Option<Box<tcp::Upstream>>,
    },
    /// Nobody: the client has left.
    Gone,
}

/// Reads the first bytes of a connection to a declared HTTP port until they tell the version. What is not HTTP at all is
/// given to the HTTP/1.1 parser: it answers 400. `None`: the client has left without a word.
pub(super) async fn http_version(stream: &mut Stream) -> Option<HttpStart> {
    let mut first = FirstBytes::default();
    loop {
        let open = first.read(stream).await.ok()?;
        match verdict(&first.bytes) {
            Verdict::Http2 => return Some(first.http(true)),
            // `PRI` might still become the preface; no other start can.
            Verdict::Undecided if open && PREFACE.starts_with(&first.bytes) => {}
            _ if first.bytes.is_empty() => return None,
            _ => return Some(first.http(false)),
        }
    }
}

/// Finds out what a connection to an undeclared port speaks. A client that is silent for [`limits::SILENT_CLIENT`] gets its
/// TCP destination dialled: if that one speaks first, the connection is bytes. There is no time limit: a client that
/// takes a minute over its first line is still read as what it turns out to be.
pub(super) async fn race(down: &Rc<Downstream>, stream: &mut Stream, server: Server) -> Spoke {
    let mut first = FirstBytes::default();
    let mut silence = std::pin::pin!(speculate(down));
    let (mut upstream, mut dialled) = match server {
        Server::Silent => (None, false),
        Server::Stands(upstream) => (Some(upstream), true),
        Server::Forbidden => (None, true),
    };
    loop {
        tokio::select! {
            biased;
            read = first.read(stream) => {
                let Ok(open) = read else {
                    if let Some(upstream) = upstream {
                        upstream.reset();
                    }
                    return Spoke::Gone;
                };
                match verdict(&first.bytes) {
                    Verdict::Http1 => { tcp::keep_for_http(down, upstream); return Spoke::Http(first.http(false)); }
                    Verdict::Http2 => return Spoke::Http(first.http(true)),
                    Verdict::Undecided if open => {}
                    // A client that closes without a word may still want to hear: it is relayed, half-closed.
                    Verdict::Other | Verdict::Undecided => {
                        let line = FirstLine::begun_by(&first.bytes).filter(|_| open);
                        return Spoke::Bytes { first: first.take(), line, upstream };
                    }
                }
            }
            opened = &mut silence, if !dialled => {
                dialled = true;
                match opened {
                    Some(opened) => upstream = Some(opened),
                    None => return Spoke::Gone,
                }
            }
            () = speaks(upstream.as_mut()), if upstream.is_some() => {
                // Whatever it is: who waits for requests does not speak first.
                return Spoke::Bytes { first: first.take(), line: None, upstream };
            }
        }
    }
}

/// Dials a silent client's TCP destination. `None`: it cannot be reached, and the client had its time to say more.
async fn speculate(down: &Rc<Downstream>) -> Option<Box<tcp::Upstream>> {
    tokio::time::sleep(limits::SILENT_CLIENT).await;
    if down.is_inbound() && !matches!(inbound::decide_as_bytes(down), inbound::Verdict::Bytes) {
        // Bytes may not pass: the client must say that it speaks HTTP.
        return std::future::pending().await;
    }
    let opened = tcp::dial(down).await.ok();
    if opened.is_none() {
        tokio::time::sleep(limits::SILENT_CLIENT_GRACE).await;
    }
    opened
}

/// Waits until the server has said something, or closed.
async fn speaks(upstream: Option<&mut Box<tcp::Upstream>>) {
    match upstream {
        Some(upstream) => upstream.connection.stream.speaks().await,
        None => std::future::pending().await,
    }
}

#[derive(Debug, Default)]
struct FirstBytes {
    bytes: BytesMut,
}

impl FirstBytes {
    /// Reads some more. False: the client has closed its side. Cancel-safe. Holds no buffer while it waits.
    async fn read(&mut self, stream: &mut Stream) -> io::Result<bool> {
        stream.read_some(&mut self.bytes, limits::SNIFF_BYTES / 4).await
    }

    fn take(&mut self) -> Bytes {
        self.bytes.split().freeze()
    }

    fn http(&mut self, http2: bool) -> HttpStart {
        HttpStart { http2, bytes: self.take() }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_version_is_read_byte_by_byte() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut server = Stream::from(listener.accept().await.unwrap().0);
        let feeding = async {
            for byte in PREFACE {
                client.write_all(&[*byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let (start, ()) = tokio::join!(http_version(&mut server), feeding);
        assert_eq!(start, Some(HttpStart { http2: true, bytes: Bytes::from_static(PREFACE) }));
    }

    #[tokio::test]
    async fn what_is_not_http_goes_to_the_parser() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut server = Stream::from(listener.accept().await.unwrap().0);
        client.write_all(b"PRIVET").await.unwrap();
        let start = http_version(&mut server).await;
        assert_eq!(start, Some(HttpStart { http2: false, bytes: Bytes::from_static(b"PRIVET") }));
    }
}
