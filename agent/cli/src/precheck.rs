//! `weft precheck`: will weft run here?

#[cfg(target_os = "linux")]
mod local;
mod mesh;
mod network;
mod nodes;
mod permissions;

use std::fmt::Write;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::client::block_on;
use crate::cluster::{Cluster, ClusterAt, NoCluster};
use crate::output::{self, Format, Outcome, Paint, Tone, safe};

/// Looks at the cluster of the kubeconfig, and at each node through the agent that runs there; where there is no cluster,
/// at this machine.
///
/// Each line is one thing that weft needs; a failure has its cure beside it. Nothing is changed, but for the pods of
/// --node-checks, which are taken away again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weft precheck                       exit code 1 if weft cannot run there
  weft precheck --node-checks         also the kernels of nodes without an agent, by a short-lived pod on each
  weft precheck --local               this machine")]
pub struct PrecheckArgs {
    /// Look at this machine, at no cluster
    #[arg(long)]
    local: bool,
    /// Start a pod on each node without an agent, in a namespace of its own, to look at the node's kernel
    #[arg(long, conflicts_with = "local")]
    node_checks: bool,
    /// Image of those pods
    #[arg(long, value_name = "IMAGE", requires = "node_checks")]
    image: Option<String>,
    /// Print data instead of text
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    cluster: ClusterAt,
}

/// How it is with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It will do.
    Ok,
    /// It will do, and is worth knowing.
    Note,
    /// It will not do.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Where; empty for this machine or the whole cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// What.
    pub what: String,
    /// How it is.
    pub verdict: Verdict,
    /// In words.
    pub told: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cure: String,
}

impl Line {
    /// A finding: a good state in words, or what is wrong and what to do.
    pub fn new(what: &str, finding: Result<String, (String, &str)>) -> Self {
        let (verdict, told, cure) = match finding {
            Ok(told) => (Verdict::Ok, told, ""),
            Err((told, cure)) => (Verdict::Fail, told, cure),
        };
        Self { node: String::new(), what: what.to_owned(), verdict, told, cure: cure.to_owned() }
    }

    /// Something that is worth knowing.
    pub fn note(what: &str, told: impl Into<String>, cure: &str) -> Self {
        Self { verdict: Verdict::Note, ..Self::new(what, Err((told.into(), cure))) }
    }

    /// The same, of a node.
    pub fn on(self, node: &str) -> Self {
        Self { node: node.to_owned(), ..self }
    }
}

impl PrecheckArgs {
    /// Looks, and tells.
    pub fn run(&self) -> anyhow::Result<Outcome> {
        let lines = if self.local {
            this_machine()?
        } else {
            block_on(async {
                match self.cluster.connect().await {
                    Err(error) if error.is::<NoCluster>() && !self.node_checks => this_machine(),
                    cluster => self.look(&cluster?).await,
                }
            })?
        };
        match self.output {
            Some(format) => output::data(format, &lines)?,
            None => output::print(&render(&lines, Paint::stdout())?)?,
        }
        let bad = lines.iter().any(|line| line.verdict == Verdict::Fail);
        Ok(if bad { Outcome::Bad } else { Outcome::Good })
    }

    async fn look(&self, cluster: &Cluster) -> anyhow::Result<Vec<Line>> {
        let mut lines = mesh::look(cluster).await?;
        lines.extend(network::look(cluster).await?);
        lines.extend(permissions::look(cluster).await?);
        lines.extend(nodes::look(cluster, self.node_checks, self.image.as_deref()).await?);
        Ok(lines)
    }
}

#[cfg(target_os = "linux")]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it fails")]
fn this_machine() -> anyhow::Result<Vec<Line>> {
    Ok(local::look())
}

#[cfg(not(target_os = "linux"))]
fn this_machine() -> anyhow::Result<Vec<Line>> {
    anyhow::bail!("the agent runs on Linux; give precheck a cluster (KUBECONFIG, --context)")
}

fn render(lines: &[Line], paint: Paint) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let mut node = "";
    for line in lines {
        if line.node != node {
            node = &line.node;
            writeln!(text, "{}", paint.word(Tone::Strong, &format!("node {node}")))?;
        }
        let mark = match line.verdict {
            Verdict::Ok => paint.word(Tone::Good, "ok  "),
            Verdict::Note => paint.word(Tone::Warn, "note"),
            Verdict::Fail => paint.word(Tone::Bad, "FAIL"),
        };
        writeln!(text, "{mark}  {:<13} {}", line.what, safe(&line.told))?;
        if !line.cure.is_empty() {
            writeln!(text, "                    {}", safe(&line.cure))?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_for_people() {
        let lines = [
            Line::new("kubernetes", Ok("v1.34.2".to_owned())),
            Line::new("kernel", Err(("5.4.0 is too old".to_owned(), "use a newer one"))).on("n1"),
        ];
        assert_eq!(
            render(&lines, Paint::plain()).unwrap(),
            "ok    kubernetes    v1.34.2\nnode n1\nFAIL  kernel        5.4.0 is too old\n                    use a newer one\n"
        );
    }
}
