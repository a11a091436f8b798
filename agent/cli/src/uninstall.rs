//! `weft uninstall`: takes weft out of a cluster.

mod definitions;
mod nodes;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use weft_api::names::{AGENT, CA_ROOT_CONFIG_MAP, CONTROLLER, NAMESPACE, OWN_CA_SECRET, USER_CA_SECRET};

use crate::client::block_on;
use crate::cluster::{Cluster, ClusterAt, is_not_found};
use crate::install::{Key, confirmed, done, removal};
use crate::output::{self, Outcome, Paint, Tone, count};

/// Between two looks at what is still there.
const LOOK: Duration = Duration::from_millis(500);

/// Takes every pod out of the mesh, without a restart, then removes weft.
///
/// The agents take their programs, rules and CNI configuration along; where an agent is dead, `weft cleanup` runs in its
/// place. The CA's Secret and the namespace weft-system stay, and so do the users' rules, unless --purge is given.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weft uninstall
  weft uninstall --purge -y        nothing stays: no definition that weft made, no Secret, no namespace")]
pub struct UninstallArgs {
    /// Also remove the CA's Secrets, the namespace weft-system, and the custom resource definitions that weft has installed,
    /// with all objects of these kinds
    #[arg(long)]
    purge: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// How long to wait for the agents to end, and for each thing to be gone
    #[arg(long, value_name = "SECONDS", default_value = "180")]
    timeout: u64,
    #[command(flatten)]
    cluster: ClusterAt,
}

impl UninstallArgs {
    /// Uninstalls.
    pub fn run(&self) -> anyhow::Result<Outcome> {
        block_on(async { self.uninstall(&self.cluster.connect().await?).await })
    }

    async fn uninstall(&self, cluster: &Cluster) -> anyhow::Result<Outcome> {
        let paint = Paint::stdout();
        let found = Found::look(cluster).await?;
        if found.is_empty() {
            output::print("Nothing of weft was found.\n")?;
            return Ok(Outcome::Good);
        }
        output::print(&found.render(self.purge, paint)?)?;
        if !self.yes && !confirmed("Go on?")? {
            output::print("Nothing was changed.\n")?;
            return Ok(Outcome::Bad);
        }
        let patience = Duration::from_secs(self.timeout);
        // Nobody answers it soon.
        for key in found.of("ValidatingWebhookConfiguration") {
            remove(cluster, key, paint).await?;
        }
        let left = nodes::release(cluster, patience, paint).await?;
        let pods = nodes::forget_enrolment(cluster).await?;
        if pods > 0 {
            done(&count(pods, "pod"), "out of the mesh", paint)?;
        }
        let mut keys: Vec<&Key> = found.removable().collect();
        keys.reverse();
        for key in keys {
            remove(cluster, key, paint).await?;
        }
        if self.purge {
            for definition in found.of("CustomResourceDefinition") {
                remove(cluster, definition, paint).await?;
            }
            self.purge_namespaces(cluster, &found, paint).await?;
        } else {
            forget_root(cluster).await?;
        }
        let still_there = self.wait_until_gone(cluster, patience).await?;
        ensure!(left.is_empty() && still_there.is_empty(), "{}", remains(&left, &still_there, patience));
        output::print(&format!("{}\n", paint.word(Tone::Good, "weft is removed.")))?;
        Ok(Outcome::Good)
    }

    async fn purge_namespaces(&self, cluster: &Cluster, found: &Found, paint: Paint) -> anyhow::Result<()> {
        for key in found.of("Namespace") {
            match occupants(cluster, &key.name).await? {
                Some(what) if key.name != NAMESPACE => {
                    output::print(&format!("{} {key} stays: it has {what}\n", paint.word(Tone::Warn, "…")))?;
                }
                _ => remove(cluster, key, paint).await?,
            }
        }
        Ok(())
    }

