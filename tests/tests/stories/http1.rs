//! HTTP/1.1 on the wire: what is odd about it comes through as it is.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weft_tests::{Mesh, story};

use crate::deploy::{self, got_header, hits};

/// Sends bytes as they are and reads up to the end of the connection.
fn raw(mesh: &Mesh, address: SocketAddr, bytes: &str) -> Result<String> {
    let mut stream = mesh.the("client")?.connect(address)?;
    stream.write_all(bytes.as_bytes())?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Reads lines up to an empty one.
fn head(reader: &mut impl BufRead) -> Result<String> {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        ensure!(reader.read_line(&mut text)? > 0, "the connection ended: {text:?}");
    }
    Ok(text)
}

#[test]
fn headers_are_those_that_a_sidecar_sets() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let answer = mesh.http("client", "http://echo/headers?q=1")?.header("X-Mixed-Case", "Kept").send()?;
        let seen = answer.json()?;
        ensure!(
            seen["path"] == "/headers?q=1" && seen["host"] == "echo" && seen["method"] == "GET",
            "{seen}"
        );
        ensure!(got_header(&seen, "x-mixed-case").as_deref() == Some("Kept"));
        ensure!(got_header(&seen, "x-forwarded-proto").as_deref() == Some("http"), "{seen}");
        let id = got_header(&seen, "x-request-id").context("no x-request-id")?;
        ensure!(id.len() == 36 && id.split('-').count() == 5, "x-request-id {id} is no UUID");
        // One that is there already stays.
        let again = mesh.http("client", "http://echo/")?.header("x-request-id", "mine").send()?.json()?;
        ensure!(got_header(&again, "x-request-id").as_deref() == Some("mine"), "{again}");
        ensure!(answer.header("x-envoy-upstream-service-time").is_some(), "{answer:?}");
        for name in ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding"] {
            ensure!(got_header(&seen, name).is_none(), "{name} was passed on: {seen}");
        }
        Ok(())
    });
}

#[test]
fn expect_100_continue_and_other_informational_answers_pass() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let address = mesh.service_at("echo", 80)?;
        let stream = mesh.the("client")?.connect(address)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut writer = stream;
        writer.write_all(
            b"POST /sink HTTP/1.1\r\nHost: echo\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        )?;
        ensure!(head(&mut reader)?.starts_with("HTTP/1.1 100"), "the body was never asked for");
        writer.write_all(b"hello")?;
        ensure!(head(&mut reader)?.starts_with("HTTP/1.1 200"));

        let server = mesh.pod("early").label("app", "early").start()?;
        mesh.service("early").selector("app", "early").port("http", 80, 7000).create()?;
        mesh.wait_applied()?;
        let listener = server.listen(7000)?;
        let mut stream = mesh.the("client")?.connect(mesh.service_at("early", 80)?)?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: early\r\n\r\n")?;
        let (mut there, _) = listener.accept()?;
        let mut incoming = BufReader::new(there.try_clone()?);
        head(&mut incoming)?;
        let mut reader = BufReader::new(stream);
        // It arrives before there is a final answer to wait for.
        there.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")?;
        let hints = head(&mut reader)?;
        ensure!(
            hints.starts_with("HTTP/1.1 103") && hints.to_ascii_lowercase().contains("link: </style.css>"),
            "{hints}"
        );
        there.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        ensure!(head(&mut reader)?.starts_with("HTTP/1.1 200"));
        Ok(())
    });
}

