//! `weft status`: the agent's health, what is enrolled, what is in force, what was refused and why.

mod in_vain;

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use futures_util::future::join_all;
use weft_api::admin::{
    Applied, AuthorityKind, CertificateState, Certificates, Limits, Mode, Status, WaitApplied, paths,
};
use weft_api::finding::Finding;

use crate::analyze;
use crate::client::{Agent, AgentAt, Unreachable, block_on};
use crate::cluster::ClusterAt;
use crate::output::{self, Format, Outcome, Paint, Table, Tone, count, plain, safe};

/// In a cluster it tells of the agent of every node. Exit code 1 if an agent is not ready, not reachable, or still behind what its source holds. Objects that were
/// refused are shown; their last good versions stay in force, and the agent counts as healthy.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weft status
  weft status -n bookinfo               only its pods and objects
  weft status --wait-applied            after an edit: returns when it is in force on every worker
  weft status --wait-applied=5 -o json  the same, for five seconds at most, for a script")]
pub struct StatusArgs {
    /// Wait until all that the source holds now is in force, SECONDS at most; also for an agent that is starting
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "30",
          value_parser = seconds)]
    wait_applied: Option<Duration>,
    /// Only pods and objects of this namespace
    #[arg(short, long, value_name = "NS", conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// All namespaces (the default)
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Print data instead of text
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    agent: AgentAt,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let text = text.strip_suffix('s').unwrap_or(text);
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{text:?} is no number of seconds"))
}

impl StatusArgs {
    /// Waits if told to, asks and prints.
    pub fn run(&self) -> anyhow::Result<Outcome> {
        block_on(async {
            let agents = self.agent.agents().await?;
            let answers = join_all(agents.iter().map(|agent| self.ask(agent))).await;
            if let [Agent::Here { .. }] = &*agents {
                let (status, good) = answers.into_iter().next().context("nobody was asked")??;
                match self.output {
                    Some(format) => output::data(format, &status)?,
                    None => output::print(&render(&status, Paint::stdout())?)?,
                }
                return Ok(if good { Outcome::Good } else { Outcome::Bad });
            }
            let kinds = self.in_vain().await;
            let mut outcome = Outcome::Good;
            let mut all = Vec::new();
            for answer in answers {
                match answer {
                    Ok((status, good)) => {
                        outcome = if good { outcome } else { Outcome::Bad };
                        all.push(status);
                    }
                    Err(error) => {
                        outcome = Outcome::Bad;
                        output::complain(&error);
                    }
                }
            }
            if let Some(format) = self.output {
                for status in &mut all {
                    status.not_in_force.extend(in_vain::findings(&kinds));
                }
                output::data(format, &all)?;
            } else {
                let paint = Paint::stdout();
                let texts: Result<Vec<String>, _> = all.iter().map(|status| render(status, paint)).collect();
                output::print(&(texts?.join("\n") + &in_vain::render(&kinds, paint)?))?;
            }
            Ok(outcome)
        })
    }

    /// Objects of the cluster that nothing comes of. That nobody may look at them is no reason not to tell the rest.
    async fn in_vain(&self) -> Vec<in_vain::Kind> {
        let cluster = ClusterAt { context: self.agent.context.clone() }.connect().await;
        let found = match cluster {
            Ok(cluster) => in_vain::look(&cluster).await,
            Err(error) => Err(error),
        };
        match (found, &self.namespace) {
            (Ok(kinds), Some(namespace)) => in_vain::within(kinds, namespace),
            (Ok(kinds), None) => kinds,
            (Err(error), _) => {
                output::complain(&error.context("cannot look for objects without effect"));
                Vec::new()
            }
        }
    }

    /// One agent's status, and whether it is good.
    async fn ask(&self, agent: &Agent) -> anyhow::Result<(Status, bool)> {
        let applied = match self.wait_applied {
            Some(patience) => Some(wait(agent, patience).await?),
            None => None,
        };
        let mut status: Status = agent.get(paths::STATUS).await?;
        if let Some(namespace) = &self.namespace {
            keep(&mut status, namespace);
        }
        if let Some(Applied { applied: false, waiting_for, .. }) = &applied {
            eprintln!(
                "weft: not all is in force yet at {agent}; waiting for {}",
                safe(&waiting_for.join("; "))
            );
        }
        let good = match applied {
            Some(applied) => applied.applied,
            None => status.ready && status.waiting_for.is_empty(),
        };
        Ok((status, good))
    }
}

