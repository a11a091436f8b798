//! Istio's standard labels.
//!
//! Source: Istio 1.30, `istio.stats` filter: names, order, and `unknown` for what is not known; a revision that is
//! not known is `latest`. Values that come from the wire are of closed sets, and none is long: who calls, or answers,
//! must not be able to make series at will.

use std::sync::Arc;

use weft_api::identity::Identity;
use weft_rules::upstream::cluster::Service;
use weft_rules::workload::Workload;

/// Labels of metrics about connections, in order.
pub const TCP: [&str; 23] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_flags",
    "connection_security_policy",
];

/// Further labels of metrics about requests.
pub const HTTP: [&str; 2] = ["response_code", "grpc_response_status"];

/// What folded series have where they stand for several values.
pub const OTHER: &str = "other";
/// Longest value: a SPIFFE ID with names as long as Kubernetes has them.
const LONGEST: usize = 640;
/// A status that HTTP does not know.
const NO_STATUS: u16 = u16::MAX;
/// A `grpc-status` that gRPC does not know.
const NO_GRPC_STATUS: u32 = u32::MAX - 1;

/// A response's status, as labels tell it apart: 0 (none was sent), 100 to 599, or one for all others.
pub fn known_status(status: u16) -> u16 {
    if matches!(status, 0 | 100..=599) { status } else { NO_STATUS }
}

/// A `grpc-status`, as labels tell it apart: 0 to 16, or one for all others.
pub fn known_grpc_status(status: u32) -> u32 {
    if status <= 16 { status } else { NO_GRPC_STATUS }
}

/// Values of the labels of one series: of [`TCP`], then for requests of [`HTTP`].
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels {
    values: Box<[Arc<str>]>,
}

/// Which proxy reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reporter {
    /// The caller's.
    Source,
    /// The destination's.
    Destination,
}

/// What labels are made of.
#[derive(Debug)]
pub struct Ingredients<'a> {
    /// The caller, where known.
    pub source: Option<&'a Workload>,
    /// The endpoint's pod, where known.
    pub destination: Option<&'a Workload>,
    /// Identities of source and destination, where both are proved.
    pub identities: [Option<Identity>; 2],
    /// The service, where one was addressed.
    pub service: Option<&'a Service>,
    /// `PassthroughCluster` or `BlackHoleCluster`, where none was.
    pub cluster: Option<&'a str>,
    /// The host asked for, where no service was addressed.
    pub host: Option<&'a str>,
    /// `http`, `grpc` or `tcp`.
    pub protocol: &'static str,
    /// Flags as logged.
    pub flags: String,
    /// Status and `grpc-status` of a request, as [`known_status`] and [`known_grpc_status`] have them.
    pub response: Option<(u16, Option<u32>)>,
}

impl Labels {
    /// A value by its name.
    pub fn get(&self, name: &str) -> &str {
        self.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        TCP.iter().chain(&HTTP).copied().zip(self.values.iter().map(|value| &**value))
    }

    /// The same with [`OTHER`] instead of all but the values of these labels.
    pub fn fold(&self, kept: &[&str]) -> Self {
        let other: Arc<str> = Arc::from(OTHER);
        let fold = |(index, value): (usize, &Arc<str>)| {
            let name = TCP.iter().chain(&HTTP).nth(index);
            if name.is_some_and(|name| kept.contains(name)) { value.clone() } else { other.clone() }
        };
        Self { values: self.values.iter().enumerate().map(fold).collect() }
    }

    /// Fills in every label for one side's report.
    pub fn new(reporter: Reporter, from: &Ingredients<'_>) -> Self {
        let unknown: Arc<str> = Arc::from("unknown");
        let or_unknown = |value: Option<&Arc<str>>| value.map_or_else(|| unknown.clone(), Arc::clone);
        let named = |value: Option<&str>| value.map_or_else(|| unknown.clone(), Arc::from);
        let label = |workload: Option<&Workload>, name: &str| {
            named(workload.and_then(|workload| workload.labels.get(name)).map(String::as_str))
        };
        let revision = |workload: Option<&Workload>| {
            workload.map_or_else(|| Arc::from("latest"), |workload| workload.canonical_revision.clone())
        };
        let cluster = |workload: Option<&Workload>| named(workload.map(|_| "Kubernetes"));
        let (source, destination) = (from.source, from.destination);
        let [from_principal, to_principal] = &from.identities;
        let principal = |identity: &Option<Identity>| {
            identity.as_ref().map_or_else(|| unknown.clone(), |identity| Arc::from(identity.to_string()))
        };
        let mut values = vec![
            Arc::from(if reporter == Reporter::Source { "source" } else { "destination" }),
            or_unknown(source.map(|w| &w.workload_name)),
            or_unknown(source.map(|w| &w.canonical_service)),
            revision(source),
            or_unknown(source.map(|w| &w.namespace)),
            principal(from_principal),
            label(source, "app"),
            label(source, "version"),
            cluster(source),
            or_unknown(destination.map(|w| &w.workload_name)),
            or_unknown(destination.map(|w| &w.namespace)),
            principal(to_principal),
            label(destination, "app"),
            label(destination, "version"),
            from.service.map_or_else(|| named(from.host), |service| service.host.clone()),
            or_unknown(destination.map(|w| &w.canonical_service)),
            revision(destination),
            from.service.map_or_else(|| named(from.cluster), |service| service.name.clone()),
            or_unknown(from.service.map(|service| &service.namespace)),
            cluster(destination),
            Arc::from(from.protocol),
            Arc::from(&*from.flags),
            // As ambient has it: both sides say when it was mutual. Otherwise the caller's side does not tell.
            Arc::from(match (from.identities.iter().all(Option::is_some), reporter) {
                (true, _) => "mutual_tls",
                (false, Reporter::Source) => "unknown",
                (false, Reporter::Destination) => "none",
            }),
        ];
        debug_assert_eq!(values.len(), TCP.len());
        if let Some((status, grpc)) = from.response {
            values.push(if status == NO_STATUS { unknown.clone() } else { Arc::from(status.to_string()) });
            values.push(match grpc {
                None => Arc::from(""),
                Some(NO_GRPC_STATUS) => unknown.clone(),
                Some(status) => Arc::from(status.to_string()),
            });
        }
        values.iter_mut().filter(|value| value.len() > LONGEST).for_each(|value| {
            *value = Arc::from(&value[..value.floor_char_boundary(LONGEST)]);
        });
        Self { values: values.into() }
    }
}
