//! Scenario 1: the first application in the mesh.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weft_tests::{Mesh, eventually, scenarios, story};

const NS: &str = "istioinaction";

#[test]
fn the_web_shop_joins_and_leaves_the_mesh_while_it_runs() {
    story(|mesh| {
        scenarios::deploy_shop(mesh)?;
        mesh.start_kube_proxy()?;
        mesh.start_agent()?;
        eventually("the shop outside of the mesh", Duration::from_secs(5), || shops(mesh))?;
        ensure!(seen(mesh)? == 0, "weft saw the shop before it joined");

        // Open before the namespace joins; goes on through everything.
        let mut open = mesh.the("client")?.connect(mesh.service_at("catalog", 80)?)?;
        scenarios::ask_again(&mut open, "catalog", "/items")?;

        let labelled = Instant::now();
        mesh.namespace(NS, true)?;
        eventually("in the mesh", Duration::from_secs(5), || {
            shops(mesh)?;
            ensure!(seen(mesh)? > 0, "weft sees nothing yet");
            Ok(())
        })?;
        let took = labelled.elapsed();
        println!("in the mesh {took:?} after the label");
        ensure!(took < Duration::from_secs(1), "in the mesh after {took:?} only");
        scenarios::ask_again(&mut open, "catalog", "/items")?;

        mesh.pod("one-shot").namespace(NS).start()?;
        mesh.wait_applied()?;
        for url in ["catalog/items", "apigateway/api/catalog"] {
            let list = mesh.exec("one-shot", &["curl", "-s", url])?.good()?;
            ensure!(list.contains("Elinor Glasses"), "{url}: {list}");
        }
        let before = seen(mesh)?;
        mesh.get("client", "http://apigateway/api/catalog")?;
        // The gateway's own call; it is counted when its last byte is through.
        eventually("counted", Duration::from_secs(5), || {
            ensure!(seen(mesh)? == before + 1, "{} instead of {}", seen(mesh)?, before + 1);
            Ok(())
        })?;

        let unlabelled = Instant::now();
        mesh.namespace(NS, false)?;
        mesh.wait_applied()?;
        let took = unlabelled.elapsed();
        println!("out of the mesh {took:?} after the label");
        ensure!(took < Duration::from_secs(1), "out of the mesh after {took:?} only");
        let before = seen(mesh)?;
        shops(mesh)?;
        ensure!(seen(mesh)? == before, "weft still sees the shop");
        scenarios::ask_again(&mut open, "catalog", "/items")?;
        Ok(())
    });
}

#[test]
fn the_label_comes_and_goes_under_load_and_no_call_is_lost() {
    story(|mesh| {
        scenarios::deploy_shop(mesh)?;
        mesh.start_kube_proxy()?;
        mesh.start_agent()?;
        eventually("the shop outside of the mesh", Duration::from_secs(5), || shops(mesh))?;
        // The front opens a connection for each call: some are on their way whenever the label changes.
        let load = mesh.load("client", &["http://apigateway/api/catalog", "-c", "16"])?;
        for round in 0..60 {
            mesh.namespace(NS, round % 2 == 0)?;
            mesh.wait_applied()?;
        }
        let report = load.finish()?;
        println!("label on and off 60 times: {} requests, {} failed", report.requests, report.failed);
        report.none_failed()?;
        Ok(())
    });
}

fn shops(mesh: &Mesh) -> Result<()> {
    let answer = mesh.get("client", "http://catalog/items")?;
    ensure!(answer.status == 200 && answer.body.contains("Elinor Glasses"), "{answer:?}");
    Ok(())
}

/// Requests for the catalogue that weft has counted.
fn seen(mesh: &Mesh) -> Result<u64> {
    Ok(mesh
        .metrics()?
        .count("istio_requests_total", &[("destination_service_name", "catalog"), ("reporter", "source")]))
}
