//! AuthorizationPolicies that look into requests: the same for callers of this node, and for plaintext from outside.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::{Answer, Mesh, Request, eventually, story};

use crate::deploy::{self, got_header};

/// For what happens beside a request: copies and log lines.
const PATIENCE: Duration = Duration::from_secs(5);

/// A security object of namespace `default` for the pods of `echo`.
pub fn for_echo(kind: &str, name: &str, spec: &str) -> String {
    let spec = spec.trim_matches('\n').replace('\n', "\n  ");
    format!(
        "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: default}}\n\
         spec:\n  selector: {{matchLabels: {{app: echo}}}}\n  {spec}\n"
    )
}

/// A pod `echo` behind a service of that name, callers `client` and `other` of their own service accounts, and a
/// `stranger` outside of the mesh; then the agent.
pub fn echo_and_callers(mesh: &Mesh) -> Result<()> {
    for caller in ["client", "other"] {
        mesh.pod(caller).service_account(caller).start()?;
    }
    mesh.outsider("stranger")?;
    mesh.pod("echo-v1").label("app", "echo").app(["echo", "--port", "8080"]).start()?;
    mesh.service("echo").selector("app", "echo").port("http", 80, 8080).create()?;
    mesh.service("echo-raw").selector("app", "echo").port("", 81, 8080).create()?;
    mesh.start_agent()?;
    mesh.wait_applied()
}

/// A request to the pod itself, from outside of the mesh.
pub fn from_outside(mesh: &Mesh, path: &str) -> Result<Request> {
    let echo = mesh.the("echo-v1")?.at(8080);
    mesh.http("stranger", &format!("http://{echo}{path}"))
}

fn is_denied(answer: &Answer) -> bool {
    answer.status == 403 && answer.body == "RBAC: access denied"
}

#[test]
fn requests_are_let_in_by_caller_method_and_path() {
    story(|mesh| {
        echo_and_callers(mesh)?;
        ensure!(mesh.get("other", "http://echo/")?.status == 200);
        ensure!(from_outside(mesh, "/")?.send()?.status == 200);
        let rules = "rules:\n\
             - from: [{source: {principals: [cluster.local/ns/default/sa/client]}}]\n\
             \u{20} to: [{operation: {methods: [GET], paths: [/items*]}}]\n\
             - to: [{operation: {paths: [/public]}}]\n";
        mesh.apply_now("policy", &for_echo("AuthorizationPolicy", "items", rules))?;
        let ask = |from: &str, path: &str| mesh.http(from, &format!("http://echo{path}"));
        for (request, allowed) in [
            (ask("client", "/items/1?a=b")?, true),
            (ask("client", "/items")?.method("DELETE"), false),
            (ask("client", "/other")?, false),
            (ask("client", "/x/../items")?, true),
            (ask("client", "/items/../admin")?, false),
            (ask("client", "/items/%2e%2e/admin")?, false),
            (ask("other", "/items/1")?, false),
            (ask("other", "/public")?, true),
            (from_outside(mesh, "/items/1")?, false),
            (from_outside(mesh, "/public")?, true),
            (from_outside(mesh, "/public")?.h2(), true),
            (from_outside(mesh, "/items")?.h2(), false),
            (mesh.http("client", "http://echo-raw:81/items/1")?, true),
            (mesh.http("other", "http://echo-raw:81/items/1")?, false),
        ] {
            let asked = format!("{request:?}");
            let answer = request.send()?;
            ensure!(if allowed { answer.status == 200 } else { is_denied(&answer) }, "{asked}: {answer:?}");
        }
        mesh.delete("policy")?;
        mesh.wait_applied()?;
        ensure!(from_outside(mesh, "/items/1")?.send()?.status == 200);
        Ok(())
    });
}

#[test]
fn a_denial_names_its_policy_in_the_log_and_tells_grpc_in_its_own_way() {
    story(|mesh| {
        echo_and_callers(mesh)?;
        let rules = "action: DENY\nrules: [{to: [{operation: {paths: [/secret]}}]}]";
        mesh.apply_now("policy", &for_echo("AuthorizationPolicy", "no-secrets", rules))?;
        for request in [mesh.http("client", "http://echo/secret")?, from_outside(mesh, "/secret")?] {
            let answer = request.header("content-type", "application/grpc").send()?;
            ensure!(answer.status == 200 && answer.header("grpc-status") == Some("7"), "{answer:?}");
            ensure!(answer.header("grpc-message") == Some("RBAC: access denied"), "{answer:?}");
        }
        let named = |lines: &[String]| {
            lines.iter().filter(|line| line.contains("policy[no-secrets]-rule[0]")).count()
        };
        eventually("the policy in the log", PATIENCE, || {
            let lines = mesh.access_log()?;
            ensure!(named(&lines) == 2, "{lines:?}");
            Ok(())
        })
    });
}

