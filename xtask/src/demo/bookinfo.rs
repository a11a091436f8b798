//! Scenario 4, its routing: who sees which stars.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::{Load, Mesh, scenarios};

use super::stage::Stage;

const REVIEWS: &str = "http://reviews.bookinfo:9080/reviews/0";
/// A page for somebody who has not signed in.
const NOBODY: &str = "";

/// Plays it.
pub fn play(stage: &mut Stage, mesh: &Mesh) {
    stage.scenario("Scenario 4", "Bookinfo: routes by user, gradual release");
    stage.step("No rule: the three versions of reviews take turns", |stage| {
        let report = mesh.many("client", REVIEWS, 300, 1)?;
        report.none_failed()?;
        for version in ["v1", "v2", "v3"] {
            let percent = report.percent(version);
            stage.share(version, percent);
            ensure!((20.0..47.0).contains(&percent), "{version} has {percent:.1} %");
        }
        Ok("300 requests, none failed".to_owned())
    });

    stage.say("");
    stage.say("From here on 32 connections ask reviews without a pause, while its rules change.");
    let load = mesh.load("client", &[REVIEWS, "-c", "32"]);
    stage.step("Every service pinned to v1", |stage| {
        apply(stage, mesh, "bookinfo-subsets", "bookinfo/reviews-subsets")?;
        apply(stage, mesh, "bookinfo-reviews", "bookinfo/all-v1")?;
        let report = measured(stage, mesh, 400)?;
        ensure!(report.percent("v1") >= 100.0, "not all went to v1");
        ensure!(stars(mesh, NOBODY)? == "none", "there are stars on the page");
        Ok("400 of 400 to v1; the page shows no stars".to_owned())
    });
    stage.step("jason sees v2, everybody else v1", |stage| {
        apply(stage, mesh, "bookinfo-reviews", "bookinfo/jason-v2")?;
        stage.command("curl http://productpage:9080/productpage -H 'end-user: jason'");
        let (jason, others) = (stars(mesh, "jason")?, stars(mesh, NOBODY)?);
        ensure!(jason == "black" && others == "none", "jason: {jason}, others: {others}");
        ensure!(stars(mesh, "jasonx")? == "none", "jasonx is not jason");
        Ok("★★★★★ black stars for jason, none for the others".to_owned())
    });
    stage.step("Half of the users get v3", |stage| {
        apply(stage, mesh, "bookinfo-reviews", "bookinfo/half-v3")?;
        let report = measured(stage, mesh, 1000)?;
        ensure!((45.0..=55.0).contains(&report.percent("v3")), "v3 has {:.1} %", report.percent("v3"));
        ensure!(!report.versions.contains_key("v2"), "v2 was asked");
        Ok("1,000 requests, half and half within 5 points".to_owned())
    });
    stage.step("v3 for all", |stage| {
        apply(stage, mesh, "bookinfo-reviews", "bookinfo/all-v3")?;
        let report = measured(stage, mesh, 400)?;
        ensure!(report.percent("v3") >= 100.0, "not all went to v3");
        ensure!(stars(mesh, NOBODY)? == "red", "the page shows no red stars");
        Ok("400 of 400 to v3; red stars on the page".to_owned())
    });
    stage.step("And the 32 connections?", |_| {
        let report = load?.finish()?;
        report.none_failed()?;
        let (count, seconds) = (report.requests, report.seconds);
        Ok(format!("{count} requests in {seconds:.1} s through four changes of rules, not one failed"))
    });
    stage.step("Why does jason get v2? Ask before it happens", |stage| {
        let flags = ["-H", "end-user: jason"];
        mesh.apply_now("bookinfo-reviews", &scenarios::fixture("bookinfo/jason-v2")?)?;
        let from = "pod/productpage-v1.bookinfo";
        stage.command(&format!("weft explain {from} reviews:9080 -H 'end-user: jason'"));
        stage.output(&mesh.weft(&["explain", from, "reviews:9080", flags[0], flags[1]])?.stdout);
        let subset = |flags: &[&str]| -> Result<String> {
            let answer = mesh.explain(from, "reviews:9080", flags)?;
            Ok(answer["backends"][0]["subset"].as_str().unwrap_or("none").to_owned())
        };
        ensure!(subset(&flags)? == "v2", "explain says {}", subset(&flags)?);
        ensure!(subset(&[])? == "v1", "for the others explain says {}", subset(&[])?);
        Ok("`weft explain` says what the wire does".to_owned())
    });
}

fn apply(stage: &Stage, mesh: &Mesh, name: &str, fixture: &str) -> Result<()> {
    let yaml = scenarios::fixture(fixture)?;
    stage.manifest(&yaml);
    mesh.apply_now(name, &yaml)
}

fn measured(stage: &Stage, mesh: &Mesh, count: u32) -> Result<weft_tests::LoadReport> {
    let report = mesh.load("client", &[REVIEWS, "-n", &count.to_string(), "-c", "4"]).and_then(Load::wait)?;
    report.none_failed()?;
    for version in report.versions.keys() {
        stage.share(version, report.percent(version));
    }
    Ok(report)
}

/// The colour of the stars on a user's page: `none`, `black` or `red`.
pub fn stars(mesh: &Mesh, user: &str) -> Result<&'static str> {
    let request = mesh.http("client", "http://productpage.bookinfo:9080/productpage")?;
    let request = if user.is_empty() { request } else { request.header("end-user", user) };
    let page = weft_tests::eventually("the page", Duration::from_secs(3), || {
        let answer = request.clone().send()?;
        ensure!(answer.status == 200 && !answer.body.contains("class=\"error\""), "an error on the page");
        Ok(answer.body)
    })?;
    Ok(["black", "red"]
        .into_iter()
        .find(|colour| page.contains(&format!("stars {colour}")))
        .unwrap_or("none"))
}
