//! The registry over HTTP, as old tutorials ask it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_tests::{Mesh, get, story};

use crate::deploy;

/// For an agent that has handed over to end.
const END: Duration = Duration::from_secs(10);

/// `KEY ADDRESS:PORT` of each host that a list of registrations has.
fn hosts(list: &Value) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for service in list.as_array().context("no list")? {
        let key = service["service-key"].as_str().context("no service-key")?;
        for host in service["hosts"].as_array().context("no hosts")? {
            let address = host["ip_address"].as_str().context("no ip_address")?;
            all.insert(format!("{key} {address}:{}", host["port"]));
        }
    }
    Ok(all)
}

/// The same of `weft get endpoints`.
fn endpoints(mesh: &Mesh) -> Result<BTreeSet<String>> {
    let rows: Value = serde_json::from_str(&mesh.weft(&["get", "endpoints", "-o", "json"])?.good()?)?;
    let rows = rows.as_array().context("no list")?;
    let word = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    let line = |row: &Value| match &*word(row, "portName") {
        "" => format!("{} {}", word(row, "service"), word(row, "address")),
        name => format!("{}|{name} {}", word(row, "service"), word(row, "address")),
    };
    Ok(rows.iter().map(line).collect())
}

#[test]
fn services_and_their_hosts_are_listed_where_that_is_wanted() {
    story(|mesh| {
        deploy::echo(mesh)?;
        // Nobody listens there until an agent is told to; the next one takes the listener over.
        let at = mesh.with_agent(|agent| {
            let mut at = agent.readiness_address();
            at.set_port(at.port() + 9);
            ensure!(get(at, "/v1/registration").is_err(), "it answers unasked");
            let flag = format!("--registry-addr={at}");
            for _ in 0..2 {
                agent.upgrade(&[&flag])?.wait(END)?;
            }
            Ok(at)
        })?;
        let ask = |path: &str| -> Result<(u16, Value)> {
            let (status, body) = get(at, path)?;
            Ok((status, serde_json::from_str(&body).unwrap_or(Value::String(body))))
        };
        let (status, list) = ask("/v1/registration")?;
        ensure!(status == 200, "{status} {list}");
        let told = hosts(&list)?;
        println!("{told:#?}");
        let v1 = mesh.the("echo-v1")?.at(8080);
        ensure!(told.contains(&format!("echo.default.svc.cluster.local|http {v1}")), "{told:?}");
        ensure!(told == endpoints(mesh)?, "{told:#?} and {:#?}", endpoints(mesh)?);

        let (status, one) = ask("/v1/registration/echo.default.svc.cluster.local%7Chttp")?;
        ensure!(status == 200 && one["hosts"].as_array().is_some_and(|hosts| hosts.len() == 2), "{one}");
        let (status, why) = ask("/v1/registration/nobody.default.svc.cluster.local|http")?;
        ensure!(status == 404 && why.as_str().is_some_and(|why| why.contains("/v1/registration")), "{why}");

        mesh.delete_pod("echo-v1")?;
        mesh.wait_applied()?;
        let told = hosts(&ask("/v1/registration")?.1)?;
        ensure!(!told.iter().any(|line| line.ends_with(&v1.to_string())), "{told:?}");
        Ok(())
    });
}
