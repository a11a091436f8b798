//! The caller's side: connections to pods of other nodes, kept by calling pod and destination, and tunnels on them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use http::header::{FORWARDED, HeaderName};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use weft_datapath::LocalPod;
use weft_telemetry::{Refusal, Security};

use super::{Tunnel, metadata, until_silent};
use crate::connection::Downstream;
use crate::error::{Error, Kind};
use crate::tunnels::{self, Dialled, Key};
use crate::upstream::Held;
use crate::wire::Wire;
use crate::{LocalPods, limits};

const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// How often a tunnel is asked for again when its connection was closing.
const TRIES: usize = 3;

/// One worker's connections to pods of other nodes.
#[derive(Debug, Default)]
pub(crate) struct Client {
    by_key: RefCell<HashMap<Key, Shared, foldhash::fast::RandomState>>,
}

#[derive(Debug, Default)]
struct Shared {
    open: Vec<Rc<Open>>,
    opening: Option<Opening>,
}

type Opening = watch::Receiver<Option<Result<Rc<Open>, (Kind, Option<String>)>>>;

/// A connection that stands.
#[derive(Debug)]
struct Open {
    sender: SendRequest<Bytes>,
    streams: Arc<AtomicUsize>,
    used: Cell<Instant>,
    local_address: Option<SocketAddr>,
    baggage: Option<HeaderValue>,
    security: Security,
    /// When the certificate ends that it was opened with: no new tunnel after that.
    until: SystemTime,
}

/// A stream on a connection: counted until it drops.
#[derive(Debug)]
pub(super) struct Counted {
    streams: Arc<AtomicUsize>,
    sender: SendRequest<Bytes>,
}

