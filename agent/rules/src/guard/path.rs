//! Paths of policies: texts as elsewhere, and templates such as `/shops/{*}/items/{**}`.

use regex::bytes::Regex;

use super::text::Text;
use crate::pattern;

/// How a path must be.
#[derive(Debug, Clone)]
pub(crate) enum PathPattern {
    Text(Text),
    Template(Regex),
}

/// Exactly one segment.
const ONE: &str = "{*}";
/// Any number of segments.
const ANY: &str = "{**}";

impl PathPattern {
    /// Reads a value of `paths`; `None`: it is a template beyond what can be compiled.
    pub(crate) fn parse(value: &str) -> Option<Self> {
        if value.contains(ONE) || value.contains(ANY) {
            return pattern::build(&template(value)).ok().map(Self::Template);
        }
        Some(Self::Text(Text::parse(value)))
    }

    /// `path` is without its query.
    pub(crate) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Text(text) => text.matches(path.as_bytes()),
            Self::Template(regex) => regex.is_match(path.as_bytes()),
        }
    }
}

/// The template as a regex. Stars without braces mean the same, as they do to Envoy.
fn template(value: &str) -> String {
    let plain = value.replace(ANY, "**").replace(ONE, "*");
    let pieces = plain.split("**").map(|piece| {
        let literals: Vec<String> = piece.split('*').map(regex::escape).collect();
        literals.join("[^/]+")
    });
    let pieces: Vec<String> = pieces.collect();
    format!(r"\A{}\z", pieces.join(".*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_match_by_segments() {
        for (value, path, expected) in [
            ("/a/{*}", "/a/b", true),
            ("/a/{*}", "/a/", false),
            ("/a/{*}", "/a", false),
            ("/a/{*}", "/a/b/c", false),
            ("/a/{*}/c", "/a/b/c", true),
            ("/a/{*}/c", "/a/b/d", false),
            ("/a/{**}", "/a/", true),
            ("/a/{**}", "/a/b/c", true),
            ("/a/{**}", "/a", false),
            ("/a/{**}/z", "/a/b/c/z", true),
            ("/{*}/x/{**}", "/a/x/b/c", true),
            ("/{*}/x/{**}", "/a/b/x/c", false),
            ("/a.b/{*}", "/axb/c", false),
            ("/a/{*}", "/a/b%2Fc", true),
            ("/a/*", "/a/b/c", true),
            ("*/c", "/a/b/c", true),
            ("/a", "/a", true),
            ("/a", "/A", false),
            ("*", "/", true),
        ] {
            let pattern = PathPattern::parse(value).expect("a pattern");
            assert_eq!(pattern.matches(path), expected, "{value} on {path}");
        }
    }
}
