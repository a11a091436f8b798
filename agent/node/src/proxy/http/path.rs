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

/// Decodes escaped letters, digits and `-._~`; others stay as they are: `%2F` is not a separator.
fn decode_unreserved(path: &str) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        decoded.push_str(&rest[..at]);
        let escape =
            rest.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()).map(char::from);
        match escape {
            Some(plain) if plain.is_ascii_alphanumeric() || matches!(plain, '-' | '.' | '_' | '~') => {
                decoded.push(plain);
                rest = &rest[at + 3..];
            }
            _ => {
                decoded.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    decoded + rest
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
