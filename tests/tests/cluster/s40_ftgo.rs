//! Scenario 5: deploy is not release; rolling updates fail no request.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::{LoadReport, Namespace, cluster_story, scenarios};

use crate::apps::{App, client, service};
use crate::mesh::{STRICT, in_mesh};

const NAME: &str = "ftgo-consumer-service";
const CONSUMERS: &str = "http://ftgo-consumer-service:8080/consumers/1";

fn consumer<'a>(name: &'a str, version: &'a str) -> App<'a> {
    App::new(name, &["consumer"], 8080).app(NAME).version(version).probe("/actuator/health").lingers()
}

fn deploy(ftgo: &Namespace) -> Result<()> {
    ftgo.join_mesh()?;
    ftgo.apply(&consumer("consumer-v1", "v1").replicas(2).yaml())?;
    ftgo.apply(&consumer("consumer-v2", "v2").yaml())?;
    ftgo.apply(&service(NAME, NAME, "http", 8080, 8080))?;
    ftgo.apply(&client("client", "n1").yaml())?;
    for name in ["consumer-v1", "consumer-v2", "client"] {
        ftgo.rolled_out(&format!("deployment/{name}"))?;
    }
    let pods = ftgo.pods("app")?;
    ftgo.eventually("in the mesh", Duration::from_secs(10), || in_mesh(ftgo, &pods, true))?;
    answered(ftgo)
}

/// Waits until all calls are answered: the cluster's DNS and the caller's agent have heard of everything.
fn answered(ftgo: &Namespace) -> Result<()> {
    let client = &ftgo.pods("app=client")?[0];
    ftgo.eventually("an answer to every call", Duration::from_mins(2), || {
        let report = client.load(&[CONSUMERS, "-n", "100", "-c", "8"])?.wait()?;
        report.none_failed().map(drop)
    })
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn the_consumer_service_is_deployed_tested_and_released() {
    cluster_story(|cluster| {
        let ftgo = cluster.namespace("ftgo")?;
        deploy(&ftgo)?;
        let client = &ftgo.pods("app=client")?[0];
        let ask = |count: &str, user: Option<&str>| -> Result<LoadReport> {
            let header = format!("testuser: {}", user.unwrap_or_default());
            let mut args = vec![CONSUMERS, "-n", count, "-c", "4"];
            if user.is_some() {
                args.extend(["-H", &header]);
            }
            let report = client.load(&args)?.wait()?;
            report.none_failed()?;
            Ok(report)
        };
        let versions = |user: Option<&str>, expected: &[&str]| {
            ftgo.eventually("the rule", Duration::from_secs(5), || {
                let report = ask("300", user)?;
                ensure!(report.versions.keys().eq(expected.iter()), "{expected:?}: {:?}", report.versions);
                Ok(())
            })
        };
        let apply = |name: &str| ftgo.apply(&scenarios::fixture(name)?);
        apply("ftgo/subsets")?;
        apply("ftgo/only-v1")?;
        versions(None, &["v1"])?;
        apply("ftgo/testers-v2")?;
        versions(Some("me"), &["v2"])?;
        versions(None, &["v1"])?;
        apply("ftgo/five-percent")?;
        let percent = ftgo.eventually("five percent", Duration::from_secs(5), || {
            let percent = ask("2000", None)?.percent("v2");
            ensure!((3.0..=7.0).contains(&percent), "v2 has {percent} %");
            Ok(percent)
        })?;
        println!("5 % of 2,000 requests: {percent:.2} %");
        apply("ftgo/only-v2")?;
        versions(None, &["v2"])?;
        apply("ftgo/only-v1")?;
        versions(None, &["v1"])?;
        for misprint in ["ftgo/misprint-match", "ftgo/misprint-destination"] {
            ensure!(apply(misprint).is_err(), "{misprint} was taken");
        }
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn an_unnamed_port_is_balanced_and_a_node_port_leads_into_the_mesh() {
    cluster_story(|cluster| {
        let ftgo = cluster.namespace("s40-restaurant")?;
        ftgo.join_mesh()?;
        for version in ["v1", "v2"] {
            let words = ["greet", "--greeting", version];
            let name = format!("restaurant-{version}");
            ftgo.apply(&App::new(&name, &words, 8080).app("restaurant").version(version).yaml())?;
        }
        ftgo.apply(&service("ftgo-restaurant-service", "restaurant", "", 8080, 8080))?;
        ftgo.apply(&App::new("ftgo-api-gateway", &["echo"], 8080).yaml())?;
        ftgo.apply(
            "apiVersion: v1\nkind: Service\nmetadata: {name: ftgo-api-gateway}\nspec:\n  type: NodePort\n  \
             selector: {app: ftgo-api-gateway}\n  ports: [{name: http, port: 8080, nodePort: 30000}]\n",
        )?;
        ftgo.apply(&client("client", "n1").yaml())?;
        for name in ["restaurant-v1", "restaurant-v2", "ftgo-api-gateway", "client"] {
            ftgo.rolled_out(&format!("deployment/{name}"))?;
        }
        let pods = ftgo.pods("app")?;
        ftgo.eventually("in the mesh", Duration::from_secs(10), || in_mesh(&ftgo, &pods, true))?;
        let client = &ftgo.pods("app=client")?[0];
        let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do \
                      curl -s --max-time 0.2 telnet://ftgo-restaurant-service:8080; done; true";
        let said = client.exec(&["sh", "-c", script])?.good()?;
        let (v1, v2) = (said.matches("v1 ").count(), said.matches("v2 ").count());
        println!("20 connections to an unnamed port: {v1} to v1, {v2} to v2");
        ensure!(v1 + v2 == 20 && v1 > 0 && v2 > 0, "{said}");
        for node in ["10.77.0.11", "10.77.0.12"] {
            let answer = cluster.http(&format!("http://{node}:30000/orders")).send()?;
            ensure!(answer.status == 200 && answer.app().starts_with("ftgo-api-gateway"), "{answer:?}");
        }
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --cluster"]
fn a_rolling_update_its_undoing_and_scaling_fail_no_request() {
    cluster_story(|cluster| {
        let ftgo = cluster.namespace("s41-rolling")?;
        deploy(&ftgo)?;
        ftgo.apply(STRICT)?;
        answered(&ftgo)?;
        let client = &ftgo.pods("app=client")?[0];
        let load = client.load(&[CONSUMERS, "-c", "8"])?;
        let rollout = |words: &[&str]| -> Result<()> {
            ftgo.kubectl(words)?;
            ftgo.rolled_out("deployment/consumer-v1")
        };
        rollout(&["set", "env", "deployment/consumer-v1", "RELEASE=2"])?;
        rollout(&["rollout", "undo", "deployment/consumer-v1"])?;
        rollout(&["scale", "deployment/consumer-v1", "--replicas=5"])?;
        rollout(&["scale", "deployment/consumer-v1", "--replicas=1"])?;
        // What was told to end serves on for some seconds, and then is gone.
        ftgo.eventually("the others' end", Duration::from_secs(30), || {
            let list = ftgo.get(&["pods", "--selector", "app=ftgo-consumer-service"])?;
            ensure!(list["items"].as_array().is_some_and(|pods| pods.len() == 2), "more are there");
            Ok(())
        })?;
        let report = load.finish()?;
        println!(
            "rolling update, undo, scale to 5 and to 1: {} requests, {} failed, longest gap {:.0} ms",
            report.requests, report.failed, report.longest_gap_ms
        );
        report.none_failed()?;
        Ok(())
    });
}
