//! Follows a kind for as long as the process lives: by streaming lists where the server has them.

use std::fmt::Debug;

use futures_util::StreamExt;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Error, Event, watcher};
use serde::de::DeserializeOwned;
use weft_api::causes;

/// The status with which a server answers that it has no streaming lists (Invalid).
const UNPROCESSABLE: u16 = 422;

/// Hands every event to `take`; `kind` is for the log. Never ends.
pub async fn follow<K>(api: Api<K>, config: Config, kind: &str, mut take: impl FnMut(Event<K>))
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut streaming = true;
    loop {
        let config = if streaming { config.clone().streaming_lists() } else { config.clone() };
        let mut events = watcher(api.clone(), config).default_backoff().boxed();
        let mut told = String::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    told.clear();
                    take(event);
                }
                Err(error) if streaming && has_no_streaming_lists(&error) => {
                    streaming = false;
                    break;
                }
                Err(error) => {
                    let error = causes::all(&error);
                    if error != told {
                        tracing::warn!("cannot watch {kind}: {error}");
                    }
                    told = error;
                }
            }
        }
    }
}

fn has_no_streaming_lists(error: &Error) -> bool {
    match error {
        Error::InitialListFailed(kube::Error::Api(status))
        | Error::WatchStartFailed(kube::Error::Api(status))
        | Error::WatchError(status) => status.code == UNPROCESSABLE,
        _ => false,
    }
}
