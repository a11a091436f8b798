//! Scenario 3, without TLS: traffic from outside, host by host, with a canary behind.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::{Cluster, cluster_story, get};

use crate::apps::{App, service};

const SHOP: &str = "\
apiVersion: networking.istio.io/v1alpha3
kind: Gateway
metadata: {name: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ['*']
---
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata: {name: storefront}
spec:
  host: storefront
  subsets:
  - {name: original, labels: {version: v1}}
  - {name: beta, labels: {version: 2.1.3-beta.1}}
";

fn routes(original: u32, beta: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata: {{name: edge}}
spec:
  hosts: ['*']
  gateways: [shop]
  http:
  - match: [{{uri: {{prefix: /api}}}}]
    route: [{{destination: {{host: api}}}}]
  - match: [{{uri: {{prefix: /assets/}}}}]
    rewrite: {{uri: /}}
    route: [{{destination: {{host: assets}}}}]
  - route:
    - {{destination: {{host: storefront, subset: original, port: {{number: 80}}}}, weight: {original}}}
    - {{destination: {{host: storefront, subset: beta, port: {{number: 80}}}}, weight: {beta}}}
"
    )
}

/// The address of the gateway's Service from outside: a node's, and its port.
fn outside(cluster: &Cluster) -> Result<SocketAddr> {
    let service = cluster.get(&["service", "istio-ingressgateway", "--namespace", "weft-system"])?;
    let ports = service["spec"]["ports"].as_array().context("no ports")?;
    let port = ports.iter().find(|port| port["port"] == 80).context("no port 80")?;
    Ok(format!("10.77.0.12:{}", port["nodePort"]).parse()?)
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn two_gateway_replicas_bring_a_shop_to_the_outside() {
    cluster_story(|cluster| {
        cluster.weft(&["install", "-y", "--set", "profile=demo"])?.good()?;
        cluster.rolled_out("weft-system", "deployment/istio-ingressgateway")?;
        let shop = cluster.namespace("mushop")?;
        shop.join_mesh()?;
        for (name, app, version) in [
            ("api", "api", "v1"),
            ("assets", "assets", "v1"),
            ("storefront", "storefront", "v1"),
            ("storefront-beta", "storefront", "2.1.3-beta.1"),
        ] {
            shop.apply(&App::new(name, &["echo"], 8080).app(app).version(version).yaml())?;
            shop.apply(&service(app, app, "http", 80, 8080))?;
        }
        for name in ["api", "assets", "storefront", "storefront-beta"] {
            shop.rolled_out(&format!("deployment/{name}"))?;
        }
        shop.apply(SHOP)?;
        shop.apply(&routes(90, 10))?;
        let at = outside(cluster)?;
        let ask = |path: &str| -> Result<serde_json::Value> {
            let (status, body) = get(at, path)?;
            ensure!(status == 200, "{path}: {status} {body}");
            Ok(serde_json::from_str(&body)?)
        };
        shop.eventually("the gateway", Duration::from_secs(15), || ask("/"))?;
        let seen = ask("/api/items")?;
        ensure!(seen["app"].as_str().is_some_and(|app| app.starts_with("api-")), "{seen}");
        let seen = ask("/assets/logo.png")?;
        ensure!(
            seen["path"] == "/logo.png" && seen["app"].as_str().is_some_and(|app| app.starts_with("assets-")),
            "{seen}"
        );

        let mut beta = 0;
        for _ in 0..500 {
            beta += u32::from(ask("/")?["appVersion"] == "2.1.3-beta.1");
        }
        println!("canary of 10 %: {:.1} % of 500", f64::from(beta) / 5.0);
        ensure!((25..=80).contains(&beta), "{beta} of 500");
        shop.apply(&routes(0, 100))?;
        shop.eventually("the release", Duration::from_secs(5), || {
            for _ in 0..20 {
                ensure!(ask("/")?["appVersion"] == "2.1.3-beta.1");
            }
            Ok(())
        })?;
        // Both replicas take part.
        let gateways =
            cluster.get(&["pods", "--namespace=weft-system", "--selector=istio=ingressgateway"])?;
        let addresses: Vec<&str> = (gateways["items"].as_array().into_iter().flatten())
            .filter_map(|pod| pod["status"]["podIP"].as_str())
            .collect();
        ensure!(addresses.len() == 2, "{addresses:?}");
        for address in addresses {
            let (status, body) = get(format!("{address}:8080").parse()?, "/")?;
            ensure!(status == 200, "{address}: {status} {body}");
        }
        Ok(())
    });
}
