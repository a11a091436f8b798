//! A client of the API server.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Why there can be no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not in a cluster.
    #[error(
        "this is no pod of a cluster ({0}); give --kubeconfig FILE, or --standalone DIR for no cluster at all"
    )]
    NotInCluster(#[source] kube::config::InClusterError),
    /// The kubeconfig is not to be used.
    #[error("cannot use the kubeconfig {path}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: kube::config::KubeconfigError,
    },
    /// TLS or credentials cannot be set up.
    #[error("cannot set up a client of the API server")]
    Client(#[source] kube::Error),
    /// A thread or runtime did not start.
    #[error("cannot start the thread of watches")]
    Thread(#[source] std::io::Error),
    /// The thread ended by itself.
    #[error("the thread of watches has ended")]
    Ended,
}

/// Reads the credentials: of a kubeconfig, else of the pod that this is.
pub async fn config(kubeconfig: Option<&PathBuf>) -> Result<Config, ConnectError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let failed = |source| ConnectError::Kubeconfig { path: path.clone(), source };
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(failed)?
        }
        None => Config::incluster().map_err(ConnectError::NotInCluster)?,
    };
    config.connect_timeout = Some(CONNECT);
    // Each of our loops has its own way to try again.
    config.default_retry = false;
    Ok(config)
}

/// A client; must be made on the runtime that it runs on.
pub fn client(config: Config) -> Result<Client, ConnectError> {
    Client::try_from(config).map_err(ConnectError::Client)
}
