//! The same-node rows: client, server and one agent.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::Result;

use super::Programs;
use super::agent::Agent;
use super::load::{self, Load, Target};
use super::manifests;
use super::noise::Noise;
use super::report::Row;
use super::rows::{Bench, Planned};
use super::world::{NODE, Pod, World};
use crate::progress::Step;

/// The rows, in the order of the table.
pub const ROWS: &[Planned] = &[
    Planned { name: "same-node/http/c1", load: Load::Http(1), unit: "requests/s" },
    Planned { name: "same-node/http/c32", load: Load::Http(32), unit: "requests/s" },
    Planned { name: "same-node/http/c64", load: Load::Http(64), unit: "requests/s" },
    Planned { name: "same-node/http/rate2000", load: Load::HttpRate(2000), unit: "requests/s" },
    Planned { name: "same-node/grpc/c32", load: Load::Grpc(8), unit: "calls/s" },
    Planned { name: "same-node/tcp/stream", load: Load::Stream, unit: "Gbit/s" },
    Planned { name: "same-node/tcp/rr1", load: Load::RequestReply(1), unit: "requests/s" },
    Planned { name: "same-node/tcp/rr32", load: Load::RequestReply(32), unit: "requests/s" },
    Planned { name: "same-node/tcp/crr32", load: Load::ConnectRequestClose(32), unit: "connections/s" },
];

pub const fn pod(name: &'static str, network: u8, host: u8) -> Pod {
    Pod { name, address: Ipv4Addr::new(10, 77, network, host), node: NODE }
}

/// In the mesh: the client, and both versions of the server.
pub const CLIENT: Pod = pod("client", 1, 1);
pub const SERVER: Pod = pod("server-v1", 1, 2);
pub const CANARY: Pod = pod("server-v2", 1, 3);
/// Out of it, on the same bridge.
pub const PLAIN_CLIENT: Pod = pod("plain-client", 2, 1);
pub const PLAIN_SERVER: Pod = pod("plain-server", 2, 2);

/// Measures the rows.
pub fn measure(
    programs: &Programs,
    rows: &[&Planned],
    runs: u32,
    seconds: u32,
    noise: &mut Noise,
) -> Result<Vec<Row>> {
    let step = Step::begin("pods, servers and the agent", "");
    let mut world = World::new(&programs.weft, &[NODE])?;
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
    let (agent, _) = Agent::start(&world, programs, NODE, &config, &[])?;
    let plain = (PLAIN_CLIENT, PLAIN_SERVER);
    let bench = Bench {
        world: &world,
        programs,
        agents: &[agent],
        client: CLIENT,
        plain,
        target: Target::services(),
        seconds,
    };
    bench.check_that_it_routes(&[SERVER, CANARY])?;
    step.done();
    rows.iter().map(|row| bench.row(row, runs, noise)).collect()
}
