//! Istio's metrics: a worker's side. A request costs one look-up by identity (pointers and numbers) and a few plain
//! stores; text is made only when a combination is seen for the first time.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;
use weft_rules::cluster::Service;
use weft_rules::workload::{Enrolment, Workload};

use super::flags::{FlagSet, ResponseFlag};
use super::labels::{Ingredients, Labels, Reporter};
use super::record::{HttpRecord, TcpEvent, TcpRecord, Upstream};
use super::security::Outcome;
use super::series::{HttpCells, Series, TcpCells};

/// Combinations of labels that one worker keeps; more are counted as dropped.
const MAX_SERIES: usize = 20_000;
/// Identities remembered before the memory is wiped: they hold pods and services that may be gone.
const MAX_IDENTITIES: usize = 4_096;
/// Hosts outside the mesh that get a label of their own.
const MAX_HOSTS: usize = 100;

/// Flags of requests that never reached an endpoint.
const UNDELIVERED: [ResponseFlag; 6] = [
    ResponseFlag::NoHealthyUpstream,
    ResponseFlag::UpstreamConnectionFailure,
    ResponseFlag::NoRouteFound,
    ResponseFlag::NoClusterFound,
    ResponseFlag::FaultInjected,
    ResponseFlag::DownstreamProtocolError,
];

/// All series of all workers, for the scrape.
#[derive(Debug, Default)]
pub struct Registry {
    /// Taken by a worker only when it sees a combination for the first time.
    series: Mutex<AllSeries>,
    dropped: AtomicU64,
}

/// Series in the order of their making; several may have the same labels.
#[derive(Debug, Default, Clone)]
pub struct AllSeries {
    /// Of requests.
    pub http: Vec<Arc<Series<HttpCells>>>,
    /// Of connections.
    pub tcp: Vec<Arc<Series<TcpCells>>>,
}

