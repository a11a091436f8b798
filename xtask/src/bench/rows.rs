//! Rows that compare: the same load directly and through the agents of one node or two, in turns.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Programs;
use super::agent::Agent;
use super::figures::{Sample, median};
use super::load::{self, Load, Target};
use super::manifests;
use super::noise::Noise;
use super::report::Row;
use super::world::{Pod, World};
use crate::progress::Step;

/// A row, before it is measured.
pub struct Planned {
    pub name: &'static str,
    pub load: Load,
    pub unit: &'static str,
}

/// Who is measured.
pub struct Bench<'a> {
    pub world: &'a World,
    pub programs: &'a Programs,
    /// Every agent on the way.
    pub agents: &'a [Agent<'a>],
    /// The client in the mesh.
    pub client: Pod,
    /// Client and server outside of it.
    pub plain: (Pod, Pod),
    /// Where the agents are asked.
    pub target: Target,
    pub seconds: u32,
}

/// A measurement through weft.
struct Meshed {
    sample: Sample,
    cpu_us_per_op: f64,
}

impl Bench<'_> {
    /// Requests that carry the header must reach all of these servers, or the figures would be those of something else.
    pub fn check_that_it_routes(&self, servers: &[Pod]) -> Result<()> {
        let mut curl = self.world.command(self.client.name, Path::new("curl"));
        curl.args(["--silent", "--show-error", "--max-time", "5", "--fail-early", "--output", "/dev/null"]);
        curl.args(["--write-out", "%{http_code} %header{x-pod}\n", "--header", manifests::MATCHED_HEADER]);
        curl.args(["--header", &format!("Host: {}", manifests::HOST)]);
        let answers = load::output(curl.arg(format!("http://{}/[1-100]", manifests::WEB_ADDRESS)))?;
        for pod in servers {
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

    /// Measures a row.
    pub fn row(&self, row: &Planned, runs: u32, noise: &mut Noise) -> Result<Row> {
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
        let rss_mib = largest_rss_mib(self.agents)?;
        step.done();

        let meshed_samples: Vec<Sample> = meshed.iter().map(|run| run.sample).collect();
        let both = |value: fn(&Sample) -> Option<f64>| {
            let direct = median(direct.iter().filter_map(value));
            let weft = median(meshed_samples.iter().filter_map(value));
            (direct, weft, weft.zip(direct).map(|(weft, direct)| weft / direct))
        };
        let (direct_rate, weft, ratio) = both(|sample| Some(sample.rate));
        let notes = match (row.load, both(|sample| sample.p50_us), both(|sample| sample.p99_us)) {
            // At a fixed rate the times are what counts.
            (Load::HttpRate(_), (_, Some(p50), _), (Some(direct), Some(p99), _)) => {
                format!("p50 {p50:.0} us, p99 {p99:.0} us: {:.0} us above direct", p99 - direct)
            }
            _ => String::new(),
        };
        Ok(Row {
            direct: direct_rate,
            weft,
            ratio,
            p50_ratio: both(|sample| sample.p50_us).2,
            p99_ratio: both(|sample| sample.p99_us).2,
            cpu_us_per_op: median(meshed.iter().map(|run| run.cpu_us_per_op)),
            rss_mib: Some(rss_mib),
            notes,
            ..Row::new(row.name, row.unit)
        })
    }

    fn direct(&self, load: Load, seconds: u32) -> Result<Sample> {
        let (client, server) = self.plain;
        load.run(self.world, self.programs, client, &Target::pod(server), seconds)
    }

    fn meshed(&self, load: Load, seconds: u32) -> Result<Meshed> {
        let run = || load.run(self.world, self.programs, self.client, &self.target, seconds);
        let (sample, cpu_us_per_op) = with_cpu(self.agents, run)?;
        Ok(Meshed { sample, cpu_us_per_op })
    }
}

/// Runs a load; what it cost these agents together, in microseconds for each of its operations.
pub fn with_cpu(agents: &[Agent<'_>], run: impl FnOnce() -> Result<Sample>) -> Result<(Sample, f64)> {
    let cpu = || agents.iter().map(Agent::cpu).sum::<Result<std::time::Duration>>();
    let before = cpu()?;
    let sample = run()?;
    let used = cpu()?.saturating_sub(before);
    Ok((sample, used.as_secs_f64() * 1e6 / sample.operations))
}

/// Resident memory of the largest of these agents.
pub fn largest_rss_mib(agents: &[Agent<'_>]) -> Result<f64> {
    agents.iter().try_fold(0.0, |largest: f64, agent| Ok(largest.max(agent.rss_mib()?.0)))
}
