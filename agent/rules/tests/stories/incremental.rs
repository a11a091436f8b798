//! Any sequence of changes ends where compiling the surviving objects from scratch ends.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use weft_api::identity::Identity;
use weft_api::meta::ObjectKey;
use weft_api::object::Object;
use weft_rules::compile::{Change, Compiler};
use weft_rules::guard::{Inbound, InboundRequest};
use weft_rules::route::gateway::{AtServerName, GatewayPlace};
use weft_rules::route::http_route::{Destination, HttpAction};
use weft_rules::rows;
use weft_rules::snapshot::{HttpDecision, Snapshot};
use weft_rules::workload::Workload;

use crate::support::options;

/// A small universe, in which names, addresses and hosts meet often.
fn namespace() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "istio-system"])
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["x", "y", "z"])
}

fn host() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "x",
        "y",
        "x.a.svc.cluster.local",
        "y.b.svc.cluster.local",
        "*.a.svc.cluster.local",
        "*.local",
        "*.example",
        "one.example",
    ])
}

fn export_to() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!([]),
        json!(["."]),
        json!(["*"]),
        json!(["b"]),
        json!(["~"]),
        json!(["a", "."]),
    ])
}

fn created() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"])
}

fn version() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["v1", "v2"])
}

fn metadata(namespace: &str, name: &str) -> Value {
    json!({"name": name, "namespace": namespace})
}

fn pod() -> impl Strategy<Value = Object> {
    (namespace(), name(), name(), version(), 1..4u8, created(), any::<[bool; 5]>()).prop_map(
        |(ns, name, app, version, address, created, flags)| {
            let mut meta = metadata(ns, name);
            meta["labels"] = json!({"app": app, "version": version});
            meta["creationTimestamp"] = json!(created);
            if flags[4] {
                meta["labels"]["istio"] = json!("ingressgateway");
            }
            if flags[0] {
                meta["labels"]["weft.dev/mesh"] = json!("disabled");
            }
            let ready = json!([{"type": "Ready", "status": if flags[1] { "False" } else { "True" }}]);
            let phase = if flags[2] && flags[3] { "Succeeded" } else { "Running" };
            Object::Pod(object(json!({
                "metadata": meta,
                "spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]},
                "status": {"podIP": format!("10.1.0.{address}"), "conditions": ready, "phase": phase},
            })))
        },
    )
}

fn service() -> impl Strategy<Value = Object> {
    let kind = prop::sample::select(vec!["", "None", "ExternalName"]);
    let port = prop::sample::select(vec!["http", "tcp", "grpc", "unnamed"]);
    (namespace(), name(), name(), kind, port, export_to(), 1..3u8).prop_map(
        |(ns, name, app, kind, port, export_to, address)| {
            let mut meta = metadata(ns, name);
            let entries = export_to.as_array().unwrap().iter().map(|entry| entry.as_str().unwrap());
            let export_to = entries.collect::<Vec<_>>().join(",");
            meta["annotations"] = json!({"networking.istio.io/exportTo": export_to});
            let spec = match kind {
                "ExternalName" => json!({"type": kind, "externalName": format!("{app}.a.svc.cluster.local")}),
                _ => json!({
                    "clusterIP": if kind.is_empty() { format!("10.96.0.{address}") } else { kind.to_owned() },
                    "selector": {"app": app},
                    "ports": [{"name": port, "port": 80, "targetPort": "web"}, {"name": "other", "port": 81}],
                }),
            };
            Object::Service(object(json!({"metadata": meta, "spec": spec})))
        },
    )
}

fn slice() -> impl Strategy<Value = Object> {
    (namespace(), name(), name(), name(), 1..5u8, any::<[bool; 2]>()).prop_map(
        |(ns, name, service, pod, address, flags)| {
            let mut meta = metadata(ns, name);
            meta["labels"] = json!({"kubernetes.io/service-name": service});
            let mut endpoint =
                json!({"addresses": [format!("10.1.0.{address}")], "conditions": {"ready": flags[0]}});
            if flags[1] {
                endpoint["targetRef"] = json!({"kind": "Pod", "name": pod, "namespace": ns});
            }
            Object::EndpointSlice(object(json!({
                "metadata": meta, "addressType": "IPv4",
                "endpoints": [endpoint, {"addresses": ["10.1.0.9"]}],
                "ports": [{"name": "http", "port": 8080}, {"name": "other", "port": 8081}],
            })))
        },
    )
}

