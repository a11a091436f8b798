//! Scenario 2, its end: nothing is left.

use anyhow::{Result, ensure};
use weft_tests::{Cluster, cluster_story};

use crate::s60_agents::deploy;

/// Fails if a node, or one of its pods, has anything of weft.
pub fn nothing_is_left_on(cluster: &Cluster, node: &str) -> Result<()> {
    let files = "ls -d /run/weft /sys/fs/bpf/weft* /opt/cni/bin/weft* 2>/dev/null; grep -l weft-cni /etc/cni/net.d/* 2>/dev/null; true";
    let left = cluster.on_node(node, &["sh", "-c", files])?.good()?;
    ensure!(left.trim().is_empty(), "{node}: {left}");
    let rules = "for n in /run/netns/*; do nsenter --net=$n ip rule | grep -v -E 'lookup (local|main|default)'; done; true";
    let rules = cluster.on_node(node, &["sh", "-c", rules])?.good()?;
    ensure!(rules.trim().is_empty(), "{node}: rules are left in pods: {rules}");
    Ok(())
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn weft_is_uninstalled_and_leaves_nothing() {
    cluster_story(|cluster| {
        let namespace = cluster.namespace("s99-left")?;
        let client = deploy(&namespace)?;
        let begun = std::time::Instant::now();
        println!("{}", cluster.weft(&["uninstall", "--purge", "-y"])?.good()?);
        println!("uninstalled within {:.1} s", begun.elapsed().as_secs_f32());
        // Pods go on, past the mesh.
        let answer = client.get("http://server/")?;
        ensure!(answer.status == 200 && answer.header("server").is_none(), "{answer:?}");
        for node in ["n1", "n2"] {
            nothing_is_left_on(cluster, node)?;
        }
        let kinds = "crd,clusterrole,clusterrolebinding,validatingwebhookconfiguration,validatingadmissionpolicy,namespace";
        let names = cluster.kubectl(&["get", kinds, "--output=name", "--ignore-not-found"])?;
        // The cluster has a binding of its own whose name begins with its own.
        let names = names.lines().filter(|name| !name.contains("weft-cluster"));
        let left: Vec<&str> =
            names.filter(|name| name.contains("weft") || name.contains("istio.io")).collect();
        ensure!(left.is_empty(), "{left:?}");
        let pods = namespace.get(&["pods"])?.to_string();
        ensure!(!pods.contains("weft.dev/Enrolled"), "a condition is left");
        let version = cluster.weft(&["version"])?.good()?;
        ensure!(version.to_lowercase().contains("no mesh"), "{version}");
        Ok(())
    });
}
