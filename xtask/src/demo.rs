//! Plays the story of a mesh on this machine: pods as network namespaces, two nodes with an agent each, and the manifests
//! that people know from tutorials. Then it stays up to be played with.

mod after;
mod bookinfo;
mod ftgo;
mod shop;
mod stage;
mod two_nodes;

use anyhow::{Context, Result, bail, ensure};
use weft_tests::{Mesh, World, scenarios};

use crate::{build, progress, setup};
use stage::Stage;
use two_nodes::{CERTIFICATE_LIFE, FAR, NEAR};

/// The demo's number among worlds: its pods are 10.244.200.x.
const WORLD: u8 = 200;

/// Flags of `cargo xtask demo`.
#[derive(clap::Args)]
pub struct Args {
    /// Leave when the story is told; exit code 1 if any step went wrong
    #[arg(long)]
    once: bool,
}

/// Plays the story of a mesh on this machine.
pub fn run(args: &Args) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "the demo makes network namespaces: run it as root");
    setup::test_programs()?;
    build::run(&build::Args::default())?;

    let step = progress::Step::begin("two nodes, 11 pods, 7 services", "");
    let mesh = Mesh::on(World::named("demo", WORLD)?)?.with_pods_on(NEAR);
    mesh.add_node(FAR)?;
    scenarios::deploy_shop(&mesh)?;
    scenarios::deploy_bookinfo_on(&mesh, |app| matches!(app, "ratings" | "details").then_some(FAR))?;
    scenarios::deploy_ftgo(&mesh)?;
    mesh.start_kube_proxy()?;
    step.done();
    let step = progress::Step::begin("two weft agents: kernel programs, certificates, enrolment of pods", "");
    mesh.start_agents_with(&[NEAR, FAR], &[CERTIFICATE_LIFE]).context("an agent did not start")?;
    mesh.wait_applied()?;
    step.done();

    let mut stage = Stage::new();
    shop::play(&mut stage, &mesh);
    bookinfo::play(&mut stage, &mesh);
    two_nodes::play(&mut stage, &mesh);
    ftgo::play(&mut stage, &mesh);
    stage.curtain();
    let (_, bad) = stage.score();
    if !args.once {
        after::stay(&stage, &mesh)?;
    }
    if !bad.is_empty() {
        bail!("{} of the demo's steps went wrong", bad.len());
    }
    Ok(())
}
