//! Text conditions: exact, prefix, RE2 over the whole text, or merely present.

use regex::bytes::{Regex, RegexBuilder};
use weft_api::istio::StringMatch;

/// Largest compiled program of one regex; RE2's own bound in Envoy is of this order.
const PROGRAM_BYTES: usize = 1 << 20;
/// Largest cache of one regex while it matches.
const CACHE_BYTES: usize = 256 << 10;

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
    pub(crate) fn compile(source: &StringMatch) -> Result<Self, String> {
        Ok(match (&source.exact, &source.prefix, &source.regex) {
            (Some(text), ..) => Self::Exact(text.as_str().into()),
            (_, Some(text), _) => Self::Prefix(text.as_str().into()),
            (_, _, Some(text)) if text == "*" => Self::Present,
            (_, _, Some(text)) => Self::Regex(Pattern::whole(text)?),
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
    source: Box<str>,
    program: Program,
}

#[derive(Debug, Clone)]
enum Program {
    Anything,
    Something,
    Regex(Regex),
}

impl Pattern {
    pub(crate) fn whole(source: &str) -> Result<Self, String> {
        let program = match source {
            ".*" | "^.*$" | "^.*" | ".*$" => Program::Anything,
            ".+" | "^.+$" | "^.+" | ".+$" => Program::Something,
            _ => {
                // Compiled by itself first: joined to the anchors, `a)(b` would be one.
                build(source)?;
                Program::Regex(build(&format!(r"\A(?:{source})\z"))?)
            }
        };
        Ok(Self { source: source.into(), program })
    }

    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        match &self.program {
            Program::Anything => true,
            Program::Something => !text.is_empty(),
            Program::Regex(regex) => regex.is_match(text),
        }
    }
}

/// A regex that may match anywhere. As in RE2, classes such as `\w` and `\d` are ASCII; patterns that speak of
/// Unicode classes get them.
pub(crate) fn build(source: &str) -> Result<Regex, String> {
    let compile = |unicode: bool| {
        RegexBuilder::new(source)
            .unicode(unicode)
            .size_limit(PROGRAM_BYTES)
            .dfa_size_limit(CACHE_BYTES)
            .build()
    };
    compile(false).or_else(|_| compile(true)).map_err(|error| {
        let text = error.to_string();
        format!("{source:?} is not a valid regex: {}", text.lines().last().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regex(source: &str) -> TextMatch {
        TextMatch::compile(&StringMatch { regex: Some(source.into()), ..Default::default() }).unwrap()
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
            ("*", "anything", true),
        ] {
            assert_eq!(regex(pattern).matches(text.as_bytes()), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn what_re2_refuses_is_refused() {
        for pattern in ["(?=a)", r"(a)\1", "a)(b", "[", "((a{1000}){1000}){1000}"] {
            assert!(Pattern::whole(pattern).is_err(), "{pattern}");
        }
    }
}
