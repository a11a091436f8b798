//! Whether agents have what mutual TLS takes: an installation whose certificates are still on the way is none yet.

use std::time::{Duration, Instant};

use anyhow::bail;
use futures_util::future::join_all;
use weft_api::admin::{CertificateState, Certificates, Status, paths};

use crate::client::{Agent, AgentAt};
use crate::cluster::Cluster;
use crate::output::count;

/// How often they are asked.
const LOOK: Duration = Duration::from_millis(500);

/// Waits until the certificate authority has answered every agent that asked it; says what is still missing, each time that it
/// changes.
pub async fn wait(cluster: &Cluster, patience: Duration, mut say: impl FnMut(&str)) -> anyhow::Result<()> {
    let until = Instant::now() + patience;
    let mut last = String::new();
    loop {
        let missing = missing(cluster).await?.join("; ");
        if missing.is_empty() {
            return Ok(());
        }
        if missing != last {
            say(&missing);
            last.clone_from(&missing);
        }
        if Instant::now() >= until {
            bail!("agents have no certificates after {} s: {missing}", patience.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What each agent still lacks.
async fn missing(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let agents = AgentAt::default().agents_of(cluster).await?;
    let answers = join_all(agents.iter().map(|agent| agent.get::<Status>(paths::STATUS))).await;
    let told = |(agent, answer): (&Agent, anyhow::Result<Status>)| {
        let lacks = match answer {
            Ok(status) => lacks(&status.certificates)?,
            Err(error) => format!("{error:#}"),
        };
        Some(format!("{}: {lacks}", agent.node().unwrap_or("this node")))
    };
    Ok(agents.iter().zip(answers).filter_map(told).collect())
}

/// `None`: nothing. Without a pod in the mesh an agent has no certificate, and needs none.
fn lacks(certificates: &Certificates) -> Option<String> {
    let Some(ca) = &certificates.ca else { return Some("it has no certificate authority".to_owned()) };
    if ca.failing_since.is_some() {
        let why = ca.error.as_deref().unwrap_or("no reason");
        return Some(format!("the certificate authority does not answer ({why})"));
    }
    let waiting = certificates.certificates.iter().filter(|row| row.state != CertificateState::Valid).count();
    (waiting > 0).then(|| format!("{} on the way", count(waiting, "certificate")))
}

#[cfg(test)]
mod tests {
    use weft_api::admin::{CertificateAuthority, CertificateRow};

    use super::*;

    #[test]
    fn an_agent_is_ready_for_mutual_tls_when_its_ca_has_answered() {
        let row = |state| CertificateRow { state, ..CertificateRow::default() };
        let with = |failing: bool, states: &[CertificateState]| Certificates {
            ca: Some(CertificateAuthority {
                failing_since: failing.then(|| "2026-11-21T08:00:00Z".to_owned()),
                error: failing.then(|| "connection refused".to_owned()),
                ..CertificateAuthority::default()
            }),
            certificates: states.iter().map(|state| row(*state)).collect(),
        };
        assert_eq!(lacks(&with(false, &[CertificateState::Valid])), None);
        assert_eq!(lacks(&with(false, &[])), None, "no pod is in the mesh");
        let told = lacks(&with(true, &[])).unwrap();
        assert!(told.contains("does not answer (connection refused)"), "{told}");
        let told = lacks(&with(false, &[CertificateState::Valid, CertificateState::Requested])).unwrap();
        assert_eq!(told, "1 certificate on the way");
        assert!(lacks(&Certificates::default()).is_some());
    }
}
