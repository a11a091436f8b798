//! Says what was probably meant by a text that is no YAML.
//!
//! Works on lines alone: their indentation, their dashes and their keys.

use std::collections::HashSet;

use super::Unreadable;
use super::read::{UNNAMED, namespace_of, resource};
use super::reading::{Reading, reading};
use super::schema::{Schema, Shape};
use crate::finding::{Finding, Severity, code};
use crate::kinds::Kind;
use crate::meta::ObjectKey;
use crate::yaml::{Piece, SyntaxError, shorten};

/// Explains why a document cannot be read.
pub(super) fn explain(file: &str, piece: &Piece<'_>, error: &SyntaxError) -> Unreadable {
    let lines = outline(piece);
    let key = guess_key(&lines);
    let resource = match (&key, first_value(&lines, "kind")) {
        (Some(key), _) => key.to_string(),
        (None, Some(kind)) => resource(None, kind),
        (None, None) => UNNAMED.to_owned(),
    };
    let finding = |line, code: &str, message| Finding {
        severity: Severity::Error,
        code: code.to_owned(),
        resource: resource.clone(),
        path: String::new(),
        message,
        file: Some(file.to_owned()),
        line: Some(line),
    };
    let mut findings = Vec::new();
    let fields = first_value(&lines, "kind").and_then(schema_of).map(Fields::of);
    if let Some(fields) = &fields {
        let empty = empty_parents(&lines, fields)
            .map(|(line, message)| finding(line, code::MISPLACED_FIELD, message));
        findings.extend(empty);
    }
    let (line, cure) = match misfit(&lines, fields.as_ref(), error.line) {
        Some((line, cure)) => (line, Some(cure)),
        // Some messages bring their own.
        None if ["(put ", "(split "].iter().any(|cure| error.message.contains(cure)) => (error.line, None),
        None => (error.line, cure(piece, error)),
    };
    let what = shorten(&error.message);
    let message = match cure {
        Some(cure) => format!("not valid YAML: {what}, line {} column {} ({cure})", error.line, error.column),
        None => format!("not valid YAML: {what}, line {} column {}", error.line, error.column),
    };
    findings.push(finding(line, code::INVALID_YAML, message));
    findings.sort_by_key(|finding| finding.line);
    Unreadable { key, findings, line: piece.line }
}

/// A line with something on it.
#[derive(Debug)]
struct Line<'a> {
    number: usize,
    /// Columns before the first character.
    indent: usize,
    /// Column of the key, behind the dashes.
    column: usize,
    dashes: usize,
    key: Option<&'a str>,
    value: &'a str,
}

impl Line<'_> {
    /// Whether what follows may stand deeper.
    fn opens(&self) -> bool {
        self.value.is_empty() && (self.key.is_some() || self.dashes > 0)
    }
}

fn outline<'a>(piece: &Piece<'a>) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    // Lines of a block scalar are deeper than the key that it belongs to.
    let mut block: Option<usize> = None;
    for (index, text) in piece.text.lines().enumerate() {
        let trimmed = text.trim_start_matches(' ');
        let indent = text.len() - trimmed.len();
        if trimmed.trim().is_empty() || trimmed.starts_with('#') || trimmed.starts_with("---") {
            continue;
        }
        if block.is_some_and(|column| indent > column) {
            continue;
        }
        let line = line(piece.line + index, indent, trimmed);
        block = line.value.starts_with(['|', '>']).then_some(line.column);
        lines.push(line);
    }
    lines
}

fn line(number: usize, indent: usize, mut rest: &str) -> Line<'_> {
    let (mut column, mut dashes) = (indent, 0);
    while let Some(after) = rest.strip_prefix('-').filter(|after| after.is_empty() || after.starts_with(' '))
    {
        let content = after.trim_start();
        column += rest.len() - content.len();
        dashes += 1;
        rest = content;
    }
    let rest = rest.trim_end();
    let (key, value) = match rest.split_once(':') {
        Some((key, value)) if !key.is_empty() && (value.is_empty() || value.starts_with(' ')) => {
            (Some(key.trim_matches(['"', '\''])), value.trim())
        }
        _ => (None, rest),
    };
    let value = if value.starts_with('#') { "" } else { value };
    Line { number, indent, column, dashes, key, value }
}

