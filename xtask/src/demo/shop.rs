//! Scenario 1: the first application in the mesh.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weft_tests::{Mesh, eventually, scenarios};

use super::stage::Stage;

const NAMESPACE: &str = "istioinaction";
/// The promise for a label.
const A_SECOND: Duration = Duration::from_secs(1);

/// Plays it.
pub fn play(stage: &mut Stage, mesh: &Mesh) {
    stage.scenario("Scenario 1", "a web shop: the first application in the mesh");
    stage.step("The shop runs, as any two services do, outside of the mesh", |stage| {
        stage.command("curl -s http://apigateway/api/catalog");
        let answer = eventually("the shop", Duration::from_secs(5), || ask(mesh, "apigateway/api/catalog"))?;
        stage.output(&answer);
        ensure!(seen(mesh)? == 0.0, "weft saw a request before the namespace was labelled");
        Ok("answered by the pods; weft saw nothing of it".to_owned())
    });

    // What was open before stays as it is, through all that follows.
    let mut before = Conversation::open(mesh);
    stage.step("One label on the namespace, pods already running", |stage| {
        stage.command(&format!("kubectl label namespace {NAMESPACE} weft.dev/mesh=enabled"));
        let start = Instant::now();
        label(stage, mesh, true)?;
        let took = eventually("in the mesh", Duration::from_secs(5), || {
            ask(mesh, "catalog/items")?;
            ensure!(seen(mesh)? > 0.0, "weft sees no request yet");
            Ok(start.elapsed())
        })?;
        ensure!(took < A_SECOND, "it took {took:?}");
        Ok(format!("in the mesh after {} ms: no restart, no injection, no iptables rule", took.as_millis()))
    });
    stage.step("A connection that was open before the label goes on", |_| {
        let before = before.as_mut().map_err(|error| anyhow::anyhow!("{error:#}"))?;
        ensure!(before.ask()?.contains("200 OK"), "it was not answered well");
        Ok("the next request on it was answered".to_owned())
    });
    stage.step("A one-shot pod asks by name", |stage| {
        mesh.pod("one-shot").namespace(NAMESPACE).start()?;
        mesh.wait_applied()?;
        for url in ["catalog/items", "apigateway/api/catalog"] {
            stage.command(&format!("curl -s {url}"));
            let output = mesh.exec("one-shot", &["curl", "-s", url])?.good()?;
            stage.output(&output);
            ensure!(output.contains("Elinor Glasses"), "that is not the list");
        }
        mesh.delete_pod("one-shot")?;
        Ok("both print the list; deploying into the namespace took nothing but a manifest".to_owned())
    });
    stage.step("The label off, and on again", |stage| {
        label(stage, mesh, false)?;
        mesh.wait_applied()?;
        let count = seen(mesh)?;
        ask(mesh, "catalog/items")?;
        ensure!(count.total_cmp(&seen(mesh)?).is_eq(), "weft still sees the pods' requests");
        label(stage, mesh, true)?;
        mesh.wait_applied()?;
        ask(mesh, "catalog/items")?;
        ensure!(seen(mesh)? > count, "weft does not see the pods' requests");
        Ok("out and in again, the shop answered each time".to_owned())
    });
}

fn label(stage: &Stage, mesh: &Mesh, on: bool) -> Result<()> {
    mesh.namespace(NAMESPACE, on)?;
    stage.manifest(&std::fs::read_to_string(mesh.manifests().join(format!("namespace-{NAMESPACE}.yaml")))?);
    Ok(())
}

fn ask(mesh: &Mesh, url: &str) -> Result<String> {
    let answer = mesh.get("client", &format!("http://{url}"))?;
    ensure!(answer.status == 200, "status {}", answer.status);
    ensure!(answer.body.contains("Elinor Glasses"), "that is not the list: {}", answer.body);
    Ok(answer.body)
}

/// Requests that weft has counted for the catalogue.
fn seen(mesh: &Mesh) -> Result<f64> {
    Ok(mesh.metrics()?.sum("istio_requests_total", &[("destination_service_name", "catalog")]))
}

/// A kept connection from the client to the catalogue's Service address.
struct Conversation(std::net::TcpStream);

impl Conversation {
    fn open(mesh: &Mesh) -> Result<Self> {
        let mut conversation = Self(mesh.the("client")?.connect(mesh.service_at("catalog", 80)?)?);
        conversation.ask().context("before the label")?;
        Ok(conversation)
    }

    fn ask(&mut self) -> Result<String> {
        scenarios::ask_again(&mut self.0, "catalog", "/items")
    }
}
