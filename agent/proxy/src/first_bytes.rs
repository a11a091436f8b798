//! What a connection's first bytes say of what is spoken on it.

use super::limits;

/// How HTTP/2 begins (RFC 9113, 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What of it is a line; HTTP/2 that goes on otherwise is nobody's request.
const PREFACE_LINE: &[u8] = b"PRI * HTTP/2.0";
/// How the last word of a request line begins.
const VERSION: &[u8] = b"HTTP/";
/// Longest method.
const METHOD_BYTES: usize = 25;

/// What first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// HTTP/1, or what some program may take for it.
    Http1,
    /// HTTP/2.
    Http2,
    /// Something else, so far: of a line that is not over, the rest may turn out to say otherwise ([`FirstLine`]).
    Other,
    /// Not yet anything.
    Undecided,
}

/// Reads first bytes. HTTP/1 is a request line: a method, a path or URL, and a version at its end.
pub(super) fn verdict(bytes: &[u8]) -> Verdict {
    if bytes.len() >= PREFACE.len() {
        if bytes.starts_with(PREFACE) {
            return Verdict::Http2;
        }
    } else if PREFACE.starts_with(bytes) {
        return Verdict::Undecided;
    }
    // A client may send an empty line first (RFC 9112, 2.2). Who sends many waits for something else, but programs skip them all.
    let start = bytes.iter().position(|byte| !is_line_end(*byte)).unwrap_or(bytes.len());
    let line = &bytes[start..];
    if line.is_empty() && start > 4 {
        return Verdict::Other;
    }
    request_line(line, if is_like_http(line) { Verdict::Http1 } else { Verdict::Other })
}

/// Whether a first line ends as a request line does. Not all programs are strict about the rest of it, nor is what they would
/// take for HTTP to pass by the parser, which answers 400.
fn is_like_http(text: &[u8]) -> bool {
    FirstLine::default().hear(text) == Heard::LikeHttp
}

/// Reads what may be a request line; `else_`: what it is if it is none.
fn request_line(line: &[u8], else_: Verdict) -> Verdict {
    let is_method = |byte: &u8| byte.is_ascii_uppercase() || *byte == b'-' || *byte == b'_';
    let Some(space) = line.iter().take(METHOD_BYTES).position(|&byte| byte == b' ') else {
        let undecided = line.len() < METHOD_BYTES && line.iter().all(is_method);
        return if undecided { Verdict::Undecided } else { else_ };
    };
    let (method, target) = (&line[..space], &line[space + 1..]);
    if method.is_empty() || !method.iter().all(is_method) {
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

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// What became of a first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// It goes on.
    More,
    /// It is over, and no program takes it for a request line.
    Over,
    /// It is over, and some program may.
    LikeHttp,
}

/// A first line on its way. A client that cuts its request line in two says nothing else than one that sends it whole: what
/// was taken for bytes by its first piece must not go on as a request that nobody has read. It holds no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FirstLine {
    /// Bytes of the line so far.
    length: usize,
    /// It is the preface so far.
    preface: bool,
    /// Bytes of the word so far.
    word: usize,
    /// It begins as a version does, so far; of a line that ends, the last word.
    version: bool,
}

impl Default for FirstLine {
    fn default() -> Self {
        Self { length: 0, preface: true, word: 0, version: false }
    }
}

impl FirstLine {
    /// The line that these bytes begin; `None`: it is over.
    pub(super) fn begun_by(bytes: &[u8]) -> Option<Self> {
        let mut line = Self::default();
        (line.hear(bytes) == Heard::More).then_some(line)
    }

    /// Hears what comes next. Empty lines before it are no part of it.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> Heard {
        for &byte in bytes {
            if self.length == 0 && is_line_end(byte) {
                continue;
            }
            if byte == b'\n' {
                let version = self.version && (self.word == 0 || self.word >= VERSION.len());
                let preface = self.preface && self.length >= PREFACE_LINE.len();
                return if version && !preface { Heard::LikeHttp } else { Heard::Over };
            }
            self.preface &= PREFACE_LINE.get(self.length).is_none_or(|due| *due == byte);
            self.length += 1;
            if self.length > limits::FIRST_LINE_BYTES {
                return Heard::Over;
            }
            if byte.is_ascii_whitespace() {
                // What is behind the last word does not count.
                self.version &= self.word == 0 || self.word >= VERSION.len();
                self.word = 0;
            } else {
                self.version = VERSION
                    .get(self.word)
                    .map_or(self.version, |due| *due == byte && (self.word == 0 || self.version));
                self.word += 1;
            }
        }
        Heard::More
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn empty_lines_before_a_request_hide_nothing() {
        for count in [1, 4, 5, 100] {
            let request = [&b"\r\n".repeat(count)[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(verdict(&request), Verdict::Http1, "{count}");
        }
        // But nobody waits for more who has said only that.
        assert_eq!(verdict(b"\r\n\r\n\r\n"), Verdict::Other);
    }

    #[test]
    fn a_request_line_is_one_wherever_it_is_cut() {
        for line in [
            &b"get / HTTP/1.1\r\n"[..],
            b"GET\t/ HTTP/1.1\r\n",
            b"GET  /  HTTP/1.1 \t\r\n",
            b"\r\n\r\n\r\nGET / HTTP/1.1\n",
            b"G\xc3\x84T / HTTP/1.1\n",
            b"HTTP/\n",
        ] {
            assert_eq!(verdict(line), Verdict::Http1, "{}", line.escape_ascii());
            for cut in 0..line.len() {
                let (first, rest) = line.split_at(cut);
                if verdict(first) == Verdict::Other {
                    let mut open = FirstLine::begun_by(first).expect("an open line");
                    assert_eq!(open.hear(rest), Heard::LikeHttp, "{} {cut}", line.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn other_lines_are_over_when_they_end() {
        for line in [
            &b"GET /key\r\n"[..],
            b"PRI * HTTP/2.0\r\n",
            b"a HTTP\n",
            b"HTTP/1.1 x\n",
            b"xHTTP/1.1\n",
            b" \n",
        ] {
            assert_eq!(FirstLine::default().hear(line), Heard::Over, "{}", line.escape_ascii());
        }
        assert_eq!(FirstLine::begun_by(b"PING\r\n"), None);
        let endless = vec![b'a'; limits::FIRST_LINE_BYTES];
        assert!(FirstLine::begun_by(&endless).is_some_and(|mut line| line.hear(b"a") == Heard::Over));
    }
}
