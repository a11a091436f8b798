//! What most stories need: a client, a service with two versions, and a way to say rules shortly.

use anyhow::{Context, Result};
use weft_tests::Mesh;

/// Deploys `echo`, versions v1 and v2, one pod each, and `client`; then starts the agent.
///
/// The same pods are behind four services that differ in how port 80 is declared: `echo` (`http`), `echo-grpc`
/// (`grpc`), `echo-raw` (no name) and `echo-tcp` (`tcp`). Subsets `v1` and `v2` exist for `echo` and `echo-tcp`.
pub fn echo(mesh: &Mesh) -> Result<()> {
    echo_pods(mesh)?;
    mesh.start_agent()?;
    mesh.wait_applied()
}

/// [`echo`] without an agent.
pub fn echo_pods(mesh: &Mesh) -> Result<()> {
    mesh.pod("client").label("app", "client").start()?;
    for version in ["v1", "v2"] {
        let pod = mesh.pod(&format!("echo-{version}")).label("app", "echo").label("version", version);
        pod.app(["echo", "--port", "8080"]).start()?;
    }
    for (name, port) in [("echo", "http"), ("echo-grpc", "grpc"), ("echo-raw", ""), ("echo-tcp", "tcp")] {
        mesh.service(name).selector("app", "echo").port(port, 80, 8080).create()?;
    }
    mesh.apply("subsets", &format!("{}---\n{}", subsets("echo"), subsets("echo-tcp")))
}

/// A DestinationRule with subsets v1 and v2.
pub fn subsets(host: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {host}, namespace: default}}\n\
         spec:\n  host: {host}\n  subsets:\n\
         \u{20} - {{name: v1, labels: {{version: v1}}}}\n  - {{name: v2, labels: {{version: v2}}}}\n"
    )
}

/// A VirtualService for `echo` with this `http` list, written as for column 0.
pub fn http_rules(list: &str) -> String {
    virtual_service("echo", "http", list)
}

/// A VirtualService named as its host, with one list.
pub fn virtual_service(host: &str, protocol: &str, list: &str) -> String {
    let list = format!("  {}\n", list.trim_matches('\n').replace('\n', "\n  "));
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {host}, namespace: default}}\n\
         spec:\n  hosts: [{host}]\n  {protocol}:\n{list}"
    )
}

/// The echo server's `http` rules, in force.
pub fn route(mesh: &Mesh, list: &str) -> Result<()> {
    mesh.apply_now("rules", &http_rules(list))
}

/// A header as the application got it; all its values, joined.
pub fn got_header(seen: &serde_json::Value, name: &str) -> Option<String> {
    let values = seen["headers"][name].as_array()?;
    Some(values.iter().filter_map(|value| value.as_str()).collect::<Vec<_>>().join(","))
}

/// How often a path was asked for at a pod, asked around the mesh.
pub fn hits(mesh: &Mesh, pod: &str, path: &str) -> Result<u64> {
    let address = mesh.the(pod)?.at(8080);
    let (status, body) = weft_tests::get(address, &format!("/hits{path}"))?;
    anyhow::ensure!(status == 200, "hits: {status}");
    serde_json::from_str::<serde_json::Value>(&body)?["count"].as_u64().context("no count")
}