/// What a VirtualService is to others.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    Alone,
    Root,
    Delegate,
}

fn virtual_service() -> impl Strategy<Value = Object> {
    let gateways = prop::sample::select(vec![json!([]), json!(["mesh", "g"]), json!(["g"])]);
    let part = prop::sample::select(vec![Part::Alone, Part::Root, Part::Delegate]);
    let to = (name(), prop::sample::select(vec!["", "a", "b"]));
    (
        (namespace(), name()),
        prop::collection::vec(host(), 1..3),
        export_to(),
        gateways,
        created(),
        version(),
        name(),
        part,
        to,
    )
        .prop_map(|((ns, name), hosts, export_to, gateways, created, version, app, part, to)| {
            let mut meta = metadata(ns, name);
            meta["creationTimestamp"] = json!(created);
            let mut spec = json!({
                "hosts": hosts, "exportTo": export_to, "gateways": gateways,
                "http": [
                    {"match": [{"sourceLabels": {"app": app}, "headers": {"h": {"prefix": "1"}}}],
                     "route": [{"destination": {"host": "x", "subset": version}}]},
                    {"match": [{"port": 80, "uri": {"prefix": "/"}}], "timeout": "1s",
                     "route": [{"destination": {"host": "y.b.svc.cluster.local"}}]},
                ],
                "tcp": [{"match": [{"sourceNamespace": "b"}], "route": [{"destination": {"host": "x"}}]},
                        {"match": [{"gateways": ["g"]}], "route": [{"destination": {"host": "y"}}]}],
                "tls": [{"match": [{"sniHosts": ["x.a.svc.cluster.local"]}],
                         "route": [{"destination": {"host": "y"}}]}],
            });
            if part == Part::Root {
                let delegate = json!({"name": to.0, "namespace": to.1});
                spec["http"][1] = json!({"match": [{"uri": {"prefix": "/"}}], "delegate": delegate});
            }
            if part == Part::Delegate {
                let spec = spec.as_object_mut().expect("an object");
                for field in ["hosts", "gateways", "tcp", "tls"] {
                    spec.remove(field);
                }
            }
            Object::VirtualService(object(json!({"metadata": meta, "spec": spec})))
        })
}

/// Servers of each protocol, for the pods of one `app`.
fn gateway() -> impl Strategy<Value = Object> {
    let hosts = prop::sample::select(vec![json!(["*"]), json!(["./*.example"]), json!(["a/one.example"])]);
    (namespace(), name(), hosts, any::<bool>()).prop_map(|(ns, app, hosts, by_name)| {
        let server = |number: u16, protocol: &str| {
            json!({"port": {"number": number, "name": format!("p{number}"), "protocol": protocol},
                   "hosts": hosts, "tls": if protocol == "TLS" { json!({"mode": "PASSTHROUGH"}) } else { json!(null) }})
        };
        let other = if by_name { server(81, "TLS") } else { server(81, "TCP") };
        let mut ends = server(81, "HTTPS");
        ends["tls"] = json!({"mode": "SIMPLE", "credentialName": app});
        ends["hosts"] = json!(["one.example"]);
        let spec = json!({"selector": {"app": app}, "servers": [server(80, "HTTP"), other, ends]});
        Object::Gateway(object(json!({"metadata": metadata(ns, "g"), "spec": spec})))
    })
}

