//! Scenario 2: the registry can be asked over HTTP, in profile demo.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use weft_tests::cluster_story;

use crate::apps::{App, client, service};

const REGISTRY: &str = "http://weft-registry.weft-system:8080/v1/registration";

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn the_registry_lists_services_and_hosts_over_http() {
    cluster_story(|cluster| {
        cluster.weft(&["install", "-y", "--set", "profile=demo"])?.good()?;
        let shop = cluster.namespace("s11-registry")?;
        shop.apply(&App::new("catalog", &["catalog"], 3000).replicas(2).yaml())?;
        shop.apply(&service("catalog", "catalog", "http", 80, 3000))?;
        shop.apply(&client("client", "n1").yaml())?;
        for name in ["catalog", "client"] {
            shop.rolled_out(&format!("deployment/{name}"))?;
        }
        let client = &shop.pods("app=client")?[0];
        let key = "catalog.s11-registry.svc.cluster.local|http";
        let hosts_of = |list: &Value| {
            let all = list.as_array().into_iter().flatten();
            let found = all.into_iter().find(|one| one["service-key"] == key).cloned();
            found.map(|one| one["hosts"].clone()).with_context(|| format!("no {key} in {list}"))
        };
        let mut expected: Vec<String> =
            shop.pods("app=catalog")?.iter().map(|pod| pod.at(3000).to_string()).collect();
        expected.sort();
        // Asked by a pod outside the mesh, and by the same pod in it.
        for in_mesh in [false, true] {
            if in_mesh {
                shop.join_mesh()?;
                shop.eventually("in the mesh", Duration::from_secs(10), || {
                    crate::mesh::in_mesh(&shop, std::slice::from_ref(client), true)
                })?;
            }
            let mut told = shop.eventually("the hosts", Duration::from_secs(10), || {
                let answer = client.get(REGISTRY)?;
                ensure!(answer.status == 200, "{answer:?}");
                let hosts = hosts_of(&answer.json()?)?;
                let line = |host: &Value| {
                    format!("{}:{}", host["ip_address"].as_str().unwrap_or_default(), host["port"])
                };
                let hosts: Vec<String> = hosts.as_array().into_iter().flatten().map(line).collect();
                ensure!(hosts.len() == 2, "{hosts:?}");
                Ok(hosts)
            })?;
            told.sort();
            ensure!(told == expected, "{told:?} for {expected:?}, in the mesh: {in_mesh}");
        }
        let one = client.get(&format!("{REGISTRY}/{key}"))?;
        ensure!(one.status == 200 && one.json()?["hosts"].as_array().map(Vec::len) == Some(2), "{one:?}");
        println!("{} {}", one.status, one.body);

        let said = cluster.weft(&["get", "endpoints", "-n", "s11-registry", "-o", "json"])?.good()?;
        let rows: Value = serde_json::from_str(&said)?;
        let rows = rows.as_array().into_iter().flatten();
        let mut told: Vec<String> = rows
            .filter(|row| row["service"] == "catalog.s11-registry.svc.cluster.local")
            .filter_map(|row| Some(row["address"].as_str()?.to_owned()))
            .collect();
        told.sort();
        ensure!(told == expected, "weft get endpoints: {told:?} for {expected:?}");

        // Another profile has no registry, and says what becomes of it.
        let plan = cluster.weft(&["install", "--set", "profile=gateway"])?;
        ensure!(
            plan.stdout.contains("leaves (--prune deletes it)  Service weft-system/weft-registry"),
            "{plan:?}"
        );
        Ok(())
    });
}
