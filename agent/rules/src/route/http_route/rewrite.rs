//! `rewrite`, compiled.

use std::sync::Arc;

use http::header::HeaderValue;
use http::request::Parts;
use http::uri::PathAndQuery;
use weft_api::istio::HttpRewrite;

use super::headers::header_value;
use crate::intern::Interner;
use crate::pattern::{Finder, Groups};

/// What becomes of a path and of a Host on their way.
#[derive(Debug, Default)]
pub(crate) struct Rewrite {
    path: Option<PathRewrite>,
    pub(super) authority: Option<HeaderValue>,
}

#[derive(Debug)]
enum PathRewrite {
    /// In place of the matched prefix, or of the whole path.
    Replace(Box<str>),
    /// In place of every match.
    Substitute(Arc<Finder>, Vec<Substitute>),
}

/// A piece of RE2's replacement text.
#[derive(Debug)]
enum Substitute {
    Text(String),
    Group(usize),
}

impl Rewrite {
    pub(crate) fn compile(source: &HttpRewrite, intern: &mut Interner) -> Result<Self, String> {
        let path = if let Some(regex) = &source.uri_regex_rewrite {
            Some(PathRewrite::Substitute(intern.finder(&regex.r#match)?, substitutes(&regex.rewrite)))
        } else {
            source.uri.as_deref().filter(|uri| !uri.is_empty()).map(|uri| PathRewrite::Replace(uri.into()))
        };
        let authority = source.authority.as_deref().filter(|text| !text.is_empty());
        Ok(Self { path, authority: authority.map(header_value).transpose()? })
    }

    /// Whether to rewrite a path of this length would take too long.
    pub(crate) fn is_too_much(&self, length: usize) -> bool {
        matches!(&self.path, Some(PathRewrite::Substitute(regex, _)) if regex.is_too_much(length))
    }

    pub(super) fn rewrite_path(&self, matched_prefix: Option<usize>, request: &mut Parts) {
        let Some(rewrite) = &self.path else { return };
        let before = request.uri.path();
        let mut path = match rewrite {
            PathRewrite::Replace(new) => replace_prefix(before, matched_prefix, new).into_bytes(),
            PathRewrite::Substitute(regex, pieces) => {
                regex.replace_all(before.as_bytes(), |groups, path| join(pieces, groups, path))
            }
        };
        if let Some(query) = request.uri.query() {
            path.push(b'?');
            path.extend_from_slice(query.as_bytes());
        }
        // A request line cannot carry another start.
        if path.first() != Some(&b'/') {
            path.insert(0, b'/');
        }
        let original =
            request.uri.path_and_query().and_then(|path| HeaderValue::from_str(path.as_str()).ok());
        let Ok(path) = PathAndQuery::try_from(path) else { return };
        let mut parts = std::mem::take(&mut request.uri).into_parts();
        parts.path_and_query = Some(path);
        request.uri = http::Uri::from_parts(parts).unwrap_or_default();
        if let Some(original) = original {
            request.headers.insert("x-envoy-original-path", original);
        }
    }
}

/// `new` in place of the first `matched_prefix` bytes of a path, or of all of it.
pub(super) fn replace_prefix(path: &str, matched_prefix: Option<usize>, new: &str) -> String {
    let rest = matched_prefix.and_then(|length| path.get(length..)).unwrap_or_default();
    let mut replaced = String::with_capacity(new.len() + rest.len());
    replaced.push_str(new);
    replaced.push_str(rest);
    replaced
}

fn substitutes(text: &str) -> Vec<Substitute> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match chars.next() {
            Some(digit) if digit.is_ascii_digit() => {
                pieces.push(Substitute::Text(std::mem::take(&mut plain)));
                pieces.push(Substitute::Group(digit as usize - '0' as usize));
            }
            Some(other) => plain.push(other),
            None => plain.push('\\'),
        }
    }
    pieces.push(Substitute::Text(plain));
    pieces
}

fn join(pieces: &[Substitute], groups: &Groups<'_>, joined: &mut Vec<u8>) {
    for piece in pieces {
        match piece {
            Substitute::Text(text) => joined.extend_from_slice(text.as_bytes()),
            Substitute::Group(group) => joined.extend_from_slice(groups.get(*group)),
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_api::istio::RegexRewrite;

    use super::*;

    fn rewritten(
        rewrite: &HttpRewrite,
        matched_prefix: Option<usize>,
        path: &str,
    ) -> (String, Option<String>) {
        let (mut request, ()) = http::Request::get(path).body(()).unwrap().into_parts();
        Rewrite::compile(rewrite, &mut Interner::default())
            .unwrap()
            .rewrite_path(matched_prefix, &mut request);
        let original = request.headers.get("x-envoy-original-path");
        (request.uri.to_string(), original.map(|value| value.to_str().unwrap().to_owned()))
    }

    #[test]
    fn a_prefix_is_replaced_textually_and_the_query_stays() {
        for (uri, prefix, path, expected) in [
            ("/", Some(4), "/api/catalog?x=1", "//catalog?x=1"),
            ("/", Some(5), "/api/catalog?x=1", "/catalog?x=1"),
            ("/new", None, "/whatever?x=1", "/new?x=1"),
            ("/v2", Some(1), "/items", "/v2items"),
            ("items", Some(4), "/api", "/items"),
        ] {
            let rewrite = HttpRewrite { uri: Some(uri.into()), ..Default::default() };
            let (now, original) = rewritten(&rewrite, prefix, path);
            assert_eq!((now.as_str(), original.as_deref()), (expected, Some(path)));
        }
    }

    #[test]
    fn a_regex_replaces_every_match_with_its_groups() {
        for (pattern, with, path, expected) in [
            ("^/service/([^/]+)(/.*)$", r"\2/instance/\1", "/service/foo/v1/api", "/v1/api/instance/foo"),
            ("one", "two", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz"),
            ("(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb?q=1", "/aaa/yyy/bbb?q=1"),
            ("^/a", r"\\x\0", "/abc", r"/\x/abc"),
            ("(/)(a)(b)(c)(d)(e)(f)(g)(h)(i)(j)", r"/\9\0", "/abcdefghij", "/h/abcdefghij"),
            ("x*", "-", "/axb", "/-/-a-b-"),
            ("(y)?b", r"[\1]", "/ab/yb", "/a[]/[y]"),
        ] {
            let regex = RegexRewrite { r#match: pattern.into(), rewrite: with.into() };
            let rewrite = HttpRewrite { uri_regex_rewrite: Some(regex), ..Default::default() };
            assert_eq!(rewritten(&rewrite, None, path).0, expected);
        }
    }
}
