//! What of the objects that a source brings gets in: within the bounds on memory, and, where regular expressions are to be
//! compiled that take long, when that is done on another thread. Everything else goes on meanwhile.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasher;

use weft_api::budget::{Ledger, Sums, weigh};
use weft_api::finding::{Finding, Severity, code};
use weft_api::meta::ObjectKey;
use weft_api::object::Object;

use crate::compile::prepare::{Prepared, Unprepared};
use crate::compile::{Change, Compiler};

/// Refused objects that are told of, one by one, and tried again when there is room.
const KEPT: usize = 1000;
/// What these may take.
const KEPT_BYTES: u64 = 8 << 20;
/// Instructions that are compiled at once: a fraction of a millisecond.
const AT_ONCE: u64 = 4096;

/// What is on its way in.
#[derive(Debug, Default)]
pub struct Intake {
    ledger: Ledger,
    /// Over a bound.
    refused: BTreeMap<ObjectKey, Refused>,
    refused_bytes: u64,
    /// Hashes of the names of more of these, beyond [`KEPT`].
    others: HashSet<u64>,
    hasher: RandomState,
    /// Until their regular expressions are compiled, and by which job.
    held: BTreeMap<ObjectKey, (Object, u64)>,
    jobs: u64,
}

#[derive(Debug)]
struct Refused {
    finding: Finding,
    object: Object,
    bytes: u64,
}

/// Regular expressions to be compiled elsewhere.
#[derive(Debug)]
pub struct Job {
    number: u64,
    work: Vec<Unprepared>,
}

/// What came of a [`Job`].
#[derive(Debug)]
pub struct Done {
    number: u64,
    prepared: Vec<Prepared>,
}

impl Job {
    /// Does it, on whatever thread this is.
    pub fn run(self) -> Done {
        Done { number: self.number, prepared: self.work.into_iter().map(Unprepared::prepare).collect() }
    }
}

impl Intake {
    /// All objects together may take `most`.
    pub fn within(most: Sums) -> Self {
        Self { ledger: Ledger::within(most), ..Self::default() }
    }

    /// What the objects that were let in take.
    pub fn sums(&self) -> Sums {
        self.ledger.sums()
    }

    /// Leaves out what is over a bound, and says so. What was refused before comes in as soon as there is room.
    pub fn admit(&mut self, changes: Vec<Change>) -> (Vec<Change>, Vec<Finding>) {
        let mut room = false;
        let mut admitted = Vec::with_capacity(changes.len());
        let mut told = Vec::new();
        for change in changes {
            match change {
                Change::Put(object) => match self.ledger.put(&object) {
                    Ok(()) => {
                        // It may have become smaller.
                        room |= self.forget(&object.key());
                        admitted.push(Change::Put(object));
                    }
                    Err(finding) => {
                        told.push((*finding).clone());
                        self.refuse(object, *finding);
                    }
                },
                Change::Delete(key) => {
                    self.ledger.remove(&key);
                    self.forget(&key);
                    room = true;
                    admitted.push(Change::Delete(key));
                }
            }
        }
        if room && !self.refused.is_empty() {
            let ledger = &mut self.ledger;
            let fits = self.refused.extract_if(.., |_, refused| ledger.put(&refused.object).is_ok());
            for (_, refused) in fits {
                self.refused_bytes -= refused.bytes;
                admitted.push(Change::Put(refused.object));
            }
        }
        (admitted, told)
    }

    /// Whether anything was refused before.
    fn forget(&mut self, key: &ObjectKey) -> bool {
        if self.refused.is_empty() && self.others.is_empty() {
            return false;
        }
        self.others.remove(&self.hasher.hash_one(key));
        if let Some(refused) = self.refused.remove(key) {
            self.refused_bytes -= refused.bytes;
        }
        true
    }

    fn refuse(&mut self, object: Object, finding: Finding) {
        let key = object.key();
        self.forget(&key);
        let bytes = weigh(&object).map_or(0, |weight| weight.bytes);
        if self.refused.len() < KEPT && self.refused_bytes + bytes <= KEPT_BYTES {
            self.refused_bytes += bytes;
            self.refused.insert(key, Refused { finding, object, bytes });
        } else {
            self.others.insert(self.hasher.hash_one(&key));
        }
    }

    /// Objects over a bound.
    pub fn findings(&self) -> impl Iterator<Item = Finding> {
        let others = (!self.others.is_empty()).then(|| Finding {
            severity: Severity::Error,
            code: code::TOO_LARGE.to_owned(),
            resource: "…".to_owned(),
            path: String::new(),
            message: format!(
                "{} more objects are over a bound (once there is room, apply them again)",
                self.others.len()
            ),
            file: None,
            line: None,
        });
        self.refused.values().map(|refused| refused.finding.clone()).chain(others)
    }

    /// What waits to be compiled.
    pub fn waiting_for(&self) -> impl Iterator<Item = String> {
        self.held.keys().map(|key| format!("regular expressions of {key}"))
    }

