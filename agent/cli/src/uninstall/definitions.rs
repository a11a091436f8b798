//! Objects of users that would go with the definitions of their kinds.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::ListParams;
use kube::core::{ApiResource, GroupVersionKind};

use crate::cluster::{Cluster, is_not_found, patiently};
use crate::install::Key;

/// How many there are, by definition.
pub async fn objects(cluster: &Cluster, definitions: &[&Key]) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for key in definitions {
        let found = cluster.all::<CustomResourceDefinition>().get_opt(&key.name).await;
        let Some(found) = found.map_err(|error| cluster.told(error))? else { continue };
        let spec = found.spec;
        let Some(version) = spec.versions.iter().find(|version| version.served) else { continue };
        let kind = GroupVersionKind::gvk(&spec.group, &version.name, &spec.names.kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, &spec.names.plural);
        let (api, how) = (cluster.dynamic(&resource, ""), ListParams::default());
        let listed = match patiently(|| api.list_metadata(&how)).await {
            Err(error) if is_not_found(&error) => continue,
            listed => listed.map_err(|error| cluster.told(error))?,
        };
        counts.insert(spec.names.kind, listed.items.len());
    }
    Ok(counts)
}
