//! What a person can see: metrics, access log, tap, status, explain, get, analyze.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::{Mesh, eventually, scenarios, story};

use crate::deploy;

#[test]
fn metrics_count_requests_as_istio_does() {
    story(|mesh| {
        deploy::echo(mesh)?;
        deploy::route(mesh, "- route: [{destination: {host: echo, subset: v2}}]\n")?;
        for _ in 0..5 {
            mesh.get("client", "http://echo/ok")?;
        }
        mesh.get("client", "http://echo/status/503")?;
        let metrics = mesh.metrics()?;
        let labels = [
            ("reporter", "source"),
            ("source_workload_namespace", "default"),
            ("destination_service", "echo.default.svc.cluster.local"),
            ("destination_service_name", "echo"),
            ("destination_service_namespace", "default"),
            ("destination_version", "v2"),
            ("destination_app", "echo"),
            ("source_app", "client"),
            ("request_protocol", "http"),
            ("response_flags", "-"),
        ];
        let with_code = |code| [&labels[..], &[("response_code", code)]].concat();
        for (code, expected) in [("200", 5), ("503", 1)] {
            let sum = metrics.count("istio_requests_total", &with_code(code));
            ensure!(
                sum == expected,
                "{code}: {sum}, in {:#?}",
                metrics.matching("istio_requests_total", &[]).collect::<Vec<_>>()
            );
        }
        let durations = metrics.count("istio_request_duration_milliseconds_count", &labels);
        ensure!(durations == 6, "{durations} durations");
        Ok(())
    });
}

#[test]
fn metrics_count_tcp_connections_and_their_bytes() {
    story(|mesh| {
        use std::io::{Read, Write};
        deploy::echo_pods(mesh)?;
        mesh.pod("store").label("app", "store").app(["tcp-echo", "--port", "7000"]).start()?;
        mesh.service("store").selector("app", "store").port("tcp", 70, 7000).create()?;
        mesh.start_agent()?;
        mesh.wait_applied()?;
        let mut stream = mesh.the("client")?.connect(mesh.service_at("store", 70)?)?;
        stream.write_all(&[1; 1000])?;
        stream.read_exact(&mut [0; 1000])?;
        drop(stream);
        let labels =
            [("destination_service_name", "store"), ("reporter", "source"), ("request_protocol", "tcp")];
        eventually("counted", Duration::from_secs(5), || {
            let metrics = mesh.metrics()?;
            for (name, expected) in [
                ("istio_tcp_connections_opened_total", 1),
                ("istio_tcp_connections_closed_total", 1),
                ("istio_tcp_sent_bytes_total", 1000),
                ("istio_tcp_received_bytes_total", 1000),
            ] {
                let sum = metrics.count(name, &labels);
                ensure!(sum == expected, "{name}: {sum}");
            }
            Ok(())
        })
    });
}

#[test]
fn the_access_log_has_istios_format() {
    story(|mesh| {
        deploy::echo(mesh)?;
        deploy::route(
            mesh,
            "- match: [{uri: {exact: /gone}}]\n  name: gone-route\n  directResponse: {status: 410}\n\
             - match: [{uri: {prefix: /}}]\n  route: [{destination: {host: echo, subset: v1}}]\n",
        )?;
        let request = mesh.http("client", "http://echo/logged?q=1")?.header("x-request-id", "id-1");
        request.header("user-agent", "tester/1.0").send()?;
        mesh.get("client", "http://echo/gone")?;
        mesh.get("client", "http://echo-raw/status/404")?;
        let line = eventually("logged", Duration::from_secs(5), || {
            mesh.access_log()?.into_iter().find(|line| line.contains("/logged")).context("no line")
        })?;
        println!("{line}");
        let client = mesh.the("client")?.ip;
        // [time] "GET /logged?q=1 HTTP/1.1" 200 - via_upstream - "-" 0 N ms ms "-" "tester/1.0" "id-1" "echo" "pod:8080" …
        ensure!(
            line.starts_with('[')
                && line.contains("] \"GET /logged?q=1 HTTP/1.1\" 200 - via_upstream - \"-\" 0 "),
            "{line}"
        );
        ensure!(line.contains("\"-\" \"tester/1.0\" \"id-1\" \"echo\" "), "{line}");
        ensure!(line.contains(&format!("\"{}\"", mesh.the("echo-v1")?.at(8080))), "{line}");
        ensure!(line.contains("outbound|80|v1|echo.default.svc.cluster.local"), "{line}");
        ensure!(line.contains(&format!(" {client}:")), "the client's address is not there: {line}");
        let gone = eventually("logged", Duration::from_secs(5), || {
            mesh.access_log()?.into_iter().find(|line| line.contains("/gone")).context("no line")
        })?;
        ensure!(gone.contains("\" 410 - direct_response") && gone.contains("gone-route"), "{gone}");
        Ok(())
    });
}

