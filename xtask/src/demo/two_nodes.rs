//! Scenario 4's denial, and what two nodes add to it: who talks to whom, proved by certificates, and TLS on the wire.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::{Capture, Mesh, eventually, scenarios};

use super::bookinfo::stars;
use super::stage::Stage;

/// Where ratings and details run; the rest is on [`NEAR`].
pub const FAR: &str = "node-b";
pub const NEAR: &str = "node-a";
/// How long a certificate lives here: short enough for one to be replaced before the audience's eyes.
pub const CERTIFICATE_LIFE: &str = "--certificate-life=30s";
/// For a certificate to be replaced, which happens at two thirds of its life.
const ROTATION: Duration = Duration::from_secs(40);

const RATINGS: &str = "http://ratings.bookinfo:9080/ratings/0";
const TUNNEL_PORT: u16 = 15008;
/// What nobody else on the wire has a reason to say.
const MARKER: &str = "a-secret-between-reviews-and-ratings";

/// Plays it.
pub fn play(stage: &mut Stage, mesh: &Mesh) {
    stage.scenario("Scenario 4b", "Bookinfo over two nodes: identity, and TLS on the wire");
    stage.say("node-b is a network namespace with an agent of its own; ratings and details run there.");
    stage.step("What an eavesdropper between the nodes sees", |stage| {
        // A service account of its own: its first tunnel, with its handshake, is yet to come.
        mesh.pod("visitor").namespace("bookinfo").node(NEAR).service_account("visitor").start()?;
        mesh.wait_applied()?;
        let mut wire = mesh.the("ratings-v1")?.capture()?;
        stage.command(&format!("curl {RATINGS} -H 'x-secret: {MARKER}'"));
        let answer = mesh.http("visitor", RATINGS)?.header("x-secret", MARKER).send()?;
        ensure!(answer.status == 200, "status {}", answer.status);
        stage.output(&format!("what the visitor sees:  {}", answer.body.trim()));
        stage.output(&hello(&mut wire)?);
        ensure!(wire.tls_to(TUNNEL_PORT)? > 0, "no TLS handshake was on the wire");
        ensure!(!wire.saw(MARKER.as_bytes())?, "the secret was on the wire in plain sight");
        ensure!(!wire.saw(b"Reviewer1")?, "the answer was on the wire in plain sight");
        Ok("a ClientHello and TLS records; neither the secret nor the answer".to_owned())
    });
    stage.step("Who talks to whom", |stage| {
        mesh.get("client", "http://productpage.bookinfo:9080/productpage")?;
        stage.command("weft edges -n bookinfo");
        stage.output(&mesh.weft(&["edges", "-n", "bookinfo", "--interval", "0"])?.good()?);
        let edges = mesh.weft(&["edges", "-n", "bookinfo", "--interval", "0", "-o", "json"])?.json()?;
        let edges: Vec<&Value> = edges.as_array().into_iter().flatten().collect();
        // Requests that their clients gave up have reached nobody.
        let to_ratings = edges.iter().filter(|edge| edge["destination"]["app"] == "ratings");
        let reached: Vec<_> =
            to_ratings.map(|edge| &edge["security"]).filter(|security| *security != "unknown").collect();
        ensure!(
            !reached.is_empty() && reached.iter().all(|security| *security == "mutualTls"),
            "ratings is not asked over mutual TLS: {reached:?}"
        );
        Ok("both ends by their certificates, wherever they run".to_owned())
    });
    stage.step("ratings denies reviews-v3, by its service account; jason's v2 still has stars", |stage| {
        apply(stage, mesh, "bookinfo-reviews", "bookinfo/jason-v2-others-v3")?;
        ensure!(stars(mesh, "")? == "red", "v3 has no stars to begin with");
        apply(stage, mesh, "bookinfo-ratings-deny", "bookinfo/ratings-deny-v3")?;
        let (others, jason) = (page(mesh, "")?, stars(mesh, "jason")?);
        ensure!(others.contains("Ratings service is currently unavailable"), "v3 was not denied");
        ensure!(jason == "black", "jason sees {jason} stars");
        stage.command("weft explain pod/reviews-v3.bookinfo ratings:9080");
        let words = ["explain", "pod/reviews-v3.bookinfo", "ratings:9080"];
        stage.output(&mesh.with_agent_of(FAR, |agent| agent.weft(&words))?.stdout);
        mesh.delete("bookinfo-ratings-deny")?;
        mesh.wait_applied()?;
        ensure!(stars(mesh, "")? == "red", "v3 has no stars afterwards");
        Ok("v3 without stars, v2 with them; and back".to_owned())
    });
    stage.step("STRICT: who cannot prove who he is gets a reset", |stage| {
        let stranger = mesh.outsider("stranger")?;
        let address = format!("http://{}/ratings/0", mesh.the("ratings-v1")?.at(9080));
        let words = ["curl", "-sS", "--max-time", "5", &address];
        stage.command(&words.join(" "));
        let before = stranger.exec(&words)?;
        ensure!(
            before.code == 0 && before.stdout.contains("Reviewer1"),
            "not answered before: {}",
            before.stderr
        );
        apply(stage, mesh, "bookinfo-strict", "bookinfo/strict")?;
        let after = stranger.exec(&words)?;
        stage.output(&format!("{}{}", after.stdout, after.stderr));
        // 7: the reset was there before curl had looked at its connection; 56: after its request.
        let is_reset = matches!(after.code, 7 | 56) && after.stdout.is_empty();
        ensure!(is_reset, "not reset: {} {}", after.code, after.stdout);
        ensure!(mesh.get("visitor", RATINGS)?.status == 200, "the visitor is not answered");
        mesh.delete("bookinfo-strict")?;
        mesh.wait_applied()?;
        Ok("a stranger: connection reset; a visitor with a certificate: 200".to_owned())
    });
    stage.step("Certificates are replaced under load", |stage| {
        let load = mesh.load("visitor", &[RATINGS, "-c", "8"])?;
        let before = serial(mesh)?;
        stage.command("weft get certificates");
        let after = eventually("a new certificate", ROTATION, || {
            let now = serial(mesh)?;
            ensure!(now != before, "it is still {now}");
            Ok(now)
        })?;
        stage.output(&mesh.with_agent_of(FAR, |agent| agent.weft(&["get", "certificates"]))?.stdout);
        let report = load.finish()?;
        report.none_failed()?;
        let (short, count) = (|serial: &str| serial.chars().take(8).collect::<String>(), report.requests);
        Ok(format!(
            "ratings: {}… → {}…; {count} requests meanwhile, not one failed",
            short(&before),
            short(&after)
        ))
    });
}

