//! `weft`: the node agent, and the commands that people type.
//!
//! Each command is one file with its flags, its help and its doing. Exit codes: 0 good, 1 found something bad,
//! 2 wrong usage.

mod analyze;
#[cfg(target_os = "linux")]
mod ca;
mod client;
mod cluster;
#[cfg(target_os = "linux")]
mod cni;
mod completion;
mod edges;
mod explain;
mod gather;
mod get;
mod install;
#[cfg(target_os = "linux")]
mod limits;
mod list;
#[cfg(target_os = "linux")]
mod logging;
mod manifest;
#[cfg(target_os = "linux")]
mod node;
mod output;
mod precheck;
mod relay;
mod status;
#[cfg(target_os = "linux")]
mod supervise;
mod tap;
mod uninstall;
mod verify;
mod version;

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser, Subcommand};

use crate::output::Outcome;

/// Workers hand memory to each other's threads all the time; jemalloc's caches are per thread and its resident size
/// stays flat under churn. What a flood took goes back to the system within seconds (`.cargo/config.toml`).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A sidecarless service mesh: Istio's rules, enforced by one agent per node.
#[derive(Debug, Parser)]
#[command(name = "weft", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 good, 1 found something bad, 2 wrong usage.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the node agent: captures the pods of this node and routes their traffic
    #[cfg(target_os = "linux")]
    Agent(Box<node::AgentArgs>),
    /// Runs what a mesh has once: its certificate authority and the webhook that checks objects
    #[cfg(target_os = "linux")]
    Ca(Box<ca::CaArgs>),
    /// Shows the agent's health, what is enrolled, what is in force and what was refused
    Status(status::StatusArgs),
    /// Says what is wrong with manifests, with line and cure
    Analyze(analyze::AnalyzeArgs),
    /// Says what would happen to a request, and which rule decides
    Explain(explain::ExplainArgs),
    /// Lists routes, endpoints, workloads, policies or certificates as the agent knows them
    Get(get::GetArgs),
    /// Shows requests and connections as they happen
    Tap(Box<tap::TapArgs>),
    /// Shows who talks to whom, and how safely
    Edges(edges::EdgesArgs),
    /// Installs weft in a cluster, or changes what is installed
    Install(install::InstallArgs),
    /// Takes weft out of a cluster
    Uninstall(uninstall::UninstallArgs),
    /// Says whether everything is there as it was installed, and ready
    VerifyInstall(verify::VerifyArgs),
    /// Prints what `weft install` applies
    Manifest(manifest::ManifestArgs),
    /// Prints versions
    Version(version::VersionArgs),
    /// Speaks to an agent's socket over standard input and output
    #[command(hide = true)]
    Relay(relay::RelayArgs),
    /// Tells the agent of pods that start, as the last of a node's CNI plugins
    #[cfg(target_os = "linux")]
    Cni(cni::CniArgs),
    /// Removes what a dead agent left behind
    #[cfg(target_os = "linux")]
    Cleanup(node::CleanupArgs),
    /// Says whether weft can run in a cluster, or on this machine, line by line
    Precheck(precheck::PrecheckArgs),
    /// Commands under the name that istioctl gives them
    #[command(name = "x", alias = "experimental", hide = true, subcommand)]
    Experimental(Experimental),
    /// Prints a completion script for a shell
    Completion(completion::CompletionArgs),
}

/// `weft x …`
#[derive(Debug, Subcommand)]
enum Experimental {
    /// Says whether weft can run in a cluster, or on this machine, line by line
    Precheck(precheck::PrecheckArgs),
}

fn main() -> ExitCode {
    // Container runtimes say nothing but the name.
    #[cfg(target_os = "linux")]
    if cni::is_plugin() {
        return ended(cni::run_plugin());
    }
    match Cli::try_parse() {
        Ok(cli) => ended(run(cli.command)),
        Err(error) => without_hidden(error).exit(),
    }
}

/// Takes what `--help` does not list out of what is suggested for a word that is none.
fn without_hidden(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::Strings(names)) = error.remove(ContextKind::SuggestedSubcommand) else {
        return error;
    };
    let cli = Cli::command();
    let is_shown = |name: &String| cli.find_subcommand(name).is_none_or(|command| !command.is_hide_set());
    let shown: Vec<String> = names.into_iter().filter(is_shown).collect();
    if !shown.is_empty() {
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(shown));
    }
    error
}

fn run(command: Command) -> anyhow::Result<Outcome> {
    match command {
        #[cfg(target_os = "linux")]
        Command::Agent(args) => args.run(),
        #[cfg(target_os = "linux")]
        Command::Ca(args) => args.run(),
        Command::Status(args) => args.run(),
        Command::Analyze(args) => args.run(),
        Command::Explain(args) => args.run(),
        Command::Get(args) => args.run(),
        Command::Tap(args) => args.run(),
        Command::Edges(args) => args.run(),
        Command::Install(args) => args.run(),
        Command::Uninstall(args) => args.run(),
        Command::VerifyInstall(args) => args.run(),
        Command::Manifest(args) => args.run(),
        Command::Version(args) => args.run(),
        Command::Relay(args) => args.run(),
        #[cfg(target_os = "linux")]
        Command::Cni(args) => args.run(),
        #[cfg(target_os = "linux")]
        Command::Cleanup(args) => args.run(),
        Command::Precheck(args) | Command::Experimental(Experimental::Precheck(args)) => args.run(),
        Command::Completion(args) => args.run(),
    }
}

fn ended(outcome: anyhow::Result<Outcome>) -> ExitCode {
    match outcome {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Bad) => ExitCode::from(1),
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::from(if error.is::<output::Usage>() { 2 } else { 1 })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_slip_is_answered_with_commands_that_are_for_people() {
        let told = |word: &str| {
            let error = Cli::try_parse_from(["weft", word]).unwrap_err();
            without_hidden(error).render().to_string()
        };
        assert!(told("statu").contains("'status'"), "{}", told("statu"));
        for slip in ["relays", "rely", "replay"] {
            assert!(!told(slip).contains("relay'"), "{}", told(slip));
        }
        assert!(
            Cli::try_parse_from(["weft", "relays"]).unwrap_err().render().to_string().contains("'relay'")
        );
    }

    #[test]
    fn every_flag_of_what_runs_in_a_cluster_can_be_set_in_the_environment() {
        let cli = Cli::command();
        let commands = ["agent", "ca"].map(|name| cli.find_subcommand(name).unwrap());
        let flags = commands.iter().flat_map(|command| command.get_arguments());
        for flag in flags.filter(|flag| !["help", "version"].contains(&flag.get_id().as_str())) {
            let env = flag.get_env().unwrap_or_else(|| panic!("--{} has no variable", flag.get_id()));
            assert!(env.to_string_lossy().starts_with("WEFT_"), "{env:?}");
        }
    }
}
