//! CustomResourceDefinitions of Istio's kinds, made from the types that read them.
//!
//! For clusters that do not have Istio's own. They refuse nothing that Istio's accept: what the schema cannot say, the
//! webhook checks. Kinds whose fields weft does not read are kept whole.

mod structural;

use serde_json::{Value, json};

use crate::kinds::{self, Definition, Entry};

/// Every definition, by the name of its file.
pub fn definitions() -> Vec<(String, Value)> {
    let defined = kinds::all().filter_map(|entry| Some((entry, entry.definition?)));
    defined
        .map(|(entry, more)| (format!("{}.{}.yaml", entry.plural, entry.group), definition(entry, &more)))
        .collect()
}

/// The schema of `spec`.
fn spec(more: &Definition) -> Value {
    match more.spec {
        Some(schema) => structural::structural(schema()),
        None => json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true }),
    }
}

fn definition(entry: &Entry, more: &Definition) -> Value {
    let Entry { kind, plural, group, .. } = entry;
    let mut names = json!({
        "kind": kind,
        "listKind": format!("{kind}List"),
        "plural": plural,
        "singular": kind.to_ascii_lowercase(),
        "categories": ["istio-io", group.replace('.', "-")],
    });
    if !more.short.is_empty() {
        names["shortNames"] = json!(more.short);
    }
    let versions: Vec<_> = (0..entry.versions.len()).map(|index| version(entry, more, index)).collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{group}"),
            "labels": {
                "app.kubernetes.io/name": "weft",
                "app.kubernetes.io/part-of": "weft",
                "app.kubernetes.io/managed-by": "weft",
            },
        },
        "spec": { "group": group, "names": names, "scope": "Namespaced", "versions": versions },
    })
}

fn version(entry: &Entry, more: &Definition, index: usize) -> Value {
    let column = |(name, path, description): &(&str, &str, &str)| json!({ "name": name, "type": "string", "jsonPath": path, "description": description });
    let age = json!({ "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" });
    let columns: Vec<_> = more.columns.iter().map(column).chain([age]).collect();
    json!({
        "name": entry.versions[index],
        "served": true,
        "storage": index == 0,
        "subresources": { "status": {} },
        "additionalPrinterColumns": columns,
        "schema": { "openAPIV3Schema": {
            "type": "object",
            "properties": { "spec": spec(more), "status": status() },
        } },
    })
}

/// Istio's status. Several controllers write conditions side by side.
fn status() -> Value {
    let text = || json!({ "type": "string" });
    json!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "conditions": {
                "type": "array",
                "description": "What controllers say about it",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": true,
                    "required": ["type"],
                    "properties": {
                        "type": text(),
                        "status": text(),
                        "reason": text(),
                        "message": text(),
                        "lastTransitionTime": text(),
                    },
                },
            },
            "observedGeneration": { "x-kubernetes-int-or-string": true },
            "validationMessages": {
                "type": "array",
                "items": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
            },
        },
    })
}

#[cfg(test)]
mod tests;
