//! Says what does not fit, and how it probably was meant.

use super::schema::{Schema, Shape, closest, same_but_for_style};
use crate::finding::{Severity, code};
use crate::validate::Problem;
use crate::yaml::{Data, DeError, Fault, Node, Path, Segment, render, shorten};

/// Turns an error of reading into a problem.
pub(super) fn explain(node: &Node<'_>, schema: Option<&Schema>, error: &DeError) -> Problem {
    let found = node.at(&error.path);
    let (code, message) = match &error.fault {
        Fault::UnknownField => return unknown_field(node, schema, error.path.clone()),
        Fault::UnknownVariant(found, expected) => (code::INVALID_VALUE, not_one_of(found, expected)),
        Fault::Type(expected) => {
            let code = if found.is_some_and(|n| n.data == Data::Null) {
                code::EMPTY_FIELD
            } else {
                code::INVALID_TYPE
            };
            (code, wrong_type(found, expected, schema.and_then(|schema| schema.at(&error.path))))
        }
        Fault::Value(expected) => {
            let written = found.and_then(Node::written).unwrap_or_default();
            (
                code::INVALID_VALUE,
                format!("{} is out of range (expected {})", shorten(&written), number(expected)),
            )
        }
        Fault::Missing(field) => (code::MISSING_FIELD, format!("`{field}` is missing")),
        Fault::Other(message) if message.contains("is not a duration") => {
            (code::INVALID_DURATION, in_parentheses(message))
        }
        Fault::Other(message) if message.contains("IntOrString") => (
            code::INVALID_TYPE,
            "neither a port's number (0 to 65535) nor a container port's name".to_owned(),
        ),
        Fault::Other(message) => (code::INVALID_VALUE, message.clone()),
    };
    Problem { severity: Severity::Error, code, path: error.path.clone(), message }
}

/// `what is wrong; the cure` to `what is wrong (the cure)`.
fn in_parentheses(message: &str) -> String {
    match message.split_once("; ") {
        Some((wrong, cure)) => format!("{wrong} ({cure})"),
        None => message.to_owned(),
    }
}

fn not_one_of(found: &str, expected: &[&str]) -> String {
    let found = shorten(found);
    match closest(&found, expected.iter().copied()) {
        Some(name) => format!("{found:?} is none of {} (did you mean {name}?)", expected.join(", ")),
        None => format!("{found:?} is unknown (choose one of {})", expected.join(", ")),
    }
}

/// What serde calls a type, for people.
fn number(expected: &str) -> &str {
    match expected {
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number that is not negative",
        "i32" | "i64" => "a whole number",
        "f64" => "a number",
        other => other,
    }
}

fn wrong_type(found: Option<&Node<'_>>, expected: &str, shape: Option<Shape<'_>>) -> String {
    let Some(found) = found else { return format!("expected {}", number(expected)) };
    let written = found.written().unwrap_or_default();
    let written = shorten(&written);
    let text = expected == "a string" || expected == "text";
    let string_match = expected == "struct StringMatch";
    match &found.data {
        Data::Null | Data::Skipped if string_match => {
            "empty (write `exact`, `prefix` or `regex` under it, or {} for any value)".to_owned()
        }
        Data::Null | Data::Skipped => "an empty item (give it a value, or take it away)".to_owned(),
        Data::Integer(..) | Data::Float(..) | Data::Bool(_) if text => {
            let what = if matches!(found.data, Data::Bool(_)) { "true or false" } else { "a number" };
            format!("{written} is read as {what}, and text is needed (put quotes around it: \"{written}\")")
        }
        Data::Integer(..) | Data::Float(..) if expected.contains("duration") => {
            format!("{written} has no unit (write {written}s for seconds, or 1h, 1m, 1ms)")
        }
        Data::Text(_) if number(expected) != expected => {
            if written.parse::<f64>().is_ok() {
                format!("\"{written}\" is text, and a number is needed (take the quotes away)")
            } else {
                format!("{written:?} is not a number (expected {})", number(expected))
            }
        }
        Data::Float(..) if number(expected) != expected => {
            format!("{written} is not a whole number (expected {})", number(expected))
        }
        Data::Text(_) if expected == "a boolean" => {
            format!("{written:?} is text (write true or false, without quotes)")
        }
        Data::Text(_) | Data::Integer(..) | Data::Float(..) | Data::Bool(_) if string_match => {
            format!(
                "{written:?} does not say how to match (write `exact: {written:?}`, or `prefix` or `regex`, under it)"
            )
        }
        Data::Map(_) if expected == "a sequence" => {
            "a mapping stands where a list belongs (put `- ` before its first key)".to_owned()
        }
        Data::List(_) if expected == "a map" || expected.starts_with("struct ") => {
            "a list stands where a mapping belongs (take the `- ` away)".to_owned()
        }
        data => {
            let expected = match expected {
                "a sequence" => "a list",
                "a map" => "a mapping",
                other if other.starts_with("struct ") => "a mapping",
                "a string" => "text",
                other => number(other),
            };
            let found = match data {
                Data::List(_) => "a list",
                Data::Map(_) => "a mapping",
                _ => {
                    let fields =
                        shape.and_then(Shape::fields).map(|fields| fields.keys().map(String::as_str));
                    let cure = match fields.map(Iterator::collect::<Vec<_>>).as_deref() {
                        _ if expected == "a list" => format!(" (write [{written}])"),
                        Some([only]) => format!(" (write `{only}: {written}` under it)"),
                        Some(fields) => format!(" (it has {})", fields.join(", ")),
                        None => String::new(),
                    };
                    return format!("{written:?} stands where {expected} belongs{cure}");
                }
            };
            format!("{found} stands where {expected} belongs")
        }
    }
}

