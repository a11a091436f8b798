//! Which gateway takes a URL.

use anyhow::{Context, anyhow};
use http::Uri;
use weft_api::admin::{GatewayRow, paths};

use crate::client::Agent;

/// The agent and the pod, as `NAME.NAMESPACE`: of the gateways that have the URL's port the one that serves the most specific host
/// of this name; where none does, any one, which says so.
pub async fn of<'a>(agents: &'a [Agent], url: &str) -> anyhow::Result<(&'a Agent, String)> {
    let uri: Uri = url.parse().with_context(|| format!("{url:?} is no URL"))?;
    let host = uri.host().with_context(|| format!("{url:?} names no host"))?.to_ascii_lowercase();
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let port = uri.port_u16().unwrap_or(default);
    let mut best: Option<(Option<usize>, &Agent, String)> = None;
    for agent in agents {
        let rows: Vec<GatewayRow> = agent.get(paths::GATEWAYS).await?;
        for row in rows.iter().filter(|row| row.port == port) {
            let fits = row.hosts.iter().filter_map(|pattern| fit(pattern, &host)).max();
            if best.as_ref().is_none_or(|(known, ..)| fits > *known) {
                best = Some((fits, agent, format!("{}.{}", row.pod, row.namespace)));
            }
        }
    }
    let (_, agent, pod) = best.ok_or_else(|| {
        anyhow!("no gateway serves port {port} (weft get gateways lists what they serve; name the caller if it is in the mesh)")
    })?;
    Ok((agent, pod))
}

/// How specifically a host of a gateway has this name: the longer the better, a name itself most of all.
fn fit(pattern: &str, name: &str) -> Option<usize> {
    match pattern.strip_prefix('*') {
        None => (pattern == name).then_some(usize::MAX),
        Some(suffix) => (name.ends_with(suffix) && name.len() > suffix.len()).then_some(suffix.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_host_fits_best() {
        let fits = |pattern| fit(pattern, "shop.example.com");
        assert!(fits("shop.example.com") > fits("*.example.com"));
        assert!(fits("*.example.com") > fits("*.com") && fits("*.com") > fits("*") && fits("*").is_some());
        assert_eq!((fits("*.shop.example.com"), fits("example.com")), (None, None));
    }
}
