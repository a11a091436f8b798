//! What a person can see of identities, mutual TLS and denials.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_tests::{Mesh, eventually, story};

use crate::deploy;

/// Everything is counted and logged within so long.
const PATIENCE: Duration = Duration::from_secs(5);

fn identity(account: &str) -> String {
    format!("spiffe://cluster.local/ns/default/sa/{account}")
}

/// `client` on n1, `echo` on n2 and `neighbour` beside the client.
fn two_nodes(mesh: &Mesh) -> Result<()> {
    mesh.pod("client").node("n1").service_account("client").label("app", "client").start()?;
    for (name, node) in [("echo", "n2"), ("neighbour", "n1")] {
        let pod = mesh.pod(name).node(node).service_account(name).label("app", name);
        pod.app(["echo", "--port", "8080"]).start()?;
        mesh.service(name).selector("app", name).port("http", 80, 8080).create()?;
    }
    mesh.start_agents(&["n1", "n2"])?;
    mesh.wait_applied()
}

/// What `weft edges` says on a node, of one destination.
fn edge(mesh: &Mesh, node: &str, destination: &str) -> Result<Value> {
    let words = ["edges", "--interval", "0", "--to", &format!("deploy/{destination}"), "-o", "json"];
    let output = mesh.with_agent_of(node, |agent| agent.weft(&words))?;
    let rows = output.json()?;
    let rows = rows.as_array().context("a list")?;
    ensure!(rows.len() == 1, "{rows:#?}");
    Ok(rows[0].clone())
}

#[test]
fn edges_tell_both_identities_and_how_safe_it_was() {
    story(|mesh| {
        two_nodes(mesh)?;
        for to in ["echo", "echo", "neighbour"] {
            let answer = mesh.get("client", &format!("http://{to}/"))?;
            ensure!(answer.status == 200, "{answer:?}");
        }
        eventually("counted", PATIENCE, || {
            for (to, security, requests) in [("echo", "mutualTls", 2), ("neighbour", "sameNode", 1)] {
                let edge = edge(mesh, "n1", to)?;
                ensure!(edge["source"]["identity"] == identity("client"), "{edge}");
                ensure!(edge["destination"]["identity"] == identity(to), "{edge}");
                ensure!(edge["security"] == security && edge["requests"] == requests, "{edge}");
            }
            Ok(())
        })?;
        let table = mesh.weft(&["edges", "--interval", "0", "-n", "default"])?;
        let table = table.good()?;
        ensure!(table.contains("✓ mTLS") && table.contains("✓ same node"), "{table}");

        // Kiali's padlock.
        let metrics = mesh.metrics()?;
        for to in ["echo", "neighbour"] {
            let labels = [
                ("reporter", "source"),
                ("source_principal", &*identity("client")),
                ("destination_principal", &*identity(to)),
                ("connection_security_policy", "mutual_tls"),
            ];
            ensure!(metrics.count("istio_requests_total", &labels) > 0, "no padlock to {to}");
        }
        Ok(())
    });
}

#[test]
fn edges_tell_why_it_was_not_safe() {
    story(|mesh| {
        two_nodes(mesh)?;
        let outside = mesh.outsider("mallory")?;
        let to = mesh.the("neighbour")?.at(8080);
        let answer = outside.exec(&[
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            &format!("http://{to}/"),
        ])?;
        ensure!(answer.stdout == "200", "{answer:?}");
        eventually("counted", PATIENCE, || {
            let edge = edge(mesh, "n1", "neighbour")?;
            ensure!(edge["security"] == "plaintext", "{edge}");
            ensure!(edge["reason"] == "plaintext: caller not in the mesh", "{edge}");
            Ok(())
        })
    });
}

#[test]
fn a_denial_is_seen_with_the_policys_name() {
    story(|mesh| {
        two_nodes(mesh)?;
        let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: only-get, namespace: default}\n\
                      spec:\n  selector: {matchLabels: {app: neighbour}}\n  action: DENY\n  rules:\n\
                      \u{20} - to: [{operation: {methods: [POST]}}]\n";
        mesh.apply_now("policy", policy)?;
        let answer = mesh.http("client", "http://neighbour/denied")?.method("POST").send()?;
        ensure!(answer.status == 403, "{answer:?}");
        let details = "rbac_access_denied_matched_policy[ns[default]-policy[only-get]-rule[0]]";
        eventually("logged", PATIENCE, || {
            let log = mesh.access_log()?;
            let line = log.iter().find(|line| line.contains("/denied")).context("not logged yet")?;
            ensure!(line.contains(details), "{line}");
            Ok(())
        })?;
        ensure!(edge(mesh, "n1", "neighbour")?["denied"] == 1);

        let rows = mesh.weft(&["get", "policies", "-o", "json"])?.json()?;
        ensure!(rows[0]["name"] == "only-get" && rows[0]["action"] == "DENY", "{rows}");
        ensure!(rows[0]["workloads"] == serde_json::json!(["default/neighbour"]), "{rows}");
        let told = mesh.explain("client", "neighbour", &["--method", "POST"])?;
        ensure!(told["policies"].to_string().contains("only-get"), "{told}");
        Ok(())
    });
}

#[test]
fn certificates_and_strangers_are_told() {
    story(|mesh| {
        two_nodes(mesh)?;
        mesh.get("client", "http://echo/")?;
        let rows = mesh.weft(&["get", "certificates", "-o", "json"])?.json()?;
        let rows = rows.as_array().context("a list")?;
        ensure!(rows.len() == 2 && rows.iter().all(|row| row["state"] == "valid"), "{rows:#?}");
        let status = mesh.weft(&["status"])?;
        ensure!(status.stdout.contains("2 valid certificates; own CA"), "{}", status.stdout);

        let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: default}\n\
                      spec: {mtls: {mode: STRICT}}\n";
        mesh.apply_now("strict", strict)?;
        let to = mesh.the("neighbour")?.at(8080).to_string();
        let told = mesh.weft(&["explain", "--from-address", "192.0.2.7", &to, "-o", "json"])?.json()?;
        ensure!(told["policies"].to_string().contains("STRICT"), "{told}");
        Ok(())
    });
}

#[test]
fn a_policy_that_cannot_be_is_refused_and_the_last_good_one_holds() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let policy = |source: &str| {
            format!(
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: nobody, namespace: default}}\n\
                 spec:\n  selector: {{matchLabels: {{app: echo}}}}\n  action: DENY\n  rules: [{{from: [{{source: {{{source}}}}}]}}]\n"
            )
        };
        mesh.apply_now("policy", &policy("namespaces: [default]"))?;
        ensure!(mesh.get("client", "http://echo/")?.status == 403);
        mesh.apply_now("policy", &policy("namespace: [elsewhere]"))?;
        let status = mesh.with_agent(|agent| agent.status())?;
        let refused = status["refused"][0]["message"].as_str().unwrap_or_default();
        ensure!(refused.contains("did you mean `namespaces`?"), "{status}");
        ensure!(mesh.get("client", "http://echo/")?.status == 403, "the last good one holds");
        Ok(())
    });
}
