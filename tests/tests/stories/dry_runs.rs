//! AuthorizationPolicies that are tried out (annotation `istio.io/dry-run`): nobody is refused, and everybody can see who would be.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_tests::{Mesh, eventually, story};

const PATIENCE: Duration = Duration::from_secs(5);

/// `client` and `near` on n1, `far` on n2, each of which serves HTTP and bytes.
fn two_nodes(mesh: &Mesh) -> Result<()> {
    mesh.pod("client").node("n1").service_account("client").label("app", "client").start()?;
    for (name, node) in [("near", "n1"), ("far", "n2")] {
        let pod = mesh.pod(name).node(node).label("app", name);
        pod.app(["echo", "--port", "8080"]).start()?;
        mesh.service(name).selector("app", name).port("http", 80, 8080).create()?;
    }
    mesh.start_agents(&["n1", "n2"])?;
    mesh.wait_applied()
}

fn tried(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: {name}, namespace: default, annotations: {{istio.io/dry-run: 'true'}}}}\nspec: {spec}\n"
    )
}

/// How often a policy said so of requests from the client, on a node.
fn count(mesh: &Mesh, node: &str, policy: &str, verdict: &str, to: &str) -> Result<u64> {
    let metrics = mesh.with_agent_of(node, |agent| agent.metrics())?;
    let labels = [
        ("policy", policy),
        ("verdict", verdict),
        ("source_workload", "client"),
        ("source_principal", "spiffe://cluster.local/ns/default/sa/client"),
        ("destination_workload", to),
    ];
    Ok(metrics.count("weft_authorization_dry_run_total", &labels))
}

#[test]
fn what_a_policy_would_refuse_is_let_in_counted_logged_and_tapped() {
    story(|mesh| {
        two_nodes(mesh)?;
        let puts = tried("puts", "{action: DENY, rules: [{to: [{operation: {methods: [PUT]}}]}]}");
        mesh.apply_now("tried", &puts)?;
        for (to, node) in [("near", "n1"), ("far", "n2")] {
            let tap = ["tap", "--would-deny", "--max", "1", "-o", "json"];
            let mut tap = mesh.with_agent_of(node, |agent| agent.weft_command(&tap))?;
            let tap = tap.stdout(std::process::Stdio::piped()).spawn()?;
            eventually("a tap", PATIENCE, || {
                let taps = mesh.with_agent_of(node, |agent| agent.metrics())?.count("weft_taps", &[]);
                ensure!(taps == 1, "{taps}");
                Ok(())
            })?;
            let url = format!("http://{to}/tried");
            ensure!(mesh.get("client", &url)?.status == 200);
            let answer = mesh.http("client", &url)?.method("PUT").send()?;
            ensure!(answer.status == 200, "{answer:?}");

            let seen = tap.wait_with_output()?;
            let seen: Value = serde_json::from_slice(&seen.stdout).context("no event")?;
            ensure!(seen["method"] == "PUT" && seen["wouldDeny"][0] == "default/puts", "{seen}");
            ensure!(seen["verdict"] == "forwarded", "{seen}");
            eventually("counted", PATIENCE, || {
                for verdict in ["allowed", "denied"] {
                    let counted = count(mesh, node, "default/puts", verdict, to)?;
                    ensure!(counted == 1, "{counted} {verdict} to {to}");
                }
                Ok(())
            })?;
            eventually("logged", PATIENCE, || {
                let log = mesh.with_agent_of(node, |agent| Ok(agent.access_log()))?;
                let told = "via_upstream{dry_run_denied[ns[default]-policy[puts]]}";
                let tried: Vec<_> = log.iter().filter(|line| line.contains(told)).collect();
                ensure!(tried.len() == 1 && tried[0].contains("PUT /tried"), "{log:#?}");
                Ok(())
            })?;
        }
        Ok(())
    });
}

#[test]
fn connections_of_bytes_are_judged_too() {
    story(|mesh| {
        two_nodes(mesh)?;
        mesh.service("bytes").selector("app", "far").port("tcp", 90, 8080).create()?;
        mesh.apply_now("tried", &tried("all", "{action: DENY, rules: [{}]}"))?;
        let client = mesh.the("client")?;
        drop(client.connect(mesh.service_at("bytes", 90)?)?);
        eventually("counted", PATIENCE, || {
            let counted = count(mesh, "n2", "default/all", "denied", "far")?;
            ensure!(counted == 1, "{counted}");
            Ok(())
        })
    });
}
