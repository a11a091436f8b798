//! Tunnels as ztunnel speaks them, either way, and what peers have to prove.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use http_body_util::Empty;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weft_tests::story;

use crate::forge::Authority;
use crate::hbone::{self, Client, Server, block_on};
use crate::tunnel::{is_reset, two_nodes};

#[test]
fn a_tunnel_leads_to_its_pod_and_nowhere_else() {
    story(|mesh| {
        let (_client, server) = two_nodes(mesh)?;
        let other = mesh.pod("other").node("n2").label("app", "other");
        let other = other.app(["echo", "--port", "8080"]).start()?;
        mesh.wait_applied()?;
        let ztunnel = mesh.outsider("ztunnel")?;
        let authority = Authority::in_dir(&mesh.ca_dir())?;
        let credentials = authority.sign("spiffe://cluster.local/ns/default/sa/client")?;
        block_on(async {
            let mut to = Client::dial(&ztunnel, server.at(hbone::PORT), Some(&credentials)).await?;
            authority.verify(&to.server)?;
            let (status, tunnel) = to.connect(&server.at(8080).to_string()).await?;
            ensure!(status == 200);
            let mut tunnel = tunnel.context("no tunnel")?;
            tunnel.write_all(b"GET / HTTP/1.1\r\nhost: server\r\nconnection: close\r\n\r\n").await?;
            let mut heard = String::new();
            tunnel.read_to_string(&mut heard).await?;
            ensure!(heard.starts_with("HTTP/1.1 200") && heard.contains(&ztunnel.ip.to_string()), "{heard}");
            for elsewhere in [
                other.at(8080).to_string(),
                "127.0.0.1:8080".to_owned(),
                "[::1]:8080".to_owned(),
                "169.254.169.254:80".to_owned(),
                format!("{}:80", mesh.world().gateway()),
                "server.default.svc.cluster.local:80".to_owned(),
                server.at(15001).to_string(),
                server.at(15006).to_string(),
                server.at(15008).to_string(),
            ] {
                let status = to.connect(&elsewhere).await?.0;
                ensure!(status == 400, "{elsewhere}: {status}");
            }
            ensure!(to.connect(&server.at(7999).to_string()).await?.0 == 503, "a closed port");
            let get = http::Request::get(format!("http://{}/", server.at(8080))).body(Empty::new())?;
            ensure!(to.send(get).await?.0 == 400, "a GET");
            Ok(())
        })
    });
}

#[test]
fn a_tunnel_from_ztunnel_ends_as_its_application_does() {
    story(|mesh| {
        let (_client, server) = two_nodes(mesh)?;
        let listener = server.listen(7000)?;
        let ztunnel = mesh.outsider("ztunnel")?;
        let authority = Authority::in_dir(&mesh.ca_dir())?;
        let credentials = authority.sign("spiffe://cluster.local/ns/default/sa/client")?;
        block_on(async {
            let mut to = Client::dial(&ztunnel, server.at(hbone::PORT), Some(&credentials)).await?;
            let program = server.at(7000).to_string();
            let mut open = async || to.connect(&program).await?.1.context("no tunnel");

            let mut tunnel = open().await?;
            let (mut there, _) = listener.accept()?;
            tunnel.write_all(b"question").await?;
            tunnel.shutdown().await?;
            let mut text = String::new();
            there.read_to_string(&mut text)?;
            ensure!(text == "question", "{text}");
            there.write_all(b"answer after your end")?;
            drop(there);
            text.clear();
            tunnel.read_to_string(&mut text).await?;
            ensure!(text == "answer after your end", "{text}");

            let mut tunnel = open().await?;
            let (there, _) = listener.accept()?;
            SockRef::from(&there).set_linger(Some(Duration::ZERO))?;
            drop(there);
            let outcome = tunnel.read(&mut [0]).await;
            ensure!(outcome.is_err(), "the program's reset became {outcome:?}");

            let tunnel = open().await?;
            let (mut there, _) = listener.accept()?;
            drop(tunnel);
            there.set_read_timeout(Some(Duration::from_secs(5)))?;
            // A blocking read: what h2 has to say for the dropped tunnel is said by its own task.
            let outcome = tokio::task::spawn_blocking(move || there.read(&mut [0])).await?;
            let reset = outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
            ensure!(reset, "the caller's reset became {outcome:?}");
            Ok(())
        })
    });
}

