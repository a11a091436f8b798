//! AuthorizationPolicies with action CUSTOM: somebody else is asked, over HTTP and gRPC.

use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_tests::{Mesh, story};

use crate::deploy::got_header;
use crate::request_authorization::{echo_and_callers, for_echo, from_outside};
use crate::tunnel::is_reset;

/// [`echo_and_callers`], with an authorizer in another namespace, and providers `http`, `whole` (wants bodies to their end),
/// `grpc`, `open` (nobody there, lets pass) and `shut` (nobody there, 503).
fn world(mesh: &Mesh) -> Result<()> {
    mesh.namespace("auth", true)?;
    let authz = mesh.pod("authz").namespace("auth").label("app", "authz");
    authz.app(["authz", "--port", "9000"]).start()?;
    let service = mesh.service("authz").namespace("auth").selector("app", "authz");
    service.port("http", 8000, 9000).port("grpc", 9000, 9000).port("http-nobody", 7000, 7000).create()?;
    mesh.apply(
        "mesh-config",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n\
         \u{20}   extensionProviders:\n\
         \u{20}   - name: http\n\
         \u{20}     envoyExtAuthzHttp:\n\
         \u{20}       service: authz.auth.svc.cluster.local\n\
         \u{20}       port: 8000\n\
         \u{20}       pathPrefix: /check\n\
         \u{20}       includeRequestHeadersInCheck: [x-ext-authz]\n\
         \u{20}       includeAdditionalHeadersInCheck: {x-from: weft}\n\
         \u{20}       includeRequestBodyInCheck: {maxRequestBytes: 8, allowPartialMessage: true}\n\
         \u{20}       headersToUpstreamOnAllow: [x-ext-authz-*]\n\
         \u{20}       headersToDownstreamOnDeny: [x-ext-authz-check-result]\n\
         \u{20}   - name: whole\n\
         \u{20}     envoyExtAuthzHttp:\n\
         \u{20}       service: authz.auth.svc.cluster.local\n\
         \u{20}       port: 8000\n\
         \u{20}       includeRequestHeadersInCheck: [x-ext-authz]\n\
         \u{20}       includeRequestBodyInCheck: {maxRequestBytes: 8}\n\
         \u{20}       headersToUpstreamOnAllow: [x-ext-authz-*]\n\
         \u{20}   - name: grpc\n\
         \u{20}     envoyExtAuthzGrpc: {service: auth/authz.auth.svc.cluster.local, port: 9000, timeout: 5s}\n\
         \u{20}   - name: open\n\
         \u{20}     envoyExtAuthzHttp: {service: authz.auth.svc.cluster.local, port: 7000, failOpen: true}\n\
         \u{20}   - name: shut\n\
         \u{20}     envoyExtAuthzGrpc: {service: authz.auth.svc.cluster.local, port: 7000, statusOnError: '503'}\n",
    )?;
    echo_and_callers(mesh)
}

/// Asks this provider about everything below `/custom`.
fn custom(mesh: &Mesh, provider: &str) -> Result<()> {
    let spec = format!(
        "action: CUSTOM\nprovider: {{name: {provider}}}\nrules: [{{to: [{{operation: {{paths: [/custom*]}}}}]}}]"
    );
    mesh.apply_now("policy", &for_echo("AuthorizationPolicy", "custom", &spec))
}

fn asked(mesh: &Mesh) -> Result<u64> {
    let (status, body) = weft_tests::get(mesh.the("authz")?.at(9000), "/asked")?;
    ensure!(status == 200, "{status} {body}");
    serde_json::from_str::<Value>(&body)?["asked"].as_u64().context("no count")
}

