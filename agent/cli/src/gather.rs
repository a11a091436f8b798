//! One list from the agents of a cluster: what they agree on is one line, with the nodes where it holds.

use std::collections::HashMap;

use futures_util::future::join_all;
use serde_json::Value;

use crate::client::AgentAt;
use crate::list::Row;
use crate::output;

/// A line, and whose it is.
#[derive(Debug, Clone)]
pub struct Line<R> {
    /// Nodes whose agents say so; empty for this machine's.
    pub nodes: Vec<String>,
    /// What they say.
    pub row: R,
}

/// The answers of one agent or of several.
#[derive(Debug, Clone)]
pub struct Gathered<R> {
    /// The lines, in the agents' order.
    pub lines: Vec<Line<R>>,
    /// Every agent has answered.
    pub complete: bool,
    /// How many agents of a cluster have answered; `None`: this machine's.
    nodes: Option<usize>,
}

/// Asks all agents at once. Those that do not answer are named on standard error; it is an error if none does.
pub async fn gather<R: Row>(at: &AgentAt) -> anyhow::Result<Gathered<R>> {
    let agents = at.agents().await?;
    let answers = join_all(agents.iter().map(|agent| R::fetch(agent))).await;
    let mut gathered = Gathered { lines: Vec::new(), complete: true, nodes: None };
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut error = None;
    for (agent, answer) in agents.iter().zip(answers) {
        match answer {
            Ok(rows) => match agent.node() {
                None => return Ok(Gathered::here(rows)),
                Some(node) => gathered.add(node, rows, &mut known),
            },
            Err(failed) => {
                if let Some(last) = error.replace(failed) {
                    output::complain(&last);
                }
            }
        }
    }
    match (error, gathered.nodes) {
        (Some(error), None) => return Err(error),
        (Some(error), Some(_)) => {
            output::complain(&error);
            gathered.complete = false;
        }
        (None, _) => {}
    }
    Ok(gathered)
}

impl<R: Row> Gathered<R> {
    /// Rows of this machine's agent.
    pub fn here(rows: Vec<R>) -> Self {
        let lines = rows.into_iter().map(|row| Line { nodes: Vec::new(), row }).collect();
        Self { lines, complete: true, nodes: None }
    }

    fn add(&mut self, node: &str, rows: Vec<R>, known: &mut HashMap<String, usize>) {
        *self.nodes.get_or_insert(0) += 1;
        for row in rows {
            let identity = row.identity();
            let same = known.get(&identity).copied().filter(|_| !identity.is_empty());
            match same.map(|at| &mut self.lines[at]) {
                // Two equal lines of one agent are two lines.
                Some(line) if !line.nodes.iter().any(|known| known == node) => {
                    line.nodes.push(node.to_owned());
                    line.row.absorb(row, node);
                }
                _ => {
                    known.insert(identity, self.lines.len());
                    self.lines.push(Line { nodes: vec![node.to_owned()], row });
                }
            }
        }
    }

    /// The nodes of each line; `None` for this machine's list.
    pub fn node_cells(&self) -> Option<Vec<String>> {
        let all = self.nodes?;
        let cell = |line: &Line<R>| {
            if line.nodes.len() == all && all > 1 { "all".to_owned() } else { line.nodes.join(",") }
        };
        Some(self.lines.iter().map(cell).collect())
    }

    /// As data: of a cluster, each row has its `nodes`.
    pub fn values(&self) -> serde_json::Result<Vec<Value>> {
        let value = |line: &Line<R>| {
            let mut value = serde_json::to_value(&line.row)?;
            if let Some(fields) = value.as_object_mut().filter(|_| self.nodes.is_some()) {
                fields.insert("nodes".to_owned(), line.nodes.clone().into());
            }
            Ok(value)
        };
        self.lines.iter().map(value).collect()
    }
}

#[cfg(test)]
mod tests {
    use weft_api::admin::{EndpointRow, WorkloadRow};

    use super::*;

    fn gathered<R: Row + Clone>(answers: &[(&str, Vec<R>)]) -> Gathered<R> {
        let mut gathered = Gathered { lines: Vec::new(), complete: true, nodes: None };
        let mut known = HashMap::new();
        for (node, rows) in answers {
            gathered.add(node, rows.clone(), &mut known);
        }
        gathered
    }

    #[test]
    fn what_agents_agree_on_is_one_line() {
        let row =
            |address: &str, local| EndpointRow { address: address.into(), local, ..EndpointRow::default() };
        let list = gathered(&[
            ("n1", vec![row("a", true), row("b", false)]),
            ("n2", vec![row("a", false), row("c", true)]),
        ]);
        assert_eq!(list.node_cells().unwrap(), ["all", "n1", "n2"]);
        assert!(!list.lines[0].row.local);
        assert_eq!(list.values().unwrap()[1]["nodes"], serde_json::json!(["n1"]));
    }

    #[test]
    fn a_pods_own_node_knows_best() {
        let row = |enrolled| WorkloadRow {
            name: "p".into(),
            node: Some("n2".into()),
            enrolled,
            ..WorkloadRow::default()
        };
        let list = gathered(&[("n1", vec![row(false)]), ("n2", vec![row(true)]), ("n3", vec![row(false)])]);
        assert_eq!(list.lines.len(), 1);
        assert!(list.lines[0].row.enrolled);
    }
}
