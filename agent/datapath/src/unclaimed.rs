//! What was left closed, by an agent that died or by plugins without one: learnt at start, then claimed, let go, or removed.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use super::enclose::{self, Enclosures};
use super::error::Context;
use super::netns::{self, Netns};
use super::object::Pins;
use super::record::{self, Record, Records};
use super::{Datapath, DatapathError, mounts, routing, sockets};

impl Datapath {
    /// Learns what a dead agent has left, and what plugins have closed.
    pub fn take_over(&mut self) -> Result<(), DatapathError> {
        // Whoever pins a pod now is heard of afterwards: the agent can be reached.
        let _held = enclose::hold_pins(&self.run_dir)?;
        let in_map = self.kernel.maps.pods.keys().context(|| "cannot read map PODS".to_owned())?;
        let plan = record::plan_takeover(&self.pins.pods()?, &in_map, &self.records.load_all());
        for cookie in plan.forget {
            self.switch_off(cookie)?;
            self.kernel.forget(cookie)?;
            self.records.remove(cookie);
        }
        self.unclaimed = plan.adopt;
        self.learn_enclosed();
        Ok(())
    }

    /// Whether there are pods that fail closed until they are enrolled or let go.
    pub fn has_unclaimed(&self) -> bool {
        !self.unclaimed.is_empty()
    }

    /// The names of these, as far as they are known.
    pub fn unclaimed(&self) -> impl Iterator<Item = &str> {
        self.unclaimed.values().flatten().map(String::as_str)
    }

    /// Lets go of pods that a dead agent had enrolled, or a plugin has closed, and that nobody has enrolled, but for those
    /// that are `awaited`. To be called when all pods of the node are known, and again while there are some. Answers the names of
    /// those that were let go, as far as they are known.
    pub fn release_unclaimed(&mut self, awaited: &BTreeSet<String>) -> Result<Vec<String>, DatapathError> {
        let others: Namespaces = LazyCell::new(netns::of_processes);
        let gone: BTreeSet<u64> =
            self.pins.pods()?.iter().filter(|pod| !pod.alive).map(|pod| pod.cookie).collect();
        let stays = |cookie: &u64, key: &Option<String>| {
            !gone.contains(cookie) && key.as_ref().is_some_and(|key| awaited.contains(key))
        };
        let unclaimed = std::mem::take(&mut self.unclaimed);
        let (stay, go) = unclaimed.into_iter().partition(|(cookie, key)| stays(cookie, key));
        self.unclaimed = stay;
        let go: BTreeMap<u64, Option<String>> = go;
        let mut keys = Vec::new();
        for (cookie, key) in go {
            tracing::info!(pod = key.as_deref().unwrap_or("unknown"), "let go: not in the mesh, or gone");
            self.switch_off(cookie)?;
            self.kernel.forget(cookie)?;
            self.enclosures.remove(cookie);
            if let Some(record) = self.records.load(cookie) {
                take_back(&record, &others, &self.records);
            }
            keys.extend(key);
        }
        Ok(keys)
    }

    /// Removes what agents of other versions have pinned. To be called when no such agent runs any more.
    pub fn remove_other_versions(&self) -> Result<(), DatapathError> {
        self.pins.remove_other_versions()
    }
}

/// Removes what a dead agent with these directories, and plugins without one, have left. Returns the names of the pods that
/// were enrolled or closed. Must not be called while an agent runs.
pub fn cleanup(run_dir: &Path, bpf_dir: &Path) -> Result<Vec<String>, DatapathError> {
    if let Some(dir) = mounts::existing_bpf_dir(bpf_dir) {
        Pins::at(dir).remove_all()?;
    }
    let mut pods = take_back_all(&Records::of(run_dir));
    pods.extend(Enclosures::of(run_dir).remove_all());
    Ok(pods)
}

/// Namespaces by cookie, looked for when one is asked for.
type Namespaces = LazyCell<HashMap<u64, Netns>>;

/// Takes back the rules in every namespace on record.
pub(super) fn take_back_all(records: &Records) -> Vec<String> {
    let others: Namespaces = LazyCell::new(netns::of_processes);
    let mut keys = Vec::new();
    for record in records.load_all() {
        take_back(&record, &others, records);
        keys.push(record.key);
    }
    records.remove_dir();
    keys
}

/// Takes back the rules in one namespace, unless it is gone.
fn take_back(record: &Record, others: &Namespaces, records: &Records) {
    let is_it = |netns: &Netns| {
        netns.run(sockets::netns_cookie).flatten().is_ok_and(|cookie| cookie == record.cookie)
    };
    // The path may be one of the dead agent's own, or lead to another namespace by now.
    let at_path = Netns::open(&record.netns).ok().filter(is_it);
    if let Some(netns) = at_path.as_ref().or_else(|| others.get(&record.cookie))
        && let Err(error) = netns.run(|| routing::tear_down(&record.sysctls)).flatten()
    {
        tracing::warn!(pod = record.key, %error, "cannot take back the network rules of a pod");
    }
    records.remove(record.cookie);
}
