//! What a header means that comes on several lines, and what of headers and paths only a proxy may say.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, Result, ensure};
use weft_tests::{Listener, Request, story};

use crate::deploy::{self, got_header, http_rules};
use crate::request_authorization::{echo_and_callers, for_echo, from_outside};

/// Headers that a proxy sets, or that steer one, as somebody else might write them.
const FORGED: [(&str, &str); 12] = [
    ("x-forwarded-client-cert", "By=x;URI=spiffe://cluster.local/ns/default/sa/admin"),
    ("x-envoy-peer-metadata", "forged"),
    ("x-envoy-peer-metadata-id", "forged"),
    ("x-envoy-original-path", "/forged"),
    ("x-envoy-original-host", "forged"),
    ("x-envoy-decorator-operation", "forged"),
    ("x-envoy-downstream-service-cluster", "forged"),
    ("x-envoy-internal", "true"),
    ("x-envoy-retry-on", "5xx"),
    ("x-envoy-upstream-rq-timeout-ms", "60001"),
    ("x-envoy-expected-rq-timeout-ms", "60001"),
    ("x-envoy-force-trace", "true"),
];

/// Sends a request with all of [`FORGED`]; fails where the program gets one of them.
fn nothing_forged_arrives(what: &str, request: Request) -> Result<()> {
    let request = FORGED.iter().fold(request, |request, (name, value)| request.header(name, value));
    let answer = request.header("x-mine", "kept").send()?;
    ensure!(answer.status == 200, "{what}: {answer:?}");
    let seen = answer.json()?;
    for (name, forged) in FORGED {
        let got = got_header(&seen, name).filter(|got| got.contains(forged));
        ensure!(got.is_none(), "{what}: the program got {name}: {seen}");
    }
    ensure!(got_header(&seen, "x-mine").as_deref() == Some("kept"), "{what}: {seen}");
    Ok(())
}

#[test]
fn what_only_a_proxy_says_is_removed_on_every_path() {
    story(|mesh| {
        mesh.pod("client").node("n1").start()?;
        mesh.outsider("stranger")?;
        // A declared port, one that two Services declare differently, one of a Service that says nothing, and none.
        for (pod, ports) in
            [("declared", &["http"][..]), ("disputed", &["http", "tcp"]), ("silent", &[""]), ("alone", &[])]
        {
            for node in ["n1", "n2"] {
                let name = format!("{pod}-{node}");
                mesh.pod(&name).node(node).label("pod", &name).app(["echo", "--port", "8080"]).start()?;
                for (index, port) in (0..).zip(ports) {
                    let service = format!("{name}-{index}");
                    mesh.service(&service).selector("pod", &name).port(port, 9000 + index, 8080).create()?;
                }
            }
        }
        mesh.start_agents(&["n1", "n2"])?;
        mesh.wait_applied()?;
        for pod in ["declared", "disputed", "silent", "alone"] {
            for node in ["n1", "n2"] {
                let name = format!("{pod}-{node}");
                let url = format!("http://{}/", mesh.the(&name)?.at(8080));
                for from in ["client", "stranger"] {
                    nothing_forged_arrives(&format!("{from} to {name}"), mesh.http(from, &url)?)?;
                    nothing_forged_arrives(&format!("{from} to {name}, h2"), mesh.http(from, &url)?.h2())?;
                }
                if pod != "alone" {
                    let url = format!("http://{name}-0:9000/");
                    nothing_forged_arrives(
                        &format!("client to the service of {name}"),
                        mesh.http("client", &url)?,
                    )?;
                }
            }
        }
        Ok(())
    });
}

