//! Readiness, liveness and metrics, over plain HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::watch;

use crate::ca::Ca;
use crate::listener::AsyncAnswer;
use crate::metrics::Metrics;
use crate::pods::Pods;

/// How the controller is doing.
#[derive(Debug, Clone)]
pub struct Health {
    /// Can it sign?
    pub ca: Arc<Ca>,
    /// Does it know the pods?
    pub pods: Arc<Pods>,
    /// Has it been told to end?
    pub ending: Arc<AtomicBool>,
    /// What it counts.
    pub metrics: Arc<Metrics>,
    /// Does it write statuses?
    pub leads: watch::Receiver<bool>,
}

impl Health {
    /// What it waits for; nothing: it is ready.
    fn lacks(&self) -> Vec<&'static str> {
        let all = [
            (self.ending.load(Ordering::Relaxed), "it is ending"),
            (!self.ca.is_open(), "waiting for the CA's Secret"),
            (!self.pods.is_complete(), "waiting for the list of pods"),
        ];
        all.into_iter().filter_map(|(lacks, what)| lacks.then_some(what)).collect()
    }
}

impl AsyncAnswer<Full<Bytes>> for Health {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, text) = match request.uri().path() {
            "/healthz/live" => (StatusCode::OK, "alive\n".to_owned()),
            "/healthz/ready" => match &*self.lacks() {
                [] => (StatusCode::OK, "ready\n".to_owned()),
                lacks => (StatusCode::SERVICE_UNAVAILABLE, lacks.join("\n") + "\n"),
            },
            "/metrics" => {
                self.metrics.pods.set(i64::try_from(self.pods.count()).unwrap_or(i64::MAX));
                self.metrics.leader.set(i64::from(*self.leads.borrow()));
                (StatusCode::OK, self.metrics.text())
            }
            _ => (StatusCode::NOT_FOUND, "not here\n".to_owned()),
        };
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response
    }
}
