//! The scale rows: what a large mesh costs in memory, and how long one change takes in it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use super::Programs;
use super::agent::Agent;
use super::figures::percentile;
use super::manifests::{self, ENDPOINTS_OF_EACH, SERVICES, SERVICES_OF_A_FILE};
use super::noise::Noise;
use super::report::Row;
use super::same_node::{CLIENT, SERVER};
use super::world::{NODE, World};
use crate::progress::Step;

const RSS: &str = "scale/rss";
const CHANGE: &str = "scale/change";
/// The rows, in the order of the table.
pub const ROWS: [&str; 2] = [RSS, CHANGE];

/// Changes that are timed until `weft status --wait-applied` says so.
const CHANGES: u32 = 60;
/// Changes that are timed until a request is answered by them.
const SEEN_CHANGES: u32 = 10;
/// VirtualServices that change in turns.
const ROUTES: u32 = 20;
/// Between two changes: nobody edits a mesh faster, and what one leaves behind is not the next one's time.
const PAUSE: Duration = Duration::from_millis(100);

/// Measures the rows.
pub fn measure(programs: &Programs, rows: &[&str], noise: &mut Noise) -> Result<Vec<Row>> {
    let step = Step::begin(&format!("{SERVICES} services, started"), "");
    let mut world = World::new(&programs.weft, &[NODE])?;
    for pod in [CLIENT, SERVER] {
        world.add(pod)?;
    }
    let config = world.dir("config")?;
    let pods = [(CLIENT, "client", "v1"), (SERVER, "web", "v1")]
        .map(|(pod, app, v)| (pod, app, v, world.netns(pod.name)));
    fs::write(config.join("pods.yaml"), manifests::pods(&pods))?;
    for file in 0..SERVICES / SERVICES_OF_A_FILE {
        fs::write(config.join(format!("large-{file}.yaml")), manifests::many_services(file))?;
    }
    for file in 0..ROUTES {
        change(&config, file, 0)?;
    }
    let (agent, ready) = Agent::start(&world, programs, NODE, &config, &[])?;
    agent.check_objects("Service", SERVICES)?;
    agent.check_objects("EndpointSlice", SERVICES)?;
    step.done();

    let mut measured = Vec::new();
    if rows.contains(&RSS) {
        let step = Step::begin(RSS, "");
        let (settled, highest) = agent.settled_rss_mib()?;
        step.done();
        let endpoints = SERVICES * ENDPOINTS_OF_EACH;
        let notes = format!(
            "{endpoints} endpoints; highest {highest:.0} MiB; ready after {:.1} s",
            ready.as_secs_f64()
        );
        let row = Row::new(RSS, "MiB");
        measured.push(Row { weft: Some(settled), rss_mib: Some(settled), notes, ..row });
    }
    if rows.contains(&CHANGE) {
        noise.look();
        measured.push(changes(&world, programs, &agent, &config)?);
    }
    Ok(measured)
}

/// Times changes of one VirtualService each.
fn changes(world: &World, programs: &Programs, agent: &Agent<'_>, config: &Path) -> Result<Row> {
    let step = Step::begin(CHANGE, "");
    let mut applied_ms = Vec::new();
    for number in 1..=CHANGES {
        thread::sleep(PAUSE);
        change(config, number % ROUTES, number)?;
        applied_ms.push(millis(agent.wait_applied()?));
    }
    let mut seen_ms = Vec::new();
    for number in CHANGES + 1..=CHANGES + SEEN_CHANGES {
        thread::sleep(PAUSE);
        seen_ms.push(millis(seen(world, programs, config, number)?));
    }
    let rss_mib = agent.rss_mib()?.0;
    step.done();
    let of = |values: &[f64], per_cent| percentile(values, per_cent).unwrap_or_default();
    let notes = format!(
        "p99 of {CHANGES}, p50 {:.1} ms; until a request sees it p50 {:.1}, max {:.1} ms",
        of(&applied_ms, 50),
        of(&seen_ms, 50),
        of(&seen_ms, 100)
    );
    let weft = percentile(&applied_ms, 99);
    Ok(Row { weft, rss_mib: Some(rss_mib), notes, ..Row::new(CHANGE, "ms") })
}

/// Writes a new version of a VirtualService, as editors do: beside the old one, then over it.
fn change(config: &Path, file: u32, number: u32) -> Result<()> {
    let path = config.join(format!("route-{file}.yaml"));
    let partial = config.join(format!(".route-{file}.yaml"));
    fs::write(&partial, manifests::changing_route(file, number))?;
    fs::rename(&partial, &path).with_context(|| format!("cannot write {}", path.display()))
}

/// Changes a VirtualService, and returns the time until a client in the mesh was answered by it.
fn seen(world: &World, programs: &Programs, config: &Path, number: u32) -> Result<Duration> {
    let to = SocketAddr::from((manifests::large_address(0), 80));
    let mut probe = world.command(CLIENT.name, &programs.peer);
    probe.arg("until").arg(to.to_string()).args(["--host", &manifests::large_host(0)]);
    probe.args(["--text", &manifests::change_text(number)]);
    let probe = probe.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // It asks already when the change comes.
    thread::sleep(PAUSE);
    let changed = SystemTime::now();
    change(config, 0, number)?;
    let output = probe.wait_with_output()?;
    let (text, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "a request through weft: {}", error.trim());
    let seen = UNIX_EPOCH + Duration::from_micros(text.trim().parse().context("a time")?);
    Ok(seen.duration_since(changed).unwrap_or_default())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
