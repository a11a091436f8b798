//! VirtualServices: in the tables of the hosts that they are for, and, of those without hosts, in the rules of those that
//! delegate to them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use weft_api::delegate::Found;
use weft_api::delegate::room::{self, Bulk, Claim};
use weft_api::istio::VirtualService;

use crate::compile::Compiler;
use crate::registry::hostname::HostPattern;
use crate::registry::scope::Scope;
use crate::route::virtual_service::{Age, RuleList, Rules, compile};
use crate::shard::{Map, Set};

/// VirtualServices, and what was compiled from each.
#[derive(Debug, Default)]
pub(super) struct VirtualServices {
    all: Map<Arc<str>, Record>,
    /// Who delegates to one, whether that is there or not.
    roots: Map<Arc<str>, BTreeSet<Arc<str>>>,
    /// Who delegates to whom without having room for it.
    beyond: Set<(Arc<str>, Arc<str>)>,
    /// Whether room is to be given anew.
    claims_changed: bool,
    /// To be compiled before the next publication.
    dirty: Set<Arc<str>>,
}

#[derive(Debug)]
struct Record {
    object: Arc<VirtualService>,
    age: Age,
    scope: Scope,
    /// As a delegate.
    bulk: Bulk,
    /// The rules of it that delegate, by the delegate.
    delegating: HashMap<String, Bulk>,
    /// `None`: not compiled yet.
    rules: Option<Arc<Rules>>,
}

/// What was compiled from one, and what is now.
struct Relisted {
    before: Option<Arc<Rules>>,
    after: Option<Arc<Rules>>,
}

/// What one is as a delegate, for those of a namespace.
fn found<'a>(record: Option<&'a Record>, namespace: &str) -> Found<'a> {
    let object = record.map(|record| &*record.object);
    Found::of(object, |_| record.is_some_and(|record| record.scope.admits(namespace)))
}

/// Whether rules that delegate are other ones when this was found, and then that.
fn makes_a_difference(before: &Found<'_>, after: &Found<'_>) -> bool {
    let is_taken = |found: &Found<'_>| matches!(found, Found::Delegate(_));
    is_taken(before) || is_taken(after) || std::mem::discriminant(before) != std::mem::discriminant(after)
}

impl VirtualServices {
    /// What has been compiled.
    pub(super) fn rules(&self) -> impl Iterator<Item = &Arc<Rules>> {
        self.all.values().filter_map(|record| record.rules.as_ref())
    }

    fn objects(&self) -> Vec<Arc<VirtualService>> {
        self.all.values().map(|record| record.object.clone()).collect()
    }

    fn put(&mut self, key: &Arc<str>, record: Record) {
        let before = self.take_out(key);
        for delegate in record.delegating.keys() {
            self.roots.entry(delegate.as_str().into()).or_default().insert(key.clone());
        }
        self.claims_changed |= !record.delegating.is_empty();
        self.touch_roots(key, before.as_ref(), Some(&record));
        let rules = before.and_then(|before| before.rules);
        self.all.insert(key.clone(), Record { rules, ..record });
        self.dirty.insert(key.clone());
    }

    /// Removes one; returns what was compiled from it.
    fn remove(&mut self, key: &str) -> Option<Arc<Rules>> {
        let before = self.take_out(key)?;
        self.touch_roots(key, Some(&before), None);
        before.rules
    }

    fn take_out(&mut self, key: &str) -> Option<Record> {
        let record = self.all.remove(key)?;
        for delegate in record.delegating.keys() {
            let Some(roots) = self.roots.get_mut(&**delegate) else { continue };
            roots.remove(key);
            if roots.is_empty() {
                self.roots.remove(&**delegate);
            }
        }
        self.claims_changed |= !record.delegating.is_empty();
        Some(record)
    }

    /// Has those compiled that delegate to one, if it makes a difference to them.
    fn touch_roots(&mut self, delegate: &str, before: Option<&Record>, after: Option<&Record>) {
        for root in self.roots.get(delegate).into_iter().flatten() {
            let namespace = root.split_once('/').map_or(&**root, |(namespace, _)| namespace);
            if makes_a_difference(&found(before, namespace), &found(after, namespace)) {
                self.claims_changed = true;
                self.dirty.insert(root.clone());
            }
        }
    }

    /// Gives the room for rules of delegates anew, to the oldest first.
    fn give_room(&mut self) {
        let mut roots: Vec<_> = self.all.iter().filter(|(_, record)| !record.delegating.is_empty()).collect();
        roots.sort_unstable_by(|(_, a), (_, b)| a.age.cmp(&b.age));
        let claims = roots.into_iter().flat_map(|(root, record)| {
            let claim = |(delegate, bulk): (&String, &Bulk)| {
                let (delegate, to) = self.all.get_key_value(delegate.as_str())?;
                let taken = matches!(found(Some(to), &record.age.namespace), Found::Delegate(_));
                taken.then(|| Claim { root, delegate, bytes: bulk.with(&to.bulk) })
            };
            let mut claims: Vec<_> = record.delegating.iter().filter_map(claim).collect();
            claims.sort_unstable_by_key(|claim| claim.delegate);
            claims
        });
        let beyond: Set<(Arc<str>, Arc<str>)> =
            room::beyond(claims).into_iter().map(|(root, delegate)| (root.into(), delegate.into())).collect();
        let other = beyond.symmetric_difference(&self.beyond);
        self.dirty.extend(other.map(|(root, _)| root.clone()));
        self.beyond = beyond;
    }