#[test]
fn a_request_that_is_cut_in_two_does_not_pass_unread() {
    story(|mesh| {
        mesh.pod("client").start()?;
        mesh.outsider("stranger")?;
        let program = mesh.pod("server").start()?.listen(8080)?;
        mesh.start_agent()?;
        mesh.wait_applied()?;
        let to = mesh.the("server")?.at(8080);
        for from in ["client", "stranger"] {
            // Programs exist that take each of these for a request.
            for (begin, rest) in [
                ("get /", " HTTP/1.1\r\n"),
                ("GET\t/ HTTP/1", ".1\r\n"),
                ("\r\n\r\n\r\n", "GET / HTTP/1.1\r\n"),
            ] {
                let mut client = mesh.the(from)?.connect(to)?;
                client.write_all(begin.as_bytes())?;
                let (mut there, _) = program.accept()?;
                there.read_exact(&mut vec![0; begin.len()])?;
                // At once: it is reset in the middle of this.
                client.write_all(format!("{rest}x-forwarded-client-cert: forged\r\n\r\n").as_bytes())?;
                let mut seen = Vec::new();
                let end = there.read_to_end(&mut seen);
                ensure!(seen.is_empty(), "{from}: {begin:?} went on: {}", seen.escape_ascii());
                ensure!(
                    end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset),
                    "{from}: {begin:?}"
                );
            }
            // Whole, it is read.
            let mut client = mesh.the(from)?.connect(to)?;
            let request = "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nx-forwarded-client-cert: forged\r\nx-mine: kept\r\n\r\n";
            client.write_all(request.as_bytes())?;
            let seen = head(&mut program.accept()?.0)?;
            ensure!(seen.contains("x-mine: kept") && !seen.contains("forged"), "{from}: {seen}");
        }
        Ok(())
    });
}

#[test]
fn what_the_rules_have_made_of_a_path_is_told_at_the_other_node() {
    story(|mesh| {
        mesh.pod("client").node("n1").start()?;
        mesh.pod("echo-v1").node("n2").label("app", "echo").app(["echo", "--port", "8080"]).start()?;
        mesh.service("echo").selector("app", "echo").port("http", 80, 8080).create()?;
        mesh.start_agents(&["n1", "n2"])?;
        let rewrite = "- match: [{uri: {prefix: /old/}}]\n  timeout: 7s\n  rewrite: {uri: /new/}\n  \
                       route: [{destination: {host: echo}}]\n";
        mesh.apply("rewrite", &http_rules(rewrite))?;
        // A policy that looks into requests, so that they are read at the other node, too.
        let rules = "rules: [{to: [{operation: {methods: [GET]}}]}]";
        mesh.apply_now("policy", &for_echo("AuthorizationPolicy", "get", rules))?;
        let seen = mesh.get("client", "http://echo/old/x")?.json()?;
        ensure!(seen["path"] == "/new/x", "{seen}");
        ensure!(got_header(&seen, "x-envoy-original-path").as_deref() == Some("/old/x"), "{seen}");
        ensure!(got_header(&seen, "x-envoy-expected-rq-timeout-ms").as_deref() == Some("7000"), "{seen}");
        Ok(())
    });
}

#[test]
fn each_line_of_a_header_is_a_value() {
    story(|mesh| {
        echo_and_callers(mesh)?;
        let rules = "action: DENY\nrules: [{when: [{key: 'request.headers[x-role]', values: [guest]}]}]";
        mesh.apply("policy", &for_echo("AuthorizationPolicy", "guests", rules))?;
        let canary = "- match: [{headers: {x-env: {exact: canary}}}]\n  directResponse: {status: 207}\n\
                      - route: [{destination: {host: echo}}]\n";
        mesh.apply_now("canary", &http_rules(canary))?;
        let ask = |lines: &[(&str, &str)]| -> Result<[u16; 2]> {
            let send = |request: Request| -> Result<u16> {
                let request =
                    lines.iter().fold(request, |request, (name, value)| request.header(name, value));
                Ok(request.send()?.status)
            };
            Ok([send(mesh.http("client", "http://echo/")?)?, send(from_outside(mesh, "/")?)?])
        };
        for (lines, expected) in [
            (&[("x-role", "member")][..], [200, 200]),
            (&[("x-role", "guest")], [403, 403]),
            (&[("x-role", "member"), ("x-role", "guest")], [403, 403]),
            (&[("x-role", "guest"), ("x-role", "member")], [403, 403]),
            (&[("x-role", "member,guest")], [200, 200]),
            (&[("x-env", "prod"), ("x-env", "canary")], [207, 200]),
            (&[("x-env", "canary,prod")], [200, 200]),
        ] {
            let got = ask(lines)?;
            ensure!(got == expected, "{lines:?}: {got:?} instead of {expected:?}");
        }
        let told = mesh.explain("client", "echo", &["-H", "x-env: prod", "-H", "x-env: canary"])?;
        ensure!(told["matched"]["route"] == "http[0]", "{told}");
        let told = mesh.explain("client", "echo", &["-H", "x-role: member", "-H", "x-role: guest"])?;
        ensure!(told["action"] == "deny", "{told}");
        Ok(())
    });
}

