//! Has the controller tell of the Secrets that are wanted, and of their changes.

use std::sync::Arc;
use std::time::Duration;

use super::{Credentials, Kept, SecretData, SecretName};
use crate::service::{Service, ServiceError};
use crate::wire::{SecretAsked, SecretTold, SecretsRequest};

/// Between two questions after one that failed: at first, and at the longest.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How many may be asked for at once.
const MOST_ASKED: usize = 4096;

/// Asks for as long as it lives. The controller holds its answer back until there is news; while it is away, what was had serves
/// on.
pub async fn keep(credentials: Arc<Credentials>, service: &Service, report: impl Fn()) {
    let mut failures = 0_u32;
    loop {
        let asked = credentials.asks();
        if asked.is_empty() {
            credentials.asked.notified().await;
            continue;
        }
        let outcome = tokio::select! {
            outcome = service.secrets(SecretsRequest { secrets: asked }) => outcome,
            // Others are wanted: nobody waits for the answer to this one.
            () = credentials.asked.notified() => continue,
        };
        match outcome {
            Ok(told) => {
                failures = 0;
                if !told.is_empty() {
                    credentials.take(told);
                    report();
                }
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                if credentials.lack(&error) {
                    tracing::warn!("Secrets of gateways cannot be had: {error}");
                    report();
                }
                let pause = PAUSE.saturating_mul(1 << failures.min(5)).min(LONGEST_PAUSE);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = credentials.asked.notified() => {}
                }
            }
        }
    }
}

impl Credentials {
    /// What is wanted, with what is known of it.
    pub(super) fn asks(&self) -> Vec<SecretAsked> {
        let state = self.state();
        let asked = state.wanted.iter().take(MOST_ASKED).map(|name| SecretAsked {
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
            version: state.secrets.get(name).map(|kept| kept.version.clone()).unwrap_or_default(),
        });
        asked.collect()
    }

    pub(super) fn take(&self, told: Vec<SecretTold>) {
        let told = told.into_iter().map(|told| {
            let SecretTold { namespace, name, version, data, refused } = told;
            let data = if refused.is_empty() {
                Ok(Arc::new(SecretData::new(data)))
            } else {
                Err(refused.chars().take(512).collect::<String>().into())
            };
            (
                SecretName { namespace: namespace.into(), name: name.into() },
                Some(Kept { version, data, over: None }),
            )
        });
        self.put(told.collect());
    }

    /// Notes why those that nobody has told of are not there. True: that is news.
    pub(super) fn lack(&self, error: &ServiceError) -> bool {
        let why: Arc<str> = error.to_string().into();
        let state = self.state();
        let untold = state
            .wanted
            .iter()
            .filter(|name| state.secrets.get(name).is_none_or(|kept| kept.version.is_empty()));
        let kept = Kept { version: String::new(), data: Err(why), over: None };
        let news: Vec<_> = untold
            .filter(|name| state.secrets.get(name) != Some(&kept))
            .map(|name| (name.clone(), Some(kept.clone())))
            .collect();
        drop(state);
        let is_news = !news.is_empty();
        if is_news {
            self.put(news);
        }
        is_news
    }
}
