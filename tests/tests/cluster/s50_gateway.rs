//! Scenario 3, without TLS: traffic from outside, host by host, with a canary behind.

use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::{Cluster, Namespace, cluster_story};

use crate::apps::{App, client, service};
use crate::mesh::in_mesh;

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

/// The dashboard of the mesh, on a host of its own, spoken to without the mesh's TLS.
fn kiali(address: IpAddr) -> String {
    format!(
        "apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata: {{name: kiali}}
spec:
  hosts: [kiali.{address}.nip.io]
  gateways: [shop]
  http: [{{route: [{{destination: {{host: kiali, port: {{number: 20001}}}}}}]}}]
---
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata: {{name: kiali}}
spec:
  host: kiali
  trafficPolicy: {{tls: {{mode: DISABLE}}}}
"
    )
}

/// What serves HTTP, one of each; the storefront's second version is another Deployment.
const SERVICES: [&str; 11] = [
    "api",
    "assets",
    "carts",
    "catalogue",
    "edge-router",
    "events",
    "fulfillment",
    "orders",
    "payment",
    "storefront",
    "user",
];

fn deploy(shop: &Namespace) -> Result<()> {
    shop.join_mesh()?;
    let mut yaml = String::new();
    for name in SERVICES {
        yaml += &App::new(name, &["echo"], 8080).yaml();
        yaml += &service(name, name, "http", 80, 8080);
    }
    let beta = App::new("storefront-beta", &["echo"], 8080).app("storefront").version("2.1.3-beta.1");
    yaml += &beta.yaml();
    yaml += &App::new("kiali", &["echo"], 20001).yaml();
    yaml += &service("kiali", "kiali", "http", 20001, 20001);
    // NATS speaks first; once its port's name says what it is, and once nothing does.
    yaml += &App::new("nats", &["greet", "--greeting", "INFO"], 4222).yaml();
    yaml += &service("nats", "nats", "tcp-nats", 4222, 4222);
    yaml += &service("session", "nats", "", 4222, 4222);
    yaml += &client("client", "n1").yaml();
    shop.apply(&yaml)?;
    for name in SERVICES.iter().chain(&["storefront-beta", "kiali", "nats", "client"]) {
        shop.rolled_out(&format!("deployment/{name}"))?;
    }
    let pods = shop.pods("app")?;
    shop.eventually("in the mesh", Duration::from_secs(15), || in_mesh(shop, &pods, true))
}

/// The address of the gateway's Service from outside: a node's, and its port.
fn outside(cluster: &Cluster) -> Result<SocketAddr> {
    let service = cluster.get(&["service", "istio-ingressgateway", "--namespace", "weft-system"])?;
    let ports = service["spec"]["ports"].as_array().context("no ports")?;
    let port = ports.iter().find(|port| port["port"] == 80).context("no port 80")?;
    Ok(format!("10.77.0.12:{}", port["nodePort"]).parse()?)
}