#[test]
fn somebody_else_decides_over_http() {
    story(|mesh| {
        world(mesh)?;
        custom(mesh, "http")?;
        let ways = |path: &str| -> Result<_> {
            Ok([mesh.http("client", &format!("http://echo{path}"))?, from_outside(mesh, path)?])
        };
        for request in ways("/free")? {
            ensure!(request.send()?.status == 200);
        }
        ensure!(asked(mesh)? == 0, "what no rule names is nobody's business");
        for request in ways("/custom?a=b")? {
            let allowed = request.clone().method("POST").body("0123456789");
            let allowed = allowed.header("x-ext-authz", "allow").header("cookie", "secret").send()?;
            ensure!(allowed.status == 200, "{allowed:?}");
            let seen = allowed.json()?;
            ensure!(seen["body"] == "0123456789", "{seen}");
            ensure!(got_header(&seen, "x-ext-authz-check-result").as_deref() == Some("allowed"), "{seen}");
            let received = got_header(&seen, "x-ext-authz-check-received").unwrap_or_default();
            ensure!(received.starts_with("/check/custom ") && received.contains("x-from"), "{received}");
            ensure!(!received.contains("cookie"), "{received}");
            let denied = request.send()?;
            ensure!(denied.status == 403 && denied.body.starts_with("denied by ext_authz"), "{denied:?}");
            ensure!(denied.header("x-ext-authz-check-result") == Some("denied"), "{denied:?}");
            ensure!(denied.header("x-ext-authz-check-received").is_none(), "{denied:?}");
        }
        ensure!(asked(mesh)? == 4);
        Ok(())
    });
}

#[test]
fn somebody_else_decides_over_grpc() {
    story(|mesh| {
        world(mesh)?;
        custom(mesh, "grpc")?;
        let inside = || mesh.http("client", "http://echo/custom");
        let allowed = inside()?.header("x-ext-authz", "allow").header("x-secret", "1").send()?;
        ensure!(allowed.status == 200, "{allowed:?}");
        let seen = allowed.json()?;
        let caller = got_header(&seen, "x-ext-authz-caller");
        ensure!(caller.as_deref() == Some("spiffe://cluster.local/ns/default/sa/client"), "{seen}");
        ensure!(got_header(&seen, "x-secret").is_none(), "{seen}");
        let denied = inside()?.header("x-ext-authz", "302").send()?;
        ensure!(
            denied.status == 302 && denied.header("x-ext-authz-check-result") == Some("denied"),
            "{denied:?}"
        );
        let outside = from_outside(mesh, "/custom")?.header("x-ext-authz", "allow").send()?;
        ensure!(got_header(&outside.json()?, "x-ext-authz-caller").as_deref() == Some(""), "{outside:?}");
        ensure!(from_outside(mesh, "/custom")?.send()?.status == 403);
        Ok(())
    });
}

#[test]
fn nobody_there_means_what_the_provider_says_and_policies_still_hold() {
    story(|mesh| {
        world(mesh)?;
        let ask = || -> Result<(u16, u16)> {
            let inside = mesh.get("client", "http://echo/custom")?.status;
            Ok((inside, from_outside(mesh, "/custom")?.send()?.status))
        };
        custom(mesh, "open")?;
        ensure!(ask()? == (200, 200), "{:?}", ask()?);
        custom(mesh, "shut")?;
        ensure!(ask()? == (503, 503), "{:?}", ask()?);
        custom(mesh, "unknown")?;
        ensure!(ask()? == (403, 403), "{:?}", ask()?);
        custom(mesh, "open")?;
        let deny = "action: DENY\nrules: [{to: [{operation: {methods: [GET]}}]}]";
        mesh.apply_now("deny", &for_echo("AuthorizationPolicy", "deny", deny))?;
        ensure!(ask()? == (403, 403), "{:?}", ask()?);
        Ok(())
    });
}

/// A gateway pod that sends everything to `echo`, and a copy of it to a pod `copy`; a policy of its own asks this provider.
fn gateway(mesh: &Mesh, provider: &str) -> Result<()> {
    mesh.namespace("ingress", false)?;
    mesh.pod("gateway").namespace("ingress").label("istio", "ingressgateway").start()?;
    mesh.pod("copy").label("app", "copy").start()?;
    mesh.service("copy").selector("app", "copy").port("http", 80, 8080).create()?;
    mesh.apply(
        "gateway",
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: edge, namespace: default}\nspec:\n  \
         selector: {istio: ingressgateway}\n  servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ['*']}]\n\
         ---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: edge, namespace: default}\nspec:\n  \
         hosts: ['*']\n  gateways: [edge]\n  http:\n  - mirror: {host: copy}\n    route: [{destination: {host: echo}}]\n",
    )?;
    ask_at_gateway(mesh, provider)
}

