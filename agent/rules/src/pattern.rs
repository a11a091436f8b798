//! Text conditions: exact, prefix, RE2 over the whole text, or merely present.

mod program;
mod scratch;

use std::sync::Arc;

use weft_api::istio::StringMatch;

use crate::intern::Interner;

pub(crate) use program::{Finder, Whole};
pub(crate) use scratch::{Groups, bounded};

/// How a text must be.
#[derive(Debug, Clone)]
pub(crate) enum TextMatch {
    /// There, whatever it is.
    Present,
    /// Equal.
    Exact(Box<str>),
    /// Starting so.
    Prefix(Box<str>),
    /// Matched as a whole.
    Regex(Pattern),
}

impl TextMatch {
    /// Compiles one of the API's three ways. An empty one, and the regex `*`, mean presence.
    pub(crate) fn compile(source: &StringMatch, intern: &mut Interner) -> Result<Self, String> {
        Ok(match (&source.exact, &source.prefix, &source.regex) {
            (Some(text), ..) => Self::Exact(text.as_str().into()),
            (_, Some(text), _) => Self::Prefix(text.as_str().into()),
            (_, _, Some(text)) if text == "*" => Self::Present,
            (_, _, Some(text)) => Self::Regex(Pattern::whole(text, intern)?),
            (None, None, None) => Self::Present,
        })
    }

    /// Whether this text is so. Never panics.
    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(exact) => exact.as_bytes() == text,
            Self::Prefix(prefix) => text.starts_with(prefix.as_bytes()),
            Self::Regex(pattern) => pattern.matches(text),
        }
    }
}

impl std::fmt::Display for TextMatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Present => f.write_str("present"),
            Self::Exact(text) => write!(f, "= {text:?}"),
            Self::Prefix(text) => write!(f, "starting with {text:?}"),
            Self::Regex(pattern) => write!(f, "matching /{}/", pattern.source),
        }
    }
}

/// A regex over a whole text. The two that users write most cost no automaton.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    source: Arc<str>,
    program: Program,
}

#[derive(Debug, Clone)]
enum Program {
    Anything,
    Something,
    Regex(Arc<Whole>),
}

impl Pattern {
    pub(crate) fn whole(source: &str, intern: &mut Interner) -> Result<Self, String> {
        let program = match source {
            ".*" | "^.*$" | "^.*" | ".*$" => Program::Anything,
            ".+" | "^.+$" | "^.+" | ".+$" => Program::Something,
            _ => Program::Regex(intern.pattern(source)?),
        };
        Ok(Self { source: intern.text(source), program })
    }

    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        match &self.program {
            Program::Anything => true,
            Program::Something => !text.is_empty(),
            Program::Regex(program) => program.matches(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regex(source: &str) -> TextMatch {
        let source = StringMatch { regex: Some(source.into()), ..Default::default() };
        TextMatch::compile(&source, &mut Interner::default()).unwrap()
    }

    #[test]
    fn a_regex_matches_the_whole_text() {
        for (pattern, text, expected) in [
            ("v[12]", "v1", true),
            ("v[12]", "v12", false),
            ("a|ab", "ab", true),
            ("^.+$", "x", true),
            ("^.+$", "", false),
            (".*", "", true),
            ("^(.*?;)?(user=jason)(;.*)?$", "a=b;user=jason;c=d", true),
            ("(?i)jason", "JASON", true),
            (r"\d+", "\u{0663}", false),
            (r"\p{Greek}+", "αβ", true),
            (r"\b\p{L}\b", "é", true),
            ("(?m)^a$", "a\n", false),
            ("*", "anything", true),
        ] {
            assert_eq!(regex(pattern).matches(text.as_bytes()), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn what_re2_refuses_is_refused() {
        for pattern in ["(?=a)", r"(a)\1", "a)(b", "[", "((a{1000}){1000}){1000}", "(a{1,100}){1,100}b"] {
            assert!(Pattern::whole(pattern, &mut Interner::default()).is_err(), "{pattern}");
        }
    }
}
