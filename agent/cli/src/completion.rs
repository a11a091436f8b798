//! `weft completion`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::output::{self, Outcome};

/// Prints a script that completes weft's commands and flags.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  source <(weft completion bash)
  weft completion zsh > ~/.zfunc/_weft")]
pub struct CompletionArgs {
    /// Shell
    shell: Shell,
}

impl CompletionArgs {
    /// Prints the script.
    pub fn run(&self) -> anyhow::Result<Outcome> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut crate::Cli::command(), "weft", &mut script);
        output::print(&String::from_utf8(script)?)?;
        Ok(Outcome::Good)
    }
}
