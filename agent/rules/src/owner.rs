//! Whose a host is. By itself a VirtualService of any namespace takes the traffic of any Service, as in Istio; with
//! `hostOwnership: namespace` only those of the Service's own namespace do, and the mesh's own.

use std::sync::Arc;

use weft_api::finding::{Finding, Severity, code};

use crate::host::HostPattern;
use crate::snapshot::Snapshot;
use crate::virtual_service::Rules;

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

/// The namespace of a Service by its full name.
fn namespace_of<'a>(host: &'a str, domain: &str) -> Option<&'a str> {
    let names = host.strip_suffix(domain)?.strip_suffix(".svc.")?;
    let (_, namespace) = names.split_once('.')?;
    (!namespace.contains('.')).then_some(namespace)
}

impl Snapshot {
    /// Whose the rules for a host must be; `None`: anybody's may be.
    pub(crate) fn owner<'a>(&'a self, host: &'a str) -> Option<Owner<'a>> {
        if !self.mesh.host_ownership {
            return None;
        }
        Some(Owner { namespace: namespace_of(host, &self.mesh.cluster_domain)?, root: &self.root_namespace })
    }

    /// The Services whose hosts these rules name though they are of another namespace, by their full names.
    fn foreign<'a>(&'a self, rules: &Rules, pattern: &HostPattern) -> Vec<&'a str> {
        let is_foreign = |host: &str| {
            let owner = namespace_of(host, &self.mesh.cluster_domain);
            owner.is_some_and(|owner| {
                *owner != *rules.age.namespace && *rules.age.namespace != *self.root_namespace
            })
        };
        let mut all: Vec<&str> = match pattern {
            HostPattern::Exact(name) => {
                self.services.get(name).into_iter().map(|entry| &*entry.service.host).collect()
            }
            HostPattern::Below(suffix) => {
                let hosts = self.services.iter().map(|(host, _)| &**host);
                hosts.filter(|host| crate::host::suffixes(host).any(|other| *other == **suffix)).collect()
            }
        };
        all.retain(|host| is_foreign(host));
        all.sort_unstable();
        all
    }

    /// Says of each VirtualService whose traffic of another namespace's Services it takes, or would.
    pub(crate) fn taken(&self, rules: &Arc<Rules>) -> Vec<Finding> {
        // What only its own namespace sees takes its own calls elsewhere.
        let private = !self.mesh.host_ownership && rules.visibility.is_only(&rules.age.namespace);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_services_are_of_a_namespace() {
        for (host, expected) in [
            ("web.shop.svc.cluster.local", Some("shop")),
            ("a.web.shop.svc.cluster.local", None),
            ("shop.svc.cluster.local", None),
            ("web.example.com", None),
            ("web.shop.svc.other.local", None),
        ] {
            assert_eq!(namespace_of(host, "cluster.local"), expected, "{host}");
        }
    }
}
