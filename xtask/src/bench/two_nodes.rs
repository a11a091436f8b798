//! The rows between nodes: a client behind one agent, the servers behind another, mutual TLS between them.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use weft_tests::Capture;

use super::Programs;
use super::agent::Agent;
use super::figures::{self, Sample, median};
use super::load::{self, Load, Target};
use super::manifests;
use super::noise::Noise;
use super::report::Row;
use super::rows::{Bench, Planned, largest_rss_mib, with_cpu};
use super::world::{Node, Pod, World};
use crate::progress::Step;

/// The rows that have a direct counterpart, in the order of the table.
pub const ROWS: &[Planned] = &[
    Planned { name: "two-nodes/http/c1", load: Load::Http(1), unit: "requests/s" },
    Planned { name: "two-nodes/http/c32", load: Load::Http(32), unit: "requests/s" },
    Planned { name: "two-nodes/http/c64", load: Load::Http(64), unit: "requests/s" },
    Planned { name: "two-nodes/http/rate2000", load: Load::HttpRate(2000), unit: "requests/s" },
    Planned { name: "two-nodes/grpc/c32", load: Load::Grpc(8), unit: "calls/s" },
    Planned { name: "two-nodes/tcp/stream", load: Load::Stream, unit: "Gbit/s" },
    Planned { name: "two-nodes/tcp/rr1", load: Load::RequestReply(1), unit: "requests/s" },
    Planned { name: "two-nodes/tcp/rr32", load: Load::RequestReply(32), unit: "requests/s" },
    Planned { name: "two-nodes/tcp/crr32", load: Load::ConnectRequestClose(32), unit: "connections/s" },
];
/// New connections to the server's agent, each with a full handshake: what a client elsewhere costs it.
const VISITS: &str = "two-nodes/handshakes";
/// The same with the key exchange that agents prefer, X25519MLKEM768: what it costs that a quantum computer will not read along.
const POST_QUANTUM: &str = "two-nodes/handshakes/post-quantum";
/// The rows of handshakes.
pub const HANDSHAKES: [&str; 2] = [VISITS, POST_QUANTUM];

const NEAR: Node = Node { name: "near", address: Ipv4Addr::new(10, 77, 0, 1) };
const FAR: Node = Node { name: "far", address: Ipv4Addr::new(10, 79, 0, 1) };

const fn near(name: &'static str, network: u8, host: u8) -> Pod {
    Pod { name, address: Ipv4Addr::new(10, 77, network, host), node: NEAR }
}

const fn far(name: &'static str, network: u8, host: u8) -> Pod {
    Pod { name, address: Ipv4Addr::new(10, 79, network, host), node: FAR }
}

/// In the mesh: the client, and both versions of the server.
const CLIENT: Pod = near("client", 1, 1);
const SERVER: Pod = far("server-v1", 1, 2);
const CANARY: Pod = far("server-v2", 1, 3);
/// Out of it, on the same nodes.
const PLAIN_CLIENT: Pod = near("plain-client", 2, 1);
const PLAIN_SERVER: Pod = far("plain-server", 2, 2);

/// HBONE's port, and what no request but ours contains.
const TUNNEL_PORT: u16 = 15008;
const MARKER: &str = "weft-bench-in-plain-sight";
/// Who opens the connections that are counted, and how many of them at once.
const VISITOR: &str = "spiffe://cluster.local/ns/bench/sa/client";
const VISITS_AT_ONCE: u32 = 4;

/// Measures the rows.
pub fn measure(
    programs: &Programs,
    rows: &[&Planned],
    handshakes: &[&str],
    runs: u32,
    seconds: u32,
    noise: &mut Noise,
) -> Result<Vec<Row>> {
    let step = Step::begin("two nodes, pods, servers and the agents", "");
    let mut world = World::new(&programs.weft, &[NEAR, FAR])?;
    world.link(NEAR, FAR)?;
    for pod in [CLIENT, SERVER, CANARY, PLAIN_CLIENT, PLAIN_SERVER] {
        world.add(pod)?;
    }
    for pod in [SERVER, CANARY, PLAIN_SERVER] {
        load::serve(&world, programs, pod)?;
    }
    let config = world.dir("config")?;
    let labelled = [(CLIENT, "client", "v1"), (SERVER, "web", "v1"), (CANARY, "web", "v2")];
    let pods = labelled.map(|(pod, app, version)| (pod, app, version, world.netns(pod.name)));
    fs::write(config.join("pods.yaml"), manifests::pods(&pods))?;
    fs::write(config.join("services.yaml"), manifests::services())?;
    let ca_dir = world.dir("ca")?;
    let flags = ["--ca-dir".as_ref(), ca_dir.as_os_str()];
    // From before the first connection: its handshake is to be seen.
    let wire = Capture::of(&world.netns(NEAR.name))?;
    let start = |node| Agent::start(&world, programs, node, &config, &flags).map(|(agent, _)| agent);
    let agents = [start(NEAR)?, start(FAR)?];
    let plain = (PLAIN_CLIENT, PLAIN_SERVER);
    let bench = Bench {
        world: &world,
        programs,
        agents: &agents,
        client: CLIENT,
        plain,
        target: Target::services(),
        seconds,
    };
    bench.check_that_it_routes(&[SERVER, CANARY])?;
    check_that_it_is_tls(&world, wire)?;
    step.done();

    let mut measured = rows.iter().map(|row| bench.row(row, runs, noise)).collect::<Result<Vec<_>>>()?;
    if handshakes.contains(&VISITS) {
        measured.push(visits(&bench, &ca_dir, runs, noise)?);
    }
    if handshakes.contains(&POST_QUANTUM) {
        measured.push(post_quantum(&bench, &ca_dir, runs, noise)?);
    }
    Ok(measured)
}

