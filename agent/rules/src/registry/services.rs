//! Services and EndpointSlices as the compiler keeps them, and who depends on what.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

use weft_api::kubernetes::{EndpointSlice, IntOrString, Service as ServiceObject, ServicePort};
use weft_api::meta::Labels;

use crate::intern::Interner;
use crate::registry::host::HostPort;
use crate::registry::pods::pair_hash;
use crate::registry::protocol;
use crate::shard::{Hasher, Map};
use crate::upstream::cluster::Service;
use crate::workload::Workload;

/// The labels that a service asks of its pods; never empty. A map would take ten times the room.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selector(Box<[(Arc<str>, Arc<str>)]>);

impl Selector {
    fn compile(labels: &Labels, intern: &mut Interner) -> Option<Self> {
        let pairs = labels.iter().map(|(key, value)| (intern.text(key), intern.text(value)));
        (!labels.is_empty()).then(|| Self(pairs.collect()))
    }

    pub(crate) fn selects(&self, labels: &Labels) -> bool {
        self.0.iter().all(|(key, value)| labels.get(&**key).is_some_and(|has| **has == **value))
    }

    /// The hash of each of its labels.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|(key, value)| pair_hash(key, value))
    }
}

/// What is kept of a Service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ServiceRecord {
    pub(crate) service: Arc<Service>,
    pub(crate) addressing: Addressing,
    pub(crate) ports: Box<[LeanPort]>,
    pub(crate) selector: Option<Selector>,
    pub(crate) publish_not_ready: bool,
    /// `networking.istio.io/exportTo`, split; empty where the annotation is absent.
    pub(crate) export_to: Box<[String]>,
}

/// How a service is reached.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Addressing {
    /// By addresses of its own; none before one is assigned.
    Addressed(Box<[IpAddr]>),
    /// By its endpoints' addresses.
    Headless,
    /// It is another name.
    External(Arc<str>),
}

/// A TCP port of a service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LeanPort {
    pub(crate) entry: HostPort,
    pub(crate) target: Target,
}

/// A service port's port on its pods.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Number(u16),
    Named(Arc<str>),
}

impl Target {
    fn of(port: &ServicePort, intern: &mut Interner) -> Self {
        match &port.target_port {
            None | Some(IntOrString::Int(0)) => Self::Number(port.port),
            Some(IntOrString::Int(number)) => Self::Number(*number),
            Some(IntOrString::String(text)) => match text.parse() {
                Ok(number) => Self::Number(number),
                Err(_) => Self::Named(intern.text(text)),
            },
        }
    }

    /// The port on a pod with these named ports; `None`: it has none of that name.
    pub(crate) fn on(&self, named: &[(Arc<str>, u16)]) -> Option<u16> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Named(name) => named.iter().find(|(other, _)| other == name).map(|(_, number)| *number),
        }
    }
}

/// The annotation by which a Service hides itself.
const EXPORT_TO: &str = "networking.istio.io/exportTo";

/// `name.namespace.svc.domain`.
pub(crate) fn full_name(name: &str, namespace: &str, domain: &str) -> String {
    format!("{name}.{namespace}.svc.{domain}")
}

impl ServiceRecord {
    pub(crate) fn compile(object: &ServiceObject, domain: &str, intern: &mut Interner) -> Self {
        let (meta, spec) = (&object.metadata, &object.spec);
        let service = Service {
            host: intern.text(&full_name(&meta.name, &meta.namespace, domain)),
            name: intern.text(&meta.name),
            namespace: intern.text(&meta.namespace),
        };
        let addressing = if spec.type_ == "ExternalName" {
            let name = spec.external_name.trim_end_matches('.').to_ascii_lowercase();
            Addressing::External(intern.text(&name))
        } else if spec.cluster_ip == "None" {
            Addressing::Headless
        } else {
            let mut addresses = Vec::new();
            for text in std::iter::once(&spec.cluster_ip).chain(&spec.cluster_ips) {
                if let Ok(address) = text.parse::<IpAddr>()
                    && !addresses.contains(&address)
                {
                    addresses.push(address);
                }
            }
            Addressing::Addressed(addresses.into())
        };
        let tcp = spec.ports.iter().filter(|port| port.protocol.is_empty() || port.protocol == "TCP");
        let lean = tcp.map(|port| {
            let protocol::Declared { protocol, is_tls } = protocol::declared(port);
            let (number, node_port, name) = (port.port, port.node_port, intern.text(&port.name));
            let entry = HostPort { port: number, node_port, protocol, is_tls, name };
            LeanPort { entry, target: Target::of(port, intern) }
        });
        let ports = lean.collect();
        let export_to = meta.annotations.get(EXPORT_TO).map(|list| list.split(',').map(str::trim));
        Self {
            service: Arc::new(service),
            addressing,
            ports,
            selector: Selector::compile(&spec.selector, intern),
            publish_not_ready: spec.publish_not_ready_addresses,
            export_to: export_to
                .into_iter()
                .flatten()
                .filter(|entry| !entry.is_empty())
                .map(str::to_owned)
                .collect(),
        }
    }

