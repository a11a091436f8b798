//! Several nodes in one world: agents that share a CA, nodes with a network namespace of their own, and what is in no mesh.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::agent::{Agent, AgentSpec};
use crate::mesh::Mesh;
use crate::pod::Pod;
use crate::wait::lock;

impl Mesh {
    /// Pods to be are on this node where they are not told another.
    #[must_use]
    pub fn with_pods_on(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }

    /// Where agents keep the root that they share.
    pub fn ca_dir(&self) -> PathBuf {
        self.world().dir().join("ca")
    }

    /// Starts an agent for each of these nodes, all at once and with one CA: between them there is mTLS.
    pub fn start_agents(&self, nodes: &[&str]) -> Result<()> {
        self.start_agents_with(nodes, &[])
    }

    /// The same with further flags.
    pub fn start_agents_with(&self, nodes: &[&str], flags: &[&str]) -> Result<()> {
        let ca_dir = self.ca_dir().display().to_string();
        let mut all = vec!["--ca-dir", &ca_dir];
        all.extend(flags);
        let mut started = Vec::new();
        for node in nodes {
            started.push(self.spawn_agent(node, &all)?);
        }
        started.iter_mut().try_for_each(Agent::ready)?;
        lock(&self.agents).extend(started);
        Ok(())
    }

    /// Starts the agent of a node: in the node's own namespace, if [`Mesh::add_node`] made one. It may not be ready yet.
    fn spawn_agent(&self, node: &str, flags: &[&str]) -> Result<Agent> {
        let netns = self.the(&node_pod(node)).ok().map(|pod| (pod.netns.clone(), pod.ip));
        let number = self.next_agent();
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let spec = AgentSpec { node: node.to_owned(), netns, flags, number };
        Agent::spawned(self.world(), self.manifests(), spec)
    }

    /// Starts the agent of a node, with further flags, and waits until it serves.
    pub fn start_agent_with(&self, node: &str, flags: &[&str]) -> Result<()> {
        let mut agent = self.spawn_agent(node, flags)?;
        agent.ready()?;
        lock(&self.agents).push(agent);
        Ok(())
    }

    /// A node that is a network namespace on the bridge. Its agent, when started, lives in it.
    pub fn add_node(&self, name: &str) -> Result<Arc<Pod>> {
        self.outsider(&node_pod(name)).with_context(|| format!("node {name}"))
    }

    /// A pod's network that no manifest names: no agent serves it, and nobody knows whose address it has.
    pub fn outsider(&self, name: &str) -> Result<Arc<Pod>> {
        self.outsider_of("default", name)
    }

    /// The same in another namespace.
    pub fn outsider_of(&self, namespace: &str, name: &str) -> Result<Arc<Pod>> {
        self.add_pod(self.pod(name).namespace(namespace).spec)
    }
}

/// The name under which a node's namespace is kept.
fn node_pod(node: &str) -> String {
    format!("node-{node}")
}
