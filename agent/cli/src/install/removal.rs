//! Finding and deleting what weft has put into a cluster.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};

use super::object::{KINDS, Key, MANAGED_BY, Object};
use crate::cluster::{Cluster, is_not_found};

/// Everything with weft's labels.
pub async fn ours(cluster: &Cluster) -> anyhow::Result<Vec<Key>> {
    let labels = format!("{}={},app.kubernetes.io/part-of=weft", MANAGED_BY.0, MANAGED_BY.1);
    let how = ListParams::default().labels(&labels);
    let mut keys = Vec::new();
    for kind in KINDS {
        let found = match cluster.dynamic(&kind.resource(), "").list_metadata(&how).await {
            // A Kubernetes that is too old for a kind has none of it.
            Err(error) if is_not_found(&error) => continue,
            found => found.map_err(|error| cluster.told(error))?,
        };
        keys.extend(found.items.into_iter().map(|object| Key {
            kind: kind.name.to_owned(),
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        }));
    }
    Ok(keys)
}

/// What an earlier installation had, and this one has not. Definitions and namespaces are more than weft's: their end is
/// the end of what users have in them.
pub async fn no_longer_wanted(cluster: &Cluster, wanted: &[Object]) -> anyhow::Result<Vec<Key>> {
    let mut keys = ours(cluster).await?;
    keys.retain(|key| {
        !matches!(&*key.kind, "CustomResourceDefinition" | "Namespace")
            && !wanted.iter().any(|object| object.key() == *key)
    });
    Ok(keys)
}

/// Deletes an object and, before it, what belongs to it; what is gone is gone.
pub async fn delete(cluster: &Cluster, key: &Key) -> anyhow::Result<()> {
    let api = cluster.dynamic(&key.resource()?, &key.namespace);
    match api.delete(&key.name, &DeleteParams::foreground()).await {
        Err(error) if !is_not_found(&error) => {
            Err(cluster.told(error).context(format!("cannot delete {key}")))
        }
        _ => Ok(()),
    }
}

/// Forgets a pod whose node does not answer, without waiting for its end.
pub async fn forget_pod(cluster: &Cluster, namespace: &str, name: &str) -> anyhow::Result<()> {
    match cluster.api::<Pod>(namespace).delete(name, &DeleteParams::default().grace_period(0)).await {
        Err(error) if !is_not_found(&error) => Err(cluster.told(error)),
        _ => Ok(()),
    }
}
