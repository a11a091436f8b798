//! The rows between nodes: a client behind one agent, the servers behind another, mutual TLS between them.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use weft_tests::Capture;

use super::Programs;
use super::agent::Agent;
use super::figures::{self, Sample, median};
use super::load::{self, Load};
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
    Planned { name: "two-nodes/tcp/stream", load: Load::Stream, unit: "Gbit/s" },
    Planned { name: "two-nodes/tcp/rr1", load: Load::RequestReply(1), unit: "requests/s" },
    Planned { name: "two-nodes/tcp/rr32", load: Load::RequestReply(32), unit: "requests/s" },
    Planned { name: "two-nodes/tcp/crr32", load: Load::ConnectRequestClose(32), unit: "connections/s" },
];
/// New connections to the server's agent, each with a full handshake: what a client elsewhere costs it.
pub const HANDSHAKES: &str = "two-nodes/handshakes";

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
    handshakes: bool,
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
    let bench = Bench { world: &world, programs, agents: &agents, client: CLIENT, plain, seconds };
    bench.check_that_it_routes(&[SERVER, CANARY])?;
    check_that_it_is_tls(&world, wire)?;
    step.done();

    let mut measured = rows.iter().map(|row| bench.row(row, runs, noise)).collect::<Result<Vec<_>>>()?;
    if handshakes {
        measured.push(visits(&bench, &ca_dir, runs, noise)?);
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

/// Measures [`HANDSHAKES`].
fn visits(bench: &Bench<'_>, ca_dir: &Path, runs: u32, noise: &mut Noise) -> Result<Row> {
    let step = Step::begin(HANDSHAKES, "");
    let to = SocketAddr::from((SERVER.address, TUNNEL_PORT)).to_string();
    let visit = |seconds: u32| -> Result<Sample> {
        let mut peer = bench.world.command(PLAIN_CLIENT.name, &bench.programs.peer);
        peer.arg("handshakes").arg(&to).arg("--ca-dir").arg(ca_dir).args(["--identity", VISITOR]);
        peer.args(["--connections", &VISITS_AT_ONCE.to_string(), "--seconds", &seconds.to_string()]);
        figures::peer(&load::output(&mut peer)?)
    };
    visit(1).context(HANDSHAKES)?;
    let mut runs_done = Vec::new();
    for _ in 0..runs {
        noise.look();
        runs_done.push(with_cpu(bench.agents, || visit(bench.seconds)).context(HANDSHAKES)?);
    }
    step.done();
    Ok(Row {
        weft: median(runs_done.iter().map(|(sample, _)| sample.rate)),
        cpu_us_per_op: median(runs_done.iter().map(|(_, cpu)| *cpu)),
        rss_mib: Some(largest_rss_mib(bench.agents)?),
        ..Row::new(HANDSHAKES, "handshakes/s")
    })
}
