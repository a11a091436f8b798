//! Traffic from outside comes in by gateway pods, whose own program serves nothing.

use anyhow::{Result, ensure};
use weft_tests::{Mesh, story};

use crate::deploy::{got_header, subsets};

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
