//! Two agents on one machine, each with a node and pods of its own.

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weft_tests::{Mesh, story};

use crate::forge::{Authority, spiffe_id};
use crate::hbone::{self, Client, Server, block_on};

/// What nobody else on the wire has a reason to say.
const MARKER: &str = "in-plain-sight-7f3a";

/// A client on node n1, and `echo` on n2.
fn client_and_echo(mesh: &Mesh) -> Result<()> {
    mesh.pod("client").node("n1").service_account("client").start()?;
    let echo = mesh.pod("echo-v1").node("n2").service_account("echo").label("app", "echo");
    echo.app(["echo", "--port", "8080"]).start()?;
    mesh.service("echo").selector("app", "echo").port("http", 80, 8080).create()
}

#[test]
fn without_a_ca_nodes_speak_in_the_clear_and_each_agent_serves_its_own_pods() {
    story(|mesh| {
        client_and_echo(mesh)?;
        mesh.start_agent_with("n1", &[])?;
        mesh.add_node("n2")?;
        mesh.start_agent_with("n2", &[])?;
        mesh.wait_applied()?;
        let mut wire = mesh.the("echo-v1")?.capture()?;
        let answer = mesh.get("client", &format!("http://echo/{MARKER}"))?;
        ensure!(answer.status == 200, "{answer:?}");
        ensure!(wire.saw(MARKER.as_bytes())?, "the capture is blind");
        ensure!(wire.tls_to(hbone::PORT)? == 0, "TLS without a CA");
        for (node, pod) in [("n1", "client"), ("n2", "echo-v1")] {
            let status = mesh.with_agent_of(node, |agent| agent.status())?;
            let pods: Vec<_> = status["pods"].as_array().into_iter().flatten().collect();
            ensure!(pods.len() == 1 && pods[0].to_string().contains(pod), "{node} serves {pods:?}");
        }
        Ok(())
    });
}

#[test]
fn the_two_sides_of_hbone_that_stories_play_understand_each_other() {
    story(|mesh| {
        let (client, server) = (mesh.outsider("client")?, mesh.outsider("server")?);
        server.app(&["tcp-echo", "--port", "7000"])?;
        let authority = Authority::self_made()?;
        let name = |account: &str| format!("spiffe://cluster.local/ns/default/sa/{account}");
        let node = Server::start(&server, &authority.sign(&name("server"))?, &authority)?;
        let mut wire = client.capture()?;
        block_on(async {
            let credentials = authority.sign(&name("client"))?;
            let mut to = Client::dial(&client, server.at(hbone::PORT), Some(&credentials)).await?;
            authority.verify(&to.server)?;
            ensure!(spiffe_id(&to.server)? == name("server"));
            let (status, tunnel) = to.connect(&server.at(7000).to_string()).await?;
            let mut tunnel = tunnel.with_context(|| status.to_string())?;
            tunnel.write_all(MARKER.as_bytes()).await?;
            tunnel.shutdown().await?;
            let mut back = String::new();
            tunnel.read_to_string(&mut back).await?;
            ensure!(back == MARKER, "{back}");
            ensure!(to.connect(&server.at(7001).to_string()).await?.0 == 503);
            // Nobody gets in with another root's certificate, or with none.
            let other = Authority::self_made()?;
            ensure!(other.verify(&to.server).is_err());
            for credentials in [None, Some(&other.sign(&name("client"))?)] {
                let refused = async {
                    let mut to = Client::dial(&client, server.at(hbone::PORT), credentials).await?;
                    to.connect(&server.at(7000).to_string()).await
                };
                ensure!(refused.await.is_err());
            }
            Ok(())
        })?;
        let seen = node.seen();
        ensure!(seen.len() == 2 && seen[0].client == name("client"), "{seen:?}");
        ensure!(seen[0].authority == server.at(7000).to_string() && seen[0].headers.is_empty(), "{seen:?}");
        ensure!(!wire.saw(MARKER.as_bytes())?, "the marker was on the wire");
        ensure!(wire.tls_to(hbone::PORT)? == 3, "{}", wire.tls_to(hbone::PORT)?);
        Ok(())
    });
}