#[test]
fn the_access_log_names_what_went_wrong() {
    story(|mesh| {
        deploy::echo(mesh)?;
        deploy::route(
            mesh,
            "- match: [{uri: {exact: /nosubset}}]\n  route: [{destination: {host: echo, subset: v9}}]\n\
             - match: [{uri: {prefix: /sleep}}]\n  timeout: 100ms\n  route: [{destination: {host: echo}}]\n\
             - match: [{uri: {exact: /fault}}]\n  fault: {abort: {httpStatus: 500, percentage: {value: 100}}}\n  route: [{destination: {host: echo}}]\n",
        )?;
        mesh.service("nobody").selector("app", "nobody").port("http", 80, 7000).create()?;
        mesh.wait_applied()?;
        let cases = [
            ("http://echo/noroute", "404 NR route_not_found"),
            ("http://echo/nosubset", "503 NC cluster_not_found"),
            ("http://echo/sleep/3000", "504 UT response_timeout"),
            ("http://echo/fault", "500 FI fault_filter_abort"),
            ("http://nobody/nohost", "503 UH no_healthy_upstream"),
        ];
        for (url, expected) in cases {
            let path = url.splitn(4, '/').nth(3).unwrap_or_default();
            mesh.get("client", url)?;
            let line = eventually("logged", Duration::from_secs(5), || {
                mesh.access_log()?
                    .into_iter()
                    .find(|line| line.contains(&format!("/{path} ")))
                    .context("no line")
            })?;
            ensure!(line.contains(expected), "{expected} expected: {line}");
        }
        Ok(())
    });
}

#[test]
fn tap_shows_requests_as_they_happen_and_only_those_asked_for() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let words = ["tap", "--to", "service/echo", "--status", "5xx", "--path", "/status", "-o", "json"];
        let mut command = mesh.with_agent(|agent| agent.weft_command(&words))?;
        let mut tap = command.stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(tap.stdout.take().context("no output")?).lines();
        // A tap sees what comes after it has begun; when that was, only its first line tells.
        let done = AtomicBool::new(false);
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for url in [
                        "http://echo/status/200",
                        "http://echo/other",
                        "http://echo-raw/status/503",
                        "http://echo/status/503",
                    ] {
                        mesh.get("client", url).ok();
                    }
                }
            });
            let events: Result<Vec<Value>> =
                (0..3).map(|_| Ok(serde_json::from_str(&lines.next().context("no more")??)?)).collect();
            done.store(true, Ordering::Relaxed);
            events
        });
        tap.kill()?;
        tap.wait()?;
        for event in outcome? {
            ensure!(
                event["type"] == "http" && event["status"] == 503 && event["path"] == "/status/503",
                "{event}"
            );
            ensure!(event["destination"]["service"] == "echo.default.svc.cluster.local", "{event}");
            ensure!(event["source"]["pod"] == "client", "{event}");
        }
        Ok(())
    });
}

