//! What an installation would change: each object as it should be beside the one that is there.

use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use serde_json::Value;

use super::object::{MANAGED_BY, Object};
use crate::cluster::Cluster;

/// Who the API server says has set a field.
pub const FIELD_MANAGER: &str = "weft";

/// What becomes of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It is not there.
    Create,
    /// It differs: where, and how.
    Update(Vec<String>),
    /// It is as it should be.
    Nothing,
    /// It is there, and not weft's.
    Leave,
}

/// An object, and what becomes of it.
#[derive(Debug)]
pub struct Step {
    /// As it should be.
    pub object: Object,
    /// What becomes of it.
    pub action: Action,
}

/// Compares with the cluster. Nothing is changed.
pub async fn plan(cluster: &Cluster, objects: Vec<Object>) -> anyhow::Result<Vec<Step>> {
    let mut steps = Vec::new();
    for object in objects {
        let api = cluster.dynamic(&object.resource()?, object.namespace());
        let found = api.get_opt(object.name()).await.map_err(|error| cluster.told(error))?;
        let action = match found {
            None => Action::Create,
            Some(found) if may_be_others(&object) && !is_ours(&found) => Action::Leave,
            Some(found) => {
                let would = apply(cluster, &object, true).await?;
                let changes = differences(&serde_json::to_value(&found)?, &serde_json::to_value(&would)?);
                if changes.is_empty() { Action::Nothing } else { Action::Update(changes) }
            }
        };
        steps.push(Step { object, action });
    }
    Ok(steps)
}

/// Makes an object as it should be; fields that it does not name stay as they are.
pub async fn apply(cluster: &Cluster, object: &Object, dry_run: bool) -> anyhow::Result<DynamicObject> {
    let mut how = PatchParams::apply(FIELD_MANAGER).force();
    how.dry_run = dry_run;
    let api = cluster.dynamic(&object.resource()?, object.namespace());
    let applied = api.patch(object.name(), &how, &Patch::Apply(&object.0)).await;
    applied.map_err(|error| cluster.told(error).context(format!("cannot apply {}", object.key())))
}

/// What Istio, or an administrator, may have made before weft came.
fn may_be_others(object: &Object) -> bool {
    matches!(object.kind(), "CustomResourceDefinition")
        || object.kind() == "Namespace" && object.name() != weft_api::names::NAMESPACE
}

/// Whether weft has made it.
pub fn is_ours(found: &DynamicObject) -> bool {
    let labels = found.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(MANAGED_BY.0)).is_some_and(|by| by == MANAGED_BY.1)
}

/// Where two versions of an object differ: `spec.replicas: 1 → 2`.
fn differences(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", old, new, &mut found);
    found
}

/// Fields that the API server keeps for itself.
const KEPT: [&str; 5] = [
    "metadata.managedFields",
    "metadata.resourceVersion",
    "metadata.generation",
    "metadata.annotations.deprecated.daemonset.template.generation",
    "status",
];

fn compare(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    if old == new || KEPT.contains(&path) {
        return;
    }
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let fields = old.keys().chain(new.keys().filter(|field| !old.contains_key(*field)));
            for field in fields {
                let path = if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
                let of = |side: &serde_json::Map<String, Value>| side.get(field).cloned().unwrap_or_default();
                compare(&path, &of(old), &of(new), found);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (at, (old, new)) in old.iter().zip(new).enumerate() {
                compare(&format!("{path}[{}]", label(new, at)), old, new, found);
            }
        }
        (old, new) => found.push(format!("{path}: {} → {}", short(old), short(new))),
    }
}

/// The name of a list's item, else its place.
fn label(item: &Value, at: usize) -> String {
    item.get("name").and_then(Value::as_str).map_or_else(|| at.to_string(), str::to_owned)
}

fn short(value: &Value) -> String {
    const LONGEST: usize = 60;
    match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) if text.chars().count() <= LONGEST => text.clone(),
        value => {
            let text = value.to_string();
            match text.char_indices().nth(LONGEST) {
                Some((end, _)) => format!("{}…", &text[..end]),
                None => text,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_name_the_place() {
        let old = json!({"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 1, "env": [{"name": "A", "value": "x"}], "l": [1]}});
        let new = json!({"metadata": {"resourceVersion": "2"}, "spec": {"replicas": 2, "env": [{"name": "A", "value": "y"}], "l": [1, 2]}});
        assert_eq!(
            differences(&old, &new),
            ["spec.env[A].value: x → y", "spec.l: [1] → [1,2]", "spec.replicas: 1 → 2"]
        );
        assert!(differences(&new, &new).is_empty());
    }
}
