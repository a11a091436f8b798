//! VirtualServices that hand rules to others.

use crate::support::World;

const SHOP: &str = "
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop, labels: {app: client}}
spec: {nodeName: n1}
status: {podIP: 10.1.0.1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: catalog, namespace: team}
spec: {clusterIP: 10.0.0.2, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
  - {match: [{uri: {prefix: /catalog}}], timeout: 3s, delegate: {name: catalog, namespace: team}}
  - {route: [{destination: {host: web}}]}
";

const CATALOG: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: catalog, namespace: team}
spec:
  http:
  - {match: [{uri: {prefix: /elsewhere}}], route: [{destination: {host: catalog}}]}
  - {name: items, match: [{uri: {prefix: /catalog/items}}], route: [{destination: {host: catalog}}]}
  - {directResponse: {status: 299}}
";

fn ask(world: &World, path: &str) -> String {
    world.call("shop/client", "10.0.0.1:80", &format!("web{path}")).outcome()
}

fn findings(world: &World) -> Vec<(String, String, String)> {
    let all = weft_rules::rows::warnings(&world.snapshot).into_iter();
    let all = all.filter(|finding| finding.path.ends_with("delegate"));
    all.map(|finding| (finding.code, finding.path, finding.message)).collect()
}

#[test]
fn a_delegates_rules_stand_in_the_place_of_the_one_that_delegates() {
    let world = World::of(&format!("{SHOP}---{CATALOG}"));
    assert_eq!(ask(&world, "/catalog/items/7"), "catalog[]");
    assert_eq!(ask(&world, "/catalog"), "respond 299");
    assert_eq!(ask(&world, "/catalogue"), "respond 299");
    assert_eq!(ask(&world, "/elsewhere"), "web[]");
    let matched = world.call("shop/client", "10.0.0.1:80", "web/catalog/items").route();
    assert_eq!(matched.route.virtual_service.as_deref(), Some("shop/web"));
    assert_eq!(matched.route.delegate.as_deref(), Some("team/catalog"));
    assert_eq!((&*matched.route.name, matched.route.index), ("items", 0));
    assert_eq!(matched.route.timeout.map(|span| span.as_secs()), Some(3));
    let told = findings(&world);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&*told[0].0, &*told[0].1), ("DelegateConflict", "spec.http[0].delegate"));
    assert!(told[0].2.contains("http[0] of VirtualService team/catalog"), "{told:?}");
}

#[test]
fn a_delegate_comes_changes_and_goes() {
    let mut world = World::of(SHOP);
    let fallen_through = "web[]";
    assert_eq!(ask(&world, "/catalog"), fallen_through);
    assert_eq!(findings(&world)[0].0, "UnknownDelegate");
    world.apply(CATALOG);
    assert_eq!(ask(&world, "/catalog"), "respond 299");
    world.apply(&CATALOG.replace("299", "298"));
    assert_eq!(ask(&world, "/catalog"), "respond 298");
    // It has hosts now, and is nobody's delegate.
    world.apply(&CATALOG.replace("spec:", "spec:\n  hosts: [catalog]"));
    assert_eq!(ask(&world, "/catalog"), fallen_through);
    assert!(findings(&world)[0].2.contains("has hosts"));
    world.apply(CATALOG);
    assert_eq!(ask(&world, "/catalog"), "respond 299");
    world.apply(&CATALOG.replace("spec:", "spec:\n  exportTo: [.]"));
    assert_eq!(ask(&world, "/catalog"), fallen_through);
    assert!(findings(&world)[0].2.contains("not exported"));
    world.apply(&CATALOG.replace("spec:", "spec:\n  exportTo: [shop]"));
    assert_eq!(ask(&world, "/catalog"), "respond 299");
    world.delete("VirtualService", "team", "catalog");
    assert_eq!(ask(&world, "/catalog"), fallen_through);
}

#[test]
fn a_host_of_the_root_is_none_of_the_delegates() {
    // A delegate takes no requests by itself.
    let world = World::of(&format!("{SHOP}---{CATALOG}").replace("hosts: [web]", "hosts: [other]"));
    assert_eq!(ask(&world, "/catalog"), "web[]");
}

#[test]
fn what_delegates_bring_has_a_bound_and_leads_nowhere_beyond() {
    use std::fmt::Write as _;
    let many = |count: usize| {
        (0..count).fold(String::new(), |mut all, index| {
            let _ = write!(all, "{{uri: {{exact: /catalog/{index}}}}}, ");
            all
        })
    };
    let rule = format!("  - {{match: [{}], directResponse: {{status: 299}}}}\n", many(400));
    let delegate = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: catalog, namespace: team}}\nspec:\n  http:\n{}",
        rule.repeat(4)
    );
    let root = |host: usize| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: r{host}, namespace: shop}}\nspec:\n  \
             hosts: [h{host}.example]\n  http:\n  - {{match: [{{uri: {{prefix: /catalog}}}}], delegate: {{name: catalog, namespace: team}}}}\n"
        )
    };
    let mut world = World::of(&format!("{SHOP}---\n{delegate}"));
    for host in 0..20 {
        world.apply(&root(host));
    }
    let told = findings(&world);
    // One that was there before has its 1,600 matches; of the twenty, nine have: 16,384 in all.
    let no_room = told.iter().filter(|(code, ..)| code == "TooLarge").count();
    assert_eq!(no_room, 11, "{told:?}");
    let at = |host: usize| {
        world.call("shop/client", "10.0.0.1:80", &format!("h{host}.example/catalog/7")).outcome()
    };
    assert_eq!((at(0), at(19)), ("respond 299".into(), "respond 503".into()));
}

#[test]
fn so_many_may_delegate_to_one() {
    let mut world = World::of(&format!("{SHOP}---{CATALOG}"));
    let roots: Vec<String> = (0..512)
        .map(|number| {
            format!(
                "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: r{number}, namespace: shop}}\nspec:\n  \
                 hosts: [h{number}.example]\n  http: [{{delegate: {{name: catalog, namespace: team}}}}]\n"
            )
        })
        .collect();
    world.apply(&roots.join("---\n"));
    // The first of them all was there before.
    let at = |host: usize| world.call("shop/client", "10.0.0.1:80", &format!("h{host}.example/")).outcome();
    assert_eq!((at(0), at(510), at(511)), ("respond 299".into(), "respond 299".into(), "respond 503".into()));
}
