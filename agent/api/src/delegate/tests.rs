use super::*;
use crate::object::Object;

fn rules(name: &str, spec: &str) -> VirtualService {
    let yaml = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n{spec}"
    );
    let loaded = crate::load::load("t.yaml", &yaml);
    assert!(loaded.refused.is_empty(), "{:#?}", loaded.refused);
    let object = loaded.objects.into_iter().next().map(|loaded| loaded.object);
    let Some(Object::VirtualService(object)) = object else { panic!("{yaml}") };
    (*object).clone()
}

fn root(fields: &str) -> VirtualService {
    rules("root", &format!("  hosts: [shop.example.com]\n  gateways: [edge, mesh]\n  http:\n  - {fields}"))
}

fn delegate(http: &str) -> VirtualService {
    rules("d", &format!("  http: {http}"))
}

fn taken(root: &VirtualService, delegate: &VirtualService) -> (Vec<HttpRoute>, Vec<Untaken>) {
    let full = |host: &str, namespace: &str| format!("{host}.{namespace}");
    let mut routes = Vec::new();
    let untaken =
        expand(root, |_| Found::Delegate(delegate), full, |rule| routes.push(rule.route.into_owned()));
    (routes, untaken.into_iter().map(|(_, untaken)| untaken).collect())
}

#[test]
fn a_match_is_taken_where_it_is_within_the_roots() {
    let all = [
        // As the root's, the delegate's, and whether it is taken.
        ("uri: {prefix: /a}", "uri: {prefix: /a/b}", true),
        ("uri: {prefix: /a/b}", "uri: {prefix: /a}", false),
        ("uri: {prefix: /a}", "uri: {exact: /a/b}", true),
        ("uri: {prefix: /a}", "uri: {exact: /b}", false),
        ("uri: {exact: /a}", "uri: {exact: /a}", true),
        ("uri: {exact: /a}", "uri: {exact: /b}", false),
        ("uri: {exact: /a}", "uri: {prefix: /a}", false),
        ("uri: {regex: /a.*}", "uri: {regex: /a.*}", false),
        ("uri: {regex: /a.*}", "uri: {exact: /a}", false),
        ("uri: {prefix: /a}", "uri: {regex: /a.*}", false),
        ("uri: {regex: /a.*}", "method: {exact: GET}", true),
        ("method: {exact: GET}", "uri: {regex: /a.*}", true),
        ("method: {exact: GET}", "method: {exact: PUT}", false),
        ("headers: {h: {exact: x}}", "headers: {h: {exact: x}}", true),
        ("headers: {h: {exact: x}}", "headers: {h: {exact: y}}", false),
        ("headers: {h: {exact: x}}", "headers: {i: {exact: y}}", true),
        ("headers: {h: {}}", "headers: {h: {exact: y}}", false),
        ("queryParams: {q: {exact: x}}", "queryParams: {q: {exact: y}}", false),
        ("withoutHeaders: {h: {exact: x}}", "withoutHeaders: {h: {exact: y}}", false),
        ("port: 80", "port: 80", true),
        ("port: 80", "port: 81", false),
        ("port: 80", "uri: {exact: /a}", true),
        ("{uri: {prefix: /a}, ignoreUriCase: true}", "uri: {prefix: /a}", false),
        ("sourceNamespace: a", "sourceNamespace: a", true),
        ("sourceNamespace: a", "sourceNamespace: b", false),
        ("sourceNamespace: a", "uri: {exact: /a}", false),
        ("sourceLabels: {app: a}", "sourceLabels: {app: a, version: v1}", true),
        ("sourceLabels: {app: a}", "sourceLabels: {app: b}", false),
        ("gateways: [edge, mesh]", "gateways: [mesh]", true),
        ("gateways: [edge]", "gateways: [shop/edge]", true),
        ("gateways: [edge]", "gateways: [mesh]", false),
    ];
    for (outer, inner, expected) in all {
        let one = |text: &str| if text.starts_with('{') { text.to_owned() } else { format!("{{{text}}}") };
        let root = root(&format!("{{match: [{}], delegate: {{name: d}}}}", one(outer)));
        let delegate =
            delegate(&format!("[{{match: [{}], route: [{{destination: {{host: a}}}}]}}]", one(inner)));
        let (routes, untaken) = taken(&root, &delegate);
        assert_eq!(routes.len() == 1, expected, "{outer} | {inner}");
        let conflict = (!expected).then(|| Untaken::Conflict("shop/d".into(), 0));
        assert_eq!(untaken, conflict.into_iter().collect::<Vec<_>>(), "{outer} | {inner}");
    }
}

#[test]
fn each_match_must_be_within_one_and_is_joined_with_all_that_hold_it() {
    let root = root("{match: [{uri: {prefix: /a}}, {method: {exact: GET}}], delegate: {name: d}}");
    let both =
        delegate("[{match: [{uri: {exact: /a/b}}, {uri: {exact: /c}}], route: [{destination: {host: a}}]}]");
    let (routes, untaken) = taken(&root, &both);
    assert_eq!(untaken, []);
    let seen: Vec<_> = routes[0]
        .r#match
        .iter()
        .map(|one| (one.uri.clone().unwrap().exact.unwrap(), one.method.is_some()))
        .collect();
    assert_eq!(seen, [("/a/b".into(), false), ("/a/b".into(), true), ("/c".into(), true)]);

    let one_is_outside = delegate(
        "[{match: [{uri: {exact: /a/b}}, {uri: {exact: /c}, method: {exact: PUT}}], route: [{destination: {host: a}}]}, {route: [{destination: {host: b}}]}]",
    );
    let (routes, untaken) = taken(&root, &one_is_outside);
    assert_eq!(untaken, [Untaken::Conflict("shop/d".into(), 0)]);
    assert_eq!(
        routes[0].r#match, root.spec.http[0].r#match,
        "what matches everything matches what the root does"
    );
}

#[test]
fn what_a_delegate_does_not_say_is_as_the_root_says() {
    let root = root(
        "{name: r, delegate: {name: d}, timeout: 1s, retries: {attempts: 7}, rewrite: {uri: /r}, mirror: {host: m}, \
         fault: {abort: {httpStatus: 418, percentage: {value: 1}}}, headers: {request: {set: {a: b}}}}",
    );
    let delegate = delegate(
        "[{name: one, route: [{destination: {host: a}}]}, \
          {timeout: 2s, rewrite: {uri: /d}, retries: {attempts: 0}, mirrors: [{destination: {host: n}}], route: [{destination: {host: b}}]}]",
    );
    let (routes, _) = taken(&root, &delegate);
    let source = &root.spec.http[0];
    assert_eq!(routes[0].name.as_deref(), Some("r-one"));
    assert_eq!(routes[0].route[0].destination.host, "a.shop", "a host is of its own rule's namespace");
    assert_eq!(routes[0].mirror.as_ref().unwrap().host, "m");
    assert_eq!((routes[0].timeout, &routes[0].retries), (source.timeout, &source.retries));
    assert_eq!((&routes[0].fault, &routes[0].headers), (&source.fault, &source.headers));
    assert_eq!(routes[0].rewrite, source.rewrite);
    assert_eq!(routes[1].name.as_deref(), Some("r"));
    assert_eq!(routes[1].rewrite.as_ref().unwrap().uri.as_deref(), Some("/d"));
    assert_eq!(routes[1].retries.as_ref().unwrap().attempts, 0);
    assert_eq!(routes[1].mirrors[0].destination.host, "n.shop");
    assert_ne!(routes[1].timeout, source.timeout);
}
