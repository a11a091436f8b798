//! One holder takes what it can of an agent that may have 256 MiB: the agent lives, others are served, and what was taken is given back.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Request;
use weft_tests::{Mesh, eventually, story};

use crate::attacks_floods::{CONTINUATION, HEADERS, PREFACE, SETTINGS, WINDOW_UPDATE, frame};
use crate::forge::Authority;
use crate::{deploy as deployed, hbone, http2};

const MEMORY: u64 = 256 << 20;
/// What an agent has at most when nothing happens.
const AT_REST: u64 = 100 << 20;
const PATIENCE: Duration = Duration::from_secs(30);
/// Flags of frames (RFC 9113, 6.2).
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Largest payload of a frame that every server takes.
const FRAME_BYTES: usize = 16_384;

/// A pod that means harm, its server, and a client with a server of its own; one agent.
fn deploy(mesh: &Mesh, memory: &str, flags: &[&str]) -> Result<()> {
    for name in ["mallory", "client"] {
        mesh.pod(name).service_account(name).start()?;
    }
    for name in ["near", "bystander"] {
        let pod = mesh.pod(name).service_account(name).label("pod", name);
        pod.app(["echo", "--port", "8080"]).start()?;
        mesh.service(name).selector("pod", name).port("http", 80, 8080).create()?;
    }
    mesh.start_agent_with("node-a", &[&["--limit-memory", memory], flags].concat())?;
    mesh.wait_applied()?;
    others(mesh)
}

/// Requests of another pod: none may fail.
fn others(mesh: &Mesh) -> Result<()> {
    let report = mesh.many("client", "http://bystander/", 2_000, 4)?;
    report.none_failed()?;
    println!("others: p99 {:.1} ms, longest gap {:.0} ms", report.p99_ms, report.longest_gap_ms);
    Ok(())
}

fn resident(mesh: &Mesh) -> Result<u64> {
    mesh.with_agent(|agent| agent.rss_bytes())
}

/// Others are served while `held` is, the agent has less memory than it may have, names who has most, and gives back what that had.
fn is_felt_by_nobody_else<T>(mesh: &Mesh, held: T) -> Result<()> {
    others(mesh)?;
    others(mesh)?;
    others(mesh)?;
    others(mesh)?;
    let during = resident(mesh)?;
    println!("the agent has {} MiB", during >> 20);
    ensure!(during < MEMORY, "{} MiB", during >> 20);
    let status = mesh.weft(&["status"])?.stdout;
    ensure!(status.contains("pod default/mallory has"), "nobody is named:\n{status}");
    ensure!(mesh.metrics()?.sum("weft_limit_refused_total", &[("holder", "pod")]) > 0.0);
    drop(held);
    eventually("what was taken is given back", PATIENCE, || {
        let now = resident(mesh)?;
        ensure!(now < AT_REST, "{} MiB", now >> 20);
        let used = mesh.metrics()?.sum("weft_limit_used", &[("resource", "standing_bytes")]);
        ensure!(used < 2e6, "{used} bytes are still counted");
        Ok(())
    })?;
    // Ends of connections come one by one: those that waited for room are taken in, and end, after those that had it.
    eventually("whoever had most is served again", PATIENCE, || {
        let status = mesh.get("mallory", "http://near/")?.status;
        ensure!(status == 200, "{status}");
        Ok(())
    })
}

/// A length in HPACK (RFC 7541, 5.1), with seven bits in its first byte.
fn length(text: &str) -> Vec<u8> {
    let Some(mut rest) = text.len().checked_sub(127) else { return vec![text.len() as u8] };
    let mut bytes = vec![127];
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
    bytes
}

/// `GET PATH` with a header of some size, as frames on one stream.
fn request(stream: u32, path: &str, header: usize) -> Vec<u8> {
    let mut block = b"\x82\x86\x41\x04near\x04".to_vec();
    block.extend([length(path), path.into()].concat());
    if header > 0 {
        let value = "y".repeat(header);
        block.extend([b"\x00\x01x".to_vec(), length(&value), value.into()].concat());
    }
    let pieces: Vec<&[u8]> = block.chunks(FRAME_BYTES).collect();
    let frames = pieces.iter().enumerate().map(|(at, piece)| {
        let kind = if at == 0 { HEADERS } else { CONTINUATION };
        let end = if at + 1 == pieces.len() { END_HEADERS } else { 0 };
        frame(kind, end | if at == 0 { END_STREAM } else { 0 }, stream, piece)
    });
    frames.collect::<Vec<_>>().concat()
}

/// A connection with many requests whose answers nobody reads, though all of them would be welcome.
fn flood(mesh: &Mesh, streams: u32, path: &str, header: usize) -> Result<TcpStream> {
    let mut stream = mesh.the("mallory")?.connect(mesh.service_at("near", 80)?)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let widest = (u32::MAX >> 1).to_be_bytes();
    let mut hello = PREFACE.to_vec();
    hello.extend(frame(SETTINGS, 0, 0, &[&[0, 4][..], &widest].concat()));
    hello.extend(frame(WINDOW_UPDATE, 0, 0, &((u32::MAX >> 1) - 65_535).to_be_bytes()));
    stream.write_all(&hello)?;
    for index in 0..streams {
        stream.write_all(&request(index * 2 + 1, path, header))?;
    }
    Ok(stream)
}

#[test]
fn answers_that_are_never_read_are_not_kept() {
    story(|mesh| {
        deploy(mesh, "256Mi", &[])?;
        let held = (0..3).map(|_| flood(mesh, 900, "/bytes/4000000", 0)).collect::<Result<Vec<_>>>()?;
        is_felt_by_nobody_else(mesh, held)
    });
}

