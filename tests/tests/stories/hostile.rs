//! What nobody should send or write, and somebody does: the rest of the mesh must not notice.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::{Mesh, eventually, story};

use crate::deploy::{self, http_rules};

fn refused(mesh: &Mesh) -> Result<Vec<Value>> {
    let status = mesh.with_agent(|agent| agent.status())?;
    Ok(status["refused"].as_array().cloned().unwrap_or_default())
}

fn to(version: &str) -> String {
    http_rules(&format!("- route: [{{destination: {{host: echo, subset: {version}}}}}]\n"))
}

fn all_go_to(mesh: &Mesh, version: &str) -> Result<()> {
    let report = mesh.many("client", "http://echo/", 30, 2)?;
    ensure!(report.none_failed()?.versions.keys().eq([version]), "not {version}: {:?}", report.versions);
    Ok(())
}

#[test]
fn broken_manifests_keep_the_last_good_version_and_are_reported() {
    story(|mesh| {
        deploy::echo(mesh)?;
        mesh.apply_now("rules", &to("v2"))?;
        all_go_to(mesh, "v2")?;
        let good = to("v1");
        let half = &good[..good.len() - 25];
        let cases = [
            ("no YAML at all", "{{{ : - ]\n".to_owned()),
            ("half written", half.to_owned()),
            ("an unknown field", good.replace("route:", "rout:")),
            ("a wrong type", good.replace("hosts: [echo]", "hosts: 7")),
            (
                "a regex that cannot be",
                good.replace("- route:", "- match: [{uri: {regex: '(?=x)'}}]\n    route:"),
            ),
            ("a tab", good.replace("  hosts", "\thosts")),
            ("not UTF-8", String::new()),
            ("deeply nested", format!("a: {}", "[".repeat(100_000))),
            ("an alias bomb", bomb()),
        ];
        for (name, text) in cases {
            if name == "not UTF-8" {
                std::fs::write(mesh.manifests().join("rules.yaml"), b"kind: \xff\xfe\n")?;
            } else {
                mesh.apply("rules", &text)?;
            }
            mesh.wait_applied().with_context(|| name.to_owned())?;
            all_go_to(mesh, "v2").with_context(|| name.to_owned())?;
            let findings = refused(mesh)?;
            ensure!(!findings.is_empty(), "{name}: not reported");
            let finding = &findings[0];
            ensure!(finding["message"].as_str().is_some_and(|m| !m.is_empty()), "{name}: {finding}");
            ensure!(finding["file"].as_str().is_some_and(|f| f.ends_with("rules.yaml")), "{name}: {finding}");
        }
        mesh.apply_now("rules", &good)?;
        all_go_to(mesh, "v1")?;
        ensure!(refused(mesh)?.is_empty(), "{:?}", refused(mesh)?);
        Ok(())
    });
}

/// Nine levels of ten aliases each: a billion entries, if somebody expands them.
fn bomb() -> String {
    let mut text = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, before) in
        ["b", "c", "d", "e", "f", "g", "h", "i"].into_iter().zip(["a", "b", "c", "d", "e", "f", "g", "h"])
    {
        let list = vec![format!("*{before}"); 10].join(", ");
        writeln!(text, "{name}: &{name} [{list}]").ok();
    }
    text
}

#[test]
fn one_bad_object_among_good_ones_is_refused_alone() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let bad = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: bad, namespace: default}\n\
                   spec:\n  hosts: [bad]\n  http:\n  - timeout: 5\n    route: [{destination: {host: bad}}]\n";
        let unknown = "apiVersion: example.com/v1\nkind: Whatever\nmetadata: {name: x}\nspec: {a: 1}\n";
        mesh.apply_now("rules", &format!("{bad}---\n{unknown}---\n{}", to("v2")))?;
        all_go_to(mesh, "v2")?;
        let findings = refused(mesh)?;
        ensure!(
            findings.len() == 1 && findings[0]["resource"] == "VirtualService/default/bad",
            "{findings:?}"
        );
        Ok(())
    });
}

