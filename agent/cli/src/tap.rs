//! `weft tap`: requests and connections as they happen.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::Context;
use bytes::BytesMut;
use clap::{ArgMatches, Args, FromArgMatches, ValueEnum};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use weft_api::admin::{
    HttpTap, Peer, PeerSelector, StatusRange, TapClause, TapEvent, TapFilter, TapRecord, TapTerm, TcpState,
    TcpTap, Verdict, paths,
};

use crate::client::{AgentAt, block_on};
use crate::output::{Outcome, Paint, Tone, safe};

/// Shows what ends on this node from now on, until Ctrl-C; on all nodes of a cluster, each line with its node.
///
/// Repeated flags of one kind are alternatives; different kinds must all hold; --not turns the flag that follows it
/// around. What arrives faster than it is read is left out, and counted.
#[derive(Debug)]
pub struct TapArgs {
    filter: TapFilter,
    rest: Rest,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A PEER is pod/NAME[.NS], deploy/NAME[.NS] (or another kind), svc/NAME[.NS], ns/NAME, NAME[.NS], KEY=VALUE (a label),
an address or :PORT.

Examples:
  weft tap
  weft tap -n bookinfo
  weft tap --to svc/reviews.bookinfo --status 5xx
  weft tap --from ns/bookinfo --not --path /healthz -o jsonl | jq .status
  weft tap --to deploy/ratings-v1 --max 10
  weft tap --would-deny                          what a dry run (istio.io/dry-run) would refuse")]
struct Rest {
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: TapFormat,
    /// Only what has an end in this namespace
    #[arg(short, long, value_name = "NS", conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// All namespaces (the default)
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// End after so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
    /// Go on showing new events (what tap does anyway; taken for those who are used to it)
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    agent: AgentAt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TapFormat {
    /// One line per event, for people
    Text,
    /// One JSON object per event and line
    Json,
    /// The same
    Jsonl,
}

/// The flags that make up the filter: name, value, help.
const FILTERS: [(&str, &str, &str); 7] = [
    ("from", "PEER", "Only of this caller"),
    ("to", "PEER", "Only to this destination"),
    ("status", "STATUS", "Only HTTP answers with this status: 503, 5xx, 400-499"),
    ("path", "PATH", "Only HTTP requests whose path begins so; with *, a pattern of the whole path"),
    ("method", "METHOD", "Only HTTP requests with this method"),
    ("verdict", "VERDICT", "Only with this outcome: forwarded, answered, denied, failed"),
    ("protocol", "PROTOCOL", "Only this protocol: http or tcp"),
];

/// The filter that has no value.
const WOULD_DENY: &str = "would-deny";

impl Args for TapArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        let mut command = Rest::augment_args(command);
        for (name, value, help) in FILTERS {
            let flag = clap::Arg::new(name)
                .long(name)
                .value_name(value)
                .help(help)
                .action(clap::ArgAction::Append)
                .value_parser(move |text: &str| term(name, text));
            command = command.arg(flag);
        }
        command = command.arg(
            clap::Arg::new(WOULD_DENY)
                .long(WOULD_DENY)
                .help("Only what a policy that is tried out (istio.io/dry-run) would have refused")
                .action(clap::ArgAction::Append)
                .num_args(0)
                .default_missing_value("true")
                .value_parser(|_: &str| Ok::<_, String>(TapTerm::WouldDeny)),
        );
        let probes = clap::Arg::new("probes")
            .long("probes")
            .action(clap::ArgAction::SetTrue)
            .help("Also what the node asks of its pods by their probes and hooks");
        command.arg(probes).arg(
            clap::Arg::new("not")
                .long("not")
                .action(clap::ArgAction::Append)
                .num_args(0)
                .default_missing_value("true")
                .value_parser(clap::value_parser!(bool))
                .help("Turn the filter that follows around"),
        )
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for TapArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let rest = Rest::from_arg_matches(matches)?;
        let mut filter = filter(matches)?;
        filter.clauses.extend(rest.namespace.clone().map(in_namespace));
        Ok(Self { filter, rest })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// From there, or to there.
fn in_namespace(namespace: String) -> TapClause {
    let here = PeerSelector::Namespace(namespace);
    TapClause { not: false, any: vec![TapTerm::From(here.clone()), TapTerm::To(here)] }
}

fn term(name: &str, text: &str) -> Result<TapTerm, String> {
    let peer = || text.parse::<PeerSelector>().map_err(|error| error.to_string());
    Ok(match name {
        "from" => TapTerm::From(peer()?),
        "to" => TapTerm::To(peer()?),
        "status" => TapTerm::Status(text.parse::<StatusRange>()?),
        "path" => TapTerm::Path(text.to_owned()),
        "method" => TapTerm::Method(text.to_ascii_uppercase()),
        "verdict" => TapTerm::Verdict(match &*text.to_ascii_lowercase() {
            "forwarded" => Verdict::Forwarded,
            "answered" => Verdict::Answered,
            "denied" => Verdict::Denied,
            "failed" => Verdict::Failed,
            _ => return Err("write forwarded, answered, denied or failed".to_owned()),
        }),
        _ => match &*text.to_ascii_lowercase() {
            protocol @ ("http" | "tcp") => TapTerm::Protocol(protocol.to_owned()),
            _ => return Err("write http or tcp".to_owned()),
        },
    })
}

/// Puts the flags together: one clause per kind, one of the opposite sense for those after `--not`.
fn filter(matches: &ArgMatches) -> Result<TapFilter, clap::Error> {
    let mut nots: Vec<usize> = matches.indices_of("not").into_iter().flatten().collect();
    let mut flags: Vec<(usize, &str, &TapTerm)> = FILTERS
        .iter()
        .map(|(name, ..)| *name)
        .chain([WOULD_DENY])
        .filter_map(|name| Some((name, matches.indices_of(name)?, matches.get_many::<TapTerm>(name)?)))
        .flat_map(|(name, at, terms)| at.zip(terms).map(move |(at, term)| (at, name, term)))
        .collect();
    flags.sort_by_key(|(at, ..)| *at);
    let mut clauses: Vec<(&str, TapClause)> = Vec::new();
    for (at, name, term) in flags {
        let not = nots.iter().position(|not| *not < at).map(|found| nots.remove(found)).is_some();
        match clauses.iter_mut().find(|(kind, clause)| *kind == name && clause.not == not) {
            Some((_, clause)) => clause.any.push(term.clone()),
            None => clauses.push((name, TapClause { not, any: vec![term.clone()] })),
        }
    }
    if nots.is_empty() {
        let clauses = clauses.into_iter().map(|(_, clause)| clause).collect();
        Ok(TapFilter { clauses, probes: matches.get_flag("probes") })
    } else {
        Err(clap::Error::raw(
            clap::error::ErrorKind::MissingRequiredArgument,
            "--not needs a filter after it\n",
        ))
    }
}

impl TapArgs {
    /// Prints events until the reader, the agent or the user has enough.
    pub fn run(self) -> anyhow::Result<Outcome> {
        let Rest { output, max, agent, .. } = self.rest;
        let mut left = max.unwrap_or(u64::MAX);
        let paint = Paint::stdout();
        block_on(async {
            let agents = agent.agents().await?;
            let (sender, mut lines) = mpsc::channel(64);
            for agent in &agents {
                let body = agent.stream(paths::TAP, &self.filter).await?;
                let node = agent.node().map(str::to_owned);
                tokio::spawn(split(body, node, agent.to_string(), sender.clone()));
            }
            drop(sender);
            if output == TapFormat::Text {
                eprintln!("Listening; Ctrl-C ends.");
            }
            let mut out = std::io::stdout().lock();
            while let Some(line) = lines.recv().await {
                let Line { node, text } = line?;
                let event: TapEvent = serde_json::from_slice(&text).context("cannot understand the agent")?;
                match (output, node) {
                    (TapFormat::Text, None) => out.write_all(render(&event, paint)?.as_bytes())?,
                    (TapFormat::Text, Some(node)) => {
                        let node = paint.word(Tone::Faint, &node);
                        out.write_all(format!("{node}  {}", render(&event, paint)?).as_bytes())?;
                    }
                    (_, None) => out.write_all(&text)?,
                    (_, Some(node)) => {
                        let mut event: serde_json::Value = serde_json::from_slice(&text)?;
                        event["node"] = node.into();
                        writeln!(out, "{event}")?;
                    }
                }
                if !matches!(event, TapEvent::LeftOut { .. }) {
                    left -= 1;
                }
                // What is there already is written at once.
                if left == 0 || lines.is_empty() {
                    out.flush()?;
                }
                if left == 0 {
                    return Ok(Outcome::Good);
                }
            }
            anyhow::bail!("the agent has ended")
        })
    }
}

/// A line of an agent's stream.
struct Line {
    node: Option<String>,
    text: BytesMut,
}

/// Cuts an agent's stream into lines.
async fn split(
    mut body: hyper::body::Incoming,
    node: Option<String>,
    agent: String,
    lines: mpsc::Sender<anyhow::Result<Line>>,
) {
    let mut pending = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let data = match frame {
            Ok(frame) => frame.into_data(),
            Err(error) => {
                let _ = lines.send(Err(anyhow::anyhow!(error).context(format!("{agent} has ended")))).await;
                return;
            }
        };
        let Ok(data) = data else { continue };
        pending.extend_from_slice(&data);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line = Line { node: node.clone(), text: pending.split_to(end + 1) };
            if lines.send(Ok(line)).await.is_err() {
                return;
            }
        }
    }
    let _ = lines.send(Err(anyhow::anyhow!("{agent} has ended"))).await;
}

