//! The datapath as people see it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use weft_common::PodStats;

use super::PodNetwork;

/// What the datapath holds.
#[derive(Debug, Clone)]
pub struct DatapathStatus {
    /// Where everything is pinned.
    pub bpf_dir: PathBuf,
    /// How many listeners of each kind every pod has.
    pub workers: usize,
    /// What newer kernels prove and this one does not.
    pub unproven: Vec<String>,
    /// Enrolled pods, by name.
    pub pods: Vec<PodStatus>,
    /// Pods of an earlier agent that fail closed until they are enrolled again.
    pub unclaimed: Vec<String>,
}

/// An enrolled pod and what the kernel counts for it. Counters begin at zero when it is enrolled, and live on when an
/// agent takes over from another.
#[derive(Debug, Clone)]
pub struct PodStatus {
    /// `namespace/name`.
    pub key: Arc<str>,
    /// Path of its network namespace.
    pub netns: PathBuf,
    /// `SO_NETNS_COOKIE` of it.
    pub cookie: u64,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Outbound connections redirected to the agent.
    pub captured: u64,
    /// Inbound connections given to the agent.
    pub assigned: u64,
    /// Connections refused because no agent was listening.
    pub refused_no_agent: u64,
    /// Connections refused because the pod was opening too many at once.
    pub refused_limit: u64,
    /// Captured connections that were closed because the kernel's table of destinations was full.
    pub unpublished: u64,
}

impl PodStatus {
    pub(super) fn new(network: &PodNetwork, cookie: u64, stats: &PodStats) -> Self {
        Self {
            key: Arc::clone(&network.key),
            netns: network.netns.clone(),
            cookie,
            addresses: network.addresses.clone(),
            captured: stats.captured,
            assigned: stats.assigned,
            refused_no_agent: stats.refused_no_agent,
            refused_limit: stats.refused_limit,
            unpublished: stats.unpublished,
        }
    }
}
