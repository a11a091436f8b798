//! Floods of HTTP/2 frames, on captured connections and on the tunnel's port: other pods must not notice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use weft_tests::{Mesh, story};

use crate::forge::Authority;
use crate::hbone::{self, block_on, tls};

/// What an HTTP/2 client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Types of frames.
pub const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
/// How long one flood lasts, unless it is cut off before.
const FLOOD: Duration = Duration::from_millis(100);
/// What an agent may grow by under all of them.
const GROWTH: u64 = 64 << 20;

/// A frame of HTTP/2.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `:method GET, :scheme http, :path /`, by HPACK's static table, and an authority.
const REQUEST: &[u8] = b"\x82\x86\x84\x41\x04near";

/// What a flood sends in its `turn`.
fn wave(kind: &str, turn: u32) -> Vec<u8> {
    let streams = (0..64).map(|index| (turn * 64 + index) * 2 + 1);
    match kind {
        "rapid reset" => streams
            .flat_map(|stream| {
                [frame(HEADERS, 5, stream, REQUEST), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())]
                    .concat()
            })
            .collect(),
        "settings" => frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]).repeat(256),
        "pings" => frame(PING, 0, 0, &[7; 8]).repeat(256),
        "empty window updates" => frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()).repeat(256),
        "continuation" if turn == 0 => frame(HEADERS, 0, 1, REQUEST),
        _ => frame(CONTINUATION, 0, 1, &[b"\x00\x01x\x7f\x00", &[b'y'; 127][..]].concat()).repeat(64),
    }
}

const KINDS: [&str; 5] = ["rapid reset", "settings", "pings", "empty window updates", "continuation"];

/// Sends until cut off or for a while; nothing is ever read but to throw it away.
async fn flood(stream: impl AsyncRead + AsyncWrite, kind: &str) {
    let (mut from, mut to) = tokio::io::split(stream);
    let swallow = async move {
        let mut buffer = vec![0; 65536];
        while from.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
    };
    let send = async move {
        let start = Instant::now();
        to.write_all(PREFACE).await?;
        to.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
        let mut turn = 0;
        while start.elapsed() < FLOOD {
            to.write_all(&wave(kind, turn)).await?;
            turn += 1;
        }
        std::io::Result::Ok(())
    };
    tokio::select! { () = swallow => {}, _ = send => {} }
}

/// What is flooded, and a bystander on the same node with a client of his own.
fn deploy(mesh: &Mesh) -> Result<()> {
    mesh.outsider("stranger")?;
    mesh.pod("mallory").node("n1").service_account("mallory").start()?;
    mesh.pod("client").node("n1").service_account("client").start()?;
    for name in ["near", "bystander"] {
        let pod = mesh.pod(name).node("n1").service_account("victim").label("pod", name);
        pod.app(["echo", "--port", "8080"]).start()?;
        mesh.service(name).selector("pod", name).port("http", 80, 8080).create()?;
    }
    mesh.start_agents(&["n1"])?;
    mesh.wait_applied()?;
    mesh.many("client", "http://bystander/", 200, 4)?.none_failed()?;
    Ok(())
}

/// Floods, and again when cut off, as long as the bystander is asked; afterwards the agent must be as it was.
fn others_are_served(mesh: &Mesh, attack: &(impl AsyncFn(&str) -> Result<()> + Sync)) -> Result<()> {
    let before = mesh.with_agent(|agent| agent.rss_bytes())?;
    for kind in KINDS {
        let over = AtomicBool::new(false);
        let (floods, report) = std::thread::scope(|scope| {
            let flooding = scope.spawn(|| {
                block_on(async {
                    let mut floods = 0;
                    while !over.load(Ordering::Relaxed) {
                        attack(kind).await?;
                        floods += 1;
                    }
                    Ok(floods)
                })
            });
            let report = mesh.many("client", "http://bystander/", 100, 4);
            over.store(true, Ordering::Relaxed);
            (flooding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), report)
        });
        let (floods, report) = (floods.with_context(|| kind.to_owned())?, report?);
        report.none_failed().with_context(|| kind.to_owned())?;
        println!("{kind}, {floods} times: the longest gap of others {:.0} ms", report.longest_gap_ms);
    }
    mesh.many("client", "http://near/", 50, 2)?.none_failed()?;
    let grown = mesh.with_agent(|agent| agent.rss_bytes())?.saturating_sub(before);
    ensure!(grown < GROWTH, "the agent grew by {} MiB", grown >> 20);
    Ok(())
}

#[test]
fn floods_on_captured_connections_are_felt_by_nobody_else() {
    story(|mesh| {
        deploy(mesh)?;
        let (mallory, to) = (mesh.the("mallory")?, mesh.service_at("near", 80)?);
        others_are_served(mesh, &async |kind: &str| {
            let stream = mallory.connect(to)?;
            stream.set_nonblocking(true)?;
            flood(tokio::net::TcpStream::from_std(stream)?, kind).await;
            Ok(())
        })
    });
}

#[test]
fn floods_on_the_tunnels_port_are_felt_by_nobody_else() {
    story(|mesh| {
        deploy(mesh)?;
        let credentials =
            Authority::in_dir(&mesh.ca_dir())?.sign("spiffe://cluster.local/ns/default/sa/mallory")?;
        let (stranger, near) = (mesh.the("stranger")?, mesh.the("near")?);
        others_are_served(mesh, &async |kind: &str| {
            let stream = tls(&stranger, near.at(hbone::PORT), Some(&credentials), b"h2").await?;
            flood(stream, kind).await;
            Ok(())
        })?;
        // Nor by connections that never say anything, or nothing sensible.
        let mut silent = Vec::new();
        for _ in 0..200 {
            silent.push(stranger.connect(near.at(hbone::PORT))?);
        }
        mesh.many("client", "http://bystander/", 100, 4)?.none_failed()?;
        drop(silent);
        Ok(())
    });
}
