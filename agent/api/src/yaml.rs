//! YAML (and JSON, which is YAML) with the line of everything, for text that nobody vouches for.
//!
//! A text is cut into documents first, at the lines that YAML itself says can be nothing else, so that one broken
//! document costs only itself. Each is then read without recursion, within [`MAX_DEPTH`], [`MAX_ALIASED`] and
//! [`MAX_MARKS`]. Scalars are read as YAML 1.2 has it: `on` and `yes` are text.

mod build;
mod de;
mod node;

use build::Builder;
use granit_parser::{Event, Parser};

pub(crate) use de::{DeError, Fault, from_node};
pub(crate) use node::{Data, Key, Node, Path, Segment, render, shorten};

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 64;
/// Most values that all aliases of a document may stand for together.
const MAX_ALIASED: usize = 20_000;
/// Most punctuation of flow style (JSON) in a document: the scanner keeps all of it until the outermost bracket
/// closes, about 200 bytes each.
const MAX_MARKS: usize = 2_000_000;

/// A part of a text between two document markers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    /// Its first line in the whole text, from 1.
    pub line: usize,
    /// The text, with its own `---` line.
    pub text: &'a str,
}

/// Why a document cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    /// Line in the whole text, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// A document: its root, and keys that it holds twice.
#[derive(Debug)]
pub(crate) struct Document<'a> {
    /// `None` for a document of nothing but comments.
    pub root: Option<Node<'a>>,
    /// The path of each repeated key, with the lines of both.
    pub duplicates: Vec<Duplicate>,
}

/// A key that a mapping holds twice.
#[derive(Debug)]
pub(crate) struct Duplicate {
    /// Where.
    pub path: Path,
    /// Line of the first.
    pub first: usize,
    /// Line of the second.
    pub second: usize,
}

/// Cuts a text at its `---` and `...` lines. No YAML construct can hold such a line, so the cut needs no parser.
pub(crate) fn split(text: &str) -> Vec<Piece<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut pieces = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let begins = is_marker(line, "---");
        if begins || is_marker(line, "...") {
            pieces.push(Piece { line: start_line, text: &text[start..at] });
            // The line of `---` may go on with content; that of `...` may not.
            (start, start_line) = if begins { (at, index + 1) } else { (at + line.len(), index + 2) };
        }
        at += line.len();
    }
    pieces.push(Piece { line: start_line, text: &text[start..] });
    pieces.retain(|piece| !is_blank(piece.text));
    pieces
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Nothing but comments and directives.
fn is_blank(text: &str) -> bool {
    text.strip_prefix("---").unwrap_or(text).lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line.starts_with('%')
    })
}

/// Reads one document.
pub(crate) fn parse<'a>(piece: &Piece<'a>) -> Result<Document<'a>, SyntaxError> {
    let offset = piece.line - 1;
    refuse_unreadable(piece)?;
    let mut builder = Builder::new(offset);
    for event in Parser::new_from_str(piece.text) {
        let (event, span) = event.map_err(|error| SyntaxError {
            line: error.marker().line() + offset,
            column: error.marker().col() + 1,
            message: error.info(),
        })?;
        if matches!(event, Event::StreamEnd) {
            break;
        }
        builder.take(event, span)?;
    }
    Ok(builder.finish())
}

/// Refuses what the scanner would take for the text's end, or would need too much memory for.
fn refuse_unreadable(piece: &Piece<'_>) -> Result<(), SyntaxError> {
    let refuse = |at: usize, message: String| {
        let before = &piece.text[..at];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = piece.line + before.bytes().filter(|byte| *byte == b'\n').count();
        Err(SyntaxError { line, column: piece.text[line_start..at].chars().count() + 1, message })
    };
    let mut marks = 0;
    for (at, byte) in piece.text.bytes().enumerate() {
        match byte {
            b'[' | b'{' | b',' => marks += 1,
            b'\t' | b'\n' | b'\r' | b' '..=b'~' | 0x80.. => {}
            control => {
                return refuse(at, format!("control character {control:#04x}, which YAML does not allow"));
            }
        }
        if marks > MAX_MARKS {
            return refuse(at, format!("more than {MAX_MARKS} values in flow style (split the file)"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