#[test]
fn explain_says_what_the_wire_does() {
    story(|mesh| {
        deploy::echo(mesh)?;
        deploy::route(
            mesh,
            "- name: testers\n  match: [{headers: {end-user: {exact: jason}}}, {uri: {prefix: /beta}}]\n  timeout: 3s\n  \
             route: [{destination: {host: echo, subset: v2}}]\n\
             - match: [{uri: {exact: /moved}}]\n  redirect: {uri: /new}\n\
             - match: [{method: {exact: DELETE}}]\n  route: [{destination: {host: echo, subset: v9}}]\n\
             - match: [{uri: {prefix: /app}}]\n  route: [{destination: {host: echo, subset: v1}}]\n",
        )?;
        let cases: [(&[&str], &str, &str, &str); 6] = [
            (&["--path", "/app"], "GET", "/app", ""),
            (&["--path", "/app", "-H", "end-user: jason"], "GET", "/app", "jason"),
            (&["--path", "/beta/x"], "GET", "/beta/x", ""),
            (&["--path", "/moved"], "GET", "/moved", ""),
            (&["--path", "/app", "--method", "DELETE"], "DELETE", "/app", ""),
            (&["--path", "/none"], "GET", "/none", ""),
        ];
        for (flags, method, path, user) in cases {
            let told = mesh.explain("pod/client", "echo", flags)?;
            let mut request = mesh.http("client", &format!("http://echo{path}"))?.method(method);
            if !user.is_empty() {
                request = request.header("end-user", user);
            }
            let answer = request.send()?;
            let action = told["action"].as_str().unwrap_or_default();
            let agrees = match answer.status {
                200 => action == "route" && told["backends"][0]["subset"] == answer.version(),
                301 => action.starts_with("redirect"),
                404 => action == "notFound",
                503 => {
                    action == "unavailable"
                        || told["backends"][0]["endpoints"].as_array().is_some_and(Vec::is_empty)
                }
                _ => false,
            };
            ensure!(
                agrees,
                "{flags:?}: the wire says {} {}, explain {told:#}",
                answer.status,
                answer.version()
            );
        }
        let told = mesh.explain("pod/client", "echo", &["--path", "/beta"])?;
        ensure!(
            told["matched"]["virtualService"] == "default/echo" && told["matched"]["route"] == "testers",
            "{told}"
        );
        ensure!(told["timeout"] == "3s", "{told}");
        let human = mesh.weft(&["explain", "pod/client", "echo", "--path", "/beta"])?.good()?;
        ensure!(human.contains("testers") && human.contains("v2"), "{human}");
        Ok(())
    });
}

#[test]
fn get_lists_routes_endpoints_and_workloads() {
    story(|mesh| {
        deploy::echo(mesh)?;
        deploy::route(
            mesh,
            "- name: canary\n  route: [{destination: {host: echo, subset: v1}, weight: 90}, {destination: {host: echo, subset: v2}, weight: 10}]\n",
        )?;
        let list = |what: &str| -> Result<Vec<Value>> {
            let list = mesh.weft(&["get", what, "-o", "json"])?.json()?;
            list.as_array().cloned().with_context(|| format!("{what} is no list: {list}"))
        };
        let routes = list("routes")?;
        ensure!(
            routes.iter().any(|row| row["virtualService"] == "echo" && row["name"] == "canary"),
            "{routes:#?}"
        );
        let endpoints = list("endpoints")?;
        let echo = endpoints.iter().filter(|row| row["service"] == "echo.default.svc.cluster.local").count();
        ensure!(echo == 2, "{endpoints:#?}");
        let workloads = list("workloads")?;
        let client = workloads.iter().find(|row| row["name"] == "client").context("no client")?;
        ensure!(client["enrolled"] == true, "{client}");
        ensure!(client["identity"] == "spiffe://cluster.local/ns/default/sa/default", "{client}");
        for what in ["routes", "endpoints", "workloads"] {
            let table = mesh.weft(&["get", what])?.good()?;
            ensure!(table.lines().count() > 1 && !table.contains('\x1b'), "{what}:\n{table}");
        }
        Ok(())
    });
}

