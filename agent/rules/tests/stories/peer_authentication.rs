//! Which mode of mutual TLS a workload's port has.

use weft_rules::guard::Mtls;

use crate::support::World;

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web, tier: front}}
status: {podIP: 10.1.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: far, namespace: shop, labels: {app: far}}
spec: {nodeName: n2}
status: {podIP: 10.2.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: other, labels: {app: web}}
status: {podIP: 10.1.0.2}
---
apiVersion: v1
kind: Pod
metadata: {name: gate, namespace: istio-system, labels: {app: gate}}
status: {podIP: 10.1.0.3}
";

fn policy(namespace: &str, name: &str, created: &str, spec: &str) -> String {
    format!(
        "
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: {created:?}}}
spec: {spec}
"
    )
}

fn mtls(world: &World, pod: &str, port: u16) -> Mtls {
    world.snapshot.mtls(&world.pod(pod), port)
}

fn modes(policies: &[String]) -> [Mtls; 4] {
    let world = World::of(&format!("{PODS}{}", policies.concat()));
    ["shop/web", "shop/far", "other/other", "istio-system/gate"].map(|pod| mtls(&world, pod, 80))
}

#[test]
fn the_narrowest_policy_decides_and_unset_asks_the_wider_one() {
    use Mtls::{Disable, Permissive, Strict};
    let mesh = |mode: &str| policy("istio-system", "default", "", &format!("{{mtls: {{mode: {mode}}}}}"));
    let shop = |mode: &str| policy("shop", "default", "", &format!("{{mtls: {{mode: {mode}}}}}"));
    let web = |mode: &str| {
        policy(
            "shop",
            "web",
            "",
            &format!("{{selector: {{matchLabels: {{app: web}}}}, mtls: {{mode: {mode}}}}}"),
        )
    };
    let empty = policy("shop", "empty", "", "{}");
    let gate =
        policy("istio-system", "gate", "", "{selector: {matchLabels: {app: gate}}, mtls: {mode: DISABLE}}");
    let of_labels =
        policy("istio-system", "web", "", "{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}}");
    for (policies, expected) in [
        (vec![], [Permissive; 4]),
        (vec![mesh("STRICT")], [Strict; 4]),
        (vec![mesh("UNSET")], [Permissive; 4]),
        (vec![mesh("STRICT"), empty], [Strict; 4]),
        (vec![shop("STRICT")], [Strict, Strict, Permissive, Permissive]),
        (vec![mesh("STRICT"), shop("DISABLE")], [Disable, Disable, Strict, Strict]),
        (vec![mesh("STRICT"), shop("UNSET")], [Strict; 4]),
        (vec![mesh("STRICT"), shop("PERMISSIVE"), web("UNSET")], [Permissive, Permissive, Strict, Strict]),
        (vec![shop("STRICT"), web("DISABLE")], [Disable, Strict, Permissive, Permissive]),
        (vec![mesh("STRICT"), web("DISABLE")], [Disable, Strict, Strict, Strict]),
        // A selector in the root namespace selects there and nowhere else.
        (vec![of_labels], [Permissive; 4]),
        (vec![mesh("STRICT"), gate], [Strict, Strict, Strict, Disable]),
    ] {
        assert_eq!(modes(&policies), expected, "{policies:#?}");
    }
}

#[test]
fn the_oldest_of_several_decides() {
    use Mtls::{Permissive, Strict};
    let of = |name: &str, created: &str, mode: &str| {
        policy("shop", name, created, &format!("{{mtls: {{mode: {mode}}}}}"))
    };
    let selecting = |name: &str, created: &str, label: &str, mode: &str| {
        let spec = format!("{{selector: {{matchLabels: {{{label}}}}}, mtls: {{mode: {mode}}}}}");
        policy("shop", name, created, &spec)
    };
    for (policies, expected) in [
        (
            vec![of("a", "2026-02-01T00:00:00Z", "STRICT"), of("b", "2026-01-01T00:00:00Z", "PERMISSIVE")],
            Permissive,
        ),
        (
            vec![of("b", "2026-01-01T00:00:00Z", "STRICT"), of("a", "2026-01-01T00:00:00Z", "PERMISSIVE")],
            Permissive,
        ),
        (vec![of("a", "2026-02-01T00:00:00Z", "DISABLE"), of("b", "", "STRICT")], Strict),
        (
            vec![
                selecting("a", "2026-02-01T00:00:00Z", "app: web", "DISABLE"),
                selecting("b", "2026-01-01T00:00:00Z", "tier: front", "STRICT"),
            ],
            Strict,
        ),
        // The oldest of the workload's own leaves it open: the next of them has no say.
        (
            vec![
                selecting("a", "2026-01-01T00:00:00Z", "app: web", "UNSET"),
                selecting("b", "2026-02-01T00:00:00Z", "tier: front", "STRICT"),
            ],
            Permissive,
        ),
    ] {
        assert_eq!(modes(&policies)[0], expected, "{policies:#?}");
    }
}

#[test]
fn ports_are_the_workloads_own() {
    let world = World::of(&format!(
        "{PODS}{}",
        policy(
            "shop",
            "web",
            "",
            "{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT},
              portLevelMtls: {8080: {mode: DISABLE}, 8081: {mode: UNSET}, 8082: {mode: PERMISSIVE}}}"
        )
    ));
    for (port, expected) in
        [(80, Mtls::Strict), (8080, Mtls::Disable), (8081, Mtls::Strict), (8082, Mtls::Permissive)]
    {
        assert_eq!(mtls(&world, "shop/web", port), expected, "{port}");
    }
    assert_eq!(mtls(&world, "shop/far", 8080), Mtls::Permissive);
}

#[test]
fn a_policy_that_goes_leaves_nothing() {
    let mut world = World::of(&format!("{PODS}{}", policy("shop", "a", "", "{mtls: {mode: STRICT}}")));
    assert_eq!(mtls(&world, "shop/web", 80), Mtls::Strict);
    world.delete("PeerAuthentication", "shop", "a");
    assert_eq!(mtls(&world, "shop/web", 80), Mtls::Permissive);
}
