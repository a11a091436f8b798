//! What a provider has decided, and what that does to a request.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};

/// What a provider has decided.
#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    /// The request may pass, changed so.
    Allowed(Changes),
    /// The client gets this answer.
    Denied(Refused),
}

/// The answer to a refused request.
#[derive(Debug, PartialEq)]
pub(super) struct Refused {
    /// Status.
    pub(super) status: StatusCode,
    /// Headers.
    pub(super) headers: HeaderMap,
    /// Body.
    pub(super) body: Bytes,
}

/// What becomes of an allowed request.
#[derive(Debug, Default, PartialEq)]
pub(in crate::http) struct Changes {
    headers: Vec<(HeaderName, HeaderValue, How)>,
    removed: Vec<HeaderName>,
    /// Headers that its response gets besides.
    pub(in crate::http) answer: HeaderMap,
}

/// How a header is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Instead of what is there.
    Set,
    /// After what is there; nothing is done where there is nothing, as in Envoy.
    Append,
    /// Only where there is none.
    IfAbsent,
    /// Only instead of what is there.
    IfPresent,
}

impl Changes {
    /// Notes a header for the request. What concerns a hop or the message's framing nobody may change.
    pub(super) fn header(&mut self, name: HeaderName, value: HeaderValue, how: How) {
        if !is_framing(&name) {
            self.headers.push((name, value, how));
        }
    }

    /// Notes a header that the request loses.
    pub(super) fn remove(&mut self, name: HeaderName) {
        if !is_framing(&name) && name != HOST {
            self.removed.push(name);
        }
    }

    /// Changes the headers of a request.
    pub(in crate::http) fn apply(&self, headers: &mut HeaderMap) {
        for (name, value, how) in &self.headers {
            let present = headers.contains_key(name);
            match how {
                How::Set => drop(headers.insert(name, value.clone())),
                How::IfAbsent if !present => drop(headers.insert(name, value.clone())),
                How::IfPresent if present => drop(headers.insert(name, value.clone())),
                How::Append if present => drop(headers.append(name, value.clone())),
                How::IfAbsent | How::IfPresent | How::Append => {}
            }
        }
        for name in &self.removed {
            headers.remove(name);
        }
    }
}

/// Headers of one hop, or of one message.
pub(super) fn is_framing(name: &HeaderName) -> bool {
    [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, UPGRADE, TE].contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_set_appended_and_removed() {
        let value = HeaderValue::from_static;
        let name = HeaderName::from_static;
        let mut changes = Changes::default();
        for (header, how) in [
            ("x-set", How::Set),
            ("x-append", How::Append),
            ("x-nothing", How::Append),
            ("x-absent", How::IfAbsent),
            ("x-there", How::IfAbsent),
            ("x-none", How::IfPresent),
            ("content-length", How::Set),
            ("transfer-encoding", How::Set),
        ] {
            changes.header(name(header), value("new"), how);
        }
        changes.remove(name("x-gone"));
        changes.remove(HOST);
        let before = ["x-set", "x-append", "x-there", "x-gone", "host", "content-length"];
        let mut headers: HeaderMap = before.map(|header| (name(header), value("old"))).into_iter().collect();
        changes.apply(&mut headers);
        let all = |header: &'static str| headers.get_all(name(header)).iter().collect::<Vec<_>>();
        assert_eq!(all("x-set"), ["new"]);
        assert_eq!(all("x-append"), ["old", "new"]);
        assert_eq!(all("x-absent"), ["new"]);
        assert_eq!(all("x-there"), ["old"]);
        assert_eq!(all("host"), ["old"]);
        assert_eq!(all("content-length"), ["old"]);
        for gone in ["x-nothing", "x-none", "x-gone", "transfer-encoding"] {
            assert!(all(gone).is_empty(), "{gone}");
        }
    }
}
