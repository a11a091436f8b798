//! A Kubernetes cluster of two nodes on this machine: etcd, API server, controller manager and scheduler as plain
//! processes, and each node with its containerd, kubelet and kube-proxy in namespaces and control groups of its own.

mod cgroups;
mod config;
mod control;
mod down;
mod kubernetes;
mod layout;
mod load;
mod mount_points;
mod network;
mod node;
mod node_init;
mod objects;
mod pki;
mod processes;
mod status;
mod sysctls;
mod up;

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::progress::{Step, already};
use crate::workspace;

pub use kubernetes::{bin as program, coredns_version, ensure as ensure_programs};
pub use layout::Shared;
pub use status::is_whole as stands;

/// Flags of `cargo xtask cluster`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Bring it up and print what to export; when it stands already, only that
    Up {
        #[command(flatten)]
        shared: layout::Shared,
    },
    /// Take it down without a trace
    Down,
    /// What runs; exit code 1 if not all of it does
    Status,
    /// Switch a node off or on
    Node {
        /// What to do
        #[arg(value_enum)]
        switch: Switch,
        /// Which one
        #[arg(value_name = "NODE")]
        name: String,
    },
    /// Run a command on a node
    Exec {
        /// Which one
        #[arg(value_name = "NODE")]
        name: String,
        /// The command
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// Import image archives into both nodes
    Load {
        /// OCI or Docker archives
        #[arg(required = true, value_name = "ARCHIVE")]
        archives: Vec<PathBuf>,
    },
    /// End the API server, or start it again
    Apiserver {
        /// What to do
        #[arg(value_enum)]
        switch: Switch,
        /// More flags of its own, such as --feature-gates=WatchList=false
        #[arg(last = true)]
        flags: Vec<String>,
    },
    /// End the controller manager, or start it again: without it nobody creates or deletes objects on their own
    Controllers {
        /// What to do
        #[arg(value_enum)]
        switch: Switch,
    },
    /// Become a node's process
    #[command(hide = true)]
    NodeBoot { name: String },
    /// Be a node's pid 1
    #[command(hide = true)]
    NodeInit { name: String },
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Switch {
    /// Off: all its processes end where they stand
    Stop,
    /// On
    Start,
}

/// Does what is asked of the cluster.
pub fn run(args: &Args) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "the cluster makes namespaces and mounts: run it as root");
    match &args.action {
        Action::Up { shared } => {
            up(*shared)?;
            status::print_use()
        }
        Action::Down => down(),
        Action::Status => status::run(),
        Action::Node { switch, name } => switch_node(node::named(name)?, *switch),
        Action::Exec { name, command } => {
            Err(node::login(node::named(name)?, command)?.exec()).context("cannot run nsenter")
        }
        Action::Load { archives } => load(archives),
        Action::Apiserver { switch, flags } => switch_apiserver(*switch, flags),
        Action::Controllers { switch } => switch_controllers(*switch),
        Action::NodeBoot { name } => node::boot(node::named(name)?),
        Action::NodeInit { name } => node_init::run(node::named(name)?),
    }
}

/// Brings it up, unless it stands.
pub fn up(shared: Shared) -> Result<()> {
    let _lock = lock()?;
    up::run(shared)
}

/// Takes it down.
pub fn down() -> Result<()> {
    let _lock = lock()?;
    let step = Step::begin("cluster, down", "");
    down::run()?;
    step.done();
    Ok(())
}

/// Imports image archives into both nodes.
pub fn load(archives: &[PathBuf]) -> Result<()> {
    let step = Step::begin(&format!("{} images into both nodes", archives.len()), "");
    let names = load::run(archives)?;
    step.done();
    already(&names.join(", "));
    Ok(())
}

fn switch_node(node: &layout::Node, switch: Switch) -> Result<()> {
    ensure!(layout::state("processes").exists(), "no cluster stands here: `cargo xtask cluster up`");
    match (switch, processes::running(node.name)) {
        (Switch::Stop, _) => {
            let step = Step::begin(&format!("{} off", node.name), "");
            node::stop(node)?;
            step.done();
        }
        (Switch::Start, Some(_)) => already(&format!("{} runs", node.name)),
        (Switch::Start, None) => {
            // Whatever ended it left its network and groups.
            node::stop(node)?;
            let step = Step::begin(&format!("{} on", node.name), "");
            node::start(node)?;
            step.done();
        }
    }
    Ok(())
}

fn switch_apiserver(switch: Switch, flags: &[String]) -> Result<()> {
    ensure!(layout::state("processes").exists(), "no cluster stands here: `cargo xtask cluster up`");
    match (switch, processes::running(control::APISERVER)) {
        (Switch::Stop, _) => control::stop(control::APISERVER),
        (Switch::Start, Some(_)) => already("the API server runs"),
        (Switch::Start, None) => {
            let step = Step::begin("API server", "some seconds");
            control::start_apiserver(flags)?;
            control::wait_ready()?;
            control::start_over()?;
            step.done();
        }
    }
    Ok(())
}

fn switch_controllers(switch: Switch) -> Result<()> {
    ensure!(layout::state("processes").exists(), "no cluster stands here: `cargo xtask cluster up`");
    match (switch, processes::running(control::CONTROLLERS)) {
        (Switch::Stop, _) => control::stop(control::CONTROLLERS),
        (Switch::Start, Some(_)) => already("the controller manager runs"),
        (Switch::Start, None) => control::start_controllers()?,
    }
    Ok(())
}

/// Two at once would build each other's halves.
fn lock() -> Result<std::fs::File> {
    let dir = workspace::cache_dir()?;
    std::fs::create_dir_all(&dir)?;
    let lock = std::fs::File::create(dir.join("cluster.lock"))?;
    lock.lock().context("cannot lock the cluster")?;
    Ok(lock)
}
