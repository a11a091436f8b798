//! Traffic from outside comes in by gateway pods, whose own program serves nothing.

use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::Arc;

use anyhow::{Result, ensure};
use weft_tests::{Listener, Mesh, Pod, story};

use crate::deploy::{got_header, subsets};
use crate::server_names::hello;

const GATEWAY: &str = "\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: shop, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ['*.shop.test']
";

fn rules(http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: shop, namespace: default}}\nspec:\n  \
         hosts: ['www.shop.test']\n  gateways: [shop]\n  http:\n{http}"
    )
}

/// An application in two versions, a gateway pod in a namespace without a label, and somebody outside the mesh.
fn shop(mesh: &Mesh) -> Result<()> {
    mesh.namespace("ingress", false)?;
    for version in ["v1", "v2"] {
        let pod = mesh.pod(&format!("app-{version}")).label("app", "app").label("version", version);
        pod.app(["echo", "--port", "8080"]).start()?;
    }
    mesh.service("app").selector("app", "app").port("http", 9000, 8080).create()?;
    mesh.pod("gateway").namespace("ingress").label("istio", "ingressgateway").start()?;
    mesh.pod("client").label("app", "client").start()?;
    mesh.service("ingress")
        .namespace("ingress")
        .selector("istio", "ingressgateway")
        .port("http2", 80, 8080)
        .create()?;
    mesh.outsider("stranger")?;
    mesh.apply("subsets", &subsets("app"))?;
    mesh.apply("gateway", GATEWAY)?;
    mesh.apply(
        "rules",
        &rules(
            "  - {match: [{uri: {prefix: /api/}}], rewrite: {uri: /}, route: [{destination: {host: app, subset: v2}}]}\n\
             \u{20} - {route: [{destination: {host: app, subset: v1}}]}\n",
        ),
    )?;
    mesh.start_agent()?;
    mesh.wait_applied()
}

#[test]
fn a_gateway_routes_by_host_and_path() {
    story(|mesh| {
        shop(mesh)?;
        let url = format!("http://{}", mesh.the("gateway")?.at(8080));
        let ask = |path: &str, host: &str| {
            mesh.http("stranger", &format!("{url}{path}"))?.header("host", host).send()
        };

        let answer = ask("/", "www.shop.test")?;
        ensure!(answer.status == 200 && answer.app() == "app-v1", "{answer:?}");
        let answer = ask("/api/items", "www.shop.test")?;
        ensure!(answer.app() == "app-v2" && answer.json()?["path"] == "/items", "{answer:?}");
        let stranger = mesh.the("stranger")?.ip.to_string();
        let told = got_header(&answer.json()?, "x-forwarded-for");
        ensure!(told.as_deref() == Some(&stranger), "{told:?} for {stranger}");
        let told = mesh
            .http("stranger", &url)?
            .header("host", "www.shop.test")
            .header("x-forwarded-for", "1.2.3.4")
            .send()?;
        let told = got_header(&told.json()?, "x-forwarded-for");
        ensure!(told == Some(format!("1.2.3.4,{stranger}")), "{told:?}");
        // A host that no VirtualService serves, and one that the Gateway does not.
        for host in ["other.shop.test", "www.other.test"] {
            ensure!(ask("/", host)?.status == 404, "{host}");
        }
        // From inside the mesh it is called as from outside.
        let inside = mesh.http("client", &format!("{url}/api/x"))?.header("host", "www.shop.test").send()?;
        ensure!(inside.status == 200 && inside.app() == "app-v2", "{inside:?}");

        // And what it does is told without a request.
        let told = mesh.explain("gateway.ingress", "http://www.shop.test/api/items", &[])?;
        ensure!(told["matched"]["virtualService"] == "default/shop" && told["action"] == "route", "{told:#}");
        ensure!(told["matched"]["route"] == "http[0]", "{told:#}");
        let v2 = mesh.the("app-v2")?.at(8080).to_string();
        ensure!(told["backends"][0]["endpoints"] == serde_json::json!([v2]), "{told:#}");
        let told = mesh.explain("gateway.ingress", "http://www.other.test/", &[])?;
        ensure!(told["action"] == "notFound", "{told:#}");

        // The change holds for the next request on the same connection's port.
        mesh.apply_now("rules", &rules("  - {route: [{destination: {host: app, subset: v2}}]}\n"))?;
        ensure!(ask("/", "www.shop.test")?.app() == "app-v2");
        mesh.delete("gateway")?;
        mesh.wait_applied()?;
        ensure!(ask("/", "www.shop.test")?.status == 503, "the pod's own program serves nothing");
        Ok(())
    });
}

#[test]
fn a_gateways_own_policies_decide_before_its_routes() {
    story(|mesh| {
        shop(mesh)?;
        mesh.apply_now(
            "policy",
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: no-api, namespace: ingress}\nspec:\n  \
             selector: {matchLabels: {istio: ingressgateway}}\n  action: DENY\n  rules: [{to: [{operation: {paths: ['/api*']}}]}]\n",
        )?;
        let url = format!("http://{}", mesh.the("gateway")?.at(8080));
        let ask = |path: &str| {
            mesh.http("stranger", &format!("{url}{path}"))?.header("host", "www.shop.test").send()
        };
        ensure!(ask("/")?.status == 200);
        // The path as it was sent, not as the route rewrites it.
        let denied = ask("/api/items")?;
        ensure!(denied.status == 403 && denied.body == "RBAC: access denied", "{denied:?}");
        Ok(())
    });
}