#[test]
fn head_and_bodiless_answers_have_no_body() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let answer = mesh.http("client", "http://echo/bytes/1000")?.method("HEAD").send()?;
        ensure!(answer.status == 200 && answer.body.is_empty(), "{answer:?}");
        ensure!(answer.header("content-length") == Some("1000"), "{answer:?}");
        // One connection: a body that is not there must not be waited for.
        let text = raw(
            mesh,
            mesh.service_at("echo", 80)?,
            "HEAD /bytes/7 HTTP/1.1\r\nHost: echo\r\n\r\n\
             GET /status/204 HTTP/1.1\r\nHost: echo\r\n\r\n\
             GET /status/304 HTTP/1.1\r\nHost: echo\r\n\r\n\
             GET /status/200 HTTP/1.1\r\nHost: echo\r\nConnection: close\r\n\r\n",
        )?;
        let statuses: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")).map(|s| &s[..3]).collect();
        ensure!(statuses == ["200", "204", "304", "200"], "{statuses:?} in {text}");
        Ok(())
    });
}

#[test]
fn chunked_bodies_and_trailers_pass_both_ways() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let address = mesh.service_at("echo", 80)?;
        let text = raw(
            mesh,
            address,
            "POST /sink HTTP/1.1\r\nHost: echo\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\nConnection: close\r\n\r\n\
             5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nx-sum: 11\r\n\r\n",
        )?;
        ensure!(text.contains("\"bytes\":11") && text.contains("\"x-sum\":\"11\""), "{text}");
        let request = "GET /trailers HTTP/1.1\r\nHost: echo\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n";
        let text = raw(mesh, address, request)?.to_ascii_lowercase();
        ensure!(text.contains("hello") && text.contains("world"), "{text}");
        ensure!(text.contains("\r\n0\r\nx-trailer: end\r\n"), "no trailer: {text}");
        Ok(())
    });
}

#[test]
fn an_upgraded_connection_carries_bytes_both_ways() {
    story(|mesh| {
        deploy::echo(mesh)?;
        for service in ["echo", "echo-raw"] {
            let stream = mesh.the("client")?.connect(mesh.service_at(service, 80)?)?;
            let mut reader = BufReader::new(stream.try_clone()?);
            let mut writer = stream;
            write!(
                writer,
                "GET /chat HTTP/1.1\r\nHost: {service}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )?;
            let head = head(&mut reader)?;
            ensure!(head.starts_with("HTTP/1.1 101"), "{head}");
            ensure!(head.to_ascii_lowercase().contains("upgrade: websocket"), "{head}");
            for text in ["\x01\x02frame", "another"] {
                writer.write_all(text.as_bytes())?;
                let mut back = vec![0; text.len()];
                reader.read_exact(&mut back)?;
                ensure!(back == text.as_bytes());
            }
            writer.shutdown(std::net::Shutdown::Write)?;
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest)?;
            ensure!(rest.is_empty(), "{rest:?}");
        }
        Ok(())
    });
}

#[test]
fn one_connection_carries_many_requests_to_changing_places() {
    story(|mesh| {
        deploy::echo(mesh)?;
        deploy::route(
            mesh,
            "- match: [{uri: {prefix: /two}}]\n  route: [{destination: {host: echo, subset: v2}}]\n\
             - route: [{destination: {host: echo, subset: v1}}]\n",
        )?;
        let mut stream = mesh.the("client")?.connect(mesh.service_at("echo", 80)?)?;
        for _ in 0..20 {
            for (path, version) in [("/one", "v1"), ("/two", "v2")] {
                let text = weft_tests::scenarios::ask_again(&mut stream, "echo", path)?;
                ensure!(text.contains(&format!("x-app-version: {version}")), "{path}: {text}");
            }
        }
        // Asked in a row without waiting, answered in order.
        let many: Vec<String> = (0..10).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: echo\r\n\r\n")).collect();
        let text = raw(
            mesh,
            mesh.service_at("echo", 80)?,
            &format!("{}GET /last HTTP/1.1\r\nHost: echo\r\nConnection: close\r\n\r\n", many.concat()),
        )?;
        let paths: Vec<usize> = (0..10).filter_map(|n| text.find(&format!("\"path\":\"/{n}\""))).collect();
        ensure!(paths.len() == 10 && paths.is_sorted() && text.contains("\"path\":\"/last\""), "{text}");
        // HTTP/1.0 ends with the connection.
        let old = raw(mesh, mesh.service_at("echo", 80)?, "GET /old HTTP/1.0\r\nHost: echo\r\n\r\n")?;
        ensure!(old.contains("200 OK") && old.contains("\"path\":\"/old\""), "{old}");
        Ok(())
    });
}

