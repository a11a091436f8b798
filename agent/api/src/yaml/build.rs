//! From the parser's events to a [`Node`], without recursion and within bounds.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use granit_parser::{Event, ScalarStyle, Span, Tag};

use super::node::{Data, Key, Node, Segment};
use super::{Document, Duplicate, MAX_ALIASED, MAX_DEPTH, SyntaxError};

/// What `!!` stands for before a type's name.
const CORE_SCHEMA: &str = "tag:yaml.org,2002:";

/// From this many keys on, a mapping's keys are looked up by hash.
const HASHED_KEYS: usize = 16;

/// Most repeated keys that are told about one document.
const MAX_DUPLICATES: usize = 32;

pub(super) struct Builder<'a> {
    offset: usize,
    open: Vec<Frame<'a>>,
    root: Option<Node<'a>>,
    anchors: HashMap<usize, Anchor<'a>>,
    aliased: usize,
    duplicates: Vec<Duplicate>,
}

/// A list or mapping that is not closed yet.
struct Frame<'a> {
    line: usize,
    anchor: usize,
    content: Content<'a>,
}

enum Content<'a> {
    List(Vec<Node<'a>>),
    Map {
        entries: Vec<(Key<'a>, Node<'a>)>,
        pending: Option<Key<'a>>,
        seen: HashSet<Cow<'a, str>>,
        merged: Vec<Node<'a>>,
    },
}

struct Anchor<'a> {
    node: Node<'a>,
    size: usize,
    height: usize,
}

impl<'a> Builder<'a> {
    pub fn new(offset: usize) -> Self {
        Self {
            offset,
            open: Vec::new(),
            root: None,
            anchors: HashMap::new(),
            aliased: 0,
            duplicates: Vec::new(),
        }
    }

    pub fn take(&mut self, event: Event<'a>, span: Span) -> Result<(), SyntaxError> {
        let line = span.start.line() + self.offset;
        let error = |message: String| Err(SyntaxError { line, column: span.start.col() + 1, message });
        match event {
            Event::MappingStart(..) | Event::SequenceStart(..) if self.open.len() >= MAX_DEPTH => {
                error(format!("nested deeper than {MAX_DEPTH} levels"))
            }
            Event::MappingStart(_, anchor, _) => {
                let content = Content::Map {
                    entries: Vec::new(),
                    pending: None,
                    seen: HashSet::new(),
                    merged: Vec::new(),
                };
                self.begin(line, anchor, content, span)
            }
            Event::SequenceStart(_, anchor, _) => self.begin(line, anchor, Content::List(Vec::new()), span),
            Event::MappingEnd | Event::SequenceEnd => {
                let Some(frame) = self.open.pop() else { return error("unexpected end".to_owned()) };
                let (anchor, node) = frame.close();
                self.complete(node, anchor, span)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let data = scalar(text, style, tag.as_deref());
                self.complete(Node { line, data }, anchor, span)
            }
            Event::Alias(anchor) => {
                let Some(target) = self.anchors.get(&anchor) else {
                    return error("an alias of a value that is not complete yet".to_owned());
                };
                self.aliased += target.size;
                if self.aliased > MAX_ALIASED {
                    return error(format!("aliases that stand for more than {MAX_ALIASED} values"));
                }
                if self.open.len() + target.height > MAX_DEPTH {
                    return error(format!("nested deeper than {MAX_DEPTH} levels"));
                }
                let node = Node { line, data: target.node.data.clone() };
                self.complete(node, 0, span)
            }
            Event::DocumentStart(..) if self.root.is_some() => {
                error("a second document without a line of `---` before it".to_owned())
            }
            _ => Ok(()),
        }
    }

    pub fn finish(self) -> Document<'a> {
        let root = self.root.filter(|node| node.data != Data::Null);
        Document { root, duplicates: self.duplicates }
    }

    fn begin(
        &mut self,
        line: usize,
        anchor: usize,
        content: Content<'a>,
        span: Span,
    ) -> Result<(), SyntaxError> {
        if let Some(Frame { content: Content::Map { pending: None, .. }, .. }) = self.open.last() {
            return Err(SyntaxError {
                line,
                column: span.start.col() + 1,
                message: "a key must be text, not a list or mapping (put quotes around {{ … }} templates)"
                    .to_owned(),
            });
        }
        self.open.push(Frame { line, anchor, content });
        Ok(())
    }

    /// Puts a finished value where it belongs.
    fn complete(&mut self, node: Node<'a>, anchor: usize, span: Span) -> Result<(), SyntaxError> {
        if anchor != 0 {
            let (size, height) = measure(&node);
            self.aliased += size;
            if self.aliased > MAX_ALIASED {
                return Err(SyntaxError {
                    line: node.line,
                    column: span.start.col() + 1,
                    message: format!("anchors that hold more than {MAX_ALIASED} values"),
                });
            }
            self.anchors.insert(anchor, Anchor { node: node.clone(), size, height });
        }
        let path_len = self.open.len();
        let Some(frame) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut frame.content {
            Content::List(items) => items.push(node),
            Content::Map { pending: pending @ None, .. } => {
                let text = match node.data {
                    Data::Text(text) | Data::Integer(_, text) | Data::Float(_, text) => text,
                    Data::Bool(value) => Cow::Borrowed(if value { "true" } else { "false" }),
                    _ => {
                        return Err(SyntaxError {
                            line: node.line,
                            column: span.start.col() + 1,
                            message: "a key is missing before `:`".to_owned(),
                        });
                    }
                };
                *pending = Some(Key { line: node.line, text });
            }
            Content::Map { entries, pending, seen, merged } => {
                let Some(key) = pending.take() else { return Ok(()) };
                if key.text == "<<" && matches!(node.data, Data::Map(_) | Data::List(_)) {
                    merged.push(node);
                } else if let Some(first) = first_line_of(entries, seen, &key) {
                    if self.duplicates.len() >= MAX_DUPLICATES {
                        return Ok(());
                    }
                    let second = key.line;
                    let mut path = self.path(path_len - 1);
                    path.push(Segment::Key(Cow::Owned(key.text.into_owned())));
                    self.duplicates.push(Duplicate { path, first, second });
                } else {
                    entries.push((key, node));
                }
            }
        }
        Ok(())
    }

    /// The way to the `depth`-th open list or mapping.
    fn path(&self, depth: usize) -> Vec<Segment> {
        self.open[..depth]
            .iter()
            .filter_map(|frame| match &frame.content {
                Content::List(items) => Some(Segment::Index(items.len())),
                Content::Map { pending, .. } => {
                    pending.as_ref().map(|key| Segment::Key(Cow::Owned(key.text.clone().into_owned())))
                }
            })
            .collect()
    }
}

