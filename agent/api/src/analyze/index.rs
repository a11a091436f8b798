//! What the files define, by name.

use std::collections::{HashMap, HashSet};

use super::Source;
use crate::delegate::Found;
use crate::delegate::room::{self, Bulk, Claim};
use crate::istio::{DestinationRule, Gateway, PeerAuthentication, VirtualService, gateway_key};
use crate::kubernetes::network_policy::NetworkPolicy;
use crate::kubernetes::{Pod, Service, ServicePort};
use crate::load::Loaded;
use crate::mesh_config::{self, ExtensionProvider};
use crate::names::namespace_opts_in;
use crate::object::Object;
use crate::settings::{self, HostOwnership};

/// The cluster's domain, which a file cannot tell.
const DOMAIN: &str = "svc.cluster.local";

/// What the files define.
pub(super) struct Index<'a> {
    /// By full host name.
    pub services: HashMap<String, &'a Service>,
    /// By full host name, with their places; oldest first.
    pub destination_rules: HashMap<String, Vec<(usize, &'a DestinationRule)>>,
    /// With their places; oldest first.
    pub virtual_services: Vec<(usize, &'a VirtualService)>,
    /// By `namespace/name`.
    pub rules: HashMap<String, &'a VirtualService>,
    /// `namespace/name` of those that others delegate to.
    pub delegated_to: HashSet<String>,
    /// Who delegates to whom without having room for it, as `namespace/name`.
    pub beyond: HashSet<(String, String)>,
    /// With their places; oldest first.
    pub peer_authentications: Vec<(usize, &'a PeerAuthentication)>,
    /// Of MeshConfig, where one is there.
    pub providers: Option<Vec<ExtensionProvider>>,
    /// `hostOwnership: namespace`.
    pub host_ownership: bool,
    /// By `namespace/name`.
    pub gateways: HashMap<String, &'a Gateway>,
    /// With their places, by namespace.
    pub network_policies: HashMap<&'a str, Vec<(usize, &'a NetworkPolicy)>>,
    /// By name, whether a namespace is in the mesh.
    pub namespaces: HashMap<&'a str, bool>,
    /// By namespace.
    pub pods: HashMap<&'a str, Vec<&'a Pod>>,
    /// Whether there are kinds that define hosts and that weft does not read yet.
    pub other_hosts: bool,
    /// Whether there are EndpointSlices.
    pub slices: bool,
}

/// Expands a name without a dot.
pub(super) fn full_host(host: &str, namespace: &str) -> String {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if host.contains('.') || host == "*" { host } else { format!("{host}.{namespace}.{DOMAIN}") }
}

impl<'a> Index<'a> {
    pub fn of(sources: &[Source<'a>], loaded: &[Loaded]) -> Self {
        let mut index = Self {
            services: HashMap::new(),
            destination_rules: HashMap::new(),
            virtual_services: Vec::new(),
            rules: HashMap::new(),
            delegated_to: HashSet::new(),
            beyond: HashSet::new(),
            peer_authentications: Vec::new(),
            providers: None,
            host_ownership: false,
            gateways: HashMap::new(),
            network_policies: HashMap::new(),
            namespaces: HashMap::new(),
            pods: HashMap::new(),
            other_hosts: loaded
                .iter()
                .flat_map(|l| &l.ignored)
                .any(|i| matches!(&*i.kind, "ServiceEntry" | "WorkloadEntry")),
            slices: false,
        };
        for (at, source) in sources.iter().enumerate() {
            let meta = source.loaded.object.metadata();
            match &source.loaded.object {
                Object::Service(o) => {
                    index.services.insert(full_host(&meta.name, &meta.namespace), o);
                }
                Object::DestinationRule(o) => {
                    let host = full_host(&o.spec.host, &meta.namespace);
                    index.destination_rules.entry(host).or_default().push((at, o));
                }
                Object::VirtualService(o) => {
                    index.virtual_services.push((at, o));
                    index.rules.insert(format!("{}/{}", meta.namespace, meta.name), o);
                }
                Object::Pod(o) => index.pods.entry(&meta.namespace).or_default().push(o),
                Object::EndpointSlice(_) => index.slices = true,
                Object::PeerAuthentication(o) => index.peer_authentications.push((at, o)),
                Object::ConfigMap(o) => {
                    if let Some(config) = mesh_config::read(o).and_then(|read| read.config) {
                        index.providers = Some(config.extension_providers);
                    }
                    if let Ok(Some(settings)) = settings::read(o) {
                        index.host_ownership = settings.host_ownership == HostOwnership::Namespace;
                    }
                }
                Object::NetworkPolicy(o) => {
                    index.network_policies.entry(&meta.namespace).or_default().push((at, o));
                }
                Object::Namespace(_) => {
                    let is_in = namespace_opts_in(&meta.labels).unwrap_or(false);
                    index.namespaces.insert(&meta.name, is_in);
                }
                Object::Gateway(o) => {
                    index.gateways.insert(format!("{}/{}", meta.namespace, meta.name), o);
                }
                Object::AuthorizationPolicy(_) | Object::RequestAuthentication(_) | Object::Secret(_) => {}
            }
        }
        index.virtual_services.sort_by(|(_, a), (_, b)| age(a).cmp(&age(b)));
        index.peer_authentications.sort_by(|(_, a), (_, b)| age(a).cmp(&age(b)));
        for rules in index.destination_rules.values_mut() {
            rules.sort_by(|(_, a), (_, b)| age(a).cmp(&age(b)));
        }
        index.read_delegates();
        index
    }

    fn read_delegates(&mut self) {
        let mut bulks: HashMap<String, Bulk> = HashMap::new();
        let (mut all, mut delegated_to) = (Vec::new(), HashSet::new());
        for (_, object) in &self.virtual_services {
            let meta = &object.metadata;
            let mut of_one = Vec::new();
            for (key, bulk) in Bulk::of_roots(object) {
                if let Found::Delegate(to) = self.delegate(&key, &meta.namespace) {
                    let bytes = bulk.with(bulks.entry(key.clone()).or_insert_with(|| Bulk::of(to)));
                    of_one.push((format!("{}/{}", meta.namespace, meta.name), key.clone(), bytes));
                }
                delegated_to.insert(key);
            }
            of_one.sort_unstable();
            all.append(&mut of_one);
        }
        let claims = all.iter().map(|(root, delegate, bytes)| Claim { root, delegate, bytes: *bytes });
        let beyond = room::beyond(claims).into_iter();
        self.delegated_to = delegated_to;
        self.beyond = beyond.map(|(root, delegate)| (root.to_owned(), delegate.to_owned())).collect();
    }

    /// What a VirtualService, as `namespace/name`, is as a delegate, for those of a namespace.
    pub fn delegate(&self, key: &str, namespace: &str) -> Found<'a> {
        Found::of(self.rules.get(key).copied(), |other| {
            seen_from((&other.metadata.namespace, &other.spec.export_to), namespace)
        })
    }

    /// The namespaces of the pods that serve a Gateway as a VirtualService of `own` names it. Where none of its pods is in
    /// the files, they are taken to be beside the Gateway.
    pub fn gateway_namespaces(&self, name: &str, own: &str) -> Vec<String> {
        let key = gateway_key(name, own);
        let beside = key.split('/').next().unwrap_or_default().to_owned();
        let Some(gateway) = self.gateways.get(&key) else { return vec![beside] };
        let fits = |pod: &&Pod| {
            gateway.spec.selector.iter().all(|(key, value)| pod.metadata.labels.get(key) == Some(value))
        };
        let pods = self.pods.iter().filter(|(_, pods)| pods.iter().copied().any(|pod| fits(&pod)));
        let mut namespaces: Vec<String> = pods.map(|(namespace, _)| (*namespace).to_owned()).collect();
        namespaces.sort_unstable();
        if namespaces.is_empty() { vec![beside] } else { namespaces }
    }

    /// The pods that a service selects; `None` when the files cannot tell.
    pub fn pods_of(&self, service: &Service) -> Option<Vec<&'a Pod>> {
        let selector = &service.spec.selector;
        if selector.is_empty() || self.slices {
            return None;
        }
        let pods = self.pods.get(service.metadata.namespace.as_str())?;
        let selected =
            |pod: &&&Pod| selector.iter().all(|(key, value)| pod.metadata.labels.get(key) == Some(value));
        Some(pods.iter().filter(selected).copied().collect())
    }
}