#[test]
fn a_gigabyte_passes_each_way_and_the_agent_stays_small() {
    const SIZE: u64 = 1 << 30;
    story(|mesh| {
        deploy::echo(mesh)?;
        mesh.get("client", "http://echo/bytes/1000000")?;
        let before = mesh.with_agent(|agent| agent.rss_bytes())?;
        let start = Instant::now();
        for suffix in ["", "?chunked"] {
            let url = format!("http://echo/bytes/{SIZE}{suffix}");
            let words =
                ["curl", "-sS", "--max-time", "60", "-o", "/dev/null", "-w", "%{size_download}", &url];
            let got = mesh.exec("client", &words)?.good()?;
            ensure!(got == SIZE.to_string(), "{got} of {SIZE} bytes with `{suffix}`");
        }
        let pipe = format!("head -c {SIZE} /dev/zero | curl -sS --max-time 60 -T - http://echo/sink");
        let told = mesh.exec("client", &["sh", "-c", &pipe])?.good()?;
        ensure!(told.contains(&format!("\"bytes\":{SIZE}")), "{told}");
        let grown = mesh.with_agent(|agent| agent.rss_bytes())?.saturating_sub(before);
        println!("3 GiB in {:?}; the agent grew by {} KiB", start.elapsed(), grown / 1024);
        ensure!(grown < 32 << 20, "the agent grew by {grown} bytes");
        Ok(())
    });
}

#[test]
fn a_server_that_refuses_hangs_up_or_breaks_off_gives_an_answer_not_a_riddle() {
    story(|mesh| {
        deploy::echo(mesh)?;
        // Closed without an answer, on the first and on later requests of a connection.
        let answer = mesh.get("client", "http://echo/close")?;
        ensure!(answer.status == 503, "{answer:?}");
        // Broken off: what came is not passed as a whole answer.
        let outcome = mesh.get("client", "http://echo/break/1000");
        ensure!(outcome.is_err(), "a broken answer was passed as good: {outcome:?}");
        ensure!(mesh.get("client", "http://echo/")?.status == 200);
        // Nobody listens.
        mesh.pod("empty").label("app", "empty").start()?;
        mesh.service("empty").selector("app", "empty").port("http", 80, 7000).create()?;
        mesh.service("nobody").selector("app", "nobody").port("http", 80, 7000).create()?;
        mesh.wait_applied()?;
        for service in ["empty", "nobody"] {
            let answer = mesh.get("client", &format!("http://{service}/"))?;
            ensure!(answer.status == 503, "{service}: {answer:?}");
        }
        // One of two refuses: the other one answers.
        mesh.the("echo-v1")?.stop();
        let report = mesh.many("client", "http://echo/", 60, 3)?;
        ensure!(report.none_failed()?.versions.keys().eq(["v2"]), "{:?}", report.versions);
        Ok(())
    });
}

#[test]
fn the_host_header_chooses_the_service_of_the_port() {
    story(|mesh| {
        deploy::echo(mesh)?;
        mesh.namespace("shop", true)?;
        mesh.pod("other")
            .namespace("shop")
            .label("app", "other")
            .label("version", "other")
            .app(["echo", "--port", "8080"])
            .start()?;
        mesh.service("other").namespace("shop").selector("app", "other").port("http", 80, 8080).create()?;
        mesh.wait_applied()?;
        let echo = mesh.service_at("echo", 80)?;
        for host in
            ["other.shop", "other.shop.svc", "other.shop.svc.cluster.local", "OTHER.shop:80", "other.shop."]
        {
            let answer = mesh.http("client", &format!("http://{echo}/"))?.header("Host", host).send()?;
            ensure!(answer.version() == "other", "{host} went to {:?} {}", answer.app(), answer.status);
        }
        for host in ["echo", "echo.default", &echo.ip().to_string()] {
            let answer = mesh.http("client", &format!("http://{echo}/"))?.header("Host", host).send()?;
            ensure!(answer.status == 200 && answer.version().starts_with('v'), "{host}: {answer:?}");
        }
        Ok(())
    });
}

