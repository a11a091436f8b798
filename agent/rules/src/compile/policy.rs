//! DestinationRules: which one a caller falls under, and the clusters that come of it.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use weft_api::istio::{
    ClientTlsSettings, ConnectionPoolSettings, DestinationRule, LoadBalancerSettings, SimpleLb, Subset,
    TrafficPolicy,
};
use weft_api::meta::Labels;

use crate::intern::Interner;
use crate::mesh::MeshSettings;
use crate::registry::endpoints::PortEndpoints;
use crate::registry::host::{Host, HostPort};
use crate::registry::hostname::{self, HostPattern};
use crate::registry::scope::Scope;
use crate::registry::services::{Addressing, ServiceRecord};
use crate::route::matching::is_subset;
use crate::route::virtual_service::Age;
use crate::shard::Map;
use crate::upstream::cluster::{Balance, Cluster};
use crate::upstream::clusters::{CallerPolicy, Clusters, Policies, PortClusters};

/// A DestinationRule, with what its lookup needs.
#[derive(Debug)]
pub(crate) struct PolicyRecord {
    /// `namespace/name`.
    pub(crate) key: Arc<str>,
    pub(crate) age: Age,
    pub(crate) pattern: HostPattern,
    /// Who sees it outside its namespace.
    scope: Scope,
    /// Its own namespace sees it, and nobody else.
    private: bool,
    /// Its own namespace sees it.
    local: bool,
    selector: Option<Arc<Labels>>,
    pub(crate) rule: Arc<DestinationRule>,
}

impl PolicyRecord {
    pub(crate) fn compile(rule: &Arc<DestinationRule>, mesh: &MeshSettings, intern: &mut Interner) -> Self {
        let (meta, spec) = (&rule.metadata, &rule.spec);
        let namespace = intern.text(&meta.namespace);
        let selector = spec.workload_selector.as_ref().map(|selector| intern.labels(&selector.match_labels));
        let entries =
            if spec.export_to.is_empty() { &mesh.destination_rule_export_to } else { &spec.export_to };
        let own = |entry: &String| entry == "." || *entry == meta.namespace;
        // A rule that selects callers speaks for its own namespace only.
        let private = selector.is_some() || (!entries.is_empty() && entries.iter().all(own));
        let local = spec.export_to.is_empty()
            || selector.is_some()
            || spec.export_to.iter().any(|entry| entry == "*" || own(entry));
        Self {
            key: format!("{}/{}", meta.namespace, meta.name).into(),
            age: Age {
                created: intern.text(&meta.creation_timestamp),
                name: intern.text(&meta.name),
                namespace: namespace.clone(),
            },
            pattern: HostPattern::parse(&hostname::resolve(
                &spec.host,
                &meta.namespace,
                &mesh.cluster_domain,
            )),
            scope: Scope::compile(&spec.export_to, &mesh.destination_rule_export_to, &namespace, intern),
            private,
            local,
            selector,
            rule: rule.clone(),
        }
    }

    /// Whether callers of this namespace (`None`: of no namespace in particular) see the rule from outside.
    fn exported_to(&self, caller: Option<&str>) -> bool {
        !self.private
            && match caller {
                Some(caller) => self.scope.admits(caller),
                None => self.scope == Scope::Everywhere,
            }
    }
}

/// Builds the clusters of one service for every kind of caller.
pub(crate) struct Build<'a> {
    pub(crate) record: &'a ServiceRecord,
    pub(crate) endpoints: &'a [PortEndpoints],
    pub(crate) mesh: &'a MeshSettings,
    pub(crate) root_namespace: &'a str,
    /// Rules for this host, the most specific first, each group oldest first.
    pub(crate) candidates: Vec<&'a Arc<PolicyRecord>>,
    pub(crate) old: Option<&'a Host>,
}

