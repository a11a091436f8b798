//! Many pods that arrive at once.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::{Namespace, cluster_story};

use crate::apps::{App, client, service};
use crate::mesh::{enrolled_at, now, time_of};

const PODS: usize = 200;
/// For all of them to have begun and ended.
const PATIENCE: Duration = Duration::from_mins(4);
/// For DNS and kube-proxy to hear of a Service: after the story with 5,000 of them that takes more than a minute.
const SETTLED: Duration = Duration::from_mins(5);

/// Pods whose program asks once, the moment that it begins, and ends.
fn askers() -> String {
    format!(
        "apiVersion: batch/v1
kind: Job
metadata: {{name: asker}}
spec:
  parallelism: {PODS}
  completions: {PODS}
  backoffLimit: 0
  template:
    metadata: {{labels: {{app: asker}}}}
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 1
      containers:
      - name: app
        image: weft.dev/app:0.1.0
        imagePullPolicy: IfNotPresent
        command: [sh, -c, \"curl -sSi --max-time 20 http://server/ 2>&1; true\"]
"
    )
}

/// The seconds of the day at which each was given a node.
fn scheduled_at(pods: &Value) -> Vec<f64> {
    let conditions = |pod: &Value| pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let pods = pods["items"].as_array().into_iter().flatten();
    pods.flat_map(conditions)
        .filter(|condition| condition["type"] == "PodScheduled")
        .filter_map(|condition| time_of(condition["lastTransitionTime"].as_str()?))
        .collect()
}

/// Waits until all have ended.
fn all_over(namespace: &Namespace) -> Result<()> {
    namespace.eventually("all pods have ended", PATIENCE, || {
        let status = &namespace.get(&["job", "asker"])?["status"];
        let (succeeded, failed) = (status["succeeded"].as_u64(), status["failed"].as_u64());
        let over = succeeded.unwrap_or(0) + failed.unwrap_or(0);
        ensure!(over >= PODS as u64, "{succeeded:?} succeeded, {failed:?} failed");
        Ok(())
    })
}

/// What those said who had no answer.
fn failures(said: &str) -> String {
    said.lines().filter(|line| line.contains("curl: ")).collect::<Vec<_>>().join("\n")
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn two_hundred_pods_at_once_have_their_first_packet_in_the_mesh() {
    cluster_story(|cluster| {
        let many = cluster.namespace("s80-many")?;
        many.join_mesh()?;
        many.apply(&App::new("server", &["echo"], 8080).replicas(2).yaml())?;
        many.apply(&service("server", "server", "http", 80, 8080))?;
        many.apply(&client("client", "n1").yaml())?;
        for name in ["server", "client"] {
            many.rolled_out(&format!("deployment/{name}"))?;
        }
        // The cluster's DNS has to have heard of the Service.
        let first = &many.pods("app=client")?[0];
        many.eventually("an answer", SETTLED, || {
            let answer = first.get("http://server/")?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(())
        })?;

        // What starts before it is in the mesh goes by kube-proxy, which has to have heard of it, too.
        let url = format!("http://{}/", many.service_address("server")?);
        for node in ["n1", "n2"] {
            many.eventually("kube-proxy", SETTLED, || {
                cluster.on_node(node, &["curl", "-sSf", "--max-time", "1", &url])?.good()
            })?;
        }

        let (applied, begun) = (now()?, Instant::now());
        many.apply(&askers())?;
        all_over(&many)?;
        let over = begun.elapsed().as_secs_f32();

        let mut enrolled = enrolled_at(cluster, "s80-many/asker-")?;
        let mut scheduled = scheduled_at(&many.get(&["pods", "--selector=app=asker"])?);
        // One whose program has ended before its agent found it never was.
        ensure!(enrolled.len() > PODS / 2, "{} pods were in the mesh", enrolled.len());
        ensure!(scheduled.len() == PODS, "{} pods were scheduled", scheduled.len());
        enrolled.sort_by(f64::total_cmp);
        scheduled.sort_by(f64::total_cmp);
        let last = |times: &[f64]| times.last().copied().context("no pods");
        println!(
            "{PODS} pods at once: all scheduled after {:.0} s; in the mesh after p50 {:.1} s, p99 {:.1} s, the last {:.1} s; \
             all have asked and ended after {over:.1} s",
            last(&scheduled)? - applied,
            enrolled[enrolled.len() / 2] - applied,
            enrolled[enrolled.len() * 99 / 100] - applied,
            last(&enrolled)? - applied,
        );
        let said = many.kubectl(&["logs", "--selector=app=asker", "--tail=-1", "--prefix"])?;
        let answered = said.lines().filter(|line| line.ends_with("HTTP/1.1 200 OK")).count();
        let by_mesh = said.lines().filter(|line| line.ends_with("server: envoy")).count();
        let refused = said.lines().filter(|line| line.ends_with("Couldn't connect to server")).count();
        println!(
            "of {PODS} first requests, {answered} were answered, {by_mesh} by the mesh, and {refused} refused"
        );
        // On a machine that has no time for its agents a pod starts closed: none starts past the mesh.
        ensure!(
            by_mesh == answered && answered + refused == PODS && refused <= PODS / 20,
            "{}",
            failures(&said)
        );
        Ok(())
    });
}
