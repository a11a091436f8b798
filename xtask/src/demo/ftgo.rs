//! Scenario 5, its routing: deployed is not released.

use anyhow::{Result, ensure};
use weft_tests::{LoadReport, Mesh, scenarios};

use super::stage::Stage;

const CONSUMERS: &str = "http://ftgo-consumer-service.ftgo:8080/consumers/1";
const RULES: &str = "ftgo-consumer-service";

/// Plays it.
pub fn play(stage: &mut Stage, mesh: &Mesh) {
    stage.scenario("Scenario 5", "FTGO: deploy is not release");
    stage.step("v2 is deployed, v1 is what everybody gets", |stage| {
        apply(stage, mesh, "ftgo-subsets", "ftgo/subsets")?;
        apply(stage, mesh, RULES, "ftgo/only-v1")?;
        let report = ask(stage, mesh, 300, &[])?;
        ensure!(report.percent("v1") >= 100.0, "v2 got something");
        Ok("300 of 300 to v1".to_owned())
    });
    stage.step("Testers get v2, by a header", |stage| {
        apply(stage, mesh, RULES, "ftgo/testers-v2")?;
        let testers = ask(stage, mesh, 100, &["-H", "testuser: anybody"])?;
        let others = ask(stage, mesh, 100, &[])?;
        ensure!(testers.percent("v2") >= 100.0, "a tester got v1");
        ensure!(others.percent("v1") >= 100.0, "somebody else got v2");
        let empty = mesh.http("client", CONSUMERS)?.header("testuser", "").send()?;
        ensure!(empty.version() == "v1", "an empty header got {}", empty.version());
        Ok("testers v2, the others v1, an empty header v1".to_owned())
    });
    stage.step("A canary: 5 of 100", |stage| {
        apply(stage, mesh, RULES, "ftgo/five-percent")?;
        let report = ask(stage, mesh, 2000, &[])?;
        let percent = report.percent("v2");
        ensure!((3.5..=6.5).contains(&percent), "v2 has {percent:.2} % of 2,000 requests");
        Ok(format!("{percent:.2} % of 2,000 requests went to v2"))
    });
    stage.step("v2 is released", |stage| {
        apply(stage, mesh, RULES, "ftgo/only-v2")?;
        let report = ask(stage, mesh, 300, &[])?;
        ensure!(report.percent("v2") >= 100.0, "v1 got something");
        Ok("300 of 300 to v2".to_owned())
    });
    stage.step("And back: one file, the same moment", |stage| {
        apply(stage, mesh, RULES, "ftgo/only-v1")?;
        let report = ask(stage, mesh, 300, &[])?;
        ensure!(report.percent("v1") >= 100.0, "v2 got something");
        Ok("300 of 300 to v1".to_owned())
    });
    for (fixture, title) in [
        (
            "ftgo/misprint-match",
            "A manifest that a tutorial prints wrongly is refused, by line and with the cure",
        ),
        ("ftgo/misprint-destination", "So is the other one; what was in force stays"),
    ] {
        stage.step(title, |stage| refused(stage, mesh, fixture));
    }
}

fn refused(stage: &Stage, mesh: &Mesh, fixture: &str) -> Result<String> {
    let yaml = scenarios::fixture(fixture)?;
    stage.manifest(&yaml);
    stage.command(&format!("weft analyze --offline tests/fixtures/{fixture}.yaml"));
    let path = scenarios::fixture_path(fixture);
    let path = path.to_string_lossy();
    let analysis = mesh.weft_alone(&["analyze", "--offline", &path])?;
    stage.output(&format!("{}{}", analysis.stdout, analysis.stderr));
    ensure!(analysis.code == 1, "weft analyze ended with {} instead of 1", analysis.code);
    mesh.apply_now(RULES, &yaml)?;
    let report = ask(stage, mesh, 100, &[])?;
    ensure!(report.percent("v1") >= 100.0, "it took effect");
    let status = mesh.with_agent(|agent| agent.status())?;
    ensure!(status["refused"].as_array().is_some_and(|list| !list.is_empty()), "weft status does not tell");
    mesh.apply_now(RULES, &scenarios::fixture("ftgo/only-v1")?)?;
    Ok("refused; the last good version stayed in force, and `weft status` says so".to_owned())
}

fn apply(stage: &Stage, mesh: &Mesh, name: &str, fixture: &str) -> Result<()> {
    let yaml = scenarios::fixture(fixture)?;
    stage.manifest(&yaml);
    mesh.apply_now(name, &yaml)
}

fn ask(stage: &Stage, mesh: &Mesh, count: u32, flags: &[&str]) -> Result<LoadReport> {
    let count = count.to_string();
    let mut words = vec![CONSUMERS, "-n", &count, "-c", "4"];
    words.extend(flags);
    let report = mesh.load("client", &words)?.wait()?;
    report.none_failed()?;
    for version in report.versions.keys() {
        stage.share(version, report.percent(version));
    }
    Ok(report)
}