/// What the first request to the storefront looks like in `weft tap`.
fn tapped(cluster: &Cluster, shop: &Namespace, url: &str) -> Result<Value> {
    let filter = ["tap", "--to", "deploy/storefront.mushop", "--not", "--path", "/healthz", "--max", "1"];
    let mut tap = cluster.weft_command()?.args(filter).args(["-o", "json"]).stdout(Stdio::piped()).spawn()?;
    // It listens when it is asked for; until it sees one, there are more.
    let ended = shop.eventually("a line of weft tap", Duration::from_secs(20), || {
        for path in ["healthz", "basket"] {
            cluster.http(&format!("{url}{path}")).send()?;
        }
        tap.try_wait()?.context("it waits")
    });
    if ended.is_err() {
        tap.kill()?;
    }
    let said = tap.wait_with_output()?;
    ended?;
    Ok(serde_json::from_slice(&said.stdout)?)
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn two_gateway_replicas_bring_a_shop_to_the_outside() {
    cluster_story(|cluster| {
        cluster.weft(&["install", "-y", "--set", "profile=demo"])?.good()?;
        cluster.rolled_out("weft-system", "deployment/istio-ingressgateway")?;
        // As people do who want to see their clients' own addresses.
        let local = "{\"spec\": {\"externalTrafficPolicy\": \"Local\"}}";
        let words = ["patch", "service", "istio-ingressgateway", "--namespace=weft-system", "--patch", local];
        cluster.kubectl(&words)?;
        let shop = cluster.namespace("mushop")?;
        deploy(&shop)?;
        let client = &shop.pods("app=client")?[0];
        for server in ["nats", "session"] {
            let said = client.exec(&["curl", "-s", "--max-time", "2", &format!("telnet://{server}:4222")])?;
            ensure!(said.stdout.starts_with("INFO"), "{server}: {said:?}");
        }

        shop.apply(SHOP)?;
        shop.apply(&routes(90, 10))?;
        let at = outside(cluster)?;
        shop.apply(&kiali(at.ip()))?;
        let url = format!("http://{at}/");
        let ask = |path: &str| -> Result<Value> {
            let answer = cluster.http(&format!("{url}{path}")).send()?;
            ensure!(answer.status == 200, "{path}: {answer:?}");
            answer.json()
        };
        shop.eventually("the gateway", Duration::from_secs(15), || ask(""))?;
        let seen = ask("api/items")?;
        ensure!(seen["app"].as_str().is_some_and(|app| app.starts_with("api-")), "{seen}");
        let seen = ask("assets/logo.png")?;
        ensure!(
            seen["path"] == "/logo.png" && seen["app"].as_str().is_some_and(|app| app.starts_with("assets-")),
            "{seen}"
        );
        let host = format!("kiali.{}.nip.io", at.ip());
        let seen = cluster.http(&url).header("host", &host).send()?.json()?;
        ensure!(seen["app"].as_str().is_some_and(|app| app.starts_with("kiali-")), "{seen}");

        // What the gateways do with it is told without a request, whichever node they are on.
        let gateway = "deploy/istio-ingressgateway.weft-system";
        let told = cluster.weft(&["explain", gateway, "http://any.test/api/items"])?.good()?;
        println!("{told}");
        ensure!(told.contains("VirtualService mushop/edge route http[0]"), "{told}");
        ensure!(told.contains("api.mushop.svc.cluster.local"), "{told}");

        let line = tapped(cluster, &shop, &url)?;
        println!("weft tap: {line}");
        ensure!(
            line["path"] == "/basket" && line["status"] == 200 && line["flags"] == "-",
            "not the storefront's line: {line}"
        );
        ensure!(line["virtualService"] == "mushop/edge" && line["authority"] == at.to_string(), "{line}");
        let from = line["source"]["address"].as_str().context("no address")?;
        ensure!(from.starts_with("10.77.0.1:"), "the client is hidden behind {from}");

        let report = cluster.load(&[&url, "-n", "2000", "-c", "4"])?.wait()?;
        report.none_failed()?;
        let percent = report.percent("2.1.3-beta.1");
        println!("canary of 10 %: {percent:.2} % of 2,000");
        ensure!((8.0..=12.0).contains(&percent), "{percent} % of 2,000");

        let load = cluster.load(&[&url, "-c", "4"])?;
        shop.apply(&routes(0, 100))?;
        let released = Instant::now();
        shop.eventually("the release", Duration::from_secs(5), || {
            for _ in 0..20 {
                ensure!(ask("")?["appVersion"] == "2.1.3-beta.1");
            }
            Ok(())
        })?;
        println!(
            "20 of 20 requests are answered by the release {:.2} s after the change",
            released.elapsed().as_secs_f32()
        );
        load.finish()?.none_failed()?;

        // Both replicas take part.
        let gateways =
            cluster.get(&["pods", "--namespace=weft-system", "--selector=istio=ingressgateway"])?;
        let addresses: Vec<&str> = (gateways["items"].as_array().into_iter().flatten())
            .filter_map(|pod| pod["status"]["podIP"].as_str())
            .collect();
        ensure!(addresses.len() == 2, "{addresses:?}");
        for address in addresses {
            let answer = cluster.http(&format!("http://{address}:8080/")).send()?;
            ensure!(answer.status == 200, "{address}: {answer:?}");
        }
        Ok(())
    });
}
