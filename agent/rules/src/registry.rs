//! What exists on the mesh: hosts with their ports and the endpoints behind them, the workloads, and who sees what. Where
//! requests go is [`crate::route`]'s and [`crate::snapshot`]'s.

pub(crate) mod endpoints;
pub(crate) mod host;
pub(crate) mod hostname;
pub(crate) mod pod;
pub(crate) mod pods;
pub(crate) mod port_index;
pub mod protocol;
pub(crate) mod scope;
pub(crate) mod services;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::shard::Sharded;
use crate::workload::Workload;

use host::Host;
use port_index::PortIndex;

/// How many `ExternalName` services may follow one another.
const ALIAS_HOPS: usize = 4;

/// The registry at one moment. Parts that did not change are shared with the one before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    /// By full name.
    pub(crate) hosts: Sharded<Arc<str>, Arc<Host>>,
    /// Names of hosts by their addresses: a ClusterIP, or the endpoints of a headless service.
    pub(crate) owners: Sharded<IpAddr, Arc<[Arc<str>]>>,
    /// Ports on which some host speaks, or may speak, HTTP.
    pub(crate) http_ports: Arc<PortIndex>,
    /// By `namespace/name`.
    pub(crate) workloads: Sharded<Arc<str>, Arc<Workload>>,
    /// Workloads by their addresses; those on the network of their machine share its, and are not here.
    pub(crate) addresses: Sharded<IpAddr, Arc<Workload>>,
}

impl Registry {
    /// The host of this full name; an `ExternalName` service is the one that it names.
    pub(crate) fn host(&self, name: &str) -> Option<&Arc<Host>> {
        let mut host = self.hosts.get(name)?;
        for _ in 0..ALIAS_HOPS {
            match &host.alias_of {
                None => return Some(host),
                Some(target) => host = self.hosts.get(target)?,
            }
        }
        None
    }

    /// The host that has this address and port and that the caller sees.
    pub(crate) fn host_at(&self, caller: &Workload, dst: SocketAddr) -> Option<&Arc<Host>> {
        self.hosts_at(caller, dst.ip()).find(|host| host.port(dst.port()).is_some())
    }

    /// The hosts that have this address and that the caller sees, whatever their ports.
    pub(crate) fn hosts_at(&self, caller: &Workload, address: IpAddr) -> impl Iterator<Item = &Arc<Host>> {
        let owners = self.owners.get(&address.to_canonical());
        let hosts =
            owners.into_iter().flat_map(|owners| owners.iter()).filter_map(|name| self.hosts.get(name));
        hosts.filter(|host| host.scope.admits(&caller.namespace))
    }

    /// The namespace of which a host is, as it was registered; `None`: nobody has registered it.
    pub(crate) fn namespace_of(&self, name: &str) -> Option<&Arc<str>> {
        self.hosts.get(name).map(|host| &host.service.namespace)
    }
}
