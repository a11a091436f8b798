//! `weft verify-install`: is everything there, as it was installed, and ready?

use std::fmt::Write;

use clap::Args;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::ResourceExt;
use kube::api::ListParams;
use weft_api::names::{AGENT, CA_ROOT_CONFIG_MAP, CA_ROOT_KEY, NAMESPACE, WEBHOOK_CONFIGURATION};

use crate::client::block_on;
use crate::cluster::{Cluster, ClusterAt, NoCluster};
use crate::install::object::Object;
use crate::install::plan::{self, Action};
use crate::install::present::Present;
use crate::install::rollout;
use crate::output::{self, Outcome, Paint, Tone, safe};

/// Compares what a cluster has with what was installed, and looks whether it is ready. Nothing is changed. Exit code 1 if
/// something is missing, different or not ready.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weft verify-install
  weft verify-install --context staging")]
pub struct VerifyArgs {
    #[command(flatten)]
    cluster: ClusterAt,
}

/// A line of the report: what was looked at, and what was found.
struct Line {
    what: String,
    found: Result<String, (String, String)>,
}

fn good(what: impl Into<String>, told: impl Into<String>) -> Line {
    Line { what: what.into(), found: Ok(told.into()) }
}

fn bad(what: impl Into<String>, problem: impl Into<String>, cure: impl Into<String>) -> Line {
    Line { what: what.into(), found: Err((problem.into(), cure.into())) }
}

impl VerifyArgs {
    /// Looks at everything.
    pub fn run(&self) -> anyhow::Result<Outcome> {
        block_on(async {
            let cluster = match self.cluster.connect().await {
                Err(error) if error.is::<NoCluster>() => return Err(error),
                cluster => cluster?,
            };
            let lines = verify(&cluster).await?;
            output::print(&render(&lines, Paint::stdout())?)?;
            let bad = lines.iter().any(|line| line.found.is_err());
            Ok(if bad { Outcome::Bad } else { Outcome::Good })
        })
    }
}

async fn verify(cluster: &Cluster) -> anyhow::Result<Vec<Line>> {
    let Some(present) = Present::look(cluster).await? else {
        return Ok(vec![bad("weft", format!("no DaemonSet {NAMESPACE}/{AGENT}"), "weft install")]);
    };
    let profile = present.values.profile();
    let settings = present.values.to_text();
    let with = if settings.is_empty() { String::new() } else { format!(" with {settings}") };
    let mut lines = vec![good("weft", format!("profile {profile}{with}, image {}", present.image))];
    let mut objects = present.values.objects()?;
    lines.extend(scaled(cluster, &mut objects).await?);
    let steps = plan::plan(cluster, objects).await?;
    let mut same = 0;
    let again = "weft install again, with the settings of before";
    for step in &steps {
        let key = step.object.key();
        match &step.action {
            Action::Nothing => same += 1,
            Action::Leave => lines.push(good(key.to_string(), "is there, and not weft's")),
            Action::Create => lines.push(bad(key.to_string(), "is missing", again)),
            Action::Update(changes) => lines.push(bad(
                key.to_string(),
                format!("is not as this weft would install it: {}", changes.join("; ")),
                again,
            )),
        }
    }
    lines.push(good("objects", format!("{same} of {} as installed", steps.len())));
    for step in &steps {
        let key = step.object.key();
        if step.action != Action::Create
            && matches!(&*key.kind, "CustomResourceDefinition" | "Deployment" | "DaemonSet")
        {
            let state = rollout::look(cluster, &key).await?;
            lines.push(if state.ready {
                good(key.to_string(), state.told)
            } else {
                bad(key.to_string(), state.told, format!("kubectl -n {NAMESPACE} get pods -o wide"))
            });
        }
    }
    lines.push(nodes_without_agent(cluster).await?);
    lines.push(root(cluster).await?);
    lines.push(webhook(cluster).await?);
    Ok(lines)
}

/// Whoever scales a Deployment, by hand or by an autoscaler, changes nothing that was installed: as many as there are to be
/// now are asked for.
async fn scaled(cluster: &Cluster, objects: &mut [Object]) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for object in objects.iter_mut().filter(|object| object.kind() == "Deployment") {
        let found = cluster.api::<Deployment>(object.namespace()).get_opt(object.name()).await;
        let found = found.map_err(|error| cluster.told(error))?;
        let now = found.and_then(|found| found.spec?.replicas);
        lines.extend(now.and_then(|now| scale(object, now)).map(|told| good(object.key().to_string(), told)));
    }
    Ok(lines)
}

