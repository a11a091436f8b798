//! `weft cni`: the plugin that container runtimes run, and its removal.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use weft_node::cni::{install, plugin};

use crate::output::{self, Outcome, Usage};

/// Where runtimes look for configurations.
pub const CONF_DIR: &str = "/etc/cni/net.d";
/// Where they look for plugins.
pub const BIN_DIR: &str = "/opt/cni/bin";

/// The last of a node's CNI plugins: it tells the agent of each pod before the pod's programs run.
///
/// Container runtimes run it as `weft-cni`, with CNI_COMMAND in the environment and a configuration on standard input
/// (CNI 0.3.1 to 1.1.0). The agent puts it in place: see `weft agent --cni`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weft cni uninstall                            takes the plugin off this node, of which the agent is gone
  CNI_COMMAND=VERSION weft cni < /dev/null      as a runtime runs it")]
pub struct CniArgs {
    #[command(subcommand)]
    command: Option<CniCommand>,
}

#[derive(Debug, Subcommand)]
enum CniCommand {
    /// Takes the plugin out of the node's CNI chain, and its binary away
    Uninstall(UninstallArgs),
}

#[derive(Debug, Args)]
struct UninstallArgs {
    /// The node's CNI configurations
    #[arg(long, value_name = "DIR", env = "WEFT_CNI_CONF_DIR", default_value = CONF_DIR)]
    cni_conf_dir: PathBuf,
    /// The node's CNI plugins
    #[arg(long, value_name = "DIR", env = "WEFT_CNI_BIN_DIR", default_value = BIN_DIR)]
    cni_bin_dir: PathBuf,
}

impl CniArgs {
    /// Does what the runtime, or a person, asks for.
    pub fn run(&self) -> anyhow::Result<Outcome> {
        match &self.command {
            None => run_plugin(),
            Some(CniCommand::Uninstall(args)) => {
                let any = install::remove(&args.cni_conf_dir, &args.cni_bin_dir)?;
                output::print(if any { "Out of the CNI chain.\n" } else { "Nothing of weft is there.\n" })?;
                Ok(Outcome::Good)
            }
        }
    }
}

/// Whether this process was started by a container runtime, as the plugin.
pub fn is_plugin() -> bool {
    let name = std::env::args_os().next().map(PathBuf::from);
    name.as_deref().and_then(std::path::Path::file_name).is_some_and(|name| name == weft_node::cni::PLUGIN)
}

/// Runs the plugin once.
pub fn run_plugin() -> anyhow::Result<Outcome> {
    if std::env::var_os("CNI_COMMAND").is_none() {
        return Err(Usage(
            "container runtimes run this: there is no CNI_COMMAND in the environment".to_owned(),
        )
        .into());
    }
    let mut input = Vec::new();
    if !std::io::stdin().is_terminal() {
        std::io::stdin().read_to_end(&mut input)?;
    }
    let variable = |name: &str| std::env::var(name).ok();
    let (answer, good) = plugin::run(&plugin::Call { variable: &variable, input: &input });
    output::print(&answer)?;
    Ok(if good { Outcome::Good } else { Outcome::Bad })
}
