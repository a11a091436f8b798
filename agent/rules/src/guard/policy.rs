//! An AuthorizationPolicy, compiled.

use std::sync::Arc;

use weft_api::meta::Labels;

use super::condition::{Condition, Truth, View};
use super::{Consult, Inbound};
use crate::guard::token::TokenRule;
use crate::route::matching::is_subset;
use crate::route::virtual_service::Age;
use crate::workload::Workload;

/// An AuthorizationPolicy, compiled.
#[derive(Debug)]
pub(crate) struct Policy {
    /// `NAMESPACE/NAME`.
    pub(crate) key: Arc<str>,
    pub(crate) age: Age,
    pub(crate) scope: Scope,
    pub(crate) action: Action,
    /// Annotation `istio.io/dry-run`: it is there to be looked at, and decides nothing.
    pub(crate) dry_run: bool,
    pub(crate) rules: Box<[Rule]>,
}

/// A RequestAuthentication, compiled.
#[derive(Debug)]
pub(crate) struct TokenPolicy {
    /// `NAMESPACE/NAME`.
    pub(crate) key: Arc<str>,
    pub(crate) age: Age,
    pub(crate) scope: Scope,
    pub(crate) rules: Box<[Arc<TokenRule>]>,
}

/// What a match means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Allow,
    Deny,
    /// Nothing.
    Audit,
    /// This provider is asked.
    Custom(Arc<str>),
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Allow => f.write_str("ALLOW"),
            Self::Deny => f.write_str("DENY"),
            Self::Audit => f.write_str("AUDIT"),
            Self::Custom(provider) => write!(f, "CUSTOM ({provider})"),
        }
    }
}

/// The workloads that a policy is for: of its namespace, or, in the root namespace, of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    Labels(Arc<Labels>),
    /// Those behind one of these services, by full name. A Gateway, a GatewayClass and a ServiceEntry have none.
    Services(Box<[Arc<str>]>),
}

impl Scope {
    /// `services` are those that lead to the workload.
    pub(crate) fn includes(&self, workload: &Workload, services: &[Arc<str>]) -> bool {
        match self {
            Self::All => true,
            Self::Labels(labels) => is_subset(labels, &workload.labels),
            Self::Services(hosts) => hosts.iter().any(|host| services.contains(host)),
        }
    }
}

/// One of `rules`.
#[derive(Debug)]
pub(crate) struct Rule {
    /// One of these; empty: any.
    pub(crate) sources: Box<[Box<[Condition]>]>,
    /// One of these; empty: any.
    pub(crate) operations: Box<[Box<[Condition]>]>,
    /// All of these.
    pub(crate) when: Box<[Condition]>,
    /// It names something of requests.
    of_requests: bool,
    /// It matches nothing.
    is_void: bool,
}

impl Rule {
    pub(crate) fn new(
        sources: Vec<Box<[Condition]>>,
        operations: Vec<Box<[Condition]>>,
        when: Vec<Condition>,
    ) -> Self {
        let all = sources.iter().chain(&operations).flatten().chain(&when);
        let of_requests = all.into_iter().any(|condition| condition.test.is_of_requests());
        Self {
            sources: sources.into(),
            operations: operations.into(),
            when: when.into(),
            of_requests,
            is_void: false,
        }
    }

    /// A rule that matches nothing.
    pub(crate) fn void() -> Self {
        Self { is_void: true, ..Self::new(Vec::new(), Vec::new(), Vec::new()) }
    }

    pub(crate) fn matches(&self, connection: &Inbound<'_>, view: View<'_>) -> Truth {
        let all = |conditions: &[Condition]| {
            Truth::all(conditions.iter().map(|condition| condition.holds(connection, view)))
        };
        let one = |entries: &[Box<[Condition]>]| {
            if entries.is_empty() { Truth::Yes } else { Truth::any(entries.iter().map(|entry| all(entry))) }
        };
        let mut truth = one(&self.sources);
        if truth != Truth::No {
            truth = truth.min(one(&self.operations));
        }
        if truth != Truth::No {
            truth = truth.min(all(&self.when));
        }
        truth
    }
}

impl Policy {
    /// Who is to be asked where it matches; `None`: nobody.
    pub(super) fn consult(&self) -> Option<Consult> {
        let Action::Custom(provider) = &self.action else { return None };
        Some(Consult { provider: provider.clone(), policy: self.key.clone() })
    }

    /// ALLOW without rules, of nobody.
    pub(crate) fn allow_nothing() -> Self {
        let nobody: Arc<str> = "".into();
        Self {
            key: nobody.clone(),
            age: Age { created: nobody.clone(), name: nobody.clone(), namespace: nobody },
            scope: Scope::All,
            action: Action::Allow,
            dry_run: false,
            rules: Box::default(),
        }
    }

    /// The first rule that matches for certain, else whether one may.
    pub(crate) fn matches(&self, connection: &Inbound<'_>, view: View<'_>) -> (Truth, Option<usize>) {
        let mut best = (Truth::No, None);
        for (index, rule) in self.rules.iter().enumerate() {
            // What allows requests allows no bytes.
            let bytes = matches!(view, View::Bytes) && self.action == Action::Allow;
            if rule.is_void || bytes && rule.of_requests {
                continue;
            }
            match rule.matches(connection, view) {
                Truth::Yes => return (Truth::Yes, Some(index)),
                Truth::Open if best.0 == Truth::No => best = (Truth::Open, Some(index)),
                _ => {}
            }
        }
        best
    }
}