    /// Whether endpoints of IPv6 are wanted where both families are there; `None`: no matter.
    pub(crate) fn prefers_v6(&self) -> Option<bool> {
        match &self.addressing {
            Addressing::Addressed(addresses) => addresses.first().map(IpAddr::is_ipv6),
            _ => None,
        }
    }
}

/// What is kept of an EndpointSlice.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SliceRecord {
    /// Full name of its Service.
    pub(crate) host: Arc<str>,
    pub(crate) v6: bool,
    /// By the Service port's name; without a number, the Service's own target holds.
    pub(crate) ports: Box<[(Arc<str>, Option<u16>)]>,
    pub(crate) endpoints: Box<[SliceEndpoint]>,
}

/// One endpoint of a slice.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SliceEndpoint {
    pub(crate) address: IpAddr,
    /// `namespace/name` of the pod, where the slice says.
    pub(crate) pod: Option<Arc<str>>,
    pub(crate) ready: bool,
}

impl SliceRecord {
    /// `None`: the slice belongs to no Service, or holds no addresses.
    pub(crate) fn compile(slice: &EndpointSlice, domain: &str, intern: &mut Interner) -> Option<Self> {
        let meta = &slice.metadata;
        let service = meta.labels.get("kubernetes.io/service-name").filter(|name| !name.is_empty())?;
        if slice.address_type == "FQDN" {
            return None;
        }
        let tcp = slice
            .ports
            .iter()
            .filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
        let ports =
            tcp.map(|port| (intern.text(port.name.as_deref().unwrap_or_default()), port.port)).collect();
        let endpoints = slice.endpoints.iter().filter_map(|endpoint| {
            let pod = endpoint.target_ref.as_ref().filter(|target| target.kind == "Pod").map(|target| {
                let namespace = if target.namespace.is_empty() { &meta.namespace } else { &target.namespace };
                intern.text(&format!("{namespace}/{}", target.name))
            });
            Some(SliceEndpoint {
                address: endpoint.addresses.first()?.parse().ok()?,
                pod,
                ready: endpoint.conditions.ready.unwrap_or(true),
            })
        });
        let endpoints: Box<[SliceEndpoint]> = endpoints.collect();
        Some(Self {
            host: intern.text(&full_name(service, &meta.namespace, domain)),
            v6: endpoints.first().map_or(slice.address_type == "IPv6", |endpoint| endpoint.address.is_ipv6()),
            ports,
            endpoints,
        })
    }
}

/// All Services and EndpointSlices, with the indexes that tell what a change touches.
#[derive(Debug, Default)]
pub(crate) struct Services {
    records: Map<Arc<str>, ServiceRecord>,
    slices: Map<Arc<str>, SliceRecord>,
    slices_of: Map<Arc<str>, Vec<Arc<str>>>,
    /// Services by namespace and the hash of their selector's first label.
    selectors: Map<Arc<str>, Map<u64, Vec<Arc<str>>>>,
    /// Services by the hash of the pods and addresses that their slices name.
    references: Map<u64, References>,
}

/// Nearly always one service.
#[derive(Debug)]
enum References {
    One(Arc<str>),
    Many(Vec<Arc<str>>),
}

impl Services {
    pub(crate) fn get(&self, host: &str) -> Option<&ServiceRecord> {
        self.records.get(host)
    }

    pub(crate) fn hosts(&self) -> impl Iterator<Item = &Arc<str>> {
        self.records.keys()
    }

