//! Text from elsewhere, as people may be shown it.
//!
//! Names, paths, headers and messages come from callers and from authors of objects. What a terminal would obey, and what
//! an eye would not see or would read in another order, is written out: `\u{1b}`, `\n`, `\u{202e}`.

use std::borrow::Cow;
use std::fmt::Write as _;

/// One line that can be trusted to be what it looks like.
pub fn printable(text: &str) -> Cow<'_, str> {
    shown(text, is_plain)
}

/// The same for a text of several lines.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    shown(text, |c| c == '\n' || is_plain(c))
}

fn shown(text: &str, is_plain: impl Fn(char) -> bool) -> Cow<'_, str> {
    let Some(first) = text.find(|c| !is_plain(c)) else { return Cow::Borrowed(text) };
    let mut out = text[..first].to_owned();
    for c in text[first..].chars() {
        if is_plain(c) {
            out.push(c);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "{}", c.escape_default());
        }
    }
    Cow::Owned(out)
}

/// Whether a character looks like itself, in its place, and does nothing.
fn is_plain(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    // The standard library knows what can be printed: no controls, formats (they turn the direction of a text around, or
    // are not seen), separators and unassigned characters. Behind a letter it lets accents be.
    let mut buffer = [0; 5];
    buffer[0] = b'a';
    let end = 1 + c.encode_utf8(&mut buffer[1..]).len();
    let pair = std::str::from_utf8(&buffer[..end]).unwrap_or_default();
    pair.escape_debug().count() == 2 && !is_unseen(c)
}

/// Characters that count as letters or accents and are not seen. Source: Unicode, `Default_Ignorable_Code_Point`.
fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}' | '\u{2800}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_or_an_eye_misread_is_written_out() {
        for (text, shown) in [
            ("/a\x1b[2J\r\n", "/a\\u{1b}[2J\\r\\n"),
            ("evil\u{202e}txt.exe", "evil\\u{202e}txt.exe"),
            ("a\u{200b}b\u{feff}c\u{ad}d", "a\\u{200b}b\\u{feff}c\\u{ad}d"),
            ("\u{2066}x\u{2069}", "\\u{2066}x\\u{2069}"),
            ("a\u{2028}b\u{85}c\u{9b}31m\u{7f}", "a\\u{2028}b\\u{85}c\\u{9b}31m\\u{7f}"),
            ("tag\u{e0041}\u{fe0f}\u{3164}", "tag\\u{e0041}\\u{fe0f}\\u{3164}"),
            ("no\u{a0}break", "no\\u{a0}break"),
            ("\t", "\\t"),
        ] {
            assert_eq!(printable(text), shown);
            assert!(!printable(text).chars().any(|c| c.is_control() || c == '\u{202e}'));
        }
    }

    #[test]
    fn letters_of_every_script_stay_as_they_are() {
        for text in
            ["/plain ü", "e\u{301}te\u{301}", "\"quoted\" \\ 'too'", "日本語", "नमस्ते", "✓ mTLS → …", "🚀", ""]
        {
            assert!(matches!(printable(text), Cow::Borrowed(same) if same == text), "{text}");
        }
        assert_eq!(printable_lines("a\nb\x07"), "a\nb\\u{7}");
    }
}
