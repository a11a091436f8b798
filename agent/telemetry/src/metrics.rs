//! Istio's metrics: a worker's side. A request costs one look-up by identity (pointers and numbers) and a few plain
//! stores; text is made only when a combination is seen for the first time.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use weft_rules::upstream::cluster::Service;
use weft_rules::workload::{Enrolment, Workload};

use super::flags::{FlagSet, ResponseFlag};
use super::labels::{Ingredients, Labels, Reporter, known_grpc_status, known_status};
use super::record::{HttpRecord, TcpEvent, TcpRecord, Upstream};
use super::registry::{AllSeries, Registry};
use super::security::Outcome;
use super::series::{HttpCells, Series, TcpCells};

/// Identities remembered before the memory is wiped: they hold pods and services that may be gone.
const MAX_IDENTITIES: usize = 4_096;
/// Hosts outside the mesh that get a label of their own, of each pod that asks for them.
const MAX_HOSTS: usize = 100;
/// Pods whose hosts are remembered before that memory is wiped.
const MAX_ASKERS: usize = 1_024;
/// Longest name of a host, as DNS has it.
const HOST_BYTES: usize = 253;

/// Flags of requests that never reached an endpoint.
const UNDELIVERED: [ResponseFlag; 6] = [
    ResponseFlag::NoHealthyUpstream,
    ResponseFlag::UpstreamConnectionFailure,
    ResponseFlag::NoRouteFound,
    ResponseFlag::NoClusterFound,
    ResponseFlag::FaultInjected,
    ResponseFlag::DownstreamProtocolError,
];

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

type Hosts = HashSet<Box<str>, RandomState>;

/// A worker's counters.
#[derive(Debug)]
pub struct Sink {
    registry: Arc<Registry>,
    node: Arc<str>,
    http: RefCell<Table<HttpCells>>,
    tcp: RefCell<Table<TcpCells>>,
    /// Hosts outside the mesh, by the pod that asked for them.
    hosts: RefCell<HashMap<Arc<str>, Hosts, RandomState>>,
    /// The registry's when this worker last forgot what has ended.
    epoch: Cell<u64>,
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
            epoch: Cell::new(0),
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
            response: Some((known_status(record.status), record.grpc_status.map(known_grpc_status))),
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
        self.forget_ended();
        let mut table = table.borrow_mut();
        let mut buffer = [0; HOST_BYTES];
        let host = facts.host.and_then(|host| self.known_host(facts.source, host, &mut buffer));
        let key = self.key(facts, host);
        let Table { identities, series } = &mut *table;
        if identities.len() >= MAX_IDENTITIES {
            identities.clear();
        }
        let identity = identities.entry(key).or_insert_with(|| {
            let ingredients = facts.ingredients(host);
            let outcome = facts.upstream.outcome();
            let mut find = |reporter, edge| self.find(series, reporter, edge, &ingredients, &register);
            let echo = facts.reporters.0;
            Identity {
                source: facts.reporters.0.then(|| find(Reporter::Source, Some(outcome))),
                destination: facts
                    .reporters
                    .1
                    .then(|| find(Reporter::Destination, (!echo).then_some(outcome))),
                _workloads: [facts.source.cloned(), facts.upstream.workload.clone()],
                _service: facts.upstream.service.clone(),
            }
        });
        for series in [&identity.source, &identity.destination].into_iter().flatten() {
            count(&series.cells);
        }
    }

    /// Lets go of series that are not read any more.
    fn forget_ended(&self) {
        fn forget<Cells: Default>(table: &mut Table<Cells>) {
            table.identities.clear();
            table.series.retain(|_, series| !series.is_retired());
        }
        let epoch = self.registry.epoch();
        if self.epoch.replace(epoch) != epoch {
            forget(&mut self.http.borrow_mut());
            forget(&mut self.tcp.borrow_mut());
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
    ) -> Arc<Series<Cells>> {
        let key = (self.registry.admit(Labels::new(reporter, ingredients)), edge);
        if let Some(series) = known.get(&key) {
            return series.clone();
        }
        let series = Arc::new(Series::new(key.0.clone(), edge));
        self.registry.add(|all| register(all, series.clone()));
        known.insert(key, series.clone());
        series
    }

    /// A host outside the mesh, as its label; `None` for what is no host, and when its caller asks for too many. Callers
    /// choose these names, so that their number and their length must be bounded.
    fn known_host<'b>(
        &self,
        source: Option<&Arc<Workload>>,
        authority: &str,
        buffer: &'b mut [u8; HOST_BYTES],
    ) -> Option<&'b str> {
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => authority,
        };
        let lower = buffer.get_mut(..host.len())?;
        lower.copy_from_slice(host.as_bytes());
        lower.make_ascii_lowercase();
        let host = std::str::from_utf8(lower).ok()?;
        let mut askers = self.hosts.borrow_mut();
        let asker = source.map_or("", |source| &*source.key);
        let known = askers.get(asker);
        if known.is_some_and(|known| known.contains(host)) {
            return Some(host);
        }
        if known.is_some_and(|known| known.len() >= MAX_HOSTS) || !is_host(host) {
            return None;
        }
        if known.is_none() && askers.len() >= MAX_ASKERS {
            askers.clear();
        }
        let asker = source.map_or_else(|| Arc::from(""), |source| source.key.clone());
        askers.entry(asker).or_default().insert(host.into());
        Some(host)
    }
}

/// Whether this may be the name of a host, or an address.
fn is_host(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_*[]:".contains(&byte))
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
