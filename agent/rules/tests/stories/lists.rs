//! What `weft get` lists.

use weft_api::admin::{Backend, RouteRow};
use weft_rules::rows;

use crate::support::World;

const APP: &str = include_str!("bookinfo.yaml");

#[test]
fn routes_tell_what_is_not_as_written() {
    let mut world = World::of(APP);
    world.apply(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b, namespace: bookinfo}
spec:
  hosts: [reviews]
  http:
  - {match: [{uri: {prefix: /a}, port: 9080}, {method: {exact: GET}}], timeout: 1s, route: [{destination: {host: reviews, subset: v9}}]}
  - {name: all, route: [{destination: {host: reviews, subset: v1}, weight: 9}, {destination: {host: reviews, subset: v2}, weight: 1}]}
  - {redirect: {uri: /late}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: bookinfo}
spec: {hosts: [reviews, '*.shop.example'], http: [{match: [{uri: {exact: /x}}], directResponse: {status: 418}}]}
",
    );
    let rows = rows::routes(&world.snapshot);
    let lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let backends: Vec<String> = row
                .backends
                .iter()
                .map(|b| format!("{}={}", b.subset.as_deref().unwrap_or(&b.host), b.weight))
                .collect();
            let name = if row.virtual_service.is_empty() { &row.hosts[0] } else { &row.virtual_service };
            format!(
                "{name} {}[{}] {} -> {} {} | {}",
                row.protocol,
                row.index,
                row.r#match,
                row.action,
                backends.join(" "),
                row.notes.join(" | ")
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "a http[0] uri = \"/x\" -> directResponse 418  | ",
            "b http[0] port 9080 and uri starting with \"/a\" or method = \"GET\" -> route v9=1 | 503: no DestinationRule visible from namespace bookinfo defines subset v9 of reviews.bookinfo.svc.cluster.local | reviews.bookinfo.svc.cluster.local is taken by bookinfo/a, which is older (where callers see it)",
            "b http[1] * -> route v1=9 v2=1 | reviews.bookinfo.svc.cluster.local is taken by bookinfo/a, which is older (where callers see it)",
            "b http[2] * -> redirect  | reviews.bookinfo.svc.cluster.local is taken by bookinfo/a, which is older (where callers see it) | never reached: http[1] matches everything",
            "details.bookinfo.svc.cluster.local http[0] * -> route details.bookinfo.svc.cluster.local=1 | ",
            "productpage.bookinfo.svc.cluster.local http[0] * -> route productpage.bookinfo.svc.cluster.local=1 | ",
            "ratings.bookinfo.svc.cluster.local http[0] * -> route ratings.bookinfo.svc.cluster.local=1 | ",
        ]
    );
}

#[test]
fn a_row_holds_all_that_there_is_of_a_route() {
    let mut world = World::of(APP);
    world.apply(
        "
apiVersion: v1
kind: Service
metadata: {name: db, namespace: bookinfo}
spec: {clusterIP: 10.96.7.1, selector: {app: ratings}, ports: [{name: tcp, port: 3306, targetPort: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: rules, namespace: bookinfo}
spec:
  hosts: [db, a.example]
  http:
  - name: first
    match: [{withoutHeaders: {x-a: {exact: '1'}, ':method': {exact: GET}}, sourceLabels: {app: web}, name: m}]
    timeout: 1500ms
    route: [{destination: {host: ratings, port: {number: 9080}}}]
  tcp:
  - match: [{port: 3306, destinationSubnets: [10.0.0.0/8, 192.168.0.1], sourceNamespace: bookinfo}]
    route: [{destination: {host: ratings, port: {number: 9080}}, weight: 3}, {destination: {host: nobody}, weight: 1}]
",
    );
    let rows = rows::routes(&world.snapshot);
    let rows: Vec<_> = rows.into_iter().filter(|row| row.virtual_service == "rules").collect();
    let common = RouteRow {
        namespace: "bookinfo".into(),
        virtual_service: "rules".into(),
        hosts: vec!["db.bookinfo.svc.cluster.local".into(), "a.example".into()],
        gateways: vec!["mesh".into()],
        action: "route".into(),
        ..RouteRow::default()
    };
    let ratings = |weight| Backend {
        host: "ratings.bookinfo.svc.cluster.local".into(),
        port: Some(9080),
        weight,
        endpoints: vec!["10.1.0.6:9080".into()],
        ..Backend::default()
    };
    let nobody = "nobody.bookinfo.svc.cluster.local";
    let expected = [
        RouteRow {
            protocol: "http".into(),
            name: Some("first".into()),
            r#match: "source label app=web and not method = \"GET\" and no header x-a = \"1\"".into(),
            timeout: Some("1.5s".into()),
            backends: vec![ratings(1)],
            ..common.clone()
        },
        RouteRow {
            protocol: "tcp".into(),
            r#match: "port 3306 and source namespace bookinfo and address in 10.0.0.0/8 and address in 192.168.0.1/32".into(),
            backends: vec![ratings(3), Backend { host: nobody.into(), weight: 1, ..Backend::default() }],
            notes: vec![format!("503: no service {nobody}")],
            ..common
        },
    ];
    assert_eq!(rows, expected);
}

#[test]
fn what_is_told_is_no_product_of_what_users_write() {
    let mut world = World::of(APP);
    let hosts: Vec<String> = (0..1_000).map(|number| format!("h{number}.example")).collect();
    let rule = "{directResponse: {status: 500, body: {string: BODY}}}".replace("BODY", &"x".repeat(10_000));
    world.apply(&format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: many, namespace: bookinfo}}\nspec:\n  \
         hosts: [{}]\n  gateways: [mesh, {}]\n  http: [{}]\n",
        hosts.join(", "),
        hosts.join(", "),
        [rule.as_str(); 100].join(", ")
    ));
    let rows = rows::routes(&world.snapshot);
    let rows: Vec<_> = rows.iter().filter(|row| row.virtual_service == "many").collect();
    assert_eq!(rows.len(), 100);
    let told = serde_json::to_string(&rows).unwrap().len();
    assert!(told < 400_000, "{told} bytes");
    let notes = ["968 more hosts are not listed", "969 more gateways are not listed"];
    assert!(notes.iter().all(|note| rows[0].notes.iter().any(|told| told == note)), "{:?}", rows[0].notes);
}

