//! The admin API's answers, from what the agent publishes.

use std::sync::Arc;

use weft_api::admin::{
    EndpointRow, ExplainRequest, Explanation, Mode, RouteRow, Status, Worker, WorkloadRow,
};

use crate::agent::Shared;

/// `weft status`.
pub fn status(shared: &Shared) -> Status {
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
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: shared.options.node.clone(),
        mode: Mode::Standalone,
        generation: view.generation,
        ready,
        waiting_for,
        workers,
        pods: view.pods.clone(),
        objects: view.objects.clone(),
        refused: view.refused.clone(),
        not_in_force: view.not_in_force.clone(),
        datapath: weft_api::admin::Datapath::default(),
    }
}

/// `weft get routes`.
pub fn routes(shared: &Shared) -> Vec<RouteRow> {
    let _ = shared;
    Vec::new()
}

/// `weft get endpoints`.
pub fn endpoints(shared: &Shared) -> Vec<EndpointRow> {
    let _ = shared;
    Vec::new()
}

/// `weft get workloads`.
pub fn workloads(shared: &Shared) -> Vec<WorkloadRow> {
    let snapshot = shared.snapshot.load();
    let view = shared.view.load();
    let mut rows: Vec<WorkloadRow> = snapshot
        .workloads()
        .map(|workload| {
            let local = view
                .pods
                .iter()
                .find(|pod| *pod.namespace == *workload.namespace && *pod.name == *workload.name);
            let _ = Arc::clone(workload);
            WorkloadRow {
                namespace: workload.namespace.to_string(),
                name: workload.name.to_string(),
                owner: Some(workload.workload_name.to_string()),
                addresses: workload.addresses.iter().map(ToString::to_string).collect(),
                node: (!workload.node.is_empty()).then(|| workload.node.to_string()),
                identity: format!(
                    "spiffe://{}/ns/{}/sa/{}",
                    shared.options.trust_domain, workload.namespace, workload.service_account
                ),
                labels: (*workload.labels).clone(),
                services: Vec::new(),
                enrolled: local.is_some_and(|pod| pod.enrolled),
                reason: local.and_then(|pod| pod.reason.clone()),
            }
        })
        .collect();
    rows.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    rows
}

/// `weft explain`. `Err` is a sentence about the question.
pub fn explain(shared: &Shared, question: &ExplainRequest) -> Result<Explanation, String> {
    let _ = (shared, question);
    Err("explain is not there yet".to_owned())
}
