//! The registry: what services there are and where, for whoever asks. Off unless `--registry-addr` is given.

use std::sync::Arc;

use http::StatusCode;
use tokio::net::TcpListener;
use weft_api::registry::PATH;
use weft_rules::rows;

use super::callers::Caller;
use super::ports::serve_tcp;
use super::{Answer, aside, json, text};
use crate::agent::Shared;

/// Serves the list of all service keys, and the hosts of each.
pub async fn serve_registry(listener: TcpListener, shared: Arc<Shared>) {
    let answer = async move |path: &str| {
        let key = asked_for(path)?;
        let shared = shared.clone();
        Some(aside(move || answer(&shared, &key)).await)
    };
    serve_tcp(listener, |_, _| Caller::Named, answer).await;
}

/// The service key that a path names, empty for all; `None`: the path is another one.
fn asked_for(path: &str) -> Option<String> {
    let rest = path.strip_prefix(PATH)?;
    if rest.is_empty() {
        return Some(String::new());
    }
    // `|` is the one character of a key that clients may write otherwise.
    Some(rest.strip_prefix('/')?.replace("%7C", "|").replace("%7c", "|"))
}

fn answer(shared: &Shared, key: &str) -> Answer {
    let snapshot = shared.snapshot.load_full();
    if snapshot.generation == 0 {
        // An empty list would be believed.
        return text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the agent does not know the services yet\n".to_owned(),
        );
    }
    if key.is_empty() {
        return json(&rows::registrations(&snapshot));
    }
    match rows::hosts(&snapshot, key) {
        Some(hosts) => json(&hosts),
        None => text(StatusCode::NOT_FOUND, format!("no service has the key {key}; GET {PATH} lists all\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_all_services_or_one_key() {
        for (path, key) in [
            ("/v1/registration", Some("")),
            ("/v1/registration/", Some("")),
            ("/v1/registration/a.b.svc.cluster.local|http", Some("a.b.svc.cluster.local|http")),
            ("/v1/registration/a.b%7Chttp", Some("a.b|http")),
            ("/v1/registration/a.b%7chttp", Some("a.b|http")),
            ("/v1/registrations", None),
            ("/", None),
        ] {
            assert_eq!(asked_for(path).as_deref(), key, "{path}");
        }
    }
}
