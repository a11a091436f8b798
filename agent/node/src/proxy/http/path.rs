//! Path normalisation, as Istio's default (`BASE`): dot segments are resolved and backslashes are slashes, so that a rule for
//! `/admin` cannot be walked around.

/// The path cannot be brought into normal form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotAPath;

/// The normal form of a path; `None`: it has it already.
pub(super) fn normalize(path: &str) -> Result<Option<String>, NotAPath> {
    if !needs_work(path.as_bytes()) {
        return Ok(None);
    }
    if !path.starts_with(['/', '\\']) {
        return Err(NotAPath);
    }
    let decoded = decode_unreserved(path);
    let mut segments: Vec<&str> = Vec::new();
    let mut rest = decoded.split(['/', '\\']).skip(1).peekable();
    while let Some(segment) = rest.next() {
        let last = rest.peek().is_none();
        match segment {
            "." if last => segments.push(""),
            "." => {}
            ".." => {
                segments.pop();
                if last {
                    segments.push("");
                }
            }
            _ => segments.push(segment),
        }
    }
    let mut normal = String::with_capacity(path.len());
    for segment in segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if normal.is_empty() {
        normal.push('/');
    }
    Ok(Some(normal))
}

/// Whether there is a backslash, an escape or a segment that begins with a dot.
fn needs_work(path: &[u8]) -> bool {
    path.contains(&b'\\') || path.contains(&b'%') || path.windows(2).any(|pair| pair == b"/.")
}

/// Decodes escaped letters, digits and `-._~`; others stay as they are: `%2F` is not a separator. What is decoded may
/// complete another escape (`%2%65` is `%2e`), which is decoded too: a program must not find one that weft has made.
fn decode_unreserved(path: &str) -> String {
    let mut decoded = String::with_capacity(path.len());
    for char in path.chars() {
        decoded.push(char);
        while let Some(plain) = escape_at_end(decoded.as_bytes()) {
            decoded.truncate(decoded.len() - 3);
            decoded.push(plain);
        }
    }
    decoded
}

/// The letter, digit or one of `-._~` that the last three bytes escape.
fn escape_at_end(text: &[u8]) -> Option<char> {
    let [.., b'%', high, low] = text else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let plain = char::from_u32(digit(high)? * 16 + digit(low)?)?;
    (plain.is_ascii_alphanumeric() || matches!(plain, '-' | '.' | '_' | '~')).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::normalize;

    #[test]
    fn paths_take_their_normal_form() {
        for (path, normal) in [
            ("/a/../b", "/b"),
            ("/a/./b", "/a/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/../../etc", "/etc"),
            ("/a\\b\\..\\c", "/a/c"),
            ("/%2e%2E/admin", "/admin"),
            ("/a/%2e%2e/b", "/b"),
            ("/%61dmin", "/admin"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%zz%", "/a%zz%"),
            ("/a/%2%65%2%45/b", "/b"),
            ("/a/%+2e/b", "/a/%+2e/b"),
            ("/%3%3%36%2", "/6%2"),
            ("/é%2e%2e", "/é.."),
            ("/a//b/./c", "/a//b/c"),
            ("/..", "/"),
        ] {
            let same = normalize(path).unwrap().unwrap_or_else(|| path.into());
            assert_eq!(same, normal, "{path}");
        }
    }

    #[test]
    fn a_normal_path_is_left_alone() {
        for path in ["/", "/a/b", "/a//b", "/a.b/c", "*"] {
            assert_eq!(normalize(path), Ok(None), "{path}");
        }
    }
}