/// Whether an object of a namespace with this `exportTo` is seen from another.
pub(super) fn seen_from((own, to): (&str, &[String]), namespace: &str) -> bool {
    to.is_empty() || to.iter().any(|to| to == "*" || to == namespace || (to == "." && own == namespace))
}

/// Sorts the oldest first; then by name, then by namespace.
fn age<S>(resource: &crate::meta::Resource<S>) -> (&str, &str, &str) {
    let meta = &resource.metadata;
    (&meta.creation_timestamp, &meta.name, &meta.namespace)
}

/// What a port speaks, by its declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http,
    Tls,
    Tcp,
    /// Not declared: found out from the first bytes.
    Detect,
}

/// Reads a port's declaration: `appProtocol` before the name's first part.
pub(super) fn protocol(port: &ServicePort) -> Protocol {
    let declared = match port.app_protocol.as_deref() {
        Some(app) => app.strip_prefix("kubernetes.io/").unwrap_or(app),
        None => port.name.as_str(),
    };
    let declared = declared.to_ascii_lowercase();
    let first =
        if declared.starts_with("grpc-web") { "grpc" } else { declared.split('-').next().unwrap_or("") };
    match first {
        "http" | "http2" | "grpc" | "h2c" | "ws" => Protocol::Http,
        "https" | "tls" | "wss" => Protocol::Tls,
        "tcp" | "udp" | "mongo" | "mysql" | "redis" => Protocol::Tcp,
        _ => Protocol::Detect,
    }
}
