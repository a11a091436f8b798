//! VirtualServices: in the tables of the hosts that they are for, and, of those without hosts, in the rules of those that
//! delegate to them.

use std::collections::BTreeSet;
use std::sync::Arc;

use weft_api::delegate::{self, Expanded, Found};
use weft_api::istio::{HttpRoute, VirtualService};

use crate::compile::Compiler;
use crate::registry::hostname::{self, HostPattern};
use crate::route::virtual_service::{RuleList, Rules, compile};
use crate::shard::Map;

/// Matches that the VirtualServices of all namespaces may have from delegates: each is made anew for each that delegates. One
/// takes about a kilobyte.
const MATCHES: usize = 1 << 16;
/// The same for those of one namespace.
const MATCHES_OF_NAMESPACE: usize = 1 << 14;
/// What a namespace may have even where the bound of all is reached: nobody's rules are out of force for what others write.
const MATCHES_GUARANTEED: usize = 1 << 9;

/// VirtualServices that may delegate to one: all of them are made anew when it changes.
const ROOTS: usize = 1 << 9;

/// Who delegates to whom, and what that takes.
#[derive(Debug, Default)]
pub(super) struct Delegations {
    /// The VirtualServices that delegate to one, whether it is there or not; the first [`ROOTS`] of them.
    roots: Map<Arc<str>, BTreeSet<Arc<str>>>,
    /// Matches by the VirtualService that has them from delegates.
    matches: Map<Arc<str>, usize>,
    /// The same by its namespace.
    of_namespace: Map<Arc<str>, usize>,
    all: usize,
}

impl Delegations {
    /// Whether a namespace has room for more matches; then they are counted for this VirtualService of it.
    fn admit(&mut self, namespace: &Arc<str>, root: &Arc<str>, matches: usize) -> bool {
        let own = self.of_namespace.get(namespace).copied().unwrap_or_default() + matches;
        let fits =
            own <= MATCHES_OF_NAMESPACE && (own <= MATCHES_GUARANTEED || self.all + matches <= MATCHES);
        if fits {
            self.of_namespace.insert(namespace.clone(), own);
            *self.matches.entry(root.clone()).or_default() += matches;
            self.all += matches;
        }
        fits
    }

    /// Whether a VirtualService is made anew when one that it delegates to changes.
    fn follows(&self, root: &str, delegate: &str) -> bool {
        self.roots.get(delegate).is_some_and(|roots| roots.contains(root))
    }

    /// Forgets what a VirtualService has from delegates.
    fn forget(&mut self, namespace: &Arc<str>, root: &str) {
        let Some(matches) = self.matches.remove(root) else { return };
        self.all -= matches;
        if let Some(own) = self.of_namespace.get_mut(namespace) {
            *own -= matches;
            if *own == 0 {
                self.of_namespace.remove(namespace);
            }
        }
    }

    /// Notes the delegates of a VirtualService, or that it has them no more.
    fn refer(&mut self, root: &Arc<str>, object: &VirtualService, add: bool) {
        for delegate in delegate::delegates(object) {
            if add {
                let roots = self.roots.entry(delegate.into()).or_default();
                if roots.len() < ROOTS {
                    roots.insert(root.clone());
                }
            } else if let Some(roots) = self.roots.get_mut(&*delegate) {
                roots.remove(root);
                if roots.is_empty() {
                    self.roots.remove(&*delegate);
                }
            }
        }
    }
}

impl Compiler {
    pub(super) fn put_virtual_service(&mut self, object: &Arc<VirtualService>) {
        let key = self.enter(object);
        self.compile_roots(&key);
    }

    pub(super) fn delete_virtual_service(&mut self, key: &str) {
        if let Some(rules) = self.take_out(key) {
            self.compile_roots(&rules.key);
        }
    }

    /// Compiles again what delegates to a VirtualService.
    fn compile_roots(&mut self, delegate: &str) {
        for root in self.delegations.roots.get(delegate).cloned().into_iter().flatten() {
            if let Some((object, _)) = self.virtual_services.get(&root) {
                let object = object.clone();
                self.enter(&object);
            }
        }
    }

    /// Compiles a VirtualService, and has its rules in place of those before.
    fn enter(&mut self, object: &Arc<VirtualService>) -> Arc<str> {
        let meta = &object.metadata;
        let key: Arc<str> = format!("{}/{}", meta.namespace, meta.name).into();
        self.take_out(&key);
        self.delegations.refer(&key, object, true);
        let expanded = self.expand(&key, object);
        let rules = Arc::new(compile::compile(object, expanded, &self.snapshot.mesh, &mut self.intern));
        self.virtual_services.insert(key.clone(), (object.clone(), rules.clone()));
        self.list_rules(&rules, true);
        key
    }

    fn take_out(&mut self, key: &str) -> Option<Arc<Rules>> {
        let (object, rules) = self.virtual_services.remove(key)?;
        self.delegations.refer(&rules.key, &object, false);
        self.delegations.forget(&rules.age.namespace, key);
        self.list_rules(&rules, false);
        Some(rules)
    }

    fn expand<'a>(&mut self, key: &Arc<str>, object: &'a VirtualService) -> Expanded<'a> {
        let namespace = self.intern.text(&object.metadata.namespace);
        let (all, delegations) = (&self.virtual_services, &mut self.delegations);
        let find = |rule: &HttpRoute, delegate: &str| match all.get(delegate) {
            _ if !delegations.follows(key, delegate) => Found::NoRoom,
            None => Found::Missing,
            Some((_, rules)) if !rules.hosts.is_empty() => Found::HasHosts,
            Some((_, rules)) if !rules.scope.admits(&namespace) => Found::Hidden,
            Some((delegate, _)) if !delegations.admit(&namespace, key, delegate::size(rule, delegate)) => {
                Found::NoRoom
            }
            Some((delegate, _)) => Found::Delegate(delegate),
        };
        let domain = &self.snapshot.mesh.cluster_domain;
        delegate::expand(object, find, |host, namespace| hostname::resolve(host, namespace, domain))
    }

    /// Enters a VirtualService in the host tables, or takes it out.
    fn list_rules(&mut self, rules: &Arc<Rules>, add: bool) {
        if !rules.gateways.is_empty() {
            self.touch_gateways();
        }
        if !rules.on_mesh {
            return;
        }
        for pattern in &rules.hosts {
            match pattern {
                HostPattern::Exact(host) => {
                    let table = &mut self.snapshot.exact_rules;
                    match with_rules(table.get(host), rules, add) {
                        Some(list) => drop(table.insert(host.clone(), list)),
                        None => drop(table.remove(host)),
                    }
                }
                HostPattern::Below(suffix) => {
                    let table = Arc::make_mut(&mut self.snapshot.wildcard_rules);
                    match with_rules(table.get(suffix), rules, add) {
                        Some(list) => drop(table.insert(suffix.clone(), list)),
                        None => drop(table.remove(suffix)),
                    }
                }
            }
        }
    }
}

/// A list with or without these rules; `None` if nothing is left of it.
pub(super) fn with_rules(list: Option<&RuleList>, rules: &Arc<Rules>, add: bool) -> Option<RuleList> {
    let mut all: Vec<Arc<Rules>> = list.map(|list| list.to_vec()).unwrap_or_default();
    all.retain(|other| other.key != rules.key);
    if add {
        let at = all.partition_point(|other| other.age < rules.age);
        all.insert(at, rules.clone());
    }
    (!all.is_empty()).then(|| all.into())
}
