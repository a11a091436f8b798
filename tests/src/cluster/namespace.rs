//! A namespace of the cluster, for one story.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;

use super::{Cluster, ClusterPod};
use crate::wait::eventually_each;

/// Between two questions to the API server.
const PERIOD: Duration = Duration::from_millis(200);

/// A namespace that goes away with whatever a story left in it.
#[derive(Debug)]
pub struct Namespace {
    cluster: Cluster,
    name: String,
}

impl Namespace {
    pub(crate) fn create(cluster: Cluster, name: &str) -> Result<Self> {
        // That of a story before this one may still be going.
        cluster.kubectl(&["delete", "namespace", name, "--ignore-not-found", "--timeout=60s"])?;
        cluster.kubectl(&["create", "namespace", name])?;
        let namespace = Self { cluster, name: name.to_owned() };
        // Pods that come before their account are refused. Controllers that have lost the API server come back late.
        namespace.eventually("its service account", Duration::from_mins(3), || {
            namespace.kubectl(&["get", "serviceaccount", "default"])
        })?;
        Ok(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `kubectl` in it.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        let mut all = vec!["--namespace", self.name.as_str()];
        all.extend(words);
        self.cluster.kubectl(&all)
    }

    /// The address of one of its Services.
    pub fn service_address(&self, name: &str) -> Result<String> {
        self.kubectl(&["get", "service", name, "--output=jsonpath={.spec.clusterIP}"])
    }

    /// `kubectl get … -o json` in it.
    pub fn get(&self, words: &[&str]) -> Result<Value> {
        let mut all = vec!["--namespace", self.name.as_str()];
        all.extend(words);
        self.cluster.get(&all)
    }

    /// `kubectl apply` of these manifests, in it.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        self.cluster.feed(&["--namespace", &self.name, "apply", "--filename=-"], yaml).map(drop)
    }

    /// Puts it into the mesh.
    pub fn join_mesh(&self) -> Result<()> {
        self.cluster
            .kubectl(&["label", "namespace", &self.name, "weft.dev/mesh=enabled", "--overwrite"])
            .map(drop)
    }

    /// Takes it out again.
    pub fn leave_mesh(&self) -> Result<()> {
        self.cluster.kubectl(&["label", "namespace", &self.name, "weft.dev/mesh-"]).map(drop)
    }

    /// Waits until a Deployment, a DaemonSet or a StatefulSet (`deployment/NAME`) is as its manifest says.
    pub fn rolled_out(&self, what: &str) -> Result<()> {
        self.cluster.rolled_out(&self.name, what)
    }

    /// The pod of that name.
    pub fn pod(&self, name: &str) -> Result<ClusterPod> {
        ClusterPod::of(&self.cluster, &self.get(&["pod", name])?)
    }

    /// The pods that a selector such as `app=echo` finds, by name; those that are leaving are none.
    pub fn pods(&self, selector: &str) -> Result<Vec<ClusterPod>> {
        let list = self.get(&["pods", "--selector", selector])?;
        let items = list["items"].as_array().into_iter().flatten();
        let staying = items.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        staying.map(|pod| ClusterPod::of(&self.cluster, pod)).collect()
    }

    /// Waits for an event about `kind/name` with this reason; answers its message.
    pub fn event(&self, about: &str, reason: &str, patience: Duration) -> Result<String> {
        let (kind, name) = about.split_once('/').unwrap_or((about, ""));
        let of = format!("involvedObject.kind={kind},involvedObject.name={name},reason={reason}");
        self.eventually(&format!("event {reason} on {about}"), patience, || {
            let events = self.get(&["events", "--field-selector", &of])?;
            let Some(message) = events["items"][0]["message"].as_str() else { bail!("none is there") };
            Ok(message.to_owned())
        })
    }

    /// Asks the cluster until it answers, a few times in a second.
    pub fn eventually<T>(
        &self,
        what: &str,
        patience: Duration,
        look: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        eventually_each(PERIOD, &format!("{what} in namespace {}", self.name), patience, look)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Whoever looks for a failure wants to see what was there.
        if !std::thread::panicking() {
            self.cluster.kubectl(&["delete", "namespace", &self.name, "--wait=false"]).ok();
        }
    }
}
