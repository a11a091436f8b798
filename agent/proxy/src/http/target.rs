//! Request targets as HTTP/1.1 clients write them. `<`, `>`, backticks and, in queries, quotes should be escaped (RFC 3986, 2),
//! browsers and programs send them as they are, and servers take them; but the URIs of the `http` crate have no room for
//! them, and hyper answers 400 before anybody is asked (<https://github.com/hyperium/http/issues/342>).
//!
//! So: [`Heads`] keeps what hyper is given while no request is being answered. Where hyper gives up on that, its answer is held
//! back, the target is escaped, and hyper reads it again. Rules, logs and HTTP/2 endpoints see it escaped, as Envoy's
//! normal form has it; an HTTP/1.1 endpoint gets it byte for byte ([`restore`]). A client that speaks HTTP/2 is refused by
//! h2's parser as before.

use std::cell::{Cell, RefCell};
use std::io::IoSlice;

use bytes::{Bytes, BytesMut};

use crate::limits;

/// What a path cannot hold, and what a query cannot, and how they are escaped.
const IN_PATH: &[(u8, &[u8; 3])] = &[(b'<', b"%3C"), (b'>', b"%3E"), (b'`', b"%60")];
const IN_QUERY: &[(u8, &[u8; 3])] = &[(b'<', b"%3C"), (b'>', b"%3E"), (b'"', b"%22")];
/// Room for a head that is kept from one request to the next.
const KEPT_BYTES: usize = 4 * 1024;
/// How hyper begins its answer to what it cannot read.
const REFUSAL: &[u8] = b"HTTP/1.1 400 Bad Request\r\n";

/// Marks a request whose target was escaped, and nothing but that was escaped so in it: it can be had back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Escaped;

/// Where a connection stands between two requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The last answer is out: what comes now is the head of a request.
    Idle,
    /// A request is being answered.
    Busy,
    /// Its answer is complete, but may not have been written yet.
    Answered,
}

/// The heads that come on one client's HTTP/1.1 connection.
#[derive(Debug)]
pub(crate) struct Heads {
    state: Cell<State>,
    /// What came since the last answer.
    come: RefCell<BytesMut>,
    /// hyper's own answer to it.
    refusal: RefCell<Vec<u8>>,
    /// The request that comes next is [`Escaped`].
    escaped: Cell<bool>,
}

impl Default for Heads {
    fn default() -> Self {
        Self {
            state: Cell::new(State::Idle),
            come: RefCell::default(),
            refusal: RefCell::default(),
            escaped: Cell::new(false),
        }
    }
}

impl Heads {
    /// A request begins to be answered. True: it is [`Escaped`].
    pub(super) fn begin(&self) -> bool {
        self.state.set(State::Busy);
        let mut come = self.come.borrow_mut();
        come.clear();
        if come.capacity() > KEPT_BYTES {
            *come = BytesMut::new();
        }
        self.escaped.take()
    }

    /// Its answer is complete.
    pub(super) fn answered(&self) {
        self.state.set(State::Answered);
    }

    /// All that hyper had to write is written.
    pub(crate) fn flushed(&self) {
        if self.state.get() == State::Answered {
            self.state.set(State::Idle);
        }
    }

    /// Something has come, and is given to hyper.
    pub(crate) fn note(&self, bytes: &[u8]) {
        if self.state.get() == State::Idle {
            let mut come = self.come.borrow_mut();
            // Longer heads are refused for their length.
            if come.len() <= limits::HTTP1_BUFFER_BYTES {
                come.extend_from_slice(bytes);
            }
        }
    }