#[test]
fn status_tells_of_fields_that_have_no_effect_yet() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: limits, namespace: default}\n\
                    spec:\n  host: echo\n  trafficPolicy:\n    outlierDetection: {consecutive5xxErrors: 3}\n";
        mesh.apply_now("limits", rule)?;
        let status = mesh.with_agent(|agent| agent.status())?;
        let told = status["notInForce"].to_string();
        ensure!(told.contains("outlierDetection") && told.contains("limits"), "{status:#}");
        ensure!(status["ready"] == true && status["node"] == "node-a", "{status:#}");
        let human = mesh.weft(&["status"])?;
        ensure!(human.stdout.contains("outlierDetection"), "{}", human.stdout);
        Ok(())
    });
}

#[test]
fn status_tells_of_objects_and_annotations_that_have_no_effect() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let ranges = "traffic.sidecar.istio.io/excludeOutboundIPRanges";
        mesh.pod("steered").annotation(ranges, "10.0.0.0/8").start()?;
        mesh.pod("apart").annotation("sidecar.istio.io/inject", "false").start()?;
        let object = |group: &str, kind: &str, spec: &str| {
            format!(
                "apiVersion: {group}/v1\nkind: {kind}\nmetadata: {{name: vain, namespace: default}}\nspec: {spec}\n---\n"
            )
        };
        let objects = [
            object("networking.istio.io", "ServiceEntry", "{hosts: [a.example.com]}"),
            object("networking.istio.io", "Sidecar", "{egress: [{hosts: ['./*']}]}"),
            object("telemetry.istio.io", "Telemetry", "{accessLogging: [{disabled: true}]}"),
        ];
        mesh.apply_now("vain", &objects.concat())?;
        let told = mesh.weft(&["status"])?.good()?;
        for kind in ["ServiceEntry", "Sidecar", "Telemetry"] {
            ensure!(told.contains(&format!("{kind}/default/vain")), "{kind} is not named:\n{told}");
        }
        ensure!(told.contains("Pod/default/steered") && told.contains(ranges), "{told}");
        let row = told.lines().find(|line| line.contains(" apart ")).context("no row")?;
        ensure!(row.contains("its annotation sidecar.istio.io/inject=false opts out"), "{row}");
        let other = mesh.weft(&["status", "--namespace", "elsewhere"])?.good()?;
        ensure!(!other.contains("vain") && !other.contains("steered"), "{other}");
        Ok(())
    });
}

#[test]
fn a_manifest_writes_no_line_of_the_agents_log_and_turns_no_text_around() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let forged = "2026-11-30T00:00:00.000000Z  INFO weft: all is well";
        let kind = format!("Odd\\e[2J\\r\\n{forged}\\u202E");
        mesh.apply_now(
            "odd",
            &format!(
                "apiVersion: example.com/v1\nkind: \"{kind}\"\nmetadata: {{name: a}}\n---\n\
                 apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: \"gn\\u202Eop\\e[31m\"}}\nspec: {{}}\n"
            ),
        )?;
        let log = mesh.with_agent(|agent| Ok(agent.errors()))?;
        ensure!(log.contains("has no use for this kind"), "{log}");
        ensure!(!log.lines().any(|line| line.starts_with(forged)), "a line was forged:\n{log}");
        let status = mesh.weft(&["status"])?.good()?;
        let file = mesh.manifests().join("odd.yaml");
        let analyzed = mesh.weft_alone(&["analyze", &file.to_string_lossy()])?.stdout;
        for (what, text) in [("log", &log), ("status", &status), ("analyze", &analyzed)] {
            let odd = text.chars().find(|c| *c != '\n' && (c.is_control() || *c == '\u{202e}'));
            ensure!(odd.is_none() && text.contains("\\u{202e}"), "{what}: {odd:?} in\n{text:?}");
        }
        Ok(())
    });
}