    /// Waits until what was to go is gone; answers what is not.
    async fn wait_until_gone(&self, cluster: &Cluster, patience: Duration) -> anyhow::Result<Vec<Key>> {
        let until = Instant::now() + patience;
        loop {
            let mut left = removal::ours(cluster).await?;
            left.retain(|key| match &*key.kind {
                "CustomResourceDefinition" => self.purge,
                "Namespace" => self.purge && key.name == NAMESPACE,
                _ => true,
            });
            if left.is_empty() || Instant::now() >= until {
                return Ok(left);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// What there is of weft.
struct Found {
    keys: Vec<Key>,
    secrets: Vec<String>,
    /// Objects of users, by the definition that they would go with.
    objects: BTreeMap<String, usize>,
}

impl Found {
    async fn look(cluster: &Cluster) -> anyhow::Result<Self> {
        let keys = removal::ours(cluster).await?;
        let secrets = cluster.api::<Secret>(NAMESPACE).list_metadata(&ListParams::default()).await;
        let secrets = secrets.map_err(|error| cluster.told(error))?.items;
        let mut secrets: Vec<String> = secrets.iter().map(ResourceExt::name_any).collect();
        secrets.retain(|name| [OWN_CA_SECRET, USER_CA_SECRET].contains(&&**name));
        let definitions: Vec<&Key> =
            keys.iter().filter(|key| key.kind == "CustomResourceDefinition").collect();
        let objects = definitions::objects(cluster, &definitions).await?;
        Ok(Self { keys, secrets, objects })
    }

    fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.secrets.is_empty()
    }

    fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Key> {
        self.keys.iter().filter(move |key| key.kind == kind)
    }

    /// What goes in any case.
    fn removable(&self) -> impl Iterator<Item = &Key> {
        let stays = ["CustomResourceDefinition", "Namespace", "ValidatingWebhookConfiguration", "DaemonSet"];
        self.keys.iter().filter(move |key| !stays.contains(&&*key.kind))
    }

    fn render(&self, purge: bool, paint: Paint) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        let mut by_kind: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for key in &self.keys {
            by_kind.entry(&key.kind).or_default().push(&key.name);
        }
        for name in &self.secrets {
            by_kind.entry("Secret").or_default().push(name);
        }
        for (kind, names) in by_kind {
            let goes = purge || !["CustomResourceDefinition", "Namespace", "Secret"].contains(&kind);
            let (told, tone) = if goes { ("removes", Tone::Bad) } else { ("keeps", Tone::Faint) };
            writeln!(text, "  {}  {kind} {}", paint.word(tone, told), names.join(", "))?;
        }
        for (kind, n) in self.objects.iter().filter(|(_, n)| purge && **n > 0) {
            let told = format!("removes {n} {kind}");
            writeln!(text, "  {}  written by users", paint.word(Tone::Bad, &told))?;
        }
        Ok(text)
    }
}

/// Removes what agents leave on a node, run there as root.
const CURE: &str = "weft cleanup --cni-conf-dir /etc/cni/net.d --cni-bin-dir /opt/cni/bin";

/// What a person is told to do about what is left.
fn remains(nodes: &BTreeMap<String, String>, keys: &[Key], patience: Duration) -> String {
    let mut text = "weft is removed, but not all of it".to_owned();
    for (node, why) in nodes {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n  node {node} could not be cleaned: {why}\n    pods that were in the mesh there cannot connect until it is; \
             as root on the node: {CURE}"
        );
    }
    for key in keys {
        let _ = write!(text, "\n  {key} is still there after {} s", patience.as_secs());
    }
    text
}

async fn remove(cluster: &Cluster, key: &Key, paint: Paint) -> anyhow::Result<()> {
    removal::delete(cluster, key).await?;
    done(&key.to_string(), "removed", paint)
}

/// What the controller has made for others: the CA's root is made again from its Secret.
async fn forget_root(cluster: &Cluster) -> anyhow::Result<()> {
    let how = DeleteParams::default();
    let root = cluster.api::<k8s_openapi::api::core::v1::ConfigMap>(NAMESPACE);
    let lease = cluster.api::<k8s_openapi::api::coordination::v1::Lease>(NAMESPACE);
    for result in [
        root.delete(CA_ROOT_CONFIG_MAP, &how).await.map(drop),
        lease.delete(CONTROLLER, &how).await.map(drop),
    ] {
        match result {
            Err(error) if !is_not_found(&error) => return Err(cluster.told(error)),
            _ => {}
        }
    }
    Ok(())
}

/// What somebody else has in a namespace: it is not for weft to remove then.
async fn occupants(cluster: &Cluster, namespace: &str) -> anyhow::Result<Option<String>> {
    let known = cluster.all::<Namespace>().get_opt(namespace).await.map_err(|error| cluster.told(error))?;
    if known.is_none() {
        return Ok(None);
    }
    let pods = cluster.api::<Pod>(namespace).list_metadata(&ListParams::default()).await;
    let pods = pods.map_err(|error| cluster.told(error))?.items.len();
    let maps = cluster.api::<k8s_openapi::api::core::v1::ConfigMap>(namespace);
    let maps = maps.list_metadata(&ListParams::default()).await.map_err(|error| cluster.told(error))?.items;
    let maps = maps.iter().filter(|map| !map.name_any().ends_with("root-ca.crt")).count();
    let secrets = cluster.api::<Secret>(namespace).list_metadata(&ListParams::default()).await;
    let secrets = secrets.map_err(|error| cluster.told(error))?.items.len();
    let all = [count(pods, "pod"), count(maps, "ConfigMap"), count(secrets, "Secret")];
    Ok((pods + maps + secrets > 0).then(|| all.join(", ")))
}

/// The DaemonSet of the agents.
fn agent_set() -> Key {
    Key { kind: "DaemonSet".to_owned(), namespace: NAMESPACE.to_owned(), name: AGENT.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_with_its_cure() {
        let nodes = BTreeMap::from([("n2".to_owned(), "is not ready".to_owned())]);
        let text = remains(&nodes, &[agent_set()], Duration::from_secs(30));
        assert!(text.contains("node n2 could not be cleaned: is not ready"), "{text}");
        assert!(text.contains(CURE), "{text}");
        assert!(text.contains(&format!("{} is still there after 30 s", agent_set())), "{text}");
    }
}
