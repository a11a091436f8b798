//! The webhook's door: HTTPS, `POST /validate`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;

use crate::admission::{self, Review};
use crate::listener::AsyncAnswer;
use crate::metrics::Metrics;

/// Where the API server posts to.
const PATH: &str = "/validate";
/// An object is at most 1.5 MiB in etcd, and an update brings two, which JSON makes longer.
const LONGEST_REQUEST: usize = 8 << 20;
/// Longest wait for a request's end.
const BODY: Duration = Duration::from_secs(10);

/// Answers AdmissionReviews.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl AsyncAnswer<Full<Bytes>> for Webhook {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() != PATH {
            return plain(StatusCode::NOT_FOUND, "the webhook is at /validate\n");
        }
        if request.method() != Method::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "post an AdmissionReview\n");
        }
        let body = Limited::new(request.into_body(), LONGEST_REQUEST).collect();
        let Ok(Ok(body)) = tokio::time::timeout(BODY, body).await else {
            return plain(StatusCode::BAD_REQUEST, "the request does not end, or is too long\n");
        };
        let Ok(Review { request: Some(asked) }) = serde_json::from_slice(&body.to_bytes()) else {
            return plain(StatusCode::BAD_REQUEST, "not an AdmissionReview of admission.k8s.io/v1\n");
        };
        let uid = asked.uid.clone();
        let verdict = admission::decide(asked);
        self.metrics.review(verdict.result());
        let mut response = Response::new(Full::from(verdict.to_review(&uid).to_string()));
        response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        response
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}
