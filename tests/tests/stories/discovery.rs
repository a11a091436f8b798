//! What counts as an endpoint, and what mesh-wide settings do.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weft_tests::{Mesh, story};

use crate::deploy;

fn slice(name: &str, service: &str, endpoints: &[(String, bool)]) -> String {
    let mut yaml = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}\n  namespace: default\n  \
         labels: {{kubernetes.io/service-name: {service}}}\naddressType: IPv4\n\
         ports:\n- {{name: http, port: 8080, protocol: TCP}}\nendpoints:\n"
    );
    for (address, ready) in endpoints {
        writeln!(yaml, "- addresses: [{address}]\n  conditions: {{ready: {ready}}}").ok();
    }
    yaml
}

fn versions(mesh: &Mesh, url: &str) -> Result<Vec<String>> {
    Ok(mesh.many("client", url, 40, 1)?.none_failed()?.versions.keys().cloned().collect())
}

#[test]
fn endpoints_come_from_slices_where_there_are_any() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let v1 = mesh.the("echo-v1")?.ip.to_string();
        let v2 = mesh.the("echo-v2")?.ip.to_string();
        ensure!(versions(mesh, "http://echo/")? == ["v1", "v2"]);
        mesh.apply_now("slice", &slice("echo-1", "echo", &[(v1.clone(), true)]))?;
        ensure!(versions(mesh, "http://echo/")? == ["v1"], "the slice does not hold");
        mesh.apply_now("slice2", &slice("echo-2", "echo", &[(v2.clone(), true)]))?;
        ensure!(versions(mesh, "http://echo/")? == ["v1", "v2"], "two slices of one service");
        mesh.apply_now("slice", &slice("echo-1", "echo", &[(v1, false)]))?;
        ensure!(versions(mesh, "http://echo/")? == ["v2"], "one that is not ready was asked");
        mesh.delete("slice")?;
        mesh.delete("slice2")?;
        mesh.wait_applied()?;
        ensure!(versions(mesh, "http://echo/")? == ["v1", "v2"], "back to the selector");
        Ok(())
    });
}

#[test]
fn a_pod_that_is_not_ready_gets_nothing() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let file = mesh.pod_file("echo-v1");
        let ready = std::fs::read_to_string(&file)?;
        let not_ready =
            ready.replace("status:\n", "status:\n  conditions: [{type: Ready, status: 'False'}]\n");
        std::fs::write(&file, not_ready)?;
        mesh.wait_applied()?;
        ensure!(versions(mesh, "http://echo/")? == ["v2"]);
        std::fs::write(&file, ready)?;
        mesh.wait_applied()?;
        ensure!(versions(mesh, "http://echo/")? == ["v1", "v2"]);
        Ok(())
    });
}

#[test]
fn an_endpoint_that_nobody_has_costs_no_more_than_the_connect_timeout() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let nobody = format!("10.244.{}.250", mesh.world().index());
        mesh.apply("slice", &slice("echo-1", "echo", &[(nobody, true)]))?;
        let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: quick, namespace: default}\n\
                    spec:\n  host: echo\n  trafficPolicy: {connectionPool: {tcp: {connectTimeout: 200ms}}}\n";
        mesh.apply_now("quick", rule)?;
        deploy::route(mesh, "- retries: {attempts: 0}\n  route: [{destination: {host: echo}}]\n")?;
        let start = Instant::now();
        let answer = mesh.get("client", "http://echo/")?;
        let took = start.elapsed();
        ensure!(answer.status == 503, "{answer:?}");
        ensure!(took < Duration::from_secs(2), "after {took:?}");
        Ok(())
    });
}

#[test]
fn headless_services_are_reached_by_pod_address() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let service = "apiVersion: v1\nkind: Service\nmetadata: {name: headless, namespace: default}\n\
                       spec:\n  clusterIP: None\n  selector: {app: echo}\n  ports: [{name: http, port: 8080}]\n";
        let rules = deploy::virtual_service(
            "headless",
            "http",
            "- route: [{destination: {host: echo, subset: v2, port: {number: 80}}}]\n",
        );
        mesh.apply_now("headless", &format!("{service}---\n{rules}"))?;
        let pod = mesh.the("echo-v1")?.at(8080);
        let answer =
            mesh.http("client", &format!("http://{pod}/"))?.header("Host", "headless:8080").send()?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    });
}

#[test]
fn mesh_wide_settings_hold() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let outside = std::net::TcpListener::bind((mesh.world().gateway(), 0))?;
        let address = outside.local_addr()?;
        let config = |mesh_config: &str| {
            format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n    {mesh_config}\n"
            )
        };
        // Known to nobody, and so refused: for HTTP in words, for TCP by the end of the connection.
        mesh.apply_now("mesh", &config("outboundTrafficPolicy: {mode: REGISTRY_ONLY}"))?;
        let answer = mesh.http("client", &format!("http://{}/", mesh.service_at("echo", 80)?))?;
        let answer = answer.header("Host", "unknown.example").send()?;
        ensure!(answer.status == 502, "{answer:?}");
        let outcome = mesh.http("client", &format!("http://{address}/"))?.flag("--max-time").flag("5").send();
        ensure!(outcome.as_ref().is_ok_and(|answer| answer.status == 502) || outcome.is_err(), "{outcome:?}");
        ensure!(outside.set_nonblocking(true).is_ok() && outside.accept().is_err(), "it was reached");
        ensure!(mesh.get("client", "http://echo/")?.status == 200, "a known service is refused");

        mesh.apply_now(
            "mesh",
            &config("defaultHttpRetryPolicy: {attempts: 4, retryOn: '5xx', backoff: 5ms}"),
        )?;
        // Each of the two pods fails twice: the fifth try is the first that cannot.
        ensure!(mesh.get("client", "http://echo/fail/mesh/2")?.status == 200, "not retried");
        mesh.delete("mesh")?;
        mesh.wait_applied()?;
        ensure!(mesh.get("client", "http://echo/fail/none/9")?.status == 503);
        Ok(())
    });
}