impl Registry {
    /// All there are now.
    pub fn all(&self) -> AllSeries {
        self.series.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reports that were not counted because there are too many combinations of labels.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn add(&self, put: impl FnOnce(&mut AllSeries)) {
        put(&mut self.series.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What the labels depend on, cheap to compare. The [`Identity`] kept beside it keeps the pointers from being reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    source: usize,
    destination: usize,
    service: usize,
    /// Hash of cluster and host, where there is no service.
    elsewhere: u64,
    flags: FlagSet,
    status: u16,
    grpc: u32,
    protocol: &'static str,
    reporters: (bool, bool),
    security: u64,
    refused: bool,
}

#[derive(Debug)]
struct Identity<Cells> {
    source: Option<Arc<Series<Cells>>>,
    destination: Option<Arc<Series<Cells>>>,
    _workloads: [Option<Arc<Workload>>; 2],
    _service: Option<Arc<Service>>,
}

/// Series by what tells them apart.
type Known<Cells> = HashMap<(Arc<Labels>, Option<Outcome>), Arc<Series<Cells>>, RandomState>;

#[derive(Debug)]
struct Table<Cells> {
    identities: HashMap<Key, Identity<Cells>, RandomState>,
    series: Known<Cells>,
}

impl<Cells> Default for Table<Cells> {
    fn default() -> Self {
        Self { identities: HashMap::default(), series: HashMap::default() }
    }
}

/// A worker's counters.
#[derive(Debug)]
pub struct Sink {
    registry: Arc<Registry>,
    node: Arc<str>,
    http: RefCell<Table<HttpCells>>,
    tcp: RefCell<Table<TcpCells>>,
    hosts: RefCell<std::collections::HashSet<Box<str>, RandomState>>,
    hasher: RandomState,
}

/// What both kinds of record say.
struct Facts<'a> {
    source: Option<&'a Arc<Workload>>,
    upstream: &'a Upstream,
    host: Option<&'a str>,
    flags: FlagSet,
    protocol: &'static str,
    response: Option<(u16, Option<u32>)>,
    reporters: (bool, bool),
}

impl Sink {
    /// Counters that the registry shows.
    pub fn new(registry: &Arc<Registry>, node: Arc<str>) -> Self {
        Self {
            registry: registry.clone(),
            node,
            http: RefCell::default(),
            tcp: RefCell::default(),
            hosts: RefCell::default(),
            hasher: RandomState::default(),
        }
    }

    /// Counts a request.
    pub fn http(&self, record: &HttpRecord<'_>) {
        let grpc = record.grpc_status.is_some() || record.grpc_messages.is_some();
        let flags = FlagSet::from(record.flags);
        let facts = Facts {
            source: record.source,
            upstream: record.upstream,
            // What somebody outside the mesh calls us is no label.
            host: (record.upstream.service.is_none() && !record.inbound).then_some(record.authority),
            flags,
            protocol: if grpc { "grpc" } else { "http" },
            response: Some((record.status, record.grpc_status)),
            reporters: (!record.inbound, record.inbound || self.delivered(record.upstream, flags)),
        };
        let count = |cells: &HttpCells| {
            cells.requests.add(1);
            cells.duration.observe(record.duration.as_secs_f64() * 1_000.0);
            #[expect(clippy::cast_precision_loss, reason = "sizes beyond 2^53 bytes do not occur")]
            {
                cells.request_bytes.observe(record.request_bytes as f64);
                cells.response_bytes.observe(record.response_bytes as f64);
            }
            if let Some((requests, responses)) = record.grpc_messages {
                cells.request_messages.add(requests);
                cells.response_messages.add(responses);
            }
        };
        self.record(&self.http, &facts, |all, series| all.http.push(series), count);
    }

    /// Counts a connection.
    pub fn tcp(&self, record: &TcpRecord<'_>) {
        let flags = FlagSet::from(record.flags);
        let facts = Facts {
            source: record.source,
            upstream: record.upstream,
            host: None,
            flags,
            protocol: "tcp",
            response: None,
            reporters: (!record.inbound, record.inbound || self.delivered(record.upstream, flags)),
        };
        let count = |cells: &TcpCells| match record.event {
            TcpEvent::Opened => cells.opened.add(1),
            TcpEvent::Closed => {
                cells.closed.add(1);
                cells.sent_bytes.add(record.sent_bytes);
                cells.received_bytes.add(record.received_bytes);
            }
        };
        self.record(&self.tcp, &facts, |all, series| all.tcp.push(series), count);
    }

    /// Whether it reached a pod that this agent reports for.
    fn delivered(&self, upstream: &Upstream, flags: FlagSet) -> bool {
        !flags.has_any(&UNDELIVERED)
            && upstream.workload.as_ref().is_some_and(|workload| {
                workload.enrolment == Enrolment::Enrolled
                    && (workload.node.is_empty() || workload.node == self.node)
            })
    }

    fn record<Cells: Default>(
        &self,
        table: &RefCell<Table<Cells>>,
        facts: &Facts<'_>,
        register: impl Fn(&mut AllSeries, Arc<Series<Cells>>),
        count: impl Fn(&Cells),
    ) {
        let mut table = table.borrow_mut();
        let host = facts.host.and_then(|host| self.known_host(host));
        let key = self.key(facts, host.as_deref());
        let Table { identities, series } = &mut *table;
        if identities.len() >= MAX_IDENTITIES {
            identities.clear();
        }
        let identity = identities.entry(key).or_insert_with(|| {
            let ingredients = facts.ingredients(host.as_deref());
            let outcome = facts.upstream.outcome();
            let mut find = |reporter, edge| self.find(series, reporter, edge, &ingredients, &register);
            let echo = facts.reporters.0;
            Identity {
                source: facts.reporters.0.then(|| find(Reporter::Source, Some(outcome))).flatten(),
                destination: facts
                    .reporters
                    .1
                    .then(|| find(Reporter::Destination, (!echo).then_some(outcome)))
                    .flatten(),
                _workloads: [facts.source.cloned(), facts.upstream.workload.clone()],
                _service: facts.upstream.service.clone(),
            }
        });
        let wanted = [(facts.reporters.0, &identity.source), (facts.reporters.1, &identity.destination)];
        for (_, series) in wanted.into_iter().filter(|(wanted, _)| *wanted) {
            match series {
                Some(series) => count(&series.cells),
                None => _ = self.registry.dropped.fetch_add(1, Ordering::Relaxed),
            }
        }
    }

    fn key(&self, facts: &Facts<'_>, host: Option<&str>) -> Key {
        fn address<T>(arc: Option<&Arc<T>>) -> usize {
            arc.map_or(0, |arc| Arc::as_ptr(arc).addr())
        }
        let upstream = facts.upstream;
        let elsewhere = match upstream.service {
            Some(_) => 0,
            None => self.hasher.hash_one((upstream.cluster.as_deref(), host)),
        };
        let (status, grpc) = facts.response.unwrap_or_default();
        Key {
            source: address(facts.source),
            destination: address(upstream.workload.as_ref()),
            service: address(upstream.service.as_ref()),
            elsewhere,
            flags: facts.flags,
            status,
            grpc: grpc.unwrap_or(u32::MAX),
            protocol: facts.protocol,
            reporters: facts.reporters,
            security: upstream.security.key(),
            refused: upstream.refused.is_some(),
        }
    }

    fn find<Cells: Default>(
        &self,
        known: &mut Known<Cells>,
        reporter: Reporter,
        edge: Option<Outcome>,
        ingredients: &Ingredients<'_>,
        register: &impl Fn(&mut AllSeries, Arc<Series<Cells>>),
    ) -> Option<Arc<Series<Cells>>> {
        let key = (Arc::new(Labels::new(reporter, ingredients)), edge);
        if let Some(series) = known.get(&key) {
            return Some(series.clone());
        }
        if known.len() >= MAX_SERIES {
            return None;
        }
        let series = Arc::new(Series { labels: key.0.clone(), edge, cells: Cells::default() });
        self.registry.add(|all| register(all, series.clone()));
        known.insert(key, series.clone());
        Some(series)
    }

    /// A host outside the mesh, as its label; `None` when there are too many. Callers choose these names, so that
    /// their number must be bounded.
    fn known_host(&self, authority: &str) -> Option<String> {
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let host = host.to_ascii_lowercase();
        let mut hosts = self.hosts.borrow_mut();
        if hosts.contains(&*host) || (hosts.len() < MAX_HOSTS && hosts.insert(host.clone().into())) {
            Some(host)
        } else {
            None
        }
    }
}

impl Facts<'_> {
    fn ingredients<'a>(&'a self, host: Option<&'a str>) -> Ingredients<'a> {
        let (source, destination) =
            (self.source.map(|workload| &**workload), self.upstream.workload.as_deref());
        Ingredients {
            source,
            destination,
            identities: self.upstream.security.identities(source, destination),
            service: self.upstream.service.as_deref(),
            cluster: self.upstream.cluster.as_deref(),
            host,
            protocol: self.protocol,
            flags: self.flags.to_string(),
            response: self.response,
        }
    }
}
