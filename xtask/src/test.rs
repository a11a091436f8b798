//! Runs every test.

use anyhow::bail;

/// Flags of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Args {}

/// Runs every test.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    bail!("`cargo xtask test` does not exist yet")
}
