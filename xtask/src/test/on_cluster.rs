//! Stories on a Kubernetes cluster, which is brought up for them and taken down whatever came of them.

use anyhow::Result;

use super::report::Outcome;
use super::{binaries, runner};
use crate::{cluster, image, setup};

/// Runs them, where this machine can.
pub fn run(filter: Option<&str>, keep: bool) -> Result<Outcome> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Outcome::skipped("a cluster makes namespaces and control groups: run as root"));
    }
    if !keep && cluster::stands() {
        return Ok(Outcome::failed(vec![
            "a cluster stands already: `cargo xtask cluster down`, or run these stories on it by `--cluster --keep`"
                .to_owned(),
        ]));
    }
    if let Err(error) = setup::cluster_programs() {
        return Ok(Outcome::skipped(&format!("no Kubernetes to run: {error:#}")));
    }
    let binaries = binaries::build_only(&["--test", "cluster"])?;
    let stories: Vec<_> = binaries.iter().filter(|binary| binary.is_cluster()).collect();
    let outcome = cluster::up(cluster::Shared::default())
        .and_then(|()| cluster::load(&image::write_for_tests()?))
        .and_then(|()| runner::run_on_cluster(&stories, filter))
        .unwrap_or_else(|error| Outcome::failed(vec![format!("cluster: {error:#}")]));
    if !keep {
        cluster::down()?;
    }
    Ok(outcome)
}
