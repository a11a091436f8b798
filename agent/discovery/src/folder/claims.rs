//! Which file says what about which object, and which of them counts.
//!
//! Several files may speak of one object: the first by path wins, and the others are reported. A file that speaks of
//! an object wrongly still holds its last good version. The objects themselves are handed on and not kept, only their
//! fingerprints: a large cluster's would take more memory than everything that is made of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::path::Path;
use std::sync::Arc;

use weft_api::finding::{Finding, Severity, code};
use weft_api::kinds::Kind;
use weft_api::load::Loaded;
use weft_api::meta::ObjectKey;
use weft_api::object::Object;
use weft_rules::compile::Change;

use crate::fingerprint::Fingerprint;

/// Names of objects whose winner has to be found again.
pub type Touched = BTreeSet<Arc<ObjectKey>>;

/// What a file says about each object that it speaks of. `None`: nothing that could be accepted.
pub type Contents = BTreeMap<ObjectKey, Said>;

/// What a file says about one object.
#[derive(Debug)]
pub struct Said {
    /// The object, until it is handed on.
    object: Option<Object>,
    /// Of the last good version.
    print: Option<Fingerprint>,
    line: usize,
    /// Lines where the same file says it again.
    again: Vec<usize>,
}

#[derive(Debug)]
struct Claim {
    path: Arc<Path>,
    said: Said,
}

#[derive(Debug, Default)]
struct Entry {
    /// Sorted by path.
    claims: Vec<Claim>,
    in_force: Option<Fingerprint>,
}

/// What became of the names that were touched.
#[derive(Debug, Default)]
pub struct Resolved {
    /// What to tell the compiler.
    pub changes: Vec<Change>,
    /// Names whose winner is in a file that was not read just now.
    pub unread: Touched,
    /// Those files.
    pub files: BTreeSet<Arc<Path>>,
}

/// All claims.
#[derive(Debug, Default)]
pub struct Claims {
    entries: HashMap<Arc<ObjectKey>, Entry, foldhash::fast::RandomState>,
    /// Objects in force, by kind.
    counts: BTreeMap<Kind, usize>,
    /// Objects that are there more than once.
    contested: BTreeSet<Arc<ObjectKey>>,
}

/// Sorts what a file holds by object. Of an object that is there twice the first counts.
pub fn read(loaded: &Loaded, hasher: &impl BuildHasher) -> Contents {
    let accepted = loaded.objects.iter().map(|held| (held.object.key(), Some(&held.object), held.line));
    let refused =
        loaded.refused.iter().filter_map(|refused| Some((refused.key.clone()?, None, refused.line)));
    let mut all: Vec<(ObjectKey, Option<&Object>, usize)> = accepted.chain(refused).collect();
    all.sort_by_key(|(_, _, line)| *line);
    let mut contents = Contents::new();
    for (key, object, line) in all {
        contents.entry(key).and_modify(|said| said.again.push(line)).or_insert_with(|| Said {
            object: object.cloned(),
            print: object.map(|object| Fingerprint::of(object, hasher)),
            line,
            again: Vec::new(),
        });
    }
    contents
}

impl Claims {
    /// Takes what a file says now, which spoke of `before`; answers what it speaks of. With `torn`, part of the file
    /// could not be read, and objects that it spoke of before may stand there.
    pub fn replace(
        &mut self,
        path: &Arc<Path>,
        before: &[Arc<ObjectKey>],
        contents: Contents,
        torn: bool,
        touched: &mut Touched,
    ) -> Vec<Arc<ObjectKey>> {
        let mut keys = Vec::with_capacity(contents.len());
        for key in before {
            if contents.contains_key(&**key) {
                continue;
            }
            if torn {
                keys.push(key.clone());
            } else {
                self.withdraw(path, key, touched);
            }
        }
        for (key, said) in contents {
            let key =
                self.entries.get_key_value(&key).map_or_else(|| Arc::new(key), |(known, _)| known.clone());
            self.claim(path, &key, said);
            touched.insert(key.clone());
            keys.push(key);
        }
        keys
    }

    /// Forgets all that a file said.
    pub fn remove(&mut self, path: &Arc<Path>, keys: &[Arc<ObjectKey>], touched: &mut Touched) {
        for key in keys {
            self.withdraw(path, key, touched);
        }
    }