#[test]
fn nobody_claims_to_be_somebody_else() {
    story(|mesh| {
        echo_and_callers(mesh)?;
        let rules = "rules: [{to: [{operation: {methods: [GET]}}]}]";
        mesh.apply_now("policy", &for_echo("AuthorizationPolicy", "get", rules))?;
        let forged =
            "By=spiffe://cluster.local/ns/default/sa/default;URI=spiffe://cluster.local/ns/default/sa/admin";
        let inside =
            mesh.http("client", "http://echo/")?.header("x-forwarded-client-cert", forged).send()?.json()?;
        ensure!(
            got_header(&inside, "x-forwarded-client-cert").as_deref()
                == Some(
                    "By=spiffe://cluster.local/ns/default/sa/default;URI=spiffe://cluster.local/ns/default/sa/client"
                ),
            "{inside}"
        );
        let outside = from_outside(mesh, "/")?.header("x-forwarded-client-cert", forged).send()?.json()?;
        ensure!(got_header(&outside, "x-forwarded-client-cert").is_none(), "{outside}");
        Ok(())
    });
}

#[test]
fn what_is_let_in_keeps_its_form() {
    story(|mesh| {
        echo_and_callers(mesh)?;
        let rules = "rules: [{to: [{operation: {methods: [GET, POST, PUT]}}]}]";
        mesh.apply_now("policy", &for_echo("AuthorizationPolicy", "methods", rules))?;
        for (name, from) in
            [("stranger", mesh.the("echo-v1")?.at(8080).to_string()), ("client", "echo".to_owned())]
        {
            let ask = |path: &str| mesh.http(name, &format!("http://{from}{path}"));
            let body = ask("/sink")?.method("PUT").header("expect", "100-continue").body("abcdef").send()?;
            ensure!(body.json()?["bytes"] == 6, "{body:?}");
            let long = ask("/bytes/300000?chunked")?.send()?;
            ensure!(long.body.len() == 300_000, "{name}: {}", long.body.len());
            let grpc = ask("/")?.h2().header("content-type", "application/grpc").body("12345").send()?;
            ensure!(grpc.status == 200 && grpc.body.contains("12345"), "{grpc:?}");
        }
        for (from, to) in
            [("stranger", mesh.the("echo-v1")?.at(8080)), ("client", mesh.service_at("echo", 80)?)]
        {
            let mut stream = mesh.the(from)?.connect(to)?;
            write!(stream, "GET / HTTP/1.1\r\nHost: echo\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")?;
            let mut reader = BufReader::new(stream.try_clone()?);
            let mut line = String::new();
            reader.read_line(&mut line)?;
            ensure!(line.starts_with("HTTP/1.1 101"), "{from}: {line}");
            while line != "\r\n" {
                line.clear();
                ensure!(reader.read_line(&mut line)? > 0, "{from}: no end of headers");
            }
            stream.write_all(b"ping")?;
            let mut back = [0; 4];
            reader.read_exact(&mut back)?;
            ensure!(&back == b"ping", "{from}: {back:?}");
        }
        Ok(())
    });
}

#[test]
fn a_mirrored_copy_needs_leave_too() {
    story(|mesh| {
        echo_and_callers(mesh)?;
        mesh.pod("copy").label("app", "copy").app(["echo", "--port", "8080"]).start()?;
        mesh.service("copy").selector("app", "copy").port("http", 80, 8080).create()?;
        let rules = "rules: [{to: [{operation: {paths: [/open, /hits/*]}}]}]";
        mesh.apply("policy", &for_echo("AuthorizationPolicy", "no-copies", rules))?;
        mesh.apply_now(
            "rules",
            &deploy::virtual_service(
                "copy",
                "http",
                "- route: [{destination: {host: copy}}]\n  mirror: {host: echo}",
            ),
        )?;
        ensure!(mesh.get("client", "http://copy/closed")?.status == 200);
        ensure!(mesh.get("client", "http://copy/open")?.status == 200);
        eventually("the copy that may come", PATIENCE, || {
            ensure!(deploy::hits(mesh, "echo-v1", "/open")? == 1);
            Ok(())
        })?;
        ensure!(deploy::hits(mesh, "echo-v1", "/closed")? == 0, "a copy got in");
        Ok(())
    });
}
