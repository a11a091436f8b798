//! The objects that an agent is measured with.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::load::{ECHO_PORT, GRPC_PORT, STREAM_PORT, WEB_PORT};
use super::world::Pod;

/// The namespace in the mesh.
const NAMESPACE: &str = "bench";
/// The service that HTTP clients ask for, and the header that decides where they go.
pub const HOST: &str = "web.bench.svc.cluster.local";
pub const MATCHED_HEADER: &str = "x-group: canary";
/// What clients of gRPC ask for.
pub const GRPC_HOST: &str = "tcp.bench.svc.cluster.local";
/// Service addresses; nothing else routes them.
pub const WEB_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 10);
pub const TCP_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 11);

/// Pods with their `app` and `version` labels, and their network namespaces.
pub fn pods(pods: &[(Pod, &str, &str, String)]) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}, labels: {{weft.dev/mesh: enabled}}}}\n"
    );
    for (pod, app, version, netns) in pods {
        let Pod { name, address, node } = pod;
        let node = node.name;
        write!(
            text,
            "---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {NAMESPACE}
  labels: {{app: {app}, version: {version}}}
  annotations: {{weft.dev/netns: {netns}}}
spec: {{nodeName: {node}, serviceAccountName: {app}}}
status: {{podIP: {address}}}
"
        )
        .ok();
    }
    text
}

/// The services of the same-node rows. HTTP requests pass a header match that misses, one that hits, and weights.
pub fn services() -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: web, namespace: {NAMESPACE}}}
spec:
  clusterIP: {WEB_ADDRESS}
  selector: {{app: web}}
  ports: [{{name: http, port: 80, targetPort: {WEB_PORT}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: tcp, namespace: {NAMESPACE}}}
spec:
  clusterIP: {TCP_ADDRESS}
  selector: {{app: web, version: v1}}
  ports:
  - {{name: tcp-stream, port: {STREAM_PORT}}}
  - {{name: tcp-echo, port: {ECHO_PORT}}}
  - {{name: grpc, port: {GRPC_PORT}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: web, namespace: {NAMESPACE}}}
spec:
  host: web
  subsets:
  - {{name: v1, labels: {{version: v1}}}}
  - {{name: v2, labels: {{version: v2}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: web, namespace: {NAMESPACE}}}
spec:
  hosts: [web]
  http:
  - match: [{{headers: {{end-user: {{exact: jason}}}}}}]
    route: [{{destination: {{host: web, subset: v2}}}}]
  - match: [{{headers: {{x-group: {{exact: canary}}}}}}]
    route:
    - {{destination: {{host: web, subset: v1}}, weight: 90}}
    - {{destination: {{host: web, subset: v2}}, weight: 10}}
  - route: [{{destination: {{host: web, subset: v1}}}}]
"
    )
}

/// Below it are the names that are asked for at the gateway.
pub const EDGE_DOMAIN: &str = "edge.test";
/// Where the gateway's pod listens.
pub const EDGE_HTTP: u16 = 8080;
pub const EDGE_HTTPS: u16 = 8443;

/// A gateway's pod.
pub fn gateway_pod(pod: Pod, netns: &str) -> String {
    let Pod { name, address, node } = pod;
    let node = node.name;
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {NAMESPACE}
  labels: {{istio: ingressgateway}}
  annotations: {{weft.dev/netns: {netns}}}
spec: {{nodeName: {node}, serviceAccountName: gateway}}
status: {{podIP: {address}}}
"
    )
}

/// What the gateway serves: plain HTTP, and TLS for so many names, each by a Secret and a Gateway of its own.
pub fn edge(names: u32) -> String {
    let gateway = |name: &str, server: &str| {
        format!(
            "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - {server}
---
"
        )
    };
    let mut text = gateway(
        "plain",
        &format!("{{port: {{number: {EDGE_HTTP}, name: http, protocol: HTTP}}, hosts: ['*']}}"),
    );
    for index in 0..names {
        // The first one is for those who ask for no name, too.
        let hosts = if index == 0 { "'*'".to_owned() } else { format!("{index}.{EDGE_DOMAIN}") };
        let server = format!(
            "{{port: {{number: {EDGE_HTTPS}, name: https, protocol: HTTPS}}, hosts: [{hosts}], \
             tls: {{mode: SIMPLE, credentialName: edge-{index}}}}}"
        );
        text += &gateway(&format!("edge-{index}"), &server);
    }
    let gateways: Vec<String> =
        std::iter::once("plain".to_owned()).chain((0..names).map(|index| format!("edge-{index}"))).collect();
    let gateways = gateways.join(", ");
    text + &format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: edge, namespace: {NAMESPACE}}}
