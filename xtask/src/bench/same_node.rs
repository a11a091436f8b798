//! The same-node rows: client, server and one agent.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Programs;
use super::agent::Agent;
use super::figures::{Sample, median};
use super::load::{self, ECHO_PORT, Load, STREAM_PORT, Target};
use super::manifests;
use super::noise::Noise;
use super::report::Row;
use super::world::{Pod, World};
use crate::progress::Step;

/// A row, before it is measured.
pub struct Planned {
    pub name: &'static str,
    load: Load,
    unit: &'static str,
}

/// The rows, in the order of the table.
pub const ROWS: &[Planned] = &[
    Planned { name: "same-node/http/c1", load: Load::Http(1), unit: "requests/s" },
    Planned { name: "same-node/http/c32", load: Load::Http(32), unit: "requests/s" },
    Planned { name: "same-node/http/c64", load: Load::Http(64), unit: "requests/s" },
    Planned { name: "same-node/tcp/stream", load: Load::Stream, unit: "Gbit/s" },
    Planned { name: "same-node/tcp/rr1", load: Load::RequestReply(1), unit: "requests/s" },
    Planned { name: "same-node/tcp/rr32", load: Load::RequestReply(32), unit: "requests/s" },
    Planned { name: "same-node/tcp/crr32", load: Load::ConnectRequestClose(32), unit: "connections/s" },
];

const fn pod(name: &'static str, network: u8, host: u8) -> Pod {
    Pod { name, address: Ipv4Addr::new(10, 77, network, host) }
}

/// In the mesh: the client, and both versions of the server.
pub const CLIENT: Pod = pod("client", 1, 1);
pub const SERVER: Pod = pod("server-v1", 1, 2);
const CANARY: Pod = pod("server-v2", 1, 3);
/// Out of it, on the same bridge.
const PLAIN_CLIENT: Pod = pod("plain-client", 2, 1);
const PLAIN_SERVER: Pod = pod("plain-server", 2, 2);

/// Measures the rows.
pub fn measure(
    programs: &Programs,
    rows: &[&Planned],
    runs: u32,
    seconds: u32,
    noise: &mut Noise,
) -> Result<Vec<Row>> {
    let step = Step::begin("pods, servers and the agent", "");
    let mut world = World::new(&programs.weft)?;
    for pod in [CLIENT, SERVER, CANARY, PLAIN_CLIENT, PLAIN_SERVER] {
        world.add(pod)?;
    }
    for pod in [SERVER, CANARY, PLAIN_SERVER] {
        load::serve(&world, programs, pod)?;
    }
    let config = world.dir("config")?;
    let labelled = [(CLIENT, "client", "v1"), (SERVER, "web", "v1"), (CANARY, "web", "v2")];
    let pods = labelled.map(|(pod, app, version)| (pod, app, version, world.netns(pod)));
    fs::write(config.join("pods.yaml"), manifests::pods(&pods))?;
    fs::write(config.join("services.yaml"), manifests::services())?;
    let (agent, _) = Agent::start(&world, programs, &config)?;
    check_that_it_routes(&world)?;
    step.done();

    let bench = Bench { world: &world, programs, agent: &agent, seconds };
    rows.iter().map(|row| bench.row(row, runs, noise)).collect()
}

/// Requests that carry the header must reach both versions, or the figures would be those of something else.
fn check_that_it_routes(world: &World) -> Result<()> {
    let mut curl = world.command(CLIENT, Path::new("curl"));
    curl.args(["--silent", "--show-error", "--max-time", "5", "--fail-early", "--output", "/dev/null"]);
    curl.args(["--write-out", "%{http_code} %header{x-pod}\n", "--header", manifests::MATCHED_HEADER]);
    curl.args(["--header", &format!("Host: {}", manifests::HOST)]);
    let answers = load::output(curl.arg(format!("http://{}/[1-100]", manifests::WEB_ADDRESS)))?;
    for pod in [SERVER, CANARY] {
        let expected = format!("200 {}", pod.name);
        ensure!(
            answers.lines().any(|answer| answer == expected),
            "no request reached {} through weft: {}",
            pod.name,
            answers.lines().next().unwrap_or_default()
        );
    }
    Ok(())
}

struct Bench<'a> {
    world: &'a World,
    programs: &'a Programs,
    agent: &'a Agent<'a>,
    seconds: u32,
}

/// A measurement through weft.
struct Meshed {
    sample: Sample,
    cpu_us_per_op: f64,
}

impl Bench<'_> {
    fn row(&self, row: &Planned, runs: u32, noise: &mut Noise) -> Result<Row> {
        let step = Step::begin(row.name, "");
        let mut direct = Vec::new();
        let mut meshed = Vec::new();
        let fails = |side: &str| format!("{}, {side}", row.name);
        self.direct(row.load, 1).with_context(|| fails("direct"))?;
        self.meshed(row.load, 1).with_context(|| fails("through weft"))?;
        for _ in 0..runs {
            noise.look();
            direct.push(self.direct(row.load, self.seconds).with_context(|| fails("direct"))?);
            noise.look();
            meshed.push(self.meshed(row.load, self.seconds).with_context(|| fails("through weft"))?);
        }
        let rss_mib = self.agent.rss_mib()?.0;
        step.done();

        let meshed_samples: Vec<Sample> = meshed.iter().map(|run| run.sample).collect();
        let both = |value: fn(&Sample) -> Option<f64>| {
            let direct = median(direct.iter().filter_map(value));
            let weft = median(meshed_samples.iter().filter_map(value));
            (direct, weft, weft.zip(direct).map(|(weft, direct)| weft / direct))
        };
        let (direct_rate, weft, ratio) = both(|sample| Some(sample.rate));
        Ok(Row {
            direct: direct_rate,
            weft,
            ratio,
            p50_ratio: both(|sample| sample.p50_us).2,
            p99_ratio: both(|sample| sample.p99_us).2,
            cpu_us_per_op: median(meshed.iter().map(|run| run.cpu_us_per_op)),
            rss_mib: Some(rss_mib),
            ..Row::new(row.name, row.unit)
        })
    }

    fn direct(&self, load: Load, seconds: u32) -> Result<Sample> {
        load.run(self.world, self.programs, PLAIN_CLIENT, &Target::pod(PLAIN_SERVER), seconds)
    }

    fn meshed(&self, load: Load, seconds: u32) -> Result<Meshed> {
        let target = Target {
            web: SocketAddr::from((manifests::WEB_ADDRESS, 80)),
            stream: SocketAddr::from((manifests::TCP_ADDRESS, STREAM_PORT)),
            echo: SocketAddr::from((manifests::TCP_ADDRESS, ECHO_PORT)),
        };
        let before = self.agent.cpu()?;
        let sample = load.run(self.world, self.programs, CLIENT, &target, seconds)?;
        let cpu = self.agent.cpu()?.saturating_sub(before);
        Ok(Meshed { sample, cpu_us_per_op: cpu.as_secs_f64() * 1e6 / sample.operations })
    }
}
