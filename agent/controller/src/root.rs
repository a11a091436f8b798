//! Finds the CA's Secret, makes one where there is none, and follows its changes.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watch_object};
use weft_api::causes;
use weft_api::names::{OWN_CA_SECRET, USER_CA_SECRET};
use weft_identity::{Authority, AuthorityError, new_root};

use crate::ca::Ca;
use crate::secret::{self, Misshapen};

/// Between attempts to make a Secret.
const RETRY: Duration = Duration::from_secs(2);

/// Why there is no CA, or not the newest.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the Secret {0} holds no CA: {1}; put it right (what was read before stays in force)")]
    Misshapen(String, Box<Misshapen>),
    #[error(
        "the CA of the Secret {0} does not work: {1}; put it right (what was read before stays in force)"
    )]
    Unusable(String, Box<AuthorityError>),
    #[error(
        "the CA's Secret is gone from {0}; the key that was read last signs until this process ends: put the Secret \
         back, or restart the controller to have a new root made"
    )]
    Gone(String),
    #[error("cannot make a root: {0}")]
    Root(#[from] rcgen::Error),
    #[error("cannot make the Secret {0}: {1}")]
    Create(String, String),
    #[error("cannot watch the Secret {0}: {1}")]
    Watch(String, String),
}

/// What is known of one of the two Secrets.
#[derive(Debug)]
enum Known {
    NotYet,
    Missing,
    There(Box<Secret>),
}

/// The CA's Secrets in one namespace.
struct Root {
    secrets: Api<Secret>,
    namespace: String,
    ca: Arc<Ca>,
    /// The user's, which comes before weft's own.
    user: Known,
    own: Known,
}

/// Keeps `ca` as the Secrets of `namespace` have it, for as long as the process lives.
pub async fn follow(secrets: Api<Secret>, namespace: &str, ca: Arc<Ca>) {
    let watch = |name| watch_object(secrets.clone(), name).default_backoff().boxed();
    let (mut user, mut own) = (watch(USER_CA_SECRET), watch(OWN_CA_SECRET));
    let namespace = namespace.to_owned();
    let mut root = Root { secrets, namespace, ca, user: Known::NotYet, own: Known::NotYet };
    let mut told = String::new();
    loop {
        let again = root.can_be_made() && !told.is_empty();
        let outcome = tokio::select! {
            Some(event) = user.next() => root.learn(USER_CA_SECRET, event),
            Some(event) = own.next() => root.learn(OWN_CA_SECRET, event),
            () = tokio::time::sleep(RETRY), if again => Ok(()),
        };
        let outcome = match outcome {
            Ok(()) => root.take().await,
            failed => failed,
        };
        let trouble = outcome.err().map(|trouble| trouble.to_string()).unwrap_or_default();
        if !trouble.is_empty() && trouble != told {
            tracing::error!("{trouble}");
        }
        told = trouble;
    }
}

impl Root {
    fn learn(&mut self, name: &str, event: watcher::Result<Option<Secret>>) -> Result<(), Trouble> {
        let secret = event.map_err(|error| Trouble::Watch(self.full(name), causes::all(&error)))?;
        let known = secret.map_or(Known::Missing, |secret| Known::There(Box::new(secret)));
        *(if name == USER_CA_SECRET { &mut self.user } else { &mut self.own }) = known;
        Ok(())
    }

    /// Whether it is known that there is none.
    fn can_be_made(&self) -> bool {
        matches!((&self.user, &self.own), (Known::Missing, Known::Missing)) && !self.ca.is_open()
    }

    /// Takes in what is known now.
    async fn take(&self) -> Result<(), Trouble> {
        match (&self.user, &self.own) {
            (Known::There(secret), _) => self.open(USER_CA_SECRET, secret),
            (Known::Missing, Known::There(secret)) => self.open(OWN_CA_SECRET, secret),
            (Known::Missing, Known::Missing) if self.ca.is_open() => {
                Err(Trouble::Gone(self.namespace.clone()))
            }
            (Known::Missing, Known::Missing) => self.make().await,
            _ => Ok(()),
        }
    }

    fn open(&self, name: &str, secret: &Secret) -> Result<(), Trouble> {
        let parts = secret::parts(secret).map_err(|why| Trouble::Misshapen(self.full(name), why.into()))?;
        let authority = Authority::new(parts, self.ca.trust_domain(), SystemTime::now())
            .map_err(|why| Trouble::Unusable(self.full(name), why.into()))?;
        if self.ca.take(authority, Instant::now()) {
            tracing::info!(secret = self.full(name), "the CA's key and roots are read");
        }
        Ok(())
    }

    /// Makes a root, unless another replica was first: the watch tells what there is then.
    async fn make(&self) -> Result<(), Trouble> {
        let (key, certificate) = new_root(self.ca.trust_domain(), SystemTime::now())?;
        let secret = secret::new(OWN_CA_SECRET, &key, &certificate);
        match self.secrets.create(&PostParams::default(), &secret).await {
            Ok(_) => {
                tracing::info!(secret = self.full(OWN_CA_SECRET), "made a root for this mesh");
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(error) => Err(Trouble::Create(self.full(OWN_CA_SECRET), causes::all(&error))),
        }
    }

    fn full(&self, name: &str) -> String {
        format!("{}/{name}", self.namespace)
    }
}