fn render(event: &TapEvent, paint: Paint) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    match event {
        TapEvent::Http(record) => http(&mut text, record, paint)?,
        TapEvent::Tcp(record) => tcp(&mut text, record, paint)?,
        TapEvent::LeftOut { count } => {
            let note = format!("… {count} events were left out: they came faster than they were read");
            writeln!(text, "{}", paint.word(Tone::Warn, &note))?;
        }
    }
    Ok(text)
}

/// `HH:MM:SS.mmm` of an RFC 3339 time.
fn clock(time: &str) -> &str {
    time.get(11..23).unwrap_or(time)
}

fn http(text: &mut String, record: &TapRecord<HttpTap>, paint: Paint) -> std::fmt::Result {
    let http = &record.detail;
    let tone = match http.status {
        200..=399 => Tone::Good,
        400..=499 => Tone::Warn,
        _ => Tone::Bad,
    };
    write!(
        text,
        "{} {} → {}  {} {}{} {} {:.1}ms",
        paint.word(Tone::Faint, clock(&record.time)),
        peer(&record.source),
        peer(&record.destination),
        safe(&http.method),
        safe(&http.authority),
        safe(&http.path),
        paint.word(tone, &http.status.to_string()),
        record.duration_ms,
    )?;
    if let Some(status) = http.grpc_status {
        write!(text, " grpc-status={status}")?;
    }
    if !http.subset.is_empty() {
        write!(text, " subset={}", safe(&http.subset))?;
    }
    if !http.virtual_service.is_empty() {
        write!(text, " vs={}", safe(&http.virtual_service))?;
    }
    if http.mirrored {
        write!(text, " mirror")?;
    }
    if http.attempts > 1 {
        write!(text, " attempts={}", http.attempts)?;
    }
    ending(text, record, paint)
}

