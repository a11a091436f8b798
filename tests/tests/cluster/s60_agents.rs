//! Scenario 6, the agents: upgraded under load, killed, and what happens meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weft_tests::{Cluster, ClusterPod, Load, Namespace, cluster_story};

use crate::agent::{Agent, process};
use crate::apps::{App, client, service};
use crate::mesh::in_mesh;

const URL: &str = "http://server/";

/// A server on n2 and a client on n1, both in the mesh; the server echoes bytes too.
pub fn deploy(namespace: &Namespace) -> Result<ClusterPod> {
    namespace.join_mesh()?;
    namespace.apply(&App::new("server", &["echo"], 8080).on("n2").yaml())?;
    namespace.apply(&service("server", "server", "http", 80, 8080))?;
    namespace.apply(&App::new("bytes", &["tcp-echo"], 9000).on("n2").yaml())?;
    namespace.apply(&service("bytes", "bytes", "tcp", 9000, 9000))?;
    namespace.apply(&client("client", "n1").yaml())?;
    for name in ["server", "bytes", "client"] {
        namespace.rolled_out(&format!("deployment/{name}"))?;
    }
    let pods = namespace.pods("app")?;
    namespace.eventually("in the mesh", Duration::from_secs(15), || in_mesh(namespace, &pods, true))?;
    let client = namespace.pods("app=client")?.pop().context("no client")?;
    // After an absence of the API server, the cluster's DNS may take a minute to hear of the Service.
    namespace.eventually("an answer", Duration::from_mins(2), || {
        let answer = client.get(URL)?;
        ensure!(answer.status == 200 && answer.header("server") == Some("envoy"), "{answer:?}");
        Ok(())
    })?;
    Ok(client)
}

/// HTTP by 32 connections, and 16 connections that stay.
pub fn load(client: &ClusterPod) -> Result<(Load, Load)> {
    Ok((client.load(&[URL, "-c", "32"])?, client.load(&["tcp://bytes:9000", "-c", "16"])?))
}