impl Counted {
    /// What tells of the connection's end.
    pub(super) fn going_away(&self) -> GoingAway {
        GoingAway(self.sender.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells of a connection whether its other end takes no more streams.
#[derive(Debug)]
pub(crate) struct GoingAway(SendRequest<Bytes>);

impl GoingAway {
    /// Whether it has said so.
    pub(crate) fn is_said(&self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        matches!(self.0.clone().poll_ready(&mut context), Poll::Ready(Err(_)))
    }
}

impl Open {
    fn has_room(&self) -> bool {
        SystemTime::now() < self.until
            && self.streams.load(Ordering::Relaxed)
                < limits::HBONE_STREAMS_USED.min(self.sender.current_max_send_streams())
    }

    fn count(&self) -> Counted {
        self.used.set(Instant::now());
        self.streams.fetch_add(1, Ordering::Relaxed);
        Counted { streams: Arc::clone(&self.streams), sender: self.sender.clone() }
    }
}

impl Client {
    /// Whether the destination is known to speak this.
    pub(crate) fn knows(&self, key: &Key) -> bool {
        self.by_key.borrow().contains_key(key)
    }

    /// Goes on with a connection on which both ends have agreed to speak this.
    pub(crate) fn begin(&self, key: &Key, dialled: Dialled) {
        let mut by_key = self.by_key.borrow_mut();
        let shared = by_key.entry(key.clone()).or_default();
        if shared.opening.is_none() {
            shared.opening = Some(start(begin(dialled)));
        }
    }

    /// A tunnel to a pod of another node.
    pub(crate) async fn connect(
        &self,
        down: &Rc<Downstream>,
        key: &Key,
        address: SocketAddr,
        timeout: Duration,
    ) -> Result<(Tunnel, Security), Error> {
        let until = Instant::now() + timeout;
        let late = |_| Error::from(Kind::ConnectTimeout);
        let mut tries = 1;
        loop {
            let opening = self.open(down, key, timeout);
            let (open, counted) = timeout_at(until, opening).await.map_err(late)??;
            let answer = timeout_at(until, ask(&open, down, address)).await;
            match answer {
                Ok(Ok((StatusCode::OK, send, receive))) => {
                    let tunnel = Tunnel::new(send, receive, open.local_address, Some(counted));
                    return Ok((tunnel, open.security.clone()));
                }
                Ok(Ok((status, ..))) => return Err(refused(status, address)),
                // Its connection was closing, or refused the stream. Nothing was said in it: another one may do.
                Ok(Err(error)) => {
                    self.forget(key, &open);
                    if tries == TRIES {
                        return Err(Error::new(Kind::ConnectFailure, error));
                    }
                    tries += 1;
                }
                // Who does not answer one may not answer others.
                Err(elapsed) => {
                    self.forget(key, &open);
                    return Err(late(elapsed));
                }
            }
        }
    }

    /// A connection with room for one more stream: one that stands, else a new one. Many asking at once wait for the same
    /// new one.
    async fn open(
        &self,
        down: &Rc<Downstream>,
        key: &Key,
        timeout: Duration,
    ) -> Result<(Rc<Open>, Counted), Error> {
        loop {
            let mut opening = {
                let mut by_key = self.by_key.borrow_mut();
                let shared = by_key.entry(key.clone()).or_default();
                if let Some(open) = shared.open.iter().find(|open| open.has_room()) {
                    return Ok((Rc::clone(open), open.count()));
                }
                shared.opening.get_or_insert_with(|| start(dial(down, key, timeout))).clone()
            };
            let result = match opening.wait_for(Option::is_some).await {
                Ok(result) => (*result).clone(),
                Err(_) => None,
            };
            let mut by_key = self.by_key.borrow_mut();
            let shared = by_key.entry(key.clone()).or_default();
            // The first to see the result takes it off the list; those after it find what it left.
            if shared.opening.as_ref().is_some_and(|current| current.same_channel(&opening)) {
                shared.opening = None;
                if let Some(Ok(open)) = &result {
                    shared.open.push(Rc::clone(open));
                }
            }
            match result {
                Some(Ok(open)) if open.has_room() => {
                    let counted = open.count();
                    return Ok((open, counted));
                }
                Some(Ok(_)) => {}
                Some(Err((kind, Some(cause)))) => return Err(Error::new(kind, cause)),
                Some(Err((kind, None))) => return Err(kind.into()),
                None => return Err(Kind::ConnectFailure.into()),
            }
        }
    }

    /// No new tunnel goes by this connection; those that stand live on.
    fn forget(&self, key: &Key, open: &Rc<Open>) {
        let mut by_key = self.by_key.borrow_mut();
        if let Some(shared) = by_key.get_mut(key) {
            shared.open.retain(|other| !Rc::ptr_eq(other, open));
            if shared.open.is_empty() && shared.opening.is_none() {
                by_key.remove(key);
            }
        }
    }

    /// Closes what has carried nothing for longer than `limit`, and what belongs to a pod that has left.
    pub(crate) fn sweep(&self, limit: Duration, pods: &LocalPods) {
        let now = Instant::now();
        let enrolled: std::collections::HashSet<u64> = pods.values().map(|pod| pod.cookie).collect();
        self.by_key.borrow_mut().retain(|key, shared| {
            shared.open.retain(|open| {
                if open.streams.load(Ordering::Relaxed) > 0 {
                    open.used.set(now);
                }
                enrolled.contains(&key.pod) && now - open.used.get() < limit
            });
            // One that nobody waited for to the end.
            shared.opening.take_if(|opening| opening.borrow().is_some());
            !shared.open.is_empty() || shared.opening.is_some()
        });
    }

    /// Keeps what is wanted still, and what carries something.
    pub(crate) fn retain(&self, wanted: impl Fn(&Key) -> bool) {
        self.by_key.borrow_mut().retain(|key, shared| {
            wanted(key)
                || shared.opening.is_some()
                || shared.open.iter().any(|open| open.streams.load(Ordering::Relaxed) > 0)
        });
    }

    /// Closes the connections of a pod that leaves the mesh, each when its last tunnel has ended.
    pub(crate) fn release(&self, pod: &LocalPod) {
        self.by_key.borrow_mut().retain(|key, _| key.pod != pod.cookie);
    }
}

type Answered = (StatusCode, h2::SendStream<Bytes>, h2::RecvStream);

/// Asks for a tunnel. Dropping the future takes it back.
async fn ask(open: &Open, down: &Downstream, to: SocketAddr) -> Result<Answered, h2::Error> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    // An address is an authority.
    *request.uri_mut() = Uri::builder().authority(to.to_string()).build().unwrap_or_default();
    if let Some(baggage) = &open.baggage {
        request.headers_mut().insert(BAGGAGE, baggage.clone());
    }
    if let Some(forwarded) = metadata::forwarded(down.peer) {
        request.headers_mut().insert(FORWARDED, forwarded);
    }
    if let Some(traceparent) = metadata::traceparent() {
        request.headers_mut().insert(TRACEPARENT, traceparent);
    }
    let (answer, send) = open.sender.clone().send_request(request, false)?;
    let (head, receive) = answer.await?.into_parts();
    Ok((head.status, send, receive))
}

/// What a status other than 200 means.
fn refused(status: StatusCode, to: SocketAddr) -> Error {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::refused(Kind::Denied, Refusal::Elsewhere),
        StatusCode::SERVICE_UNAVAILABLE => {
            Error::new(Kind::ConnectFailure, format!("the node of {to} cannot connect to it"))
        }
        status => Error::new(Kind::ConnectFailure, format!("the node of {to} answered {status}")),
    }
}

fn start(opened: impl Future<Output = Result<Rc<Open>, Error>> + 'static) -> Opening {
    let (tell, opening) = watch::channel(None);
    tokio::task::spawn_local(async move {
        tell.send(Some(opened.await.map_err(|error| (error.kind, error.cause()))))
    });
    opening
}

/// Makes a further connection to a destination that speaks this.
fn dial(
    down: &Rc<Downstream>,
    key: &Key,
    timeout: Duration,
) -> impl Future<Output = Result<Rc<Open>, Error>> + use<> {
    let (down, key) = (Rc::clone(down), key.clone());
    async move {
        let dialling = async {
            let tls = tunnels::tls_of(&down, timeout).await?;
            let dialled = tunnels::dial(&down, &key, &tls, timeout, &tls.hbone_client).await?;
            begin(dialled).await
        };
        tokio::time::timeout(timeout, dialling).await.unwrap_or_else(|_| Err(Kind::ConnectTimeout.into()))
    }
}

/// Begins HTTP/2.
async fn begin(dialled: Dialled) -> Result<Rc<Open>, Error> {
    let (sender, driver) = h2::client::Builder::new()
        .initial_window_size(limits::HBONE_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HBONE_CONNECTION_WINDOW_BYTES)
        .max_frame_size(limits::HBONE_FRAME_BYTES)
        .max_header_list_size(limits::HBONE_HEADER_BYTES)
        .max_send_buffer_size(limits::HBONE_SEND_BUFFER_BYTES)
        .enable_push(false)
        .handshake(dialled.stream)
        .await
        .map_err(|error| Error::new(Kind::ConnectFailure, error))?;
    tokio::task::spawn_local(drive(driver, dialled.held));
    Ok(Rc::new(Open {
        sender,
        streams: Arc::default(),
        used: Cell::new(Instant::now()),
        local_address: dialled.local_address,
        baggage: metadata::baggage(&dialled.caller),
        security: dialled.security,
        until: dialled.tls.not_after,
    }))
}

/// Moves a connection's bytes until it ends or falls silent. Holds the pod, in whose namespace it is.
async fn drive(mut driver: Connection<Wire, Bytes>, pod: Held) {
    let silent = until_silent(driver.ping_pong());
    tokio::select! {
        ended = driver => if let Err(error) = ended {
            tracing::debug!(pod = %pod.network.key, %error, "tunnel connection ended");
        },
        () = silent => tracing::debug!(pod = %pod.network.key, "tunnel connection fell silent"),
    }
    drop(pod);
}
