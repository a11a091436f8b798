//! The node's own ports on TCP. Those of metrics and readiness answer the node itself and who is named; a stranger hears how to be
//! named, and keeps nobody else waiting.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::callers::Caller;
use super::{Answer, CONNECTIONS, HEADER_TIMEOUT, datapath, only, pause, scrape, serve, text};
use crate::agent::Shared;

/// Longest wait for a sign of life: compiling the rules of a large cluster takes a while.
const CONTROL_ANSWER: Duration = Duration::from_secs(4);
/// Strangers that one listener hears at a time; those beyond are closed without a word.
const STRANGERS: usize = 8;
/// Longest wait for a stranger's headers.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves `/metrics`.
pub async fn serve_metrics(listener: TcpListener, shared: Arc<Shared>) {
    let turn = Arc::new(Semaphore::new(1));
    let known = shared.clone();
    let answer = async move |path: &str| match path {
        "/metrics" => Some(scrape::answer(shared.telemetry.clone(), &turn).await),
        _ => None,
    };
    serve_tcp(listener, move |peer, local| known.know(peer, local), answer).await;
}

/// Serves `/healthz/ready`: 200, or 503 with what is waited for; and `/healthz/live`: 200 while the control thread answers,
/// without which no pod joins and no rule changes.
pub async fn serve_readiness(listener: TcpListener, shared: Arc<Shared>) {
    let known = shared.clone();
    let answer = async move |path: &str| match path {
        "/healthz/ready" => {
            let waiting = shared.readiness.waiting_for();
            Some(if waiting.is_empty() {
                text(StatusCode::OK, "ready\n".to_owned())
            } else {
                text(StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", waiting.join(", ")))
            })
        }
        "/healthz/live" => Some(match datapath(&shared, CONTROL_ANSWER).await {
            Some(_) => text(StatusCode::OK, "live\n".to_owned()),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "the control thread does not answer\n".to_owned()),
        }),
        _ => None,
    };
    serve_tcp(listener, move |peer, local| known.know(peer, local), answer).await;
}

impl Shared {
    fn know(&self, peer: SocketAddr, local: SocketAddr) -> Caller {
        let caller = self.options.metrics_allow.know(&self.snapshot.load(), peer, local);
        if let Caller::Stranger(who) = &caller {
            self.telemetry.stranger();
            tracing::debug!(%who, %local, "may not read the node's port (--metrics-allow)");
        }
        caller
    }
}

/// Serves GET. `know` says who has come.
pub(super) async fn serve_tcp(
    listener: TcpListener,
    know: impl Fn(SocketAddr, SocketAddr) -> Caller,
    answer: impl AsyncFn(&str) -> Option<Answer> + 'static,
) {
    let answer = Rc::new(answer);
    let room = |connections| Arc::new(Semaphore::new(connections));
    let (of_node, of_named, of_strangers) = (room(CONNECTIONS), room(CONNECTIONS), room(STRANGERS));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                pause(&error).await;
                continue;
            }
        };
        // Gone already, most likely.
        let Ok(local) = stream.local_addr() else { continue };
        let caller = know(peer, local);
        let room = match caller {
            Caller::Node => &of_node,
            Caller::Named => &of_named,
            Caller::Stranger(_) => &of_strangers,
        };
        // Nobody waits for room: the kubelet would wait behind whoever fills the queue.
        let Ok(permit) = room.clone().try_acquire_owned() else { continue };
        let answer = answer.clone();
        tokio::task::spawn_local(async move {
            let _permit = permit;
            match caller {
                Caller::Stranger(who) => refuse(stream, &who).await,
                Caller::Node | Caller::Named => {
                    serve(stream, HEADER_TIMEOUT, async |request: Request<Incoming>| {
                        if request.method() != Method::GET && request.method() != Method::HEAD {
                            return only("GET");
                        }
                        let known = answer(request.uri().path()).await;
                        known.unwrap_or_else(|| text(StatusCode::NOT_FOUND, "not here\n".to_owned()))
                    })
                    .await;
                }
            }
        });
    }
}

async fn refuse(stream: TcpStream, who: &str) {
    let told = format!(
        "{who} may not read this: the agent's --metrics-allow names who may, beside the node itself\n"
    );
    let refusing = serve(stream, STRANGER_TIMEOUT, async |_| text(StatusCode::FORBIDDEN, told.clone()));
    // However slowly it reads, and however much it asks.
    let _ = tokio::time::timeout(STRANGER_TIMEOUT, refusing).await;
}