fn destination_rule() -> impl Strategy<Value = Object> {
    let balance = prop::sample::select(vec!["RANDOM", "ROUND_ROBIN", "PASSTHROUGH"]);
    let selector = prop::sample::select(vec!["", "x"]);
    (namespace(), name(), host(), export_to(), balance, created(), version(), selector).prop_map(
        |(ns, name, host, export_to, balance, created, version, selector)| {
            let mut meta = metadata(ns, name);
            meta["creationTimestamp"] = json!(created);
            let mut spec = json!({
                "host": host, "exportTo": export_to,
                "trafficPolicy": {"loadBalancer": {"simple": balance}},
                "subsets": [{"name": version, "labels": {"version": version}}],
            });
            if !selector.is_empty() {
                spec["exportTo"] = json!([]);
                spec["workloadSelector"] = json!({"matchLabels": {"app": selector}});
            }
            Object::DestinationRule(object(json!({"metadata": meta, "spec": spec})))
        },
    )
}

fn config_map() -> impl Strategy<Value = Object> {
    let name = prop::sample::select(vec!["istio", "weft"]);
    let text = prop::sample::select(vec![
        "outboundTrafficPolicy: {mode: REGISTRY_ONLY}",
        "defaultVirtualServiceExportTo: ['.']\ndefaultDestinationRuleExportTo: ['.']",
        "defaultServiceExportTo: ['.']",
        "trustDomainAliases: [old]",
    ]);
    (name, text).prop_map(|(name, text)| {
        let object_ = json!({"metadata": metadata("istio-system", name), "data": {"mesh": text}});
        Object::ConfigMap(object(object_))
    })
}

fn labelled_namespace() -> impl Strategy<Value = Object> {
    let label = prop::sample::select(vec!["enabled", "disabled", "other"]);
    (namespace(), label).prop_map(|(name, label)| {
        let object_ = json!({"metadata": {"name": name, "labels": {"istio-injection": label}}});
        Object::Namespace(object(object_))
    })
}

fn mode() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["STRICT", "PERMISSIVE", "DISABLE", "UNSET"])
}

fn peer_authentication() -> impl Strategy<Value = Object> {
    (namespace(), name(), created(), mode(), mode(), any::<bool>()).prop_map(
        |(ns, name, created, mode, of_port, selects)| {
            let mut meta = metadata(ns, name);
            meta["creationTimestamp"] = json!(created);
            let mut spec = json!({"mtls": {"mode": mode}});
            if selects {
                spec["selector"] = json!({"matchLabels": {"app": name}});
                spec["portLevelMtls"] = json!({"8080": {"mode": of_port}});
            }
            Object::PeerAuthentication(object(json!({"metadata": meta, "spec": spec})))
        },
    )
}

/// Whom a security policy is for.
fn scope() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!({}),
        json!({"selector": {"matchLabels": {"app": "x"}}}),
        json!({"selector": {"matchLabels": {"version": "v1"}}}),
        json!({"targetRefs": [{"kind": "Service", "name": "x"}]}),
        json!({"targetRefs": [{"kind": "Service", "name": "y"}, {"kind": "Gateway", "name": "x"}]}),
    ])
}

fn authorization_policy() -> impl Strategy<Value = Object> {
    let action = prop::sample::select(vec!["ALLOW", "DENY", "AUDIT", "CUSTOM"]);
    let rules = prop::sample::select(vec![
        json!([{}]),
        json!([{"from": [{"source": {"principals": ["cluster.local/ns/a/sa/default"]}}]}]),
        json!([{"to": [{"operation": {"methods": ["GET"]}}]}]),
        json!([{"to": [{"operation": {"ports": ["8080"], "paths": ["/"]}}]}]),
    ]);
    (namespace(), name(), created(), scope(), action, rules, any::<bool>()).prop_map(
        |(ns, name, created, mut spec, action, rules, dry_run)| {
            let mut meta = metadata(ns, name);
            meta["creationTimestamp"] = json!(created);
            meta["annotations"] = json!({"istio.io/dry-run": dry_run.to_string()});
            spec["action"] = json!(action);
            spec["rules"] = rules;
            if action == "CUSTOM" {
                spec["provider"] = json!({"name": name});
            }
            Object::AuthorizationPolicy(object(json!({"metadata": meta, "spec": spec})))
        },
    )
}