    /// What a VirtualService delegates to.
    fn found(&self, root: &Arc<str>, namespace: &str, delegate: &str) -> Found<'_> {
        let beyond = || !self.beyond.is_empty() && self.beyond.contains(&(root.clone(), delegate.into()));
        match found(self.all.get(delegate), namespace) {
            Found::Delegate(_) if beyond() => Found::NoRoom,
            found => found,
        }
    }
}

impl Compiler {
    pub(super) fn put_virtual_service(&mut self, object: &Arc<VirtualService>) {
        let meta = &object.metadata;
        let key: Arc<str> = format!("{}/{}", meta.namespace, meta.name).into();
        let (age, scope) = compile::age_and_scope(object, &self.snapshot.mesh, &mut self.intern);
        let record = Record {
            object: object.clone(),
            age,
            scope,
            bulk: Bulk::of(object),
            delegating: Bulk::of_roots(object),
            rules: None,
        };
        self.virtual_services.put(&key, record);
    }

    pub(super) fn delete_virtual_service(&mut self, key: &str) {
        if let Some(rules) = self.virtual_services.remove(key) {
            self.list_rules(&[Relisted { before: Some(rules), after: None }]);
        }
    }

    /// All of them are read anew.
    pub(super) fn reload_virtual_services(&mut self) {
        for object in self.virtual_services.objects() {
            self.put_virtual_service(&object);
        }
    }

    /// Compiles what has changed, and those that delegate to it, each once.
    pub(super) fn compile_virtual_services(&mut self) {
        if std::mem::take(&mut self.virtual_services.claims_changed) {
            self.virtual_services.give_room();
        }
        let mut changes = Vec::new();
        for key in std::mem::take(&mut self.virtual_services.dirty) {
            let all = &self.virtual_services;
            let Some(record) = all.all.get(&key) else { continue };
            let (age, scope) = (record.age.clone(), record.scope.clone());
            let find = |delegate: &str| all.found(&key, &record.age.namespace, delegate);
            let (mesh, intern) = (&self.snapshot.mesh, &mut self.intern);
            let rules = Arc::new(compile::compile(&record.object, (age, scope), find, mesh, intern));
            let Some(record) = self.virtual_services.all.get_mut(&key) else { continue };
            changes.push(Relisted { before: record.rules.replace(rules.clone()), after: Some(rules) });
        }
        self.list_rules(&changes);
    }

    /// Enters VirtualServices in the host tables, each in place of what it was before. Thousands may be of one host, and change
    /// together: each host's list is made anew once.
    fn list_rules(&mut self, changes: &[Relisted]) {
        let mut lists: Map<&HostPattern, (Set<&str>, Vec<Arc<Rules>>)> = Map::default();
        for Relisted { before, after } in changes {
            for rules in before.iter().chain(after) {
                if !rules.gateways.is_empty() {
                    self.touch_gateways();
                }
                for host in rules.hosts.iter().filter(|_| rules.on_mesh) {
                    lists.entry(host).or_default().0.insert(&rules.key);
                }
            }
            for rules in after.iter().filter(|rules| rules.on_mesh) {
                rules.hosts.iter().for_each(|host| lists.entry(host).or_default().1.push(rules.clone()));
            }
        }
        for (host, (changed, mut all)) in lists {
            let old = match host {
                HostPattern::Exact(name) => self.snapshot.exact_rules.get(name),
                HostPattern::Below(suffix) => self.snapshot.wildcard_rules.get(suffix),
            };
            let others = old.into_iter().flat_map(|list| list.iter());
            all.extend(others.filter(|rules| !changed.contains(&*rules.key)).cloned());
            let list = oldest_first(all);
            match (host, list.is_empty()) {
                (HostPattern::Exact(name), false) => {
                    self.snapshot.exact_rules.insert(name.clone(), list);
                }
                (HostPattern::Exact(name), true) => {
                    self.snapshot.exact_rules.remove(name);
                }
                (HostPattern::Below(suffix), false) => {
                    Arc::make_mut(&mut self.snapshot.wildcard_rules).insert(suffix.clone(), list);
                }
                (HostPattern::Below(suffix), true) => {
                    Arc::make_mut(&mut self.snapshot.wildcard_rules).remove(suffix);
                }
            }
        }
    }
}

/// VirtualServices in the order in which they are asked, each once.
pub(super) fn oldest_first(mut all: Vec<Arc<Rules>>) -> RuleList {
    all.sort_unstable_by(|a, b| a.age.cmp(&b.age));
    all.dedup_by(|a, b| a.key == b.key);
    all.into()
}
