//! Upstream HTTP connections: kept by worker, source pod, endpoint and version; the last one used is the first one taken.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use weft_datapath::LocalPod;
use weft_rules::snapshot::Snapshot;
use weft_telemetry::Security;

use super::connection::Downstream;
use super::core::Core;
use super::error::{Error, Kind};
use super::http::{LocalExecutor, MeteredRequestBody as RequestBody};
use super::io::EndpointIo;
use super::originate::Origination;
use super::stream::Leaving;
use super::upstream::{self, Connection, Held, Purpose, Towards, Way};
use super::{LocalPods, ends, limits};

/// Whose connection, to where, and how. Two callers never share one: what the endpoint sees as its client is the caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    pod: u64,
    /// The caller of a connection that arrived.
    visitor: Option<IpAddr>,
    address: SocketAddr,
    way: Way,
    tls: Option<Origination>,
    /// Whether the caller shows its identity on this node.
    plaintext: bool,
}

impl Key {
    fn new(down: &Downstream, to: &Towards) -> Self {
        Self {
            pod: down.pod.cookie,
            visitor: down.is_inbound().then(|| down.peer.ip()),
            address: to.address,
            way: Way::of(down, to),
            tls: to.originated(),
            plaintext: to.is_plaintext(),
        }
    }

    /// A connection has ended. Of one to the program of a pod, for somebody who arrived there, that may have been the
    /// program's end.
    fn ended(&self, core: &Rc<Core>, pod: &Arc<LocalPod>) {
        if self.way == Way::Arrived {
            ends::look(core, pod, self.address.port());
        }
    }
}

/// An HTTP/1.1 connection, carrying one request at a time.
#[derive(Debug)]
pub(super) struct Http1 {
    /// Its way in.
    pub(super) sender: http1::SendRequest<RequestBody>,
    /// Its own address.
    pub(super) local_address: Option<SocketAddr>,
    /// How both ends know each other.
    pub(super) security: Security,
    /// It has carried a request before: the endpoint may be closing it at this moment.
    pub(super) reused: bool,
    /// The next request's target is to be written as its client wrote it.
    pub(super) restore: Rc<Cell<bool>>,
    /// It has carried a request.
    used: bool,
    key: Rc<Key>,
    /// Cookie of the pod that the connection holds.
    holds: u64,
    leaving: Leaving,
}

/// An HTTP/2 connection, shared.
#[derive(Debug)]
pub(super) struct Http2 {
    /// Its way in; clone to use.
    pub(super) sender: http2::SendRequest<RequestBody>,
    /// Its own address.
    pub(super) local_address: Option<SocketAddr>,
    /// How both ends know each other.
    pub(super) security: Security,
    streams: Cell<usize>,
    /// Cookie of the pod that the connection holds.
    holds: u64,
    /// How many streams the endpoint allows at once.
    allowed: Rc<Cell<usize>>,
    used: Cell<Instant>,
    leaving: Leaving,
}

/// A stream on a shared connection: counted until it drops.
#[derive(Debug)]
pub(super) struct Http2Stream(pub(super) Rc<Http2>);

#[derive(Debug)]
struct Idle {
    connection: Http1,
    since: Instant,
}

type Opening = watch::Receiver<Option<Result<Rc<Http2>, (Kind, Option<String>)>>>;

#[derive(Debug, Default)]
struct Shared2 {
    open: Vec<Rc<Http2>>,
    opening: Option<Opening>,
}

/// One worker's idle and shared connections.
#[derive(Debug, Default)]
pub(super) struct Pool {
    http1: RefCell<HashMap<Rc<Key>, Vec<Idle>, foldhash::fast::RandomState>>,
    http2: RefCell<HashMap<Key, Shared2, foldhash::fast::RandomState>>,
    idle: Cell<usize>,
}

impl Pool {
    /// An HTTP/1.1 connection to `address`: an idle one, else a new one.
    pub(super) async fn http1(&self, down: &Rc<Downstream>, to: &Towards) -> Result<Http1, Error> {
        let key = Key::new(down, to);
        if let Some(idle) = self.take(&key) {
            return Ok(idle);
        }
        let connection = upstream::connect(down, to, Purpose::Requests { http2: false }).await?;
        open_http1(&down.core, Rc::new(key), connection).await
    }

    /// A new HTTP/1.1 connection that nobody drives: for an upgrade, whose socket is wanted back.
    pub(super) async fn dedicated(
        down: &Rc<Downstream>,
        to: &Towards,
    ) -> Result<(Http1, Driver, Held), Error> {
        let Connection { stream, pod, security, .. } =
            upstream::connect(down, to, Purpose::Requests { http2: false }).await?;
        let (local_address, leaving) = (stream.local_addr(), stream.leaving());
        let restore = Rc::<Cell<bool>>::default();
        let (sender, driver) = handshake_http1(EndpointIo::new(stream, Rc::clone(&restore))).await?;
        let (key, holds) = (Rc::new(Key::new(down, to)), pod.cookie);
        let reused = false;
        let opened =
            Http1 { sender, local_address, security, reused, restore, used: false, key, holds, leaving };
        Ok((opened, driver, pod))
    }