#[test]
fn files_may_be_huge_vanish_or_be_written_in_pieces() {
    story(|mesh| {
        deploy::echo(mesh)?;
        mesh.apply_now("rules", &to("v2"))?;
        // Ten megabytes, in the way of nobody.
        let rule = "  - match: [{headers: {x: {exact: 'some long value that matches nothing'}}}]\n    route: [{destination: {host: echo, subset: v1}}]\n";
        let many = rule.repeat((10 << 20) / rule.len());
        let huge = format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: huge, namespace: default}}\nspec:\n  hosts: [huge]\n  http:\n{many}"
        );
        let start = Instant::now();
        mesh.apply("huge", &huge)?;
        let load = mesh.load("client", &["http://echo/", "-c", "4"])?;
        mesh.wait_applied()?;
        println!("10 MiB read after {:?}", start.elapsed());
        load.finish()?.none_failed()?;
        all_go_to(mesh, "v2")?;
        mesh.delete("huge")?;
        mesh.wait_applied()?;

        // An editor that is slow: pieces in place, and the reader looks in between.
        let path = mesh.manifests().join("rules.yaml");
        let text = to("v1");
        let mut file = std::fs::File::create(&path)?;
        for piece in text.as_bytes().chunks(20) {
            file.write_all(piece)?;
            file.sync_data()?;
        }
        drop(file);
        mesh.wait_applied()?;
        all_go_to(mesh, "v1")?;

        // Files that come and go as fast as they can, dot-files, folders, links that lead nowhere.
        for round in 0..50 {
            mesh.apply(
                "flicker",
                &to("v1")
                    .replace("name: echo", &format!("name: flicker-{round}"))
                    .replace("[echo]", "[flicker]"),
            )?;
            mesh.delete("flicker")?;
        }
        std::fs::write(mesh.manifests().join(".draft.yaml"), "{{{")?;
        std::fs::create_dir_all(mesh.manifests().join("folder.yaml/deeper"))?;
        std::os::unix::fs::symlink("/nonexistent", mesh.manifests().join("dangling.yaml"))?;
        std::fs::write(
            mesh.manifests().join("folder.yaml/deeper/rules2.yaml"),
            to("v2").replace("name: echo", "name: deep").replace("[echo]", "[echo-raw]"),
        )?;
        mesh.wait_applied()?;
        all_go_to(mesh, "v1")?;
        ensure!(mesh.get("client", "http://echo-raw/")?.status == 200);
        Ok(())
    });
}

#[test]
fn hostile_bytes_in_requests_are_answered_with_400_or_a_close() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let client = mesh.the("client")?;
        let address = mesh.service_at("echo", 80)?;
        let long = "a".repeat(1 << 20);
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("no HTTP", b"\x00\x01\x02\x03\r\n\r\n".to_vec()),
            ("a NUL in a header", b"GET / HTTP/1.1\r\nHost: echo\r\nX: a\x00b\r\n\r\n".to_vec()),
            ("a bare CR in a header", b"GET / HTTP/1.1\r\nHost: echo\r\nX: a\rb: c\r\n\r\n".to_vec()),
            ("a blank before the colon", b"GET / HTTP/1.1\r\nHost : echo\r\n\r\n".to_vec()),
            ("two lengths", b"POST /sink HTTP/1.1\r\nHost: echo\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!".to_vec()),
            ("a negative length", b"POST /sink HTTP/1.1\r\nHost: echo\r\nContent-Length: -1\r\n\r\n".to_vec()),
            ("a chunk without a size", b"POST /sink HTTP/1.1\r\nHost: echo\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n".to_vec()),
            ("an endless header", format!("GET / HTTP/1.1\r\nHost: echo\r\nX: {long}\r\n\r\n").into_bytes()),
            ("an endless path", format!("GET /{long} HTTP/1.1\r\nHost: echo\r\n\r\n").into_bytes()),
            ("many headers", format!("GET / HTTP/1.1\r\nHost: echo\r\n{}\r\n", "X: y\r\n".repeat(5000)).into_bytes()),
            ("no host", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
            ("a broken h2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec()),
        ];
        for (name, bytes) in cases {
            let mut stream = client.connect(address)?;
            // It may be refused before all of it is written.
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut text = Vec::new();
            let _ = stream.read_to_end(&mut text);
            let text = String::from_utf8_lossy(&text);
            ensure!(!text.starts_with("HTTP/1.1 200"), "{name}: {}", &text[..text.len().min(300)]);
            ensure!(mesh.get("client", "http://echo/")?.status == 200, "after {name}");
        }
        // Both a length and chunks: one of the two rules, and never a second request smuggled in.
        let mut stream = client.connect(address)?;
        stream.write_all(
            b"POST /sink HTTP/1.1\r\nHost: echo\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
              0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: echo\r\n\r\n",
        )?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        let answers = String::from_utf8_lossy(&text).matches("HTTP/1.1 ").count();
        let smuggled =
            deploy::hits(mesh, "echo-v1", "/smuggled")? + deploy::hits(mesh, "echo-v2", "/smuggled")?;
        ensure!(smuggled as usize <= answers.saturating_sub(1), "a request without an answer of its own");
        Ok(())
    });
}

