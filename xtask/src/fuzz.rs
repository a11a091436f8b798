//! Runs the fuzz targets for a while: libFuzzer with coverage of edges, by whatever compiler builds the rest.
//!
//! The folder is laid out as cargo-fuzz wants it, which works as well; nothing but cargo and a C++ compiler is needed here.
//! What was found to reach new code is kept in weft's cache, by target, and outlives the checkout.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::{progress, workspace};

/// What makes the compiler count edges and comparisons for libFuzzer, as cargo-fuzz asks for it.
const INSTRUMENTED: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
/// The longest input that is tried.
const LONGEST: u32 = 4096;
/// MiB of memory, and seconds for one input, at which a target has failed.
const MEMORY: u32 = 1024;
const ONE_INPUT: u32 = 10;

/// Flags of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub struct Args {
    /// The target; without one, `--all`
    #[arg(required_unless_present = "all")]
    target: Option<String>,
    /// Every target, one after another
    #[arg(long, conflicts_with = "target")]
    all: bool,
    /// For how long each target runs
    #[arg(long, default_value_t = 20)]
    seconds: u32,
}

/// Runs one target, or all.
pub fn run(args: &Args) -> Result<()> {
    let all = targets()?;
    let wanted: Vec<&String> =
        all.iter().filter(|name| args.target.as_ref().is_none_or(|target| target == *name)).collect();
    ensure!(!wanted.is_empty(), "there is no such target; there are {}", all.join(", "));
    let built = build()?;
    let mut failed = Vec::new();
    for target in wanted {
        let step = progress::Step::begin(target, "");
        let start = Instant::now();
        match fuzz(&built, target, args.seconds) {
            Ok(runs) => {
                step.done();
                println!("    {runs} inputs in {:.0} s", start.elapsed().as_secs_f32());
            }
            Err(error) => {
                drop(step);
                println!("{error:#}");
                failed.push(target.as_str());
            }
        }
    }
    ensure!(failed.is_empty(), "found something in: {}", failed.join(", "));
    Ok(())
}

/// The names of the targets, by their files.
fn targets() -> Result<Vec<String>> {
    let dir = dir().join("fuzz_targets");
    let entries = fs::read_dir(&dir).with_context(|| dir.display().to_string())?;
    let stem = |path: PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| stem(entry.path())).collect();
    names.sort();
    Ok(names)
}

fn dir() -> PathBuf {
    workspace::root().join("fuzz")
}

/// Builds all targets; answers where they are.
fn build() -> Result<PathBuf> {
    let host = host()?;
    // Beside the rest, but apart: everything is built otherwise.
    let target_dir = workspace::target_dir()?.join("fuzz");
    let mut cargo = workspace::cargo();
    cargo.current_dir(dir()).args(["build", "--release", "--bins", "--target", &host]);
    // `-C passes` is as stable as the LLVM below it; a stable compiler takes it.
    cargo.env("RUSTFLAGS", INSTRUMENTED).env("CARGO_TARGET_DIR", &target_dir);
    progress::run_shown("fuzz targets", &mut cargo)?;
    Ok(target_dir.join(host).join("release"))
}

/// The machine's own target: with it named, build scripts are not instrumented.
fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().context("cannot run rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("rustc names no host")
}

/// Runs a target; answers how many inputs were tried.
fn fuzz(built: &Path, target: &str, seconds: u32) -> Result<u64> {
    let corpus = workspace::cache_dir()?.join("fuzz-corpus").join(target);
    let artifacts = dir().join("artifacts").join(target);
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&artifacts)?;
    let mut command = Command::new(built.join(target));
    command.arg(&corpus);
    let seeds = seeds(target);
    command.args(seeds.is_dir().then_some(seeds));
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={LONGEST}"));
    command.arg(format!("-rss_limit_mb={MEMORY}")).arg(format!("-timeout={ONE_INPUT}"));
    command.arg(format!("-artifact_prefix={}/", artifacts.display())).arg("-print_final_stats=1");
    let output = command.output().with_context(|| format!("cannot run {target}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with('#')).collect();
        bail!("{}", lines[lines.len().saturating_sub(40)..].join("\n"));
    }
    let runs = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    runs.and_then(|runs| runs.trim().parse().ok()).with_context(|| format!("{target} counted nothing"))
}

/// Inputs to begin with, besides those found before.
fn seeds(target: &str) -> PathBuf {
    dir().join("seeds").join(target)
}