/// A field that its struct does not have: misspelt, or in the wrong place.
pub(super) fn unknown_field(node: &Node<'_>, schema: Option<&Schema>, path: Path) -> Problem {
    let (Some(Segment::Key(name)), parent) = (path.last(), &path[..path.len().saturating_sub(1)]) else {
        return Problem {
            severity: Severity::Error,
            code: code::UNKNOWN_FIELD,
            path,
            message: "unknown field".to_owned(),
        };
    };
    let place = if parent.is_empty() { "the object".to_owned() } else { render(parent) };
    let problem = |code, cure: String| Problem {
        severity: Severity::Error,
        code,
        path: path.clone(),
        message: format!("`{}` is no field of {place} ({cure})", shorten(name)),
    };
    let Some((schema, shape)) = schema.and_then(|schema| Some((schema, schema.at(parent)?))) else {
        return problem(code::UNKNOWN_FIELD, "take it away".to_owned());
    };
    let fields = || shape.fields().into_iter().flat_map(|fields| fields.keys().map(String::as_str));
    if let Some(field) = fields().find(|field| same_but_for_style(field, name)) {
        return problem(code::UNKNOWN_FIELD, format!("write it `{field}`"));
    }
    let near = closest(name, fields());
    if let Some(field) = near.filter(|field| field.starts_with(&**name) || name.starts_with(field)) {
        return problem(code::UNKNOWN_FIELD, format!("did you mean `{field}`?"));
    }
    let held = |first: &str| node.at(parent).is_some_and(|node| node.get(first).is_some());
    if let Some((way, list)) = below(shape, name, held) {
        let entry = if list { format!("an entry of `{way}`") } else { format!("`{way}`") };
        return problem(code::MISPLACED_FIELD, format!("indent it under {entry}"));
    }
    if let Some(field) = near {
        return problem(code::UNKNOWN_FIELD, format!("did you mean `{field}`?"));
    }
    if let Some(owner) = above(schema, parent, name) {
        let owner = if owner.is_empty() { "the object itself".to_owned() } else { render(owner) };
        return problem(code::MISPLACED_FIELD, format!("it belongs to {owner}: indent it less"));
    }
    let known: Vec<_> = fields().collect();
    problem(code::UNKNOWN_FIELD, format!("it has {}", known.join(", ")))
}

/// Where below a struct, in the fields that the mapping holds, a field of this name is: the way as `route`, and whether
/// it ends in a list.
fn below(shape: Shape<'_>, name: &str, held: impl Fn(&str) -> bool) -> Option<(String, bool)> {
    const DEEPEST: usize = 3;
    let mut level: Vec<(String, bool, Shape<'_>)> = vec![(String::new(), false, shape)];
    for _ in 0..DEEPEST {
        let mut next = Vec::new();
        for (way, _, shape) in level {
            for (field, child) in shape.inner_shapes().filter(|(field, _)| !way.is_empty() || held(field)) {
                let way = if way.is_empty() { field.to_owned() } else { format!("{way}.{field}") };
                if child.inner_fields().is_some_and(|fields| fields.contains_key(name)) {
                    return Some((way, child.is_list()));
                }
                next.push((way, child.is_list(), child));
            }
        }
        level = next;
    }
    None
}

/// The nearest struct around `parent` that has a field of this name.
fn above<'a>(schema: &Schema, parent: &'a [Segment], name: &str) -> Option<&'a [Segment]> {
    (0..parent.len()).rev().map(|end| &parent[..end]).find(|outer| {
        schema.at(outer).and_then(Shape::fields).is_some_and(|fields| fields.contains_key(name))
    })
}
