//! What Kustomize keeps beside manifests: its own file, and patches, which look like objects and are none.

use crate::finding::{Severity, code};
use crate::validate::Problem;
use crate::yaml::{Data, Node, Path, Segment, shorten};

/// Says that a document is no object, but Kustomize's; `None` where it is not.
pub(super) fn is_its_own(file: &str, node: &Node<'_>) -> Option<Problem> {
    let (path, what) = if let Some(patch) = node.get("$patch") {
        let what = patch.written().unwrap_or_default();
        (vec![Segment::Key("$patch".into())], format!("a patch, $patch: {}", shorten(&what)))
    } else if is_json_patch(node) {
        (Path::new(), "a JSON patch".to_owned())
    } else if is_kustomization(file) && node.get("kind").is_none() {
        (Path::new(), "a kustomization".to_owned())
    } else {
        return None;
    };
    let message = format!("no object, but Kustomize's: {what} (check what `kustomize build` prints)");
    Some(Problem { severity: Severity::Info, code: code::NOT_AN_OBJECT, path, message })
}

/// `[{op: replace, path: /spec/replicas, value: 3}]`. Source: RFC 6902.
fn is_json_patch(node: &Node<'_>) -> bool {
    let Data::List(steps) = &node.data else { return false };
    !steps.is_empty() && steps.iter().all(|step| step.get("op").is_some() && step.get("path").is_some())
}

/// Its own file may leave out what every object has.
fn is_kustomization(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    matches!(name, "kustomization.yaml" | "kustomization.yml")
}
