//! The definitions in `manifests/crds` are those that the types make, and every field of a fixture is in them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/crds")
}

#[test]
fn the_definitions_are_up_to_date() {
    let definitions = weft_api::crd::definitions();
    for (name, definition) in &definitions {
        let text = std::fs::read_to_string(manifests().join(name)).unwrap_or_default();
        let found: Option<Value> = serde_saphyr::from_str(&text).ok();
        assert!(
            found.as_ref() == Some(definition),
            "manifests/crds/{name} is old: run `cargo xtask generate`"
        );
    }
    let kustomization: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(manifests().join("kustomization.yaml")).unwrap())
            .unwrap();
    let names = definitions.iter().map(|(name, _)| name.as_str()).collect::<BTreeSet<_>>();
    let listed = kustomization["resources"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(names, listed, "manifests/crds/kustomization.yaml lists other files than there are");
}

#[test]
fn what_manifests_say_of_kinds_is_up_to_date() {
    for file in std::fs::read_dir(manifests().join("../base")).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let renewed = weft_api::kinds::manifest::renewed(&text);
        assert!(renewed.as_ref() == Ok(&text), "{} is old: run `cargo xtask generate`", path.display());
    }
}

/// What of `value` the API server would drop, or refuse for its type.
fn misfits(schema: &Value, value: &Value, way: &str, found: &mut Vec<String>) {
    let fields = schema.get("properties").and_then(Value::as_object);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let way = format!("{way}.{key}");
                let inner = fields.and_then(|fields| fields.get(key));
                match inner.or_else(|| schema.get("additionalProperties")) {
                    Some(schema) => misfits(schema, value, &way, found),
                    None if schema.get("x-kubernetes-preserve-unknown-fields").is_some() => {}
                    None => found.push(way),
                }
            }
        }
        Value::Array(items) => match schema.get("items") {
            Some(schema) => items.iter().for_each(|item| misfits(schema, item, &format!("{way}[]"), found)),
            None => found.push(way.to_owned()),
        },
        Value::String(text) => {
            let names = schema.get("enum").and_then(Value::as_array);
            if schema["type"] != "string" || names.is_some_and(|names| !names.iter().any(|name| name == text))
            {
                found.push(way.to_owned());
            }
        }
        Value::Number(number) => {
            let whole = number.is_i64() || number.is_u64();
            if !(schema["type"] == "number" || whole && schema["type"] == "integer") {
                found.push(way.to_owned());
            }
        }
        Value::Bool(_) if schema["type"] != "boolean" => found.push(way.to_owned()),
        Value::Bool(_) | Value::Null => {}
    }
}

#[test]
fn fixtures_fit_the_definitions() {
    let definitions = weft_api::crd::definitions();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let mut checked = 0;
    for folder in ["bookinfo", "ftgo"] {
        for file in std::fs::read_dir(fixtures.join(folder)).unwrap() {
            let path = file.unwrap().path();
            // Fixtures that are wrong on purpose.
            if path.to_string_lossy().contains("misprint") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for object in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
                let kind = &object["kind"];
                let Some((_, definition)) = definitions
                    .iter()
                    .find(|(_, definition)| definition.pointer("/spec/names/kind") == Some(kind))
                else {
                    continue;
                };
                let schema =
                    definition.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").unwrap();
                let mut found = Vec::new();
                misfits(schema, &object["spec"], "spec", &mut found);
                assert!(found.is_empty(), "{}: {found:?}", path.display());
                checked += 1;
            }
        }
    }
    assert!(checked > 10, "{checked} objects");
}
