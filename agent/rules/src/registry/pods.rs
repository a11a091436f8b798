//! All pods: by name, by address, by label, and what their namespaces want.

use std::net::IpAddr;
use std::sync::Arc;

use weft_api::meta::Labels;

use crate::registry::Registry;
use crate::registry::pod::{PodRecord, Wish};
use crate::registry::services::Selector;
use crate::shard::{Hasher, Map};
use crate::workload::Workload;

/// The pods, and indexes over them.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    records: Map<Arc<str>, PodRecord>,
    namespaces: Map<Arc<str>, NamespacePods>,
    /// Every namespace that there is.
    wishes: Map<Arc<str>, Wish>,
    /// Addresses that several pods claim.
    contested: Map<IpAddr, Vec<Arc<str>>>,
}

/// Pods of one namespace, grouped by their labels.
#[derive(Debug, Default)]
struct NamespacePods {
    groups: Map<Arc<Labels>, Vec<Arc<str>>>,
    /// Label sets by the hash of each of their pairs.
    by_pair: Map<u64, Vec<Arc<Labels>>>,
}

/// The hash of one label. A collision costs a comparison, nothing else.
pub(crate) fn pair_hash(key: &str, value: &str) -> u64 {
    use std::hash::BuildHasher;
    Hasher::default().hash_one((key, value))
}

impl Pods {
    pub(crate) fn get(&self, key: &str) -> Option<&PodRecord> {
        self.records.get(key)
    }

    /// Takes a new version of a pod. Returns the version before; `None` also where nothing has changed that
    /// matters, which the second value tells.
    pub(crate) fn put(
        &mut self,
        mut record: PodRecord,
        registry: &mut Registry,
    ) -> (Option<PodRecord>, bool) {
        let wish = self.wishes.get(&record.workload.namespace).copied().unwrap_or_default();
        record.enrol(wish);
        let key = record.workload.key.clone();
        if let Some(old) = self.records.get(&key) {
            if *old == record {
                return (None, false);
            }
            if *old.workload == *record.workload {
                record.workload = old.workload.clone();
            }
        }
        let old = self.remove(&key, registry);
        self.index(&record);
        registry.workloads.insert(key.clone(), record.workload.clone());
        let addresses = if record.owns_addresses() { record.workload.addresses.clone() } else { Vec::new() };
        self.records.insert(key.clone(), record);
        for address in addresses {
            self.claim(address, &key, registry);
        }
        (old, true)
    }

    pub(crate) fn remove(&mut self, key: &str, registry: &mut Registry) -> Option<PodRecord> {
        let record = self.records.remove(key)?;
        registry.workloads.remove(key);
        if record.owns_addresses() {
            for address in &record.workload.addresses {
                self.release(*address, key, registry);
            }
        }
        if let Some(namespace) = self.namespaces.get_mut(&record.workload.namespace) {
            namespace.remove(&record.workload);
            if namespace.groups.is_empty() {
                self.namespaces.remove(&record.workload.namespace);
            }
        }
        Some(record)
    }

    fn index(&mut self, record: &PodRecord) {
        let workload = &record.workload;
        self.namespaces.entry(workload.namespace.clone()).or_default().add(workload);
    }

    fn claim(&mut self, address: IpAddr, key: &Arc<str>, registry: &mut Registry) {
        if let Some(holder) = registry.addresses.get(&address)
            && holder.key != *key
        {
            let holder = holder.key.clone();
            let claims = self.contested.entry(address).or_insert_with(|| vec![holder]);
            if !claims.contains(key) {
                claims.push(key.clone());
            }
            self.elect(address, registry);
            return;
        }
        if let Some(record) = self.records.get(key) {
            registry.addresses.insert(address, record.workload.clone());
        }
    }

    fn release(&mut self, address: IpAddr, key: &str, registry: &mut Registry) {
        let Some(claims) = self.contested.get_mut(&address) else {
            registry.addresses.remove(&address);
            return;
        };
        claims.retain(|claim| &**claim != key);
        self.elect(address, registry);
        if self.contested.get(&address).is_some_and(|claims| claims.len() < 2) {
            self.contested.remove(&address);
        }
    }

