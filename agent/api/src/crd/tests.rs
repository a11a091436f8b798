use std::collections::BTreeMap;

use super::*;
use crate::load::load;

/// By kind, the schema of its objects.
fn schemas() -> BTreeMap<String, Value> {
    let schema = |(_, definition): (String, Value)| {
        let schema = definition.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap().clone();
        (definition["spec"]["names"]["kind"].as_str().unwrap().to_owned(), schema)
    };
    definitions().into_iter().map(schema).collect()
}

/// Calls `visit` with every schema within a schema, and the way to it.
fn walk(schema: &Value, way: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(way, schema);
    for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        walk(field, &format!("{way}.{name}"), visit);
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(inner) {
            walk(inner, &format!("{way}[]"), visit);
        }
    }
}

/// The rules of a structural schema. Source: Kubernetes, "Specifying a structural schema".
#[test]
fn every_schema_is_structural() {
    for (kind, schema) in schemas() {
        walk(&schema, &kind, &mut |way, schema| {
            let schema = schema.as_object().unwrap_or_else(|| panic!("{way} is no schema"));
            let kept = schema.contains_key("x-kubernetes-int-or-string");
            assert!(
                kept || schema.get("type").is_some_and(Value::is_string),
                "{way} has no type: {schema:?}"
            );
            assert!(
                !(schema.contains_key("properties") && schema.contains_key("additionalProperties")),
                "{way}"
            );
            for key in ["$ref", "$defs", "default", "const", "anyOf", "title", "nullable"] {
                assert!(!schema.contains_key(key), "{way} has {key}");
            }
            if schema.get("type") == Some(&json!("array")) {
                assert!(schema.contains_key("items"), "{way} has no items");
            }
        });
    }
}

#[test]
fn the_versions_are_those_that_are_read() {
    for kind in kinds::all().filter(|kind| kind.definition.is_some()) {
        for version in kind.versions {
            let text = json!({
                "apiVersion": format!("{}/{version}", kind.group), "kind": kind.kind, "metadata": { "name": "a" }, "spec": {},
            });
            let findings = load("", &text.to_string()).findings();
            let unknown = |code: &str| matches!(code, "UnknownVersion" | "RemovedKind" | "UnsupportedKind");
            assert!(!findings.iter().any(|finding| unknown(&finding.code)), "{} {version}", kind.kind);
        }
    }
}

#[test]
fn enums_durations_maps_and_oneofs() {
    let schemas = schemas();
    let at =
        |kind: &str, way: &str| schemas[kind].pointer(way).cloned().unwrap_or_else(|| panic!("{kind} {way}"));
    let mode = at("PeerAuthentication", "/properties/spec/properties/mtls/properties/mode");
    assert_eq!(mode["enum"], json!(["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]));
    let ports = at("PeerAuthentication", "/properties/spec/properties/portLevelMtls");
    assert_eq!(ports["additionalProperties"]["type"], "object");
    let route = at("VirtualService", "/properties/spec/properties/http/items/properties");
    assert_eq!(route["timeout"]["type"], "string");
    let uri = &route["match"]["items"]["properties"]["uri"];
    assert_eq!(uri["oneOf"].as_array().map(Vec::len), Some(4), "none, exact, prefix, regex");
    let header = &route["match"]["items"]["properties"]["headers"]["additionalProperties"];
    assert_eq!(header["oneOf"], uri["oneOf"]);
}