/// The newest agent's pod on a node.
pub fn agent_on(cluster: &Cluster, node: &str) -> Result<String> {
    let on = format!("spec.nodeName={node}");
    let words = [
        "pods",
        "--namespace=weft-system",
        "--selector=app.kubernetes.io/name=weft-agent",
        "--field-selector",
        &on,
    ];
    let list = cluster.get(&words)?;
    let mut items = list["items"].as_array().into_iter().flatten();
    let pod = items.rfind(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    Ok(pod.and_then(|pod| pod["metadata"]["name"].as_str()).context("no agent")?.to_owned())
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn agents_are_upgraded_and_no_request_and_no_connection_is_lost() {
    cluster_story(|cluster| {
        let namespace = cluster.namespace("s60-upgrade")?;
        let client = deploy(&namespace)?;
        let (http, bytes) = load(&client)?;
        let begun = Instant::now();
        // Another template is another version, as far as Kubernetes is concerned.
        cluster.kubectl(&[
            "set",
            "env",
            "--namespace=weft-system",
            "daemonset/weft-agent",
            "WEFT_LOG=info,weft=info",
        ])?;
        namespace.eventually("new agents on both nodes", Duration::from_mins(1), || all_new(cluster))?;
        println!("new agents serve both nodes after {:.1} s", begun.elapsed().as_secs_f32());
        let (http, bytes) = (http.finish()?, bytes.finish()?);
        println!(
            "agent upgrade: {} requests, {} failed, longest gap {:.0} ms, p99 {:.1} ms; {} words on 16 connections, {} cut",
            http.requests, http.failed, http.longest_gap_ms, http.p99_ms, bytes.requests, bytes.failed
        );
        http.none_failed()?;
        bytes.none_failed()?;
        // The old ones end when their last connection has.
        cluster.rolled_out("weft-system", "daemonset/weft-agent")?;
        println!("the old ones have ended after {:.1} s", begun.elapsed().as_secs_f32());
        Ok(())
    });
}

/// Fails unless every node has an agent of the newest template that is ready.
fn all_new(cluster: &Cluster) -> Result<()> {
    let set = cluster.get(&["daemonset/weft-agent", "--namespace=weft-system"])?;
    // The set's status counts the old agent of a node until that has ended.
    let wanted = &set["metadata"]["annotations"]["deprecated.daemonset.template.generation"];
    let words = ["pods", "--namespace=weft-system", "--selector=app.kubernetes.io/name=weft-agent"];
    let list = cluster.get(&words)?;
    let pods: Vec<_> = list["items"].as_array().into_iter().flatten().collect();
    let newest = |node: &str| {
        let on = pods.iter().filter(|pod| pod["spec"]["nodeName"] == node);
        on.max_by_key(|pod| pod["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned())
    };
    for node in ["n1", "n2"] {
        let pod = newest(node).context("no agent")?;
        let generation = &pod["metadata"]["labels"]["pod-template-generation"];
        ensure!(generation == wanted, "the newest agent on {node} is of template {generation}, not {wanted}");
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let ready = conditions.filter(|one| one["type"] == "Ready").any(|one| one["status"] == "True");
        ensure!(ready, "the newest agent on {node} is not ready");
    }
    Ok(())
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn whoever_enters_a_pods_network_from_its_node_is_in_the_mesh() {
    cluster_story(|cluster| {
        let namespace = cluster.namespace("s61-entered")?;
        let client = deploy(&namespace)?;
        let enter = "nsenter --net --target $(ctr -n k8s.io tasks ls | grep $0 | tr -s ' ' | cut -d ' ' -f 2) curl -si $1";
        let url = format!("http://{}/", namespace.service_address("server")?);
        let answer = cluster.on_node(&client.node, &["sh", "-c", enter, &client.container, &url])?.good()?;
        // The server tells what it was sent: only the caller's own agent counts attempts.
        ensure!(answer.contains("200 OK") && answer.contains("x-envoy-attempt-count"), "{answer}");
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn a_killed_agent_fails_closed_and_is_back() {
    cluster_story(|cluster| {
        let namespace = cluster.namespace("s61-killed")?;
        let client = deploy(&namespace)?;
        let http = client.load(&[URL, "-c", "4"])?;
        // The kubelet would let a container wait that ends a second time.
        let agent = Agent::on(cluster, "n1");
        for turn in 1..=10 {
            let before = agent.process()?;
            agent.kill()?;
            let killed = Instant::now();
            namespace.eventually("the agent again", Duration::from_secs(30), || {
                ensure!(agent.process()? != before, "process {before} still runs");
                let answer = client.get(URL)?;
                ensure!(answer.header("server") == Some("envoy"), "{answer:?}");
                Ok(())
            })?;
            println!("back {:.1} s after SIGKILL number {turn}", killed.elapsed().as_secs_f32());
        }
        let report = http.finish()?;
        println!(
            "SIGKILL of the client's agent, ten times: {} requests, {} failed (closed: {:?}), longest gap {:.0} ms",
            report.requests, report.failed, report.errors, report.longest_gap_ms
        );
        ensure!(report.failed > 0, "nothing failed while the agent was dead: was it in the mesh?");
        ensure!(report.longest_gap_ms < 10_000.0, "away for {} ms", report.longest_gap_ms);
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn an_agent_whose_first_process_is_killed_is_stood_in_for() {
    const FIRST: &str = "/weft agent --supervise";
    cluster_story(|cluster| {
        let namespace = cluster.namespace("s61-first")?;
        let client = deploy(&namespace)?;
        let http = client.load(&[URL, "-c", "4"])?;
        // The kubelet lets the container wait for 10 s the second time, and for 20 s the third.
        for turn in 1..=3 {
            let first = process(cluster, "n1", FIRST)?;
            cluster.on_node("n1", &["kill", "-9", &first])?.good()?;
            let killed = Instant::now();
            namespace.eventually("an answer", Duration::from_secs(30), || {
                ensure!(process(cluster, "n1", FIRST).ok() != Some(first.clone()), "it still runs");
                let answer = client.get(URL)?;
                ensure!(answer.header("server") == Some("envoy"), "{answer:?}");
                Ok(())
            })?;
            println!("back {:.1} s after SIGKILL number {turn}", killed.elapsed().as_secs_f32());
            // The CLI finds the agent wherever it is.
            cluster.weft(&["status", "--node", "n1"])?.good()?;
            namespace.eventually("the first container's own agent", Duration::from_mins(2), || {
                process(cluster, "n1", "/weft agent")?;
                ensure!(
                    process(cluster, "n1", "/weft agent --standby").is_err(),
                    "the other stands in for it"
                );
                Ok(())
            })?;
            println!("the first container is back {:.1} s after", killed.elapsed().as_secs_f32());
        }
        let report = http.finish()?;
        println!(
            "SIGKILL of the client's agent's supervisor, three times: {} requests, {} failed (closed: {:?}), longest gap {:.0} ms",
            report.requests, report.failed, report.errors, report.longest_gap_ms
        );
        ensure!(report.longest_gap_ms < 8_000.0, "away for {} ms", report.longest_gap_ms);
        Ok(())
    });
}
