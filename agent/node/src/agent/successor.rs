//! Whether another agent follows one that is told to end: a rollout brings one, an uninstallation does not.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::Api;
use tokio::time::timeout;
use weft_api::names::{AGENT, NAMESPACE};
use weft_discovery::cluster::{ClusterOptions, ConnectError, connect};

use super::SourceOptions;

/// Longest wait for the API server's word.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whether to expect one. Where nobody says, yes: pods fail closed until it is there.
pub async fn is_expected(source: &SourceOptions) -> bool {
    let SourceOptions::Cluster(options) = source else { return true };
    match timeout(PATIENCE, is_uninstalled(options)).await {
        Ok(Ok(gone)) => !gone,
        Ok(Err(error)) => {
            tracing::warn!(%error, "cannot ask whether another agent follows");
            true
        }
        Err(_) => {
            tracing::warn!("the API server does not say whether another agent follows");
            true
        }
    }
}

/// Whether the agents' DaemonSet is gone or going, or with it this agent's right to ask.
async fn is_uninstalled(options: &ClusterOptions) -> Result<bool, ConnectError> {
    let client = connect::client(connect::config(options.kubeconfig.as_ref()).await?)?;
    match Api::<DaemonSet>::namespaced(client, NAMESPACE).get_metadata_opt(AGENT).await {
        Ok(found) => Ok(found.is_none_or(|set| set.metadata.deletion_timestamp.is_some())),
        Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => Ok(true),
        Err(error) => Err(ConnectError::Client(error)),
    }
}