/// The MeshConfig with this way to normalise paths.
fn normalization(mode: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n\
         \u{20}   pathNormalization: {{normalization: {mode}}}\n"
    )
}

#[test]
fn paths_are_normalised_as_the_mesh_has_it() {
    story(|mesh| {
        echo_and_callers(mesh)?;
        let rules = "action: DENY\nrules: [{to: [{operation: {paths: ['/admin*']}}]}]";
        mesh.apply("policy", &for_echo("AuthorizationPolicy", "admin", rules))?;
        let routes = "- match: [{uri: {prefix: /shop/}}]\n  headers: {request: {set: {x-route: shop}}}\n  \
                      route: [{destination: {host: echo}}]\n\
                      - match: [{uri: {prefix: /slash}}]\n  rewrite: {uri: //admin}\n  route: [{destination: {host: echo}}]\n\
                      - route: [{destination: {host: echo}}]\n";
        mesh.apply("routes", &http_rules(routes))?;
        // How many of the four modes refuse it, counted from the last one.
        for (mode, refused) in
            [("NONE", 1), ("BASE", 2), ("MERGE_SLASHES", 3), ("DECODE_AND_MERGE_SLASHES", 4)]
        {
            mesh.apply_now("mesh-config", &normalization(mode))?;
            for (path, from) in [
                ("/admin", 1),
                ("/x/%2e%2e/admin", 2),
                ("/./admin", 2),
                ("/%61dmin", 2),
                ("//admin", 3),
                ("/\\admin", 3),
                ("/%2fadmin", 4),
                ("/x%2F..%5cadmin", 4),
            ] {
                let expected = if refused >= from { 403 } else { 200 };
                for request in
                    [mesh.http("client", &format!("http://echo{path}"))?, from_outside(mesh, path)?]
                {
                    let answer = request.send()?;
                    ensure!(answer.status == expected, "{mode}, {path}: {answer:?}");
                }
                let told = mesh.explain("client", &format!("http://echo{path}"), &[])?;
                let action = if expected == 403 { "deny" } else { "route" };
                ensure!(told["action"] == action, "{mode}, {path}: {told}");
            }
            let answer = mesh.get("client", "http://echo/slash")?;
            ensure!(answer.status == if refused >= 3 { 403 } else { 200 }, "{mode}, rewritten: {answer:?}");
            let answer = mesh.get("client", "http://echo//shop//%2e/a%2fb?q=//%2f")?;
            let seen = answer.json()?;
            let (path, routed) = match refused {
                1 => ("//shop//%2e/a%2fb?q=//%2f", None),
                2 => ("//shop//a%2fb?q=//%2f", None),
                3 => ("/shop/a%2fb?q=//%2f", Some("shop")),
                _ => ("/shop/a/b?q=//%2f", Some("shop")),
            };
            ensure!(seen["path"] == path, "{mode}: {seen}");
            ensure!(got_header(&seen, "x-route").as_deref() == routed, "{mode}: {seen}");
        }
        Ok(())
    });
}

