//! A connection of bytes: routed by the TCP rules, dialled, relayed and reported.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use tokio::net::TcpStream;
use weft_rules::cluster::InUse;
use weft_rules::snapshot::Unroutable;
use weft_rules::tcp_route::TcpDecision;
use weft_rules::workload::Workload;

use super::connection::Downstream;
use super::error::{Error, Kind, Retry};
use super::limits;
use super::pool::Pool;
use super::relay::{self, Ahead, Totals};
use super::upstream::{self, Connection};
use super::worker::Core;
use crate::datapath::LocalPod;
use crate::telemetry::{self, ResponseFlag, TcpEvent, TcpRecord};

/// Envoy's name for traffic to an address that no service has.
const PASSTHROUGH_CLUSTER: &str = "PassthroughCluster";
/// Envoy's name for traffic that goes to where the client sent it.
const INBOUND_PASSTHROUGH_CLUSTER: &str = "InboundPassthroughCluster";

/// A connection that stands, and where it leads.
#[derive(Debug)]
pub(super) struct Upstream {
    /// The connection.
    pub(super) connection: Connection,
    route: Route,
    in_use: Option<InUse>,
}

/// Where a connection goes, as far as it is known.
#[derive(Debug, Default)]
struct Route {
    upstream: telemetry::Upstream,
    virtual_service: Option<Arc<str>>,
}

/// Serves a connection to a port declared as TCP.
pub(super) async fn serve(down: &Rc<Downstream>, stream: TcpStream) {
    serve_detected(down, stream, Bytes::new(), None).await;
}

/// Serves a connection that turned out to be bytes: `first` has been read from it, `upstream` may stand already.
pub(super) async fn serve_detected(
    down: &Rc<Downstream>,
    stream: TcpStream,
    first: Bytes,
    upstream: Option<Upstream>,
) {
    let caller = down.decide(|_, caller| Arc::clone(caller));
    let mut life = Life::new(Some(caller), down.peer, down.dialled, false);
    let opened = match upstream {
        Some(upstream) => Ok(upstream),
        None => dial_reporting(down, &mut life.route).await,
    };
    match opened {
        Ok(upstream) => {
            life.route = upstream.route;
            life.report(&down.core, TcpEvent::Opened, Totals::default(), None);
            let Connection { stream: server, pod } = upstream.connection;
            let totals = relay::run(stream, server, Ahead { received: first, ..Ahead::default() }).await;
            drop((pod, upstream.in_use));
            life.report(&down.core, TcpEvent::Closed, totals, None);
        }
        Err(error) => {
            relay::reset(&stream);
            life.report(&down.core, TcpEvent::Closed, Totals::default(), Some(&error));
        }
    }
}

/// Serves a connection from outside to a program in `pod`.
pub(super) async fn serve_inbound(
    core: &Rc<Core>,
    pod: &LocalPod,
    stream: TcpStream,
    peer: SocketAddr,
    dialled: SocketAddr,
) {
    let (caller, workload) = {
        let snapshot = core.shared.snapshot.load();
        let at = |address: SocketAddr| snapshot.workload_at(address.ip().to_canonical()).map(Arc::clone);
        (at(peer), at(dialled))
    };
    let mut life = Life::new(caller, peer, dialled, true);
    life.route.upstream.cluster = Some(INBOUND_PASSTHROUGH_CLUSTER.into());
    life.route.upstream.address = Some(dialled);
    life.route.upstream.workload = workload;
    match upstream::connect_inside(pod, peer, dialled, limits::CONNECT_TIMEOUT).await {
        Ok(upstream) => {
            life.route.upstream.local_address = upstream.local_addr().ok();
            life.report(core, TcpEvent::Opened, Totals::default(), None);
            let totals = relay::run(stream, upstream, Ahead::default()).await;
            life.report(core, TcpEvent::Closed, totals, None);
        }
        Err(error) => {
            relay::reset(&stream);
            life.report(core, TcpEvent::Closed, Totals::default(), Some(&error));
        }
    }
}

/// Routes and dials, trying other endpoints where one cannot be reached.
pub(super) async fn dial(down: &Rc<Downstream>) -> Result<Upstream, Error> {
    dial_reporting(down, &mut Route::default()).await
}