    /// Takes back a connection whose exchange is over. One that is still at work closes when it is done.
    pub(super) fn give_back(&self, mut connection: Http1) {
        connection.used = true;
        self.keep(connection);
    }

    fn keep(&self, mut connection: Http1) {
        connection.reused = true;
        if connection.sender.is_closed()
            || connection.leaving.is_wanted()
            || self.idle.get() >= limits::POOL_IDLE
        {
            return;
        }
        let mut http1 = self.http1.borrow_mut();
        let idle = http1.entry(Rc::clone(&connection.key)).or_default();
        if idle.len() < limits::POOL_IDLE_PER_KEY {
            idle.push(Idle { connection, since: Instant::now() });
            self.idle.set(self.idle.get() + 1);
        }
    }

    /// Keeps a connection that was opened but not used.
    pub(super) fn adopt(down: &Rc<Downstream>, to: &Towards, connection: Connection) {
        let (down, key) = (Rc::clone(down), Rc::new(Key::new(down, to)));
        tokio::task::spawn_local(async move {
            if let Ok(connection) = open_http1(&down.core, key, connection).await {
                down.core.pool.keep(connection);
            }
        });
    }

    /// A stream on an HTTP/2 connection to `address`: on one that has room, else on a new one. Many asking at once wait
    /// for the same new one.
    pub(super) async fn http2(&self, down: &Rc<Downstream>, to: &Towards) -> Result<Http2Stream, Error> {
        let key = Key::new(down, to);
        loop {
            let mut opening = {
                let mut http2 = self.http2.borrow_mut();
                let shared = http2.entry(key.clone()).or_default();
                shared.open.retain(|connection| !connection.sender.is_closed());
                if let Some(connection) = shared.open.iter().find(|connection| connection.has_room()) {
                    return Ok(Http2Stream::new(connection));
                }
                shared.opening.get_or_insert_with(|| start_http2(down, to)).clone()
            };
            let result = match opening.wait_for(Option::is_some).await {
                Ok(result) => (*result).clone(),
                Err(_) => None,
            };
            let mut http2 = self.http2.borrow_mut();
            let shared = http2.entry(key.clone()).or_default();
            // The first to see the result takes it off the list; those after it find what it left.
            if shared.opening.as_ref().is_some_and(|current| current.same_channel(&opening)) {
                shared.opening = None;
                if let Some(Ok(connection)) = &result {
                    shared.open.push(Rc::clone(connection));
                }
            }
            match result {
                Some(Ok(connection)) if connection.has_room() => return Ok(Http2Stream::new(&connection)),
                Some(Ok(_)) => {}
                Some(Err((kind, Some(cause)))) => return Err(Error::new(kind, cause)),
                Some(Err((kind, None))) => return Err(kind.into()),
                None => return Err(Kind::ConnectFailure.into()),
            }
        }
    }

    /// Forgets a shared connection: it refused a stream.
    pub(super) fn forget(&self, down: &Downstream, to: &Towards, connection: &Rc<Http2>) {
        if let Some(shared) = self.http2.borrow_mut().get_mut(&Key::new(down, to)) {
            shared.open.retain(|open| !Rc::ptr_eq(open, connection));
        }
    }

    /// Closes what has been idle for longer than `limit`, and what came back to the pool after its pod had left.
    pub(super) fn sweep(&self, limit: Duration, pods: &LocalPods) {
        let now = Instant::now();
        let enrolled: HashSet<u64> = pods.values().map(|pod| pod.cookie).collect();
        let stays = |key: &Key, holds: u64, since: Instant, limit: Duration| {
            now - since < limit && enrolled.contains(&key.pod) && enrolled.contains(&holds)
        };
        let mut kept = 0;
        self.http1.borrow_mut().retain(|key, idle| {
            idle.retain(|Idle { connection, since }| {
                let limit = if connection.used { limit } else { limit.min(limits::POOL_UNUSED_TIMEOUT) };
                !connection.sender.is_closed()
                    && !connection.leaving.is_wanted()
                    && stays(key, connection.holds, *since, limit)
            });
            kept += idle.len();
            !idle.is_empty()
        });
        self.idle.set(kept);
        self.http2.borrow_mut().retain(|key, shared| {
            shared.open.retain(|connection| {
                !connection.sender.is_closed()
                    && (connection.streams.get() > 0
                        || !connection.leaving.is_wanted()
                            && stays(key, connection.holds, connection.used.get(), limit))
            });
            !shared.open.is_empty() || shared.opening.is_some()
        });
    }

    /// Closes what is idle on behalf of a pod, which needs the room.
    pub(super) fn close_idle_of(&self, pod: &LocalPod) {
        self.http1.borrow_mut().retain(|key, _| key.pod != pod.cookie);
        self.idle.set(self.http1.borrow().values().map(Vec::len).sum());
    }

