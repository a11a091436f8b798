//! `cargo xtask …`: set-up, builds, demo, cluster, tests and benchmarks of weft.
mod bench;
mod build;
mod cluster;
mod demo;
mod digest;
mod ebpf;
mod fuzz;
mod generate;
mod image;
mod progress;
mod setup;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set-up, builds, demo, tests and benchmarks of weft.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install the eBPF toolchain and the programs that tests need
    Setup(setup::Args),
    /// Build the eBPF programs, then the workspace
    Build(build::Args),
    /// Play the story of a mesh on this machine
    Demo(demo::Args),
    /// A Kubernetes cluster of two nodes on this machine
    Cluster(cluster::Args),
    /// Write container images as OCI archives
    Image(image::Args),
    /// Make what of the manifests follows from the code: definitions, and what names kinds
    Generate(generate::Args),
    /// Run every test
    Test(test::Args),
    /// Feed weft's parsers with what nobody would write
    Fuzz(fuzz::Args),
    /// Measure weft against direct connections
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not the derived text, which is followed by a backtrace: these are the user's errors, not ours.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
