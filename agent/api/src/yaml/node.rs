//! A value with the line that it stands on.

use std::borrow::Cow;
use std::fmt::Write as _;

/// A value of a document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node<'a> {
    /// Line in the whole text, from 1; 0 for what comes without a text.
    pub line: usize,
    /// What it is.
    pub data: Data<'a>,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data<'a> {
    /// Empty, `~` or `null`: counts as absent, as Kubernetes has it.
    Null,
    /// Taken out of the reading, after a finding about it.
    Skipped,
    /// `true` or `false`.
    Bool(bool),
    /// A number that fits, with its text as written.
    Integer(i64, Cow<'a, str>),
    /// Any other number, with its text as written.
    Float(f64, Cow<'a, str>),
    /// Text.
    Text(Cow<'a, str>),
    /// A list.
    List(Vec<Node<'a>>),
    /// A mapping, in the order of the text. Keys are unique.
    Map(Vec<(Key<'a>, Node<'a>)>),
}

/// A mapping's key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key<'a> {
    /// Line in the whole text, from 1.
    pub line: usize,
    /// The key; numbers and the like as written.
    pub text: Cow<'a, str>,
}

/// A step into a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    /// Into a mapping.
    Key(Cow<'static, str>),
    /// Into a list.
    Index(usize),
}

/// The way to a value from its document's or object's root.
pub(crate) type Path = Vec<Segment>;

/// Writes a path as people do: `spec.http[0].route`, and `labels["app.kubernetes.io/name"]` for unusual keys.
pub(crate) fn render(path: &[Segment]) -> String {
    let mut out = String::new();
    for segment in path {
        // Writing to a String cannot fail.
        let _ = match segment {
            Segment::Index(index) => write!(out, "[{index}]"),
            Segment::Key(key)
                if !key.is_empty()
                    && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') =>
            {
                write!(out, "{}{key}", if out.is_empty() { "" } else { "." })
            }
            Segment::Key(key) => write!(out, "[{:?}]", shorten(key)),
        };
    }
    out
}

/// Cuts a text for a message.
pub(crate) fn shorten(text: &str) -> Cow<'_, str> {
    const LONGEST: usize = 120;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

impl Node<'static> {
    /// A value that comes without lines.
    pub fn from_json(value: serde_json::Value) -> Self {
        use serde_json::Value;
        let data = match value {
            Value::Null => Data::Null,
            Value::Bool(value) => Data::Bool(value),
            Value::Number(number) => {
                let written = Cow::Owned(number.to_string());
                match number.as_i64() {
                    Some(integer) => Data::Integer(integer, written),
                    None => Data::Float(number.as_f64().unwrap_or(f64::NAN), written),
                }
            }
            Value::String(text) => Data::Text(text.into()),
            Value::Array(items) => Data::List(items.into_iter().map(Self::from_json).collect()),
            Value::Object(entries) => {
                let entries = entries
                    .into_iter()
                    .map(|(key, value)| (Key { line: 0, text: key.into() }, Self::from_json(value)));
                Data::Map(entries.collect())
            }
        };
        Self { line: 0, data }
    }
}

impl<'a> Node<'a> {
    /// The value of a key, if this is a mapping that holds it.
    pub fn get(&self, key: &str) -> Option<&Node<'a>> {
        self.entries().iter().find(|(k, _)| k.text == key).map(|(_, value)| value)
    }

    /// The entries of a mapping; none of anything else.
    pub fn entries(&self) -> &[(Key<'a>, Node<'a>)] {
        match &self.data {
            Data::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The scalar as written, quotes aside.
    pub fn written(&self) -> Option<Cow<'_, str>> {
        match &self.data {
            Data::Text(text) | Data::Integer(_, text) | Data::Float(_, text) => Some(Cow::Borrowed(text)),
            Data::Bool(value) => Some(Cow::Borrowed(if *value { "true" } else { "false" })),
            Data::Null | Data::Skipped | Data::List(_) | Data::Map(_) => None,
        }
    }

    /// The line of the deepest value on the way of `path` that exists: of its key, where it has one.
    pub fn line_of(&self, path: &[Segment]) -> usize {
        let (mut node, mut line) = (self, self.line);
        for segment in path {
            match (segment, &node.data) {
                (Segment::Key(key), Data::Map(entries)) => {
                    let Some((key, value)) = entries.iter().find(|(k, _)| k.text == *key) else {
                        return line;
                    };
                    (node, line) = (value, key.line);
                }
                (Segment::Index(index), Data::List(items)) => {
                    let Some(item) = items.get(*index) else { return line };
                    (node, line) = (item, item.line);
                }
                _ => return line,
            }
        }
        line
    }

    /// The value at the end of `path`.
    pub fn at(&self, path: &[Segment]) -> Option<&Node<'a>> {
        path.iter().try_fold(self, |node, segment| match (segment, &node.data) {
            (Segment::Key(key), _) => node.get(key),
            (Segment::Index(index), Data::List(items)) => items.get(*index),
            (Segment::Index(_), _) => None,
        })
    }

    /// The value at the end of `path`, to change it.
    pub fn at_mut(&mut self, path: &[Segment]) -> Option<&mut Node<'a>> {
        path.iter().try_fold(self, |node, segment| match (segment, &mut node.data) {
            (Segment::Key(key), Data::Map(entries)) => {
                entries.iter_mut().find(|(k, _)| k.text == *key).map(|(_, value)| value)
            }
            (Segment::Index(index), Data::List(items)) => items.get_mut(*index),
            _ => None,
        })
    }
}