/// Makes a Deployment one of so many replicas; says so where it was installed with others.
fn scale(object: &mut Object, now: i32) -> Option<String> {
    let replicas = &mut object.0["spec"]["replicas"];
    let installed = replicas.as_i64().unwrap_or(1);
    *replicas = now.into();
    (installed != i64::from(now)).then(|| format!("scaled to {now}, installed with {installed}"))
}

/// Linux nodes where no agent is.
async fn nodes_without_agent(cluster: &Cluster) -> anyhow::Result<Line> {
    let told = |error| cluster.told(error);
    let linux = ListParams::default().labels("kubernetes.io/os=linux");
    let nodes = cluster.all::<Node>().list_metadata(&linux).await.map_err(told)?.items;
    let agents = ListParams::default().labels(&format!("app.kubernetes.io/name={AGENT}"));
    let agents = cluster.api::<Pod>(NAMESPACE).list(&agents).await.map_err(told)?.items;
    let has_agent = |node: &str| {
        agents.iter().any(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node))
    };
    let without: Vec<String> =
        nodes.iter().map(ResourceExt::name_any).filter(|node| !has_agent(node)).collect();
    Ok(if without.is_empty() {
        good("nodes", format!("{} with an agent", nodes.len()))
    } else {
        bad(
            "nodes",
            format!("no agent on {}", without.join(", ")),
            format!("kubectl -n {NAMESPACE} describe daemonset {AGENT}"),
        )
    })
}

/// Whether the CA has told its root.
async fn root(cluster: &Cluster) -> anyhow::Result<Line> {
    let found = cluster.api::<ConfigMap>(NAMESPACE).get_opt(CA_ROOT_CONFIG_MAP).await;
    let found = found.map_err(|error| cluster.told(error))?;
    let root = found.and_then(|map| map.data?.remove(CA_ROOT_KEY)).unwrap_or_default();
    let certificates = root.matches("BEGIN CERTIFICATE").count();
    Ok(match certificates {
        0 => bad(
            "certificate authority",
            format!("has not written its root to ConfigMap {CA_ROOT_CONFIG_MAP}"),
            format!("kubectl -n {NAMESPACE} logs deployment/weft-controller"),
        ),
        n => good("certificate authority", format!("{} known to the agents", output::count(n, "root"))),
    })
}

/// Whether the API server can trust the webhook.
async fn webhook(cluster: &Cluster) -> anyhow::Result<Line> {
    let found = cluster.all::<ValidatingWebhookConfiguration>().get_opt(WEBHOOK_CONFIGURATION).await;
    let found = found.map_err(|error| cluster.told(error))?;
    let trusted = found.and_then(|found| found.webhooks).is_some_and(|all| {
        all.iter()
            .all(|webhook| webhook.client_config.ca_bundle.as_ref().is_some_and(|pem| !pem.0.is_empty()))
    });
    Ok(if trusted {
        good("webhook", "its certificate authority is in place")
    } else {
        bad(
            "webhook",
            "its certificate authority is not in place: wrong rules are not refused when they are written",
            format!("kubectl -n {NAMESPACE} logs deployment/weft-controller"),
        )
    })
}

fn render(lines: &[Line], paint: Paint) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    for Line { what, found } in lines {
        match found {
            Ok(told) => writeln!(text, "{}  {what}: {}", paint.word(Tone::Good, "ok  "), safe(told))?,
            Err((problem, cure)) => {
                writeln!(text, "{}  {what}: {}", paint.word(Tone::Bad, "FAIL"), safe(problem))?;
                writeln!(text, "      {cure}")?;
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_deployment_may_be_scaled() {
        let mut object = Object(json!({"kind": "Deployment", "spec": {"replicas": 2, "paused": false}}));
        assert_eq!(scale(&mut object, 2), None);
        assert_eq!(scale(&mut object, 5).unwrap(), "scaled to 5, installed with 2");
        assert_eq!(object.0["spec"], json!({"replicas": 5, "paused": false}));
        let mut object = Object(json!({"kind": "Deployment", "spec": {}}));
        assert_eq!(scale(&mut object, 1), None, "one is the default");
    }
}
