//! Files in, lines out.

use super::analyze;

fn told(files: &[(&str, &str)]) -> Vec<String> {
    analyze(files)
        .iter()
        .map(|f| {
            format!(
                "{} {} {} {} {}",
                f.location().unwrap_or_default(),
                f.severity,
                f.code,
                f.resource,
                f.path
            )
        })
        .collect()
}

const SERVICES: &str = "\
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-1, namespace: shop, labels: {app: reviews, version: v1}}
";

fn rule(name: &str, spec: &str) -> String {
    let spec = spec.replace('\n', "\n  ");
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  {spec}\n"
    )
}

#[test]
fn names_that_do_not_resolve_are_warnings() {
    let virtual_service = rule(
        "reviews",
        "hosts: [reviews]\nhttp:\n- route:\n  - destination:\n      host: reviews\n      subset: v2\n      port: {number: 80}\n  mirror:\n    host: reviews.shop",
    );
    let destination_rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: reviews, namespace: shop}\nspec:\n  \
                            host: reviews\n  subsets:\n  - name: v1\n    labels: {version: v1}\n  - name: v3\n    labels: {version: v3}\n";
    assert_eq!(
        told(&[("svc.yaml", SERVICES), ("vs.yaml", &virtual_service), ("dr.yaml", destination_rule)]),
        [
            "vs.yaml:10 warning UnknownSubset VirtualService/shop/reviews spec.http[0].route[0].destination.subset",
            "vs.yaml:11 warning UnknownPort VirtualService/shop/reviews spec.http[0].route[0].destination.port.number",
            "vs.yaml:13 warning UnknownHost VirtualService/shop/reviews spec.http[0].mirror.host",
            "dr.yaml:10 warning EmptySubset DestinationRule/shop/reviews spec.subsets[1].labels",
        ]
    );
    let alone = told(&[("vs.yaml", &virtual_service)]);
    assert!(
        alone.iter().all(|line| line.contains(" info ")),
        "a file by itself is not meant to be complete: {alone:?}"
    );
}

#[test]
fn the_loser_is_named() {
    let older = rule("a", "hosts: [reviews]\nhttp: [{route: [{destination: {host: reviews}}]}]")
        .replace("name: a", "name: a, creationTimestamp: '2026-01-02T00:00:00Z'");
    let newer = rule(
        "b",
        "hosts: [reviews.shop.svc.cluster.local]\nhttp: [{route: [{destination: {host: reviews}}]}]",
    )
    .replace("name: b", "name: b, creationTimestamp: '2026-01-01T00:00:00Z'");
    let files = [("svc.yaml", SERVICES), ("a.yaml", older.as_str()), ("b.yaml", newer.as_str())];
    assert_eq!(told(&files), ["a.yaml:5 warning Shadowed VirtualService/shop/a spec.hosts[0]"]);
    let elsewhere =
        newer.replace("spec:", "spec:\n  exportTo: [other]").replace("namespace: shop", "namespace: other");
    let own = older.replace("spec:", "spec:\n  exportTo: [.]");
    assert_eq!(
        told(&[("svc.yaml", SERVICES), ("a.yaml", &own), ("b.yaml", &elsewhere)]).len(),
        1,
        "only the unknown host"
    );
}

#[test]
fn rules_for_another_protocol_and_ports_without_one() {
    let text = rule("reviews", "hosts: [reviews]\ntcp: [{route: [{destination: {host: reviews}}]}]");
    assert_eq!(
        told(&[("svc.yaml", SERVICES), ("vs.yaml", &text)]),
        ["vs.yaml:5 warning ProtocolMismatch VirtualService/shop/reviews spec.hosts[0]"]
    );
    let unnamed = SERVICES.replace("name: http, ", "");
    assert_eq!(
        told(&[("svc.yaml", &unnamed), ("vs.yaml", &text)]),
        ["svc.yaml:6 info PortNaming Service/shop/reviews spec.ports[0].name"]
    );
}

#[test]
fn the_same_object_twice() {
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n";
    let twice = [("a.yaml", format!("{namespace}{SERVICES}")), ("b.yaml", format!("{namespace}{SERVICES}"))];
    assert_eq!(
        analyze(&twice).iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "warning DuplicateObject Service/shop/reviews: the object is there twice, also at a.yaml:5 (keep one: which of them holds is chance)",
            "warning DuplicateObject Pod/shop/reviews-1: the object is there twice, also at a.yaml:12 (keep one: which of them holds is chance)",
        ]
    );
}

#[test]
fn the_same_every_time() {
    let many: Vec<(String, String)> = (0..30)
        .map(|i| {
            (
                format!("{i}.yaml"),
                rule(&format!("r{i}"), "hosts: [reviews]\nhttp: [{route: [{destination: {host: x}}]}]"),
            )
        })
        .collect();
    let first = analyze(&many);
    assert!(first.len() > 30);
    assert_eq!(analyze(&many), first);
}

#[test]
fn a_network_policy_without_the_tunnels_port_is_told_where_the_mesh_is() {
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web, namespace: shop}\nspec:\n  \
                  podSelector: {matchLabels: {app: web}}\n  ingress:\n  - from: [{podSelector: {}}]\n    ports:\n    - {port: 8080}\n";
    let namespace = |labels: &str| {
        format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {{{labels}}}}}\n")
    };
    let finding = |severity: &str| {
        format!("p.yaml:8 {severity} TunnelsKeptOut NetworkPolicy/shop/web spec.ingress[0].ports")
    };
    assert_eq!(told(&[("p.yaml", policy)]), [finding("info")]);
    let with = |labels: &str| told(&[("p.yaml", policy), ("ns.yaml", &namespace(labels))]);
    assert_eq!(with("weft.dev/mesh: enabled"), [finding("warning")]);
    assert_eq!(with("istio-injection: enabled"), [finding("warning")]);
    assert!(with("team: a").is_empty());
}
