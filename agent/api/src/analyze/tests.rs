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
    let by_name = rule(
        "reviews",
        "hosts: [reviews]\ntls: [{match: [{sniHosts: [reviews]}], route: [{destination: {host: reviews}}]}]",
    );
    assert_eq!(
        told(&[("svc.yaml", SERVICES), ("vs.yaml", &by_name)]),
        ["vs.yaml:5 warning ProtocolMismatch VirtualService/shop/reviews spec.hosts[0]"]
    );
    let tls = SERVICES.replace("name: http, ", "name: tls-reviews, ");
    assert_eq!(told(&[("svc.yaml", &tls), ("vs.yaml", &by_name)]), [""; 0]);
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

const WEB: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  ports: [{name: http, port: 80}]
";

#[test]
fn a_name_with_a_dot_is_no_short_name() {
    let route = "http: [{directResponse: {status: 200}}]";
    for (hosts, message) in [
        (
            "web.shop",
            "web.shop is not the service web.shop.svc.cluster.local: a name with a dot is taken as it is (write web or web.shop.svc.cluster.local)",
        ),
        (
            "web.shop.svc",
            "web.shop.svc is not the service web.shop.svc.cluster.local: a name with a dot is taken as it is (write web or web.shop.svc.cluster.local)",
        ),
    ] {
        let text = rule("v", &format!("hosts: [{hosts}]\n{route}"));
        let findings = analyze(&[("svc.yaml", WEB), ("vs.yaml", &text)]);
        let told: Vec<_> =
            findings.iter().map(|f| (f.severity.to_string(), &*f.code, &*f.path, &*f.message)).collect();
        assert_eq!(told, [("warning".to_owned(), "UnknownHost", "spec.hosts[0]", message)]);
    }
    for hosts in ["web", "web.shop.svc.cluster.local", "web.other"] {
        let text = rule("v", &format!("hosts: [{hosts}]\n{route}"));
        assert_eq!(told(&[("svc.yaml", WEB), ("vs.yaml", &text)]), [""; 0], "{hosts}");
    }
}

#[test]
fn rules_of_another_namespace_that_take_a_services_traffic_are_named() {
    let theirs = |spec: &str| {
        rule("v", &format!("{spec}\nhttp: [{{directResponse: {{status: 200}}}}]"))
            .replace("namespace: shop", "namespace: other")
    };
    let taken = |files: &[(&str, &str)]| -> Vec<String> {
        let findings = analyze(files);
        findings
            .iter()
            .filter(|f| f.code == "HostTaken")
            .map(|f| format!("{} {} {}", f.severity, f.path, f.message))
            .collect()
    };
    let full = theirs("hosts: [x.example, web.shop.svc.cluster.local]");
    let cure = "of another namespace (put the rules there, limit them with exportTo: [.], or refuse all such with hostOwnership: namespace)";
    let line = |severity: &str, path: &str| {
        format!("{severity} {path} takes the traffic of web.shop.svc.cluster.local, {cure}")
    };
    assert_eq!(taken(&[("svc.yaml", WEB), ("vs.yaml", &full)]), [line("warning", "spec.hosts[1]")]);
    assert_eq!(taken(&[("vs.yaml", &full)]), [line("info", "spec.hosts[1]")], "a file by itself");
    let wide = theirs("hosts: ['*.shop.svc.cluster.local']");
    assert_eq!(taken(&[("svc.yaml", WEB), ("vs.yaml", &wide)]), [line("warning", "spec.hosts[0]")]);
    for harmless in [
        theirs("exportTo: [.]\nhosts: [web.shop.svc.cluster.local]"),
        theirs("gateways: [gw]\nhosts: [web.shop.svc.cluster.local]"),
        theirs("hosts: [web.example.com]"),
        full.replace("namespace: other", "namespace: istio-system"),
    ] {
        assert_eq!(taken(&[("svc.yaml", WEB), ("vs.yaml", &harmless)]), [""; 0], "{harmless}");
    }
    let owned = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: weft, namespace: istio-system}\ndata:\n  weft: 'hostOwnership: namespace'\n";
    let refused = taken(&[("svc.yaml", WEB), ("vs.yaml", &full), ("cm.yaml", owned)]);
    assert!(refused[0].contains("not in force for web.shop.svc.cluster.local"), "{refused:?}");
}

#[test]
fn a_subset_that_a_gateways_pods_do_not_see_is_told() {
    let subset = |namespace: &str, export: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: web, namespace: {namespace}}}\nspec:\n  {export}\n  \
             host: web.shop.svc.cluster.local\n  subsets: [{{name: v1}}]\n"
        )
    };
    let gateway = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gw, namespace: front}\nspec:\n  selector: {istio: \
                   gateway}\n  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]\n";
    let pod =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: gw-1, namespace: ingress, labels: {istio: gateway}}\n";
    let rules = rule(
        "v",
        "hosts: [shop.example]\ngateways: [front/gw]\nhttp: [{route: [{destination: {host: web, subset: v1}}]}]",
    );
    let told = |dr: &str, pod: &str| -> Vec<String> {
        let files = [
            ("svc.yaml", WEB),
            ("gw.yaml", gateway),
            ("pod.yaml", pod),
            ("vs.yaml", &*rules),
            ("dr.yaml", dr),
        ];
        analyze(&files).into_iter().filter(|f| f.code == "UnknownSubset").map(|f| f.message).collect()
    };
    assert_eq!(
        told(&subset("front", "exportTo: ['*']"), pod),
        [
            "answers 503 at gateway front/gw: DestinationRule front/web defines it, and pods in namespace ingress do not see that rule (they see \
          their own namespace's, and what shop and istio-system export: put it into shop)"
        ]
    );
    assert_eq!(told(&subset("shop", "exportTo: [.]"), pod).len(), 1, "it is not exported");
    for seen in [
        subset("shop", "exportTo: [ingress]"),
        subset("shop", "exportTo: []"),
        subset("ingress", "exportTo: [.]"),
    ] {
        assert_eq!(told(&seen, pod), [""; 0], "{seen}");
    }
    assert_eq!(
        told(&subset("front", "exportTo: ['*']"), "# nothing\n"),
        [""; 0],
        "its pods may be beside the Gateway"
    );
}

#[test]
fn objects_that_are_too_much_together_are_told_where_they_are() {
    let by_regexes = |n: usize| {
        let matches: String = (0..7)
            .map(|m| format!("{{uri: {{regex: '/{n}/{m}/(a{{1,100}}){{1,20}}'}}}}, "))
            .collect::<Vec<_>>()
            .concat();
        rule(
            &format!("v{n}"),
            &format!("hosts: [v{n}.example.com]\nhttp:\n- match: [{matches}]\n  redirect: {{uri: /}}"),
        )
    };
    let files: Vec<(String, String)> = (0..6).map(|n| (format!("{n}.yaml"), by_regexes(n))).collect();
    let found = analyze(&files);
    let over: Vec<_> = found.iter().filter(|finding| finding.code == "TooLarge").collect();
    let told: Vec<_> = over.iter().map(|finding| finding.location().unwrap_or_default()).collect();
    assert_eq!(told, ["4.yaml:1", "5.yaml:1"], "{found:?}");
    assert!(over[0].message.contains("namespace shop, of 131072 instructions"), "{}", over[0].message);
}