    /// Closes what is idle in tunnels to where no pod is any more: its end need not have been heard.
    pub(super) fn forget_strangers(&self, snapshot: &Snapshot) {
        let known = |key: &Key| {
            key.way != Way::Tunnel || snapshot.workload_at(key.address.ip().to_canonical()).is_some()
        };
        self.http1.borrow_mut().retain(|key, _| known(key));
        self.http2.borrow_mut().retain(|key, shared| {
            known(key)
                || shared.opening.is_some()
                || shared.open.iter().any(|connection| connection.streams.get() > 0)
        });
        self.idle.set(self.http1.borrow().values().map(Vec::len).sum());
    }

    /// Closes what is idle to or from a pod that leaves the mesh; what is at work ends with its exchange.
    pub(super) fn release(&self, pod: &LocalPod) {
        let concerns = |key: &Key| {
            key.pod == pod.cookie || pod.network.addresses.contains(&key.address.ip().to_canonical())
        };
        self.http1.borrow_mut().retain(|key, _| !concerns(key));
        self.http2.borrow_mut().retain(|key, _| !concerns(key));
        self.idle.set(self.http1.borrow().values().map(Vec::len).sum());
    }

    fn take(&self, key: &Key) -> Option<Http1> {
        let mut http1 = self.http1.borrow_mut();
        let idle = http1.get_mut(key)?;
        let before = idle.len();
        idle.retain_mut(|Idle { connection, .. }| {
            !connection.sender.is_closed() && !connection.leaving.is_wanted()
        });
        // One that has not come to rest yet (its last request is still being written) is left to a later taker.
        let found = idle.iter().rposition(|idle| idle.connection.sender.is_ready()).map(|at| idle.remove(at));
        self.idle.set(self.idle.get() - (before - idle.len()));
        found.map(|idle| idle.connection)
    }
}

impl Http2 {
    fn has_room(&self) -> bool {
        !self.sender.is_closed() && !self.leaving.is_wanted() && self.streams.get() < self.allowed.get()
    }
}

impl Http2Stream {
    fn new(connection: &Rc<Http2>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self(Rc::clone(connection))
    }
}

impl Drop for Http2Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.used.set(Instant::now());
    }
}

/// What moves an HTTP/1.1 connection's bytes.
pub(super) type Driver = http1::Connection<TokioIo<EndpointIo>, RequestBody>;

async fn handshake_http1(io: EndpointIo) -> Result<(http1::SendRequest<RequestBody>, Driver), Error> {
    http1::Builder::new()
        .max_buf_size(limits::HTTP1_BUFFER_BYTES)
        .max_header_size(limits::HEADER_BYTES)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| Error::new(Kind::ConnectFailure, error))
}

async fn open_http1(core: &Rc<Core>, key: Rc<Key>, connection: Connection) -> Result<Http1, Error> {
    let Connection { stream, pod, security, .. } = connection;
    let (local_address, leaving) = (stream.local_addr(), stream.leaving());
    let restore = Rc::<Cell<bool>>::default();
    let (sender, driver) = handshake_http1(EndpointIo::new(stream, Rc::clone(&restore))).await?;
    let holds = pod.cookie;
    let (core, of) = (Rc::clone(core), Rc::clone(&key));
    tokio::task::spawn_local(async move {
        drop(driver.await);
        of.ended(&core, pod.pod());
    });
    let (reused, used) = (false, false);
    Ok(Http1 { sender, local_address, security, reused, restore, used, key, holds, leaving })
}

fn start_http2(down: &Rc<Downstream>, to: &Towards) -> Opening {
    let (tell, opening) = watch::channel(None);
    let (down, to) = (Rc::clone(down), to.clone());
    tokio::task::spawn_local(async move {
        let opened = open_http2(&down, &to).await;
        tell.send(Some(opened.map_err(|error| (error.kind, error.cause()))))
    });
    opening
}

async fn open_http2(down: &Rc<Downstream>, to: &Towards) -> Result<Rc<Http2>, Error> {
    let Connection { stream, pod, security, .. } =
        upstream::connect(down, to, Purpose::Requests { http2: true }).await?;
    let (local_address, leaving) = (stream.local_addr(), stream.leaving());
    let (sender, mut driver) = http2::Builder::new(LocalExecutor)
        .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW_BYTES)
        .max_header_list_size(limits::HEADER_BYTES as u32)
        .max_send_buf_size(limits::HTTP2_SEND_BUFFER_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Error::new(Kind::ConnectFailure, error))?;
    let allowed = Rc::new(Cell::new(driver.current_max_send_streams()));
    let told = Rc::clone(&allowed);
    let holds = pod.cookie;
    let (core, key) = (Rc::clone(&down.core), Key::new(down, to));
    tokio::task::spawn_local(async move {
        std::future::poll_fn(|context| {
            let ended = Pin::new(&mut driver).poll(context);
            told.set(driver.current_max_send_streams());
            ended.map(drop)
        })
        .await;
        key.ended(&core, pod.pod());
    });
    Ok(Rc::new(Http2 {
        sender,
        local_address,
        security,
        holds,
        streams: Cell::new(0),
        allowed,
        used: Cell::new(Instant::now()),
        leaving,
    }))
}