    /// The slices of a service, by their names.
    pub(crate) fn slices_of<'a>(&'a self, host: &str) -> impl Iterator<Item = &'a SliceRecord> + use<'a> {
        let keys = self.slices_of.get(host);
        keys.into_iter().flatten().filter_map(|key| self.slices.get(key))
    }

    pub(crate) fn slice(&self, key: &str) -> Option<&SliceRecord> {
        self.slices.get(key)
    }

    /// Takes a new version of a service. False: it is as it was.
    pub(crate) fn put(&mut self, record: ServiceRecord) -> bool {
        let host = record.service.host.clone();
        if self.records.get(&host) == Some(&record) {
            return false;
        }
        self.remove(&host);
        if let Some(hash) = record.selector.as_ref().and_then(|selector| selector.hashes().next()) {
            let of_namespace = self.selectors.entry(record.service.namespace.clone()).or_default();
            of_namespace.entry(hash).or_default().push(host.clone());
        }
        self.records.insert(host, record);
        true
    }

    pub(crate) fn remove(&mut self, host: &str) -> Option<ServiceRecord> {
        let record = self.records.remove(host)?;
        if let Some(hash) = record.selector.as_ref().and_then(|selector| selector.hashes().next())
            && let Some(of_namespace) = self.selectors.get_mut(&record.service.namespace)
            && let Some(hosts) = of_namespace.get_mut(&hash)
        {
            hosts.retain(|other| **other != *host);
            if hosts.is_empty() {
                of_namespace.remove(&hash);
            }
        }
        Some(record)
    }

    /// Takes a new version of a slice, or `None` for its end. Returns the services that it touches.
    pub(crate) fn put_slice(&mut self, key: Arc<str>, slice: Option<SliceRecord>) -> [Option<Arc<str>>; 2] {
        if slice.is_some() && self.slices.get(&key) == slice.as_ref() {
            return [None, None];
        }
        let old = self.slices.remove(&key);
        let old_host = old.map(|old| {
            self.refer(&old, false);
            if let Some(keys) = self.slices_of.get_mut(&old.host) {
                keys.retain(|other| *other != key);
                if keys.is_empty() {
                    self.slices_of.remove(&old.host);
                }
            }
            old.host
        });
        let new_host = slice.map(|slice| {
            self.refer(&slice, true);
            let keys = self.slices_of.entry(slice.host.clone()).or_default();
            let at = keys.partition_point(|other| *other < key);
            keys.insert(at, key.clone());
            let host = slice.host.clone();
            self.slices.insert(key, slice);
            host
        });
        [old_host, new_host]
    }

    fn refer(&mut self, slice: &SliceRecord, add: bool) {
        for endpoint in &slice.endpoints {
            let hash = match &endpoint.pod {
                Some(pod) => pod_hash(pod),
                None => address_hash(endpoint.address),
            };
            if add {
                self.references
                    .entry(hash)
                    .and_modify(|references| references.add(&slice.host))
                    .or_insert_with(|| References::One(slice.host.clone()));
            } else if self.references.get_mut(&hash).is_some_and(|references| references.remove(&slice.host))
            {
                self.references.remove(&hash);
            }
        }
    }

    /// Calls `touch` with each service that this pod may be an endpoint of.
    pub(crate) fn touched_by(&self, workload: &Workload, mut touch: impl FnMut(&Arc<str>)) {
        if let Some(of_namespace) = self.selectors.get(&workload.namespace) {
            let candidates =
                workload.labels.iter().filter_map(|(key, value)| of_namespace.get(&pair_hash(key, value)));
            for host in candidates.flatten() {
                let selector = self.records.get(host).and_then(|record| record.selector.as_ref());
                if selector.is_some_and(|selector| selector.selects(&workload.labels)) {
                    touch(host);
                }
            }
        }
        let addresses = workload.addresses.iter().map(|address| address_hash(*address));
        for hash in std::iter::once(pod_hash(&workload.key)).chain(addresses) {
            match self.references.get(&hash) {
                Some(References::One(host)) => touch(host),
                Some(References::Many(hosts)) => hosts.iter().for_each(&mut touch),
                None => {}
            }
        }
    }
}

impl References {
    fn add(&mut self, host: &Arc<str>) {
        match self {
            Self::One(one) => *self = Self::Many(vec![one.clone(), host.clone()]),
            Self::Many(many) => many.push(host.clone()),
        }
    }

    /// Takes one reference of this service away; true if none is left.
    fn remove(&mut self, host: &str) -> bool {
        match self {
            Self::One(one) => **one == *host,
            Self::Many(many) => {
                if let Some(at) = many.iter().position(|other| **other == *host) {
                    many.swap_remove(at);
                }
                many.is_empty()
            }
        }
    }
}

fn pod_hash(key: &str) -> u64 {
    Hasher::default().hash_one(key)
}

fn address_hash(address: IpAddr) -> u64 {
    Hasher::default().hash_one(address)
}
