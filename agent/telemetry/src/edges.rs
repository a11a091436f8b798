//! Who talks to whom: the counters of all series, added up by workload. Costs a request nothing.

use std::collections::BTreeMap;

use weft_api::admin::{EdgeEnd, EdgeRow, EdgeSecurity};

use super::labels::{Labels, OTHER};
use super::registry::AllSeries;
use super::security::{Secured, reason};

/// What makes an edge.
type Key<'a> = ([&'a str; KEY.len()], Secured);

/// Flags of connections that reached nobody.
const NEVER_STOOD: [&str; 4] = ["UF", "UH", "NR", "NC"];

/// The labels that tell edges apart.
const KEY: [&str; 11] = [
    "source_workload_namespace",
    "source_workload",
    "destination_workload_namespace",
    "destination_workload",
    "destination_service",
    "destination_service_name",
    "request_protocol",
    "source_principal",
    "destination_principal",
    "destination_service_namespace",
    "reporter",
];

/// One row for each pair of workloads, service, protocol and way of security; sorted.
pub fn rows(all: &AllSeries) -> Vec<EdgeRow> {
    let mut edges: BTreeMap<Key<'_>, EdgeRow> = BTreeMap::new();
    for series in &all.http {
        let Some(outcome) = series.edge else { continue };
        let row = edge(&mut edges, &series.labels, outcome.secured);
        let (requests, status) = (series.cells.requests.get(), series.labels.get("response_code"));
        row.requests += requests;
        if outcome.refused {
            row.denied += requests;
        } else if status.starts_with('5') || status == "0" {
            row.failed += requests;
        }
    }
    for series in &all.tcp {
        let Some(outcome) = series.edge else { continue };
        let row = edge(&mut edges, &series.labels, outcome.secured);
        let closed = series.cells.closed.get();
        row.connections += series.cells.opened.get();
        if outcome.refused {
            row.denied += closed;
        } else if series.labels.get("response_flags").split(',').any(|flag| NEVER_STOOD.contains(&flag)) {
            row.failed += closed;
        }
        row.bytes_from_source += series.cells.received_bytes.get();
        row.bytes_to_source += series.cells.sent_bytes.get();
    }
    edges.into_values().collect()
}

fn edge<'e, 'a>(
    edges: &'e mut BTreeMap<Key<'a>, EdgeRow>,
    labels: &'a Labels,
    secured: Secured,
) -> &'e mut EdgeRow {
    let key = KEY.map(|name| labels.get(name));
    edges.entry((key, secured)).or_insert_with(|| {
        let known = |name: &str| match labels.get(name) {
            "unknown" => "",
            OTHER if !name.ends_with("_workload") => "",
            value => value,
        };
        let service = match known("destination_service") {
            "" => known("destination_service_name"),
            host => host,
        };
        EdgeRow {
            source: EdgeEnd {
                namespace: known("source_workload_namespace").to_owned(),
                workload: known("source_workload").to_owned(),
                service: String::new(),
                identity: known("source_principal").to_owned(),
                app: known("source_app").to_owned(),
                version: known("source_version").to_owned(),
            },
            destination: EdgeEnd {
                namespace: match known("destination_workload_namespace") {
                    "" => known("destination_service_namespace"),
                    namespace => namespace,
                }
                .to_owned(),
                workload: known("destination_workload").to_owned(),
                service: service.to_owned(),
                identity: known("destination_principal").to_owned(),
                app: known("destination_app").to_owned(),
                version: known("destination_version").to_owned(),
            },
            protocol: labels.get("request_protocol").to_owned(),
            reporter: labels.get("reporter").to_owned(),
            security: match secured {
                Secured::Unknown => EdgeSecurity::Unknown,
                Secured::SameNode => EdgeSecurity::SameNode,
                Secured::MutualTls => EdgeSecurity::MutualTls,
                Secured::Plaintext(_) => EdgeSecurity::Plaintext,
            },
            reason: match secured {
                Secured::Plaintext(why) => reason(why).to_owned(),
                _ => String::new(),
            },
            ..EdgeRow::default()
        }
    })
}
