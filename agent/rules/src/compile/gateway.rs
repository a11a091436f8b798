//! From Gateways, the VirtualServices bound to them and the gateway pods of this node to what each pod serves.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_api::istio::{Gateway, GatewayServer, HttpRedirect, ServerProtocol, ServerTlsMode, Termination};

use crate::compile::{Compiler, oldest_first};
use crate::registry::hostname::{self, HostPattern};
use crate::route::gateway::{
    Behind, GatewayPods, GatewayPort, GatewayProtocol, Serves, TlsServers, Unserved, VirtualHosts, Wanted,
    common,
};
use crate::route::http_route::{HttpAction, HttpRoute, Redirect};
use crate::route::matching::is_subset;
use crate::route::virtual_service::{RuleList, Rules};
use crate::shard::{Map, Set};
use crate::workload::{Enrolment, Workload};

/// Servers that are named for each port that they do not get.
const MOST_UNSERVED: usize = 32;

/// All Gateways.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    objects: BTreeMap<Arc<str>, Arc<Gateway>>,
    /// Something changed on which gateway pods may depend.
    dirty: bool,
}

/// A server of a Gateway.
struct Server<'a> {
    gateway: &'a Arc<str>,
    namespace: &'a str,
    index: usize,
    spec: &'a GatewayServer,
}

impl Server<'_> {
    fn unserved(&self, wants: Wanted, holder: &Arc<str>) -> Unserved {
        Unserved { gateway: self.gateway.clone(), server: self.index, wants, holder: holder.clone() }
    }
}

/// The servers that want a port.
struct Wanting<'a> {
    number: u16,
    protocol: GatewayProtocol,
    servers: Vec<Server<'a>>,
    unserved: Vec<Unserved>,
}

impl Compiler {
    pub(super) fn put_gateway(&mut self, object: &Arc<Gateway>) {
        let meta = &object.metadata;
        let key = self.intern.text(&format!("{}/{}", meta.namespace, meta.name));
        self.gateways.objects.insert(key, object.clone());
        self.gateways.dirty = true;
    }

    pub(super) fn delete_gateway(&mut self, key: &str) {
        self.gateways.dirty |= self.gateways.objects.remove(key).is_some();
    }

    /// Notes that VirtualServices, Services or this node's pods have changed.
    pub(super) fn touch_gateways(&mut self) {
        self.gateways.dirty |= !self.gateways.objects.is_empty();
    }

    pub(super) fn touch_gateways_for(&mut self, workload: &Workload) {
        if *workload.node == *self.options.node && workload.is_gateway() {
            self.touch_gateways();
        }
    }

    /// The services that have this node's gateway pods: by theirs are the ports of these known.
    pub(super) fn hosts_of_gateways(&self) -> Set<Arc<str>> {
        let mut hosts = Set::default();
        for pod in self.snapshot.gateways.keys().filter_map(|pod| self.snapshot.workload(pod)) {
            self.services.touched_by(pod, |host| {
                hosts.insert(host.clone());
            });
        }
        hosts
    }

    /// Compiles what changed. There are few gateway pods on a node: all are done anew.
    pub(super) fn compile_gateways(&mut self) {
        if !std::mem::take(&mut self.gateways.dirty) {
            return;
        }
        let local = self.snapshot.workloads().filter(|workload| {
            *workload.node == *self.options.node
                && workload.enrolment == Enrolment::Enrolled
                && workload.is_gateway()
        });
        let pods: GatewayPods = local
            .filter_map(|workload| {
                let ports: Arc<[GatewayPort]> = self.gateway_ports(workload).into();
                (!ports.is_empty()).then(|| (workload.key.clone(), ports))
            })
            .collect();
        self.snapshot.gateways = Arc::new(pods);
    }

