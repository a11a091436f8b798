//! `weft explain`: what would happen to a request.

mod gateway;

use std::fmt::Write;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use weft_api::admin::{Backend, ExplainRequest, Explanation, Peer, PeerSelector, WorkloadRow, paths};

use crate::client::{Agent, AgentAt, block_on};
use crate::output::{self, Format, Outcome, Paint, Tone, Usage, count, safe};

/// Decides by the rules in force, as the proxy would, and sends nothing. In a cluster the agent of the caller's node is asked.
///
/// A gateway asks nothing of its own: with one as FROM, the request is one that comes to it from outside.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weft explain productpage.bookinfo reviews:9080
  weft explain deploy/productpage-v1.bookinfo http://reviews:9080/reviews/0 -H 'end-user: jason'
  weft explain -n bookinfo deploy/reviews-v2 ratings:9080
  weft explain pod/sleep.default ratings.bookinfo:9080 --method POST --path /ratings/1 -o json
  weft explain https://shop.example.com/api               what the gateway does with it that serves this host
  weft explain deploy/istio-ingressgateway.weft-system http://shop.example.com/api      the same of a certain gateway
  weft explain --from-address 192.0.2.7 10.0.0.5:9080     what a caller without identity would get")]
pub struct ExplainArgs {
    /// Caller: pod NAME[.NS], deploy/NAME[.NS] or another KIND/NAME, or a pod's address. Or a gateway, at which TO arrives
    #[arg(value_name = "FROM", required_unless_present = "from_address")]
    from: Option<String>,
    /// Destination as the caller would dial it: HOST[:PORT], ADDRESS:PORT, or a URL. A URL alone comes from outside, to whichever
    /// gateway serves its host
    #[arg(value_name = "TO")]
    to: Option<String>,
    /// Instead of FROM: a caller at this address that is not in the mesh and proves nothing. With a gateway: its client
    #[arg(long, value_name = "ADDRESS", value_parser = clap::value_parser!(std::net::IpAddr))]
    from_address: Option<std::net::IpAddr>,
    /// Namespace of FROM, where FROM names none [default: any that has it]
    #[arg(short, long, value_name = "NS")]
    namespace: Option<String>,
    /// HTTP method [default: GET]
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Path with its query [default: that of the URL, or /]
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// A request header; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Print data instead of text
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    agent: AgentAt,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write 'name: value'")?;
    http::HeaderName::from_bytes(name.trim().as_bytes())
        .map_err(|_| format!("{name:?} is no header name"))?;
    http::HeaderValue::from_str(value.trim()).map_err(|_| format!("{value:?} is no header value"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

impl ExplainArgs {
    /// Asks and prints.
    pub fn run(self) -> anyhow::Result<Outcome> {
        // With --from-address the destination may stand alone.
        let (from, to) = match (self.from, self.to, self.from_address) {
            (Some(from), Some(to), _) => (from, to),
            (Some(to), None, Some(_)) => (String::new(), to),
            (Some(url), None, None) if url.contains("://") => (String::new(), url),
            (_, _, Some(_)) => {
                return Err(Usage("say where to: weft explain --from-address ADDRESS TO".into()).into());
            }
            _ => return Err(Usage("say where to: weft explain FROM TO, or a URL alone".into()).into()),
        };
        let comes_in = from.is_empty() && self.from_address.is_none();
        let mut question = ExplainRequest {
            from: within(from, self.namespace.as_deref()),
            from_address: self.from_address.map(|address| address.to_string()),
            to,
            method: self.method,
            path: self.path,
            headers: self.headers,
        };
        let answer: Explanation = block_on(async {
            let agents = self.agent.agents().await?;
            let agent = if comes_in {
                let (agent, gateway) = gateway::of(&agents, &question.to).await?;
                question.from = gateway;
                agent
            } else {
                agent_of(&agents, &question.from).await?
            };
            agent.ask(paths::EXPLAIN, &question, Duration::ZERO).await
        })?;
        match self.output {
            Some(format) => output::data(format, &answer)?,
            None => output::print(&render(&answer, Paint::stdout())?)?,
        }
        Ok(Outcome::Good)
    }
}

/// FROM in its namespace.
fn within(from: String, namespace: Option<&str>) -> String {
    match (namespace, from.parse::<PeerSelector>()) {
        (Some(namespace), Ok(selector)) => selector.within(namespace).to_string(),
        _ => from,
    }
}

/// The agent that serves the caller; any one, where the caller is on no node that is known: it says so.
async fn agent_of<'a>(agents: &'a [Agent], from: &str) -> anyhow::Result<&'a Agent> {
    let first = agents.first().ok_or_else(|| anyhow!("no agent"))?;
    let (false, Ok(from)) = (agents.len() == 1, from.parse::<PeerSelector>()) else { return Ok(first) };
    let workloads: Vec<WorkloadRow> = first.get(paths::WORKLOADS).await?;
    let node = caller(&workloads, &from).and_then(|row| row.node.as_deref());
    Ok(agents.iter().find(|agent| node.is_some() && agent.node() == node).unwrap_or(first))
}

/// The pod that the agent will take for the caller, of all that are called so: none that is ending, if it can choose.
fn caller<'a>(workloads: &'a [WorkloadRow], from: &PeerSelector) -> Option<&'a WorkloadRow> {
    let callers = workloads.iter().filter(|row| is_called(row, from));
    callers.min_by_key(|row| (row.ending, row.addresses.is_empty(), &row.namespace, &row.name))
}