/// As [`dial`]; leaves in `route` how far a failure got.
async fn dial_reporting(down: &Rc<Downstream>, route: &mut Route) -> Result<Upstream, Error> {
    let mut tried = Vec::new();
    loop {
        let (timeout, in_use) = choose(down, &tried, route)?;
        let address = in_use.as_ref().map_or(down.dialled, |in_use| in_use.endpoint.address);
        route.upstream.address = Some(address);
        route.upstream.workload = match &in_use {
            Some(in_use) => in_use.endpoint.workload.clone(),
            None => {
                down.decide(|snapshot, _| snapshot.workload_at(address.ip().to_canonical()).map(Arc::clone))
            }
        };
        match upstream::connect(down, address, timeout).await {
            Ok(connection) => {
                route.upstream.local_address = connection.stream.local_addr().ok();
                return Ok(Upstream { connection, route: std::mem::take(route), in_use });
            }
            Err(error) => {
                tried.push(address);
                if in_use.is_none()
                    || tried.len() == limits::TCP_ATTEMPTS
                    || error.kind.retry() != Retry::Safe
                {
                    return Err(error);
                }
            }
        }
    }
}

/// Decides on a connect timeout and an endpoint; no endpoint: the address that was dialled.
fn choose(
    down: &Downstream,
    tried: &[SocketAddr],
    route: &mut Route,
) -> Result<(std::time::Duration, Option<InUse>), Error> {
    down.decide(|snapshot, caller| match snapshot.route_tcp(caller, down.dialled, fastrand::u64(..)) {
        TcpDecision::Forward { destination, virtual_service } => {
            route.virtual_service = virtual_service;
            let cluster = snapshot
                .cluster(caller, &destination, down.dialled.port())
                .map_err(|error: Unroutable| Error::new(Kind::NoCluster, error))?;
            route.upstream.service = Some(Arc::clone(&cluster.service));
            route.upstream.cluster = Some(Arc::clone(&cluster.name));
            let in_use = cluster
                .pick(down.dialled, tried, fastrand::u64(..))
                .ok_or(Error::from(Kind::NoHealthyUpstream))?;
            Ok((cluster.connect_timeout, Some(in_use)))
        }
        TcpDecision::Passthrough => {
            route.upstream.cluster = Some(PASSTHROUGH_CLUSTER.into());
            Ok((limits::CONNECT_TIMEOUT, None))
        }
        TcpDecision::NoRoute => Err(Kind::NoRoute.into()),
        TcpDecision::BlackHole => Err(Kind::BlackHole.into()),
    })
}

/// Keeps a connection that was opened for a silent client, which then spoke HTTP: a request may use it.
pub(super) fn keep_for_http(down: &Rc<Downstream>, upstream: Option<Upstream>) {
    if let Some(Upstream { connection, route, in_use: _ }) = upstream
        && let Some(address) = route.upstream.address
    {
        Pool::adopt(down, address, connection);
    }
}

/// A connection's record, from its beginning to its end.
#[derive(Debug)]
struct Life {
    started: SystemTime,
    begun: Instant,
    source: Option<Arc<Workload>>,
    downstream: SocketAddr,
    dialled: SocketAddr,
    inbound: bool,
    route: Route,
}

impl Life {
    fn new(
        source: Option<Arc<Workload>>,
        downstream: SocketAddr,
        dialled: SocketAddr,
        inbound: bool,
    ) -> Self {
        Self {
            started: SystemTime::now(),
            begun: Instant::now(),
            source,
            downstream,
            dialled,
            inbound,
            route: Route::default(),
        }
    }

    fn report(&self, core: &Core, event: TcpEvent, totals: Totals, failed: Option<&Error>) {
        if let Some(error) = failed {
            let (peer, dialled, side) = (self.downstream, self.dialled, error.kind.side());
            tracing::debug!(%peer, %dialled, %error, ?side, "connection failed");
        }
        let flag: Option<ResponseFlag> = failed.and_then(|error| error.kind.flag());
        core.recorder.tcp(&TcpRecord {
            event,
            inbound: self.inbound,
            started: self.started,
            source: self.source.as_ref(),
            downstream: self.downstream,
            dialled: self.dialled,
            upstream: &self.route.upstream,
            flags: flag.as_slice(),
            upstream_failure: failed.and_then(Error::cause).as_deref(),
            virtual_service: self.route.virtual_service.as_deref(),
            received_bytes: totals.received,
            sent_bytes: totals.sent,
            duration: self.begun.elapsed(),
        });
    }
}
