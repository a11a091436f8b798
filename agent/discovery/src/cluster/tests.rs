use super::*;

fn batch(watch: &str, state: State, in_force: usize) -> News {
    answer(watch, state, in_force, 0)
}

fn answer(watch: &str, state: State, in_force: usize, caught_up: u64) -> News {
    News::Objects(Batch {
        watch: watch.into(),
        delta: Delta::default(),
        in_force,
        state,
        caught_up,
        room: None,
    })
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::knowing_of(
        &Watched::all("istio-system"),
        mpsc::unbounded_channel().0,
        watch_channel::channel(0).0,
    );
    let names: Vec<Arc<str>> = cluster.watches.keys().cloned().collect();
    for name in names.iter().filter(|name| !["Pod", "Service"].contains(&&***name)) {
        let state = if **name == *"VirtualService" { State::Absent } else { State::Current };
        cluster.take(batch(name, state, 0));
    }
    cluster
}

#[test]
fn the_first_lists_are_waited_for_and_absent_kinds_are_not() {
    let mut cluster = cluster();
    assert_eq!(cluster.waiting_for(), ["lists of Pod, Service"]);
    cluster.take(batch("Service", State::Failing("services is forbidden (403)".into()), 0));
    assert_eq!(cluster.waiting_for(), ["lists of Pod", "list of Service: services is forbidden (403)"]);
    let away = Away { since: std::time::SystemTime::UNIX_EPOCH, why: "connection refused".into() };
    cluster.take(News::Contact(Some(away)));
    assert_eq!(
        cluster.waiting_for(),
        ["lists of Pod, Service", "the API server does not answer: connection refused"]
    );
    cluster.take(News::Contact(None));
    cluster.take(batch("Pod", State::Current, 3));
    cluster.take(batch("Service", State::Current, 0));
    assert!(cluster.is_complete() && cluster.waiting_for().is_empty());
    assert_eq!(cluster.counts(), BTreeMap::from([("Pod".to_owned(), 3)]));
}

#[test]
fn what_is_interrupted_later_is_told_and_not_waited_for() {
    let mut cluster = cluster();
    cluster.take(batch("Pod", State::Current, 1));
    cluster.take(batch("Service", State::Current, 1));
    cluster.take(batch("Pod", State::Failing("gone".into()), 1));
    assert!(cluster.waiting_for().is_empty() && cluster.is_complete());
    assert_eq!(cluster.troubles(), ["watch of Pod: gone"]);
    let away = Away { since: std::time::SystemTime::UNIX_EPOCH, why: "no answer".into() };
    cluster.take(News::Contact(Some(away)));
    assert_eq!(cluster.troubles(), ["the API server does not answer since 1970-01-01T00:00:00Z: no answer"]);
}

#[test]
fn who_asks_for_all_waits_for_the_watches_that_stand() {
    let mut cluster = cluster();
    cluster.take(batch("Pod", State::Current, 1));
    cluster.take(batch("Service", State::Failing("gone".into()), 1));
    cluster.catch_up();
    assert!(cluster.waiting_for().contains(&"news of Pod".to_owned()));
    assert!(!cluster.waiting_for().contains(&"news of Service".to_owned()));
    assert!(!cluster.waiting_for().contains(&"news of VirtualService".to_owned()));
    let names: Vec<Arc<str>> = cluster.watches.keys().cloned().collect();
    for name in names {
        let state = cluster.watches[&name].state.clone();
        cluster.take(answer(&name, state, 1, 1));
    }
    assert_eq!(cluster.waiting_for(), ["list of Service: gone"]);
}