/// Between the nodes there must be nothing but TLS, or the figures would be those of something else.
fn check_that_it_is_tls(world: &World, mut wire: Capture) -> Result<()> {
    let mut curl = world.command(CLIENT.name, Path::new("curl"));
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "5", "--header"])
        .arg(format!("x-marker: {MARKER}"));
    curl.args(["--header", &format!("Host: {}", manifests::HOST)]);
    load::output(curl.arg(format!("http://{}/{MARKER}", manifests::WEB_ADDRESS)))?;
    ensure!(!wire.saw(MARKER.as_bytes())?, "a request crossed from node to node in plain text");
    ensure!(wire.tls_to(TUNNEL_PORT)? > 0, "no TLS handshake was seen between the nodes");
    Ok(())
}

/// Opens connections for a while, as an agent elsewhere does; `groups`: the flags for the keys' exchange.
fn visit(bench: &Bench<'_>, ca_dir: &Path, seconds: u32, groups: &[&str]) -> Result<(Sample, f64)> {
    let to = SocketAddr::from((SERVER.address, TUNNEL_PORT)).to_string();
    let mut peer = bench.world.command(PLAIN_CLIENT.name, &bench.programs.peer);
    peer.arg("handshakes").arg(&to).arg("--ca-dir").arg(ca_dir).args(["--identity", VISITOR]).args(groups);
    peer.args(["--connections", &VISITS_AT_ONCE.to_string(), "--seconds", &seconds.to_string()]);
    with_cpu(bench.agents, || figures::peer(&load::output(&mut peer)?))
}

/// Measures [`VISITS`].
fn visits(bench: &Bench<'_>, ca_dir: &Path, runs: u32, noise: &mut Noise) -> Result<Row> {
    let step = Step::begin(VISITS, "");
    visit(bench, ca_dir, 1, &[]).context(VISITS)?;
    let mut runs_done = Vec::new();
    for _ in 0..runs {
        noise.look();
        runs_done.push(visit(bench, ca_dir, bench.seconds, &[]).context(VISITS)?);
    }
    step.done();
    Ok(Row {
        weft: median(runs_done.iter().map(|(sample, _)| sample.rate)),
        cpu_us_per_op: median(runs_done.iter().map(|(_, cpu)| *cpu)),
        rss_mib: Some(largest_rss_mib(bench.agents)?),
        ..Row::new(VISITS, "handshakes/s")
    })
}

/// Measures [`POST_QUANTUM`], in turns with X25519 alone.
fn post_quantum(bench: &Bench<'_>, ca_dir: &Path, runs: u32, noise: &mut Noise) -> Result<Row> {
    let step = Step::begin(POST_QUANTUM, "");
    let groups = ["x25519", "x25519mlkem768"];
    let mut runs_done = groups.map(|_| Vec::new());
    for group in groups {
        visit(bench, ca_dir, 1, &["--group", group]).context(POST_QUANTUM)?;
    }
    for _ in 0..runs {
        for (group, done) in groups.iter().zip(&mut runs_done) {
            noise.look();
            done.push(visit(bench, ca_dir, bench.seconds, &["--group", group]).context(POST_QUANTUM)?);
        }
    }
    step.done();
    let [alone, hybrid] = &runs_done;
    let both = |value: fn(&(Sample, f64)) -> Option<f64>| {
        let (alone, hybrid) =
            (median(alone.iter().filter_map(value)), median(hybrid.iter().filter_map(value)));
        (alone, hybrid, hybrid.zip(alone).map(|(hybrid, alone)| hybrid / alone))
    };
    let (rate_alone, rate, ratio) = both(|(sample, _)| Some(sample.rate));
    let (cpu_alone, cpu, cpu_ratio) = both(|(_, cpu)| Some(*cpu));
    let notes = format!(
        "ratios are to X25519 alone in the same run: {:.0} handshakes/s, {:.0} us of the agents for each; these take {:.2} \
         times as much",
        rate_alone.unwrap_or_default(),
        cpu_alone.unwrap_or_default(),
        cpu_ratio.unwrap_or_default()
    );
    Ok(Row {
        weft: rate,
        ratio,
        p50_ratio: both(|(sample, _)| sample.p50_us).2,
        p99_ratio: both(|(sample, _)| sample.p99_us).2,
        cpu_us_per_op: cpu,
        rss_mib: Some(largest_rss_mib(bench.agents)?),
        notes,
        ..Row::new(POST_QUANTUM, "handshakes/s")
    })
}
