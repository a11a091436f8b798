//! The gateway's rows: a client from outside, a gateway, and servers behind it on the same node. The direct counterpart of TLS is
//! nginx's.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};

use super::Programs;
use super::agent::Agent;
use super::figures::Sample;
use super::load::{self, Load, Target};
use super::manifests;
use super::noise::Noise;
use super::report::Row;
use super::rows::{Bench, Planned, with_cpu};
use super::same_node::{CANARY, PLAIN_CLIENT, PLAIN_SERVER, SERVER, pod};
use super::world::{NODE, Pod, World};
use crate::progress::Step;

/// The rows, in the order of the table.
pub const ROWS: &[Planned] = &[
    Planned { name: "gateway/http/c32", load: Load::Http(32), unit: "requests/s" },
    Planned { name: "gateway/https/c32", load: Load::Https(32), unit: "requests/s" },
    Planned {
        name: "gateway/handshakes",
        load: Load::Handshakes { at_once: 4, names: 1 },
        unit: "handshakes/s",
    },
];
/// A thousand Gateways, each with a name and a certificate of its own, on one port.
pub const CERTIFICATES: &str = "scale/certificates";
const MANY: u32 = 1_000;

const GATEWAY: Pod = pod("gateway", 1, 4);

/// Measures the rows; `certificates`: and [`CERTIFICATES`].
pub fn measure(
    programs: &Programs,
    rows: &[&Planned],
    certificates: bool,
    runs: u32,
    seconds: u32,
    noise: &mut Noise,
) -> Result<Vec<Row>> {
    let step = Step::begin("a gateway, servers and the agent", "");
    let mut world = World::new(&programs.weft, &[NODE])?;
    for pod in [GATEWAY, SERVER, CANARY, PLAIN_CLIENT, PLAIN_SERVER] {
        world.add(pod)?;
    }
    for pod in [SERVER, CANARY, PLAIN_SERVER] {
        load::serve(&world, programs, pod)?;
    }
    let (config, pairs) = (world.dir("config")?, world.dir("certificates")?);
    let labelled = [(SERVER, "web", "v1"), (CANARY, "web", "v2")];
    let pods = labelled.map(|(pod, app, version)| (pod, app, version, world.netns(pod.name)));
    fs::write(config.join("pods.yaml"), manifests::pods(&pods))?;
    fs::write(config.join("services.yaml"), manifests::services())?;
    fs::write(config.join("gateway.yaml"), manifests::gateway_pod(GATEWAY, &world.netns(GATEWAY.name)))?;
    load::certificates(&world, programs, GATEWAY, &pairs, if certificates { MANY } else { 1 })?;
    edge(&config, &pairs, 0..1)?;
    let (agent, _) = Agent::start(&world, programs, NODE, &config, &[])?;
    let at = |port| SocketAddr::from((GATEWAY.address, port));
    let (web, https) = (at(manifests::EDGE_HTTP), at(manifests::EDGE_HTTPS));
    let target = Target { web, https, ..Target::services() };
    let plain = (PLAIN_CLIENT, PLAIN_SERVER);
    let agents = [agent];
    let bench =
        Bench { world: &world, programs, agents: &agents, client: PLAIN_CLIENT, plain, target, seconds };
    step.done();
    let mut measured = rows.iter().map(|row| bench.row(row, runs, noise)).collect::<Result<Vec<_>>>()?;
    if certificates {
        measured.push(many(&bench, &config, &pairs, noise)?);
    }
    Ok(measured)
}

/// Writes what the gateway serves, with the Secrets of a range; of those below it they are there.
fn edge(config: &Path, pairs: &Path, secrets: std::ops::Range<u32>) -> Result<()> {
    let names = secrets.end;
    for index in secrets {
        let read = |kind: &str| fs::read_to_string(pairs.join(format!("{index}.{kind}")));
        let secret = manifests::secret(index, &read("crt")?, &read("key")?);
        fs::write(config.join(format!("secret-{index}.yaml")), secret)?;
    }
    Ok(fs::write(config.join("edge.yaml"), manifests::edge(names))?)
}

/// Measures [`CERTIFICATES`], beside the same with one of them.
fn many(bench: &Bench<'_>, config: &Path, pairs: &Path, noise: &mut Noise) -> Result<Row> {
    let step = Step::begin(CERTIFICATES, "");
    let [agent] = bench.agents else { anyhow::bail!("there is one agent") };
    let shake = |names: u32| -> Result<(Sample, f64)> {
        let load = Load::Handshakes { at_once: 4, names };
        let run = |seconds| load.run(bench.world, bench.programs, bench.client, &bench.target, seconds);
        run(1)?;
        with_cpu(bench.agents, || run(bench.seconds))
    };
    noise.look();
    let (one, one_cpu) = shake(1).context(CERTIFICATES)?;
    let (before, _) = agent.settled_rss_mib()?;
    edge(config, pairs, 0..MANY)?;
    let applied = agent.wait_applied()?;
    agent.check_objects("Secret", MANY)?;
    noise.look();
    let (all, cpu) = shake(MANY).context(CERTIFICATES)?;
    let (after, _) = agent.settled_rss_mib()?;
    step.done();
    let p99 = |sample: Sample| sample.p99_us.unwrap_or_default() / 1e3;
    let notes = format!(
        "p99 {:.2} ms and {cpu:.0} us of the agent, with one certificate {:.2} ms, {one_cpu:.0} us; {:.1} MiB more; in force after \
         {:.2} s",
        p99(all),
        p99(one),
        after - before,
        applied.as_secs_f64()
    );
    Ok(Row {
        direct: Some(one.rate),
        weft: Some(all.rate),
        ratio: Some(all.rate / one.rate),
        cpu_us_per_op: Some(cpu),
        rss_mib: Some(after),
        notes,
        ..Row::new(CERTIFICATES, "handshakes/s")
    })
}
