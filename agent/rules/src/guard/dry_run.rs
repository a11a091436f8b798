//! Policies that are tried out (annotation `istio.io/dry-run`): judged on everything that the policies in force let in, and without
//! effect. They are no part of a [`Guard`], so that trying one changes nothing for anybody.

use std::sync::Arc;

use super::condition::{Truth, View};
use super::policy::{Action, Policy};
use super::{Guard, Inbound, InboundRequest};
use crate::guard::namespace::NamespaceSecurity;
use crate::workload::Workload;

/// The policies that are tried out on one workload.
#[derive(Debug, Default)]
pub struct DryRuns {
    /// Each oldest first.
    deny: Box<[Arc<Policy>]>,
    allow: Box<[Arc<Policy>]>,
}

/// What one of them says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DryRun {
    /// `NAMESPACE/NAME`.
    pub policy: Arc<str>,
    /// Whether this would be refused, were all that is tried out in force.
    pub denies: bool,
}

impl DryRuns {
    /// Chooses those that are for a workload behind these services; `None`: there are none. Nobody is asked (CUSTOM) by way of
    /// trial.
    pub(crate) fn of(
        security: &[&NamespaceSecurity],
        workload: &Workload,
        services: &[Arc<str>],
    ) -> Option<Self> {
        let (mut deny, mut allow) = (Vec::new(), Vec::new());
        let policies = security.iter().flat_map(|security| &security.authorizations);
        for policy in policies.filter(|policy| policy.dry_run && policy.scope.includes(workload, services)) {
            match policy.action {
                Action::Allow => allow.push(policy.clone()),
                Action::Deny => deny.push(policy.clone()),
                Action::Audit | Action::Custom(_) => {}
            }
        }
        for list in [&mut deny, &mut allow] {
            list.sort_by(|a, b| a.age.cmp(&b.age));
        }
        let some = !(deny.is_empty() && allow.is_empty());
        some.then(|| Self { deny: deny.into(), allow: allow.into() })
    }

    /// What each of them says of a request, or, without one, of a connection of bytes. `guard`: what is in force.
    pub fn judge(
        &self,
        guard: Option<&Guard>,
        connection: &Inbound<'_>,
        request: Option<&InboundRequest<'_>>,
    ) -> Vec<DryRun> {
        let view = request.map_or(View::Bytes, View::Request);
        let matches = |policy: &Arc<Policy>| policy.matches(connection, view).0 == Truth::Yes;
        let say = |policy: &Arc<Policy>, denies| DryRun { policy: policy.key.clone(), denies };
        let in_force = guard.map_or(&[][..], |guard| &guard.allow);
        let unmatched = !self.allow.is_empty() && !self.allow.iter().chain(in_force).any(matches);
        let deny = self.deny.iter().map(|policy| say(policy, matches(policy)));
        deny.chain(self.allow.iter().map(|policy| say(policy, unmatched))).collect()
    }
}
