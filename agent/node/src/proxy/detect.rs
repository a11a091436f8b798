//! What a connection speaks: from its first bytes where they decide, from who speaks first where the port is undeclared.

use std::io;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::connection::Downstream;
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
        /// The connection that was opened meanwhile.
        upstream: Option<Box<tcp::Upstream>>,
    },
    /// Nobody: the client has left.
    Gone,
}

/// What first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Http1,
    Http2,
    Other,
    Undecided,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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
                    Verdict::Other | Verdict::Undecided => return Spoke::Bytes { first: first.take(), upstream },
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
                return Spoke::Bytes { first: first.take(), upstream };
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

/// Reads first bytes. HTTP/1 is a request line: a method, a path or URL, and a version at its end.
fn verdict(bytes: &[u8]) -> Verdict {
    if bytes.len() >= PREFACE.len() {
        if bytes.starts_with(PREFACE) {
            return Verdict::Http2;
        }
    } else if PREFACE.starts_with(bytes) {
        return Verdict::Undecided;
    }
    // A client may send an empty line first (RFC 9112, 2.2).
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    if start > 4 {
        return Verdict::Other;
    }
    let line = &bytes[start..];
    request_line(line, if is_like_http(line) { Verdict::Http1 } else { Verdict::Other })
}

/// Whether a first line ends as a request line does. Not all programs are strict about the rest of it, nor is what they would
/// take for HTTP to pass by the parser, which answers 400.
fn is_like_http(text: &[u8]) -> bool {
    // HTTP/2 that goes on otherwise is nobody's request.
    if text.starts_with(b"PRI * HTTP/2.0") {
        return false;
    }
    let Some(end) = text.iter().position(|&byte| byte == b'\n') else { return false };
    let last = text[..end].trim_ascii_end().rsplit(u8::is_ascii_whitespace).next();
    last.is_some_and(|word| word.starts_with(b"HTTP/"))
}

/// Reads what may be a request line; `else_`: what it is if it is none.
fn request_line(line: &[u8], else_: Verdict) -> Verdict {
    let Some(space) = line.iter().take(25).position(|&byte| byte == b' ') else {
        let token = line.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'-' || *byte == b'_');
        return if token && line.len() < 25 { Verdict::Undecided } else { else_ };
    };
    let (method, target) = (&line[..space], &line[space + 1..]);
    if method.is_empty()
        || !method.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'-' || *byte == b'_')
    {
        return else_;
    }
    match target.first() {
        None => return Verdict::Undecided,
        Some(b'/' | b'*' | b'h' | b'H') => {}
        Some(_) if method == b"CONNECT" => {}
        Some(_) => return else_,
    }
    let end = target.iter().position(|&byte| byte == b'\n');
    let line = &target[..end.unwrap_or(target.len())];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.iter().any(u8::is_ascii_control) {
        return else_;
    }
    match end {
        Some(_) if line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0") => Verdict::Http1,
        Some(_) => else_,
        None if target.len() > limits::SNIFF_LINE_BYTES => Verdict::Http1,
        None => Verdict::Undecided,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn first_bytes_tell_what_is_spoken() {
        let long = [b"GET /".to_vec(), vec![b'a'; limits::SNIFF_LINE_BYTES]].concat();
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Verdict::Http1),
            (b"\r\nPOST /a?b HTTP/1.0\n", Verdict::Http1),
            (b"M-SEARCH * HTTP/1.1\r\nHost: x\r\n", Verdict::Http1),
            (b"CONNECT a.b:443 HTTP/1.1\r\n", Verdict::Http1),
            (b"GET http://a/b HTTP/1.1\r\n", Verdict::Http1),
            (PREFACE, Verdict::Http2),
            (b"", Verdict::Undecided),
            (b"P", Verdict::Undecided),
            (b"PRI * HTTP/2.0\r\n", Verdict::Undecided),
            (b"GET", Verdict::Undecided),
            (b"GET /index", Verdict::Undecided),
            (b"GET / HTTP/1.1\r", Verdict::Undecided),
            (&long, Verdict::Http1),
            (b"GET /key\r\n", Verdict::Other),
            (b"GET key\r\n", Verdict::Other),
            (b"PING\r\n", Verdict::Other),
            (b"*1\r\n$4\r\nPING\r\n", Verdict::Other),
            (b"\x16\x03\x01\x02\x00", Verdict::Other),
            (b"get / HTTP/1.1\r\n", Verdict::Http1),
            (b"GET\t/ HTTP/1.1\r\n", Verdict::Http1),
            (b"GET  /  HTTP/1.1 \n", Verdict::Http1),
            (b"G\xc3\x84T / HTTP/1.1\n", Verdict::Http1),
            (b"<134>nginx: \"GET / HTTP/1.1\" 200\n", Verdict::Other),
            (b"get /", Verdict::Other),
            (b"SSH-2.0-x\r\n", Verdict::Other),
            (b"GET /\0 HTTP/1.1\r\n", Verdict::Http1),
        ] {
            assert_eq!(verdict(bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn every_start_of_a_request_is_undecided() {
        let request = b"DELETE /things/1 HTTP/1.1\r\n";
        for end in 0..request.len() {
            assert_eq!(verdict(&request[..end]), Verdict::Undecided, "{end}");
        }
        for end in 0..PREFACE.len() {
            assert_eq!(verdict(&PREFACE[..end]), Verdict::Undecided, "{end}");
        }
    }

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
