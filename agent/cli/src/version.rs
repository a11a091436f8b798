//! `weft version`.

use clap::Args;
use futures_util::future::join_all;
use weft_api::admin::{Status, paths};

use crate::client::{Agent, AgentAt, Unreachable, block_on};
use crate::output::{self, Format, Outcome, safe_lines};

/// Prints this program's version, and those of the agents: of this machine's if one runs here, else of the cluster's.
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
    /// It uses FIPS-approved cryptography alone.
    fips: bool,
    /// This machine's agent.
    agent: Option<String>,
    /// The agents of a cluster.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    agents: Vec<AgentVersion>,
}

/// An agent, and its version or why it is not known.
#[derive(Debug, serde::Serialize)]
struct AgentVersion {
    node: String,
    version: Option<String>,
    /// Its TLS is made of FIPS-approved cryptography alone.
    fips: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl VersionArgs {
    /// Prints versions. That there is no mesh is no failure.
    pub fn run(&self) -> anyhow::Result<Outcome> {
        let client = env!("CARGO_PKG_VERSION");
        let fips = cfg!(feature = "fips");
        let mut versions = Versions { client, fips, agent: None, agents: Vec::new() };
        let found = match block_on(self.ask(&mut versions)) {
            Ok(found) => found,
            Err(error) => {
                let told = format!("{error:#}");
                let nobody = error.downcast_ref::<Unreachable>();
                match nobody {
                    Some(Unreachable::Nobody { dir }) if self.agent.run_dir.is_some() => {
                        format!("no mesh was found: no agent runs at {}\n", dir.display())
                    }
                    Some(Unreachable::Nobody { .. }) => {
                        "no mesh was found: no agent runs on this machine, and no cluster is known here\n"
                            .to_owned()
                    }
                    _ if told.starts_with("no mesh was found") => format!("{told}\n"),
                    _ => format!("no mesh was found: {told}\n"),
                }
            }
        };
        match self.output {
            Some(format) => output::data(format, &versions)?,
            None => output::print(&safe_lines(&format!("client  {client}{}\n{found}", mark(fips))))?,
        }
        Ok(Outcome::Good)
    }

    async fn ask(&self, versions: &mut Versions) -> anyhow::Result<String> {
        let agents = self.agent.agents().await?;
        let answers = join_all(agents.iter().map(|agent| agent.get::<Status>(paths::STATUS))).await;
        let mut text = String::new();
        for (agent, answer) in agents.iter().zip(answers) {
            let Agent::InPod(pod) = agent else {
                let status = answer?;
                versions.agent = Some(status.version.clone());
                let Status { version, fips, node, .. } = status;
                return Ok(format!("agent   {version}{} on node {node}\n", mark(fips)));
            };
            let node = pod.node.clone();
            let (version, fips, problem) = match answer {
                Ok(status) => (Some(status.version), status.fips, None),
                Err(error) => (None, false, Some(format!("{error:#}"))),
            };
            let told = version.as_deref().or(problem.as_deref()).unwrap_or_default();
            text += &["agent   ", told, mark(fips), " on node ", &node, "\n"].concat();
            versions.agents.push(AgentVersion { node, version, fips, problem });
        }
        Ok(text)
    }
}

/// Behind the version of what uses FIPS-approved cryptography alone.
fn mark(fips: bool) -> &'static str {
    if fips { " (FIPS)" } else { "" }
}