fn ask_at_gateway(mesh: &Mesh, provider: &str) -> Result<()> {
    mesh.apply_now(
        "gateway-policy",
        &format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: ask, namespace: ingress}}\n\
             spec:\n  selector: {{matchLabels: {{istio: ingressgateway}}}}\n  action: CUSTOM\n  provider: {{name: {provider}}}\n\
             \u{20} rules: [{{}}]\n"
        ),
    )
}

/// Reads what comes on a connection until this is among it.
fn arrives(mut stream: std::net::TcpStream, what: &str) -> Result<()> {
    let mut read = String::new();
    while !read.contains(what) {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).with_context(|| format!("after {read:?}"))?;
        ensure!(count > 0, "it ended after {read:?}");
        read.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
    Ok(())
}

#[test]
fn at_a_gateway_somebody_else_sees_the_body_and_it_still_arrives() {
    story(|mesh| {
        world(mesh)?;
        gateway(mesh, "http")?;
        let copies = mesh.the("copy")?.listen(8080)?;
        let url = format!("http://{}/items", mesh.the("gateway")?.at(8080));
        let post = |body: &str| -> Result<_> {
            let request = mesh.http("stranger", &url)?.method("POST").body(body);
            Ok(request.header("x-ext-authz", "allow"))
        };
        for request in [post("0123456789")?, post("0123456789")?.header("expect", "100-continue")] {
            let allowed = request.send()?;
            ensure!(allowed.status == 200, "{allowed:?}");
            let seen = allowed.json()?;
            ensure!(got_header(&seen, "x-ext-authz-body").as_deref() == Some("01234567"), "{seen}");
            ensure!(seen["body"] == "0123456789", "{seen}");
            arrives(copies.accept()?.0, "0123456789").context("the copy")?;
        }
        let long = "0123456789".repeat(10_000);
        let allowed = post(&long)?.send()?;
        ensure!(allowed.status == 200 && allowed.json()?["body"] == *long, "{} bytes", allowed.body.len());
        // Over HTTP/2, too, and without a body.
        let allowed = post("0123456789")?.h2().send()?;
        ensure!(allowed.json()?["body"] == "0123456789", "{allowed:?}");
        let seen = mesh.http("stranger", &url)?.header("x-ext-authz", "allow").send()?.json()?;
        ensure!(got_header(&seen, "x-ext-authz-body").as_deref() == Some(""), "{seen}");

        let denied = mesh.http("stranger", &url)?.method("POST").body("0123456789").send()?;
        ensure!(denied.status == 403 && denied.body.starts_with("denied by ext_authz"), "{denied:?}");

        ask_at_gateway(mesh, "whole")?;
        let whole = post("01234567")?.send()?;
        ensure!(got_header(&whole.json()?, "x-ext-authz-body").as_deref() == Some("01234567"), "{whole:?}");
        let too_long = post("012345678")?.send()?;
        ensure!(too_long.status == 413, "{too_long:?}");
        Ok(())
    });
}

/// Whether a caller's bytes come back.
fn echoes(mesh: &Mesh, from: &str) -> Result<bool> {
    let mut stream = mesh.the(from)?.connect(mesh.service_at("bytes", 7000)?)?;
    let mut back = [0; 4];
    Ok(stream.write_all(b"ping").is_ok() && stream.read_exact(&mut back).is_ok() && &back == b"ping")
}

#[test]
fn bytes_are_asked_about_by_who_sends_them() {
    story(|mesh| {
        world(mesh)?;
        mesh.pod("allowed").service_account("allowed").start()?;
        mesh.pod("bytes").label("app", "bytes").app(["tcp-echo", "--port", "7000"]).start()?;
        mesh.service("bytes").selector("app", "bytes").port("tcp", 7000, 7000).create()?;
        mesh.wait_applied()?;
        ensure!(echoes(mesh, "client")? && echoes(mesh, "allowed")?, "without a policy");
        mesh.apply_now(
            "bytes-policy",
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {name: bytes, namespace: default}\n\
             spec:\n  selector: {matchLabels: {app: bytes}}\n  action: CUSTOM\n  provider: {name: grpc}\n\
             \u{20} rules: [{to: [{operation: {ports: ['7000']}}]}]\n",
        )?;
        let client = mesh.the("client")?;
        is_reset(&client, mesh.service_at("bytes", 7000)?).context("nobody has let it in")?;
        ensure!(echoes(mesh, "allowed")?, "the provider lets it in");
        Ok(())
    });
}
