//! `weft version`.

use clap::Args;
use weft_api::admin::{Status, paths};

use crate::client::{AgentAt, Unreachable, block_on};
use crate::output::{self, Format, Outcome};

/// Prints this program's version, and the agent's if one runs on this node.
#[derive(Debug, Args)]
pub struct VersionArgs {
    /// Print data instead of text
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    agent: AgentAt,
}

#[derive(Debug, serde::Serialize)]
struct Versions {
    client: &'static str,
    agent: Option<String>,
}

impl VersionArgs {
    /// Prints versions. That there is no mesh is no failure.
    pub fn run(&self) -> anyhow::Result<Outcome> {
        let client = env!("CARGO_PKG_VERSION");
        let status = block_on(self.agent.get::<Status>(paths::STATUS));
        let agent = status.as_ref().ok().map(|status| status.version.clone());
        if let Some(format) = self.output {
            output::data(format, &Versions { client, agent })?;
            return Ok(Outcome::Good);
        }
        let found = match status {
            Ok(status) => format!("agent   {} on node {}", status.version, status.node),
            Err(error) if matches!(error.downcast_ref(), Some(Unreachable::Nobody { .. })) => {
                format!("no mesh was found: no agent runs at {}", self.agent.run_dir.display())
            }
            Err(error) => format!("no mesh was found: {error:#}"),
        };
        output::print(&format!("client  {client}\n{found}\n"))?;
        Ok(Outcome::Good)
    }
}