    /// What a pod serves. Where Gateways want one port in different ways, the oldest has it, as in Istio: whoever may write one
    /// may select everybody's gateway.
    fn gateway_ports(&self, workload: &Workload) -> Vec<GatewayPort> {
        let selects = |(_, object): &(&Arc<str>, &Arc<Gateway>)| {
            let selector = &object.spec.selector;
            !selector.is_empty() && is_subset(selector, &workload.labels)
        };
        let mut gateways: Vec<_> = self.gateways.objects.iter().filter(selects).collect();
        gateways.sort_by_key(|(_, object)| {
            let meta = &object.metadata;
            (&meta.creation_timestamp, &meta.name, &meta.namespace)
        });
        let (mut all, mut by_number): (Vec<Wanting<'_>>, Map<u16, usize>) = Default::default();
        for (key, object) in gateways {
            for (index, spec) in object.spec.servers.iter().enumerate() {
                let Some(protocol) = protocol(spec) else { continue };
                let Ok(number) = u16::try_from(spec.port.number) else { continue };
                let server = Server { gateway: key, namespace: &object.metadata.namespace, index, spec };
                let at = *by_number.entry(number).or_insert(all.len());
                if at == all.len() {
                    all.push(Wanting { number, protocol, servers: Vec::new(), unserved: Vec::new() });
                }
                let wanting = &mut all[at];
                // One port is read in one way.
                if wanting.protocol == protocol {
                    wanting.servers.push(server);
                } else if wanting.unserved.len() < MOST_UNSERVED {
                    let holder = wanting.servers.first().map_or(key, |first| first.gateway);
                    let wants = Wanted::Protocol(protocol, wanting.protocol);
                    wanting.unserved.push(server.unserved(wants, holder));
                }
            }
        }
        let (mut ports, mut by_pod_port): (Vec<GatewayPort>, Map<u16, usize>) = Default::default();
        for Wanting { number, protocol, servers, unserved } in all {
            for pod_port in self.pod_ports(workload, number) {
                let at = *by_pod_port.entry(pod_port).or_insert(ports.len());
                if at == ports.len() {
                    let of = servers.iter().collect::<Vec<_>>();
                    let mut port = self.gateway_port((pod_port, number), protocol, workload, &of);
                    port.unserved.extend_from_slice(&unserved);
                    ports.push(port);
                    continue;
                }
                // Two ports of the Service that lead to one of the pod.
                let first = &mut ports[at];
                let wants = Wanted::PodPort(pod_port, first.server_port);
                let holder = first.gateways.first().cloned().unwrap_or_default();
                let room = MOST_UNSERVED.saturating_sub(first.unserved.len());
                let more = servers.iter().take(room).map(|server| server.unserved(wants.clone(), &holder));
                first.unserved.extend(more);
            }
        }
        ports
    }

    /// The pod's ports behind a Service port of this number; the number itself where no Service has it.
    fn pod_ports(&self, workload: &Workload, number: u16) -> Vec<u16> {
        let Some(pod) = self.pods.get(&workload.key) else { return vec![number] };
        let mut ports = Vec::new();
        self.services.touched_by(workload, |host| {
            let Some(record) = self.services.get(host) else { return };
            let named = record.ports.iter().filter(|port| port.entry.port == number);
            ports.extend(named.filter_map(|port| port.target.on(&pod.ports)));
        });
        ports.sort_unstable();
        ports.dedup();
        if ports.is_empty() { vec![number] } else { ports }
    }

    fn gateway_port(
        &self,
        (pod_port, server_port): (u16, u16),
        protocol: GatewayProtocol,
        workload: &Workload,
        servers: &[&Server<'_>],
    ) -> GatewayPort {
        let mut gateways: Vec<Arc<str>> = servers.iter().map(|server| server.gateway.clone()).collect();
        gateways.dedup();
        let serves = match protocol {
            GatewayProtocol::Http => Serves::Http(self.virtual_hosts(servers)),
            GatewayProtocol::Bytes => Serves::Bytes(self.rules_of(servers)),
            GatewayProtocol::ServerName => return self.tls_port((pod_port, server_port), workload, servers),
        };
        GatewayPort { pod_port, server_port, gateways: gateways.into(), serves, unserved: Vec::new() }
    }

    /// A port of TLS. The first server, of the oldest Gateway, that has a server name keeps it: Istio drops the others.
    fn tls_port(&self, ports: (u16, u16), workload: &Workload, servers: &[&Server<'_>]) -> GatewayPort {
        let (mut all, mut unserved) = (TlsServers::default(), Vec::new());
        let mut owners: Map<HostPattern, &Arc<str>> = Map::default();
        let (mut passing, mut ending): (Vec<&Server<'_>>, Vec<(&Server<'_>, Arc<Termination>)>) =
            Default::default();
        for server in servers {
            let termination = termination(server.spec, workload);
            let hosts: Vec<HostPattern> = match &termination {
                None => self.passed_names(server),
                Some(_) => {
                    server.spec.hosts.iter().map(|text| self.server_host(text, server.namespace).1).collect()
                }
            };
            let taken = hosts.iter().find_map(|host| {
                let both_pass = termination.is_none() && all.names.get(host) == Some(&Behind::Passed);
                owners.get(host).filter(|_| !both_pass).map(|owner| (host, *owner))
            });
            if let Some((host, owner)) = taken {
                if unserved.len() < MOST_UNSERVED {
                    unserved.push(server.unserved(Wanted::Host(host.clone()), owner));
                }
                continue;
            }
            let behind = if termination.is_some() { Behind::Ending(ending.len()) } else { Behind::Passed };
            for host in hosts {
                all.names.place(&host).insert_entry(behind);
                owners.insert(host, server.gateway);
            }
            match termination {
                None => passing.push(server),
                Some(termination) => ending.push((server, Arc::new(termination))),
            }
        }
        all.passed = self.rules_of(&passing);
        all.ending = ending
            .into_iter()
            .map(|(server, termination)| {
                let inside =
                    if termination.requests { GatewayProtocol::Http } else { GatewayProtocol::Bytes };
                let port = self.gateway_port(ports, inside, workload, &[server]);
                (termination, port)
            })
            .collect();
        let mut gateways: Vec<Arc<str>> = servers.iter().map(|server| server.gateway.clone()).collect();
        gateways.dedup();
        let (pod_port, server_port) = ports;
        GatewayPort { pod_port, server_port, gateways: gateways.into(), serves: Serves::Tls(all), unserved }
    }

    /// The server names that go through a server: those of the `tls` rules that are bound to it.
    fn passed_names(&self, server: &Server<'_>) -> Vec<HostPattern> {
        let mut names = Vec::new();
        for text in &server.spec.hosts {
            self.bound(server, text, |rules, host| {
                let matches =
                    rules.tls.iter().flat_map(|entry| &entry.matches).flat_map(|entry| &entry.names);
                names.extend(matches.filter_map(|name| common(&host, name)));
            });
        }
        names
    }

    fn virtual_hosts(&self, servers: &[&Server<'_>]) -> VirtualHosts {
        let mut hosts = VirtualHosts::default();
        let mut lists: Map<HostPattern, Vec<Arc<Rules>>> = Map::default();
        for server in servers {
            let redirects = server.spec.tls.as_ref().is_some_and(|tls| tls.https_redirect);
            let redirect = redirects.then(to_https).flatten();
            for text in &server.spec.hosts {
                if let Some(redirect) = &redirect {
                    let (_, pattern) = self.server_host(text, server.namespace);
                    hosts.place(&pattern).or_default().redirect = Some(redirect.clone());
                    continue;
                }
                self.bound(server, text, |rules, host| lists.entry(host).or_default().push(rules.clone()));
            }
        }
        for (host, list) in lists {
            hosts.place(&host).or_default().rules = oldest_first(list);
        }
        hosts
    }

    /// The VirtualServices that serve any host of these servers, oldest first.
    fn rules_of(&self, servers: &[&Server<'_>]) -> RuleList {
        let mut all: Vec<Arc<Rules>> = Vec::new();
        for server in servers {
            for text in &server.spec.hosts {
                self.bound(server, text, |rules, _| all.push(rules.clone()));
            }
        }
        oldest_first(all)
    }

    /// Finds the VirtualServices that are bound to a server, and which of their hosts it serves by one of its own.
    fn bound(&self, server: &Server<'_>, host: &str, mut each: impl FnMut(&Arc<Rules>, HostPattern)) {
        let (namespace, pattern) = self.server_host(host, server.namespace);
        for rules in self.virtual_services.rules() {
            if rules.gateways.contains(server.gateway)
                && namespace.is_none_or(|namespace| *namespace == *rules.age.namespace)
            {
                let hosts = rules.hosts.iter().filter_map(|host| common(&pattern, host));
                hosts.for_each(|host| each(rules, host));
            }
        }
    }

    /// `namespace/host` of a server: whose VirtualServices may serve it (`None`: all namespaces'), and which names.
    fn server_host<'a>(&self, text: &'a str, own: &'a str) -> (Option<&'a str>, HostPattern) {
        let (namespace, name) = match text.split_once('/') {
            None | Some(("*", _)) => (None, text.rsplit('/').next().unwrap_or(text)),
            Some((".", name)) => (Some(own), name),
            Some((namespace, name)) => (Some(namespace), name),
        };
        (namespace, HostPattern::parse(&hostname::resolve(name, own, &self.options.cluster_domain)))
    }
}

/// How a server's port is read; `None`: weft does not serve it.
fn protocol(server: &GatewayServer) -> Option<GatewayProtocol> {
    match (server.port.speaks()?, server.tls.as_ref().map(|tls| tls.mode)) {
        (ServerProtocol::Http, _) => Some(GatewayProtocol::Http),
        (ServerProtocol::Tcp, None) => Some(GatewayProtocol::Bytes),
        (ServerProtocol::Tcp | ServerProtocol::Tls, Some(mode)) if mode != ServerTlsMode::AutoPassthrough => {
            Some(GatewayProtocol::ServerName)
        }
        (ServerProtocol::Tcp | ServerProtocol::Tls, _) => None,
    }
}

/// How TLS ends at a server; `None`: it goes through.
fn termination(server: &GatewayServer, gateway: &Workload) -> Option<Termination> {
    let settings = server.tls.as_ref().filter(|tls| tls.mode != ServerTlsMode::Passthrough)?.clone();
    let requests = server.port.protocol.eq_ignore_ascii_case("HTTPS");
    Some(Termination { settings, namespace: gateway.namespace.clone(), requests })
}

/// The route of a server with `tls.httpsRedirect`.
fn to_https() -> Option<Arc<HttpRoute>> {
    let redirect = HttpRedirect { scheme: Some("https".to_owned()), ..HttpRedirect::default() };
    let redirect = Redirect::compile(&redirect).ok()?;
    let route = HttpRoute::default_for("".into(), "https-redirect".into(), None);
    Some(Arc::new(HttpRoute { action: HttpAction::Redirect(redirect), ..route }))
}
