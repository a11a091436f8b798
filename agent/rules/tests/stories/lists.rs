//! What `weft get` lists.

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
fn endpoints_and_workloads_know_each_other() {
    let world = World::of(APP);
    let endpoints = rows::endpoints(&world.snapshot);
    assert_eq!(endpoints.len(), 6);
    let v2 = endpoints.iter().find(|row| row.address == "10.1.0.4:9080").unwrap();
    assert_eq!(v2.service, "reviews.bookinfo.svc.cluster.local");
    assert_eq!(
        (v2.workload.as_deref(), v2.local, v2.subsets.as_slice()),
        (Some("pod/reviews-v2"), true, &["v2".to_owned()][..])
    );

    let workloads = rows::workloads(&world.snapshot, "cluster.local");
    assert_eq!(workloads.len(), 6);
    let ratings = workloads.iter().find(|row| row.name == "ratings-v1").unwrap();
    assert_eq!(ratings.identity, "spiffe://cluster.local/ns/bookinfo/sa/default");
    assert_eq!(ratings.services, ["ratings.bookinfo.svc.cluster.local"]);
    assert!(ratings.enrolled && ratings.reason.is_none());
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
