//! Makes the files that follow from the code: the CustomResourceDefinitions.

use anyhow::Result;

use crate::{progress, workspace};

/// Flags of `cargo xtask generate`.
#[derive(clap::Args)]
pub struct Args {}

/// Writes `manifests/crds`; a test of weft-api tells when that is due.
pub fn run(_: &Args) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["run", "--quiet", "--package", "weft-api", "--example", "crds", "--"]);
    cargo.arg(workspace::root().join("manifests/crds"));
    progress::run_shown("manifests/crds", &mut cargo)
}
