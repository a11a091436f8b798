//! Whom a Host means: one that nobody knows, and one that is a pod's of a headless service.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::{Mesh, eventually, story};

use crate::attacks::STRICT;
use crate::deploy::{got_header, virtual_service};

/// Everything is counted within so long.
const PATIENCE: Duration = Duration::from_secs(5);
/// A name that is nobody's here.
const UNKNOWN: &str = "exact.example.com";
/// What nobody else on the wire has a reason to say.
const MARKER: &str = "nobody-knows-7f3a";

/// `client` on n1; `far` on n2 and `near` on n1, each behind a service of its name.
fn near_and_far(mesh: &Mesh) -> Result<()> {
    mesh.pod("client").node("n1").service_account("client").start()?;
    for (name, node) in [("far", "n2"), ("near", "n1")] {
        let pod = mesh.pod(name).node(node).service_account(name).label("app", name);
        pod.app(["echo", "--port", "8080"]).start()?;
        mesh.service(name).selector("app", name).port("http", 80, 8080).create()?;
    }
    mesh.start_agents(&["n1", "n2"])?;
    mesh.apply_now("strict", STRICT)
}

#[test]
fn a_host_that_nobody_knows_reaches_the_service_that_was_dialled_by_mutual_tls() {
    story(|mesh| {
        near_and_far(mesh)?;
        let mut wire = mesh.the("far")?.capture()?;
        for name in ["far", "near"] {
            for to in [mesh.service_at(name, 80)?, mesh.service_at6(name, 80)?] {
                let url = format!("http://{to}/{MARKER}");
                let ask = || Ok::<_, anyhow::Error>(mesh.http("client", &url)?.header("Host", UNKNOWN));
                for request in [ask()?, ask()?.h2()] {
                    let answer = request.send()?;
                    ensure!(answer.status == 200 && answer.app() == name, "{to}: {answer:?}");
                    ensure!(answer.json()?["host"] == UNKNOWN, "{answer:?}");
                }
            }
        }
        ensure!(!wire.saw(MARKER.as_bytes())?, "in plain text");

        // It is told as a call of that service.
        eventually("counted", PATIENCE, || {
            let metrics = mesh.metrics()?;
            for name in ["far", "near"] {
                let host = format!("{name}.default.svc.cluster.local");
                let labels = [
                    ("reporter", "source"),
                    ("destination_service", &*host),
                    ("connection_security_policy", "mutual_tls"),
                    ("response_code", "200"),
                ];
                ensure!(metrics.count("istio_requests_total", &labels) == 4, "{name}");
            }
            let all = metrics.count("istio_requests_total", &[("reporter", "source")]);
            ensure!(all == 8, "{all} instead of 8");
            let log = mesh.access_log()?;
            ensure!(log.iter().filter(|line| line.contains("outbound|80||far.default")).count() == 4);
            ensure!(!log.iter().any(|line| line.contains("PassthroughCluster")), "{log:#?}");
            Ok(())
        })?;
        for name in ["far", "near"] {
            let told =
                mesh.explain("client", &format!("http://{name}/"), &["-H", &format!("Host: {UNKNOWN}")])?;
            ensure!(told["action"] == "route", "{told:#}");
            ensure!(told["backends"][0]["host"] == format!("{name}.default.svc.cluster.local"), "{told:#}");
            ensure!(told["notes"].to_string().contains(&format!("has the Host {UNKNOWN}")), "{told:#}");
        }
        Ok(())
    });
}

#[test]
fn a_host_that_rules_know_goes_by_these_and_one_that_nobody_knows_by_none() {
    story(|mesh| {
        near_and_far(mesh)?;
        let rules = |host: &str, status: u16| {
            virtual_service(host, "http", &format!("- directResponse: {{status: {status}}}\n"))
        };
        mesh.apply("far-rules", &rules("far", 299))?;
        mesh.apply_now("known", &rules("known.example.com", 298))?;
        let url = format!("http://{}/", mesh.service_at("far", 80)?);
        let ask = |host: &str| mesh.http("client", &url)?.header("Host", host).send();
        for (host, status) in
            [("far", 299), ("known.example.com", 298), (UNKNOWN, 200), ("known.example.com:80", 298)]
        {
            let answer = ask(host)?;
            ensure!(answer.status == status, "{host}: {answer:?}");
        }
        // Its DestinationRule holds: without an identity, STRICT lets nobody in.
        let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: far, namespace: default}\n\
                    spec: {host: far, trafficPolicy: {tls: {mode: DISABLE}}}\n";
        mesh.apply_now("far-policy", rule)?;
        let answer = ask(UNKNOWN)?;
        ensure!(answer.status == 503, "{answer:?}");
        Ok(())
    });
}

