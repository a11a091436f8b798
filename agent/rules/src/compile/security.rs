//! The security objects, and which local workloads a change of them, of a pod or of a service touches.

use std::sync::Arc;

use weft_api::istio::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};

use crate::compile::Compiler;
use crate::guard::compile::{authorization, peer_authentication, request_authentication};
use crate::guard::namespace::NamespaceSecurity;
use crate::guard::{DryRuns, Entrance, Guard};
use crate::registry::pod::PodRecord;
use crate::registry::protocol::Protocol;
use crate::registry::services::{SliceEndpoint, SliceRecord, Target};
use crate::route::virtual_service::Age;
use crate::shard::{Map, Set};
use crate::workload::Workload;

/// What is kept of the security objects.
#[derive(Debug, Default)]
pub(super) struct Security {
    /// As they were written: another MeshConfig compiles them anew.
    authorizations: Map<String, Arc<AuthorizationPolicy>>,
    /// Local workloads to look at before the next publication.
    pub(super) dirty: Set<Arc<str>>,
    /// Namespaces whose policies changed.
    dirty_namespaces: Set<Arc<str>>,
}

impl Compiler {
    pub(super) fn put_authorization(&mut self, object: &Arc<AuthorizationPolicy>) {
        let policy = authorization::compile(object, &self.snapshot.mesh, &mut self.intern);
        self.security.authorizations.insert(policy.key.to_string(), object.clone());
        let namespace = policy.age.namespace.clone();
        let policy = Arc::new(policy);
        self.change_namespace(&namespace, |security| {
            let list = &mut security.authorizations;
            replace(list, &policy.key, Some(policy.clone()), |policy| (&policy.key, &policy.age));
        });
    }

    pub(super) fn delete_authorization(&mut self, namespace: &str, key: &str) {
        if self.security.authorizations.remove(key).is_some() {
            self.change_namespace(namespace, |security| {
                replace(&mut security.authorizations, key, None, |policy| (&policy.key, &policy.age));
            });
        }
    }

    pub(super) fn put_peer_authentication(&mut self, object: &PeerAuthentication) {
        let policy = Arc::new(peer_authentication::compile(object, &mut self.intern));
        let namespace = policy.age.namespace.clone();
        self.change_namespace(&namespace, |security| {
            replace(&mut security.peers, &policy.key, Some(policy.clone()), |policy| {
                (&policy.key, &policy.age)
            });
        });
    }

    pub(super) fn delete_peer_authentication(&mut self, namespace: &str, key: &str) {
        self.change_namespace(namespace, |security| {
            replace(&mut security.peers, key, None, |policy| (&policy.key, &policy.age));
        });
    }

    pub(super) fn put_request_authentication(&mut self, object: &RequestAuthentication) {
        let policy = Arc::new(request_authentication::compile(object, &self.snapshot.mesh, &mut self.intern));
        let namespace = policy.age.namespace.clone();
        self.change_namespace(&namespace, |security| {
            replace(&mut security.tokens, &policy.key, Some(policy.clone()), |policy| {
                (&policy.key, &policy.age)
            });
        });
    }

    pub(super) fn delete_request_authentication(&mut self, namespace: &str, key: &str) {
        self.change_namespace(namespace, |security| {
            replace(&mut security.tokens, key, None, |policy| (&policy.key, &policy.age));
        });
    }

    fn change_namespace(&mut self, namespace: &str, change: impl FnOnce(&mut NamespaceSecurity)) {
        let namespace = self.intern.text(namespace);
        let table = &mut self.snapshot.security;
        let mut security = table.get(&namespace).map(|security| (**security).clone()).unwrap_or_default();
        change(&mut security);
        if security.is_empty() {
            table.remove(&namespace);
        } else {
            table.insert(namespace.clone(), Arc::new(security));
        }
        self.security.dirty_namespaces.insert(namespace);
    }

    /// Compiles the policies anew that speak of what MeshConfig says.
    pub(super) fn reload_security(&mut self) {
        let all: Vec<_> = self.security.authorizations.values().cloned().collect();
        for object in all {
            self.put_authorization(&object);
        }
    }

    /// Marks a pod that is of this node, or was.
    pub(super) fn touch_entrance(&mut self, workload: &Workload) {
        let was_local = || self.snapshot.entrances.get(&workload.key).is_some();
        if *workload.node == *self.options.node || was_local() {
            self.security.dirty.insert(workload.key.clone());
        }
    }

    /// Marks the local pods that a service leads to.
    pub(super) fn touch_entrances_behind(&mut self, host: &str) {
        let Some(record) = self.services.get(host) else { return };
        let Some(selector) = &record.selector else { return self.touch_entrances_named_for(host) };
        let pods = self.pods.select(&record.service.namespace, selector);
        let local = pods.filter(|pod| *pod.workload.node == *self.options.node);
        self.security.dirty.extend(local.map(|pod| pod.workload.key.clone()));
    }

    /// Marks the pods that the slices of a service without selector name.
    pub(super) fn touch_entrances_named_for(&mut self, host: &str) {
        if self.services.get(host).is_none_or(|record| record.selector.is_some()) {
            return;
        }
        for endpoint in self.services.slices_of(host).flat_map(|slice| &slice.endpoints) {
            if let Some(pod) = &endpoint.pod {
                self.security.dirty.insert(pod.clone());
            } else {
                let claiming = self.pods.claiming(endpoint.address, &self.snapshot.registry);
                self.security.dirty.extend(claiming.cloned());
            }
        }
    }

