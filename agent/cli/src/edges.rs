//! `weft edges`: who talks to whom, and how safely.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use clap::Args;
use weft_api::admin::{EdgeEnd, EdgeRow, EdgeSecurity, PeerSelector, paths};

use crate::client::{AgentAt, block_on};
use crate::gather::{Gathered, gather};
use crate::list::{self, ListFormat, Row};
use crate::output::{Outcome, Table, Tone, Usage, plain};

/// Counts are of what this node's agent has seen since it started: what its pods asked for, and what came to them from
/// elsewhere. In a cluster every agent is asked, and NODES says whose count a line is: what went from one node to another, both
/// have seen, and the caller's tells it.
#[derive(Debug, Args)]
#[command(after_help = "\
A PEER is deploy/NAME[.NS] (or another kind of workload), svc/NAME[.NS], ns/NAME, NAME[.NS], app=NAME or version=NAME.

SECURED says: ✓ mTLS (both certificates were checked), ✓ same node (the kernel proves both identities, and nothing
leaves the machine), or why not.

Examples:
  weft edges
  weft edges -n bookinfo
  weft edges --to svc/ratings.bookinfo --interval 5
  weft edges --interval 0 -o json | jq '.[] | select(.security == \"plaintext\")'")]
pub struct EdgesArgs {
    /// Only edges with an end in this namespace
    #[arg(short, long, value_name = "NS", conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// All namespaces (the default)
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only of this caller; may be repeated
    #[arg(long, value_name = "PEER")]
    from: Vec<PeerSelector>,
    /// Only to this destination; may be repeated
    #[arg(long, value_name = "PEER")]
    to: Vec<PeerSelector>,
    /// How long to count for the rate; 0 goes without
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    interval: Duration,
    /// Print data or names instead of a table
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<ListFormat>,
    #[command(flatten)]
    agent: AgentAt,
}

fn seconds(text: &str) -> Result<Duration, String> {
    const LONGEST: f64 = 3_600.0;
    let seconds: f64 = text.strip_suffix('s').unwrap_or(text).parse().unwrap_or(-1.0);
    if (0.0..=LONGEST).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(format!("{text:?} is no number of seconds from 0 to 3600"))
    }
}

impl EdgesArgs {
    /// Asks, waits, asks again and prints.
    pub fn run(&self) -> anyhow::Result<Outcome> {
        for selector in self.from.iter().chain(&self.to) {
            if EdgeEnd::default().is(selector).is_none() {
                let message = format!(
                    "an edge is between workloads, and {selector} is none (write deploy/NAME, svc/NAME, ns/NAME or app=NAME; \
                     `weft tap` shows pods and addresses)"
                );
                return Err(Usage(message).into());
            }
        }
        let mut rows = block_on(async {
            let before = gather::<EdgeRow>(&self.agent).await?;
            if self.interval.is_zero() {
                return anyhow::Ok(before);
            }
            let begun = Instant::now();
            tokio::time::sleep(self.interval).await;
            let mut rows = gather::<EdgeRow>(&self.agent).await?;
            add_rates(&mut rows, &before, begun.elapsed());
            Ok(rows)
        })?;
        tell_once(&mut rows);
        rows.lines.retain(|line| self.wants(&line.row));
        let place = self.namespace.as_ref().map_or_else(String::new, |ns| format!(" in namespace {ns}"));
        list::show(rows, self.output, &format!("{}{place}", EdgeRow::NOTHING))
    }

    fn wants(&self, row: &EdgeRow) -> bool {
        let one = |selectors: &[PeerSelector], end: &EdgeEnd| {
            selectors.is_empty() || selectors.iter().any(|selector| end.is(selector) == Some(true))
        };
        let here = |namespace: &String| {
            row.source.namespace == *namespace || row.destination.namespace == *namespace
        };
        self.namespace.as_ref().is_none_or(here)
            && one(&self.from, &row.source)
            && one(&self.to, &row.destination)
    }
}

/// What makes an edge the same at another time.
fn key(row: &EdgeRow) -> (&EdgeEnd, &EdgeEnd, &str, &str, EdgeSecurity, &str) {
    (&row.source, &row.destination, &row.protocol, &row.reporter, row.security, &row.reason)
}

