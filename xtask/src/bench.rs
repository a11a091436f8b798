//! Measures weft against direct connections.
//!
//! Pods are network namespaces on one bridge, in the mesh and out of it side by side. Each row is measured directly and
//! through weft in turns, so that both see the same machine, and compared by its medians.
#![expect(clippy::cast_precision_loss, reason = "counts and ticks of a bench are far below 2^52")]

mod agent;
mod figures;
mod gateway;
mod load;
mod manifests;
mod noise;
mod report;
mod rows;
mod same_node;
mod scale;
mod two_nodes;
mod world;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::{build, progress, setup, workspace};
use noise::Noise;
use report::Row;

/// Flags of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Args {
    /// Only rows whose name begins so, for example `same-node/tcp`
    #[arg(long, value_name = "PREFIX")]
    only: Option<String>,
    /// How often each row is measured, directly and through weft
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Measure what `cargo xtask build --release` built last
    #[arg(long)]
    no_build: bool,
    /// Write the rows to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The built programs that a measurement runs.
struct Programs {
    weft: PathBuf,
    peer: PathBuf,
}

/// Measures weft against direct connections.
pub fn run(args: &Args) -> Result<()> {
    let wanted = |row: &str| args.only.as_deref().is_none_or(|prefix| row.starts_with(prefix));
    let same_node: Vec<_> = same_node::ROWS.iter().filter(|row| wanted(row.name)).collect();
    let two_nodes: Vec<_> = two_nodes::ROWS.iter().filter(|row| wanted(row.name)).collect();
    let handshakes: Vec<_> = two_nodes::HANDSHAKES.iter().copied().filter(|row| wanted(row)).collect();
    let gateway: Vec<_> = gateway::ROWS.iter().filter(|row| wanted(row.name)).collect();
    let certificates = wanted(gateway::CERTIFICATES);
    let scale: Vec<_> = scale::ROWS.iter().copied().filter(|row| wanted(row)).collect();
    let compared = [&same_node, &two_nodes, &gateway];
    if compared.iter().all(|rows| rows.is_empty())
        && handshakes.is_empty()
        && scale.is_empty()
        && !certificates
    {
        let compared = same_node::ROWS.iter().chain(two_nodes::ROWS).chain(gateway::ROWS).map(|row| row.name);
        let others = two_nodes::HANDSHAKES.into_iter().chain(scale::ROWS).chain([gateway::CERTIFICATES]);
        let names: Vec<_> = compared.chain(others).collect();
        bail!("no row begins with {:?}; there are {}", args.only.as_deref().unwrap_or(""), names.join(", "));
    }
    ensure!(rustix::process::geteuid().is_root(), "bench makes network namespaces: it runs as root only");

    setup::test_programs()?;
    if !args.no_build {
        build::run(&build::Args { release: true, fips: false })?;
    }
    let release = workspace::target_dir()?.join("release");
    let programs = Programs { weft: release.join("weft"), peer: release.join("weft-bench-peer") };
    world::sweep(&programs.weft);

    let mut noise = Noise::at_start();
    let mut rows = Vec::new();
    if !same_node.is_empty() {
        rows.extend(same_node::measure(&programs, &same_node, args.runs, args.seconds, &mut noise)?);
    }
    if !two_nodes.is_empty() || !handshakes.is_empty() {
        let (runs, seconds) = (args.runs, args.seconds);
        rows.extend(two_nodes::measure(&programs, &two_nodes, &handshakes, runs, seconds, &mut noise)?);
    }
    if !gateway.is_empty() || certificates {
        let (runs, seconds) = (args.runs, args.seconds);
        rows.extend(gateway::measure(&programs, &gateway, certificates, runs, seconds, &mut noise)?);
    }
    if !scale.is_empty() {
        rows.extend(scale::measure(&programs, &scale, &mut noise)?);
    }
    report::print(&rows);
    noise.print();
    args.json.as_deref().map_or(Ok(()), |file| write_json(file, &rows))
}

fn write_json(file: &Path, rows: &[Row]) -> Result<()> {
    let text = serde_json::to_string_pretty(rows)? + "\n";
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    progress::already(&format!("{} rows in {}", rows.len(), file.display()));
    Ok(())
}
