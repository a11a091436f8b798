//! How far what was applied has come: ready, or what stands in the way.

use std::time::{Duration, Instant};

use anyhow::bail;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{ListParams, LogParams};

use super::object::Key;
use crate::cluster::Cluster;

/// The reason for a container that waits for its next attempt.
const CRASH_LOOP: &str = "CrashLoopBackOff";
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// How far something has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Nothing more is to come.
    pub ready: bool,
    /// How many are ready, and what the others wait for.
    pub told: String,
}

impl State {
    fn of(ready: i32, wanted: i32, is_current: bool, problems: &[String]) -> Self {
        let told = match (is_current, problems) {
            (false, []) => "is being rolled out".to_owned(),
            (_, []) => format!("{ready} of {wanted} ready"),
            (_, problems) => format!("{ready} of {wanted} ready; {}", problems.join("; ")),
        };
        Self { ready: is_current && ready == wanted && wanted > 0, told }
    }
}

/// Waits until all are ready; says each step.
pub async fn wait(
    cluster: &Cluster,
    keys: &[Key],
    patience: Duration,
    mut say: impl FnMut(&Key, &State),
) -> anyhow::Result<()> {
    let until = Instant::now() + patience;
    let mut last: Vec<Option<State>> = vec![None; keys.len()];
    loop {
        for (key, last) in keys.iter().zip(&mut last) {
            if last.as_ref().is_some_and(|state| state.ready) {
                continue;
            }
            let state = look(cluster, key).await?;
            if last.as_ref() != Some(&state) {
                say(key, &state);
                *last = Some(state);
            }
        }
        let pending: Vec<String> = keys
            .iter()
            .zip(&last)
            .filter_map(|(key, state)| state.as_ref().filter(|state| !state.ready).map(|state| (key, state)))
            .map(|(key, state)| format!("{key}: {}", state.told))
            .collect();
        if pending.is_empty() {
            return Ok(());
        }
        if Instant::now() >= until {
            bail!("not ready after {} s:\n  {}", patience.as_secs(), pending.join("\n  "));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Looks at one object.
pub async fn look(cluster: &Cluster, key: &Key) -> anyhow::Result<State> {
    let gone = || State { ready: false, told: "is not there".to_owned() };
    let told = |error| cluster.told(error);
    match &*key.kind {
        "CustomResourceDefinition" => {
            let found: Option<CustomResourceDefinition> =
                cluster.all().get_opt(&key.name).await.map_err(told)?;
            let is = kube::runtime::wait::conditions::is_crd_established();
            let ready = kube::runtime::wait::Condition::matches_object(&is, found.as_ref());
            Ok(State { ready, told: if ready { "established" } else { "is not established yet" }.to_owned() })
        }
        "Deployment" => {
            let Some(found): Option<Deployment> =
                cluster.api(&key.namespace).get_opt(&key.name).await.map_err(told)?
            else {
                return Ok(gone());
            };
            let (generation, status) = (found.metadata.generation, found.status.unwrap_or_default());
            let wanted = found.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            let current = status.observed_generation >= generation
                && status.updated_replicas.unwrap_or(0) == wanted
                && status.replicas.unwrap_or(0) == wanted;
            let ready = status.available_replicas.unwrap_or(0);
            let failed = status.conditions.into_iter().flatten();
            let mut problems: Vec<String> = failed
                .filter(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")
                .filter_map(|condition| condition.message)
                .collect();
            let labels = found.spec.and_then(|spec| spec.selector.match_labels).unwrap_or_default();
            if !current || ready < wanted {
                problems.extend(pod_problems(cluster, &key.namespace, &selector(&labels)).await?);
            }
            // None wanted is what somebody wanted.
            let mut state = State::of(ready, wanted, current, &problems);
            state.ready |= current && wanted == 0;
            Ok(state)
        }
        "DaemonSet" => {
            let Some(found): Option<DaemonSet> =
                cluster.api(&key.namespace).get_opt(&key.name).await.map_err(told)?
            else {
                return Ok(gone());
            };
            let (generation, status) = (found.metadata.generation, found.status.unwrap_or_default());
            let wanted = status.desired_number_scheduled;
            let current = status.observed_generation >= generation
                && status.updated_number_scheduled.unwrap_or(0) == wanted;
            let ready = status.number_available.unwrap_or(0);
            let labels = found.spec.and_then(|spec| spec.selector.match_labels).unwrap_or_default();
            let mut problems = Vec::new();
            if !current || ready < wanted {
                problems = pod_problems(cluster, &key.namespace, &selector(&labels)).await?;
                if problems.is_empty() && status.current_number_scheduled < wanted {
                    problems.extend(last_warning(cluster, key).await?);
                }
            } else if wanted == 0 && status.observed_generation >= generation {
                problems.push("no node takes it".to_owned());
            }
            Ok(State::of(ready, wanted, current, &problems))
        }
        _ => bail!("nobody waits for {key}"),
    }
}

/// Labels as the API server takes them.
pub fn selector(labels: &std::collections::BTreeMap<String, String>) -> String {
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

/// What holds pods up, one line for each.
pub async fn pod_problems(cluster: &Cluster, namespace: &str, labels: &str) -> anyhow::Result<Vec<String>> {
    let pods = cluster.api::<Pod>(namespace);
    let all = pods.list(&ListParams::default().labels(labels)).await.map_err(|error| cluster.told(error))?;
    let mut problems = Vec::new();
    for pod in all.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let Some(mut problem) = problem(&pod) else { continue };
        if problem.contains(CRASH_LOOP) {
            let how = LogParams { previous: true, tail_lines: Some(1), ..LogParams::default() };
            if let Ok(words) = pods.logs(&pod.name_any(), &how).await
                && !words.trim().is_empty()
            {
                problem = format!("{problem}; its last words: {}", words.trim());
            }
        }
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("no node");
        problems.push(format!("{} on {node}: {problem}", pod.name_any()));
    }
    Ok(problems)
}

/// What a pod waits for; `None` if it is ready.
pub fn problem(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let is = |kind: &str, value: &str| {
        conditions.iter().find(|condition| condition.type_ == kind && condition.status == value)
    };
    if is("Ready", "True").is_some() {
        return None;
    }
    if let Some(unscheduled) = is("PodScheduled", "False") {
        return Some(format!("no place: {}", unscheduled.message.as_deref().unwrap_or("unscheduled")));
    }
    if let Some(reason) = status.reason.as_deref().filter(|_| status.phase.as_deref() == Some("Failed")) {
        return Some(format!("{reason}: {}", status.message.as_deref().unwrap_or_default()));
    }
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten())
        .find_map(container_problem)
        .or_else(|| Some("is starting".to_owned()))
}

fn container_problem(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref()?;
    let ended =
        |code: i32, reason: Option<&str>| format!("ended with {code} ({})", reason.unwrap_or("no reason"));
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or("waiting");
        if matches!(reason, "ContainerCreating" | "PodInitializing") {
            return Some("is starting".to_owned());
        }
        // What follows a crash loop are the names of the container and the pod.
        let message = waiting.message.as_deref().filter(|_| reason != CRASH_LOOP).unwrap_or_default();
        return Some(format!("{reason} {message}").trim().to_owned());
    }
    if let Some(over) = &state.terminated {
        return Some(ended(over.exit_code, over.reason.as_deref()));
    }
    let last = container.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    let before = last.map(|over| ended(over.exit_code, over.reason.as_deref()));
    (!container.ready).then(|| match before {
        Some(before) => format!("runs and is not ready; before, it {before}"),
        None => "runs and is not ready yet".to_owned(),
    })
}

/// The newest complaint about an object.
async fn last_warning(cluster: &Cluster, key: &Key) -> anyhow::Result<Option<String>> {
    let of = format!("involvedObject.kind={},involvedObject.name={},type=Warning", key.kind, key.name);
    let events = cluster.api::<Event>(&key.namespace).list(&ListParams::default().fields(&of)).await;
    let events = events.map_err(|error| cluster.told(error))?.items;
    let newest = events.into_iter().max_by_key(|event| event.last_timestamp.clone().map(|time| time.0));
    Ok(newest.and_then(|event| event.message))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
    }

    #[test]
    fn a_pods_problem_is_told() {
        let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        assert_eq!(problem(&pod(&ready)), None);
        let unplaced =
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/2 nodes"}]});
        assert_eq!(problem(&pod(&unplaced)).unwrap(), "no place: 0/2 nodes");
        let container = |state: &serde_json::Value| {
            json!({"containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 1,
                "state": state, "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}]})
        };
        let pull = container(&json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}));
        assert_eq!(problem(&pod(&pull)).unwrap(), "ImagePullBackOff no such image");
        let unready = container(&json!({"running": {}}));
        assert_eq!(
            problem(&pod(&unready)).unwrap(),
            "runs and is not ready; before, it ended with 1 (Error)"
        );
    }

    #[test]
    fn a_rollout_is_done_when_all_are_current_and_ready() {
        assert!(State::of(2, 2, true, &[]).ready);
        assert!(!State::of(2, 2, false, &[]).ready);
        assert!(!State::of(0, 0, true, &[]).ready);
        assert_eq!(State::of(1, 2, true, &["p: x".to_owned()]).told, "1 of 2 ready; p: x");
    }
}
