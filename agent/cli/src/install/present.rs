//! The installation that a cluster has.

use k8s_openapi::api::apps::v1::DaemonSet;
use weft_api::names::{AGENT, NAMESPACE};

use super::values::{PROFILE_ANNOTATION, SET_ANNOTATION, Values};
use crate::cluster::Cluster;

/// What was installed.
#[derive(Debug)]
pub struct Present {
    /// With which profile and settings.
    pub values: Values,
    /// The agent's image.
    pub image: String,
}

impl Present {
    /// Looks; `None`: weft is not installed.
    pub async fn look(cluster: &Cluster) -> anyhow::Result<Option<Self>> {
        let found = cluster.api::<DaemonSet>(NAMESPACE).get_opt(AGENT).await;
        let Some(found) = found.map_err(|error| cluster.told(error))? else { return Ok(None) };
        let notes = found.metadata.annotations.unwrap_or_default();
        let profile = notes.get(PROFILE_ANNOTATION).map(|profile| format!("profile={profile}"));
        let set = notes.get(SET_ANNOTATION).map_or("", String::as_str);
        let all = profile.iter().map(String::as_str).chain(set.split(';').filter(|set| !set.is_empty()));
        let image = found.spec.and_then(|spec| spec.template.spec?.containers.into_iter().next()?.image);
        Ok(Some(Self { values: Values::parse(all)?, image: image.unwrap_or_default() }))
    }
}