/// Whether the agent would take this pod for the caller.
fn is_called(row: &WorkloadRow, from: &PeerSelector) -> bool {
    // Told where it is not the pod's own name.
    let workload = row.owner.as_deref().unwrap_or(&row.name);
    let address = row.addresses.first().and_then(|address| address.parse().ok());
    from.matches(&Peer {
        namespace: row.namespace.clone(),
        pod: row.name.clone(),
        workload: workload.to_owned(),
        address: address.map(|address| std::net::SocketAddr::new(address, 0)),
        labels: row.labels.clone(),
        ..Peer::default()
    })
}

fn render(answer: &Explanation, paint: Paint) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| writeln!(text, "{:<9} {value}", format!("{name}:"));
    match &answer.matched {
        Some(matched) => line(
            "Matched",
            &format!(
                "VirtualService {} route {}",
                paint.word(Tone::Strong, &matched.virtual_service),
                safe(&matched.route)
            ),
        )?,
        None if answer.backends.is_empty() && ["notFound", "deny"].contains(&&*answer.action) => {
            line("Matched", "no rule")?;
        }
        None => line("Matched", "no rule; the default holds")?,
    }
    line("Action", &paint.word(Tone::Strong, &answer.action))?;
    let total: u32 = answer.backends.iter().map(|backend| backend.weight).sum();
    for backend in &answer.backends {
        line("Backend", &backend_line(backend, total, paint))?;
    }
    for policy in &answer.policies {
        let tone = match &*policy.decided {
            decided if decided.contains("denied") || decided.contains("refused") => Tone::Bad,
            decided if decided.contains("allowed") => Tone::Good,
            _ => Tone::Faint,
        };
        let decided = paint.word(tone, &safe(&policy.decided));
        line("Policy", &format!("{} {}: {decided}", safe(&policy.name), safe(&policy.action)))?;
    }
    if !answer.tls.is_empty() {
        line("TLS", &safe(&answer.tls))?;
    }
    line("Timeout", &safe(answer.timeout.as_deref().unwrap_or("none")))?;
    match &answer.retries {
        Some(retries) => {
            let per_try =
                retries.per_try_timeout.as_ref().map_or_else(String::new, |t| format!(", {t} per try"));
            line("Retries", &safe(&format!("{} on {}{per_try}", retries.attempts, retries.retry_on)))?;
        }
        None => line("Retries", "none")?,
    }
    if let Some(faults) = &answer.faults {
        let parts = [("delay", &faults.delay), ("abort", &faults.abort)];
        let parts: Vec<String> =
            parts.iter().filter_map(|(what, it)| it.as_ref().map(|it| format!("{what} {it}"))).collect();
        line("Faults", &paint.word(Tone::Warn, &parts.join(", ")))?;
    }
    for note in &answer.notes {
        line("Note", &safe(note))?;
    }
    Ok(text)
}

fn backend_line(backend: &Backend, total: u32, paint: Paint) -> String {
    let port = backend.port.map_or_else(String::new, |port| format!(":{port}"));
    let subset =
        backend.subset.as_ref().map_or_else(String::new, |subset| format!(" subset {}", safe(subset)));
    let share = if total == backend.weight {
        String::new()
    } else {
        format!(" {:.4}", f64::from(backend.weight) * 100.0 / f64::from(total))
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned()
            + "%"
    };
    let endpoints = match &*backend.endpoints {
        [] => paint.word(Tone::Bad, "no healthy endpoint"),
        few if few.len() <= 5 => safe(&few.join(", ")).into_owned(),
        many => {
            let all = count(many.len() + backend.more_endpoints, "endpoint");
            format!("{}, … ({all})", safe(&many[..3].join(", ")))
        }
    };
    format!("{}{port}{subset}{share}: {endpoints}", paint.word(Tone::Strong, &backend.host))
}

