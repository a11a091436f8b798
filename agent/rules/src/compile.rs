//! Objects in, snapshot out; a change recompiles only what depends on it.
//!
//! A VirtualService becomes an entry in the host tables and touches nothing else: destinations are resolved when a
//! request takes them. A Service is compiled with its endpoints and with the DestinationRules for its host, so a
//! change of any of these compiles that service again, and no other.

use std::sync::Arc;

use weft_api::istio::DestinationRule;
use weft_api::kinds::Kind;
use weft_api::kubernetes::ConfigMap;
use weft_api::meta::{Labels, ObjectKey};
use weft_api::object::Object;

use crate::compile::policy::PolicyRecord;
use crate::intern::Interner;
use crate::mesh::MeshSettings;
use crate::registry::host::Host;
use crate::registry::hostname::{self, HostPattern};
use crate::registry::pod::PodRecord;
use crate::registry::pods::Pods;
use crate::registry::protocol::Protocol;
use crate::registry::services::{self, ServiceRecord, Services, SliceRecord};
use crate::shard::{Map, Set};
use crate::snapshot::Snapshot;
use crate::workload::Workload;

mod gateway;
mod intake;
mod policy;
mod prepare;
mod security;
mod service;
mod virtual_services;

pub use intake::{Done, Intake, Job};
pub use prepare::{Prepared, Unprepared};

use gateway::Gateways;
use security::Security;
use service::PolicyTable;
use virtual_services::{VirtualServices, oldest_first};

/// What stands outside the objects.
#[derive(Debug, Clone)]
pub struct CompilerOptions {
    /// Name of this node.
    pub node: String,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// `istio-system`.
    pub root_namespace: String,
    /// `cluster.local`, of SPIFFE names; MeshConfig may say otherwise.
    pub trust_domain: String,
    /// Objects come from a cluster, not from files. In files a pod without `spec.nodeName` runs here, its annotation
    /// names its network namespace, and labels say which pods of other nodes are in the mesh. In a cluster such a pod
    /// runs nowhere yet, a pod's owner is not believed about namespaces, and a pod of another node is in the mesh when
    /// its condition `weft.dev/Enrolled` says so.
    pub cluster: bool,
}

/// A change of one object. An object that is not valid never gets here.
#[derive(Debug, Clone)]
pub enum Change {
    /// Added, or changed.
    Put(Object),
    /// Gone.
    Delete(ObjectKey),
}

/// Holds the objects and what was compiled from each.
#[derive(Debug)]
pub struct Compiler {
    options: CompilerOptions,
    intern: Interner,
    /// ConfigMaps that may hold MeshConfig, by name.
    config_maps: Map<String, Arc<ConfigMap>>,
    pods: Pods,
    services: Services,
    virtual_services: VirtualServices,
    policies: Map<Arc<str>, Arc<PolicyRecord>>,
    /// DestinationRules by exact host, oldest first.
    exact_policies: PolicyTable,
    /// DestinationRules by what follows `*.`, oldest first.
    wildcard_policies: PolicyTable,
    security: Security,
    gateways: Gateways,
    /// Addresses under which a service is entered in the snapshot.
    claims: Map<Arc<str>, Box<[std::net::IpAddr]>>,
    /// Names of default routes and the like.
    default_name: Arc<str>,
    /// Services to compile before the next publication.
    dirty: Set<Arc<str>>,
    mesh_changed: bool,
    snapshot: Snapshot,
}

/// Names of the ConfigMap that holds MeshConfig, the one that wins first.
const MESH_CONFIG_MAPS: [&str; 2] = ["weft", "istio"];

impl Compiler {
    /// An empty world.
    pub fn new(options: CompilerOptions) -> Self {
        let snapshot = Snapshot {
            node: options.node.as_str().into(),
            root_namespace: options.root_namespace.as_str().into(),
            mesh: Arc::new(MeshSettings::read(&[], &options).unwrap_or_default()),
            ..Snapshot::default()
        };
        Self {
            options,
            intern: Interner::default(),
            config_maps: Map::default(),
            pods: Pods::default(),
            services: Services::default(),
            virtual_services: VirtualServices::default(),
            policies: Map::default(),
            exact_policies: Map::default(),
            wildcard_policies: Map::default(),
            security: Security::default(),
            gateways: Gateways::default(),
            claims: Map::default(),
            default_name: "default".into(),
            dirty: Set::default(),
            mesh_changed: false,
            snapshot,
        }
    }

