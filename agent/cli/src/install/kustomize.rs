//! The manifests in this binary, built as `kubectl kustomize` builds them: resources, and patches by strategic merge. What
//! else kustomize can do is not used in `manifests/`; a test compares the two.

use anyhow::{Context, anyhow, bail};
use serde::Deserialize;
use serde_json::Value;

use super::object::Object;

/// Every file below `manifests/`, by its path there.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/manifests.rs"));

/// The parts of a `kustomization.yaml` that are used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kustomization {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    patches: Vec<Patch>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    path: String,
}

/// Names of the profiles.
pub fn profiles() -> impl Iterator<Item = &'static str> {
    FILES.iter().filter_map(|(path, _)| {
        path.strip_prefix("overlays/").and_then(|rest| rest.strip_suffix("/kustomization.yaml"))
    })
}

/// The objects of a directory below `manifests/`.
pub fn build(dir: &str) -> anyhow::Result<Vec<Object>> {
    let kustomization: Kustomization = serde_saphyr::from_str(file(&format!("{dir}/kustomization.yaml"))?)
        .with_context(|| format!("manifests/{dir}/kustomization.yaml"))?;
    let mut objects: Vec<Object> = Vec::new();
    for resource in &kustomization.resources {
        let path = join(dir, resource);
        let more = if FILES.iter().any(|(name, _)| *name == path) { parse(&path)? } else { build(&path)? };
        for object in more {
            let key = object.key();
            if objects.iter().any(|known| known.key() == key) {
                bail!("manifests/{dir} has {key} twice");
            }
            objects.push(object);
        }
    }
    for patch in &kustomization.patches {
        for patch in parse(&join(dir, &patch.path))? {
            apply(&mut objects, patch)?;
        }
    }
    Ok(objects)
}

fn file(path: &str) -> anyhow::Result<&'static str> {
    let found = FILES.iter().find(|(name, _)| *name == path);
    found.map(|(_, text)| *text).ok_or_else(|| anyhow!("manifests/{path} is missing"))
}

fn parse(path: &str) -> anyhow::Result<Vec<Object>> {
    Object::parse_all(file(path)?).with_context(|| format!("manifests/{path}"))
}

/// `overlays/demo` and `../../base` make `base`.
fn join(dir: &str, path: &str) -> String {
    let mut parts: Vec<&str> = dir.split('/').collect();
    for part in path.split('/') {
        match part {
            ".." => _ = parts.pop(),
            "." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn apply(objects: &mut Vec<Object>, patch: Object) -> anyhow::Result<()> {
    let key = patch.key();
    let at = objects.iter().position(|object| object.key() == key);
    let at = at.ok_or_else(|| anyhow!("a patch is for {key}, which is not there"))?;
    if is_deletion(&patch.0) {
        objects.remove(at);
    } else {
        merge(&mut objects[at].0, patch.0);
    }
    Ok(())
}

fn is_deletion(patch: &Value) -> bool {
    patch.get("$patch").is_some_and(|patch| patch == "delete")
}

/// Strategic merge: maps field by field (null removes one), lists of things with names thing by thing, else the patch
/// takes the place.
fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (field, value) in patch {
                match target.get_mut(&field) {
                    _ if value.is_null() => _ = target.remove(&field),
                    Some(old) => merge(old, value),
                    None => _ = target.insert(field, value),
                }
            }
        }
        (Value::Array(target), Value::Array(patch)) if patch.iter().all(|item| name(item).is_some()) => {
            // As kustomize does: what the patch names comes first, in its order.
            let mut first = Vec::new();
            for item in patch {
                let old = target.iter().position(|old| name(old) == name(&item)).map(|at| target.remove(at));
                if is_deletion(&item) {
                    continue;
                }
                let mut merged = old.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
                merge(&mut merged, item);
                first.push(merged);
            }
            target.splice(0..0, first);
        }
        (target, patch) => *target = patch,
    }
}

fn name(item: &Value) -> Option<&str> {
    item.get("name").and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patches_merge_by_name() {
        let mut target = json!({"env": [{"name": "A", "value": "1"}, {"name": "D"}, {"name": "B", "value": "2"}], "x": {"a": 1, "b": 2}, "l": [1]});
        let patch = json!({"env": [{"name": "B", "value": "3"}, {"name": "C"}, {"name": "A", "$patch": "delete"}], "x": {"a": null}, "l": [2]});
        merge(&mut target, patch);
        let wanted = json!({"env": [{"name": "B", "value": "3"}, {"name": "C"}, {"name": "D"}], "x": {"b": 2}, "l": [2]});
        assert_eq!(target, wanted);
    }

    #[test]
    fn paths_are_joined() {
        assert_eq!(join("overlays/demo", "../../base"), "base");
        assert_eq!(join("base", "agent.yaml"), "base/agent.yaml");
    }

    #[test]
    fn every_profile_builds_and_the_images_are_of_this_version() {
        let names: Vec<&str> = profiles().collect();
        assert_eq!(names, ["default", "demo", "gateway", "minimal"]);
        for profile in names {
            let objects = build(&format!("overlays/{profile}")).unwrap();
            for object in &objects {
                assert!(object.resource().is_ok(), "{}", object.key());
                let containers = object.0.pointer("/spec/template/spec/containers/0/image");
                if let Some(image) = containers.and_then(Value::as_str) {
                    let ours = concat!("weft.dev/weft:", env!("CARGO_PKG_VERSION"));
                    assert!([ours, "weft.dev/pause:1"].contains(&image), "{image}");
                }
            }
            assert!(objects.iter().any(|object| object.kind() == "DaemonSet"), "{profile}");
        }
    }
}