/// Leaves what is in this namespace.
fn keep(status: &mut Status, namespace: &str) {
    let here = |finding: &Finding| {
        let mut parts = finding.resource.split('/');
        (parts.nth(1), parts.next().is_some()) == (Some(namespace), true)
    };
    status.pods.retain(|pod| pod.namespace == namespace);
    status.refused.retain(here);
    status.not_in_force.retain(here);
}

/// Waits for an agent that is starting, too.
async fn wait(agent: &Agent, patience: Duration) -> anyhow::Result<Applied> {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        match agent.ask(paths::WAIT_APPLIED, &WaitApplied { timeout_ms }, left).await {
            Err(error) if error.is::<Unreachable>() && !left.is_zero() => {
                tokio::time::sleep(Duration::from_millis(25).min(left)).await;
            }
            answer => return answer,
        }
    }
}

fn render(status: &Status, paint: Paint) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let ready =
        if status.ready { paint.word(Tone::Good, "ready") } else { paint.word(Tone::Bad, "not ready") };
    let mode = match status.mode {
        Mode::Standalone => "standalone",
        Mode::Cluster => "in cluster",
    };
    let (version, node) = (safe(&status.version), safe(&status.node));
    let fips = if status.fips { ", FIPS" } else { "" };
    writeln!(text, "Agent  weft {version} on node {node}, {mode}{fips}, {ready}")?;
    let behind = status.workers.iter().filter(|worker| worker.generation < status.generation).count();
    let workers = match behind {
        0 => format!("on {}", count(status.workers.len(), "worker")),
        n => paint.word(Tone::Bad, &format!("{n} of {} behind", count(status.workers.len(), "worker"))),
    };
    writeln!(text, "Rules  generation {} {workers}; {}", status.generation, objects(status))?;
    let enrolled = status.pods.iter().filter(|pod| pod.enrolled).count();
    let connections: u64 = status.workers.iter().map(|worker| worker.connections).sum();
    let connections = count(usize::try_from(connections).unwrap_or(usize::MAX), "connection");
    writeln!(text, "Pods   {enrolled} of {} in the mesh; {connections}", status.pods.len())?;
    writeln!(text, "mTLS   {}", certificates(&status.certificates, paint))?;
    if !status.waiting_for.is_empty() {
        writeln!(text, "{}  for {}", paint.word(Tone::Warn, "Waits"), safe(&status.waiting_for.join("; ")))?;
    }
    for trouble in &status.troubles {
        let trouble = safe(trouble);
        writeln!(text, "{} {trouble}; going on by what is known", paint.word(Tone::Warn, "Hears nothing:"))?;
    }
    for full in &status.full {
        writeln!(text, "{} {}", paint.word(Tone::Warn, "Full:"), safe(full))?;
    }
    for unproven in &status.datapath.unproven {
        writeln!(text, "{} {}", paint.word(Tone::Warn, "Not proven:"), safe(unproven))?;
    }
    limits(&mut text, &status.limits, paint)?;
    if !status.pods.is_empty() {
        let mut table = Table::new(&["NAMESPACE", "POD", "ADDRESSES", "IN MESH", "WHY NOT"]);
        for pod in &status.pods {
            let tone = if pod.enrolled { Tone::Good } else { Tone::Faint };
            table.row([
                plain(&pod.namespace),
                plain(&pod.name),
                plain(pod.addresses.join(",")),
                (if pod.enrolled { "yes" } else { "no" }.to_owned(), Some(tone)),
                plain(pod.reason.clone().unwrap_or_default()),
            ]);
        }
        write!(text, "\n{}", table.render(paint))?;
    }
    section(&mut text, paint, "Refused (the last good version stays in force)", &status.refused)?;
    section(&mut text, paint, "Accepted, and not in force", &status.not_in_force)?;
    section(&mut text, paint, "In force, and probably not meant", &status.warnings)?;
    Ok(text)
}

