//! What nodes ask of their pods, counted apart: a probe is nobody's traffic.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::record::{HttpRecord, TcpEvent, TcpRecord, Upstream};

/// Probes that are told apart at most: workloads come and go.
const MAX_SERIES: usize = 10_000;

/// What tells probes apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probed {
    /// Namespace of the pod.
    pub namespace: Arc<str>,
    /// What made it.
    pub workload: Arc<str>,
    /// `http`, `grpc` or `tcp`.
    pub protocol: &'static str,
    /// Whether the kubelet is content.
    pub success: bool,
}

/// All probes. Nodes ask some times in a second: whoever counts may take a lock.
#[derive(Debug, Default)]
pub struct Probes(Mutex<BTreeMap<Probed, u64>>);

impl Probes {
    /// Counts a request.
    pub fn http(&self, record: &HttpRecord<'_>) {
        let grpc = record.grpc_messages.is_some();
        let success = (200..400).contains(&record.status) && record.grpc_status.unwrap_or(0) == 0;
        self.count(record.upstream, if grpc { "grpc" } else { "http" }, success);
    }

    /// Counts a connection at its end.
    pub fn tcp(&self, record: &TcpRecord<'_>) {
        if record.event == TcpEvent::Closed {
            self.count(record.upstream, "tcp", record.flags.is_empty());
        }
    }

    fn count(&self, upstream: &Upstream, protocol: &'static str, success: bool) {
        let Some(workload) = &upstream.workload else { return };
        let (namespace, name) = (Arc::clone(&workload.namespace), Arc::clone(&workload.workload_name));
        let probed = Probed { namespace, workload: name, protocol, success };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < MAX_SERIES || all.contains_key(&probed) {
            *all.entry(probed).or_default() += 1;
        }
    }

    /// All there are now.
    pub fn all(&self) -> BTreeMap<Probed, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
