//! From an AuthorizationPolicy to a compiled one.

use weft_api::istio::{
    AuthorizationPolicy, PolicyAction, PolicyTargetReference, Rule as RuleObject, WorkloadSelector,
};
use weft_api::meta::ObjectMeta;

use crate::guard::compile::condition::{Conditions, Unmatchable};
use crate::guard::policy::{Action, Policy, Rule, Scope};
use crate::intern::Interner;
use crate::mesh::MeshSettings;
use crate::registry::services::full_name;
use crate::route::virtual_service::Age;

/// The annotation by which a policy is only looked at.
const DRY_RUN: &str = "istio.io/dry-run";

pub(crate) fn compile(object: &AuthorizationPolicy, mesh: &MeshSettings, intern: &mut Interner) -> Policy {
    let (meta, spec) = (&object.metadata, &object.spec);
    let action = match spec.action {
        PolicyAction::Allow => Action::Allow,
        PolicyAction::Deny => Action::Deny,
        PolicyAction::Audit => Action::Audit,
        PolicyAction::Custom => {
            Action::Custom(intern.text(spec.provider.as_ref().map_or("", |provider| &provider.name)))
        }
    };
    let mut conditions = Conditions {
        namespace: &meta.namespace,
        trust_domains: &mesh.trust_domains,
        lenient: action != Action::Allow,
        intern,
    };
    let rules = spec
        .rules
        .iter()
        .map(|object| rule(object, &mut conditions).unwrap_or_else(|Unmatchable| Rule::void()));
    let rules = rules.collect();
    let targets = spec.target_ref.iter().chain(&spec.target_refs);
    Policy {
        key: format!("{}/{}", meta.namespace, meta.name).into(),
        age: age(meta, intern),
        scope: scope(meta, spec.selector.as_ref(), targets, mesh, intern),
        action,
        dry_run: meta.annotations.get(DRY_RUN).is_some_and(|value| is_true(value)),
        rules,
    }
}

/// As Go reads it.
fn is_true(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

pub(crate) fn age(meta: &ObjectMeta, intern: &mut Interner) -> Age {
    Age {
        created: intern.text(&meta.creation_timestamp),
        name: intern.text(&meta.name),
        namespace: intern.text(&meta.namespace),
    }
}

/// The workloads that a policy is for.
pub(crate) fn scope<'a>(
    meta: &ObjectMeta,
    selector: Option<&WorkloadSelector>,
    targets: impl Iterator<Item = &'a PolicyTargetReference>,
    mesh: &MeshSettings,
    intern: &mut Interner,
) -> Scope {
    let mut targeted = false;
    let mut services = Vec::new();
    for target in targets {
        targeted = true;
        if target.kind == "Service" && matches!(target.group.as_str(), "" | "core") {
            services.push(intern.text(&full_name(&target.name, &meta.namespace, &mesh.cluster_domain)));
        }
    }
    if targeted {
        return Scope::Services(services.into());
    }
    match selector.filter(|selector| !selector.match_labels.is_empty()) {
        Some(selector) => Scope::Labels(intern.labels(&selector.match_labels)),
        None => Scope::All,
    }
}

fn rule(object: &RuleObject, conditions: &mut Conditions<'_>) -> Result<Rule, Unmatchable> {
    let mut sources = Vec::new();
    for from in &object.from {
        let source = from.source.as_ref().map_or(Ok(Vec::new()), |source| conditions.source(source))?;
        sources.push(source.into());
    }
    let mut operations = Vec::new();
    for to in &object.to {
        let operation =
            to.operation.as_ref().map_or(Ok(Vec::new()), |operation| conditions.operation(operation))?;
        operations.push(operation.into());
    }
    let mut when = Vec::new();
    for object in &object.when {
        when.extend(conditions.when(object)?);
    }
    Ok(Rule::new(sources, operations, when))
}