/// Who is at a bound of what the agent holds for others, and how near the agent is to its own.
fn limits(text: &mut String, limits: &Limits, paint: Paint) -> std::fmt::Result {
    if !matches!(&*limits.pressure, "" | "none") {
        let told = format!("{}: load is shed (docs/limits.md)", safe(&limits.pressure));
        writeln!(text, "Memory {}", paint.word(Tone::Bad, &told))?;
    }
    for row in &limits.holders {
        let (used, max) = match &*row.resource {
            "descriptors" => (row.used.to_string(), row.max.to_string()),
            _ => (mebibytes(row.used), mebibytes(row.max)),
        };
        let resource = row.resource.trim_end_matches("_bytes");
        let ago = row.refused_seconds_ago.unwrap_or(0);
        let holder = paint.word(Tone::Warn, &safe(&row.holder));
        writeln!(
            text,
            "Limit  {holder} has {used} of {max} {}; refused or held up {} times, {ago} s ago the last time",
            safe(resource),
            row.refused
        )?;
    }
    Ok(())
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// Who signs, and how the certificates are.
fn certificates(certificates: &Certificates, paint: Paint) -> String {
    let Some(ca) = &certificates.ca else {
        let told =
            "no certificate authority: between nodes all is plain text (--ca-dir or --ca-address gives one)";
        return paint.word(Tone::Warn, told);
    };
    let of =
        |wanted: CertificateState| certificates.certificates.iter().filter(|row| row.state == wanted).count();
    let mut parts = vec![count(of(CertificateState::Valid), "valid certificate")];
    for (state, what, tone) in [
        (CertificateState::Requested, "on the way", Tone::Warn),
        (CertificateState::RenewalFailing, "not renewed", Tone::Warn),
        (CertificateState::Missing, "missing", Tone::Bad),
    ] {
        if of(state) > 0 {
            parts.push(paint.word(tone, &format!("{} {what}", of(state))));
        }
    }
    let kind = match ca.kind {
        AuthorityKind::Embedded => "own CA",
        AuthorityKind::External => "CA",
    };
    let mut text = format!("{}; {kind} {}", parts.join(", "), safe(&ca.location));
    if let Some(since) = &ca.failing_since {
        let error = ca.error.as_deref().unwrap_or("it does not answer");
        // The first to end is what matters: until then nothing is lost.
        let ends = certificates.certificates.iter().filter_map(|row| row.not_after.as_deref()).min();
        let until =
            ends.map_or_else(String::new, |end| format!("; certificates serve until {end} or longer"));
        let told = format!(" fails since {since}: {}{until}", safe(error));
        text += &paint.word(Tone::Bad, &told);
    }
    if let Some(revocations) = &ca.revocations {
        let lists = count(revocations.lists, "revocation list");
        text = format!("{text}; {lists} in force");
        if let Some(error) = &revocations.error {
            text = format!("{text}, {}", paint.word(Tone::Bad, &safe(error)));
        }
    }
    text
}

fn objects(status: &Status) -> String {
    let all: Vec<String> = status.objects.iter().map(|(kind, n)| format!("{} {n}", safe(kind))).collect();
    if all.is_empty() { "no objects".to_owned() } else { all.join(", ") }
}

fn section(text: &mut String, paint: Paint, title: &str, findings: &[Finding]) -> std::fmt::Result {
    if findings.is_empty() {
        return Ok(());
    }
    writeln!(text, "\n{}", paint.word(Tone::Strong, title))?;
    for finding in findings {
        writeln!(text, "  {}", analyze::line(finding, paint))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use weft_api::admin::PodEnrolment;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        status: StatusArgs,
    }

    fn wait(args: &[&str]) -> Option<Duration> {
        let args = [&["status"], args].concat();
        Line::try_parse_from(args).unwrap().status.wait_applied
    }

    #[test]
    fn wait_applied_takes_an_optional_number_of_seconds() {
        assert_eq!(wait(&[]), None);
        assert_eq!(wait(&["--wait-applied"]), Some(Duration::from_secs(30)));
        assert_eq!(wait(&["--wait-applied=2.5"]), Some(Duration::from_millis(2_500)));
        assert_eq!(wait(&["--wait-applied=7s"]), Some(Duration::from_secs(7)));
        assert!(Line::try_parse_from(["status", "--wait-applied=soon"]).is_err());
    }

    #[test]
    fn a_status_for_people() {
        let status = Status {
            version: "0.1.0".into(),
            node: "n1".into(),
            ready: true,
            generation: 3,
            workers: vec![weft_api::admin::Worker { index: 0, generation: 3, connections: 2 }],
            pods: vec![weft_api::admin::PodEnrolment {
                namespace: "shop".into(),
                name: "catalog".into(),
                addresses: vec!["10.0.0.1".into()],
                enrolled: false,
                reason: Some("a label on the pod opts out".into()),
                ..weft_api::admin::PodEnrolment::default()
            }],
            objects: [("Pod".to_owned(), 1)].into(),
            datapath: weft_api::admin::Datapath {
                unproven: vec!["this kernel is old".into()],
                ..weft_api::admin::Datapath::default()
            },
            limits: Limits {
                pressure: "high".into(),
                holders: vec![weft_api::admin::LimitRow {
                    holder: "pod shop/catalog".into(),
                    resource: "standing_bytes".into(),
                    used: 24 << 20,
                    max: 24 << 20,
                    refused: 7,
                    refused_seconds_ago: Some(2),
                }],
                ..Limits::default()
            },
            ..Status::default()
        };
        let text = render(&status, Paint::plain()).unwrap();
        assert_eq!(
            text,
            "Agent  weft 0.1.0 on node n1, standalone, ready\n\
             Rules  generation 3 on 1 worker; Pod 1\n\
             Pods   0 of 1 in the mesh; 2 connections\n\
             mTLS   no certificate authority: between nodes all is plain text (--ca-dir or --ca-address gives one)\n\
             Not proven: this kernel is old\n\
             Memory high: load is shed (docs/limits.md)\n\
             Limit  pod shop/catalog has 24 MiB of 24 MiB standing; refused or held up 7 times, 2 s ago the last time\n\
             \n\
             NAMESPACE  POD      ADDRESSES  IN MESH  WHY NOT\n\
             shop       catalog  10.0.0.1   no       a label on the pod opts out\n"
        );
    }

    #[test]
    fn a_namespace_alone() {
        let pod = |namespace: &str| PodEnrolment { namespace: namespace.into(), ..PodEnrolment::default() };
        let finding = |resource: &str| Finding {
            severity: weft_api::finding::Severity::Error,
            code: "UnknownField".into(),
            resource: resource.into(),
            path: String::new(),
            message: String::new(),
            file: None,
            line: None,
        };
        let mut status = Status {
            pods: vec![pod("shop"), pod("web")],
            refused: ["Gateway/shop/a", "Gateway/web/shop", "Namespace/shop", "?"].map(finding).to_vec(),
            ..Status::default()
        };
        keep(&mut status, "shop");
        assert_eq!(status.pods, [pod("shop")]);
        assert_eq!(status.refused, [finding("Gateway/shop/a")]);
    }

    #[test]
    fn what_comes_from_elsewhere_is_shown_and_not_obeyed() {
        let evil = || "x\x1b[2J\u{202e}\r\n".to_owned();
        let finding = Finding {
            severity: weft_api::finding::Severity::Warning,
            code: "UnknownField".into(),
            resource: evil(),
            path: evil(),
            message: evil(),
            file: Some(evil()),
            line: Some(1),
        };
        let status = Status {
            version: evil(),
            node: evil(),
            waiting_for: vec![evil()],
            troubles: vec![evil()],
            pods: vec![PodEnrolment {
                namespace: evil(),
                name: evil(),
                addresses: vec![evil()],
                reason: Some(evil()),
                ..PodEnrolment::default()
            }],
            objects: [(evil(), 1)].into(),
            refused: vec![finding.clone()],
            not_in_force: vec![finding],
            ..Status::default()
        };
        let text = render(&status, Paint::plain()).unwrap();
        assert_eq!(text.lines().count(), 15, "{text}");
        assert!(!text.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{text:?}");
    }

    #[test]
    fn certificates_in_a_line() {
        use weft_api::admin::{CertificateAuthority, CertificateRow};
        let row = |state, not_after: &str| CertificateRow {
            state,
            not_after: Some(not_after.into()),
            ..CertificateRow::default()
        };
        let ca = CertificateAuthority { location: "/ca".into(), ..CertificateAuthority::default() };
        let good = Certificates {
            ca: Some(ca.clone()),
            certificates: vec![row(CertificateState::Valid, "2026-11-22T08:00:00Z")],
        };
        assert_eq!(certificates(&good, Paint::plain()), "1 valid certificate; own CA /ca");
        let ca = CertificateAuthority {
            kind: AuthorityKind::External,
            location: "https://ca".into(),
            failing_since: Some("2026-11-21T08:00:00Z".into()),
            error: Some("connection refused".into()),
            ..ca
        };
        let bad = Certificates {
            ca: Some(ca),
            certificates: vec![
                row(CertificateState::Valid, "2026-11-22T09:00:00Z"),
                row(CertificateState::RenewalFailing, "2026-11-22T08:00:00Z"),
            ],
        };
        assert_eq!(
            certificates(&bad, Paint::plain()),
            "1 valid certificate, 1 not renewed; CA https://ca fails since 2026-11-21T08:00:00Z: connection refused; \
             certificates serve until 2026-11-22T08:00:00Z or longer"
        );
    }
}