    /// Brings the entries of all local workloads up to date that something touched.
    pub(super) fn compile_entrances(&mut self) {
        let namespaces = std::mem::take(&mut self.security.dirty_namespaces);
        if !namespaces.is_empty() {
            let everywhere = namespaces.contains(&self.snapshot.root_namespace);
            for key in self.snapshot.entrances.iter().map(|(key, _)| key) {
                let of_namespace = || key.split_once('/').is_some_and(|(name, _)| namespaces.contains(name));
                if everywhere || of_namespace() {
                    self.security.dirty.insert(key.clone());
                }
            }
        }
        for key in std::mem::take(&mut self.security.dirty) {
            let local = self.pods.get(&key).filter(|pod| *pod.workload.node == *self.options.node);
            match local.map(|pod| pod.workload.clone()) {
                Some(workload) => {
                    let entrance = Arc::new(self.entrance(&workload));
                    self.snapshot.entrances.insert(key, entrance);
                }
                None => drop(self.snapshot.entrances.remove(&key)),
            }
        }
    }

    fn entrance(&self, workload: &Workload) -> Entrance {
        let mut services = Vec::new();
        self.services.touched_by(workload, |host| {
            if !services.contains(host) && self.leads_to(host, workload) {
                services.push(host.clone());
            }
        });
        let old = self.snapshot.entrances.get(&workload.key).and_then(|entrance| entrance.guard.as_ref());
        let security = self.snapshot.security_of(workload);
        let guard = Guard::of(&security, workload, &services).map(Arc::new);
        let dry_runs = DryRuns::of(&security, workload, &services).map(Arc::new);
        let guard = guard.map(|guard| match old {
            Some(old) if old.is(&guard) => old.clone(),
            _ => guard,
        });
        Entrance { guard, dry_runs, ports: self.ports_of(workload, &services), services: services.into() }
    }

    /// Whether a service selects the workload, or, without selector, has it among the endpoints of its slices.
    fn leads_to(&self, host: &str, workload: &Workload) -> bool {
        self.services.get(host).is_some_and(|record| match &record.selector {
            Some(selector) => {
                record.service.namespace == workload.namespace && selector.selects(&workload.labels)
            }
            None => self.slices_naming(host, workload).next().is_some(),
        })
    }

    /// The slices of a service that have the workload among their endpoints, by name or by an address of its own.
    fn slices_naming<'a>(
        &'a self,
        host: &str,
        workload: &'a Workload,
    ) -> impl Iterator<Item = &'a SliceRecord> + use<'a> {
        let owner = self.pods.get(&workload.key).is_some_and(PodRecord::owns_addresses);
        let named = move |endpoint: &SliceEndpoint| match &endpoint.pod {
            Some(pod) => *pod == workload.key,
            None => owner && workload.addresses.contains(&endpoint.address),
        };
        self.services.slices_of(host).filter(move |slice| slice.endpoints.iter().any(named))
    }

    /// What a workload's ports speak, by the services that lead to them.
    fn ports_of(&self, workload: &Workload, services: &[Arc<str>]) -> Box<[(u16, Protocol)]> {
        let mut ports: Vec<(u16, Protocol)> = Vec::new();
        let mut say = |port: u16, protocol: Protocol| match ports.iter_mut().find(|(known, _)| *known == port)
        {
            Some((_, said)) if *said != protocol => *said = Protocol::Detect,
            Some(_) => {}
            None => ports.push((port, protocol)),
        };
        let of_pod = self.pods.get(&workload.key).map(|pod| &pod.ports);
        for record in services.iter().filter_map(|host| self.services.get(host)) {
            let slices = || self.slices_naming(&record.service.host, workload);
            for port in &record.ports {
                let protocol = port.entry.protocol;
                let named = |name: &Arc<str>| {
                    let known = of_pod.into_iter().flat_map(|ports| ports.iter());
                    known.into_iter().find(|(known, _)| known == name).map(|(_, number)| *number)
                };
                match &port.target {
                    _ if record.selector.is_none() => {
                        let own = match port.target {
                            Target::Number(number) => number,
                            Target::Named(_) => port.entry.port,
                        };
                        for slice in slices() {
                            let listed = slice.ports.iter().find(|(name, _)| *name == port.entry.name);
                            if let Some((_, number)) = listed {
                                say(number.unwrap_or(own), protocol);
                            }
                        }
                    }
                    Target::Number(number) => say(*number, protocol),
                    Target::Named(name) => {
                        if let Some(number) = named(name) {
                            say(number, protocol);
                        }
                    }
                }
            }
        }
        ports.sort_unstable_by_key(|(port, _)| *port);
        ports.into()
    }
}

/// Puts a policy into a list that is oldest first, or takes it out.
fn replace<T>(
    list: &mut Vec<Arc<T>>,
    key: &str,
    new: Option<Arc<T>>,
    name: impl Fn(&T) -> (&Arc<str>, &Age),
) {
    list.retain(|other| &**name(other).0 != key);
    if let Some(new) = new {
        let at = list.partition_point(|other| name(other).1 < name(&new).1);
        list.insert(at, new);
    }
}