/// Servers for bytes and for TLS that goes through, and rules of the same names.
const CONNECTIONS: &str = "\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: through, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 3306, name: db, protocol: TCP}, hosts: ['*']}
  - {port: {number: 443, name: tls, protocol: TLS}, hosts: ['*.shop.test'], tls: {mode: PASSTHROUGH}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: through, namespace: default}
spec:
  hosts: ['*.shop.test']
  gateways: [through]
  tcp:
  - {match: [{port: 3306}], route: [{destination: {host: db}}]}
  tls:
  - {match: [{sniHosts: [one.shop.test]}], route: [{destination: {host: one}}]}
  - {match: [{sniHosts: ['*.shop.test']}], route: [{destination: {host: two}}]}
";

#[test]
fn bytes_and_tls_come_in_by_a_gateway_as_they_are() {
    story(|mesh| {
        let gateway = mesh.pod("gateway").node("n1").label("istio", "ingressgateway").start()?;
        let served = [("db", "n1"), ("one", "n1"), ("two", "n2")];
        let pods: Vec<Arc<Pod>> = served
            .map(|(name, node)| mesh.pod(name).node(node).label("app", name).start())
            .into_iter()
            .collect::<Result<_>>()?;
        for (name, _) in served {
            mesh.service(name).selector("app", name).port("tcp", 9000, 7000).create()?;
        }
        mesh.start_agents(&["n1", "n2"])?;
        mesh.wait_applied()?;
        let listeners: Vec<Listener> = pods.iter().map(|pod| pod.listen(7000)).collect::<Result<_>>()?;
        mesh.apply_now("through", CONNECTIONS)?;
        let stranger = mesh.outsider("stranger")?;
        let passes = |port: u16, said: &[u8], to: usize| {
            let mut here = stranger.connect(gateway.at(port))?;
            here.write_all(said)?;
            let (mut there, peer) = listeners[to].accept()?;
            ensure!(peer.ip() == gateway.ip, "{port}: the server sees {peer}, and not the gateway");
            let mut got = vec![0; said.len()];
            there.read_exact(&mut got)?;
            ensure!(got == said, "{port}: what was said has changed on its way");
            there.write_all(b"and so on")?;
            let mut answer = [0; 9];
            here.read_exact(&mut answer)?;
            ensure!(&answer == b"and so on");
            Ok((here, there))
        };
        let is_reset = |port: u16, said: &[u8]| {
            // It may be reset before it is seen to stand.
            let ended = stranger.connect(gateway.at(port)).and_then(|mut here| {
                here.write_all(said)?;
                Ok(here.read(&mut [0])?)
            });
            let ended = ended.err().and_then(|error| error.downcast_ref().map(std::io::Error::kind));
            let resets = [Some(ErrorKind::ConnectionReset), Some(ErrorKind::BrokenPipe)];
            ensure!(resets.contains(&ended), "{port}: what is for nobody is not reset: {ended:?}");
            anyhow::Ok(())
        };
        let standing = passes(3306, b"select 1", 0)?;
        passes(443, &hello("one.shop.test")?, 1)?;
        passes(443, &hello("other.shop.test")?, 2)?;
        for nobodys in [hello("shop.test")?, hello("one.elsewhere.test")?, b"GET / HTTP/1.1\r\n\r\n".to_vec()]
        {
            is_reset(443, &nobodys)?;
        }
        mesh.is_logged(" one.shop.test -")?;
        let rows = mesh.weft(&["get", "gateways"])?.stdout;
        for told in ["443", "TLS", "*.shop.test,one.shop.test", "3306", "TCP", "default/through"] {
            ensure!(rows.contains(told), "{told}: {rows}");
        }
        let told = mesh.explain("gateway", "one.shop.test:443", &[])?;
        ensure!(told["matched"]["route"] == "tls[0]" && told["action"] == "route", "{told:#}");
        let told = mesh.explain("gateway", "www.elsewhere.test:443", &[])?;
        ensure!(told["action"] == "notFound" && told.to_string().contains("no `tls` rule"), "{told:#}");
        let told = mesh.explain("gateway", "db.shop.test:3306", &[])?;
        ensure!(told["matched"]["route"] == "tcp[0]", "{told:#}");

        // The gateway pod's own policies are asked, and mutual TLS is not asked for.
        mesh.apply_now(
            "policies",
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: edge, namespace: default}\nspec:\n  \
             selector: {matchLabels: {istio: ingressgateway}}\n  action: DENY\n  rules:\n  \
             - {when: [{key: connection.sni, values: [one.shop.test]}]}\n  - {to: [{operation: {ports: ['3306']}}]}\n---\n\
             apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: strict, namespace: default}\nspec: {mtls: {mode: STRICT}}\n",
        )?;
        is_reset(443, &hello("one.shop.test")?)?;
        is_reset(3306, b"select 1")?;
        passes(443, &hello("other.shop.test")?, 2)?;
        let (mut here, there) = standing;
        let ended = here.read(&mut [0]).map_err(|error| error.kind());
        ensure!(matches!(ended, Ok(0) | Err(ErrorKind::ConnectionReset)), "what stands goes on: {ended:?}");
        drop(there);
        listeners.iter().try_for_each(Listener::nobody)
    });
}
