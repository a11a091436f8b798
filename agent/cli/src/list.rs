//! Lists of rows: a table for people, data or names for programs.

use clap::ValueEnum;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::AgentAt;
use crate::output::{self, Format, Outcome, Paint, Table};

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
    async fn fetch(agent: &AgentAt) -> anyhow::Result<Vec<Self>> {
        agent.get(Self::PATH).await
    }
}

/// Prints a list; `nothing` is said on standard error where a table would be empty.
pub fn show<R: Row>(rows: &[R], format: Option<ListFormat>, nothing: &str) -> anyhow::Result<Outcome> {
    match format {
        Some(ListFormat::Json) => output::data(Format::Json, &rows)?,
        Some(ListFormat::Yaml) => output::data(Format::Yaml, &rows)?,
        Some(ListFormat::Name) => {
            let mut names: Vec<String> = rows.iter().map(Row::name).collect();
            names.dedup();
            names.push(String::new());
            output::print(&names.join("\n"))?;
        }
        None if rows.is_empty() => eprintln!("{nothing}."),
        None => output::print(&R::table(rows).render(Paint::stdout()))?,
    }
    Ok(Outcome::Good)
}
