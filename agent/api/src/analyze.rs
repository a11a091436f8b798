//! `weft analyze --offline`: files in, findings out.

mod cross;
mod hosts;
mod index;
mod network;
mod security;

use std::collections::BTreeMap;

pub use network::{Gap, without_tunnels};

use crate::budget::Ledger;
use crate::finding::{Finding, Severity, code};
use crate::load::{Loaded, LoadedObject, load};
use crate::object::Object;
use crate::validate::Problem;
use crate::yaml::{self, Data, Node};

/// An accepted object, and the file that it is from.
pub(crate) struct Source<'a> {
    file: usize,
    loaded: &'a LoadedObject,
}

/// Checks files, each by itself and all together. `files` are names and texts. Findings come in the order of the
/// files and, within one, of the lines; a name that none of the files defines is a warning at most.
pub fn analyze<F: AsRef<str>, T: AsRef<str>>(files: &[(F, T)]) -> Vec<Finding> {
    let loaded: Vec<Loaded> = files.iter().map(|(file, text)| load(file.as_ref(), text.as_ref())).collect();
    let mut findings: Vec<Vec<Finding>> = loaded.iter().map(Loaded::findings).collect();
    let sources: Vec<Source<'_>> = loaded
        .iter()
        .enumerate()
        .flat_map(|(file, loaded)| loaded.objects.iter().map(move |loaded| Source { file, loaded }))
        .collect();
    let mut problems = duplicates(files, &sources);
    problems.extend(cross::check(&sources, &loaded));
    let mut by_file: BTreeMap<usize, Vec<(usize, Problem)>> = BTreeMap::new();
    for (source, problem) in problems {
        by_file.entry(sources[source].file).or_default().push((source, problem));
    }
    for (file, finding) in over_bounds(&sources) {
        let finding = Finding { file: Some(files[file].0.as_ref().to_owned()), ..finding };
        findings[file].push(finding);
        by_file.entry(file).or_default();
    }
    for (file, problems) in by_file {
        let (name, text) = (files[file].0.as_ref(), files[file].1.as_ref());
        let nodes = Nodes::of(text);
        findings[file].extend(problems.into_iter().map(|(source, problem)| {
            let loaded = sources[source].loaded;
            nodes.finding(name, loaded, problem)
        }));
        // A file may be one line; the order must be the same every time all the same.
        findings[file].sort_by(|a, b| {
            (a.line, &a.resource, &a.path, &a.code).cmp(&(b.line, &b.resource, &b.path, &b.code))
        });
    }
    findings.concat()
}

/// Objects that are too much together with those before them, with the numbers of their files.
fn over_bounds(sources: &[Source<'_>]) -> Vec<(usize, Finding)> {
    let mut ledger = Ledger::default();
    let over = |source: &Source<'_>| {
        let finding = ledger.put(&source.loaded.object).err()?;
        Some((source.file, Finding { line: Some(source.loaded.line), ..*finding }))
    };
    sources.iter().filter_map(over).collect()
}

/// The objects of a file by their first lines, read again for the lines of their fields.
struct Nodes<'a>(BTreeMap<usize, Node<'a>>);

impl<'a> Nodes<'a> {
    fn of(text: &'a str) -> Self {
        let mut nodes = BTreeMap::new();
        for root in yaml::split(text).iter().filter_map(|piece| yaml::parse(piece).ok()?.root) {
            if let Some(Node { data: Data::List(items), .. }) = root.get("items") {
                nodes.extend(items.iter().map(|item| (item.line, item.clone())));
            }
            nodes.insert(root.line, root);
        }
        Self(nodes)
    }

    fn finding(&self, file: &str, loaded: &LoadedObject, problem: Problem) -> Finding {
        let resource = loaded.object.key().to_string();
        if let Some(node) = self.0.get(&loaded.line) {
            return problem.into_finding(&resource, Some((file, node)));
        }
        let finding = problem.into_finding(&resource, None);
        Finding { file: Some(file.to_owned()), line: Some(loaded.line), ..finding }
    }
}

/// The same object twice. A Namespace may be: files often bring their own.
fn duplicates<F: AsRef<str>, T>(files: &[(F, T)], sources: &[Source<'_>]) -> Vec<(usize, Problem)> {
    let mut seen = BTreeMap::new();
    let mut problems = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        let key = source.loaded.object.key();
        let Some(first) = seen.get(&key).copied() else {
            seen.insert(key, index);
            continue;
        };
        let first: &Source<'_> = &sources[first];
        if matches!(source.loaded.object, Object::Namespace(_)) && first.loaded.object == source.loaded.object
        {
            continue;
        }
        let place = format!("{}:{}", files[first.file].0.as_ref(), first.loaded.line);
        let message =
            format!("the object is there twice, also at {place} (keep one: which of them holds is chance)");
        let problem =
            Problem { severity: Severity::Warning, code: code::DUPLICATE_OBJECT, path: Vec::new(), message };
        problems.push((index, problem));
    }
    problems
}

#[cfg(test)]
mod tests;
