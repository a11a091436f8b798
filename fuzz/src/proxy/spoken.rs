//! First bytes.

use super::first_bytes::{FirstLine, Heard, PREFACE, Verdict, verdict};
use super::limits;

/// What first bytes say does not depend on how they are cut into packets: a client decides that.
pub fn is_told_by_first_bytes(bytes: &[u8], cut: usize) {
    let whole = verdict(bytes);
    assert!(whole != Verdict::Undecided || line(bytes).is_none() || PREFACE.starts_with(bytes), "{whole:?}");
    if line(bytes).is_some_and(is_request_line) {
        assert!(matches!(whole, Verdict::Http1 | Verdict::Http2), "a program takes it for a request: {whole:?}");
    }
    let (first, rest) = bytes.split_at(cut.min(bytes.len()));
    match verdict(first) {
        Verdict::Undecided => {}
        Verdict::Other if whole == Verdict::Other => {}
        // Whoever relays it hears the rest.
        Verdict::Other => {
            let heard = FirstLine::begun_by(first).map(|mut line| line.hear(rest));
            let due = if whole == Verdict::Http1 { Heard::LikeHttp } else { Heard::More };
            assert_eq!((heard, whole == Verdict::Http2), (Some(due), false), "{whole:?}");
        }
        http if first.len() <= limits::SNIFF_LINE_BYTES => assert_eq!(whole, http),
        _ => {}
    }
}

/// The first line that is not empty, if it is whole.
fn line(bytes: &[u8]) -> Option<&[u8]> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let end = lines.next_back();
    debug_assert!(end.is_some());
    lines.find(|line| line.iter().any(|byte| *byte != b'\r'))
}

/// As the most lenient program reads it.
fn is_request_line(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    let last = line.rsplit(u8::is_ascii_whitespace).next().unwrap_or_default();
    last.starts_with(b"HTTP/") && !line.starts_with(b"PRI * HTTP/2.0")
}