spec:
  hosts: ['*']
  gateways: [{gateways}]
  http:
  - match: [{{headers: {{end-user: {{exact: jason}}}}}}]
    route: [{{destination: {{host: web, subset: v2}}}}]
  - route:
    - {{destination: {{host: web, subset: v1}}, weight: 90}}
    - {{destination: {{host: web, subset: v2}}, weight: 10}}
"
    )
}

/// A Secret of the gateway's.
pub fn secret(index: u32, chain: &str, key: &str) -> String {
    let metadata = serde_json::json!({"name": format!("edge-{index}"), "namespace": NAMESPACE});
    let data = serde_json::json!({"tls.crt": chain, "tls.key": key});
    serde_json::json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data})
        .to_string()
}

/// How large the large mesh is.
pub const SERVICES: u32 = 10_000;
pub const ENDPOINTS_OF_EACH: u32 = 10;
/// Services in one file, and in one namespace.
pub const SERVICES_OF_A_FILE: u32 = 100;

/// One file of the large mesh: a hundred services in a namespace, each with its EndpointSlice.
pub fn many_services(file: u32) -> String {
    let mut text =
        format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {}}}\n", large_namespace(file));
    for index in file * SERVICES_OF_A_FILE..(file + 1) * SERVICES_OF_A_FILE {
        service_with_slice(&mut text, file, index);
    }
    text
}

fn service_with_slice(text: &mut String, file: u32, index: u32) {
    let (namespace, address) = (large_namespace(file), large_address(index));
    write!(
        text,
        "---
apiVersion: v1
kind: Service
metadata:
  name: service-{index}
  namespace: {namespace}
  labels: {{app: service-{index}}}
spec:
  type: ClusterIP
  clusterIP: {address}
  clusterIPs: [{address}]
  selector: {{app: service-{index}}}
  ports:
  - {{name: http, port: 80, protocol: TCP, targetPort: 8080}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: service-{index}-abcde
  namespace: {namespace}
  labels: {{kubernetes.io/service-name: service-{index}}}
addressType: IPv4
ports:
- {{name: http, port: 8080, protocol: TCP}}
endpoints:
"
    )
    .ok();
    for endpoint in 0..ENDPOINTS_OF_EACH {
        let number = index * ENDPOINTS_OF_EACH + endpoint;
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + number);
        let node = number % 500;
        write!(
            text,
            "- addresses: [{address}]
  conditions: {{ready: true, serving: true, terminating: false}}
  nodeName: node-{node}
  targetRef: {{kind: Pod, name: service-{index}-{endpoint}, namespace: {namespace}}}
"
        )
        .ok();
    }
}

fn large_namespace(file: u32) -> String {
    format!("large-{file}")
}

/// The address of one of the large mesh's services.
pub fn large_address(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 0)) + index)
}

/// The full name of the first service of a file of the large mesh.
pub fn large_host(file: u32) -> String {
    format!("service-{}.{}.svc.cluster.local", file * SERVICES_OF_A_FILE, large_namespace(file))
}

/// A VirtualService for the first service of a file of the large mesh, which answers with the number of its change.
pub fn changing_route(file: u32, change: u32) -> String {
    let (namespace, host) = (large_namespace(file), large_host(file));
    let (one, other) = (change % 100, 100 - change % 100);
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: changing, namespace: {namespace}}}
spec:
  hosts: [{host}]
  http:
  - match: [{{headers: {{x-group: {{exact: canary}}}}}}]
    route:
    - {{destination: {{host: {host}}}, weight: {one}}}
    - {{destination: {{host: {host}}}, weight: {other}}}
  - directResponse: {{status: 200, body: {{string: \"{}\"}}}}
",
        change_text(change)
    )
}

/// What [`changing_route`] answers.
pub fn change_text(change: u32) -> String {
    format!("<change {change}>")
}