impl<'a> Build<'a> {
    /// Looks the rules up for each namespace that may see its own, and once for all others.
    pub(crate) fn policies(&self, intern: &mut Interner) -> Policies {
        let mut turns = Turns::of(self.old);
        let common = self.lookup(None);
        let others = Arc::new(self.clusters(&common, &mut turns, intern));
        let mut by_namespace = Map::default();
        // Namespaces under the same rules share what came of them: a rule may be exported to thousands.
        let mut known: Vec<(Vec<&Arc<PolicyRecord>>, CallerPolicy)> = Vec::new();
        for namespace in self.namespaces() {
            let rules = self.lookup(Some(&namespace));
            if same_rules(&rules, &common) {
                continue;
            }
            let same = known.iter().find(|(others, _)| same_rules(others, &rules));
            let policy = if let Some((_, policy)) = same {
                policy.clone()
            } else {
                let policy = self.caller_policy(&rules, &mut turns, intern);
                known.push((rules, policy.clone()));
                policy
            };
            by_namespace.insert(namespace, policy);
        }
        let by_namespace = (!by_namespace.is_empty()).then(|| Box::new(by_namespace));
        Policies { by_namespace, others }
    }

    /// Every namespace that may be treated in its own way.
    fn namespaces(&self) -> Vec<Arc<str>> {
        let mut all = Vec::new();
        for rule in &self.candidates {
            all.push(rule.age.namespace.clone());
            if let Scope::Namespaces(named) = &rule.scope {
                all.extend(named.iter().cloned());
            }
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The caller's namespace first, then the service's, then the root.
    fn lookup(&self, caller: Option<&str>) -> Vec<&'a Arc<PolicyRecord>> {
        if let Some(caller) = caller {
            let in_root = caller == self.root_namespace;
            let own = self.most_specific(|rule| {
                *rule.age.namespace == *caller && if in_root { rule.private } else { rule.local }
            });
            if !own.is_empty() {
                return own;
            }
        }
        for namespace in [&*self.record.service.namespace, self.root_namespace] {
            let seen =
                self.most_specific(|rule| *rule.age.namespace == *namespace && rule.exported_to(caller));
            if !seen.is_empty() {
                return seen;
            }
        }
        Vec::new()
    }

    fn most_specific(&self, fits: impl Fn(&PolicyRecord) -> bool) -> Vec<&'a Arc<PolicyRecord>> {
        let mut fitting = self.candidates.iter().copied().filter(|rule| fits(rule)).peekable();
        let Some(first) = fitting.peek().map(|rule| &rule.pattern) else { return Vec::new() };
        fitting.take_while(|rule| rule.pattern == *first).collect()
    }

    fn caller_policy(
        &self,
        rules: &[&Arc<PolicyRecord>],
        turns: &mut Turns,
        intern: &mut Interner,
    ) -> CallerPolicy {
        let mut selectors: Vec<&Arc<Labels>> = Vec::new();
        for selector in rules.iter().filter_map(|rule| rule.selector.as_ref()) {
            if !selectors.contains(&selector) {
                selectors.push(selector);
            }
        }
        let mut of = |selector: Option<&Arc<Labels>>| {
            let group: Vec<_> =
                rules.iter().copied().filter(|rule| rule.selector.as_ref() == selector).collect();
            Arc::new(self.clusters(&group, turns, intern))
        };
        let selected = selectors.iter().map(|selector| ((*selector).clone(), of(Some(*selector)))).collect();
        CallerPolicy { selected, others: of(None) }
    }

    /// Merges rules for one host: subsets united, the oldest top-level policy.
    fn clusters(&self, rules: &[&Arc<PolicyRecord>], turns: &mut Turns, intern: &mut Interner) -> Clusters {
        let policy = rules.iter().find_map(|rule| rule.rule.spec.traffic_policy.as_ref());
        let mut subsets: Vec<&Subset> = Vec::new();
        for subset in rules.iter().flat_map(|rule| &rule.rule.spec.subsets) {
            if !subsets.iter().any(|known| known.name == subset.name) {
                subsets.push(subset);
            }
        }
        let ports = self.record.ports.iter().zip(self.endpoints).map(|(port, endpoints)| {
            let whole = Parts::default().overridden(policy, port.entry.port);
            let subset_cluster = |subset: &&Subset| {
                let parts = whole.overridden(subset.traffic_policy.as_ref(), port.entry.port);
                let name = intern.text(&subset.name);
                Arc::new(self.cluster(
                    &port.entry,
                    Some(name),
                    with_labels(endpoints, &subset.labels),
                    parts,
                    turns,
                ))
            };
            PortClusters {
                port: port.entry.port,
                subsets: subsets.iter().map(subset_cluster).collect(),
                whole: Arc::new(self.cluster(&port.entry, None, endpoints.clone(), whole, turns)),
            }
        });
        Clusters { ports: ports.collect(), rules: rules.iter().map(|rule| rule.key.clone()).collect() }
    }

