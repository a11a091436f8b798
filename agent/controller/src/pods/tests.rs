use serde_json::json;

use super::*;

fn pod(name: &str, node: &str, account: &str, phase: &str) -> LeanPod {
    serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": "shop" },
        "spec": { "nodeName": node, "serviceAccountName": account, "containers": [] },
        "status": { "phase": phase },
    }))
    .unwrap()
}

/// Pods after these events.
fn after(events: impl IntoIterator<Item = Event<LeanPod>>) -> Pods {
    let pods = Pods::default();
    let mut fresh = Index::default();
    for event in events {
        pods.take(event, &mut fresh);
    }
    pods
}

/// Pods after a list.
fn listed(all: impl IntoIterator<Item = LeanPod>) -> Vec<Event<LeanPod>> {
    let all = all.into_iter().map(Event::InitApply);
    std::iter::once(Event::Init).chain(all).chain([Event::InitDone]).collect()
}

#[test]
fn what_a_node_makes_by_itself_proves_nothing() {
    let mut made = pod("static", "n1", "", "Running");
    made.metadata.labels = Some([("istio".to_owned(), "ingressgateway".to_owned())].into());
    let served = after(listed([made.clone()]));
    assert!(served.runs("n1", "shop", "default") && served.any_gateway("n1", "shop", |_| true));
    made.metadata.annotations = Some([(MIRROR.to_owned(), "hash".to_owned())].into());
    let pods = after(listed([made]));
    assert!(!pods.runs("n1", "shop", "default") && !pods.any_gateway("n1", "shop", |_| true));
    assert!(pods.gateway_namespaces().is_empty());
}

#[test]
fn an_account_runs_where_a_live_pod_of_it_is() {
    let pods = after(listed([
        pod("a", "n1", "cart", "Running"),
        pod("b", "n1", "", "Pending"),
        pod("c", "n2", "job", "Succeeded"),
        pod("d", "n2", "job", "Failed"),
        pod("e", "", "later", "Pending"),
    ]));
    assert!(pods.runs("n1", "shop", "cart"));
    assert!(pods.runs("n1", "shop", "default"), "no account is the default one");
    for (node, namespace, account) in [
        ("n2", "shop", "cart"),
        ("n1", "other", "cart"),
        ("n1", "shop", "carts"),
        ("n2", "shop", "job"),
        ("", "shop", "later"),
        ("", "", ""),
    ] {
        assert!(!pods.runs(node, namespace, account), "{node} {namespace}/{account}");
    }
    assert_eq!(pods.count(), 2);
}

#[test]
fn the_last_pod_of_an_account_takes_it_along() {
    let running = |name| pod(name, "n1", "cart", "Running");
    let two = || listed([running("a"), running("b")]);
    let runs = |more: Vec<Event<LeanPod>>| after(two().into_iter().chain(more)).runs("n1", "shop", "cart");
    assert!(runs(vec![Event::Delete(running("a"))]));
    assert!(runs(vec![Event::Delete(running("a")), Event::Delete(running("a"))]), "told twice");
    assert!(!runs(vec![Event::Delete(running("a")), Event::Delete(running("b"))]));
    assert!(!runs(vec![Event::Delete(running("a")), Event::Apply(pod("b", "n1", "cart", "Succeeded"))]));
    assert!(!runs(listed([])), "a new list replaces the old one");
}

#[test]
fn a_list_counts_when_it_is_complete() {
    let mut events = listed([pod("a", "n1", "cart", "Running")]);
    let done = events.pop().unwrap();
    let pods = after(events);
    assert!(!pods.is_complete() && !pods.runs("n1", "shop", "cart"));
    pods.take(done, &mut Index::default());
    assert!(pods.is_complete());
}

#[tokio::test]
async fn an_agent_that_is_quicker_than_the_watch_is_waited_for() {
    let pods = after(listed([]));
    let late = async {
        tokio::task::yield_now().await;
        pods.take(Event::Apply(pod("a", "n1", "cart", "Pending")), &mut Index::default());
    };
    let (runs, ()) = tokio::join!(pods.runs_soon("n1", "shop", "cart", Duration::from_mins(1)), late);
    assert!(runs);
    assert!(!pods.runs_soon("n2", "shop", "cart", Duration::from_millis(1)).await);
}
