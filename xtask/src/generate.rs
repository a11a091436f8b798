//! Makes what of the manifests follows from the code: CustomResourceDefinitions, and what names kinds.

use anyhow::Result;

use crate::{progress, workspace};

/// Flags of `cargo xtask generate`.
#[derive(clap::Args)]
pub struct Args {}

/// Writes into `manifests`; tests of weft-api tell when that is due.
pub fn run(_: &Args) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["run", "--quiet", "--package", "weft-api", "--example", "generate", "--"]);
    cargo.arg(workspace::root().join("manifests"));
    progress::run_shown("manifests", &mut cargo)
}
