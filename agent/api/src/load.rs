//! Reads manifests, and objects as the API server serves them: YAML or JSON in; typed, checked objects and findings out.

mod broken;
mod fault;
mod kustomize;
mod misprint;
mod read;
mod reading;
mod schema;
mod template;

pub(crate) use self::schema::{closest, inlined};
use crate::finding::Finding;
use crate::kinds::Kind;
use crate::meta::ObjectKey;
use crate::object::Object;
use crate::yaml;

/// What a file held.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loaded {
    /// Accepted objects, in the order of the file.
    pub objects: Vec<LoadedObject>,
    /// Objects that could be read but not accepted; their last good versions stay in force.
    pub refused: Vec<Refused>,
    /// Objects of kinds that weft has no use for.
    pub ignored: Vec<Ignored>,
    /// Parts of the file that could not be read at all. Any object may have stood there, so the last good version
    /// of each object of this file that is missing from `objects` and `refused` stays in force.
    pub unreadable: Vec<Unreadable>,
}

/// An accepted object.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedObject {
    /// The object.
    pub object: Object,
    /// Warnings and hints about it; never an error.
    pub findings: Vec<Finding>,
    /// Where it starts in the file, from 1; 0 without a file.
    pub line: usize,
}

/// An object that is not accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// Its name, if it has one.
    pub key: Option<ObjectKey>,
    /// Why: at least one error, and warnings.
    pub findings: Vec<Finding>,
    /// Where it starts in the file, from 1; 0 without a file.
    pub line: usize,
}

/// An object of a kind that weft does not read.
#[derive(Debug, Clone, PartialEq)]
pub struct Ignored {
    /// Kind.
    pub kind: String,
    /// Name, if it has one.
    pub name: String,
    /// About kinds of the mesh, which users expect to have an effect, and about what pods will be made with. No errors.
    pub findings: Vec<Finding>,
    /// Where it starts in the file, from 1.
    pub line: usize,
}

/// A document that is no YAML.
#[derive(Debug, Clone, PartialEq)]
pub struct Unreadable {
    /// The object that it seems to be, by the looks of its text; never trust it with a decision.
    pub key: Option<ObjectKey>,
    /// Why: at least one error.
    pub findings: Vec<Finding>,
    /// Where it starts in the file, from 1.
    pub line: usize,
}

impl Loaded {
    /// All findings, sorted by line.
    pub fn findings(&self) -> Vec<Finding> {
        let mut all: Vec<Finding> = self.objects.iter().flat_map(|o| o.findings.iter().cloned()).collect();
        all.extend(self.refused.iter().flat_map(|o| o.findings.iter().cloned()));
        all.extend(self.ignored.iter().flat_map(|o| o.findings.iter().cloned()));
        all.extend(self.unreadable.iter().flat_map(|o| o.findings.iter().cloned()));
        all.sort_by_key(|finding| finding.line);
        all
    }
}

/// Reads all objects of `text`, YAML or JSON; `file` is how findings call it. Never panics, whatever the text, and
/// takes time in proportion to its length.
///
/// Each object has passed [`crate::validate::validate`]; what that refuses is in [`Loaded::refused`].
pub fn load(file: &str, text: &str) -> Loaded {
    let mut loaded = Loaded::default();
    for piece in yaml::split(text) {
        match yaml::parse(&piece) {
            Ok(document) => read::document(file, document, &mut loaded),
            Err(error) => loaded.unreadable.push(broken::explain(file, &piece, &error)),
        }
    }
    loaded
}

/// Reads one object of a kind that weft reads, in JSON as the Kubernetes API serves it: the same checks and the same
/// findings as for a file, without file and line. Never panics; a text that is no JSON is refused.
pub fn load_served(kind: Kind, json: &str) -> Result<LoadedObject, Refused> {
    read::served(kind, json)
}

#[cfg(test)]
mod tests;