    /// All pods that claim an address as their own.
    pub(crate) fn claiming<'a>(
        &'a self,
        address: IpAddr,
        registry: &'a Registry,
    ) -> impl Iterator<Item = &'a Arc<str>> + use<'a> {
        let holder = registry.addresses.get(&address).map(|workload| &workload.key);
        let claims = self.contested.get(&address);
        claims.into_iter().flatten().chain(holder.filter(|_| claims.is_none()))
    }

    /// The youngest of several pods has an address: the others have not been seen to go yet.
    fn elect(&self, address: IpAddr, registry: &mut Registry) {
        let claims = self.contested.get(&address).into_iter().flatten();
        let records = claims.filter_map(|key| self.records.get(key));
        match records.max_by(|a, b| (&a.created, &a.workload.key).cmp(&(&b.created, &b.workload.key))) {
            Some(record) => drop(registry.addresses.insert(address, record.workload.clone())),
            None => drop(registry.addresses.remove(&address)),
        }
    }

    /// Takes a namespace's labels, or `None` for its end. Returns the pods whose enrolment changed.
    pub(crate) fn set_namespace(
        &mut self,
        namespace: &Arc<str>,
        labels: Option<&Labels>,
        registry: &mut Registry,
    ) -> Vec<Arc<Workload>> {
        let wish = labels.map(Wish::of_namespace).unwrap_or_default();
        let before = match labels {
            None => self.wishes.remove(namespace),
            Some(_) => self.wishes.insert(namespace.clone(), wish),
        };
        if before.unwrap_or_default() == wish {
            return Vec::new();
        }
        let mut changed = Vec::new();
        for key in self.namespaces.get(namespace).into_iter().flat_map(|pods| pods.groups.values()).flatten()
        {
            let Some(record) = self.records.get_mut(key) else { continue };
            if !record.enrol(wish) {
                continue;
            }
            let workload = record.workload.clone();
            registry.workloads.insert(key.clone(), workload.clone());
            for address in &workload.addresses {
                if registry.addresses.get(address).is_some_and(|holder| holder.key == workload.key) {
                    registry.addresses.insert(*address, workload.clone());
                }
            }
            changed.push(workload);
        }
        changed
    }

    /// All namespaces, and whether they opt in.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = (&str, bool)> {
        self.wishes.iter().map(|(name, wish)| (&**name, *wish == Wish::In))
    }

    /// The pods of a namespace that a selector selects, in no particular order.
    pub(crate) fn select<'a>(
        &'a self,
        namespace: &str,
        selector: &'a Selector,
    ) -> impl Iterator<Item = &'a PodRecord> + use<'a> {
        let pods = self.namespaces.get(namespace);
        let rarest = pods.and_then(|pods| {
            let sets = selector.hashes().map(|hash| pods.by_pair.get(&hash).map_or(&[][..], Vec::as_slice));
            sets.min_by_key(|sets| sets.len()).map(|sets| (pods, sets))
        });
        rarest.into_iter().flat_map(move |(pods, sets)| {
            let fitting = sets.iter().filter(|labels| selector.selects(labels));
            fitting
                .filter_map(|labels| pods.groups.get(labels))
                .flatten()
                .filter_map(|key| self.records.get(key))
        })
    }
}

impl NamespacePods {
    fn add(&mut self, workload: &Workload) {
        let labels = &workload.labels;
        if let Some(group) = self.groups.get_mut(labels) {
            group.push(workload.key.clone());
            return;
        }
        for (key, value) in labels.iter() {
            self.by_pair.entry(pair_hash(key, value)).or_default().push(labels.clone());
        }
        self.groups.insert(labels.clone(), vec![workload.key.clone()]);
    }

    fn remove(&mut self, workload: &Workload) {
        let labels = &workload.labels;
        let Some(group) = self.groups.get_mut(labels) else { return };
        group.retain(|key| *key != workload.key);
        if !group.is_empty() {
            return;
        }
        self.groups.remove(labels);
        for (key, value) in labels.iter() {
            let hash = pair_hash(key, value);
            if let Some(sets) = self.by_pair.get_mut(&hash) {
                sets.retain(|set| set != labels);
                if sets.is_empty() {
                    self.by_pair.remove(&hash);
                }
            }
        }
    }
}