#[cfg(test)]
mod tests {
    use weft_api::admin::Matched;

    use super::*;

    #[test]
    fn headers_are_checked() {
        assert_eq!(header("end-user: jason"), Ok(("end-user".into(), "jason".into())));
        assert_eq!(header("x:"), Ok(("x".into(), String::new())));
        assert!(header("nothing").is_err());
        assert!(header("bad name: x").is_err());
    }

    #[test]
    fn a_caller_is_of_the_namespace_that_was_given_with_it_or_beside_it() {
        for (from, wanted) in [
            ("web", "web.shop"),
            ("pod/web", "pod/web.shop"),
            ("deploy/web.other", "workload/web.other"),
            ("10.0.0.5", "10.0.0.5"),
            ("", ""),
        ] {
            assert_eq!(within(from.into(), Some("shop")), wanted);
        }
        assert_eq!(within("deploy/web".into(), None), "deploy/web");
    }

    #[test]
    fn what_comes_from_elsewhere_is_shown_and_not_obeyed() {
        let evil = || "x\x1b[2J\u{202e}\n".to_owned();
        let answer = Explanation {
            matched: Some(Matched { virtual_service: evil(), route: evil() }),
            action: evil(),
            backends: vec![Backend {
                host: evil(),
                subset: Some(evil()),
                endpoints: vec![evil()],
                weight: 1,
                ..Backend::default()
            }],
            tls: evil(),
            timeout: Some(evil()),
            notes: vec![evil()],
            ..Explanation::default()
        };
        let text = render(&answer, Paint::plain()).unwrap();
        assert_eq!(text.lines().count(), 7, "{text}");
        assert!(!text.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{text:?}");
    }

    #[test]
    fn the_callers_node_is_found_by_each_way_to_name_a_caller() {
        let row = WorkloadRow {
            namespace: "shop".into(),
            name: "edge-5d4f-x2x".into(),
            owner: Some("edge".into()),
            addresses: vec!["10.0.0.5".into()],
            ..WorkloadRow::default()
        };
        let called = |row: &WorkloadRow, from: &str| is_called(row, &from.parse().unwrap());
        // After a rollout: neither the one that goes nor one that has no network yet.
        let ending = WorkloadRow { name: "edge-1".into(), ending: true, ..row.clone() };
        let starting = WorkloadRow { name: "edge-2".into(), addresses: Vec::new(), ..row.clone() };
        let all = [ending, starting, row.clone()];
        let chosen = |of: &[WorkloadRow]| {
            caller(of, &"deploy/edge.shop".parse().unwrap()).map(|row| row.name.clone()).unwrap()
        };
        assert_eq!(
            (chosen(&all), chosen(&all[..2]), chosen(&all[..1])),
            (row.name.clone(), "edge-2".into(), "edge-1".into())
        );
        for from in ["deploy/edge.shop", "edge.shop", "edge-5d4f-x2x", "pod/edge-5d4f-x2x.shop", "10.0.0.5"] {
            assert!(called(&row, from), "{from}");
        }
        assert!(!called(&row, "deploy/edge.other"));
        let bare = WorkloadRow { name: "edge".into(), owner: None, ..row };
        assert!(called(&bare, "deploy/edge.shop"));
    }

    #[test]
    fn an_explanation_for_people() {
        let backend = |subset: &str, weight, endpoints: &[&str]| Backend {
            host: "reviews.bookinfo.svc.cluster.local".into(),
            subset: Some(subset.into()),
            port: Some(9080),
            weight,
            endpoints: endpoints.iter().map(ToString::to_string).collect(),
            more_endpoints: 0,
        };
        let answer = Explanation {
            matched: Some(Matched { virtual_service: "bookinfo/reviews".into(), route: "http[1]".into() }),
            action: "route".into(),
            backends: vec![backend("v1", 95, &["10.0.0.5:9080"]), backend("v3", 5, &[])],
            tls: "none (same node)".into(),
            timeout: Some("15s".into()),
            ..Explanation::default()
        };
        let text = render(&answer, Paint::plain()).unwrap();
        assert_eq!(
            text,
            "Matched:  VirtualService bookinfo/reviews route http[1]\n\
             Action:   route\n\
             Backend:  reviews.bookinfo.svc.cluster.local:9080 subset v1 95%: 10.0.0.5:9080\n\
             Backend:  reviews.bookinfo.svc.cluster.local:9080 subset v3 5%: no healthy endpoint\n\
             TLS:      none (same node)\n\
             Timeout:  15s\n\
             Retries:  none\n"
        );
    }
}
