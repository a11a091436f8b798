//! `weft get policies`.

use std::sync::Arc;

use weft_api::admin::PolicyRow;
use weft_api::meta::Labels;

use crate::explain::MOST_LISTED;
use crate::guard::Entrance;
use crate::guard::peer::{self, PeerPolicy};
use crate::guard::policy::{Policy, Scope, TokenPolicy};
use crate::route::matching::is_subset;
use crate::route::virtual_service::Age;
use crate::snapshot::Snapshot;
use crate::workload::Workload;

/// One row for each security policy, by kind, namespace and name.
pub fn policies(snapshot: &Snapshot) -> Vec<PolicyRow> {
    let entrances = snapshot.entrances.iter();
    let local = entrances.filter_map(|(key, entrance)| Some((&**snapshot.workload(key)?, &**entrance)));
    let list = List { snapshot, local: local.collect() };
    let mut rows = Vec::new();
    for (_, security) in snapshot.security.iter() {
        rows.extend(security.peers.iter().map(|policy| list.peer(policy, &security.peers)));
        rows.extend(security.authorizations.iter().map(|policy| list.authorization(policy)));
        rows.extend(security.tokens.iter().map(|policy| list.token(policy)));
    }
    rows.sort_by(|a, b| (&a.kind, &a.namespace, &a.name).cmp(&(&b.kind, &b.namespace, &b.name)));
    rows
}

struct List<'a> {
    snapshot: &'a Snapshot,
    /// The workloads of this node.
    local: Vec<(&'a Workload, &'a Entrance)>,
}

impl List<'_> {
    fn row(&self, kind: &str, age: &Age, applies: impl Fn(&Workload, &Entrance) -> bool) -> PolicyRow {
        let workloads = self.local.iter().filter(|(workload, entrance)| applies(workload, entrance));
        let mut workloads: Vec<String> = workloads.map(|(workload, _)| workload.key.to_string()).collect();
        workloads.sort_unstable();
        let more_workloads = workloads.len().saturating_sub(MOST_LISTED);
        workloads.truncate(MOST_LISTED);
        PolicyRow {
            kind: kind.to_owned(),
            namespace: age.namespace.to_string(),
            name: age.name.to_string(),
            workloads,
            more_workloads,
            ..PolicyRow::default()
        }
    }

    fn is_mesh_wide(&self, namespace: &str) -> bool {
        namespace == &*self.snapshot.root_namespace
    }

    /// What a policy without selector is for.
    fn whole(&self, namespace: &str) -> String {
        if self.is_mesh_wide(namespace) { "mesh".to_owned() } else { "namespace".to_owned() }
    }

    fn peer(&self, policy: &Arc<PeerPolicy>, of_namespace: &[Arc<PeerPolicy>]) -> PolicyRow {
        let namespace = &*policy.age.namespace;
        let reaches = |workload: &Workload| match &policy.selector {
            Some(selector) => *workload.namespace == *namespace && is_subset(selector, &workload.labels),
            None => *workload.namespace == *namespace || self.is_mesh_wide(namespace),
        };
        let asked = |workload: &Workload| {
            let security =
                |namespace: &str| self.snapshot.security.get(namespace).map(|security| &**security);
            let own = security(&workload.namespace);
            let mut chain =
                peer::chain(own, security(&self.snapshot.root_namespace), workload).into_iter().flatten();
            chain.any(|other| other.key == policy.key)
        };
        let mut row =
            self.row("PeerAuthentication", &policy.age, |workload, _| reaches(workload) && asked(workload));
        let of_ports = policy.ports.iter().map(|(port, mode)| format!("{port}={}", unset_or(*mode)));
        let modes: Vec<String> = std::iter::once(unset_or(policy.mode)).chain(of_ports).collect();
        row.action = modes.join(", ");
        row.scope = policy.selector.as_ref().map_or_else(|| self.whole(namespace), |labels| in_words(labels));
        let older = of_namespace.iter().take_while(|other| other.key != policy.key);
        let mut shadowing = older.filter(|other| other.selector == policy.selector);
        if let Some(older) = shadowing.next() {
            row.notes.push(format!("has no effect: PeerAuthentication {} is older", older.key));
        }
        row
    }

    fn authorization(&self, policy: &Policy) -> PolicyRow {
        let mut row = self.scoped("AuthorizationPolicy", &policy.age, &policy.scope);
        row.action = policy.action.to_string();
        row.rules = policy.rules.len();
        if policy.dry_run {
            row.notes.push("a dry run: it decides nothing".to_owned());
        }
        row
    }

    fn token(&self, policy: &TokenPolicy) -> PolicyRow {
        let mut row = self.scoped("RequestAuthentication", &policy.age, &policy.scope);
        let issuers: Vec<&str> = policy.rules.iter().map(|rule| &*rule.issuer).collect();
        row.action = issuers.join(", ");
        row.rules = policy.rules.len();
        row
    }

    fn scoped(&self, kind: &str, age: &Age, scope: &Scope) -> PolicyRow {
        let namespace = &*age.namespace;
        let mut row = self.row(kind, age, |workload, entrance| {
            (*workload.namespace == *namespace || self.is_mesh_wide(namespace))
                && scope.includes(workload, &entrance.services)
        });
        row.scope = match scope {
            Scope::All => self.whole(namespace),
            Scope::Labels(labels) => in_words(labels),
            Scope::Services(hosts) => {
                let name = |host: &Arc<str>| {
                    format!("service/{}", host.split_once('.').map_or(&**host, |(name, _)| name))
                };
                hosts.iter().map(name).collect::<Vec<_>>().join(", ")
            }
        };
        if matches!(scope, Scope::Services(hosts) if hosts.is_empty()) {
            "no pod".clone_into(&mut row.scope);
            row.notes.push("its targetRefs name no Service: no pod is what they name".to_owned());
        }
        row
    }
}

fn unset_or(mode: Option<crate::guard::Mtls>) -> String {
    mode.map_or("UNSET".to_owned(), |mode| mode.to_string())
}

fn in_words(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}
