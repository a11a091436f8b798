//! Plays the story of a mesh on this machine.

use anyhow::bail;

/// Flags of `cargo xtask demo`.
#[derive(clap::Args)]
pub struct Args {}

/// Plays the story of a mesh on this machine.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    bail!("`cargo xtask demo` does not exist yet")
}
