//! Scenario 2, its end, where agents are dead: what is cleaned in their place, and what is said where nobody can.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weft_tests::{Cluster, Namespace, built_binary, cluster_story};

use crate::s60_agents::{agent_on, deploy};
use crate::s99_uninstall::nothing_is_left_on;

/// Gives the agents, and what stands by for them, an image that no node can have. What runs goes on.
fn break_image(cluster: &Cluster) -> Result<()> {
    let images = ["agent", "standby"].map(|container| format!("{container}=localhost:1/nobody-has-this:1"));
    let set = ["set", "image", "--namespace=weft-system", "daemonset/weft-agent", &images[0], &images[1]];
    cluster.kubectl(&set).map(drop)
}

/// Ends a node's agent; the one that is to follow never runs.
fn end_agent(cluster: &Cluster, namespace: &Namespace, node: &str) -> Result<()> {
    let on = format!("spec.nodeName={node}");
    let agents =
        ["--namespace=weft-system", "--selector=app.kubernetes.io/name=weft-agent", "--field-selector", &on];
    cluster.kubectl(&[&["delete", "pods", "--grace-period=0", "--force"], &agents[..]].concat())?;
    namespace.eventually("an agent that waits for its image", Duration::from_secs(30), || {
        let agent = agent_on(cluster, node)?;
        let why = "--output=jsonpath={.status.containerStatuses[*].state.waiting.reason}";
        let why = cluster.kubectl(&["get", "pod", "--namespace=weft-system", &agent, why])?;
        ensure!(why.contains("Pull"), "{agent}: {why:?}");
        Ok(())
    })
}

fn install(cluster: &Cluster) -> Result<()> {
    cluster.weft(&["install", "-y", "--set", "profile=demo"])?.good().map(drop)
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn a_dead_agents_node_is_cleaned_in_its_place() {
    cluster_story(|cluster| {
        let namespace = cluster.namespace("s97-dead")?;
        let client = deploy(&namespace)?;
        break_image(cluster)?;
        end_agent(cluster, &namespace, "n2")?;
        // Its object is gone before its process is.
        namespace.eventually("the server's pod fails closed", Duration::from_secs(15), || {
            let answer = client.http("http://server/").flag("--max-time").flag("3").send();
            ensure!(!matches!(&answer, Ok(answer) if answer.status != 503), "{answer:?}");
            Ok(())
        })?;
        let begun = Instant::now();
        println!("{}", cluster.weft(&["uninstall", "--purge", "-y"])?.good()?);
        println!("uninstalled within {:.1} s, one agent dead", begun.elapsed().as_secs_f32());
        for node in ["n1", "n2"] {
            nothing_is_left_on(cluster, node)?;
        }
        let answer = client.get("http://server/")?;
        ensure!(answer.status == 200 && answer.header("server").is_none(), "{answer:?}");
        install(cluster)
    });
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn a_node_that_cannot_be_cleaned_is_named_with_the_cure() {
    cluster_story(|cluster| {
        let namespace = cluster.namespace("s98-dead")?;
        let client = deploy(&namespace)?;
        break_image(cluster)?;
        for node in ["n1", "n2"] {
            end_agent(cluster, &namespace, node)?;
        }
        let begun = Instant::now();
        let output = cluster.weft(&["uninstall", "--purge", "-y", "--timeout", "40"])?;
        println!("{output:?}\nended after {:.1} s, both agents dead", begun.elapsed().as_secs_f32());
        ensure!(output.code == 1, "exit code {}", output.code);
        for node in ["n1", "n2"] {
            ensure!(
                output.stderr.contains(&format!("node {node} could not be cleaned")),
                "{node} is not named"
            );
        }
        let left =
            cluster.kubectl(&["get", "namespaces", "weft-system", "--ignore-not-found", "--output=name"])?;
        ensure!(left.is_empty(), "{left}");

        // As it says.
        let cure = output
            .stderr
            .lines()
            .find_map(|line| line.split_once("on the node: weft "))
            .map(|(_, words)| words);
        let mut words = vec![built_binary("weft")?.display().to_string()];
        words.extend(cure.unwrap_or_default().split_whitespace().map(str::to_owned));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        for node in ["n1", "n2"] {
            println!("{node}: {}", cluster.on_node(node, &words)?.good()?.trim());
            nothing_is_left_on(cluster, node)?;
        }
        // Its kubelet has found the server unready meanwhile: nobody could connect to it.
        namespace.eventually("an answer past the mesh", Duration::from_secs(15), || {
            let answer = client.get("http://server/")?;
            ensure!(answer.status == 200 && answer.header("server").is_none(), "{answer:?}");
            Ok(())
        })?;
        install(cluster)
    });
}