/// A connection's first bytes, as an eavesdropper sees them.
fn hello(wire: &mut Capture) -> Result<String> {
    let flow = wire.flows()?.find(|flow| flow.begins_with_client_hello()).cloned();
    let flow = flow.context("no TLS handshake was on the wire")?;
    let hex: Vec<String> = flow.bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let length = flow.bytes.len();
    Ok(format!(
        "what crosses the wire:  {} → {}\n  {} …  (TLS ClientHello; {length} bytes in all)",
        flow.from,
        flow.to,
        hex.join(" ")
    ))
}

/// The serial number of ratings' certificate, from its node's agent.
fn serial(mesh: &Mesh) -> Result<String> {
    let words = ["get", "certificates", "-o", "json"];
    let rows = mesh.with_agent_of(FAR, |agent| agent.weft(&words))?.json()?;
    let rows = rows.as_array().or_else(|| rows["certificates"].as_array()).cloned().unwrap_or_default();
    let row = rows.iter().find(|row| row["serviceAccount"] == "bookinfo-ratings");
    let serial = row.and_then(|row| row["serial"].as_str()).context("ratings has no certificate")?;
    Ok(serial.to_owned())
}

fn page(mesh: &Mesh, user: &str) -> Result<String> {
    let request = mesh.http("client", "http://productpage.bookinfo:9080/productpage")?;
    let request = if user.is_empty() { request } else { request.header("end-user", user) };
    Ok(request.send()?.body)
}

fn apply(stage: &Stage, mesh: &Mesh, name: &str, fixture: &str) -> Result<()> {
    let yaml = scenarios::fixture(fixture)?;
    stage.manifest(&yaml);
    mesh.apply_now(name, &yaml)
}
