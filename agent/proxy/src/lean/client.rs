//! The caller's side: TLS connections that stand, kept by calling pod and destination for the next to be tunnelled.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;
use weft_datapath::LocalPod;
use weft_identity::Tls;
use weft_telemetry::{Refusal, Security};

use super::frames::{Kind as Frame, hear, say};
use super::leg::{Leg, Next};
use super::words;
use crate::connection::Downstream;
use crate::core::Core;
use crate::error::{Error, Kind};
use crate::stream::Stream;
use crate::tunnels::{Asking, Dialled, Key};
use crate::upstream::{Held, Purpose};
use crate::wire::Wire;
use crate::{LocalPods, limits};

/// One worker's TLS connections that carry nothing now. The last one used is the first one taken.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    by_key: RefCell<HashMap<Key, Vec<Idle>, foldhash::fast::RandomState>>,
}

#[derive(Debug)]
struct Idle {
    io: Wire,
    home: Box<Home>,
    since: Instant,
}

/// What a TLS connection is known by, whoever uses it.
#[derive(Debug)]
pub(crate) struct Home {
    core: Rc<Core>,
    _held: Held,
    key: Key,
    security: Security,
    local_address: Option<SocketAddr>,
    /// By which certificate it was made; with another, others are made.
    tls: Arc<Tls>,
}

impl Home {
    /// Keeps a connection whose use has ended.
    pub(super) fn keep(self: Box<Self>, io: Wire) {
        let core = Rc::clone(&self.core);
        core.tunnels.lean().put(Idle { io, home: self, since: Instant::now() });
    }
}

impl Kept {
    /// Opens a connection through a TLS connection that stands; `None`: there is none.
    pub(crate) async fn connect(
        &self,
        key: &Key,
        tls: &Arc<Tls>,
        asking: Asking,
    ) -> Result<Option<(Stream, Security)>, Error> {
        while let Some(Idle { io, home, .. }) = self.take(key, tls) {
            match ask(io, home, asking).await {
                Asked::Opened(stream, security) => return Ok(Some((stream, security))),
                Asked::Refused(error) => return Err(error),
                // It was closing, and nothing has reached the other end.
                Asked::Broken(_) => {}
            }
        }
        Ok(None)
    }

    fn take(&self, key: &Key, tls: &Arc<Tls>) -> Option<Idle> {
        let mut by_key = self.by_key.borrow_mut();
        let idle = by_key.get_mut(key)?;
        while let Some(mut last) = idle.pop() {
            if Arc::ptr_eq(&last.home.tls, tls) && is_quiet(&mut last.io) {
                return Some(last);
            }
        }
        None
    }

    fn put(&self, idle: Idle) {
        let mut by_key = self.by_key.borrow_mut();
        let kept = by_key.entry(idle.home.key.clone()).or_default();
        if kept.len() < limits::POOL_IDLE_PER_KEY {
            kept.push(idle);
        }
    }

    /// Closes what has carried nothing for longer than `limit`, and what belongs to a pod that has left.
    pub(crate) fn sweep(&self, limit: Duration, pods: &LocalPods) {
        let now = Instant::now();
        let enrolled: HashSet<u64> = pods.values().map(|pod| pod.cookie).collect();
        self.by_key.borrow_mut().retain(|key, idle| {
            idle.retain_mut(|idle| {
                enrolled.contains(&key.pod) && now - idle.since < limit && is_quiet(&mut idle.io)
            });
            !idle.is_empty()
        });
    }

    /// Keeps what is wanted still.
    pub(crate) fn retain(&self, wanted: impl Fn(&Key) -> bool) {
        self.by_key.borrow_mut().retain(|key, _| wanted(key));
    }

    /// Closes what a pod that leaves the mesh has kept.
    pub(crate) fn release(&self, pod: &LocalPod) {
        self.by_key.borrow_mut().retain(|key, _| key.pod != pod.cookie);
    }
}

/// Nothing has come on it, not even its end: whoever keeps quiet is still there, as far as can be known.
fn is_quiet(io: &mut Wire) -> bool {
    let mut byte = [0];
    let mut buffer = ReadBuf::new(&mut byte);
    let read = Pin::new(io).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer);
    matches!(read, Poll::Pending)
}

/// Opens a connection through a TLS connection that is new.
pub(crate) async fn open(
    down: &Rc<Downstream>,
    key: &Key,
    dialled: Dialled,
    asking: Asking,
) -> Result<(Stream, Security), Error> {
    let home = Home {
        core: Rc::clone(&down.core),
        _held: dialled.held,
        key: key.clone(),
        security: dialled.security,
        local_address: dialled.local_address,
        tls: dialled.tls,
    };
    match ask(dialled.stream, Box::new(home), asking).await {
        Asked::Opened(stream, security) => Ok((stream, security)),
        Asked::Refused(error) => Err(error),
        Asked::Broken(error) => Err(Error::new(Kind::ConnectFailure, error)),
    }
}

enum Asked {
    Opened(Stream, Security),
    Refused(Error),
    Broken(std::io::Error),
}

/// Asks for a connection. Dropping the future takes it back.
async fn ask(mut io: Wire, home: Box<Home>, asking: Asking) -> Asked {
    let Asking { address: to, purpose } = asking;
    let words = words::write(to, matches!(purpose, Purpose::Requests { .. }));
    let asked = async {
        say(&mut io, Frame::Open, words.as_bytes()).await?;
        hear(&mut io, Frame::Answer).await
    };
    let status = match asked.await {
        Ok(Some(status)) => status,
        Ok(None) => return Asked::Broken(std::io::ErrorKind::ConnectionReset.into()),
        Err(error) => return Asked::Broken(error),
    };
    match &*status {
        b"200" => {
            let (security, local_address) = (home.security.clone(), home.local_address);
            Asked::Opened(Leg::new(io, local_address, Next::Kept(home)).into(), security)
        }
        other => {
            home.keep(io);
            Asked::Refused(match other {
                b"401" => Error::refused(Kind::Denied, Refusal::Elsewhere),
                b"503" => Error::new(Kind::ConnectFailure, format!("the node of {to} cannot connect to it")),
                other => {
                    let status = String::from_utf8_lossy(other);
                    Error::new(Kind::ConnectFailure, format!("the node of {to} answered {status}"))
                }
            })
        }
    }
}