#[test]
fn endpoints_and_workloads_know_each_other() {
    let world = World::of(APP);
    let endpoints = rows::endpoints(&world.snapshot);
    assert_eq!(endpoints.len(), 6);
    let v2 = endpoints.iter().find(|row| row.address == "10.1.0.4:9080").unwrap();
    assert_eq!(v2.service, "reviews.bookinfo.svc.cluster.local");
    assert_eq!(
        (v2.workload.as_deref(), v2.local, v2.subsets.as_slice(), &*v2.protocol),
        (Some("pod/reviews-v2"), true, &["v2".to_owned()][..], "http")
    );

    let workloads = rows::workloads(&world.snapshot, "cluster.local");
    assert_eq!(workloads.len(), 6);
    let ratings = workloads.iter().find(|row| row.name == "ratings-v1").unwrap();
    assert_eq!(ratings.identity, "spiffe://cluster.local/ns/bookinfo/sa/default");
    assert_eq!(ratings.services, ["ratings.bookinfo.svc.cluster.local"]);
    assert!(ratings.enrolled && ratings.reason.is_none());
    assert_eq!((&ratings.node, v2.node.is_some()), (&v2.node, true));
}

#[test]
fn policies_tell_whom_they_are_for() {
    let mut world = World::of(APP);
    world.apply(
        "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: ratings, namespace: bookinfo}
spec: {selector: {matchLabels: {app: ratings}}, portLevelMtls: {8080: {mode: DISABLE}}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: younger, namespace: istio-system, creationTimestamp: '2026-01-01T00:00:00Z'}
spec: {mtls: {mode: DISABLE}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: v3, namespace: bookinfo}
spec: {action: DENY, selector: {matchLabels: {app: reviews, version: v3}}, rules: [{}, {to: [{operation: {methods: [PUT]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: waypoint, namespace: bookinfo, annotations: {istio.io/dry-run: 'true'}}
spec: {targetRefs: [{kind: Service, name: details, group: ''}], rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: gateway, namespace: bookinfo}
spec: {targetRefs: [{kind: Gateway, name: g, group: gateway.networking.k8s.io}], action: CUSTOM, provider: {name: opa}, rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: bookinfo}
spec: {jwtRules: [{issuer: one}, {issuer: two}]}
",
    );
    let lines = rows::policies(&world.snapshot).into_iter().map(|row| {
        format!(
            "{}/{}/{} | {} | {} | {} | {} | {}",
            row.kind,
            row.namespace,
            row.name,
            row.action,
            row.scope,
            row.rules,
            row.workloads.join(" "),
            row.notes.join("; ")
        )
    });
    let lines: Vec<String> = lines.collect();
    let all = "bookinfo/details-v1 bookinfo/productpage-v1 bookinfo/ratings-v1 bookinfo/reviews-v1 bookinfo/reviews-v2 bookinfo/reviews-v3";
    let expected = [
        "AuthorizationPolicy/bookinfo/gateway | CUSTOM (opa) | no pod | 1 |  | its targetRefs name no Service: no pod is what they name",
        "AuthorizationPolicy/bookinfo/v3 | DENY | app=reviews,version=v3 | 2 | bookinfo/reviews-v3 | ",
        "AuthorizationPolicy/bookinfo/waypoint | ALLOW | service/details | 1 | bookinfo/details-v1 | a dry run: it decides nothing",
        "PeerAuthentication/bookinfo/ratings | UNSET, 8080=DISABLE | app=ratings | 0 | bookinfo/ratings-v1 | ",
        &format!("PeerAuthentication/istio-system/default | STRICT | mesh | 0 | {all} | "),
        "PeerAuthentication/istio-system/younger | DISABLE | mesh | 0 |  | has no effect: PeerAuthentication istio-system/default is older",
        &format!("RequestAuthentication/bookinfo/tokens | one, two | namespace | 2 | {all} | "),
    ];
    assert_eq!(lines, expected);
}