    /// Every Namespace object that there is, and whether its labels opt in.
    pub fn namespaces(&self) -> impl Iterator<Item = (&str, bool)> {
        self.pods.namespaces()
    }

    /// Applies changes, all at once, and returns the snapshot after them. Never panics.
    pub fn apply(&mut self, changes: Vec<Change>) -> Arc<Snapshot> {
        self.take_in(changes);
        self.compile()
    }

    /// Takes note of changes that the next [`Self::apply`] applies with its own. Never panics.
    pub fn take_in(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Put(object) => self.put(object),
                Change::Delete(key) => self.delete(&key),
            }
        }
    }

    fn compile(&mut self) -> Arc<Snapshot> {
        if std::mem::take(&mut self.mesh_changed) {
            self.reload_mesh();
        }
        self.compile_virtual_services();
        for host in std::mem::take(&mut self.dirty) {
            self.compile_service(&host);
        }
        self.compile_entrances();
        self.compile_gateways();
        self.intern.sweep();
        self.snapshot.generation += 1;
        Arc::new(self.snapshot.clone())
    }

    fn put(&mut self, object: Object) {
        match object {
            Object::Namespace(namespace) => {
                self.set_namespace(&namespace.metadata.name, Some(&namespace.metadata.labels));
            }
            Object::Pod(pod) => {
                let record = PodRecord::compile(&pod, &self.options, &mut self.intern);
                let workload = record.workload.clone();
                let (old, changed) = self.pods.put(record, &mut self.snapshot.registry);
                if let Some(old) = old {
                    self.touch_services_of(&old.workload);
                    // It may have been a gateway.
                    self.touch_gateways_for(&old.workload);
                }
                if changed {
                    self.touch_services_of(&workload);
                    self.touch_entrance(&workload);
                    self.touch_gateways_for(&workload);
                }
            }
            Object::Service(service) => {
                let record = ServiceRecord::compile(&service, &self.options.cluster_domain, &mut self.intern);
                let host = record.service.host.clone();
                self.touch_entrances_behind(&host);
                if self.services.put(record) {
                    self.touch_entrances_behind(&host);
                    self.dirty.insert(host);
                    self.touch_gateways();
                }
            }
            Object::EndpointSlice(slice) => {
                let key = slice_key(&slice.metadata.namespace, &slice.metadata.name);
                let record = SliceRecord::compile(&slice, &self.options.cluster_domain, &mut self.intern);
                self.put_slice(&key, record);
            }
            Object::ConfigMap(config_map) => {
                let meta = &config_map.metadata;
                if self.may_hold_mesh_config(&meta.namespace, &meta.name) {
                    self.config_maps.insert(meta.name.clone(), config_map);
                    self.mesh_changed = true;
                }
            }
            // The network's own business; and keys, which rules have nothing to do with.
            Object::NetworkPolicy(_) | Object::Secret(_) => {}
            Object::VirtualService(object) => self.put_virtual_service(&object),
            Object::DestinationRule(object) => self.put_policy(&object),
            Object::Gateway(object) => self.put_gateway(&object),
            Object::PeerAuthentication(object) => self.put_peer_authentication(&object),
            Object::AuthorizationPolicy(object) => self.put_authorization(&object),
            Object::RequestAuthentication(object) => self.put_request_authentication(&object),
        }
    }

    fn delete(&mut self, key: &ObjectKey) {
        let full = format!("{}/{}", key.namespace, key.name);
        let Some(kind) = key.known_kind() else { return };
        match kind {
            Kind::Namespace => self.set_namespace(&key.name, None),
            Kind::Pod => {
                if let Some(old) = self.pods.remove(&full, &mut self.snapshot.registry) {
                    self.touch_services_of(&old.workload);
                    self.touch_entrance(&old.workload);
                    self.touch_gateways_for(&old.workload);
                }
            }
            Kind::Service => {
                let host = services::full_name(&key.name, &key.namespace, &self.options.cluster_domain);
                self.touch_entrances_behind(&host);
                if let Some(old) = self.services.remove(&host) {
                    self.dirty.insert(old.service.host.clone());
                    self.touch_gateways();
                }
            }
            Kind::EndpointSlice => self.put_slice(&slice_key(&key.namespace, &key.name), None),
            Kind::ConfigMap if self.may_hold_mesh_config(&key.namespace, &key.name) => {
                self.mesh_changed |= self.config_maps.remove(&*key.name).is_some();
            }
            Kind::VirtualService => self.delete_virtual_service(&full),
            Kind::DestinationRule => {
                if let Some(record) = self.policies.remove(&*full) {
                    self.list_policy(&record, false);
                }
            }
            Kind::Gateway => self.delete_gateway(&full),
            Kind::PeerAuthentication => self.delete_peer_authentication(&key.namespace, &full),
            Kind::RequestAuthentication => self.delete_request_authentication(&key.namespace, &full),
            Kind::AuthorizationPolicy => self.delete_authorization(&key.namespace, &full),
            // The network's own business, keys, and ConfigMaps of others.
            Kind::NetworkPolicy | Kind::Secret | Kind::ConfigMap => {}
        }
    }

    fn may_hold_mesh_config(&self, namespace: &str, name: &str) -> bool {
        namespace == self.options.root_namespace && MESH_CONFIG_MAPS.contains(&name)
    }

    fn set_namespace(&mut self, name: &str, labels: Option<&Labels>) {
        let name = self.intern.text(name);
        for workload in self.pods.set_namespace(&name, labels, &mut self.snapshot.registry) {
            self.touch_services_of(&workload);
            self.touch_gateways_for(&workload);
        }
    }

    fn touch_services_of(&mut self, workload: &Workload) {
        let dirty = &mut self.dirty;
        self.services.touched_by(workload, |host| {
            dirty.insert(host.clone());
        });
    }

    fn put_slice(&mut self, key: &str, record: Option<SliceRecord>) {
        if let Some(old) = self.services.slice(key).map(|old| old.host.clone()) {
            self.touch_entrances_named_for(&old);
        }
        let mut of_gateways = self.hosts_of_gateways();
        let touched = self.services.put_slice(key.into(), record);
        of_gateways.extend(self.hosts_of_gateways());
        for host in touched.into_iter().flatten() {
            if of_gateways.contains(&host) {
                self.touch_gateways();
            }
            self.touch_entrances_named_for(&host);
            self.dirty.insert(host);
        }
    }

    fn put_policy(&mut self, object: &Arc<DestinationRule>) {
        let record = Arc::new(PolicyRecord::compile(object, &self.snapshot.mesh, &mut self.intern));
        if let Some(old) = self.policies.insert(record.key.clone(), record.clone()) {
            self.list_policy(&old, false);
        }
        self.list_policy(&record, true);
    }

    fn list_policy(&mut self, record: &Arc<PolicyRecord>, add: bool) {
        let (table, name) = match &record.pattern {
            HostPattern::Exact(name) => (&mut self.exact_policies, name),
            HostPattern::Below(suffix) => (&mut self.wildcard_policies, suffix),
        };
        let list = table.entry(name.clone()).or_default();
        list.retain(|other| other.key != record.key);
        if add {
            let at = list.partition_point(|other| other.age < record.age);
            list.insert(at, record.clone());
        }
        if list.is_empty() {
            table.remove(name);
        }
        match &record.pattern {
            HostPattern::Exact(name) => drop(self.dirty.insert(name.clone())),
            HostPattern::Below(suffix) => {
                let below = |name: &&Arc<str>| hostname::is_below(name, suffix);
                self.dirty.extend(self.services.hosts().filter(below).cloned());
            }
        }
    }

    /// MeshConfig is read by everything: all is compiled anew.
    fn reload_mesh(&mut self) {
        let maps = MESH_CONFIG_MAPS.iter().filter_map(|name| self.config_maps.get(*name));
        let maps: Vec<&ConfigMap> = maps.map(|map| &**map).collect();
        let mesh = MeshSettings::read(&maps, &self.options);
        let Some(mesh) = mesh.filter(|mesh| *mesh != *self.snapshot.mesh) else { return };
        self.snapshot.mesh = Arc::new(mesh);
        self.reload_virtual_services();
        let policies: Vec<_> = self.policies.values().map(|record| record.rule.clone()).collect();
        for object in policies {
            self.put_policy(&object);
        }
        self.reload_security();
        self.dirty.extend(self.services.hosts().cloned());
    }

    fn compile_service(&mut self, host: &Arc<str>) {
        let old = self.snapshot.registry.hosts.get(host).cloned();
        let (entry, addresses) = match self.services.get(host) {
            Some(record) => {
                let parts = service::Parts {
                    record,
                    root_namespace: &self.options.root_namespace,
                    services: &self.services,
                    pods: &self.pods,
                    exact_policies: &self.exact_policies,
                    wildcard_policies: &self.wildcard_policies,
                    snapshot: &self.snapshot,
                    old: old.as_deref(),
                };
                let (entry, addresses) = parts.build(&self.default_name, &mut self.intern);
                (Some(Arc::new(entry)), addresses)
            }
            None => (None, Vec::new()),
        };
        self.count_ports(old.as_deref(), entry.as_deref());
        self.claim(host, addresses);
        match entry {
            Some(entry) => drop(self.snapshot.registry.hosts.insert(host.clone(), entry)),
            None => drop(self.snapshot.registry.hosts.remove(host)),
        }
    }

    fn count_ports(&mut self, old: Option<&Host>, new: Option<&Host>) {
        let http = |entry: Option<&Host>| -> Vec<u16> {
            let ports = entry.into_iter().flat_map(|entry| &entry.ports);
            ports.filter(|port| port.protocol != Protocol::Tcp).map(|port| port.port).collect()
        };
        let (old, new) = (http(old), http(new));
        if old == new {
            return;
        }
        let index = Arc::make_mut(&mut self.snapshot.registry.http_ports);
        for port in new {
            index.add(port);
        }
        for port in old {
            index.remove(port);
        }
    }

    /// Enters the service under these addresses, and under no others.
    fn claim(&mut self, host: &Arc<str>, addresses: Vec<std::net::IpAddr>) {
        let addresses: Box<[_]> = addresses.into();
        let old = self.claims.get(host).map_or(&[][..], |old| &**old);
        if *old == *addresses {
            return;
        }
        let old: Vec<_> = old.to_vec();
        for address in old.iter().filter(|address| !addresses.contains(address)) {
            self.set_owner(*address, host, false);
        }
        for address in addresses.iter().filter(|address| !old.contains(address)) {
            self.set_owner(*address, host, true);
        }
        if addresses.is_empty() {
            self.claims.remove(host);
        } else {
            self.claims.insert(host.clone(), addresses);
        }
    }

    fn set_owner(&mut self, address: std::net::IpAddr, host: &Arc<str>, add: bool) {
        let vips = &mut self.snapshot.registry.owners;
        let mut owners: Vec<Arc<str>> = vips.get(&address).map(|owners| owners.to_vec()).unwrap_or_default();
        owners.retain(|owner| owner != host);
        if add {
            owners.push(host.clone());
            // An address of a service's own before that of an endpoint.
            let headless = |host: &str| {
                self.services
                    .get(host)
                    .is_some_and(|record| record.addressing == services::Addressing::Headless)
            };
            owners.sort_by(|a, b| (headless(a), a).cmp(&(headless(b), b)));
        }
        if owners.is_empty() {
            vips.remove(&address);
        } else {
            vips.insert(address, owners.into());
        }
    }
}

fn slice_key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}