#[test]
fn a_client_that_reads_slowly_slows_its_server_down() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let mut stream = mesh.the("client")?.connect(mesh.service_at("echo", 80)?)?;
        stream.write_all(b"GET /bytes/1000000000 HTTP/1.1\r\nHost: echo\r\nConnection: close\r\n\r\n")?;
        let mut first = [0; 1000];
        stream.read_exact(&mut first)?;
        let before = mesh.with_agent(|agent| agent.rss_bytes())?;
        let mut last = String::new();
        // Until the server has stopped sending.
        weft_tests::eventually("the way is full", Duration::from_secs(20), || {
            let queued = queued_bytes(mesh)?;
            let steady = queued == last;
            last = queued;
            std::thread::sleep(Duration::from_millis(100));
            ensure!(steady, "still moving");
            Ok(())
        })?;
        let grown = mesh.with_agent(|agent| agent.rss_bytes())?.saturating_sub(before);
        println!("the agent grew by {} KiB", grown / 1024);
        ensure!(grown < 16 << 20, "the agent grew by {grown} bytes");
        let mut buffer = vec![0; 1 << 20];
        let mut total = first.len();
        while total < 900_000_000 {
            let count = stream.read(&mut buffer)?;
            ensure!(count > 0, "ended after {total} bytes");
            total += count;
        }
        Ok(())
    });
}

/// What waits in the client's socket buffers, as the kernel shows it.
fn queued_bytes(mesh: &Mesh) -> Result<String> {
    mesh.exec("client", &["ss", "-Htn", "state", "established"])?.good()
}

#[test]
fn http_on_a_port_without_a_name_is_detected() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let rules = "- match: [{headers: {x: {exact: 'y'}}}]\n  route: [{destination: {host: echo-raw, subset: v2}}]\n\
                     - route: [{destination: {host: echo-raw, subset: v1}}]\n";
        mesh.apply("raw-subsets", &deploy::subsets("echo-raw"))?;
        mesh.apply_now("raw", &deploy::virtual_service("echo-raw", "http", rules))?;
        ensure!(mesh.get("client", "http://echo-raw/")?.version() == "v1");
        ensure!(mesh.http("client", "http://echo-raw/")?.header("x", "y").send()?.version() == "v2");
        ensure!(mesh.http("client", "http://echo-raw/")?.header("x", "y").h2().send()?.version() == "v2");
        // Declared as tcp it is left alone, whatever it looks like.
        ensure!(mesh.get("client", "http://echo-tcp/")?.status == 200);
        let bytes = [("reporter", "source"), ("destination_service_name", "echo-tcp")];
        let opened = mesh.metrics()?.count("istio_tcp_connections_opened_total", &bytes);
        ensure!(opened == 1, "a tcp port was read as HTTP: {opened} connections of bytes");
        // A byte at a time it is HTTP all the same.
        let mut stream: TcpStream = mesh.the("client")?.connect(mesh.service_at("echo-raw", 80)?)?;
        for byte in b"GET /slowly HTTP/1.1\r\nHost: echo-raw\r\nx: y\r\nConnection: close\r\n\r\n" {
            stream.write_all(&[*byte])?;
        }
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        ensure!(text.contains("x-app-version: v2"), "{text}");
        ensure!(hits(mesh, "echo-v2", "/slowly")? == 1);
        Ok(())
    });
}