    /// Takes what hyper writes, if that is its answer to what it cannot read; answers how much.
    pub(crate) fn hold_back(&self, slices: &[IoSlice<'_>]) -> Option<usize> {
        if self.state.get() != State::Idle || !slices.first()?.starts_with(REFUSAL) {
            return None;
        }
        let mut refusal = self.refusal.borrow_mut();
        for slice in slices {
            refusal.extend_from_slice(slice);
        }
        Some(slices.iter().map(|slice| slice.len()).sum())
    }

    /// Whether hyper's answer is held back.
    pub(crate) fn is_held_back(&self) -> bool {
        !self.refusal.borrow().is_empty()
    }

    /// hyper has given up, and has left `rest` unread: what it shall be given instead of what came. `None`: that would be no
    /// better.
    pub(super) fn again(&self, rest: &[u8]) -> Option<Bytes> {
        if !self.is_held_back() {
            return None;
        }
        let come = std::mem::take(&mut *self.come.borrow_mut());
        let head = come.strip_suffix(rest)?;
        let (mut better, unique) = escape(head)?;
        better.extend_from_slice(rest);
        self.refusal.borrow_mut().clear();
        self.escaped.set(unique);
        Some(better.into())
    }

    /// The answer that was held back.
    pub(super) fn refusal(&self) -> Vec<u8> {
        self.refusal.take()
    }
}

/// A request's head with its target escaped, and whether [`restore`] would undo just that. `None`: it is not one head, or there
/// is nothing to escape.
fn escape(head: &[u8]) -> Option<(Vec<u8>, bool)> {
    let end_of_head = head.windows(4).position(|four| four == b"\r\n\r\n")?;
    if end_of_head + 4 != head.len() {
        return None;
    }
    let start = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let line = &head[start..start + head[start..].iter().position(|&byte| byte == b'\r')?];
    let (from, to) = target(line)?;
    let target = &line[from..to];
    let mut escaped = Vec::with_capacity(head.len() + 32);
    escaped.extend_from_slice(&head[..start + from]);
    let mut special = IN_PATH;
    for &byte in target {
        if byte == b'?' {
            special = IN_QUERY;
        }
        match special.iter().find(|(raw, _)| *raw == byte) {
            Some((_, escape)) => escaped.extend_from_slice(*escape),
            None => escaped.push(byte),
        }
    }
    escaped.extend_from_slice(&head[start + to..]);
    let unique = !target.windows(3).any(|three| IN_PATH.iter().chain(IN_QUERY).any(|(_, it)| *it == three));
    (escaped.len() != head.len()).then_some((escaped, unique))
}

/// Where the target stands in a request line.
fn target(line: &[u8]) -> Option<(usize, usize)> {
    let from = line.iter().position(|&byte| byte == b' ')? + 1;
    let to = line.iter().rposition(|&byte| byte == b' ')?;
    (from < to && line[to..].starts_with(b" HTTP/1.")).then_some((from, to))
}

/// The head of an [`Escaped`] request as it was, rules' changes aside. `head` begins with its request line.
pub(crate) fn restore(head: &[u8]) -> Vec<u8> {
    let end = head.iter().position(|&byte| byte == b'\r').unwrap_or(head.len());
    let (from, to) = target(&head[..end]).unwrap_or_default();
    let mut restored = head[..from].to_vec();
    let mut rest = &head[from..to];
    let mut special = IN_PATH;
    while let Some((&first, behind)) = rest.split_first() {
        if first == b'?' {
            special = IN_QUERY;
        }
        if let Some((raw, escape)) = special.iter().find(|(_, escape)| rest.starts_with(*escape)) {
            restored.push(*raw);
            rest = &rest[escape.len()..];
        } else {
            restored.push(first);
            rest = behind;
        }
    }
    restored.extend_from_slice(&head[to..]);
    restored
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_escaped_and_restored() {
        for (target, escaped, unique) in [
            ("/a<b>`c", "/a%3Cb%3E%60c", true),
            ("/a?q=<b>", "/a?q=%3Cb%3E", true),
            ("/a?{\"a\":1}", "/a?{%22a%22:1}", true),
            ("/\"x\"?`<", "/\"x\"?`%3C", true),
            ("/a?b?<", "/a?b?%3C", true),
            ("/a<b%3C", "/a%3Cb%3C", false),
            ("/a<b%3c", "/a%3Cb%3c", true),
        ] {
            let head = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: a<b\r\n\r\n").into_bytes();
            assert_eq!(escape(&head(target)), Some((head(escaped), unique)), "{target}");
            if unique {
                assert_eq!(restore(&head(escaped)), head(target), "{target}");
            }
            assert!(escaped.parse::<http::Uri>().is_ok(), "{escaped}");
        }
    }

    #[test]
    fn what_is_not_the_head_of_one_request_is_left_alone() {
        for bytes in [
            "GET /a HTTP/1.1\r\nhost: <\r\n\r\n",
            "st: a<b\r\n\r\n",
            "GET /< HTTP/1.1\r\n",
            "GET /< HTTP/1.1\r\n\r\nGET /< HTTP/1.1\r\n\r\n",
            "GET /< HTTP/2\r\n\r\n",
            "GET /<\r\n\r\n",
            "\r\n\r\n",
            "",
        ] {
            assert_eq!(escape(bytes.as_bytes()), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_refusal_is_held_back_between_requests_only() {
        let heads = Heads::default();
        let refuse = || heads.hold_back(&[IoSlice::new(REFUSAL), IoSlice::new(b"\r\n")]);
        heads.begin();
        assert_eq!(refuse(), None, "an endpoint's answer");
        heads.answered();
        assert_eq!(refuse(), None, "the same, not yet written");
        heads.flushed();
        assert_eq!(heads.hold_back(&[IoSlice::new(b"HTTP/1.1 200 OK\r\n")]), None);
        heads.note(b"GET /< HTTP/1.1\r\n\r\nrest");
        assert_eq!(refuse(), Some(REFUSAL.len() + 2));
        assert_eq!(heads.again(b"rest").as_deref(), Some(&b"GET /%3C HTTP/1.1\r\n\r\nrest"[..]));
        assert!(heads.refusal().is_empty() && heads.begin());
    }
}
