//! Scenario 1: the first application in the mesh.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weft_tests::{ClusterPod, Namespace, cluster_story};

use crate::apps::{App, client, service};
use crate::mesh::{STRICT, enrolled_at, in_mesh, now};

fn deploy(shop: &Namespace) -> Result<()> {
    for (name, node) in [("catalog", "n1"), ("apigateway", "n2")] {
        shop.apply(&App::new(name, &[name], 3000).on(node).yaml())?;
        shop.apply(&service(name, name, "http", 80, 3000))?;
    }
    shop.apply(&client("client", "n1").yaml())?;
    for name in ["catalog", "apigateway", "client"] {
        shop.rolled_out(&format!("deployment/{name}"))?;
    }
    Ok(())
}

/// What a restart would change.
fn lives(pods: &[ClusterPod]) -> Vec<(String, String, u64)> {
    pods.iter().map(|pod| (pod.name.clone(), pod.container.clone(), pod.restarts)).collect()
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn running_pods_join_and_leave_by_a_label_and_are_not_restarted() {
    cluster_story(|cluster| {
        let shop = cluster.namespace("istioinaction")?;
        deploy(&shop)?;
        let all = || shop.pods("app in (catalog,apigateway,client)");
        let before = lives(&all()?);
        let client = &shop.pods("app=client")?[0];
        shop.eventually("the shop", Duration::from_secs(10), || {
            let answer = client.get("http://apigateway/api/catalog")?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(())
        })?;
        // From the machine itself, open before the label comes.
        let mut open = TcpStream::connect(shop.pods("app=catalog")?[0].at(3000))?;
        ask(&mut open)?;

        let labelled = Instant::now();
        shop.join_mesh()?;
        shop.eventually("in the mesh", Duration::from_secs(10), || in_mesh(&shop, &all()?, true))?;
        println!("three pods in the mesh {:.2} s after the label", labelled.elapsed().as_secs_f32());
        ensure!(lives(&all()?) == before, "something was restarted");
        ask(&mut open)?;

        for url in ["http://catalog/items", "http://apigateway/api/catalog"] {
            let answer = client.get(url)?;
            ensure!(answer.status == 200 && answer.body.contains("Elinor Glasses"), "{url}: {answer:?}");
            ensure!(answer.header("server") == Some("envoy"), "{url} did not come by the mesh: {answer:?}");
        }
        // A pod that begins in the mesh: its first packet is in it.
        shop.kubectl(&[
            "run",
            "one-shot",
            "--image=weft.dev/app:0.1.0",
            "--image-pull-policy=IfNotPresent",
            "--restart=Never",
            "--command",
            "--",
            "curl",
            "-si",
            "http://catalog/items",
        ])?;
        let said = shop.eventually("the one-shot pod's end", Duration::from_secs(20), || {
            let phase = shop.kubectl(&["get", "pod", "one-shot", "--output=jsonpath={.status.phase}"])?;
            ensure!(phase == "Succeeded", "{phase}");
            shop.kubectl(&["logs", "one-shot"])
        })?;
        ensure!(said.contains("Elinor Glasses") && said.contains("server: envoy"), "{said}");

        shop.leave_mesh()?;
        shop.eventually("out of the mesh", Duration::from_secs(10), || in_mesh(&shop, &all()?, false))?;
        // Its agent waits for a moment until the others have heard of it.
        shop.eventually("past the mesh", Duration::from_secs(5), || {
            ensure!(client.get("http://catalog/items")?.header("server").is_none(), "still in the mesh");
            Ok(())
        })?;
        ask(&mut open)?;
        ensure!(lives(&all()?) == before, "something was restarted");
        Ok(())
    });
}

fn ask(stream: &mut TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /items HTTP/1.1\r\nHost: catalog\r\n\r\n")?;
    let mut buffer = [0; 16 * 1024];
    let count = stream.read(&mut buffer)?;
    ensure!(buffer[..count].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..count]));
    Ok(())
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn the_label_comes_and_goes_twenty_times_under_load() {
    cluster_story(|cluster| {
        let shop = cluster.namespace("s21-label")?;
        label_on_and_off(&shop, 20)
    });
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn the_label_comes_and_goes_where_strangers_are_kept_out() {
    cluster_story(|cluster| {
        let shop = cluster.namespace("s21-strict")?;
        shop.apply(STRICT)?;
        shop.apply(
            "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: own-namespace}
spec: {rules: [{from: [{source: {namespaces: [s21-strict]}}]}]}
",
        )?;
        label_on_and_off(&shop, 11)?;
        // It is in the mesh now, and what was let through meanwhile is so no more.
        let catalog = format!("http://{}/items", shop.pods("app=catalog")?[0].at(3000));
        shop.eventually("strangers are kept out", Duration::from_secs(5), || {
            let stranger = cluster.http(&catalog).send();
            ensure!(stranger.is_err(), "a stranger was let in: {stranger:?}");
            Ok(())
        })
    });
}

/// Has a shop's label come and go while it is called, and no call fail.
fn label_on_and_off(shop: &Namespace, times: u32) -> Result<()> {
    deploy(shop)?;
    let client = &shop.pods("app=client")?[0];
    let all = shop.pods("app in (catalog,apigateway,client)")?;
    shop.eventually("the shop", Duration::from_secs(10), || client.get("http://catalog/items"))?;
    let load = client.load(&["http://apigateway/api/catalog", "-c", "4"])?;
    for round in 0..times {
        let joins = round % 2 == 0;
        if joins {
            shop.join_mesh()?;
        } else {
            shop.leave_mesh()?;
        }
        shop.eventually("the label's effect", Duration::from_secs(10), || in_mesh(shop, &all, joins))?;
    }
    let report = load.finish()?;
    println!(
        "{}: label on and off {times} times: {} requests, {} failed, longest gap {:.0} ms",
        shop.name(),
        report.requests,
        report.failed,
        report.longest_gap_ms
    );
    report.none_failed().map(drop)
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn fifty_pods_are_in_the_mesh_within_a_second_of_the_label() {
    cluster_story(|cluster| {
        let many = cluster.namespace("s22-fifty")?;
        many.apply(&App::new("many", &["echo"], 8080).replicas(50).yaml())?;
        many.rolled_out("deployment/many")?;
        let pods = many.pods("app=many")?;
        ensure!(pods.len() == 50, "{} pods", pods.len());
        let labelled = now()?;
        many.join_mesh()?;
        many.eventually("all in the mesh", Duration::from_secs(20), || in_mesh(&many, &pods, true))?;
        let mut took = enrolled_at(cluster, "s22-fifty/")?;
        // On a cluster that was kept, the log tells of an earlier play, too.
        took.retain(|time| *time >= labelled);
        for time in &mut took {
            *time -= labelled;
        }
        took.sort_by(f64::total_cmp);
        ensure!(took.len() == 50, "{} pods were logged", took.len());
        println!("label to in the mesh, 50 pods: p50 {:.2} s, p99 {:.2} s", took[25], took[49]);
        Ok(())
    });
}
