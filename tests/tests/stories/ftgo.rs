//! Scenario 5, its routing: deployed is not released; and misprints of tutorials are refused.

use anyhow::{Result, ensure};
use weft_tests::{LoadReport, Mesh, scenarios, story};

const CONSUMERS: &str = "http://ftgo-consumer-service.ftgo:8080/consumers/1";

#[test]
fn the_consumer_service_is_deployed_tested_and_released() {
    story(|mesh| {
        mesh.pod("client").start()?;
        scenarios::deploy_ftgo(mesh)?;
        mesh.start_agent()?;
        apply(mesh, "subsets", "ftgo/subsets")?;
        apply(mesh, "rules", "ftgo/only-v1")?;
        let before = ask(mesh, 300, None)?;
        ensure!(before.versions.keys().eq(["v1"]), "{:?}", before.versions);

        apply(mesh, "rules", "ftgo/testers-v2")?;
        for testuser in ["me", "anybody at all"] {
            ensure!(ask(mesh, 50, Some(testuser))?.versions.keys().eq(["v2"]));
        }
        ensure!(ask(mesh, 50, None)?.versions.keys().eq(["v1"]));
        ensure!(ask(mesh, 50, Some(""))?.versions.keys().eq(["v1"]), "an empty header is no tester");

        apply(mesh, "rules", "ftgo/five-percent")?;
        let percent = ask(mesh, 2000, None)?.percent("v2");
        println!("5 % of 2,000 requests: {percent:.2} %");
        ensure!((3.5..=6.5).contains(&percent), "v2 has {percent} %");

        apply(mesh, "rules", "ftgo/only-v2")?;
        ensure!(ask(mesh, 300, None)?.versions.keys().eq(["v2"]));
        apply(mesh, "rules", "ftgo/only-v1")?;
        ensure!(ask(mesh, 300, None)?.versions.keys().eq(["v1"]));
        let health = mesh.get("client", "http://ftgo-consumer-service.ftgo:8080/actuator/health")?;
        ensure!(health.status == 200 && health.body.contains("UP"), "{health:?}");
        Ok(())
    });
}

#[test]
fn an_unnamed_port_of_a_tcp_service_is_balanced() {
    story(|mesh| {
        mesh.pod("client").start()?;
        for version in ["v1", "v2"] {
            let pod = mesh
                .pod(&format!("restaurant-{version}"))
                .label("app", "restaurant")
                .label("version", version);
            pod.app(["greet", "--port", "8080", "--greeting", version]).start()?;
        }
        mesh.service("ftgo-restaurant-service")
            .selector("app", "restaurant")
            .port("", 8080, 8080)
            .create()?;
        mesh.start_agent()?;
        let address = mesh.service_at("ftgo-restaurant-service", 8080)?;
        let mut seen = std::collections::BTreeMap::<String, u32>::new();
        for _ in 0..60 {
            let greeting = crate::tcp::greeting(&mesh.the("client")?.connect(address)?)?;
            let version = greeting.split(' ').next().unwrap_or_default().to_owned();
            *seen.entry(version).or_default() += 1;
        }
        ensure!(seen.len() == 2 && seen.values().all(|count| *count >= 10), "{seen:?}");
        Ok(())
    });
}

#[test]
fn misprints_of_tutorials_are_refused_and_the_last_good_rules_stay() {
    story(|mesh| {
        mesh.pod("client").start()?;
        scenarios::deploy_ftgo(mesh)?;
        mesh.start_agent()?;
        apply(mesh, "subsets", "ftgo/subsets")?;
        apply(mesh, "rules", "ftgo/only-v1")?;
        for (fixture, line) in [("ftgo/misprint-match", 10), ("ftgo/misprint-destination", 12)] {
            apply(mesh, "rules", fixture)?;
            ensure!(ask(mesh, 100, None)?.versions.keys().eq(["v1"]), "{fixture} took effect");
            let status = mesh.with_agent(|agent| agent.status())?;
            let refused = status["refused"].as_array().cloned().unwrap_or_default();
            ensure!(!refused.is_empty(), "{fixture} is not reported: {status}");
            let near = |finding: &serde_json::Value| {
                finding["line"].as_u64().is_some_and(|found| found.abs_diff(line) <= 4)
                    && finding["file"].as_str().is_some_and(|file| file.ends_with("rules.yaml"))
            };
            ensure!(refused.iter().any(near), "{fixture}: no finding near line {line}: {refused:#?}");
        }
        apply(mesh, "rules", "ftgo/only-v2")?;
        ensure!(
            ask(mesh, 100, None)?.versions.keys().eq(["v2"]),
            "a good version was not taken after bad ones"
        );
        let status = mesh.with_agent(|agent| agent.status())?;
        ensure!(status["refused"].as_array().is_none_or(Vec::is_empty), "still refused: {status}");
        Ok(())
    });
}

fn apply(mesh: &Mesh, name: &str, fixture: &str) -> Result<()> {
    mesh.apply_now(name, &scenarios::fixture(fixture)?)
}

fn ask(mesh: &Mesh, count: u32, testuser: Option<&str>) -> Result<LoadReport> {
    let count = count.to_string();
    let header = testuser.map(|user| format!("testuser: {user}"));
    let mut words = vec![CONSUMERS, "-n", &count, "-c", "4"];
    if let Some(header) = &header {
        words.extend(["-H", header]);
    }
    let report = mesh.load("client", &words)?.wait()?;
    report.none_failed()?;
    Ok(report)
}
