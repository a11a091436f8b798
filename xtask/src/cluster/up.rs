//! Brings the cluster up.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use weft_tests::process::Output;

use super::layout::{self, NODES, STATE, Shared};
use super::{control, down, kubernetes, mount_points, network, node, objects, pki, status, sysctls};
use crate::progress::{self, Step};
use crate::{image, setup, workspace};

/// Brings it up, unless it stands.
pub fn run(shared: Shared) -> Result<()> {
    setup::cluster_programs()?;
    if status::is_whole() {
        progress::already("the cluster stands");
        let standing = Shared::read();
        let any = Shared::default();
        ensure!(
            shared == standing || shared == any,
            "it stands as {standing:?}: `cargo xtask cluster down` first"
        );
    } else {
        if Path::new(STATE).exists() {
            let step = Step::begin("what is left of another cluster goes", "");
            down::run()?;
            step.done();
        }
        let begun = Instant::now();
        build(shared).with_context(|| {
            format!("the cluster is not up; what its parts say is in {STATE}/log (`cargo xtask cluster down` removes it)")
        })?;
        eprintln!("  ✓ two nodes, cluster DNS [{:.1} s]", begun.elapsed().as_secs_f32());
    }
    Ok(())
}

fn build(shared: Shared) -> Result<()> {
    let step = Step::begin("network, certificates, images", "");
    for dir in ["log", "processes", "images"] {
        fs::create_dir_all(layout::state(dir))?;
    }
    shared.write()?;
    sysctls::save()?;
    load_modules();
    mount_points::make()?;
    network::make()?;
    pki::make()?;
    control::start_etcd()?;
    control::start_apiserver(&[])?;
    image::write_for_cluster(&layout::state("images"))?;
    for node in &NODES {
        node::make(node)?;
        node::start(node)?;
    }
    step.done();

    let step = Step::begin("etcd, API server", "some seconds");
    control::wait_ready()?;
    control::start_controllers()?;
    control::start_scheduler()?;
    let objects = layout::state("objects.yaml");
    fs::write(&objects, objects::yaml()?)?;
    kubectl(&["apply", "--filename", &objects.display().to_string()])?;
    fs::write(layout::go(), "")?;
    step.done();

    let step = Step::begin("nodes", "some seconds");
    let mut wait = vec!["wait", "--for=condition=Ready", "--timeout=60s"];
    let names: Vec<String> = NODES.iter().map(|node| format!("node/{}", node.name)).collect();
    wait.extend(names.iter().map(String::as_str));
    kubectl(&wait)?;
    step.done();

    let step = Step::begin("cluster DNS", "some seconds");
    kubectl(&["--namespace", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=60s"])?;
    step.done();
    Ok(())
}

/// Runs `kubectl` as the cluster's administrator.
pub fn kubectl(words: &[&str]) -> Result<String> {
    let mut kubectl = Command::new(kubernetes::bin("kubectl")?);
    kubectl.arg("--kubeconfig").arg(layout::kubeconfig("admin")).args(words);
    Output::of(&mut kubectl)?.good().with_context(|| format!("kubectl {}", words.join(" ")))
}

/// Where the kernel has them as modules, nobody may have loaded them yet.
fn load_modules() {
    if workspace::in_path("modprobe").is_some() {
        let mut modprobe = Command::new("modprobe");
        modprobe.args(["--quiet", "--all", "overlay", "br_netfilter", "nf_conntrack"]);
        modprobe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().ok();
    }
}