    fn claim(&mut self, path: &Arc<Path>, key: &Arc<ObjectKey>, mut said: Said) {
        let claims = &mut self.entries.entry(key.clone()).or_default().claims;
        match claims.binary_search_by(|claim| claim.path.cmp(path)) {
            Ok(at) => {
                let claim = &mut claims[at];
                said.print = said.print.or(claim.said.print);
                claim.said = said;
            }
            Err(at) => claims.insert(at, Claim { path: path.clone(), said }),
        }
    }

    fn withdraw(&mut self, path: &Arc<Path>, key: &Arc<ObjectKey>, touched: &mut Touched) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.claims.retain(|claim| claim.path != *path);
            touched.insert(key.clone());
        }
    }

    /// Finds the winners anew and answers what changed. Winners that were not read since the last time have to be read
    /// first, as long as `again` is true; later they count as lost, and the next best wins.
    pub fn resolve(&mut self, touched: Touched, again: bool) -> Resolved {
        let mut resolved = Resolved::default();
        for key in touched {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            if entry.is_contested() {
                self.contested.insert(key.clone());
            } else {
                self.contested.remove(&key);
            }
            let before = entry.in_force;
            match entry.settle(again) {
                Settled::Put(object) => resolved.changes.push(Change::Put(object)),
                Settled::Deleted => resolved.changes.push(Change::Delete((*key).clone())),
                Settled::Unread(path) => {
                    resolved.files.insert(path);
                    resolved.unread.insert(key.clone());
                }
                Settled::Same => {}
            }
            if before.is_some() != entry.in_force.is_some()
                && let Some(Fingerprint { kind, .. }) = before.or(entry.in_force)
            {
                let count = self.counts.entry(kind).or_default();
                *count = if before.is_some() { *count - 1 } else { *count + 1 };
            }
            if entry.claims.is_empty() {
                self.entries.remove(&key);
            }
        }
        resolved
    }

    /// How many objects are in force, by kind.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let present = self.counts.iter().filter(|(_, count)| **count > 0);
        present.map(|(kind, count)| (kind.name().to_owned(), *count)).collect()
    }

    /// A finding for every object that is there more than once, at each place that does not count.
    pub fn duplicates(&self) -> Vec<Finding> {
        let contested = self.contested.iter().filter_map(|key| Some((key, self.entries.get(key)?)));
        let mut findings: Vec<Finding> = contested.flat_map(|(key, entry)| entry.duplicates(key)).collect();
        findings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        findings
    }
}

/// What became of one name.
enum Settled {
    Put(Object),
    Deleted,
    /// The winner's file has to be read first.
    Unread(Arc<Path>),
    Same,
}

impl Entry {
    fn settle(&mut self, again: bool) -> Settled {
        if self.claims.is_empty() {
            return self.in_force.take().map_or(Settled::Same, |_| Settled::Deleted);
        }
        let mut won = None;
        for claim in &mut self.claims {
            // Only what is read just now holds its object; it is wanted now or never.
            let object = claim.said.object.take();
            if won.is_some() || claim.said.print.is_none() {
                continue;
            }
            if claim.said.print == self.in_force {
                won = Some(Settled::Same);
            } else if let Some(object) = object {
                self.in_force = claim.said.print;
                won = Some(Settled::Put(object));
            } else if again {
                won = Some(Settled::Unread(claim.path.clone()));
            } else {
                claim.said.print = None;
            }
        }
        // Moved to another file and refused there: what was in force stays so.
        won.unwrap_or(Settled::Same)
    }

    fn is_contested(&self) -> bool {
        self.claims.len() > 1 || self.claims.iter().any(|claim| !claim.said.again.is_empty())
    }

    fn duplicates(&self, key: &ObjectKey) -> Vec<Finding> {
        let Some(first) = self.claims.first() else { return Vec::new() };
        let finding = |path: &Path, line: usize| Finding {
            severity: Severity::Error,
            code: code::DUPLICATE_OBJECT.to_owned(),
            resource: key.to_string(),
            path: String::new(),
            message: format!(
                "is already in {} line {}, which counts (remove one of the two)",
                first.path.display(),
                first.said.line
            ),
            file: Some(path.display().to_string()),
            line: Some(line),
        };
        let again =
            self.claims.iter().flat_map(|claim| claim.said.again.iter().map(|line| (&*claim.path, *line)));
        let others = self.claims[1..].iter().map(|claim| (&*claim.path, claim.said.line));
        again.chain(others).map(|(path, line)| finding(path, line)).collect()
    }
}