#[test]
fn slow_requests_by_the_thousand_are_refused_beyond_a_share() {
    story(|mesh| {
        deploy(mesh, "256Mi", &[])?;
        let held = (0..25).map(|_| flood(mesh, 1_000, "/sleep/60000", 0)).collect::<Result<Vec<_>>>()?;
        is_felt_by_nobody_else(mesh, held)
    });
}

#[test]
fn headers_of_slow_requests_count() {
    story(|mesh| {
        deploy(mesh, "256Mi", &[])?;
        let held = (0..6).map(|_| flood(mesh, 500, "/sleep/60000", 55_000)).collect::<Result<Vec<_>>>()?;
        is_felt_by_nobody_else(mesh, held)
    });
}

#[test]
fn one_pod_does_not_take_all_descriptors() {
    story(|mesh| {
        mesh.pod("target").label("pod", "target").app(["tcp-echo", "--port", "7000"]).start()?;
        mesh.service("target").selector("pod", "target").port("tcp", 7000, 7000).create()?;
        deploy(mesh, "256Mi", &["--limit-descriptors", "400"])?;
        let (mallory, to) = (mesh.the("mallory")?, mesh.service_at("target", 7000)?);
        // Its share is a hundred: the connections beyond wait, and one that is taken in when its endpoint has no room any more is reset.
        let held: Vec<_> = (0..300).filter_map(|_| mallory.connect(to).ok()).collect();
        ensure!(held.len() > 200, "only {} connections", held.len());
        is_felt_by_nobody_else(mesh, held)
    });
}

#[test]
fn what_the_estimates_miss_the_watcher_sees() {
    story(|mesh| {
        deploy(mesh, "128Mi", &["--limit-standing", "8Gi", "--limit-buffered", "8Gi"])?;
        let held = (0..3).map(|_| flood(mesh, 900, "/bytes/4000000", 0)).collect::<Result<Vec<_>>>()?;
        eventually("whoever has most loses its connections", PATIENCE, || {
            let ended = mesh.metrics()?.sum("weft_limit_ended_holders_total", &[]);
            ensure!(ended > 0.0, "none has");
            Ok(())
        })?;
        others(mesh)?;
        drop(held);
        Ok(())
    });
}

#[test]
fn of_a_tunnel_that_says_nothing_nothing_is_kept() {
    story(|mesh| {
        mesh.outsider("stranger")?;
        mesh.pod("near").node("n1").service_account("near").label("pod", "near").start()?;
        mesh.service("near").selector("pod", "near").port("http", 80, 8080).create()?;
        let near = mesh.the("near")?;
        let program = near.listen(8080)?;
        mesh.start_agents(&["n1"])?;
        mesh.wait_applied()?;
        let credentials =
            Authority::in_dir(&mesh.ca_dir())?.sign("spiffe://cluster.local/ns/default/sa/mallory")?;
        hbone::block_on(async {
            let stranger = mesh.the("stranger")?;
            let mut client = hbone::Client::dial(&stranger, near.at(hbone::PORT), Some(&credentials)).await?;
            let (status, tunnel) = client.connect(&near.at(8080).to_string()).await?;
            ensure!(status == 200, "{status}");
            drop((tunnel, client));
            Ok(())
        })?;
        let (mut opened, _) = program.accept()?;
        opened.set_read_timeout(Some(PATIENCE))?;
        ensure!(opened.read(&mut [0; 1])? == 0, "it says something");
        Ok(())
    });
}

/// Sends bytes, closes that side, and reads to the end.
fn half_closed(mesh: &Mesh, to: SocketAddr, bytes: &str) -> Result<String> {
    let mut stream = mesh.the("client")?.connect(to)?;
    stream.write_all(bytes.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("no whole answer")?;
    Ok(text)
}

#[test]
fn who_has_said_all_still_gets_the_answer() {
    story(|mesh| {
        deployed::echo(mesh)?;
        for service in ["echo", "echo-raw"] {
            for path in ["/", "/sleep/300", "/bytes/3000000"] {
                let asked = format!("GET {path} HTTP/1.1\r\nHost: {service}\r\n\r\n");
                let text = half_closed(mesh, mesh.service_at(service, 80)?, &asked)?;
                ensure!(text.starts_with("HTTP/1.1 200 "), "{service}{path}: {text:.200}");
                ensure!(path != "/bytes/3000000" || text.len() > 3_000_000, "{} bytes", text.len());
            }
        }
        Ok(())
    });
}

#[test]
fn codings_that_nobody_knows_are_not_implemented() {
    story(|mesh| {
        deployed::echo(mesh)?;
        let asked = "POST / HTTP/1.1\r\nHost: echo\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n";
        let text = half_closed(mesh, mesh.service_at("echo", 80)?, asked)?;
        ensure!(text.starts_with("HTTP/1.1 501 "), "{text}");
        Ok(())
    });
}

#[test]
fn long_heads_get_a_status_over_http2_too() {
    story(|mesh| {
        deployed::echo(mesh)?;
        http2::block_on(async {
            let mut sender = http2::connect(mesh, "echo").await?;
            for (bytes, expected) in
                [(50_000, 200), (62_000, 431), (100_000, 431), (200_000, 431), (50_000, 200)]
            {
                let request = Request::get("http://echo/").header("x", "y".repeat(bytes));
                let answer = sender.send_request(request.body(http2::whole(Bytes::new()))?).await?;
                ensure!(answer.status() == expected, "{bytes}: {}", answer.status());
            }
            Ok(())
        })
    });
}
