//! Runs every check and every test, and says what came of them.
//!
//! One build serves all: binaries and tests share a profile and a set of features. A check that fails does not keep the
//! others from running. What this machine cannot run is skipped with its reason; with `CI=true` a skip is a failure.

mod binaries;
mod on_cluster;
mod report;
mod runner;

use anyhow::{Result, bail};

use crate::{build, progress, setup, workspace};
use report::{Outcome, Report};

/// Flags of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Args {
    /// Only these parts
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Only stories on a Kubernetes cluster: the same as `--only cluster`
    #[arg(long, conflicts_with = "only")]
    cluster: bool,
    /// With --cluster: use the cluster that stands, if one does, and leave it standing
    #[arg(long, requires = "cluster")]
    keep: bool,
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// What `cargo xtask test` consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Formatting and clippy
    Lint,
    /// Tests of single crates
    Unit,
    /// Stories in network namespaces
    Stories,
    /// Stories of minutes, only when they are asked for
    Endurance,
    /// Stories on a Kubernetes cluster of two nodes
    Cluster,
}

/// Runs every test.
pub fn run(args: &Args) -> Result<()> {
    let wanted = |part: Part| match (args.only.is_empty(), &args.filter) {
        _ if args.cluster => part == Part::Cluster,
        (false, _) => args.only.contains(&part),
        (true, _) if part == Part::Endurance => false,
        (true, Some(_)) => part != Part::Lint,
        (true, None) => true,
    };
    setup::test_programs()?;
    build::run(&build::Args::default())?;
    let mut report = Report::begin();
    if wanted(Part::Lint) {
        lint(&mut report);
    }
    let filter = args.filter.as_deref();
    if wanted(Part::Unit) || wanted(Part::Stories) || wanted(Part::Endurance) {
        // Stories alone do not need the crates built once more with their unit tests.
        let targets: &[&str] = if wanted(Part::Unit) { &[] } else { &["--test", "stories"] };
        let binaries = binaries::build_only(targets)?;
        report.restart_clock();
        if wanted(Part::Unit) {
            let unit: Vec<_> = binaries.iter().filter(|binary| binary.is_unit()).collect();
            report.add("unit tests", runner::run(&unit, filter)?);
            report.add("examples in the documentation", runner::documentation(filter)?);
        }
        if wanted(Part::Stories) {
            stories(&mut report, "stories in network namespaces", &binaries, |stories| {
                runner::run(stories, filter)
            })?;
        }
        if wanted(Part::Endurance) {
            stories(&mut report, "stories of minutes", &binaries, |stories| {
                runner::run_endurance(stories, filter)
            })?;
        }
    }
    if wanted(Part::Cluster) {
        report.add("stories on a cluster", on_cluster::run(filter, args.keep)?);
    }
    let skips_fail = std::env::var("CI").is_ok_and(|ci| ci == "true");
    if report.print(skips_fail) { Ok(()) } else { bail!("not everything is as it should be") }
}

fn lint(report: &mut Report) {
    let mut format = workspace::cargo();
    format.args(["fmt", "--all", "--check"]);
    let mut format_ebpf = workspace::cargo();
    format_ebpf.args(["fmt", "--check", "--manifest-path", "ebpf/Cargo.toml"]);
    let mut clippy = workspace::cargo();
    clippy.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    for (name, mut command) in
        [("format", format), ("format, kernel programs", format_ebpf), ("clippy", clippy)]
    {
        let outcome = match progress::run_shown(name, &mut command) {
            Ok(()) => Outcome::passed(1),
            Err(error) => Outcome::failed(vec![format!("{error:#}")]),
        };
        report.add(name, outcome);
    }
}

fn stories(
    report: &mut Report,
    name: &str,
    binaries: &[binaries::Binary],
    run: impl Fn(&[&binaries::Binary]) -> Result<Outcome>,
) -> Result<()> {
    let stories: Vec<_> = binaries.iter().filter(|binary| binary.is_stories()).collect();
    let outcome = if rustix::process::geteuid().is_root() {
        run(&stories)?
    } else {
        Outcome::skipped("stories load kernel programs and make network namespaces: run as root")
    };
    report.add(name, outcome);
    Ok(())
}