#[test]
fn analyze_offline_has_findings_lines_and_exit_codes() -> Result<()> {
    let analyze = |fixtures: &[&str], flags: &[&str]| -> Result<weft_tests::Output> {
        let paths: Vec<_> = fixtures.iter().map(|name| scenarios::fixture_path(name)).collect();
        let mut command = std::process::Command::new(weft_tests::built_binary("weft")?);
        weft_tests::Output::of(command.args(["analyze", "--offline"]).args(flags).args(paths))
    };
    let good = analyze(&["analyze/good"], &[])?;
    ensure!(good.code == 0, "{good:?}");
    let bad = analyze(&["analyze/bad"], &["-o", "json"])?;
    let findings = bad.json()?;
    let findings = findings.as_array().context("no list")?;
    ensure!(bad.code == 1 && findings.len() >= 3, "{bad:?}");
    for (path, line) in [("wieght", 11), ("timeout", 8), ("regex", 21)] {
        let found = findings.iter().find(|finding| {
            let words = format!("{} {}", finding["path"], finding["message"]);
            words.contains(path)
        });
        let found = found.with_context(|| format!("nothing about {path}: {findings:#?}"))?;
        ensure!(found["severity"] == "error" && found["line"] == line, "{path}: {found}");
        ensure!(found["message"].as_str().is_some_and(|message| message.contains('(')), "no cure: {found}");
    }
    let old = analyze(&["analyze/old-kinds"], &[])?;
    ensure!(old.code == 1, "{old:?}");
    for successor in ["VirtualService", "DestinationRule", "ServiceEntry", "AuthorizationPolicy"] {
        ensure!(old.stdout.contains(successor), "{successor} is not named: {}", old.stdout);
    }
    for (misprint, line) in [("ftgo/misprint-match", ":1"), ("ftgo/misprint-destination", ":1")] {
        let output = analyze(&[misprint], &[])?;
        ensure!(output.code == 1 && output.stdout.contains("indent"), "{output:?}");
        ensure!(output.stdout.contains(line), "no line: {}", output.stdout);
    }
    let wrong = analyze(&["analyze/no-such-file"], &[])?;
    ensure!(wrong.code != 0, "{wrong:?}");
    Ok(())
}

#[test]
fn a_relay_passes_on_each_answer_as_it_comes() {
    story(|mesh| {
        mesh.start_agent()?;
        let mut relay = mesh.with_agent(|agent| agent.weft_command(&["relay"]))?;
        let mut relay = relay.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut ask = relay.stdin.take().context("no input")?;
        let mut answers = BufReader::new(relay.stdout.take().context("no output")?);
        // One that waits for more comes when the agent gives the connection up: there is no next one then.
        for number in 0..20 {
            ask.write_all(b"GET /v1/status HTTP/1.1\r\nhost: weft\r\n\r\n")?;
            let (mut length, mut line) = (0, String::new());
            while line != "\r\n" {
                line.clear();
                ensure!(answers.read_line(&mut line)? > 0, "the relay ended before answer {number}");
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.trim().parse()?;
                }
            }
            let mut body = vec![0; length];
            answers.read_exact(&mut body)?;
            ensure!(serde_json::from_slice::<Value>(&body)?["ready"] == true, "answer {number}");
        }
        drop(ask);
        relay.kill()?;
        relay.wait()?;
        Ok(())
    });
}

#[test]
fn commands_without_an_agent_say_so() -> Result<()> {
    let mesh = Mesh::new()?;
    let dir = mesh.world().dir().join("no-agent");
    let status = mesh.weft_alone(&["status", "--run-dir", &dir.to_string_lossy()])?;
    ensure!(status.code == 1 && !status.stderr.is_empty(), "{status:?}");
    let version = mesh.weft_alone(&["version"])?;
    ensure!(version.code == 0 && version.stdout.contains(env!("CARGO_PKG_VERSION")), "{version:?}");
    let usage = mesh.weft_alone(&["status", "--no-such-flag"])?;
    ensure!(usage.code == 2, "{usage:?}");
    Ok(())
}