#[test]
fn a_tunnel_to_ztunnel_ends_as_its_application_does() {
    story(|mesh| {
        let client = mesh.pod("client").node("n1").service_account("client").start()?;
        let server =
            mesh.pod("server").node("n2").service_account("server").label("app", "server").start()?;
        mesh.service("server").selector("app", "server").port("tcp", 70, 7000).create()?;
        mesh.start_agents(&["n1"])?;
        mesh.wait_applied()?;
        let authority = Authority::in_dir(&mesh.ca_dir())?;
        let credentials = authority.sign("spiffe://cluster.local/ns/default/sa/server")?;
        let node = Server::start(&server, &credentials, &authority)?;
        let listener = server.listen(7000)?;
        let address = mesh.service_at("server", 70)?;
        for round in 0..3 {
            let mut here = client.connect(address)?;
            here.write_all(b"question")?;
            here.shutdown(Shutdown::Write)?;
            let (mut there, _) = listener.accept()?;
            let mut text = String::new();
            there.read_to_string(&mut text)?;
            ensure!(text == "question", "{round}: {text}");
            there.write_all(&vec![7; 3 << 20])?;
            drop(there);
            let mut answer = Vec::new();
            here.read_to_end(&mut answer)?;
            ensure!(answer.len() == 3 << 20, "{round}: {} bytes", answer.len());
        }
        ensure!(node.seen().len() == 3, "{:?}", node.seen());
        // Nobody listens: 503 there, an end here.
        drop(listener);
        is_reset(&client, address)
    });
}

#[test]
fn who_is_not_whom_the_service_means_gets_no_connection() {
    story(|mesh| {
        mesh.pod("client").node("n1").service_account("client").start()?;
        // No agent of weft on n2: something else takes tunnels there, as ztunnel would.
        let names = ["right", "caller", "namespace", "domain", "self-made"];
        for name in names {
            let pod = mesh.pod(name).node("n2").service_account("server").label("app", name);
            pod.app(["echo", "--port", "8080"]).start()?;
            mesh.service(name).selector("app", name).port("http", 80, 8080).create()?;
        }
        mesh.start_agents(&["n1"])?;
        mesh.wait_applied()?;
        let authority = Authority::in_dir(&mesh.ca_dir())?;
        let credentials = [
            authority.sign("spiffe://cluster.local/ns/default/sa/server")?,
            authority.sign("spiffe://cluster.local/ns/default/sa/client")?,
            authority.sign("spiffe://cluster.local/ns/other/sa/server")?,
            authority.sign("spiffe://elsewhere/ns/default/sa/server")?,
            Authority::self_made()?.sign("spiffe://cluster.local/ns/default/sa/server")?,
        ];
        for (name, credentials) in names.into_iter().zip(&credentials) {
            let pod = mesh.the(name)?;
            let node = Server::start(&pod, credentials, &authority)?;
            let answer = mesh.get("client", &format!("http://{name}/"))?;
            let seen = node.seen();
            if name != "right" {
                ensure!(answer.status == 503 && seen.is_empty(), "{name}: {answer:?} {seen:?}");
                continue;
            }
            ensure!(answer.status == 200, "{answer:?}");
            ensure!(seen[0].client == "spiffe://cluster.local/ns/default/sa/client", "{seen:?}");
            ensure!(seen[0].authority == pod.at(8080).to_string(), "{seen:?}");
            let baggage = seen[0].headers.get("baggage").context("no baggage")?.to_str()?;
            ensure!(baggage.contains("k8s.namespace.name=default"), "{baggage}");
            ensure!(seen[0].headers.contains_key("forwarded"), "{seen:?}");
            ensure!(seen[0].headers.contains_key("traceparent"), "{seen:?}");
        }
        Ok(())
    });
}
