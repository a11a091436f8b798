//! The cluster itself, without weft: what the other stories stand on.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::{ClusterPod, cluster_story};

/// Two pods, one on each node, behind one Service.
const ECHO: &str = include_str!("echo.yaml");

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn pods_on_two_nodes_reach_each_other_by_the_name_of_a_service() {
    cluster_story(|cluster| {
        let namespace = cluster.namespace("s00-echo")?;
        namespace.apply(ECHO)?;
        namespace.rolled_out("deployment/echo")?;
        let pods = namespace.pods("app=echo")?;
        let [one, other] = &pods[..] else { anyhow::bail!("not two pods: {pods:?}") };
        ensure!(one.node != other.node, "both are on {}", one.node);
        // kube-proxy comes to know of a Service in its own time.
        namespace.eventually("the Service", Duration::from_secs(10), || one.get("http://echo/"))?;

        // Across nodes, the server sees the client's own address.
        for (from, to) in [(one, other), (other, one)] {
            let answer = from.get(&format!("http://{}/", to.at(8080)))?.json()?;
            let peer = answer["peer"].as_str().unwrap_or_default();
            ensure!(peer.contains(&from.ip.to_string()), "{} is seen as {peer}", from.ip);
        }
        for name in ["echo", "echo.s00-echo", "echo.s00-echo.svc.cluster.local"] {
            ensure!(one.get(&format!("http://{name}/"))?.status == 200);
        }
        both_answer(one)?;
        both_answer(other)
    });
}

fn both_answer(from: &ClusterPod) -> Result<()> {
    let report = from.load(&["http://echo/", "-n", "200", "-c", "4", "--close"])?.wait()?;
    let answered: Vec<&String> = report.apps.keys().collect();
    println!(
        "from {}: {} requests, {} failed, p99 {:.1} ms",
        from.node, report.requests, report.failed, report.p99_ms
    );
    report.none_failed()?;
    ensure!(answered.len() == 2, "only {answered:?} answered");
    Ok(())
}
