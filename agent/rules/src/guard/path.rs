//! Paths of policies: texts as elsewhere, and templates such as `/shops/{*}/items/{**}`.

use std::sync::Arc;

use weft_api::pattern::path_template;

use super::text::Text;
use crate::intern::Interner;
use crate::pattern::Whole;

/// How a path must be.
#[derive(Debug, Clone)]
pub(crate) enum PathPattern {
    Text(Text),
    Template(Arc<Whole>),
}

impl PathPattern {
    /// Reads a value of `paths`; `None`: it is a template beyond what can be compiled.
    pub(crate) fn parse(value: &str, intern: &mut Interner) -> Option<Self> {
        if let Some(regex) = path_template(value) {
            return intern.pattern(&regex).ok().map(Self::Template);
        }
        Some(Self::Text(Text::parse(value)))
    }

    /// `path` is without its query.
    pub(crate) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Text(text) => text.matches(path.as_bytes()),
            Self::Template(program) => program.matches(path.as_bytes()),
        }
    }
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
            let pattern = PathPattern::parse(value, &mut Interner::default()).expect("a pattern");
            assert_eq!(pattern.matches(path), expected, "{value} on {path}");
        }
    }
}