/// Leaves out what the destination's agent tells of a conversation that the caller's tells, too. Where not all agents have
/// answered, the caller's may be the one that has not.
fn tell_once(rows: &mut Gathered<EdgeRow>) {
    if !rows.complete {
        return;
    }
    // By workload; and by account, for the destination's agent may never have heard of a pod that lived for a second.
    let by_workload = |row: &EdgeRow| {
        let (source, destination) = (&row.source, &row.destination);
        (!source.workload.is_empty()).then(|| {
            [&source.namespace, &source.workload, &destination.namespace, &destination.workload]
                .map(Clone::clone)
        })
    };
    let by_account = |row: &EdgeRow| {
        let (source, destination) = (&row.source, &row.destination);
        (!source.identity.is_empty()).then(|| {
            [&source.identity, &String::new(), &destination.namespace, &destination.workload]
                .map(Clone::clone)
        })
    };
    let mut told: HashMap<[String; 4], HashSet<Vec<String>>> = HashMap::new();
    for line in rows.lines.iter().filter(|line| line.row.reporter == "source") {
        for key in [by_workload(&line.row), by_account(&line.row)].into_iter().flatten() {
            told.entry(key).or_default().insert(line.nodes.clone());
        }
    }
    rows.lines.retain(|line| {
        let key = by_workload(&line.row).or_else(|| by_account(&line.row));
        let elsewhere = key
            .and_then(|key| told.get(&key))
            .is_some_and(|nodes| nodes.iter().any(|nodes| *nodes != line.nodes));
        line.row.reporter != "destination" || !elsewhere
    });
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
fn add_rates(rows: &mut Gathered<EdgeRow>, before: &Gathered<EdgeRow>, elapsed: Duration) {
    let count = |row: &EdgeRow| row.requests + row.connections;
    let earlier: HashMap<_, u64> =
        before.lines.iter().map(|line| ((&line.nodes, key(&line.row)), count(&line.row))).collect();
    for line in &mut rows.lines {
        let (nodes, row) = (&line.nodes, &mut line.row);
        let since = count(row).saturating_sub(earlier.get(&(nodes, key(row))).copied().unwrap_or(0));
        row.rate = Some(since as f64 / elapsed.as_secs_f64());
    }
}

/// The workload, else the service, else the account, else what is outside.
fn end(end: &EdgeEnd) -> String {
    match (&*end.workload, &*end.service, &*end.namespace) {
        // A pod that was gone before anybody knew it. Who proves an identity is not outside.
        ("", "", _) if !end.identity.is_empty() => {
            let account = account(&end.identity);
            match account.split_once('/') {
                Some((namespace, name)) => format!("sa/{name}.{namespace}"),
                None => account,
            }
        }
        ("", "", _) => "outside the mesh".to_owned(),
        ("", service, _) => service.to_owned(),
        (workload, _, "") => workload.to_owned(),
        (workload, _, namespace) => format!("{workload}.{namespace}"),
    }
}

/// `NS/SA` of an identity.
fn account(identity: &str) -> String {
    let mut parts = identity.trim_start_matches("spiffe://").split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some("ns"), Some(namespace), Some("sa"), Some(account)) => format!("{namespace}/{account}"),
        _ => identity.to_owned(),
    }
}

fn secured(row: &EdgeRow) -> (String, Option<Tone>) {
    match row.security {
        EdgeSecurity::MutualTls => ("✓ mTLS".to_owned(), Some(Tone::Good)),
        EdgeSecurity::SameNode => ("✓ same node".to_owned(), Some(Tone::Good)),
        EdgeSecurity::Plaintext => (row.reason.clone(), Some(Tone::Bad)),
        EdgeSecurity::Unknown => ("no endpoint reached".to_owned(), Some(Tone::Faint)),
    }
}

/// A number, unless it is zero.
fn some(n: u64) -> String {
    if n == 0 { String::new() } else { n.to_string() }
}

impl Row for EdgeRow {
    const PATH: &'static str = paths::EDGES;
    const NOTHING: &'static str = "No traffic yet";

    fn namespace(&self) -> &str {
        &self.source.namespace
    }

    fn identity(&self) -> String {
        // Two agents' counts are two lines.
        String::new()
    }

    fn name(&self) -> String {
        format!("edge/{}->{}", end(&self.source).replace(' ', "-"), end(&self.destination).replace(' ', "-"))
    }

