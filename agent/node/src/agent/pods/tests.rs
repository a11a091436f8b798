use super::*;

fn network(key: &str, address: &str) -> PodNetwork {
    PodNetwork { key: key.into(), netns: netns_path("pod"), addresses: vec![address.parse().unwrap()] }
}

fn desired(pods: &[(&str, &str, Result<NetnsId, &str>)]) -> BTreeMap<Arc<str>, Desired> {
    pods.iter()
        .map(|(key, address, netns)| {
            let want = Desired { network: network(key, address), netns: netns.map_err(str::to_owned) };
            (Arc::from(*key), want)
        })
        .collect()
}

fn plan_for(standing: &[(&str, &str, NetnsId)], wanted: &[(&str, &str, Result<NetnsId, &str>)]) -> Plan {
    let standing: Vec<(Arc<str>, PodNetwork, NetnsId)> = standing
        .iter()
        .map(|(key, address, netns)| (Arc::from(*key), network(key, address), *netns))
        .collect();
    plan(standing.iter().map(|(key, network, netns)| (key, network, *netns)), &desired(wanted))
}

#[test]
fn a_pod_that_is_as_it_should_be_is_left_alone() {
    let plan = plan_for(&[("a/x", "10.0.0.1", (1, 1))], &[("a/x", "10.0.0.1", Ok((1, 1)))]);
    assert_eq!(plan, Plan::default());
}

#[test]
fn pods_come_and_go() {
    let plan = plan_for(&[("a/old", "10.0.0.1", (1, 1))], &[("a/new", "10.0.0.2", Ok((1, 2)))]);
    assert_eq!(plan.release, ["a/old".into()]);
    assert_eq!(plan.enrol, [(network("a/new", "10.0.0.2"), (1, 2))]);
}

#[test]
fn a_pod_made_anew_under_its_name_is_enrolled_anew() {
    let plan = plan_for(&[("a/x", "10.0.0.1", (1, 1))], &[("a/x", "10.0.0.1", Ok((1, 9)))]);
    assert_eq!(plan.release, ["a/x".into()]);
    assert_eq!(plan.enrol.len(), 1);
}

#[test]
fn a_missing_namespace_is_waited_for_and_releases_nobody() {
    let plan = plan_for(
        &[("a/x", "10.0.0.1", (1, 1))],
        &[("a/x", "10.0.0.1", Err("gone")), ("a/y", "10.0.0.2", Err("not there"))],
    );
    assert!(plan.release.is_empty() && plan.enrol.is_empty());
    assert_eq!(plan.waiting.keys().map(|key| &**key).collect::<Vec<_>>(), ["a/x", "a/y"]);
}

#[test]
fn two_pods_cannot_share_a_namespace() {
    let plan = plan_for(&[], &[("a/x", "10.0.0.1", Ok((1, 1))), ("a/y", "10.0.0.2", Ok((1, 1)))]);
    assert_eq!(plan.enrol.len(), 1);
    assert_eq!(plan.waiting["a/y"], "its network namespace is pod a/x's already");
}

#[test]
fn the_nodes_own_namespace_is_never_a_pods() {
    let error = find_netns(Path::new("/proc/self/ns/net")).unwrap_err();
    assert!(error.contains("the node's own"), "{error}");
    assert!(find_netns(Path::new("/nowhere/at/all")).unwrap_err().contains("does not exist yet"));
    assert!(find_netns(Path::new("/etc/hostname")).unwrap_err().contains("no network namespace"));
}

#[test]
fn names_and_paths_of_namespaces() {
    assert_eq!(netns_path("reviews"), Path::new("/var/run/netns/reviews"));
    assert_eq!(netns_path("/proc/7/ns/net"), Path::new("/proc/7/ns/net"));
}