fn request_authentication() -> impl Strategy<Value = Object> {
    (namespace(), name(), created(), scope()).prop_map(|(ns, name, created, mut spec)| {
        let mut meta = metadata(ns, name);
        meta["creationTimestamp"] = json!(created);
        spec["jwtRules"] = json!([{"issuer": format!("{ns}-{name}")}]);
        Object::RequestAuthentication(object(json!({"metadata": meta, "spec": spec})))
    })
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

/// A change, and whether it deletes what it names.
fn change() -> impl Strategy<Value = (Object, bool)> {
    let object = prop_oneof![
        4 => pod(),
        3 => service(),
        3 => slice(),
        3 => virtual_service(),
        2 => gateway(),
        3 => destination_rule(),
        2 => peer_authentication(),
        3 => authorization_policy(),
        1 => request_authentication(),
        1 => config_map(),
        1 => labelled_namespace(),
    ];
    (object, prop::bool::weighted(0.3))
}

/// Everything that a snapshot would answer, as text.
fn answers(snapshot: &Snapshot) -> String {
    let mut text = format!("{:#?}\n{:#?}\n", rows::routes(snapshot), rows::endpoints(snapshot));
    write!(text, "{:#?}\n{:#?}", rows::workloads(snapshot, "t"), rows::policies(snapshot)).unwrap();
    let mut callers: Vec<_> = snapshot.workloads().collect();
    callers.sort_by(|a, b| a.key.cmp(&b.key));
    for caller in callers {
        text.push_str(&let_in(snapshot, caller));
        text.push_str(&as_gateway(snapshot, caller));
        for host in 0..6u8 {
            let address = std::net::IpAddr::from([10, 1, 0, host]);
            let at = snapshot.workload_at(address).map(|workload| &workload.key);
            writeln!(text, "{address} is {at:?}").unwrap();
        }
        for dst in ["10.96.0.1:80", "10.96.0.2:80", "10.96.0.1:81", "10.1.0.1:8080", "9.9.9.9:80"] {
            let dst: SocketAddr = dst.parse().unwrap();
            let tcp = snapshot.route_tcp(caller, dst, Some("x.a.svc.cluster.local"), 7);
            writeln!(text, "{} {dst} {:?} {tcp:?}", caller.key, snapshot.outbound(caller, dst)).unwrap();
            for host in [
                "x",
                "y.b",
                "z.istio-system",
                "x.a.svc.cluster.local",
                "one.example",
                "b.example",
                "10.96.0.1",
            ] {
                for value in ["1", "2"] {
                    let request = http::Request::get("/").header("host", host).header("h", value);
                    let (parts, ()) = request.body(()).unwrap().into_parts();
                    let decision = snapshot.route_http(caller, dst, &parts);
                    writeln!(text, "{} {dst} {host} {value}: {}", caller.key, told(&decision)).unwrap();
                }
            }
        }
        for host in ["x.a", "y.a", "z.a", "x.b", "y.b", "z.b", "x.istio-system"] {
            for subset in [None, Some("v1"), Some("v2")] {
                let destination = Destination {
                    host: format!("{host}.svc.cluster.local").into(),
                    subset: subset.map(Into::into),
                    port: None,
                };
                match snapshot.cluster(caller, &destination, 80) {
                    Ok(cluster) => {
                        let endpoints = cluster.endpoints.iter();
                        let endpoints: Vec<_> = endpoints
                            .map(|endpoint| {
                                (endpoint.address, endpoint.workload.as_ref().map(|w| w.key.clone()))
                            })
                            .collect();
                        writeln!(text, "{} {} {:?} {endpoints:?}", caller.key, cluster.name, cluster.balance)
                    }
                    Err(error) => writeln!(text, "{} {error}", caller.key),
                }
                .unwrap();
            }
        }
    }
    text
}

/// What a workload does as a gateway.
fn as_gateway(snapshot: &Snapshot, workload: &Workload) -> String {
    let mut text = String::new();
    for port in [80u16, 81, 8080] {
        let Some(served) = snapshot.gateway_port(&workload.key, port) else { continue };
        for name in ["one.example", "x.a.svc.cluster.local", "elsewhere"] {
            let (head, ()) = http::Request::get("/").header("host", name).body(()).unwrap().into_parts();
            let ended = match served.at_server_name(Some(name)) {
                AtServerName::Ends(termination) => Some(termination),
                AtServerName::Passed | AtServerName::Nobody => None,
            };
            let tls = ended.as_ref().map(|ended| (Some(name), ended));
            let place = GatewayPlace { port: served, tls };
            let http = told(&snapshot.route_at_gateway(workload, &place, &head));
            let behind = place.served().expect("it was there a moment ago");
            let bytes = snapshot.route_tcp_at_gateway(workload, behind, Some(name), 7);
            let by = ended.map(|ended| ended.settings.credential_name.clone());
            writeln!(text, "{} {port} {:?} {name}: {by:?} {http} {bytes:?}", workload.key, served.protocol())
                .unwrap();
        }
    }
    text
}

/// Whom a workload lets in.
fn let_in(snapshot: &Snapshot, workload: &Workload) -> String {
    let mut text = String::new();
    let guard = snapshot.guard(workload);
    for port in [80u16, 8080, 8081] {
        let protocol = snapshot.inbound_protocol(workload, port);
        let mtls = snapshot.mtls(workload, port);
        writeln!(text, "{} {port} {protocol:?} {mtls:?}", workload.key).unwrap();
        for name in
            [None, Some("spiffe://cluster.local/ns/a/sa/default"), Some("spiffe://old/ns/a/sa/default")]
        {
            let identity = name.and_then(Identity::parse);
            let to = (IpAddr::from([10, 1, 0, 1]), port).into();
            let peer = IpAddr::from([10, 1, 0, 2]);
            let inbound = Inbound { identity: identity.as_ref(), peer, to, sni: None };
            let (head, ()) = http::Request::post("/").body(()).unwrap().into_parts();
            let request = InboundRequest { head: &head, remote: peer, claims: None };
            let verdicts = guard.map(|guard| {
                let issuers: Vec<_> = guard.tokens().iter().map(|rule| rule.issuer.clone()).collect();
                (
                    guard.admit_connection(&inbound, protocol),
                    guard.admit_request(&inbound, &request),
                    guard.consult(&inbound, &request),
                    guard.consult_connection(&inbound),
                    issuers,
                )
            });
            writeln!(text, "{name:?} {verdicts:?}").unwrap();
        }
    }
    text
}

fn told(decision: &HttpDecision) -> String {
    match decision {
        HttpDecision::Route(matched) => {
            let route = &matched.route;
            let to = match &route.action {
                HttpAction::Forward(destinations) => format!("{:?}", destinations[0].destination),
                _ => "other".to_owned(),
            };
            format!(
                "{:?} {} {:?} {to} {}",
                route.virtual_service,
                route.index,
                route.timeout,
                route.retry.is_some()
            )
        }
        other => format!("{other:?}"),
    }
}

fn changes(list: &[(Object, bool)]) -> Vec<Change> {
    let change = |(object, delete): &(Object, bool)| {
        if *delete { Change::Delete(object.key()) } else { Change::Put(object.clone()) }
    };
    list.iter().map(change).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn incremental_equals_full(
        batches in prop::collection::vec(prop::collection::vec(change(), 1..5), 1..12),
    ) {
        let mut compiler = Compiler::new(options());
        let mut surviving: BTreeMap<ObjectKey, Object> = BTreeMap::new();
        let mut snapshot = compiler.apply(Vec::new());
        for batch in &batches {
            snapshot = compiler.apply(changes(batch));
            for (object, delete) in batch {
                if *delete {
                    surviving.remove(&object.key());
                } else {
                    surviving.insert(object.key(), object.clone());
                }
            }
        }
        let incremental = answers(&snapshot);
        let all = || surviving.values().cloned();
        let forwards = Compiler::new(options()).apply(all().map(Change::Put).collect());
        prop_assert_eq!(&incremental, &answers(&forwards));
        let backwards = Compiler::new(options()).apply(all().rev().map(Change::Put).collect());
        prop_assert_eq!(&incremental, &answers(&backwards));

        // And back to nothing.
        let gone = compiler.apply(all().map(|object| Change::Delete(object.key())).collect());
        prop_assert_eq!(answers(&gone), answers(&Snapshot::default()));
    }
}
