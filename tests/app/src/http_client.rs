//! How a role calls the next service: by its plain name, a new connection each time.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Longest wait for a service; Bookinfo's page uses the same.
const PATIENCE: Duration = Duration::from_secs(3);

/// Headers that join a request's spans and name its user; an application has to forward them by itself.
const FORWARDED: [&str; 11] = [
    "end-user",
    "x-request-id",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "b3",
    "traceparent",
    "tracestate",
    "user-agent",
];

/// Calls other services.
#[derive(Clone)]
pub struct Caller {
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Caller {
    /// One that keeps no connection: a rule that changes holds from the next request on.
    pub fn new() -> Self {
        Self { client: Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http() }
    }

    /// GETs `url` with what is to be forwarded of `incoming`.
    pub async fn get(&self, url: &str, incoming: &HeaderMap) -> Result<(StatusCode, Bytes)> {
        let mut request = Request::get(url.parse::<Uri>()?).body(Empty::new())?;
        for name in FORWARDED {
            for value in incoming.get_all(name) {
                request.headers_mut().append(name, value.clone());
            }
        }
        let whole = async {
            let response = self.client.request(request).await?;
            let status = response.status();
            anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
        };
        let timed = tokio::time::timeout(PATIENCE, whole).await;
        timed.with_context(|| format!("{url}: no answer in {PATIENCE:?}"))?.with_context(|| url.to_owned())
    }

    /// As [`Caller::get`], for a JSON body and status 200 only.
    pub async fn get_json(&self, url: &str, incoming: &HeaderMap) -> Result<serde_json::Value> {
        let (status, body) = self.get(url, incoming).await?;
        anyhow::ensure!(status == StatusCode::OK, "{url}: {status}");
        Ok(serde_json::from_slice(&body)?)
    }
}
