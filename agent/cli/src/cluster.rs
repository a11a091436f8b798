//! The cluster that a command is about: by kubeconfig, as kubectl finds it.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Args;
use k8s_openapi::NamespaceResourceScope;
use kube::config::{Config, KubeConfigOptions, KubeconfigError};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client};

/// How long an API server may take to take a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// How long an API server may be busy with itself, and how often it is asked meanwhile.
const BUSY: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_millis(300);

/// Which cluster.
#[derive(Debug, Clone, Default, Args)]
pub struct ClusterAt {
    /// Context of the kubeconfig [default: the current one]
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// No cluster is known here.
#[derive(Debug, thiserror::Error)]
#[error("no cluster is known here: {why} (kubectl's rules hold: set KUBECONFIG, or write ~/.kube/config)")]
pub struct NoCluster {
    why: String,
}

/// A connection to an API server.
#[derive(Clone)]
pub struct Cluster {
    /// Kubernetes' client.
    pub client: Client,
    url: String,
}

impl ClusterAt {
    /// Reads the kubeconfig; nothing is asked yet. `NoCluster` if there is none.
    pub async fn connect(&self) -> anyhow::Result<Cluster> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let mut config = match Config::from_kubeconfig(&options).await {
            Ok(config) => config,
            Err(error) if self.context.is_none() && is_missing(&error) => {
                Config::incluster().map_err(|_| NoCluster { why: error.to_string() })?
            }
            Err(error) => return Err(anyhow!(error).context("cannot use the kubeconfig")),
        };
        config.connect_timeout = Some(CONNECT);
        config.default_retry = false;
        let url = config.cluster_url.to_string();
        let client = Client::try_from(config).context("cannot use the kubeconfig")?;
        Ok(Cluster { client, url })
    }
}

fn is_missing(error: &KubeconfigError) -> bool {
    matches!(
        error,
        KubeconfigError::FindPath | KubeconfigError::ReadConfig(..) | KubeconfigError::CurrentContextNotSet
    )
}

impl Cluster {
    /// Objects of a kind in a namespace.
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Objects of a kind, all of them.
    pub fn all<K: kube::Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    /// Objects of a kind that is known by name alone; of the whole cluster where the namespace is empty.
    pub fn dynamic(&self, resource: &ApiResource, namespace: &str) -> Api<DynamicObject> {
        if namespace.is_empty() {
            Api::all_with(self.client.clone(), resource)
        } else {
            Api::namespaced_with(self.client.clone(), namespace, resource)
        }
    }

    /// An error of the client in the API server's own words, or what stands between it and us.
    pub fn told(&self, error: kube::Error) -> anyhow::Error {
        match error {
            kube::Error::Api(status) if !status.message.is_empty() => {
                anyhow!("the API server says: {}", status.message)
            }
            kube::Error::Service(_) | kube::Error::HyperError(_) => {
                let mut cause: &dyn std::error::Error = &error;
                while let Some(deeper) = cause.source() {
                    cause = deeper;
                }
                anyhow!("cannot reach the API server at {}: {cause}", self.url)
            }
            error => anyhow!(error),
        }
    }
}

/// Asks again, for a while, where the API server asks to be asked later: it does when it has just learned of a kind.
///
/// # Errors
/// Those of `ask`, the last time.
pub async fn patiently<T, Asked: Future<Output = kube::Result<T>>>(
    ask: impl Fn() -> Asked,
) -> kube::Result<T> {
    let until = Instant::now() + BUSY;
    loop {
        match ask().await {
            Err(kube::Error::Api(status)) if status.code == 429 && Instant::now() < until => {
                tokio::time::sleep(ASK_AGAIN).await;
            }
            answer => return answer,
        }
    }
}

/// Whether the API server knows no such object or kind.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use kube::core::Status;

    use super::*;

    async fn answers(codes: &[u16]) -> (usize, bool) {
        let asked = Cell::new(0);
        let answer = patiently(|| {
            let code = codes[asked.replace(asked.get() + 1)];
            async move {
                if code == 200 {
                    Ok(())
                } else {
                    Err(kube::Error::Api(Box::new(Status::failure("no", "").with_code(code))))
                }
            }
        });
        let good = answer.await.is_ok();
        (asked.get(), good)
    }

    #[tokio::test]
    async fn a_busy_api_server_is_asked_again_and_no_other() {
        assert_eq!(answers(&[429, 200]).await, (2, true));
        assert_eq!(answers(&[404]).await, (1, false));
    }
}
