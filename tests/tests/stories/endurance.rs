//! Stories that take minutes, with what they measured printed. Run by
//! `cargo xtask test --only endurance`.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use weft_tests::{Mesh, Pod, eventually, story};

const FIVE_MINUTES: Duration = Duration::from_mins(5);

fn row(mesh: &Mesh, node: &str) -> Result<Value> {
    mesh.with_agent_of(node, |agent| Ok(agent.status()?["certificates"]["certificates"][0].clone()))
}

/// A client on n1, a server on n2, HTTP on 80 and an echo on 7000.
fn pods(mesh: &Mesh) -> Result<()> {
    mesh.pod("client").node("n1").service_account("client").start()?;
    let echo = mesh.pod("echo").node("n2").service_account("echo").label("app", "echo");
    let echo = echo.app(["echo", "--port", "8080"]).start()?;
    echo.app(&["tcp-echo", "--port", "7000"])?;
    let service = mesh.service("echo").selector("app", "echo");
    service.port("http", 80, 8080).port("tcp", 7000, 7000).create()
}

#[test]
#[ignore = "takes five minutes"]
fn certificates_of_thirty_seconds_rotate_under_load_for_five_minutes() {
    story(|mesh| {
        pods(mesh)?;
        mesh.start_agents_with(&["n1", "n2"], &["--certificate-life", "30s"])?;
        mesh.wait_applied()?;
        let mut long = mesh.the("client")?.connect(mesh.service_at("echo", 7000)?)?;
        let load = mesh.load("client", &["http://echo/", "-c", "8"])?;
        let (begun, mut serials, mut said) = (Instant::now(), [BTreeSet::new(), BTreeSet::new()], 0_u64);
        while begun.elapsed() < FIVE_MINUTES {
            long.write_all(b"still there?")?;
            long.read_exact(&mut [0; 12])?;
            said += 1;
            for (node, serials) in ["n1", "n2"].into_iter().zip(&mut serials) {
                let row = row(mesh, node)?;
                ensure!(row["state"] == "valid", "{row}");
                serials.insert(row["serial"].to_string());
            }
            // Once in a second is often enough to miss no certificate.
            std::thread::sleep(Duration::from_secs(1));
        }
        let report = load.finish()?;
        println!(
            "{report:?}; {} and {} certificates; {said} rounds on one connection",
            serials[0].len(),
            serials[1].len()
        );
        report.none_failed()?;
        ensure!(serials.iter().all(|serials| serials.len() >= 12), "{serials:?}");
        Ok(())
    });
}

#[test]
#[ignore = "takes six minutes"]
fn a_ca_that_is_away_for_five_minutes_does_what_the_status_says() {
    story(|mesh| {
        let ca = mesh.outsider("ca")?;
        let dir = mesh.world().dir().join("external-ca").display().to_string();
        let start_ca = |ca: &Pod| ca.app(&["ca", "--port", "15010", "--dir", &dir]);
        start_ca(&ca)?;
        pods(mesh)?;
        let address = format!("http://{}", ca.at(15010));
        // Rotated after two minutes forty: while the CA is away.
        for node in ["n1", "n2"] {
            mesh.start_agent_with(node, &["--ca-address", &address, "--certificate-life", "4m"])?;
        }
        mesh.wait_applied()?;
        let begun = Instant::now();
        ca.stop();
        let mut told = String::new();
        let mut restarted = false;
        let mut step = |mesh: &Mesh| -> Result<(bool, bool)> {
            let (here, there) = (row(mesh, "n1")?, row(mesh, "n2")?);
            let status = mesh.get("client", "http://echo/")?.status;
            let serves = |row: &Value| row["state"] != "missing";
            let line = format!("n1 {}, n2 {}: {status}", here["state"], there["state"]);
            if line != told {
                println!("{:>4} s: {line} ({})", begun.elapsed().as_secs(), here["error"]);
                told = line;
            }
            Ok((serves(&here) && serves(&there), status == 200))
        };
        while begun.elapsed() < FIVE_MINUTES {
            let (told, done) = step(mesh)?;
            // A certificate that ends between the two questions is no contradiction.
            if told != done {
                let (told, done) = step(mesh)?;
                ensure!(told == done, "the status says {told}, and requests say {done}");
            }
            if !restarted && begun.elapsed() > Duration::from_mins(1) {
                restarted = true;
                mesh.with_agent_of("n1", |agent| {
                    agent.terminate()?;
                    agent.spawn()?;
                    agent.ready()
                })?;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        start_ca(&ca)?;
        eventually("certificates, without a restart", Duration::from_mins(1), || {
            let (told, done) = step(mesh)?;
            ensure!(told && done);
            Ok(())
        })
    });
}