fn first_value<'a>(lines: &[Line<'a>], key: &str) -> Option<&'a str> {
    lines
        .iter()
        .find(|line| line.indent == 0 && line.key == Some(key))
        .map(|line| line.value.split(" #").next().unwrap_or("").trim().trim_matches(['"', '\'']))
        .filter(|value| !value.is_empty() && !value.contains(char::is_whitespace))
}

/// The fields of the kind that the text seems to be of.
fn schema_of(kind: &str) -> Option<&'static Schema> {
    Kind::ALL.into_iter().find(|known| known.name() == kind).and_then(Schema::of)
}

/// The object that the text seems to be.
fn guess_key(lines: &[Line<'_>]) -> Option<ObjectKey> {
    let kind = first_value(lines, "kind")?;
    let api_version = first_value(lines, "apiVersion")?;
    let Reading::Read(read) = reading(api_version, kind) else { return None };
    let start = lines.iter().position(|line| line.indent == 0 && line.key == Some("metadata"))?;
    let metadata: Vec<_> = lines[start + 1..].iter().take_while(|line| line.indent > 0).collect();
    let depth = metadata.first()?.indent;
    let value = |key: &str| {
        let line = metadata.iter().find(|line| line.indent == depth && line.key == Some(key))?;
        let value = line.value.split(" #").next().unwrap_or("").trim().trim_matches(['"', '\'']);
        (!value.is_empty()).then(|| value.to_owned())
    };
    let namespace = namespace_of(kind, value("namespace").unwrap_or_default());
    Some(ObjectKey::new(read, &namespace, &value("name")?))
}

/// Which fields stand under which, and which stand together, by name alone.
struct Fields {
    under: HashSet<(String, String)>,
    together: HashSet<(String, String)>,
}

impl Fields {
    fn of(schema: &Schema) -> Self {
        let mut fields = Self { under: HashSet::new(), together: HashSet::new() };
        fields.add(schema.root());
        fields
    }

    fn add(&mut self, shape: Shape<'_>) {
        for (name, child) in shape.inner_shapes() {
            for (inner, _) in child.inner_shapes() {
                self.under.insert((name.to_owned(), inner.to_owned()));
            }
            for (other, _) in shape.inner_shapes() {
                self.together.insert((name.to_owned(), other.to_owned()));
            }
            self.add(child);
        }
    }

    fn under(&self, parent: &str, child: &str) -> bool {
        self.under.contains(&(parent.to_owned(), child.to_owned()))
    }

    fn together(&self, one: &str, other: &str) -> bool {
        self.together.contains(&(one.to_owned(), other.to_owned()))
    }
}

/// The first key without a value whose content stands beside it.
fn empty_parents(lines: &[Line<'_>], fields: &Fields) -> Option<(usize, String)> {
    lines.windows(2).find_map(|pair| {
        let [parent, child] = pair else { return None };
        let (name, stray) = (parent.key.filter(|_| parent.opens())?, child.key?);
        if !fields.under(name, stray) {
            return None;
        }
        let item = child.dashes > 0 && child.indent <= parent.indent && parent.dashes > 0;
        let sibling = child.dashes == 0 && child.column <= parent.column && !fields.together(name, stray);
        let (how, what) = match (item, sibling) {
            (true, _) => ("begins an item of its own beside it", format!("- {stray}")),
            (_, true) => ("stands beside it", stray.to_owned()),
            _ => return None,
        };
        let message = format!(
            "`{name}` is empty, and `{stray}` on line {} {how} (indent `{what}` under `{name}`)",
            child.number
        );
        Some((parent.number, message))
    })
}

/// The line at or next before the error that is indented as nothing above it, with the places where it would fit.
fn misfit(lines: &[Line<'_>], fields: Option<&Fields>, error_line: usize) -> Option<(usize, String)> {
    let mut open: Vec<(usize, String)> = Vec::new();
    let mut found = None;
    let mut may_deepen = true;
    for (index, line) in lines.iter().enumerate().take_while(|(_, line)| line.number <= error_line) {
        let name = line.key.unwrap_or("-");
        let fits = open.iter().any(|(column, _)| *column == line.indent);
        let deepest = open.last().map_or(0, |(column, _)| *column);
        if !(fits || open.is_empty() || may_deepen && line.indent > deepest) {
            let relative = fields.and_then(|fields| relative(&lines[..index], fields, line));
            found = Some((line.number, places(&open, relative, line.indent, name)));
        }
        open.retain(|(column, _)| *column < line.indent);
        open.push((line.indent, if line.dashes > 0 { format!("- {name}") } else { name.to_owned() }));
        if line.dashes > 0 && line.column > line.indent {
            open.push((line.column, name.to_owned()));
        }
        // Plain text may go on, deeper, on the next line.
        may_deepen = line.opens() || line.key.is_none() || !line.value.is_empty();
        if line.key.is_some()
            && !line.value.is_empty()
            && !line.value.starts_with(['|', '>', '"', '\'', '{', '['])
        {
            may_deepen = false;
        }
    }
    found
}

/// The line above that goes together with this one by its name, and nearly by its column.
fn relative<'a>(above: &'a [Line<'a>], fields: &Fields, line: &Line<'_>) -> Option<&'a Line<'a>> {
    const NEAR: usize = 2;
    let name = line.key.filter(|_| line.dashes == 0)?;
    above
        .iter()
        .rev()
        .take_while(|other| other.indent > 0)
        .filter(|other| other.column.abs_diff(line.indent) <= NEAR)
        .filter(|other| other.key.is_some_and(|key| fields.together(key, name) && key != name))
        .min_by_key(|other| (other.column.abs_diff(line.indent), other.column, other.number))
}

fn places(open: &[(usize, String)], relative: Option<&Line<'_>>, indent: usize, name: &str) -> String {
    let spaces = |count: usize| if count == 1 { "1 space".to_owned() } else { format!("{count} spaces") };
    let wrong = format!("`{name}` is indented by {}, which fits no line above it", spaces(indent));
    if let Some(Line { column, key: Some(key), .. }) = relative {
        return format!("{wrong}: with {} it stands beside `{key}`", spaces(*column));
    }
    let fewer = open.iter().rev().find(|(column, _)| *column < indent);
    let more = open.iter().find(|(column, _)| *column > indent);
    let places: Vec<String> = [fewer, more]
        .into_iter()
        .flatten()
        .map(|(column, beside)| format!("{} beside `{beside}`", spaces(*column)))
        .collect();
    format!("{wrong}: write {}", places.join(" or "))
}

/// What helps against the usual slips.
fn cure(piece: &Piece<'_>, error: &SyntaxError) -> Option<String> {
    let index = error.line.checked_sub(piece.line)?;
    let near: Vec<&str> = piece.text.lines().skip(index.saturating_sub(1)).take(2).collect();
    let text = *near.last()?;
    if near.iter().any(|line| line.trim_start_matches(' ').starts_with('\t')) {
        return Some("indent with spaces: YAML allows no tabs".to_owned());
    }
    let value = text.split_once(':').map_or(text, |(_, value)| value).trim();
    if value.starts_with(['@', '`', '%', '&', '*', '!']) {
        return Some("put quotes around a value that begins with a special character".to_owned());
    }
    if !value.starts_with(['"', '\'']) && value.contains(": ") {
        return Some("put quotes around a value that holds `: `".to_owned());
    }
    let glued = |line: &&str| {
        let content = line.trim_start().trim_start_matches("- ");
        content.split_once(':').is_some_and(|(key, rest)| {
            !key.contains(char::is_whitespace)
                && !key.is_empty()
                && !rest.is_empty()
                && !rest.starts_with([' ', '/'])
        })
    };
    near.iter().any(glued).then(|| "put a space after the colon".to_owned())
}
