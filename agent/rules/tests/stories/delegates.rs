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

/// Rules of a mebibyte, and who delegates to them four times.
fn large() -> (String, impl Fn(usize) -> String) {
    let body = "x".repeat(1 << 20);
    let delegate = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: large, namespace: big}}\nspec:\n  http:\n  \
         - {{directResponse: {{status: 299, body: {{string: {body}}}}}}}\n"
    );
    let root = |number: usize| {
        let rule = "{match: [{uri: {prefix: /}}], delegate: {name: large, namespace: big}}";
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: r{number}, namespace: shop}}\nspec:\n  \
             hosts: [h{number}.example]\n  http: [{rule}, {rule}, {rule}, {rule}]\n"
        )
    };
    (delegate, root)
}

/// What five hosts with such rules answer.
fn answers(world: &World) -> [String; 5] {
    std::array::from_fn(|host| {
        world.call("shop/client", "10.0.0.1:80", &format!("h{host}.example/")).outcome()
    })
}

#[test]
fn what_delegates_bring_has_a_bound_and_leads_nowhere_beyond() {
    let (delegate, root) = large();
    let (taken, refused) = ("respond 299", "respond 503");
    let mut world = World::of(&format!("{SHOP}---{CATALOG}---\n{delegate}"));
    for number in (0..5).rev() {
        world.apply(&root(number));
    }
    // It is the same three whatever came first.
    assert_eq!(answers(&world), [taken, taken, taken, refused, refused]);
    let told = findings(&world);
    assert_eq!(told.iter().filter(|(code, ..)| code == "TooLarge").count(), 2 * 4, "{told:?}");
    assert_eq!(ask(&world, "/catalog"), taken, "other delegates have room of their own");
    // Room that is given back is the next one's, without a word from it.
    world.delete("VirtualService", "shop", "r1");
    assert_eq!(answers(&world)[2..], [taken, taken, refused]);
    world.apply(&root(1));
    assert_eq!(answers(&world), [taken, taken, taken, refused, refused]);
    world.apply(&delegate.replace(&"x".repeat(1 << 19), ""));
    assert_eq!(answers(&world), [taken; 5]);
}

#[test]
fn what_is_hidden_takes_no_room() {
    let (delegate, root) = large();
    let mut world = World::of(&format!("{SHOP}---\n{delegate}"));
    (0..5).for_each(|number| world.apply(&root(number)));
    let others =
        |number| root(number).replace("namespace: shop", "namespace: bank").replace(".example", ".bank");
    (0..5).for_each(|number| world.apply(&others(number)));
    // To that of another namespace alone.
    world.apply(&delegate.replace("spec:", "spec:\n  exportTo: [bank]"));
    assert_eq!(answers(&world)[0], "web[]", "no rule is left");
    let told = findings(&world);
    let of = |code: &str| told.iter().filter(|(other, ..)| other == code).count();
    // The catalog is not there either.
    assert_eq!((of("UnknownDelegate"), of("TooLarge")), (5 * 4 + 1, 2 * 4), "{told:?}");
}