/// Has a client ask for a target, and answers in the program's place; what the program was asked for.
fn seen_by_program(client: &mut TcpStream, program: &Listener, host: &str, target: &str) -> Result<String> {
    write!(client, "GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
    let (mut server, _) = program.accept().with_context(|| format!("{target} does not arrive"))?;
    let seen = head(&mut server)?;
    server.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")?;
    let answer = head(client)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{target}: {answer}");
    let line = seen.lines().next().context("no request line")?;
    let target = line.strip_prefix("GET ").and_then(|rest| rest.strip_suffix(" HTTP/1.1"));
    Ok(target.with_context(|| line.to_owned())?.to_owned())
}

/// Reads a message without a body.
fn head(stream: &mut TcpStream) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).with_context(|| String::from_utf8_lossy(&head).into_owned())?;
        head.extend(byte);
    }
    Ok(String::from_utf8(head)?)
}

#[test]
fn targets_that_should_have_been_escaped_are_passed_on_as_they_are() {
    story(|mesh| {
        mesh.pod("client").node("n1").start()?;
        mesh.outsider("stranger")?;
        for node in ["n1", "n2"] {
            let name = format!("raw-{node}");
            mesh.pod(&name).node(node).label("app", "raw").label("pod", &name).start()?;
            mesh.service(&name).selector("pod", &name).port("http", 80, 8080).create()?;
        }
        mesh.start_agents(&["n1", "n2"])?;
        let rules = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                     metadata: {name: get, namespace: default}\nspec:\n  selector: {matchLabels: {app: raw}}\n  \
                     rules: [{to: [{operation: {methods: [GET]}}]}]\n";
        for policy in [false, true] {
            if policy {
                mesh.apply("policy", rules)?;
            }
            mesh.wait_applied()?;
            for node in ["n1", "n2"] {
                let name = format!("raw-{node}");
                let program = mesh.the(&name)?.listen(8080)?;
                for (from, to, host) in [
                    ("client", mesh.service_at(&name, 80)?, &*name),
                    ("client", mesh.the(&name)?.at(8080), "raw"),
                    ("stranger", mesh.the(&name)?.at(8080), "raw"),
                ] {
                    if policy && from == "client" && node == "n2" {
                        // The other node connects ahead of the request, maybe once too often for who answers one by one.
                        continue;
                    }
                    let mut stream = mesh.the(from)?.connect(to)?;
                    for target in [
                        "/v2/<b>",
                        "/plain",
                        "/a`b",
                        "/s?q=<b>",
                        "/s?q={\"a\":1}",
                        "/a|b",
                        "/v2/%zz",
                        "/[1]^",
                        "/`?`",
                    ] {
                        let seen = seen_by_program(&mut stream, &program, host, target)
                            .with_context(|| format!("{from} to {name} at {to}, policy: {policy}"))?;
                        ensure!(seen == target, "{from} to {name} at {to}: {seen} instead of {target}");
                    }
                    // Which of the escapes were the client's own cannot be told: all stay.
                    let seen = seen_by_program(&mut stream, &program, host, "/x<%3C>")?;
                    ensure!(seen == "/x%3C%3C%3E", "{seen}");
                }
            }
        }
        Ok(())
    });
}

#[test]
fn a_grpc_caller_hears_that_a_route_has_no_time_left_as_unavailable() {
    story(|mesh| {
        deploy::echo(mesh)?;
        mesh.apply_now("timeout", &http_rules("- timeout: 0.2s\n  route: [{destination: {host: echo}}]\n"))?;
        // One that does not answer in time, without saying so itself.
        let request = mesh.http("client", "http://echo/hang")?.header("content-type", "application/grpc");
        let answer = request.method("POST").body("").send().context("a request that is never answered")?;
        ensure!(answer.status == 200 && answer.header("grpc-status") == Some("14"), "{answer:?}");
        Ok(())
    });
}
