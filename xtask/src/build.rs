//! Builds the eBPF programs, then the workspace's binaries.

use anyhow::Result;

use crate::{ebpf, progress, setup, workspace};

/// Flags of `cargo xtask build`.
#[derive(clap::Args, Default)]
pub struct Args {
    /// Build with optimisations
    #[arg(long)]
    pub release: bool,
    /// Use FIPS-approved cryptography alone (AWS-LC's FIPS module; needs cmake and Go)
    #[arg(long)]
    pub fips: bool,
}

/// Builds everything; sets up the toolchain first if it is missing.
pub fn run(args: &Args) -> Result<()> {
    let toolchain = setup::ebpf_toolchain()?;
    ebpf::build(&toolchain)?;
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--workspace", "--bins"]);
    if args.release {
        cargo.arg("--release");
    }
    if args.fips {
        cargo.args(["--features", "weft/fips"]);
    }
    // A running xtask cannot always be replaced, and need not be.
    cargo.args(["--exclude", "xtask"]);
    let profile = if args.release { "release" } else { "dev" };
    progress::run_shown(&format!("weft ({profile})"), &mut cargo)
}
