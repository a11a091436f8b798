//! Who is in the mesh, from when on, and what becomes of connections that are open.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weft_tests::{Mesh, eventually, story};

use crate::attacks::STRICT;
use crate::deploy;

fn counted(mesh: &Mesh, source: &str) -> Result<u64> {
    Ok(mesh.metrics()?.count("istio_requests_total", &[("source_workload", source)]))
}

#[test]
fn open_connections_live_on_in_both_directions() {
    story(|mesh| {
        mesh.namespace("default", false)?;
        let client = mesh.pod("client").start()?;
        let server = mesh.pod("server").label("app", "server").start()?;
        mesh.service("server").selector("app", "server").port("tcp", 70, 7000).create()?;
        mesh.start_agent()?;
        let listener = server.listen(7000)?;
        let pair = |address| -> Result<_> {
            let here = client.connect(address)?;
            let (there, peer) = listener.accept()?;
            ensure!(peer.ip() == client.ip, "the server sees {peer}");
            Ok((here, there))
        };
        let mut direct = pair(server.at(7000))?;
        talk(&mut direct).context("outside of the mesh")?;

        mesh.namespace("default", true)?;
        mesh.wait_applied()?;
        talk(&mut direct).context("opened before, after joining")?;
        let mut meshed = pair(mesh.service_at("server", 70)?)?;
        talk(&mut meshed).context("in the mesh")?;
        talk(&mut direct).context("opened before, beside one in the mesh")?;

        mesh.namespace("default", false)?;
        mesh.wait_applied()?;
        talk(&mut meshed).context("opened in the mesh, after leaving")?;
        talk(&mut direct).context("opened before, after leaving")?;
        talk(&mut pair(server.at(7000))?).context("outside again")?;
        Ok(())
    });
}

fn talk(pair: &mut (TcpStream, TcpStream)) -> Result<()> {
    let mut buffer = [0; 4];
    pair.0.write_all(b"ping")?;
    pair.1.read_exact(&mut buffer)?;
    ensure!(&buffer == b"ping");
    pair.1.write_all(b"pong")?;
    pair.0.read_exact(&mut buffer)?;
    ensure!(&buffer == b"pong");
    Ok(())
}

#[test]
fn every_label_that_people_have_opts_in_and_a_pod_may_opt_out() {
    story(|mesh| {
        let labels = [
            ("weft", ("weft.dev/mesh", "enabled"), true),
            ("sidecar", ("istio-injection", "enabled"), true),
            ("ambient", ("istio.io/dataplane-mode", "ambient"), true),
            ("disabled", ("istio-injection", "disabled"), false),
            ("none", ("team", "a"), false),
        ];
        for (namespace, label, _) in labels {
            mesh.namespace_labels(namespace, &[label])?;
            mesh.pod(&format!("{namespace}-in")).namespace(namespace).start()?;
            mesh.pod(&format!("{namespace}-out"))
                .namespace(namespace)
                .label("weft.dev/mesh", "disabled")
                .start()?;
        }
        mesh.start_agent()?;
        mesh.wait_applied()?;
        let status = mesh.with_agent(|agent| agent.status())?;
        let enrolled = |pod: &str| {
            let pods = status["pods"].as_array().into_iter().flatten();
            pods.into_iter().any(|row| row["name"] == pod && row["enrolled"] == true)
        };
        for (namespace, _, expected) in labels {
            ensure!(enrolled(&format!("{namespace}-in")) == expected, "{namespace}: {status:#}");
            ensure!(!enrolled(&format!("{namespace}-out")), "{namespace}, opted out: {status:#}");
        }
        Ok(())
    });
}

#[test]
fn pods_come_and_go() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let start = Instant::now();
        mesh.pod("late").start()?;
        eventually("in the mesh", Duration::from_secs(5), || {
            // Nothing but weft serves the address: what is dialled too early gets no answer.
            let request = mesh.http("late", "http://echo/")?.flag("--connect-timeout").flag("0.2");
            ensure!(request.send()?.status == 200);
            ensure!(counted(mesh, "late")? > 0, "not counted");
            Ok(())
        })?;
        println!("a new pod was in the mesh after {:?}", start.elapsed());

        mesh.pod("echo-v3")
            .label("app", "echo")
            .label("version", "v3")
            .app(["echo", "--port", "8080"])
            .start()?;
        mesh.wait_applied()?;
        let report = mesh.many("client", "http://echo/", 90, 3)?;
        ensure!(report.none_failed()?.versions.len() == 3, "{:?}", report.versions);

        // One goes while it is asked: its endpoint first, as Kubernetes does.
        let load = mesh.load("client", &["http://echo/", "-c", "4"])?;
        std::fs::remove_file(mesh.pod_file("echo-v3"))?;
        mesh.wait_applied()?;
        let report = mesh.many("client", "http://echo/", 60, 3)?;
        ensure!(!report.none_failed()?.versions.contains_key("v3"), "{:?}", report.versions);
        load.finish()?.none_failed()?;
        Ok(())
    });
}

#[test]
fn a_pod_needs_no_route_to_a_service() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let client = mesh.the("client")?;
        client.exec(&["ip", "route", "delete", "default"])?.good()?;
        client.exec(&["ip", "-6", "route", "delete", "default"])?.good()?;
        for address in [mesh.service_at("echo", 80)?, mesh.service_at6("echo", 80)?] {
            let answer = mesh.get("client", &format!("http://{address}/"))?;
            ensure!(answer.status == 200, "{address}: {answer:?}");
        }
        Ok(())
    });
}

#[test]
fn connections_that_stood_when_their_caller_left_are_still_its_own() {
    story(|mesh| {
        mesh.namespace("default", true)?;
        mesh.namespace("callers", true)?;
        let mut servers = Vec::new();
        for (name, node) in [("far", "n2"), ("near", "n1")] {
            let pod = mesh.pod(name).node(node).label("app", name);
            servers.push(pod.app(["echo", "--port", "8080"]).start()?);
            mesh.service(name).selector("app", name).port("http", 80, 8080).create()?;
        }
        let client = mesh.pod("client").namespace("callers").node("n1").service_account("client").start()?;
        mesh.start_agents(&["n1", "n2"])?;
        mesh.wait_applied()?;
        mesh.apply_now("strict", STRICT)?;
        let mut standing = Vec::new();
        for name in ["far", "near"] {
            let mut stream = client.connect(mesh.service_at(name, 80)?)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            ask(&mut stream).with_context(|| format!("{name}, in the mesh"))?;
            standing.push((name, stream));
        }
        mesh.namespace("callers", false)?;
        mesh.wait_applied()?;
        for (name, stream) in &mut standing {
            for _ in 0..3 {
                ask(stream).with_context(|| format!("{name}, opened in the mesh, after leaving"))?;
            }
        }
        for server in servers {
            let late = client.connect(server.at(8080)).and_then(|mut stream| ask(&mut stream));
            ensure!(late.is_err(), "one that was opened afterwards is nobody's");
        }
        drop(standing);
        // Nobody asks by it any more: the certificate goes, when the agent has closed what it kept.
        eventually("no certificate of the client's", Duration::from_secs(40), || {
            let told = mesh.weft(&["get", "certificates", "-o", "json"])?.json()?;
            ensure!(!told.to_string().contains("ns/callers"), "{told}");
            Ok(())
        })
    });
}

fn ask(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: server\r\n\r\n")?;
    let mut buffer = [0; 16 * 1024];
    let count = stream.read(&mut buffer)?;
    let said = String::from_utf8_lossy(&buffer[..count]);
    ensure!(said.starts_with("HTTP/1.1 200"), "{said}");
    Ok(())
}
