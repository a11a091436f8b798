//! The node's own ports: metrics and readiness.

use std::io::Write as _;
use std::net::SocketAddr;

use anyhow::{Result, ensure};
use weft_tests::{Mesh, Pod, story};

/// Status and body of a GET from inside a pod's network.
fn get(from: &Pod, address: SocketAddr, path: &str) -> Result<(String, String)> {
    let url = format!("http://{address}{path}");
    let output = from.exec(&["curl", "-s", "-m", "5", "-w", "\n%{http_code}", &url])?;
    let (body, status) = output.stdout.rsplit_once('\n').unwrap_or(("", &output.stdout));
    Ok((status.to_owned(), body.to_owned()))
}

/// An agent in a node's own namespace, which answers `default/prometheus`; where its metrics are, and its readiness.
fn node(mesh: &Mesh) -> Result<[SocketAddr; 2]> {
    mesh.start_agents_with(&["n1"], &["--metrics-allow", "default/prometheus"])?;
    mesh.wait_applied()?;
    mesh.with_agent(|agent| Ok([agent.metrics_address(), agent.readiness_address()]))
}

#[test]
fn prometheus_scrapes_and_others_are_told_how_to_be_named() {
    story(|mesh| {
        let own = mesh.add_node("n1")?;
        let prometheus = mesh.pod("prometheus").node("n1").service_account("prometheus").start()?;
        let plain =
            mesh.pod("plain").node("n1").service_account("prometheus").label("weft.dev/mesh", "disabled");
        let (plain, web) = (plain.start()?, mesh.pod("web").node("n1").service_account("web").start()?);
        let far = mesh.pod("far").node("n2").service_account("far").start()?;
        let outside = mesh.outsider("outside")?;
        let [metrics, readiness] = node(mesh)?;
        for reader in [&own, &prometheus, &plain] {
            let (status, body) = get(reader, metrics, "/metrics")?;
            ensure!(status == "200" && body.trim_end().ends_with("# EOF"), "{status} {body}");
            let (status, body) = get(reader, readiness, "/healthz/ready")?;
            ensure!(status == "200", "{status} {body}");
        }
        for (stranger, who) in [(&web, "default/web"), (&far, "default/far"), (&outside, "may not read this")]
        {
            for (address, path) in
                [(metrics, "/metrics"), (readiness, "/healthz/ready"), (readiness, "/healthz/live")]
            {
                let (status, body) = get(stranger, address, path)?;
                ensure!(status == "403" && body.contains("--metrics-allow"), "{status} {body}");
                ensure!(body.contains(who) && !body.contains("weft_"), "{body}");
            }
        }
        let refused = mesh.metrics()?.count("weft_metrics_scrapes_refused_total", &[]);
        ensure!(refused == 9, "{refused}");
        Ok(())
    });
}

#[test]
fn strangers_keep_neither_the_kubelet_nor_prometheus_waiting() {
    story(|mesh| {
        let own = mesh.add_node("n1")?;
        let prometheus = mesh.pod("prometheus").node("n1").service_account("prometheus").start()?;
        let mallory = mesh.pod("mallory").node("n1").start()?;
        let [metrics, readiness] = node(mesh)?;
        // Twice as many as one listener serves, and none of them says a word.
        let mut silent = Vec::new();
        for address in [metrics, readiness] {
            for _ in 0..128 {
                silent.push(mallory.connect(address)?);
            }
        }
        ensure!(get(&own, readiness, "/healthz/ready")?.0 == "200");
        ensure!(get(&prometheus, metrics, "/metrics")?.0 == "200");
        // Nor does one who is named and does not read.
        let mut unread = prometheus.connect(metrics)?;
        unread.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")?;
        ensure!(get(&own, readiness, "/healthz/ready")?.0 == "200");
        drop((silent, unread));
        Ok(())
    });
}
