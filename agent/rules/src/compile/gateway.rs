//! From Gateways, the VirtualServices bound to them and the gateway pods of this node to what each pod serves.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_api::istio::{Gateway, GatewayServer, HttpRedirect, ServerProtocol};

use crate::compile::{Compiler, with_rules};
use crate::registry::hostname::{self, HostPattern};
use crate::route::gateway::{GatewayPods, GatewayPort, VirtualHost, common};
use crate::route::http_route::{HttpAction, HttpRoute, Redirect};
use crate::route::matching::is_subset;
use crate::shard::{Map, Set};
use crate::workload::{Enrolment, Workload};

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
    spec: &'a GatewayServer,
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

    fn gateway_ports(&self, workload: &Workload) -> Vec<GatewayPort> {
        let mut by_port: BTreeMap<u16, Vec<Server<'_>>> = BTreeMap::new();
        for (key, object) in &self.gateways.objects {
            let selector = &object.spec.selector;
            if selector.is_empty() || !is_subset(selector, &workload.labels) {
                continue;
            }
            for server in &object.spec.servers {
                if server.port.speaks() == Some(ServerProtocol::Http)
                    && let Ok(number) = u16::try_from(server.port.number)
                {
                    let namespace = object.metadata.namespace.as_str();
                    by_port.entry(number).or_default().push(Server { gateway: key, namespace, spec: server });
                }
            }
        }
        let mut ports = Vec::new();
        let mut taken = Set::default();
        for (number, servers) in by_port {
            for pod_port in self.pod_ports(workload, number) {
                // Two servers that lead to one port of the pod: the first has it.
                if taken.insert(pod_port) {
                    ports.push(self.gateway_port(pod_port, number, &servers));
                }
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

    fn gateway_port(&self, pod_port: u16, server_port: u16, servers: &[Server<'_>]) -> GatewayPort {
        let mut exact: Map<Arc<str>, VirtualHost> = Map::default();
        let mut below: Map<Arc<str>, VirtualHost> = Map::default();
        for server in servers {
            let redirects = server.spec.tls.as_ref().is_some_and(|tls| tls.https_redirect);
            let redirect = redirects.then(to_https).flatten();
            for text in &server.spec.hosts {
                let (namespace, pattern) = self.server_host(text, server.namespace);
                if let Some(redirect) = &redirect {
                    entry(&mut exact, &mut below, &pattern).redirect = Some(redirect.clone());
                    continue;
                }
                for rules in self.virtual_services.rules() {
                    if !rules.gateways.contains(server.gateway)
                        || namespace.is_some_and(|namespace| *namespace != *rules.age.namespace)
                    {
                        continue;
                    }
                    for host in rules.hosts.iter().filter_map(|host| common(&pattern, host)) {
                        let list = &mut entry(&mut exact, &mut below, &host).rules;
                        *list = with_rules(Some(list), rules, true).unwrap_or_default();
                    }
                }
            }
        }
        let mut gateways: Vec<Arc<str>> = servers.iter().map(|server| server.gateway.clone()).collect();
        gateways.dedup();
        GatewayPort { pod_port, server_port, gateways: gateways.into(), exact, below }
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

fn entry<'a>(
    exact: &'a mut Map<Arc<str>, VirtualHost>,
    below: &'a mut Map<Arc<str>, VirtualHost>,
    pattern: &HostPattern,
) -> &'a mut VirtualHost {
    match pattern {
        HostPattern::Exact(name) => exact.entry(name.clone()).or_default(),
        HostPattern::Below(suffix) => below.entry(suffix.clone()).or_default(),
    }
}

/// The route of a server with `tls.httpsRedirect`.
fn to_https() -> Option<Arc<HttpRoute>> {
    let redirect = HttpRedirect { scheme: Some("https".to_owned()), ..HttpRedirect::default() };
    let redirect = Redirect::compile(&redirect).ok()?;
    let route = HttpRoute::default_for("".into(), "https-redirect".into(), None);
    Some(Arc::new(HttpRoute { action: HttpAction::Redirect(redirect), ..route }))
}
