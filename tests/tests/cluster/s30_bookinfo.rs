//! Scenario 4 on two nodes: routes by user, gradual release, denial; encrypted in between.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::{ClusterPod, Namespace, cluster_story, scenarios};

use crate::apps::{App, client, service};
use crate::mesh::{STRICT, in_mesh};

const REVIEWS: &str = "http://reviews:9080/reviews/0";

fn deploy(bookinfo: &Namespace) -> Result<Vec<ClusterPod>> {
    bookinfo.join_mesh()?;
    for (app, version, node) in [
        ("details", "v1", "n2"),
        ("ratings", "v1", "n1"),
        ("reviews", "v1", "n2"),
        ("reviews", "v2", "n2"),
        ("reviews", "v3", "n2"),
        ("productpage", "v1", "n1"),
    ] {
        let account = if version == "v3" { format!("bookinfo-{app}-v3") } else { format!("bookinfo-{app}") };
        let name = format!("{app}-{version}");
        let deployment = App::new(&name, &[app], 9080).app(app).version(version).on(node).account(&account);
        bookinfo.apply(&deployment.yaml())?;
        bookinfo.apply(&service(app, app, "http", 9080, 9080))?;
    }
    bookinfo.apply(&client("client", "n1").yaml())?;
    for name in
        ["details-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3", "productpage-v1", "client"]
    {
        bookinfo.rolled_out(&format!("deployment/{name}"))?;
    }
    let pods = bookinfo.pods("app")?;
    bookinfo.eventually("in the mesh", Duration::from_secs(10), || in_mesh(bookinfo, &pods, true))?;
    Ok(pods)
}

/// Asks until these versions answer and no others; the share of the last one.
fn only(bookinfo: &Namespace, client: &ClusterPod, versions: &[&str]) -> Result<f64> {
    bookinfo.eventually("the change", Duration::from_secs(5), || {
        let report = client.load(&[REVIEWS, "-n", "500", "-c", "4"])?.wait()?;
        report.none_failed()?;
        ensure!(report.versions.keys().eq(versions.iter()), "{versions:?} expected: {:?}", report.versions);
        Ok(report.percent(versions.last().unwrap_or(&"")))
    })
}

fn stars(client: &ClusterPod, user: Option<&str>) -> Result<&'static str> {
    let mut request = client.http("http://productpage:9080/productpage");
    if let Some(user) = user {
        request = request.header("end-user", user);
    }
    let answer = request.send()?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(["black", "red"].into_iter().find(|c| answer.body.contains(&format!("stars {c}"))).unwrap_or("none"))
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn bookinfo_on_two_nodes_is_routed_released_and_guarded() {
    cluster_story(|cluster| {
        let bookinfo = cluster.namespace("bookinfo")?;
        deploy(&bookinfo)?;
        let client = &bookinfo.pods("app=client")?[0];
        only(&bookinfo, client, &["v1", "v2", "v3"])?;

        let load = client.load(&[REVIEWS, "-c", "16"])?;
        let apply = |name: &str| bookinfo.apply(&scenarios::fixture(name)?);
        apply("bookinfo/reviews-subsets")?;
        apply("bookinfo/all-v1")?;
        only(&bookinfo, client, &["v1"])?;
        ensure!(stars(client, None)? == "none");
        apply("bookinfo/jason-v2")?;
        bookinfo.eventually("jason's route", Duration::from_secs(5), || {
            ensure!(stars(client, Some("jason"))? == "black");
            Ok(())
        })?;
        ensure!(stars(client, None)? == "none");
        apply("bookinfo/half-v3")?;
        let percent = only(&bookinfo, client, &["v1", "v3"])?;
        ensure!((40.0..=60.0).contains(&percent), "v3 has {percent} % of 500");
        apply("bookinfo/all-v3")?;
        only(&bookinfo, client, &["v3"])?;
        bookinfo.eventually("red stars", Duration::from_secs(5), || {
            ensure!(stars(client, None)? == "red");
            Ok(())
        })?;
        let report = load.finish()?;
        println!(
            "rules changed under load: {} requests, {} failed, longest gap {:.0} ms",
            report.requests, report.failed, report.longest_gap_ms
        );
        report.none_failed()?;

        apply("bookinfo/ratings-deny-v3")?;
        bookinfo.eventually("the denial", Duration::from_secs(5), || {
            ensure!(stars(client, None)? == "none", "v3 still has stars");
            Ok(())
        })?;
        apply("bookinfo/jason-v2-others-v3")?;
        bookinfo.eventually("jason's stars", Duration::from_secs(5), || {
            ensure!(stars(client, Some("jason"))? == "black" && stars(client, None)? == "none");
            Ok(())
        })?;
        let edges = cluster.weft(&["edges", "--namespace", "bookinfo"])?.good()?;
        println!("{edges}");
        ensure!(edges.contains("SECURED"), "{edges}");
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn strict_keeps_strangers_out_and_lets_probes_in() {
    cluster_story(|cluster| {
        let guarded = cluster.namespace("s31-strict")?;
        guarded.join_mesh()?;
        guarded.apply(STRICT)?;
        let server = App::new("server", &["consumer"], 8080).probe("/actuator/health").on("n2");
        guarded.apply(&server.yaml())?;
        guarded.apply(&service("server", "server", "http", 8080, 8080))?;
        guarded.apply(&client("client", "n1").yaml())?;
        for name in ["server", "client"] {
            guarded.rolled_out(&format!("deployment/{name}"))?;
        }
        let strangers = cluster.namespace("s31-strangers")?;
        for node in ["n1", "n2"] {
            strangers.apply(&client(&format!("stranger-{node}"), node).yaml())?;
            strangers.rolled_out(&format!("deployment/stranger-{node}"))?;
        }
        let pods = guarded.pods("app in (server,client)")?;
        guarded.eventually("in the mesh", Duration::from_secs(10), || in_mesh(&guarded, &pods, true))?;
        let server = &guarded.pods("app=server")?[0];
        let friend = &guarded.pods("app=client")?[0];
        guarded.eventually("a friend", Duration::from_secs(5), || {
            let answer = friend.get("http://server:8080/actuator/health")?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(())
        })?;
        let url = format!("http://{}/actuator/health", server.at(8080));
        for node in ["n1", "n2"] {
            let stranger = &strangers.pods(&format!("app=stranger-{node}"))?[0];
            ensure!(stranger.get(&url).is_err(), "a stranger on {node} was let in");
        }
        // Probes every second or two, for a while.
        std::thread::sleep(Duration::from_secs(8));
        let now = &guarded.pods("app=server")?[0];
        ensure!(now.restarts == 0 && now.container == server.container, "its probes failed: {now:?}");
        Ok(())
    });
}
