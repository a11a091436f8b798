//! Scenario 6, everything else that may go away or be rewritten: API server, node, CNI configuration, CA.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::{Cluster, Namespace, cluster_story};

use crate::agent::Agent;
use crate::apps::{App, client, service};
use crate::mesh::in_mesh;
use crate::s60_agents::{deploy, load};

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn traffic_goes_on_while_the_api_server_is_away() {
    cluster_story(|cluster| {
        let namespace = cluster.namespace("s62-api")?;
        let client = deploy(&namespace)?;
        let (http, bytes) = load(&client)?;
        cluster.stop_apiserver()?;
        std::thread::sleep(Duration::from_mins(2));
        cluster.start_apiserver()?;
        let (http, bytes) = (http.finish()?, bytes.finish()?);
        println!(
            "API server away for two minutes: {} requests, {} failed, longest gap {:.0} ms; {} cut of 16",
            http.requests, http.failed, http.longest_gap_ms, bytes.failed
        );
        http.none_failed()?;
        bytes.none_failed()?;
        // What changes afterwards is heard of again.
        namespace.eventually("out of the mesh", Duration::from_mins(1), || {
            namespace.leave_mesh()?;
            in_mesh(&namespace, &namespace.pods("app")?, false)
        })
    });
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn an_agent_that_starts_without_an_api_server_goes_on_by_what_was_known() {
    cluster_story(|cluster| {
        let namespace = cluster.namespace("s62-kept")?;
        namespace.join_mesh()?;
        namespace.apply(&App::new("server", &["echo"], 8080).on("n1").yaml())?;
        namespace.apply(&service("server", "server", "http", 80, 8080))?;
        namespace.apply(&client("client", "n1").yaml())?;
        namespace.apply(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: no-secrets}\nspec:\n  \
             action: DENY\n  rules: [{to: [{operation: {paths: [/secret]}}]}]\n",
        )?;
        for name in ["server", "client"] {
            namespace.rolled_out(&format!("deployment/{name}"))?;
        }
        let pods = namespace.pods("app")?;
        namespace.eventually("in the mesh", Duration::from_secs(15), || in_mesh(&namespace, &pods, true))?;
        let asking = namespace.pods("app=client")?.pop().context("no client")?;
        let all_get = |path: &str, status: u16| {
            let url = format!("http://server{path}");
            let report = asking.load(&[&url, "-n", "20", "-c", "2"])?.wait()?;
            ensure!(
                report.statuses.keys().eq([&status]),
                "{path}: {:?} {:?}",
                report.statuses,
                report.errors
            );
            Ok(())
        };
        namespace.eventually("the policy", Duration::from_mins(2), || {
            all_get("/", 200)?;
            all_get("/secret", 403)
        })?;
        let agent = Agent::on(cluster, "n1");
        namespace.eventually("it is kept", Duration::from_secs(30), || {
            // The pods as they are now: as they were before they ran they are of no use.
            let addresses = pods.iter().map(|pod| format!("\"podIP\":\"{}\"", pod.ip));
            for part in addresses.chain(["s62-kept/no-secrets".to_owned()]) {
                cluster.on_node("n1", &["grep", "-q", &part, "/run/weft/objects.kept"])?.good()?;
            }
            Ok(())
        })?;
        let from_when =
            || Ok::<f64, anyhow::Error>(agent.metrics()?.sum("weft_kept_objects_timestamp_seconds", &[]));
        ensure!(from_when()? == 0.0, "it goes by what was kept, and there is an API server");

        cluster.stop_apiserver()?;
        let outcome = (|| {
            for turn in ["first", "second"] {
                let http = asking.load(&["http://server/", "-c", "4"])?;
                let before = agent.process()?;
                agent.kill()?;
                let killed = Instant::now();
                namespace.eventually("an answer", Duration::from_secs(30), || {
                    ensure!(agent.process()? != before, "process {before} still runs");
                    all_get("/", 200)
                })?;
                println!(
                    "back {:.1} s after the {turn} SIGKILL, without an API server",
                    killed.elapsed().as_secs_f32()
                );
                let report = http.finish()?;
                println!(
                    "{} requests, {} failed, longest gap {:.0} ms",
                    report.requests, report.failed, report.longest_gap_ms
                );
                all_get("/secret", 403)?;
                // It has nobody to ask for certificates, and says that it is ready when it has heard so.
                namespace.eventually("ready", Duration::from_secs(30), || {
                    agent
                        .is_ready()
                        .with_context(|| agent.status_on_its_node().unwrap_or_else(|e| e.to_string()))
                })?;
                ensure!(from_when()? > 0.0, "it does not say that it goes by what was kept");
            }
            Ok(())
        })();
        cluster.start_apiserver()?;
        outcome?;
        namespace.eventually("the API server's own objects", Duration::from_mins(1), || {
            ensure!(from_when()? == 0.0, "it still goes by what was kept");
            all_get("/", 200)
        })?;
        namespace.kubectl(&["delete", "authorizationpolicy/no-secrets"])?;
        namespace.eventually("the policy's end", Duration::from_secs(10), || all_get("/secret", 200))
    });
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn the_ca_is_restarted_and_nobody_notices() {
    cluster_story(|cluster| {
        let namespace = cluster.namespace("s63-ca")?;
        let asking = deploy(&namespace)?;
        let (http, bytes) = load(&asking)?;
        cluster.kubectl(&["rollout", "restart", "--namespace=weft-system", "deployment/weft-controller"])?;
        // An account that is new while it restarts gets its certificate all the same.
        namespace.apply(&client("newcomer", "n1").account("newcomer").yaml())?;
        namespace.rolled_out("deployment/newcomer")?;
        let newcomer = &namespace.pods("app=newcomer")?[0];
        namespace.eventually("the newcomer's certificate", Duration::from_secs(30), || {
            let answer = newcomer.get("http://server/")?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(())
        })?;
        cluster.rolled_out("weft-system", "deployment/weft-controller")?;
        let (http, bytes) = (http.finish()?, bytes.finish()?);
        println!(
            "CA restarted: {} requests, {} failed, longest gap {:.0} ms; {} cut of 16",
            http.requests, http.failed, http.longest_gap_ms, bytes.failed
        );
        http.none_failed()?;
        bytes.none_failed()?;
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn a_network_policy_has_to_let_tunnels_through() {
    cluster_story(|cluster| {
        let namespace = cluster.namespace("s64-policy")?;
        let client = deploy(&namespace)?;
        let server = namespace.pods("app=server")?.pop().context("no server")?.ip.to_string();
        let outcome = (|| {
            for (ports, status) in [(&["8080"][..], 503), (&["8080", "15008"], 200)] {
                only(&namespace, ports)?;
                enforce(cluster, &server, ports)?;
                let precheck = cluster.weft(&["precheck"])?.good()?;
                let told: Vec<&str> =
                    precheck.lines().filter(|line| line.contains("s64-policy/only")).collect();
                ensure!(told.is_empty() == (status == 200), "{precheck}");
                let answer = client.get("http://server/")?;
                println!("only {ports:?}: {}; precheck: {told:?}", answer.status);
                ensure!(answer.status == status, "{answer:?}");
            }
            Ok(())
        })();
        cluster.on_node("n2", &["sh", "-c", "iptables -F FORWARD-STORY"])?.good()?;
        outcome
    });
}

/// A policy that lets these ports in, and nothing else.
fn only(namespace: &Namespace, ports: &[&str]) -> Result<()> {
    let ports: Vec<String> = ports.iter().map(|port| format!("{{port: {port}}}")).collect();
    namespace.apply(&format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: only}}\nspec:\n  podSelector: {{}}\n  \
         policyTypes: [Ingress]\n  ingress: [{{ports: [{}]}}]\n",
        ports.join(", ")
    ))
}

/// This cluster's CNI enforces no policy: what another does on the server's node for this one, the story does.
fn enforce(cluster: &Cluster, pod: &str, ports: &[&str]) -> Result<()> {
    let ports = ports.join(",");
    let rules = format!(
        "iptables -N FORWARD-STORY 2>/dev/null && iptables -I FORWARD -j FORWARD-STORY; iptables -F FORWARD-STORY; \
         iptables -A FORWARD-STORY -d {pod} -p tcp -m multiport --dports {ports} -j ACCEPT && \
         iptables -A FORWARD-STORY -d {pod} -p tcp -j REJECT --reject-with tcp-reset"
    );
    cluster.on_node("n2", &["sh", "-c", &rules])?.good().map(drop)
}

fn plugins(cluster: &Cluster, node: &str) -> Result<String> {
    cluster.on_node(node, &["sh", "-c", "cat /etc/cni/net.d/*.conflist"])?.good()
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn a_rewritten_cni_configuration_is_repaired() {
    cluster_story(|cluster| {
        let namespace = cluster.namespace("s65-cni")?;
        deploy(&namespace)?;
        ensure!(
            plugins(cluster, "n1")?.contains("weft"),
            "not a part of the chain: {}",
            plugins(cluster, "n1")?
        );
        // As another CNI does that writes its file anew.
        let mut list: Value = serde_json::from_str(&plugins(cluster, "n1")?)?;
        let chain = list["plugins"].as_array_mut().context("no plugins")?;
        chain.retain(|plugin| plugin["type"] != "weft-cni");
        let write = "printf %s \"$0\" > /etc/cni/net.d/.new && mv /etc/cni/net.d/.new $(ls /etc/cni/net.d/*.conflist)";
        cluster.on_node("n1", &["sh", "-c", write, &list.to_string()])?.good()?;
        namespace.eventually("the repair", Duration::from_secs(10), || {
            ensure!(plugins(cluster, "n1")?.contains("weft-cni"), "still without weft");
            Ok(())
        })?;
        namespace.apply(&client("later", "n1").yaml())?;
        namespace.rolled_out("deployment/later")?;
        let later = namespace.pods("app=later")?;
        namespace.eventually("in the mesh", Duration::from_secs(10), || in_mesh(&namespace, &later, true))
    });
}

/// The process id of containerd, as its node numbers it.
fn containerd(cluster: &Cluster, node: &str) -> Result<String> {
    let find = "for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = containerd ] && echo ${p#/proc/}; done; true";
    let pids = cluster.on_node(node, &["sh", "-c", find])?.good()?;
    Ok(pids.split_whitespace().next().context("no containerd runs")?.to_owned())
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn containerd_is_restarted_under_load() {
    cluster_story(|cluster| {
        let namespace = cluster.namespace("s66-containerd")?;
        let asking = deploy(&namespace)?;
        let before = namespace.pods("app in (server,bytes)")?;
        let (http, bytes) = load(&asking)?;
        let old = containerd(cluster, "n2")?;
        cluster.on_node("n2", &["kill", &old])?.good()?;
        // A pod of the same node, begun while it is away or just back.
        namespace.apply(&client("newcomer", "n2").yaml())?;
        namespace.rolled_out("deployment/newcomer")?;
        ensure!(containerd(cluster, "n2")? != old, "containerd was not restarted");
        let newcomer = namespace.pods("app=newcomer")?;
        namespace.eventually("the newcomer in the mesh", Duration::from_secs(10), || {
            in_mesh(&namespace, &newcomer, true)
        })?;
        let answer = newcomer[0].get("http://server/")?;
        ensure!(answer.status == 200 && answer.header("server") == Some("envoy"), "{answer:?}");
        let (http, bytes) = (http.finish()?, bytes.finish()?);
        println!(
            "containerd restarted on the server's node: {} requests, {} failed, longest gap {:.0} ms; {} cut of 16",
            http.requests, http.failed, http.longest_gap_ms, bytes.failed
        );
        http.none_failed()?;
        bytes.none_failed()?;
        let after = namespace.pods("app in (server,bytes)")?;
        for (before, after) in before.iter().zip(&after) {
            ensure!(before.container == after.container, "{} was restarted", before.name);
        }
        in_mesh(&namespace, &after, true)
    });
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn a_node_that_reboots_is_in_the_mesh_again() {
    cluster_story(|cluster| {
        let namespace = cluster.namespace("s67-reboot")?;
        deploy(&namespace)?;
        cluster.stop_node("n2")?;
        cluster.start_node("n2")?;
        cluster.kubectl(&["wait", "--for=condition=Ready", "node/n2", "--timeout=90s"])?;
        cluster.rolled_out("weft-system", "daemonset/weft-agent")?;
        let client = &namespace.pods("app=client")?[0];
        namespace.eventually("answers by the mesh", Duration::from_secs(90), || {
            let answer = client.get("http://server/")?;
            ensure!(answer.status == 200 && answer.header("server") == Some("envoy"), "{answer:?}");
            in_mesh(&namespace, &namespace.pods("app")?, true)
        })
    });
}
