//! What of a message's head is for this hop alone: how large it is, and how its body is framed.

use http::header::TRANSFER_ENCODING;
use http::request::Parts;
use http::{HeaderMap, StatusCode, Version};

use crate::limits;

/// What each line counts beside its text (RFC 9113, 6.5.2).
const LINE_BYTES: usize = 32;

/// The size of a request's head, counted as HTTP/2 counts it.
pub(super) fn head_bytes(request: &Parts) -> usize {
    let target = request.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let lines = request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + LINE_BYTES);
    target + lines.sum::<usize>()
}

/// Why a request is not taken, with Envoy's details; `None`: it is.
pub(super) fn refusal(request: &Parts, head_bytes: usize) -> Option<(StatusCode, &'static str)> {
    if request.version == Version::HTTP_2 {
        // HTTP/1's parser looks at what it reads; HTTP/2's has to read on, for its tables.
        return (head_bytes > limits::HEADER_BYTES)
            .then_some((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "http2.too_many_headers"));
    }
    (!is_framed_plainly(&request.headers))
        .then_some((StatusCode::NOT_IMPLEMENTED, "http1.invalid_transfer_encoding"))
}

/// Whether a body is chunked at the most. Any other coding would have to be undone before the next hop: passed on as if it were
/// none, what comes out is not what was sent (RFC 9112, 6.1: 501).
pub(super) fn is_framed_plainly(headers: &HeaderMap) -> bool {
    headers
        .get_all(TRANSFER_ENCODING)
        .iter()
        .all(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, lines: &[(&'static str, &str)]) -> Parts {
        let mut request = http::Request::builder().version(version).uri("/a?b");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn codings_other_than_chunked_are_not_implemented() {
        let refused = |coding| refusal(&request(Version::HTTP_11, &[("transfer-encoding", coding)]), 0);
        for known in ["chunked", "Chunked", " chunked "] {
            assert_eq!(refused(known), None, "{known}");
        }
        for other in ["gzip, chunked", "chunked, chunked", "identity", "gzip"] {
            assert_eq!(refused(other).map(|(status, _)| status.as_u16()), Some(501), "{other}");
        }
    }

    #[test]
    fn a_long_head_is_told_so() {
        let long = "x".repeat(limits::HEADER_BYTES);
        let request = request(Version::HTTP_2, &[("x-long", &long)]);
        let bytes = head_bytes(&request);
        assert_eq!(bytes, 4 + 6 + 32 + limits::HEADER_BYTES);
        assert_eq!(refusal(&request, bytes).map(|(status, _)| status.as_u16()), Some(431));
        assert_eq!(refusal(&request, limits::HEADER_BYTES), None);
    }
}