    fn table(rows: &[Self]) -> Table {
        let mut table = Table::new(&[
            "SOURCE",
            "IDENTITY",
            "DESTINATION",
            "IDENTITY",
            "PROTOCOL",
            "REQUESTS",
            "CONNECTIONS",
            "FAILED",
            "DENIED",
            "RATE/S",
            "SECURED",
        ]);
        for row in rows {
            table.row([
                plain(end(&row.source)),
                plain(account(&row.source.identity)),
                plain(end(&row.destination)),
                plain(account(&row.destination.identity)),
                plain(&row.protocol),
                plain(some(row.requests)),
                plain(some(row.connections)),
                (some(row.failed), (row.failed > 0).then_some(Tone::Bad)),
                (some(row.denied), (row.denied > 0).then_some(Tone::Warn)),
                plain(row.rate.map_or_else(String::new, |rate| format!("{rate:.1}"))),
                secured(row),
            ]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Paint;

    fn row() -> EdgeRow {
        let side = |name: &str, service: &str| EdgeEnd {
            namespace: "shop".into(),
            workload: format!("{name}-v1"),
            service: service.into(),
            identity: format!("spiffe://cluster.local/ns/shop/sa/{name}"),
            app: name.into(),
            version: "v1".into(),
        };
        EdgeRow {
            source: side("web", ""),
            destination: side("reviews", "reviews.shop.svc.cluster.local"),
            protocol: "http".into(),
            reporter: "source".into(),
            requests: 12,
            denied: 2,
            security: EdgeSecurity::MutualTls,
            ..EdgeRow::default()
        }
    }

    #[test]
    fn edges_as_a_table() {
        let outside = EdgeRow {
            source: EdgeEnd::default(),
            requests: 0,
            denied: 0,
            connections: 1,
            protocol: "tcp".into(),
            security: EdgeSecurity::Plaintext,
            reason: "plaintext: caller not in the mesh".into(),
            ..row()
        };
        let rows = [row(), outside];
        let mut now = Gathered::here(rows.to_vec());
        let before = Gathered::here(vec![EdgeRow { requests: 2, ..row() }]);
        add_rates(&mut now, &before, Duration::from_secs(2));
        let rows: Vec<EdgeRow> = now.lines.into_iter().map(|line| line.row).collect();
        assert_eq!(
            EdgeRow::table(&rows).render(Paint::plain()),
            "SOURCE            IDENTITY  DESTINATION      IDENTITY      PROTOCOL  REQUESTS  CONNECTIONS  FAILED  DENIED  \
             RATE/S  SECURED\n\
             web-v1.shop       shop/web  reviews-v1.shop  shop/reviews  http      12        -            -       2       \
             5.0     ✓ mTLS\n\
             outside the mesh  -         reviews-v1.shop  shop/reviews  tcp       -         1            -       -       \
             0.5     plaintext: caller not in the mesh\n"
        );
        assert_eq!(rows[1].name(), "edge/outside-the-mesh->reviews-v1.shop");
    }

    fn of_nodes(rows: &[(&str, EdgeRow)]) -> Gathered<EdgeRow> {
        let mut all = Gathered::here(rows.iter().map(|(_, row)| row.clone()).collect());
        for (line, (node, _)) in all.lines.iter_mut().zip(rows) {
            line.nodes = vec![(*node).to_owned()];
        }
        all
    }

    fn told(rows: &[(&str, EdgeRow)]) -> Vec<String> {
        let mut all = of_nodes(rows);
        tell_once(&mut all);
        all.lines
            .iter()
            .map(|line| format!("{} {} {}", line.nodes[0], line.row.reporter, end(&line.row.source)))
            .collect()
    }

    #[test]
    fn a_conversation_between_nodes_is_told_once() {
        let as_bytes = || EdgeRow { protocol: "tcp".into(), reporter: "destination".into(), ..row() };
        let nobody_knew =
            || EdgeRow { source: EdgeEnd { workload: String::new(), ..row().source }, ..as_bytes() };
        let another = || EdgeRow {
            source: EdgeEnd {
                workload: String::new(),
                identity: "spiffe://cluster.local/ns/shop/sa/job".into(),
                ..row().source
            },
            ..as_bytes()
        };
        let once = ["n1 source web-v1.shop"];
        assert_eq!(told(&[("n1", row()), ("n2", as_bytes())]), once);
        assert_eq!(told(&[("n2", nobody_knew()), ("n1", row())]), once);
        // What only the destination's agent knows.
        let both = ["n1 source web-v1.shop", "n2 destination sa/job.shop"];
        assert_eq!(told(&[("n1", row()), ("n2", another())]), both);
        // The agent's own pods of that workload are not those that called from elsewhere.
        let local = ["n2 source web-v1.shop", "n2 destination web-v1.shop"];
        assert_eq!(told(&[("n2", row()), ("n2", as_bytes())]), local);
        let mut some = of_nodes(&[("n1", row()), ("n2", as_bytes())]);
        some.complete = false;
        tell_once(&mut some);
        assert_eq!(some.lines.len(), 2);
    }

    #[test]
    fn edges_are_selected_by_both_ends() {
        let args = |from: &[&str], to: &[&str]| {
            let all = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
            EdgesArgs {
                namespace: None,
                all_namespaces: false,
                from: all(from),
                to: all(to),
                interval: Duration::ZERO,
                output: None,
                agent: AgentAt { run_dir: Some("/nonexistent".into()), ..AgentAt::default() },
            }
        };
        for (from, to, wanted) in [
            (&[][..], &[][..], true),
            (&["deploy/web-v1.shop"], &["svc/reviews.shop"], true),
            (&["deploy/other", "ns/shop"], &["version=v1"], true),
            (&["deploy/web-v1.elsewhere"], &[], false),
            (&[], &["app=web"], false),
        ] {
            assert_eq!(args(from, to).wants(&row()), wanted, "{from:?} {to:?}");
        }
        let error = args(&["pod/web-x"], &[]).run().unwrap_err();
        assert!(error.is::<Usage>(), "{error}");
    }

    #[test]
    fn intervals_are_seconds() {
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
        assert_eq!(seconds("2.5s"), Ok(Duration::from_millis(2_500)));
        for wrong in ["-1", "soon", "1e9", "NaN"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
