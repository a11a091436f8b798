//! Scenario 3, without TLS: traffic from outside, host by host, with a canary behind.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
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

/// Asks for a page on a connection that is kept.
fn ask_on(stream: &mut TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: any.test\r\n\r\n")?;
    let mut answer = vec![0; 64 * 1024];
    let length = stream.read(&mut answer)?;
    ensure!(answer[..length].starts_with(b"HTTP/1.1 200"), "{}", answer[..length].escape_ascii());
    Ok(())
}

/// Whether a connection that is kept, and was asked nothing, has been closed by its other end.
fn is_closed(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    match stream.read(&mut [0]) {
        Ok(0) => Ok(()),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        other => bail!("nobody has closed it: {other:?}"),
    }
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn gateways_follow_one_another_and_nobody_is_left_hanging() {
    cluster_story(|cluster| {
        cluster.weft(&["install", "-y", "--set", "profile=demo"])?.good()?;
        cluster.rolled_out("weft-system", "deployment/istio-ingressgateway")?;
        let shop = cluster.namespace("rolling")?;
        shop.join_mesh()?;
        shop.apply(&App::new("storefront", &["echo"], 8080).yaml())?;
        shop.apply(&service("storefront", "storefront", "http", 80, 8080))?;
        shop.rolled_out("deployment/storefront")?;
        shop.apply(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: shop}\nspec:\n  \
             selector: {istio: ingressgateway}\n  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]\n\
             ---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: edge}\nspec:\n  \
             hosts: ['*']\n  gateways: [shop]\n  http: [{route: [{destination: {host: storefront}}]}]\n",
        )?;
        let at = outside(cluster)?;
        let url = format!("http://{at}/");
        shop.eventually("the gateway", Duration::from_secs(30), || {
            for _ in 0..10 {
                let answer = cluster.http(&url).send()?;
                ensure!(answer.status == 200, "{answer:?}");
            }
            Ok(())
        })?;
        // Callers that ask all the time, and callers that keep a connection and ask nothing.
        let load = cluster.load(&[&url, "-c", "64"])?;
        let mut idle = (0..16).map(|_| Ok(TcpStream::connect(at)?)).collect::<Result<Vec<_>>>()?;
        idle.iter_mut().try_for_each(ask_on)?;
        let pods = || {
            let list =
                cluster.get(&["pods", "--namespace=weft-system", "--selector=istio=ingressgateway"])?;
            let all = list["items"].as_array().into_iter().flatten();
            let text = |pod: &Value, path: &str| {
                pod.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            Ok::<Vec<_>, anyhow::Error>(
                all.map(|pod| (text(pod, "/metadata/name"), text(pod, "/spec/nodeName"))).collect(),
            )
        };
        let before = pods()?;
        let begun = Instant::now();
        cluster.kubectl(&[
            "rollout",
            "restart",
            "--namespace=weft-system",
            "deployment/istio-ingressgateway",
        ])?;
        shop.eventually("the end of those before", Duration::from_mins(2), || {
            let now = pods()?;
            ensure!(now.len() == 2 && !now.iter().any(|pod| before.contains(pod)), "{now:?}");
            Ok(())
        })?;
        println!("two new gateways stand alone after {:.1} s: {:?}", begun.elapsed().as_secs_f32(), pods()?);
        let report = load.finish()?;
        println!(
            "gateway rollout under 64 connections: {} requests, {} failed, longest gap {:.0} ms",
            report.requests, report.failed, report.longest_gap_ms
        );
        report.none_failed()?;
        idle.into_iter().try_for_each(is_closed)?;
        let nodes: BTreeSet<String> = pods()?.into_iter().map(|(_, node)| node).collect();
        ensure!(nodes.len() == 2, "both are on {nodes:?}");
        Ok(())
    });
}

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
    // The connections that carry them are told, too.
    let filter = ["--to", "deploy/storefront.mushop", "--protocol", "http", "--not", "--path", "/healthz"];
    let mut tap = cluster
        .weft_command()?
        .arg("tap")
        .args(filter)
        .args(["--max", "1", "-o", "json"])
        .stdout(Stdio::piped())
        .spawn()?;
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
