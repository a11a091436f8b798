//! Measures weft against direct connections.

use anyhow::bail;

/// Flags of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Args {}

/// Measures weft against direct connections.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    bail!("`cargo xtask bench` does not exist yet")
}