#[test]
fn a_gateway_is_reached_through_its_service_by_the_hosts_that_it_alone_knows() {
    story(|mesh| {
        near_and_far(mesh)?;
        mesh.namespace("ingress", false)?;
        mesh.pod("gateway").namespace("ingress").node("n2").label("istio", "ingressgateway").start()?;
        let service = mesh.service("ingress").namespace("ingress").selector("istio", "ingressgateway");
        service.port("http2", 80, 8080).create()?;
        mesh.apply_now(
            "gateway",
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: shop, namespace: default}\nspec:\n  \
             selector: {istio: ingressgateway}\n  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]\n\
             ---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: shop, namespace: default}\nspec:\n  \
             hosts: [www.shop.test]\n  gateways: [shop]\n  http: [{route: [{destination: {host: near}}]}]\n",
        )?;
        let url = format!("http://{}/", mesh.service_at("ingress.ingress", 80)?);
        let answer = mesh.http("client", &url)?.header("Host", "www.shop.test").send()?;
        ensure!(answer.status == 200 && answer.app() == "near", "{answer:?}");
        let answer = mesh.http("client", &url)?.header("Host", "www.other.test").send()?;
        ensure!(answer.status == 404, "{answer:?}");
        Ok(())
    });
}

#[test]
fn a_pod_of_a_headless_service_answers_to_each_of_its_names_by_the_services_rules() {
    story(|mesh| {
        mesh.pod("client").node("n1").start()?;
        for (name, node) in [("reviews-v1", "n2"), ("reviews-v2", "n1")] {
            let pod = mesh.pod(name).node(node).label("app", "reviews");
            pod.app(["echo", "--port", "9080"]).start()?;
        }
        mesh.start_agents(&["n1", "n2"])?;
        let service = "apiVersion: v1\nkind: Service\nmetadata: {name: reviews-set, namespace: default}\n\
                       spec:\n  clusterIP: None\n  selector: {app: reviews}\n  ports: [{name: http, port: 9080}]\n";
        let rules = virtual_service(
            "reviews-set",
            "http",
            "- headers: {request: {set: {x-by-rule: 'yes'}}}\n  route: [{destination: {host: reviews-set}}]\n",
        );
        mesh.apply("strict", STRICT)?;
        mesh.apply_now("set", &format!("{service}---\n{rules}"))?;
        for name in ["reviews-v1", "reviews-v2"] {
            let pod = mesh.the(name)?;
            for to in [pod.at(9080), pod.at6(9080)] {
                for host in [
                    "reviews-set:9080",
                    &format!("{name}.reviews-set:9080"),
                    &format!("{name}.reviews-set.default:9080"),
                    &format!("{name}.reviews-set.default.svc.cluster.local:9080"),
                ] {
                    // More often than chance would have it.
                    for _ in 0..4 {
                        let request = mesh.http("client", &format!("http://{to}/"))?.header("Host", host);
                        let answer = request.send()?;
                        ensure!(answer.status == 200 && answer.app() == name, "{to} as {host}: {answer:?}");
                        let set = got_header(&answer.json()?, "x-by-rule");
                        ensure!(set.as_deref() == Some("yes"), "{to} as {host}: {answer:?}");
                    }
                }
                // A Host of nobody's is no reason to bring it to another pod.
                let answer = mesh.http("client", &format!("http://{to}/"))?.header("Host", UNKNOWN).send()?;
                ensure!(answer.status == 200 && answer.app() == name, "{to}: {answer:?}");
                ensure!(got_header(&answer.json()?, "x-by-rule").is_none(), "{answer:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_name_that_no_resolver_knows_is_refused_by_explain_too() {
    story(|mesh| {
        near_and_far(mesh)?;
        for name in ["nowhere", "far.nowhere", "far.nowhere.svc.cluster.local"] {
            let url = format!("http://{name}/");
            ensure!(mesh.get("client", &url).is_err(), "{name} is known");
            let told = mesh.weft(&["explain", "pod/client", &url])?;
            ensure!(told.stderr.contains(&format!("nobody knows the name {name:?}")), "{told:?}");
            let another = mesh.weft(&["explain", "pod/nobody", &url])?;
            ensure!(told.code == another.code && told.code != 0, "{told:?} {another:?}");
            ensure!(told.stdout.is_empty(), "{told:?}");
        }
        Ok(())
    });
}
