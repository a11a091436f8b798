//! The texts of policies: exact, `prefix*`, `*suffix`, `*`.

/// How a text must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Text {
    /// There.
    Present,
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
}

impl Text {
    /// Reads a value of a policy; a star counts first where it leads.
    pub(crate) fn parse(value: &str) -> Self {
        if value == "*" {
            Self::Present
        } else if let Some(suffix) = value.strip_prefix('*') {
            Self::Suffix(suffix.into())
        } else if let Some(prefix) = value.strip_suffix('*') {
            Self::Prefix(prefix.into())
        } else {
            Self::Exact(value.into())
        }
    }

    /// Whether a text is so; an empty one is not there.
    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Present => !text.is_empty(),
            Self::Exact(exact) => exact.as_bytes() == text,
            Self::Prefix(prefix) => text.starts_with(prefix.as_bytes()),
            Self::Suffix(suffix) => text.ends_with(suffix.as_bytes()),
        }
    }

    /// As [`Self::matches`], without regard to case.
    pub(crate) fn matches_any_case(&self, text: &[u8]) -> bool {
        let equal = |part: Option<&[u8]>, wanted: &str| {
            part.is_some_and(|part| part.eq_ignore_ascii_case(wanted.as_bytes()))
        };
        match self {
            Self::Present => !text.is_empty(),
            Self::Exact(exact) => equal(Some(text), exact),
            Self::Prefix(prefix) => equal(text.get(..prefix.len()), prefix),
            Self::Suffix(suffix) => {
                equal(text.len().checked_sub(suffix.len()).and_then(|at| text.get(at..)), suffix)
            }
        }
    }

    /// As [`Self::matches`], for a text that is there in pieces.
    pub(crate) fn matches_joined(&self, pieces: &[&str]) -> bool {
        let bytes = || pieces.iter().flat_map(|piece| piece.bytes());
        match self {
            Self::Present => pieces.iter().any(|piece| !piece.is_empty()),
            Self::Exact(exact) => bytes().eq(exact.bytes()),
            Self::Prefix(prefix) => bytes().take(prefix.len()).eq(prefix.bytes()),
            Self::Suffix(suffix) => {
                let backwards = pieces.iter().rev().flat_map(|piece| piece.bytes().rev());
                backwards.take(suffix.len()).eq(suffix.bytes().rev())
            }
        }
    }
}

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Present => f.write_str("*"),
            Self::Exact(text) => f.write_str(text),
            Self::Prefix(text) => write!(f, "{text}*"),
            Self::Suffix(text) => write!(f, "*{text}"),
        }
    }
}

/// A namespace's name, in which stars stand for anything, wherever they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glob(Box<[Box<str>]>);

impl Glob {
    pub(crate) fn parse(value: &str) -> Self {
        Self(value.split('*').map(Into::into).collect())
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        let [first, middle @ .., last] = &*self.0 else {
            return self.0.first().is_some_and(|only| **only == *text);
        };
        let Some(mut rest) = text.strip_prefix(&**first) else { return false };
        for part in middle {
            let Some(at) = rest.find(&**part) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(&**last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_told_as_it_was_written() {
        for written in ["*", "a", "a*", "*a"] {
            assert_eq!(Text::parse(written).to_string(), written);
        }
    }

    #[test]
    fn a_star_stands_at_one_end_or_alone() {
        for (value, text, expected) in [
            ("a", "a", true),
            ("a", "A", false),
            ("a", "ab", false),
            ("a*", "a", true),
            ("a*", "abc", true),
            ("a*", "ba", false),
            ("*a", "ba", true),
            ("*a", "ab", false),
            ("*a*", "xa*", true),
            ("*a*", "xay", false),
            ("a*b", "a*b", true),
            ("a*b", "axb", false),
            ("*", "a", true),
            ("*", "", false),
            ("", "", true),
            ("", "a", false),
        ] {
            let pattern = Text::parse(value);
            assert_eq!(pattern.matches(text.as_bytes()), expected, "{value:?} on {text:?}");
            let (start, end) = text.split_at(text.len() / 2);
            assert_eq!(
                pattern.matches_joined(&[start, "", end]),
                expected,
                "{value:?} on {text:?} in pieces"
            );
            let upper = text.to_ascii_uppercase();
            assert_eq!(
                pattern.matches_any_case(upper.as_bytes()),
                expected || (value, text) == ("a", "A"),
                "{value:?} on {upper:?}"
            );
        }
    }

    #[test]
    fn namespaces_may_hold_stars_anywhere() {
        for (value, text, expected) in [
            ("shop", "shop", true),
            ("shop", "shop2", false),
            ("*", "shop", true),
            ("s*p", "shop", true),
            ("s*p", "sp", true),
            ("s*p", "p", false),
            ("*-*-x", "a-b-x", true),
            ("*-*-x", "a-x", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(Glob::parse(value).matches(text), expected, "{value} on {text}");
        }
    }
}
