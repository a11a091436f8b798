//! `weft manifest generate`: the YAML that `weft install` applies.

use clap::{Args, Subcommand};

use crate::install::{Choice, to_yaml};
use crate::output::{self, Outcome};

/// Prints what would be installed, and asks no cluster.
#[derive(Debug, Args)]
pub struct ManifestArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Prints the YAML of a profile with the settings given
    #[command(after_help = "\
Examples:
  weft manifest generate > weft.yaml
  weft manifest generate --set profile=demo --set accessLog=json | kubectl diff -f -")]
    Generate(Choice),
}

impl ManifestArgs {
    /// Prints it.
    pub fn run(&self) -> anyhow::Result<Outcome> {
        let What::Generate(choice) = &self.what;
        output::print(&to_yaml(&choice.values()?.objects()?)?)?;
        Ok(Outcome::Good)
    }
}
