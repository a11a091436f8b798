//! Path normalisation, as MeshConfig's `pathNormalization` has it: what rules are compared with is what the program gets, so
//! that a rule for `/admin` cannot be walked around.

use http::uri::{PathAndQuery, Uri};
use weft_api::mesh_config::Normalization;

/// The path cannot be brought into normal form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAPath;

/// Brings the path of a request into its normal form; its query stays as it is. Costs one look at each byte where there is
/// nothing to do.
///
/// # Errors
/// It cannot be: it does not begin with a slash.
pub fn settle(uri: &mut Uri, how: Normalization) -> Result<(), NotAPath> {
    let Some(normal) = normalize(uri.path(), how)? else { return Ok(()) };
    let target = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{normal}?{query}")),
        None => PathAndQuery::try_from(normal),
    };
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(target.map_err(|_| NotAPath)?);
    *uri = Uri::from_parts(parts).map_err(|_| NotAPath)?;
    Ok(())
}

/// The normal form of a path; `None`: it has it already.
///
/// # Errors
/// As [`settle`].
pub fn normalize(path: &str, how: Normalization) -> Result<Option<String>, NotAPath> {
    let (merge, decode) = match how {
        Normalization::None => return Ok(None),
        Normalization::Base => (false, false),
        Normalization::MergeSlashes => (true, false),
        Normalization::DecodeAndMergeSlashes => (true, true),
    };
    if !needs_work(path.as_bytes(), merge) {
        return Ok(None);
    }
    if !path.starts_with(['/', '\\']) {
        return Err(NotAPath);
    }
    let decoded = decode_escapes(path, decode);
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
    let count = segments.len();
    for (index, segment) in segments.into_iter().enumerate() {
        // Dot segments are resolved before slashes are merged, as in Envoy: `/a//../b` is `/a/b`.
        if merge && segment.is_empty() && index + 1 < count {
            continue;
        }
        normal.push('/');
        normal.push_str(segment);
    }
    if normal.is_empty() {
        normal.push('/');
    }
    Ok(Some(normal))
}

/// Whether there is a backslash, an escape, a segment that begins with a dot, or, where that matters, an empty one.
fn needs_work(path: &[u8], merge: bool) -> bool {
    let mut after_slash = false;
    for &byte in path {
        match byte {
            b'\\' | b'%' => return true,
            b'.' if after_slash => return true,
            b'/' if after_slash && merge => return true,
            _ => after_slash = byte == b'/',
        }
    }
    false
}

/// Decodes escaped letters, digits and `-._~`, and, with `slashes`, slashes of both kinds; others stay as they are. What is
/// decoded may complete another escape (`%2%65` is `%2e`), which is decoded too: a program must not find one that weft
/// has made.
fn decode_escapes(path: &str, slashes: bool) -> String {
    let mut decoded = String::with_capacity(path.len());
    for char in path.chars() {
        decoded.push(char);
        while let Some(plain) = escape_at_end(decoded.as_bytes(), slashes) {
            decoded.truncate(decoded.len() - 3);
            decoded.push(plain);
        }
    }
    decoded
}

/// What the last three bytes escape, if that is to be decoded.
fn escape_at_end(text: &[u8], slashes: bool) -> Option<char> {
    let [.., b'%', high, low] = text else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let plain = char::from_u32(digit(high)? * 16 + digit(low)?)?;
    let unreserved = plain.is_ascii_alphanumeric() || matches!(plain, '-' | '.' | '_' | '~');
    (unreserved || slashes && matches!(plain, '/' | '\\')).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(path: &str, how: Normalization) -> String {
        normalize(path, how).unwrap().unwrap_or_else(|| path.into())
    }

    #[test]
    fn paths_take_their_normal_form() {
        for (path, expected) in [
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
            assert_eq!(normal(path, Normalization::Base), expected, "{path}");
        }
    }

    #[test]
    fn each_mode_does_what_the_one_before_does_and_more() {
        const MODES: [Normalization; 4] = [
            Normalization::None,
            Normalization::Base,
            Normalization::MergeSlashes,
            Normalization::DecodeAndMergeSlashes,
        ];
        for (path, expected) in [
            ("/admin", ["/admin"; 4]),
            ("//admin", ["//admin", "//admin", "/admin", "/admin"]),
            ("/%2fadmin", ["/%2fadmin", "/%2fadmin", "/%2fadmin", "/admin"]),
            ("/%5Cadmin", ["/%5Cadmin", "/%5Cadmin", "/%5Cadmin", "/admin"]),
            ("/x%2F..%2fadmin", ["/x%2F..%2fadmin", "/x%2F..%2fadmin", "/x%2F..%2fadmin", "/admin"]),
            ("/x%2%46admin", ["/x%2%46admin", "/x%2Fadmin", "/x%2Fadmin", "/x/admin"]),
            ("/x/%2e%2e/admin", ["/x/%2e%2e/admin", "/admin", "/admin", "/admin"]),
            ("/./admin", ["/./admin", "/admin", "/admin", "/admin"]),
            ("/\\admin", ["/\\admin", "//admin", "/admin", "/admin"]),
            ("/admin%2f", ["/admin%2f", "/admin%2f", "/admin%2f", "/admin/"]),
            ("/admin//", ["/admin//", "/admin//", "/admin/", "/admin/"]),
            ("/a//../b", ["/a//../b", "/a/b", "/a/b", "/a/b"]),
            ("//", ["//", "//", "/", "/"]),
            ("/%252fadmin", ["/%252fadmin"; 4]),
            ("*", ["*"; 4]),
        ] {
            let found = MODES.map(|how| normal(path, how));
            assert_eq!(found, expected, "{path}");
            for (how, once) in MODES.into_iter().zip(&found) {
                assert_eq!(&normal(once, how), once, "{path}: the normal form is its own");
            }
        }
    }

    #[test]
    fn queries_hosts_and_schemes_stay() {
        for (url, expected) in [
            ("//admin?a=//b/../%2f", "/admin?a=//b/../%2f"),
            ("http://shop:80//admin//x?y", "http://shop:80/admin/x?y"),
        ] {
            // What begins with two slashes is no URL, but what a request line may hold.
            let target = || PathAndQuery::try_from(url).unwrap().into();
            let mut uri = if url.starts_with('/') { target() } else { Uri::try_from(url).unwrap() };
            settle(&mut uri, Normalization::MergeSlashes).unwrap();
            assert_eq!(uri.to_string(), expected);
        }
    }

    #[test]
    fn a_normal_path_is_left_alone() {
        for path in ["/", "/a/b", "/a.b/c", "*"] {
            for how in [Normalization::Base, Normalization::DecodeAndMergeSlashes] {
                assert_eq!(normalize(path, how), Ok(None), "{path}");
            }
        }
        assert_eq!(normalize("/a//b", Normalization::Base), Ok(None));
    }
}
