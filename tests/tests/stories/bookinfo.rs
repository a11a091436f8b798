//! Scenario 4, its routing: by user, and released step by step, under load.

use anyhow::{Result, ensure};
use weft_tests::{Mesh, scenarios, story};

const REVIEWS: &str = "http://reviews.bookinfo:9080/reviews/0";

#[test]
fn bookinfo_is_routed_by_user_and_released_step_by_step() {
    story(|mesh| {
        mesh.pod("client").start()?;
        scenarios::deploy_bookinfo(mesh)?;
        mesh.start_agent()?;
        let report = mesh.many("client", REVIEWS, 300, 1)?;
        for version in ["v1", "v2", "v3"] {
            let percent = report.none_failed()?.percent(version);
            ensure!((20.0..47.0).contains(&percent), "{version} has {percent} % without a rule");
        }

        let load = mesh.load("client", &[REVIEWS, "-c", "32"])?;
        apply(mesh, "subsets", "bookinfo/reviews-subsets")?;
        apply(mesh, "reviews", "bookinfo/all-v1")?;
        only(mesh, &["v1"])?;
        ensure!(stars(mesh, None)? == "none");

        apply(mesh, "reviews", "bookinfo/jason-v2")?;
        ensure!(stars(mesh, Some("jason"))? == "black");
        ensure!(stars(mesh, None)? == "none");
        ensure!(stars(mesh, Some("jasonx"))? == "none");
        ensure!(stars(mesh, Some("Jason"))? == "none");

        apply(mesh, "reviews", "bookinfo/half-v3")?;
        let report = only(mesh, &["v1", "v3"])?;
        ensure!((44.0..=56.0).contains(&report), "v3 has {report} % of 1,000");

        apply(mesh, "reviews", "bookinfo/all-v3")?;
        only(mesh, &["v3"])?;
        ensure!(stars(mesh, None)? == "red");

        mesh.delete("reviews")?;
        mesh.wait_applied()?;
        only(mesh, &["v1", "v2", "v3"])?;
        let report = load.finish()?;
        println!(
            "{} requests by 32 connections, longest gap {:.1} ms",
            report.requests, report.longest_gap_ms
        );
        report.none_failed()?;
        Ok(())
    });
}

fn apply(mesh: &Mesh, name: &str, fixture: &str) -> Result<()> {
    mesh.apply_now(name, &scenarios::fixture(fixture)?)
}

/// Asks 1,000 times: these versions answer and no others. The last one's share.
fn only(mesh: &Mesh, versions: &[&str]) -> Result<f64> {
    let report = mesh.many("client", REVIEWS, 1000, 4)?;
    report.none_failed()?;
    ensure!(report.versions.keys().eq(versions.iter()), "{versions:?} expected: {:?}", report.versions);
    Ok(report.percent(versions.last().unwrap_or(&"")))
}

fn stars(mesh: &Mesh, user: Option<&str>) -> Result<&'static str> {
    let mut request = mesh.http("client", "http://productpage.bookinfo:9080/productpage")?;
    if let Some(user) = user {
        request = request.header("end-user", user);
    }
    let answer = request.send()?;
    ensure!(answer.status == 200 && !answer.body.contains("class=\"error\""), "{answer:?}");
    let colour = ["black", "red"].into_iter().find(|colour| answer.body.contains(&format!("stars {colour}")));
    Ok(colour.unwrap_or("none"))
}
