//! What is known of the objects of one watch, and what an event means to it. Pure: no connection, no clock.
//!
//! A list replaces what was known as a set: what it does not name is deleted at its end, what it names in the version
//! that is known is not looked at. Until that end nothing is missing.

use std::collections::HashMap;

use weft_api::finding::{Finding, Severity, code};
use weft_api::kinds::Kind;
use weft_api::load;
use weft_api::meta::ObjectKey;
use weft_api::object::Object;
use weft_rules::compile::Change;

use super::item::Item;
use crate::fingerprint::Fingerprint;

/// The objects of one watch.
#[derive(Debug)]
pub struct Set {
    kind: Kind,
    /// The node that is served.
    node: Box<str>,
    known: HashMap<Box<str>, Known, foldhash::fast::RandomState>,
    /// Counts the lists.
    round: u32,
    in_force: usize,
    hasher: foldhash::quality::RandomState,
}

/// What is kept of an object.
#[derive(Debug)]
struct Known {
    /// The version that was seen last.
    version: u64,
    /// Of the last good version, which is in force.
    print: Option<Fingerprint>,
    /// The list that named it last.
    round: u32,
    /// There are findings about it.
    reported: bool,
}

/// What events changed.
#[derive(Debug, Default)]
pub struct Delta {
    /// What to tell the compiler.
    pub changes: Vec<Change>,
    /// Findings about objects, which replace those before.
    pub reports: Vec<Report>,
}

/// Findings about one object; none of either, when nothing is wrong any more.
#[derive(Debug, PartialEq)]
pub struct Report {
    /// The object.
    pub key: ObjectKey,
    /// Errors: this version was refused.
    pub problems: Vec<Finding>,
    /// What it asks for that weft does not do yet.
    pub not_in_force: Vec<Finding>,
}

impl Set {
    /// Nothing is known yet.
    pub fn new(kind: Kind, node: &str) -> Self {
        Self {
            kind,
            node: node.into(),
            known: HashMap::default(),
            round: 0,
            in_force: 0,
            hasher: foldhash::quality::RandomState::default(),
        }
    }

    /// How many objects are in force.
    pub fn in_force(&self) -> usize {
        self.in_force
    }

    /// A list begins, whether or not the one before came to its end.
    pub fn begin(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// The list is complete: what it did not name is gone.
    pub fn complete(&mut self, delta: &mut Delta) {
        let round = self.round;
        let gone: Vec<Box<str>> = self
            .known
            .iter()
            .filter(|(_, known)| known.round != round)
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.forget(&name, delta);
        }
    }

    /// An object as it is now.
    pub fn put(&mut self, item: &Item, delta: &mut Delta) {
        let name = item.name();
        let version = item.version(&self.hasher);
        let known = self.known.get_mut(&*name);
        if let Some(known) = known {
            known.round = self.round;
            if known.version == version {
                return;
            }
        }
        let round = self.round;
        let known =
            self.known.entry(name.into()).or_insert(Known { version, print: None, round, reported: false });
        known.version = version;
        let (mut findings, object) = match load::load_served(self.kind, item.text()) {
            Ok(loaded) => (loaded.findings, Some(loaded.object)),
            Err(refused) => (refused.findings, None),
        };
        // There may be many, and each node's agent tells of its own.
        if matches!(&object, Some(Object::Pod(pod)) if *pod.spec.node_name != *self.node) {
            findings.clear();
        }
        let report = Report::new(self.kind, item, findings);
        if known.reported || !report.is_empty() {
            known.reported = !report.is_empty();
            for finding in &report.problems {
                tracing::warn!(resource = %finding.resource, path = finding.path, code = %finding.code, "{}", finding.message);
            }
            delta.reports.push(report);
        }
        let Some(object) = object else { return };
        let print = Some(Fingerprint::of(&object, &self.hasher));
        if known.print == print {
            return;
        }
        self.in_force += usize::from(known.print.is_none());
        known.print = print;
        delta.changes.push(Change::Put(object));
    }

    /// An object as an agent before has kept it; it counts until it is named by the server, or is missing in a list.
    pub fn prime(&mut self, name: &str, text: &str, delta: &mut Delta) {
        if self.known.contains_key(name) {
            return;
        }
        // What this version of weft refuses, it would not have from the server either.
        let Ok(loaded) = load::load_served(self.kind, text) else { return };
        let print = Some(Fingerprint::of(&loaded.object, &self.hasher));
        // Of no version that the server knows, and in no list of this agent's.
        let round = self.round.wrapping_sub(1);
        self.known.insert(name.into(), Known { version: 0, print, round, reported: false });
        self.in_force += 1;
        delta.changes.push(Change::Put(loaded.object));
    }

    /// An object that is no more.
    pub fn gone(&mut self, item: &Item, delta: &mut Delta) {
        self.forget(&item.name(), delta);
    }

    fn forget(&mut self, name: &str, delta: &mut Delta) {
        let Some(known) = self.known.remove(name) else { return };
        let (namespace, name) = name.split_once('/').unwrap_or(("", name));
        let key = ObjectKey::new(self.kind, namespace, name);
        if known.reported {
            delta.reports.push(Report { key: key.clone(), problems: Vec::new(), not_in_force: Vec::new() });
        }
        if known.print.is_some() {
            self.in_force -= 1;
            delta.changes.push(Change::Delete(key));
        }
    }
}

impl Report {
    fn new(kind: Kind, item: &Item, findings: Vec<Finding>) -> Self {
        let (namespace, name) = item.names();
        let (problems, rest): (Vec<_>, Vec<_>) =
            findings.into_iter().partition(|finding| finding.severity == Severity::Error);
        Self {
            key: ObjectKey::new(kind, namespace, name),
            problems,
            not_in_force: rest.into_iter().filter(|finding| finding.code == code::NOT_IN_FORCE).collect(),
        }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty() && self.not_in_force.is_empty()
    }
}

#[cfg(test)]
mod tests;
