//! Whose a host is. By itself a VirtualService of any namespace takes the traffic of any Service, as in Istio; with
//! `hostOwnership: namespace` only those of the Service's own namespace do, and the mesh's own.

use std::sync::Arc;

use weft_api::finding::{Finding, Severity, code};

use crate::registry::host::Host;
use crate::registry::hostname::{self, HostPattern};
use crate::route::virtual_service::Rules;
use crate::snapshot::Snapshot;
use crate::workload::Workload;

/// Services that a finding names, at most.
const NAMED: usize = 3;

/// Who may have rules for a Service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner<'a> {
    namespace: &'a str,
    root: &'a str,
}

impl Owner<'_> {
    /// Whether these rules may be for it.
    pub(crate) fn lets(self, rules: &Rules) -> bool {
        *rules.age.namespace == *self.namespace || *rules.age.namespace == *self.root
    }
}

/// Whether a caller sees these rules, and they may be for a host of this owner.
pub(super) fn may_take(rules: &Rules, caller: &Workload, owner: Option<Owner<'_>>) -> bool {
    rules.scope.admits(&caller.namespace) && owner.is_none_or(|owner| owner.lets(rules))
}

impl Snapshot {
    /// Whose the rules for a host must be; `None`: anybody's may be.
    pub(crate) fn owner<'a>(&'a self, host: &'a str) -> Option<Owner<'a>> {
        if !self.mesh.host_ownership {
            return None;
        }
        // The name of a Service that is not there (yet, any more) is its namespace's all the same.
        let unregistered = || hostname::namespace_of_service(host, &self.mesh.cluster_domain);
        let namespace =
            self.registry.namespace_of(host).map(|namespace| &**namespace).or_else(unregistered)?;
        Some(Owner { namespace, root: &self.root_namespace })
    }

    /// The Services whose hosts these rules name though they are of another namespace, by their full names.
    fn foreign<'a>(&'a self, rules: &Rules, pattern: &HostPattern) -> Vec<&'a str> {
        let is_foreign = |host: &Host| {
            let owner = &host.service.namespace;
            *owner != rules.age.namespace && *rules.age.namespace != *self.root_namespace
        };
        let hosts = &self.registry.hosts;
        let named: Vec<&Arc<Host>> = match pattern {
            HostPattern::Exact(name) => hosts.get(name).into_iter().collect(),
            HostPattern::Below(suffix) => hosts
                .iter()
                .filter(|(name, _)| hostname::is_below(name, suffix))
                .map(|(_, host)| host)
                .collect(),
        };
        let foreign = named.into_iter().filter(|host| is_foreign(host));
        let mut all: Vec<&str> = foreign.map(|host| &*host.service.host).collect();
        all.sort_unstable();
        all
    }

    /// Says of each VirtualService whose traffic of another namespace's Services it takes, or would.
    pub(crate) fn taken(&self, rules: &Arc<Rules>) -> Vec<Finding> {
        // What only its own namespace sees takes its own calls elsewhere.
        let private = !self.mesh.host_ownership && rules.scope.is_only(&rules.age.namespace);
        if !rules.on_mesh || private {
            return Vec::new();
        }
        let finding = |(at, pattern): (usize, &HostPattern)| {
            let foreign = self.foreign(rules, pattern);
            if foreign.is_empty() {
                return None;
            }
            let names = foreign[..foreign.len().min(NAMED)].join(", ");
            let names = match foreign.len().saturating_sub(NAMED) {
                0 => names,
                more => format!("{names} and {more} more"),
            };
            let message = if self.mesh.host_ownership {
                format!(
                    "is not in force for {names}: of another namespace (hostOwnership is namespace; put it there)"
                )
            } else {
                format!(
                    "takes the traffic of {names}, of another namespace (put it there, limit it with exportTo: [.], or refuse \
                     all such with hostOwnership: namespace)"
                )
            };
            Some(Finding {
                severity: Severity::Warning,
                code: code::HOST_TAKEN.to_owned(),
                resource: format!("VirtualService/{}", rules.key),
                path: format!("spec.hosts[{at}]"),
                message,
                file: None,
                line: None,
            })
        };
        rules.hosts.iter().enumerate().filter_map(finding).collect()
    }
}
