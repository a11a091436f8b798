use serde_json::json;

use super::*;

const OWN: &str = "weft-system";

/// Seconds after some moment, as Kubernetes writes them.
fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn agent(name: &str, namespace: &str, node: &str, ready: bool, since: i64, ended: Option<i64>) -> LeanPod {
    let ended = ended.map(|at| json!({ "terminated": { "finishedAt": self::at(at).to_string() } }));
    serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": namespace, "uid": name, "labels": { APP: "weft-agent" } },
        "spec": { "nodeName": node },
        "status": {
            "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": at(since).to_string() }],
            "containerStatuses": [{ "state": { "running": {} }, "lastState": ended.unwrap_or_else(|| json!({})) }],
        },
    }))
    .unwrap()
}

fn pod(name: &str, node: &str, status: &str, since: i64) -> LeanPod {
    serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": "shop", "uid": name },
        "spec": { "nodeName": node },
        "status": { "conditions": [{ "type": "weft.dev/Enrolled", "status": status, "lastTransitionTime": at(since).to_string() }] },
    }))
    .unwrap()
}

/// Names of the pods whose conditions are taken back at a second.
fn orphans(all: &[LeanPod], second: i64, missing: &mut HashMap<String, Timestamp>) -> Vec<String> {
    let mut standing = Standing::default();
    for pod in all {
        let name = (pod.namespace().unwrap_or_default(), pod.name_any());
        standing.apply(&name, pod, OWN);
    }
    let mut names: Vec<String> =
        standing.orphans(at(second), missing).into_iter().map(|orphan| orphan.name.1).collect();
    names.sort();
    names
}

#[test]
fn of_a_node_whose_agent_is_not_ready_for_a_while_all_conditions_are_taken_back() {
    let mut missing = HashMap::new();
    let all = [
        agent("agent-1", OWN, "n1", true, 0, None),
        agent("agent-2", OWN, "n2", false, 100, None),
        pod("a", "n1", "True", 10),
        pod("b", "n2", "True", 10),
        pod("c", "n2", "False", 10),
        pod("d", "n2", "Unknown", 10),
    ];
    assert_eq!(orphans(&all, 105, &mut missing), [""; 0], "it may be about to be back");
    assert_eq!(orphans(&all, 110, &mut missing), ["b"]);
    // Another agent of the node serves: the one before has handed over to it.
    let next = agent("agent-3", OWN, "n2", true, 90, None);
    let all: Vec<_> = all.into_iter().chain([next]).collect();
    assert_eq!(orphans(&all, 110, &mut missing), [""; 0]);
}

#[test]
fn what_an_agent_said_after_it_failed_is_its_word() {
    let mut missing = HashMap::new();
    let said = pod("a", "n1", "True", 103);
    let all = [agent("agent", OWN, "n1", false, 100, None), said.clone()];
    assert_eq!(orphans(&all, 200, &mut missing), [""; 0], "it is back, and its readiness comes later");
    let all = [agent("agent", OWN, "n1", false, 100, Some(150)), said];
    assert_eq!(orphans(&all, 155, &mut missing), [""; 0]);
    assert_eq!(orphans(&all, 160, &mut missing), ["a"], "it has died since");
}

#[test]
fn a_node_that_has_no_agent_any_more_is_seen() {
    let mut missing = HashMap::new();
    let all = [pod("a", "n1", "True", 10)];
    assert_eq!(orphans(&all, 100, &mut missing), [""; 0]);
    assert_eq!(orphans(&all, 110, &mut missing), ["a"]);
    let back = [agent("agent", OWN, "n1", true, 111, None), pod("a", "n1", "True", 10)];
    assert_eq!(orphans(&back, 112, &mut missing), [""; 0]);
    assert!(missing.is_empty());
}

#[test]
fn nobody_elses_pod_is_an_agent() {
    let mut missing = HashMap::new();
    let all = [agent("agent", "shop", "n1", true, 0, None), pod("a", "n1", "True", 10)];
    orphans(&all, 100, &mut missing);
    assert_eq!(orphans(&all, 110, &mut missing), ["a"]);
}

#[test]
fn it_is_said_of_that_very_pod_and_why() {
    let orphan = Orphan {
        name: ("shop".to_owned(), "a".to_owned()),
        uid: "u1".to_owned(),
        node: "n2".to_owned(),
        since: at(0),
    };
    let patch = patch(&orphan, at(60));
    assert_eq!(patch["metadata"]["uid"], "u1");
    let condition = &patch["status"]["conditions"][0];
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("Unknown"), &json!("AgentNotReady")));
    assert!(condition["message"].as_str().unwrap().contains("node n2"), "{condition}");
}
