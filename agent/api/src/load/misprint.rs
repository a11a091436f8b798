//! Fields without a value whose content stands beside them.
//!
//! ```yaml
//! - destination:      # empty …
//!   host: reviews     # … and what belongs under it stands beside it
//! ```
//!
//! Kubernetes takes an empty field for an absent one, so such a manifest would be read as something that nobody
//! meant. Where the content is found nearby, it is an error; where not, the emptiness is a warning.

use super::fault;
use super::schema::{Schema, Shape};
use crate::finding::{Severity, code};
use crate::validate::Problem;
use crate::yaml::{Data, Node, Path, Segment};

/// Looks for empty fields; answers what stands in the wrong place because of them.
pub(super) fn find(node: &Node<'_>, schema: &Schema, problems: &mut Vec<Problem>) -> Vec<Path> {
    let mut search = Search { found: Vec::new() };
    search.object(node, schema.root());
    let strays: Vec<Path> =
        search.found.iter().flat_map(|misprint| misprint.kind.strays().to_vec()).collect();
    for Misprint { path, kind } in search.found {
        if matches!(kind, Kind::UnknownField) && strays.contains(&path) {
            continue;
        }
        let (severity, code, message) = match kind {
            Kind::UnknownField => {
                problems.push(fault::unknown_field(node, Some(schema), path));
                continue;
            }
            Kind::Empty => (
                Severity::Warning,
                code::EMPTY_FIELD,
                "has no value and counts as absent (give it one, or take it away)".to_owned(),
            ),
            Kind::Misplaced { message, .. } => (Severity::Error, code::MISPLACED_FIELD, message),
        };
        problems.push(Problem { severity, code, path, message });
    }
    strays
}

struct Misprint {
    path: Path,
    kind: Kind,
}

enum Kind {
    UnknownField,
    Empty,
    Misplaced { message: String, strays: Vec<Path> },
}

impl Kind {
    fn strays(&self) -> &[Path] {
        match self {
            Self::Misplaced { strays, .. } => strays,
            Self::UnknownField | Self::Empty => &[],
        }
    }
}

struct Search {
    found: Vec<Misprint>,
}

impl Search {
    /// Looks through an object: its own fields, and all below `spec`.
    fn object(&mut self, node: &Node<'_>, shape: Shape<'_>) {
        for (key, value) in node.entries() {
            let path = vec![Segment::Key(key.text.clone().into_owned().into())];
            match shape.field(&key.text) {
                // Serde ignores it here, as it must for Kubernetes' own kinds.
                None => self.found.push(Misprint { path, kind: Kind::UnknownField }),
                Some(field) if value.data == Data::Null && key.text != "status" => {
                    self.empty(node, shape, field, None, &path);
                }
                Some(field) if key.text == "spec" => self.mapping(value, field, None, &mut path.clone()),
                Some(_) => {}
            }
        }
    }

    /// Looks through a mapping; `next` is the list item after it, with its index. As deep as YAML may nest.
    fn mapping(
        &mut self,
        node: &Node<'_>,
        shape: Shape<'_>,
        next: Option<(usize, &Node<'_>)>,
        here: &mut Path,
    ) {
        for (index, (key, value)) in node.entries().iter().enumerate() {
            here.push(Segment::Key(key.text.clone().into_owned().into()));
            let field = shape.field(&key.text);
            match (&value.data, field) {
                (Data::Null, None) if shape.fields().is_some() => {
                    self.found.push(Misprint { path: here.clone(), kind: Kind::UnknownField });
                }
                (Data::Null, Some(field)) if shape.fields().is_some() => {
                    let last = index + 1 == node.entries().len();
                    self.empty(node, shape, field, next.filter(|_| last), here);
                }
                (Data::List(items), Some(field)) => {
                    let Some(item) = field.item() else { break };
                    for (index, node) in items.iter().enumerate() {
                        here.push(Segment::Index(index));
                        self.mapping(node, item, items.get(index + 1).map(|next| (index + 1, next)), here);
                        here.pop();
                    }
                }
                (Data::Map(_), Some(field)) => self.mapping(value, field, None, here),
                _ => {}
            }
            here.pop();
        }
    }

    /// An empty field of `holder`, at `here`.
    fn empty(
        &mut self,
        holder: &Node<'_>,
        shape: Shape<'_>,
        field: Shape<'_>,
        next: Option<(usize, &Node<'_>)>,
        here: &Path,
    ) {
        let kind = beside(holder, shape, field, here)
            .or_else(|| next.and_then(|(index, next)| in_next_item(holder, shape, field, index, next, here)))
            .unwrap_or(Kind::Empty);
        self.found.push(Misprint { path: here.clone(), kind });
    }
}

fn name_of(path: &Path) -> &str {
    match path.last() {
        Some(Segment::Key(name)) => name,
        _ => "",
    }
}

/// Siblings that are no fields of the struct but of the empty field.
fn beside(holder: &Node<'_>, shape: Shape<'_>, field: Shape<'_>, here: &Path) -> Option<Kind> {
    let fields = shape.fields()?;
    let inner = field.inner_fields();
    if inner.is_none() && !field.is_map() {
        return None;
    }
    // A map has no fields of its own: any key may have been meant for it.
    let strays: Vec<_> = holder
        .entries()
        .iter()
        .map(|(key, _)| key)
        .filter(|key| {
            !fields.contains_key(&*key.text) && inner.is_none_or(|inner| inner.contains_key(&*key.text))
        })
        .collect();
    if strays.is_empty() {
        return None;
    }
    let name = name_of(here);
    let names: Vec<_> = strays.iter().map(|key| format!("`{}`", key.text)).collect();
    let (stand, them) = if strays.len() == 1 { ("stands", "it") } else { ("stand", "them") };
    let lines: Vec<_> = strays.iter().map(|key| key.line.to_string()).collect();
    let dash = if field.is_list() { ", as a list item with `- `" } else { "" };
    let message = format!(
        "`{name}` is empty, and {} {stand} beside it on line{} {} (indent {them} under `{name}`{dash})",
        and(&names),
        if lines.len() == 1 { "" } else { "s" },
        and(&lines),
    );
    let strays =
        strays.iter().map(|key| replace_last(here, &[Segment::Key(key.text.clone().into_owned().into())]));
    Some(Kind::Misplaced { message, strays: strays.collect() })
}

/// `- match:` and then `- headers:` as the next item of the outer list.
fn in_next_item(
    holder: &Node<'_>,
    shape: Shape<'_>,
    field: Shape<'_>,
    index: usize,
    next: &Node<'_>,
    here: &Path,
) -> Option<Kind> {
    let (fields, inner) = (shape.fields()?, field.inner_fields()?);
    let (first, _) = next.entries().first()?;
    let alone = holder.entries().len() == 1;
    if !inner.contains_key(&*first.text) || (fields.contains_key(&*first.text) && !alone) {
        return None;
    }
    let (name, stray) = (name_of(here), &first.text);
    let message = format!(
        "`{name}` is empty, and `{stray}` on line {} begins an item of its own beside it (indent `- {stray}` under \
         `{name}`)",
        first.line
    );
    let mut path = here[..here.len() - 2].to_vec();
    path.extend([Segment::Index(index), Segment::Key(stray.clone().into_owned().into())]);
    Some(Kind::Misplaced { message, strays: vec![path] })
}

fn replace_last(path: &[Segment], with: &[Segment]) -> Path {
    let mut path = path[..path.len().saturating_sub(1)].to_vec();
    path.extend_from_slice(with);
    path
}

/// `a`, `a and b`, `a, b and c`.
fn and(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