#[test]
fn five_thousand_idle_connections_and_a_slow_one_cost_little() {
    const IDLE: usize = 5000;
    story(|mesh| {
        deploy::echo_pods(mesh)?;
        // A quarter of the agent's descriptors would not do where a process may have 20,000.
        mesh.start_agent_with("node-a", &["--limit-pod", "50"])?;
        mesh.wait_applied()?;
        raise_file_limit()?;
        mesh.many("client", "http://echo/", 500, 8)?.none_failed()?;
        let client = mesh.the("client")?;
        let address = mesh.service_at("echo", 80)?;
        let before = mesh.with_agent(|agent| agent.rss_bytes())?;
        // A second pod's ports as well: they are what a flood runs out of.
        let start = Instant::now();
        let idle = client.enter(|| -> Result<Vec<TcpStream>> {
            (0..IDLE).map(|_| Ok(TcpStream::connect_timeout(&address, Duration::from_secs(10))?)).collect()
        })??;
        println!("{IDLE} connections in {:?}", start.elapsed());
        // One byte a time, and never an end.
        let mut slow = client.connect(address)?;
        slow.write_all(b"GET /slow HTTP/1.1\r\nHost: ec")?;
        let report = mesh.many("client", "http://echo/", 1000, 8)?;
        report.none_failed()?;
        let grown = mesh.with_agent(|agent| agent.rss_bytes())?.saturating_sub(before);
        println!(
            "{IDLE} idle connections: the agent grew by {} KiB, p99 {:.2} ms",
            grown / 1024,
            report.p99_ms
        );
        ensure!(grown < 160 << 20, "the agent grew by {grown} bytes, {} for each", grown / IDLE as u64);
        slow.write_all(b"ho\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        slow.read_to_string(&mut text)?;
        ensure!(text.starts_with("HTTP/1.1 200"), "{text}");
        drop(idle);
        eventually("they are closed", Duration::from_secs(20), || {
            let open: u64 = mesh.with_agent(|agent| agent.status())?["workers"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|worker| worker["connections"].as_u64())
                .sum();
            ensure!(open < 100, "{open} are open");
            Ok(())
        })
    });
}

fn raise_file_limit() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

#[test]
fn one_namespaces_bad_rules_do_not_touch_another() {
    story(|mesh| {
        deploy::echo(mesh)?;
        mesh.namespace("evil", true)?;
        mesh.apply_now("rules", &to("v2"))?;
        // Another namespace's rules for this one's host, kept to itself or aimed at all.
        let theirs = to("v1")
            .replace("namespace: default", "namespace: evil")
            .replace("[echo]", "[echo.default.svc.cluster.local]");
        mesh.apply_now("theirs", &theirs.replace("  http:", "  exportTo: ['.']\n  http:"))?;
        all_go_to(mesh, "v2")?;
        mesh.delete("theirs")?;
        mesh.wait_applied()?;
        all_go_to(mesh, "v2")
    });
}