    fn cluster(
        &self,
        port: &HostPort,
        subset: Option<Arc<str>>,
        endpoints: PortEndpoints,
        parts: Parts<'_>,
        turns: &mut Turns,
    ) -> Cluster {
        let service = &self.record.service;
        let headless = self.record.addressing == Addressing::Headless;
        Cluster {
            name: format!(
                "outbound|{}|{}|{}",
                port.port,
                subset.as_deref().unwrap_or_default(),
                service.host
            )
            .into(),
            turn: turns.take_up(port.port, subset.as_ref()),
            service: service.clone(),
            port: port.port,
            subset,
            protocol: port.protocol,
            connect_timeout: parts.connect_timeout().unwrap_or(self.mesh.connect_timeout),
            balance: if headless { Balance::Headless } else { parts.balance() },
            tls: parts.tls.map(|tls| Arc::new(tls.clone())),
            endpoints,
        }
    }
}

fn same_rules(a: &[&Arc<PolicyRecord>], b: &[&Arc<PolicyRecord>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

fn with_labels(endpoints: &PortEndpoints, labels: &Labels) -> PortEndpoints {
    if labels.is_empty() {
        return endpoints.clone();
    }
    let fits = |workload: &crate::workload::Workload| is_subset(labels, &workload.labels);
    endpoints.iter().filter(|endpoint| endpoint.workload.as_deref().is_some_and(fits)).cloned().collect()
}

/// The parts of a traffic policy, each of which overrides or is inherited as a whole.
#[derive(Debug, Clone, Copy, Default)]
struct Parts<'a> {
    balancer: Option<&'a LoadBalancerSettings>,
    pool: Option<&'a ConnectionPoolSettings>,
    tls: Option<&'a ClientTlsSettings>,
}

impl<'a> Parts<'a> {
    /// A policy over this one. Settings for the port replace everything, defaults included.
    fn overridden(self, policy: Option<&'a TrafficPolicy>, port: u16) -> Self {
        let Some(policy) = policy else { return self };
        let tls =
            |tls: &'a Option<ClientTlsSettings>| tls.as_ref().filter(|settings| settings.mode.is_some());
        let of_port = policy
            .port_level_settings
            .iter()
            .find(|settings| settings.port.as_ref().is_some_and(|number| number.number == u32::from(port)));
        match of_port {
            Some(settings) => Self {
                balancer: settings.load_balancer.as_ref(),
                pool: settings.connection_pool.as_ref(),
                tls: tls(&settings.tls),
            },
            None => Self {
                balancer: policy.load_balancer.as_ref().or(self.balancer),
                pool: policy.connection_pool.as_ref().or(self.pool),
                tls: tls(&policy.tls).or(self.tls),
            },
        }
    }

    fn balance(self) -> Balance {
        match self.balancer.and_then(|balancer| balancer.simple) {
            Some(SimpleLb::RoundRobin) => Balance::RoundRobin,
            Some(SimpleLb::Random) => Balance::Random,
            Some(SimpleLb::Passthrough) => Balance::Passthrough,
            Some(SimpleLb::LeastRequest | SimpleLb::LeastConn | SimpleLb::Unspecified) | None => {
                Balance::LeastRequest
            }
        }
    }

    fn connect_timeout(self) -> Option<std::time::Duration> {
        self.pool?.tcp.as_ref()?.connect_timeout.map(|span| span.0)
    }
}

/// The round robins as they were: the same (port, subset) goes on where it stood, for all callers alike.
struct Turns(Map<(u16, Option<Arc<str>>), Arc<AtomicU32>>);

impl Turns {
    fn of(old: Option<&Host>) -> Self {
        let ports =
            old.into_iter().flat_map(|entry| entry.policies.all()).flat_map(|clusters| &clusters.ports);
        let clusters = ports.flat_map(|port| std::iter::once(&port.whole).chain(&port.subsets));
        Self(clusters.map(|old| ((old.port, old.subset.clone()), old.turn.clone())).collect())
    }

    fn take_up(&mut self, port: u16, subset: Option<&Arc<str>>) -> Arc<AtomicU32> {
        self.0.entry((port, subset.cloned())).or_default().clone()
    }
}