impl<'a> Frame<'a> {
    fn close(self) -> (usize, Node<'a>) {
        let data = match self.content {
            Content::List(items) => Data::List(items),
            Content::Map { mut entries, merged, .. } => {
                for node in merged {
                    merge(&mut entries, node);
                }
                Data::Map(entries)
            }
        };
        (self.anchor, Node { line: self.line, data })
    }
}

/// Says on which line the mapping holds the key already.
fn first_line_of<'a>(
    entries: &[(Key<'a>, Node<'a>)],
    seen: &mut HashSet<Cow<'a, str>>,
    key: &Key<'a>,
) -> Option<usize> {
    if entries.len() < HASHED_KEYS {
        return entries.iter().find(|(k, _)| k.text == key.text).map(|(k, _)| k.line);
    }
    if seen.is_empty() {
        seen.extend(entries.iter().map(|(k, _)| k.text.clone()));
    }
    if seen.insert(key.text.clone()) {
        return None;
    }
    entries.iter().find(|(k, _)| k.text == key.text).map(|(k, _)| k.line)
}

/// `<<`: keys of the merged mapping that the mapping does not hold itself.
fn merge<'a>(entries: &mut Vec<(Key<'a>, Node<'a>)>, node: Node<'a>) {
    match node.data {
        Data::Map(more) => {
            // Both sides count against MAX_ALIASED, so the product stays small enough.
            let held: HashSet<Cow<'a, str>> = entries.iter().map(|(key, _)| key.text.clone()).collect();
            entries.extend(more.into_iter().filter(|(key, _)| !held.contains(&key.text)));
        }
        Data::List(items) => {
            for item in items.into_iter().filter(|item| matches!(item.data, Data::Map(_))) {
                merge(entries, item);
            }
        }
        _ => {}
    }
}

/// How many values a value holds, and how deep. At most [`MAX_DEPTH`] calls deep.
fn measure(node: &Node<'_>) -> (usize, usize) {
    let (mut size, mut height) = (1, 0);
    let mut add = |child: &Node<'_>| {
        let (s, h) = measure(child);
        size += s;
        height = height.max(h);
    };
    match &node.data {
        Data::List(items) => items.iter().for_each(&mut add),
        Data::Map(entries) => entries.iter().for_each(|(_, value)| add(value)),
        _ => return (1, 0),
    }
    (size, height + 1)
}

/// Reads a scalar by YAML 1.2's core schema; quoted ones and those tagged `!!str` are text.
fn scalar<'a>(text: Cow<'a, str>, style: ScalarStyle, tag: Option<&Tag>) -> Data<'a> {
    let tagged_text =
        tag.is_some_and(|tag| ["str", "binary"].iter().any(|text| tag.parts() == (CORE_SCHEMA, text)));
    if style != ScalarStyle::Plain || tagged_text {
        return Data::Text(text);
    }
    match &*text {
        "" | "~" | "null" | "Null" | "NULL" => return Data::Null,
        "true" | "True" | "TRUE" => return Data::Bool(true),
        "false" | "False" | "FALSE" => return Data::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Data::Float(f64::INFINITY, text),
        "-.inf" | "-.Inf" | "-.INF" => return Data::Float(f64::NEG_INFINITY, text),
        ".nan" | ".NaN" | ".NAN" => return Data::Float(f64::NAN, text),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(&text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        || !digits.contains(|c: char| c.is_ascii_digit())
    {
        return Data::Text(text);
    }
    let radix =
        |prefix, radix| text.strip_prefix(prefix).and_then(|rest| i64::from_str_radix(rest, radix).ok());
    if let Some(number) = text.parse().ok().or_else(|| radix("0x", 16)).or_else(|| radix("0o", 8)) {
        return Data::Integer(number, text);
    }
    match text.parse() {
        Ok(number) => Data::Float(number, text),
        Err(_) => Data::Text(text),
    }
}