    /// Holds back what takes long to compile; answers what goes on, and a job to do elsewhere.
    pub fn hold_back(&mut self, changes: Vec<Change>, compiler: &Compiler) -> (Vec<Change>, Option<Job>) {
        let mut work = Vec::new();
        let go_on = changes.into_iter().filter_map(|change| match change {
            Change::Put(object @ Object::VirtualService(_)) => {
                let key = object.key();
                self.held.remove(&key);
                let unprepared = compiler.unprepared(&object);
                if unprepared.instructions <= AT_ONCE {
                    return Some(Change::Put(object));
                }
                work.push(unprepared);
                self.held.insert(key, (object, self.jobs + 1));
                None
            }
            Change::Delete(key) => {
                self.held.remove(&key);
                Some(Change::Delete(key))
            }
            change @ Change::Put(_) => Some(change),
        });
        let go_on = go_on.collect();
        if work.is_empty() {
            return (go_on, None);
        }
        self.jobs += 1;
        (go_on, Some(Job { number: self.jobs, work }))
    }

    /// Takes in what a job has made; answers what waited for it.
    pub fn release(&mut self, done: Done, compiler: &mut Compiler) -> Vec<Change> {
        for prepared in done.prepared {
            compiler.take_prepared(prepared);
        }
        let done = self.held.extract_if(.., |_, (_, of)| *of == done.number);
        done.map(|(_, (object, _))| Change::Put(object)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::CompilerOptions;

    fn compiler() -> Compiler {
        Compiler::new(CompilerOptions {
            node: "n1".into(),
            cluster_domain: "cluster.local".into(),
            root_namespace: "istio-system".into(),
            trust_domain: "cluster.local".into(),
            cluster: false,
        })
    }

    fn put(name: &str, rule: &str) -> Change {
        let yaml = format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
             hosts: [{name}.example.com]\n  http:\n  - {rule}\n"
        );
        let mut loaded = weft_api::load::load("a.yaml", &yaml);
        assert!(loaded.refused.is_empty(), "{:?}", loaded.refused);
        Change::Put(loaded.objects.remove(0).object)
    }

    fn large(name: &str) -> Change {
        let body = "x".repeat(700_000);
        put(name, &format!("directResponse: {{status: 200, body: {{string: {body}}}}}"))
    }

    fn names(changes: &[Change]) -> Vec<String> {
        let name = |change: &Change| match change {
            Change::Put(object) => object.metadata().name.clone(),
            Change::Delete(key) => format!("-{}", key.name),
        };
        changes.iter().map(name).collect()
    }

    #[test]
    fn what_was_refused_comes_in_when_there_is_room() {
        let mut intake = Intake::default();
        let many: Vec<_> = (10..36).map(|n| large(&format!("v{n}"))).collect();
        let (admitted, told) = intake.admit(many);
        let refused = 26 - admitted.len();
        assert_eq!((told.len(), intake.findings().count()), (refused, refused));
        let key = ObjectKey::new(weft_api::kinds::Kind::VirtualService, "shop", "v10");
        let after = names(&intake.admit(vec![Change::Delete(key)]).0);
        assert_eq!((after.len(), &*after[0]), (2, "-v10"), "{after:?}");
        assert_eq!(intake.findings().count(), refused - 1);
        // Of many, only some are kept; the others are counted.
        intake.admit((50..100).map(|n| large(&format!("w{n}"))).collect());
        let told: Vec<_> = intake.findings().collect();
        assert!(
            told.len() < 12 && told.last().unwrap().message.contains("more objects are over a bound"),
            "{told:?}"
        );
    }

    #[test]
    fn only_what_takes_long_to_compile_is_held_back_and_newer_versions_count() {
        let (mut intake, mut compiler) = (Intake::default(), compiler());
        let hard = || {
            put(
                "hard",
                "{match: [{uri: {regex: '/a{3000}'}}, {uri: {regex: '/b{3000}'}}], redirect: {uri: /}}",
            )
        };
        let other = put("other", "{match: [{uri: {regex: '/a+'}}], redirect: {uri: /}}");
        let (go_on, job) = intake.hold_back(vec![hard(), other], &compiler);
        assert_eq!(names(&go_on), ["other"]);
        assert_eq!(intake.waiting_for().next().unwrap(), "regular expressions of VirtualService/shop/hard");
        let released = intake.release(job.unwrap().run(), &mut compiler);
        assert_eq!(names(&released), ["hard"]);
        let (go_on, job) = intake.hold_back(vec![hard()], &compiler);
        assert_eq!((names(&go_on), job.is_none()), (vec!["hard".to_owned()], true), "it is compiled");

        let harder = put(
            "hard",
            "{match: [{uri: {regex: '/c{4000}'}}, {uri: {regex: '/d{4000}'}}], redirect: {uri: /}}",
        );
        let (_, job) = intake.hold_back(vec![harder], &compiler);
        let (go_on, _) = intake.hold_back(vec![hard()], &compiler);
        assert_eq!(names(&go_on), ["hard"]);
        assert!(intake.release(job.unwrap().run(), &mut compiler).is_empty(), "a version of the past");
        assert!(intake.waiting_for().next().is_none());
    }
}