fn tcp(text: &mut String, record: &TapRecord<TcpTap>, paint: Paint) -> std::fmt::Result {
    write!(
        text,
        "{} {} → {}  TCP ",
        paint.word(Tone::Faint, clock(&record.time)),
        peer(&record.source),
        peer(&record.destination),
    )?;
    match record.detail.state {
        TcpState::Opened => write!(text, "opened")?,
        TcpState::Closed => write!(
            text,
            "closed {:.1}ms {} bytes out, {} bytes in",
            record.duration_ms, record.request_bytes, record.response_bytes
        )?,
    }
    ending(text, record, paint)
}

/// What went wrong, if anything.
fn ending<Detail>(text: &mut String, record: &TapRecord<Detail>, paint: Paint) -> std::fmt::Result {
    if record.probe {
        write!(text, " {}", paint.word(Tone::Faint, "probe"))?;
    }
    if record.flags != "-" {
        write!(text, " {}", paint.word(Tone::Bad, &record.flags))?;
    }
    if record.verdict == Verdict::Denied {
        write!(text, " {}", paint.word(Tone::Bad, "DENIED"))?;
    }
    if !record.policy.is_empty() {
        write!(text, " by {}", safe(&record.policy))?;
    }
    if !record.would_deny.is_empty() {
        let policies = record.would_deny.join(", ");
        write!(text, " {} by {}", paint.word(Tone::Warn, "WOULD BE DENIED"), safe(&policies))?;
    }
    writeln!(text)
}

/// The pod if it is known, else the service, else the address.
fn peer(peer: &Peer) -> String {
    let name = if !peer.pod.is_empty() {
        format!("{}.{}", peer.pod, peer.namespace)
    } else if !peer.service.is_empty() {
        peer.service.clone()
    } else {
        peer.address.map_or_else(|| "?".to_owned(), |address| address.to_string())
    };
    safe(&name).into_owned()
}

#[cfg(test)]
mod tests;
