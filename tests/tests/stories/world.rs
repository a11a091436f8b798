//! The worlds themselves, without an agent: what the other stories stand on.

use anyhow::Result;
use weft_tests::{Mesh, World, story};

#[test]
fn pods_reach_each_other_and_services_by_name() {
    story(|mesh| {
        mesh.pod("client").start()?;
        mesh.pod("echo-1")
            .label("app", "echo")
            .label("version", "v7")
            .app(["echo", "--port", "8080"])
            .start()?;
        mesh.service("echo").selector("app", "echo").port("http", 80, 8080).create()?;
        let echo = mesh.the("echo-1")?;
        let client = mesh.the("client")?;
        for address in [echo.at(8080), echo.at6(8080)] {
            let answer = mesh.get("client", &format!("http://{address}/hello?a=b"))?;
            assert_eq!((answer.status, answer.version(), answer.app()), (200, "v7", "echo-1"));
            let seen = answer.json()?;
            assert_eq!(seen["path"], "/hello?a=b");
            let peer = seen["peer"].as_str().unwrap_or_default();
            assert!(
                peer.contains(&client.ip.to_string()) || peer.contains(&client.ip6.to_string()),
                "{peer}"
            );
        }
        // Nobody serves Service addresses yet.
        assert!(mesh.http("client", "http://echo/")?.flag("--connect-timeout").flag("0.3").send().is_err());
        mesh.start_kube_proxy()?;
        let answer = weft_tests::eventually("kube-proxy", std::time::Duration::from_secs(5), || {
            mesh.get("client", "http://echo/")
        })?;
        assert_eq!(answer.json()?["host"], "echo");
        let report = mesh.many("client", "http://echo/", 200, 8)?;
        report.none_failed()?;
        assert_eq!((report.requests, report.versions["v7"]), (200, 200));
        Ok(())
    });
}

#[test]
fn a_world_leaves_nothing() -> Result<()> {
    // A name of its own: another story would take a number at once.
    let (label, netns) = {
        let mesh = Mesh::on(World::named("leaving", 250)?)?;
        let pod = mesh.pod("echo").app(["echo", "--port", "8080"]).start()?;
        (mesh.world().label().to_owned(), pod.netns.clone())
    };
    assert!(!std::path::Path::new("/run/netns").join(&netns).exists());
    assert!(!std::path::Path::new("/etc/netns").join(&netns).exists());
    assert!(!std::path::Path::new("/sys/class/net").join(format!("wf{label}-br")).exists());
    assert!(!std::path::Path::new("/run/weft-tests").join(&label).join("manifests").exists());
    Ok(())
}

#[test]
fn a_story_without_its_programs_is_told_what_they_are_called() {
    let error = weft_tests::built_binary("no-such-program").expect_err("there is none");
    assert!(error.to_string().contains("cargo xtask build"), "{error}");
}
