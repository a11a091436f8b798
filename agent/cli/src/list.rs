//! Lists of rows: a table for people, data or names for programs.

use clap::ValueEnum;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::Agent;
use crate::gather::Gathered;
use crate::output::{self, Format, Outcome, Paint, Table, safe};

/// How to print a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// For programs
    Json,
    /// For programs and people
    Yaml,
    /// One name per line
    Name,
}

/// A line of a list.
pub trait Row: Serialize + DeserializeOwned {
    /// Where the agent has the list.
    const PATH: &'static str;
    /// Said instead of a table without rows.
    const NOTHING: &'static str;
    /// The row's namespace.
    fn namespace(&self) -> &str;
    /// `KIND/NAME`.
    fn name(&self) -> String;
    /// The rows for people.
    fn table(rows: &[Self]) -> Table;

    /// Asks the agent.
    async fn fetch(agent: &Agent) -> anyhow::Result<Vec<Self>> {
        agent.get(Self::PATH).await
    }

    /// What makes two agents' rows the same line of a list.
    fn identity(&self) -> String {
        // Rows hold nothing that JSON cannot say.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Takes in what another agent, that of `node`, says in the same line.
    fn absorb(&mut self, other: Self, node: &str) {
        let _ = (other, node);
    }
}

/// Prints a list; `nothing` is said on standard error where a table would be empty. Bad where an agent did not answer.
pub fn show<R: Row>(
    gathered: Gathered<R>,
    format: Option<ListFormat>,
    nothing: &str,
) -> anyhow::Result<Outcome> {
    let outcome = if gathered.complete { Outcome::Good } else { Outcome::Bad };
    match format {
        Some(ListFormat::Json) => output::data(Format::Json, &gathered.values()?)?,
        Some(ListFormat::Yaml) => output::data(Format::Yaml, &gathered.values()?)?,
        Some(ListFormat::Name) => {
            let mut names: Vec<String> =
                gathered.lines.iter().map(|line| safe(&line.row.name()).into_owned()).collect();
            names.dedup();
            names.push(String::new());
            output::print(&names.join("\n"))?;
        }
        None if gathered.lines.is_empty() => eprintln!("{}.", safe(nothing)),
        None => {
            let nodes = gathered.node_cells();
            let rows: Vec<R> = gathered.lines.into_iter().map(|line| line.row).collect();
            let mut table = R::table(&rows);
            if let Some(nodes) = nodes {
                table.put_first("NODES", nodes);
            }
            output::print(&table.render(Paint::stdout()))?;
        }
    }
    Ok(outcome)
}
