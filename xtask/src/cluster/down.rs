//! Takes the cluster down, whatever is left of it, without a trace.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use weft_tests::process::end_all;

use super::layout::{NODES, STATE};
use super::{control, mount_points, network, node, processes, sysctls};

/// What has nothing to lose is not waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// Takes it down. What is not there is no error.
pub fn run() -> Result<()> {
    for node in &NODES {
        node::stop(node)?;
    }
    let control: Vec<_> =
        control::PROGRAMS.iter().rev().filter_map(|name| processes::running(name)).collect();
    end_all(&control, PATIENCE);
    network::remove_bridge();
    sysctls::restore();
    mount_points::remove();
    if Path::new(STATE).exists() {
        fs::remove_dir_all(STATE).with_context(|| format!("cannot remove {STATE}"))?;
    }
    Ok(())
}
