use serde_json::{Value, json};

use super::*;

/// A set, fed by events; answers what they changed.
struct World(Set);

fn item(value: &Value) -> Item {
    serde_json::from_str(&value.to_string()).unwrap()
}

fn rule(name: &str, version: u32, host: &str) -> Item {
    item(&json!({
        "metadata": {"name": name, "namespace": "shop", "uid": name, "resourceVersion": version.to_string()},
        "spec": {"hosts": [host], "http": [{"route": [{"destination": {"host": "web"}}]}]},
    }))
}

fn good(name: &str, version: u32) -> Item {
    rule(name, version, &format!("web-{version}"))
}

fn wrong(name: &str, version: u32) -> Item {
    rule(name, version, "no host at all")
}

impl World {
    fn new() -> Self {
        Self(Set::new(Kind::VirtualService, "n1"))
    }

    fn told(&mut self, events: impl FnOnce(&mut Set, &mut Delta)) -> Vec<String> {
        let mut delta = Delta::default();
        events(&mut self.0, &mut delta);
        let mut told: Vec<String> = delta
            .changes
            .iter()
            .map(|change| match change {
                Change::Put(object) => format!("+{}", object.metadata().name),
                Change::Delete(key) => format!("-{}", key.name),
            })
            .collect();
        told.extend(delta.reports.iter().map(|report| {
            format!("{}{}", if report.problems.is_empty() { "ok " } else { "bad " }, report.key.name)
        }));
        told
    }

    fn list(&mut self, items: &[Item]) -> Vec<String> {
        let items = items.to_vec();
        self.told(|set, delta| {
            set.begin();
            for item in &items {
                set.put(item, delta);
            }
            set.complete(delta);
        })
    }

    fn put(&mut self, item: &Item) -> Vec<String> {
        self.told(|set, delta| set.put(item, delta))
    }

    fn gone(&mut self, item: &Item) -> Vec<String> {
        self.told(|set, delta| set.gone(item, delta))
    }
}

#[test]
fn a_list_replaces_what_was_known_and_does_not_touch_what_is_the_same() {
    let mut world = World::new();
    assert_eq!(world.list(&[good("a", 1), good("b", 1), good("c", 1)]), ["+a", "+b", "+c"]);
    assert_eq!(world.0.in_force(), 3);
    assert_eq!(world.list(&[good("a", 1), good("b", 2), good("d", 1)]), ["+b", "+d", "-c"]);
    assert_eq!(world.0.in_force(), 3);
}

#[test]
fn a_list_that_breaks_off_deletes_nothing() {
    let mut world = World::new();
    world.list(&[good("a", 1), good("b", 1)]);
    let told = world.told(|set, delta| {
        set.begin();
        set.put(&good("a", 1), delta);
    });
    assert_eq!(told, [""; 0]);
    assert_eq!(world.list(&[good("a", 1), good("b", 1)]), [""; 0]);
    assert_eq!(world.list(&[good("b", 1)]), ["-a"]);
}

#[test]
fn events_change_one_object() {
    let mut world = World::new();
    world.list(&[good("a", 1)]);
    assert_eq!(world.put(&good("a", 2)), ["+a"]);
    assert_eq!(world.put(&good("b", 3)), ["+b"]);
    assert_eq!(world.gone(&good("a", 4)), ["-a"]);
    assert_eq!(world.gone(&good("a", 4)), [""; 0]);
    assert_eq!(world.0.in_force(), 1);
}

#[test]
fn a_change_of_what_weft_does_not_read_is_none() {
    let mut world = World::new();
    world.list(&[rule("a", 1, "web")]);
    assert_eq!(world.put(&rule("a", 2, "web")), [""; 0]);
}

#[test]
fn a_refused_version_keeps_the_last_good_one_and_is_reported_until_it_is_mended() {
    let mut world = World::new();
    world.list(&[good("a", 1)]);
    assert_eq!(world.put(&wrong("a", 2)), ["bad a"]);
    assert_eq!(world.0.in_force(), 1);
    // Listed again in the same version: nothing new.
    assert_eq!(world.list(&[wrong("a", 2)]), [""; 0]);
    assert_eq!(world.put(&good("a", 1)), ["ok a"]);
    assert_eq!(world.put(&good("a", 3)), ["+a"]);
}

#[test]
fn one_that_was_never_good_is_reported_and_not_in_force() {
    let mut world = World::new();
    assert_eq!(world.list(&[wrong("a", 1)]), ["bad a"]);
    assert_eq!(world.0.in_force(), 0);
    assert_eq!(world.gone(&wrong("a", 2)), ["ok a"]);
}

#[test]
fn one_that_is_deleted_and_made_again_under_its_name_is_another() {
    let mut world = World::new();
    world.list(&[good("a", 1)]);
    world.gone(&good("a", 1));
    assert_eq!(world.put(&good("a", 1)), ["+a"]);
}

#[test]
fn of_pods_of_other_nodes_nothing_is_said() {
    let mut pods = Set::new(Kind::Pod, "n1");
    let pod = |name: &str, node: &str| {
        item(&json!({
            "metadata": {"name": name, "namespace": "shop", "uid": name, "resourceVersion": "1",
                "annotations": {"traffic.weft.dev/excludeOutboundIPRanges": "10.0.0.0/8"}},
            "spec": {"nodeName": node, "containers": []},
        }))
    };
    let mut delta = Delta::default();
    pods.put(&pod("here", "n1"), &mut delta);
    pods.put(&pod("there", "n2"), &mut delta);
    assert_eq!(delta.changes.len(), 2, "both are known");
    let told: Vec<_> = delta.reports.iter().map(|report| &*report.key.name).collect();
    assert_eq!(told, ["here"]);
    assert_eq!(delta.reports[0].not_in_force.len(), 1);
}
