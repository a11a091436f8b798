//! What the mesh says of pods.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use serde_json::Value;
use weft_tests::{Cluster, ClusterPod, Namespace};

/// For a namespace that lets in callers with an identity only.
pub const STRICT: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\nspec: {mtls: {mode: STRICT}}\n";

/// Whether a pod's condition says that it is in the mesh.
pub fn is_enrolled(pod: &Value) -> bool {
    condition(pod).is_some_and(|condition| condition["status"] == "True")
}

fn condition(pod: &Value) -> Option<&Value> {
    let conditions = pod["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == "weft.dev/Enrolled")
}

/// Seconds of this day, in UTC.
pub fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() % 86_400.0)
}

/// When pods were put into the mesh, as their agents logged it, in seconds of the day; those whose name begins so.
pub fn enrolled_at(cluster: &Cluster, pods: &str) -> Result<Vec<f64>> {
    let words =
        ["logs", "--namespace=weft-system", "--selector=app.kubernetes.io/name=weft-agent", "--tail=-1"];
    let log = cluster.kubectl(&words)?;
    let about = format!("in the mesh pod={pods}");
    Ok(log
        .lines()
        .filter(|line| line.contains(&about) && !line.contains("not in the mesh"))
        .filter_map(time_of)
        .collect())
}

/// The second of the day of `2026-11-21T13:12:03.349246Z …`, with or without a fraction.
pub fn time_of(line: &str) -> Option<f64> {
    let time = line.split_once('T')?.1.split_once('Z')?.0;
    let parts: Option<Vec<f64>> = time.split(':').map(|part| part.parse().ok()).collect();
    let [hours, minutes, seconds] = parts?[..] else { return None };
    Some(hours * 3600.0 + minutes * 60.0 + seconds)
}

/// Fails unless all these pods are in the mesh, or none.
pub fn in_mesh(namespace: &Namespace, pods: &[ClusterPod], expected: bool) -> Result<()> {
    let list = namespace.get(&["pods"])?;
    for pod in list["items"].as_array().into_iter().flatten() {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        if pods.iter().any(|pod| pod.name == name) {
            ensure!(is_enrolled(pod) == expected, "{name}: {:?}", condition(pod));
        }
    }
    Ok(())
}
