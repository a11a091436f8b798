//! The admin API's answers, from what the agent publishes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use weft_api::admin::{
    Certificates, EndpointRow, ExplainRequest, Explanation, GatewayRow, Mode, PodEnrolment, PolicyRow,
    RouteRow, SecretRow, Status, Worker, WorkloadRow,
};
use weft_datapath::DatapathStatus;
use weft_rules::explain::ExplainError;
use weft_rules::{explain, rows};

use crate::agent::{Shared, SourceOptions};

/// `weft status`. `datapath` is missing while the control thread is busy.
pub fn status(shared: &Shared, datapath: Option<&DatapathStatus>) -> Status {
    let view = shared.view.load();
    let mut waiting_for = shared.readiness.waiting_for();
    let ready = waiting_for.is_empty();
    waiting_for.extend(view.waiting_for.iter().cloned());
    let workers = (0..shared.options.workers)
        .map(|index| Worker {
            index,
            generation: view.workers.get(index).copied().unwrap_or(0),
            connections: shared.telemetry.connections(index),
        })
        .collect();
    let mut pods = view.pods.to_vec();
    if let Some(datapath) = datapath {
        add_counters(&mut pods, datapath);
    }
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        fips: weft_identity::crypto::is_fips(),
        node: shared.options.node.clone(),
        mode: match shared.options.source {
            SourceOptions::Folder(_) => Mode::Standalone,
            SourceOptions::Cluster(_) => Mode::Cluster,
        },
        generation: view.generation,
        ready,
        waiting_for,
        troubles: [view.troubles.clone(), shared.keyring.troubles(), closed_servers(shared)].concat(),
        workers,
        pods,
        objects: view.objects.clone(),
        refused: view.refused.clone(),
        not_in_force: view.not_in_force.clone(),
        warnings: rows::warnings(&shared.snapshot.load_full()),
        datapath: weft_api::admin::Datapath {
            kernel: kernel.trim().to_owned(),
            bpf_dir: shared.options.bpf_dir.display().to_string(),
            unproven: datapath.map(|datapath| datapath.unproven.clone()).unwrap_or_default(),
            ..weft_api::admin::Datapath::default()
        },
        certificates: certificates(shared),
        full: shared.telemetry.full(),
        limits: weft_limits::report::status(&shared.limits),
    }
}

fn add_counters(pods: &mut [PodEnrolment], datapath: &DatapathStatus) {
    let by_key: HashMap<&str, _> = datapath.pods.iter().map(|pod| (&*pod.key, pod)).collect();
    for row in pods {
        if let Some(pod) = by_key.get(&*format!("{}/{}", row.namespace, row.name)) {
            row.captured_outbound = pod.captured;
            row.captured_inbound = pod.assigned;
            row.refused_connections = pod.refused_no_agent + pod.refused_limit + pod.unpublished;
        }
    }
}

/// `weft get routes`.
pub fn routes(shared: &Shared) -> Vec<RouteRow> {
    rows::routes(&shared.snapshot.load_full())
}

/// `weft get endpoints`.
pub fn endpoints(shared: &Shared) -> Vec<EndpointRow> {
    rows::endpoints(&shared.snapshot.load_full())
}

/// `weft get workloads`. Of pods on this node it tells whether they are captured, not only whether they should be.
pub fn workloads(shared: &Shared) -> Vec<WorkloadRow> {
    let mut all = rows::workloads(&shared.snapshot.load_full(), &shared.options.trust_domain);
    let view = shared.view.load();
    let local: HashMap<(&str, &str), &PodEnrolment> =
        view.pods.iter().map(|pod| ((&*pod.namespace, &*pod.name), pod)).collect();
    for row in &mut all {
        if let Some(pod) = local.get(&(&*row.namespace, &*row.name)) {
            row.enrolled = pod.enrolled;
            row.reason.clone_from(&pod.reason);
        }
    }
    all
}

/// `weft get policies`.
pub fn policies(shared: &Shared) -> Vec<PolicyRow> {
    rows::policies(&shared.snapshot.load_full())
}

/// `weft get gateways`.
pub fn gateways(shared: &Shared) -> Vec<GatewayRow> {
    rows::gateways(&shared.snapshot.load_full())
}

/// What people should know of gateways that do not serve.
fn closed_servers(shared: &Shared) -> Vec<String> {
    let closed = shared.credentials.closed();
    closed.iter().map(|why| format!("a gateway's server is closed: {why}")).collect()
}

/// `weft get secrets`.
pub fn secrets(shared: &Shared) -> Vec<SecretRow> {
    shared.credentials.rows()
}

/// `weft get certificates`.
pub fn certificates(shared: &Shared) -> Certificates {
    shared.identities.as_ref().map(|identities| identities.status()).unwrap_or_default()
}

/// `weft explain`. An error is a sentence about the question.
pub fn explanation(shared: &Shared, question: &ExplainRequest) -> Result<Explanation, ExplainError> {
    let snapshot = shared.snapshot.load_full();
    match &question.from_address {
        Some(address) if question.from.is_empty() && is_own(address) => {
            explain::answer_for_node(&snapshot, address, question)
        }
        _ => explain::answer(&snapshot, question, shared.identities.is_some()),
    }
}

/// Whether an address is one of the node's.
fn is_own(address: &str) -> bool {
    let own = weft_datapath::addresses_in(Path::new("/proc/self/ns/net"));
    match (address.parse::<IpAddr>(), own) {
        (Ok(address), Ok(own)) => own.contains(&address.to_canonical()),
        _ => false,
    }
}
