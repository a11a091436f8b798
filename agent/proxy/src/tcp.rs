//! A connection of bytes: routed by the TCP rules, dialled, relayed and reported.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use weft_rules::route::tcp_route::TcpDecision;
use weft_rules::snapshot::Unroutable;
use weft_rules::upstream::cluster::InUse;
use weft_rules::workload::Workload;
use weft_telemetry::{ResponseFlag, TcpEvent, TcpRecord};

use super::connection::Downstream;
use super::error::{Error, Kind, Retry};
use super::first_bytes::FirstLine;
use super::inbound;
use super::limits;
use super::pool::Pool;
use super::relay::{self, Ahead, Totals};
use super::standing::{self, Activity};
use super::stream::Stream;
use super::upstream::{self, Connection, Purpose, Towards};

/// Envoy's name for traffic to an address, or a host, that no service has.
pub(super) const PASSTHROUGH_CLUSTER: &str = "PassthroughCluster";
/// Envoy's name for traffic that goes to where the client sent it.
const INBOUND_PASSTHROUGH_CLUSTER: &str = "InboundPassthroughCluster";

/// A connection that stands, and where it leads.
#[derive(Debug)]
pub(super) struct Upstream {
    /// The connection.
    pub(super) connection: Connection,
    to: Towards,
    route: Route,
    in_use: Option<InUse>,
}

impl Upstream {
    /// Ends it as its client's connection has ended: by a reset.
    pub(super) fn reset(self) {
        self.connection.stream.reset();
    }
}

/// Where a connection goes, as far as it is known.
#[derive(Debug, Default, Clone)]
struct Route {
    upstream: weft_telemetry::Upstream,
    virtual_service: Option<Arc<str>>,
}

/// Serves a connection that is declared to be bytes; `first` has been read from it.
pub(super) async fn serve(down: &Rc<Downstream>, stream: Stream, first: Bytes) {
    let mut life = Life::new(down);
    let opened = dial_reporting(down, Purpose::Bytes { detected: false }, &mut life.route).await;
    relay_reporting(life, stream, Ahead { received: first, ..Ahead::default() }, opened).await;
}

/// Serves a connection that turned out to be bytes: `first` has been read from it, `upstream` may stand already. It ends where
/// `line`, the line that they begin, goes on to be a request's.
pub(super) async fn serve_detected(
    down: &Rc<Downstream>,
    stream: Stream,
    first: Bytes,
    line: Option<FirstLine>,
    upstream: Option<Box<Upstream>>,
) {
    relay(Life::new(down), stream, Ahead { received: first, line, ..Ahead::default() }, upstream).await;
}

/// Serves a connection of the node's own that asks whether somebody is there, and says nothing, or what is in TLS.
pub(super) async fn serve_probe(
    down: &Rc<Downstream>,
    stream: Stream,
    first: Bytes,
    upstream: Option<Box<Upstream>>,
) {
    let mut life = Life::new(down);
    life.probe = true;
    if !first.is_empty() {
        let ahead = Ahead { received: first, ..Ahead::default() };
        return relay(life, stream, ahead, upstream).await;
    }
    // Nobody listens to what the program may have to say.
    let opened = match upstream {
        Some(upstream) => Ok(upstream),
        None => dial_reporting(down, Purpose::Bytes { detected: true }, &mut life.route).await,
    };
    if let Ok(upstream) = &opened {
        life.route = upstream.route.clone();
    }
    life.report(TcpEvent::Closed, Totals::default(), opened.as_ref().err());
}

async fn relay(mut life: Life<'_>, stream: Stream, ahead: Ahead, upstream: Option<Box<Upstream>>) {
    let down = life.down;
    let opened = match upstream {
        Some(upstream) => Ok(upstream),
        None => dial_reporting(down, Purpose::Bytes { detected: true }, &mut life.route).await,
    };
    relay_reporting(life, stream, ahead, opened).await;
}

async fn relay_reporting(
    mut life: Life<'_>,
    stream: Stream,
    ahead: Ahead,
    opened: Result<Box<Upstream>, Error>,
) {
    let down = life.down;
    match opened {
        Ok(upstream) => {
            life.route = upstream.route;
            let destination = upstream.connection.arrived.as_ref();
            let dry_runs = [Some(down), destination].into_iter().flatten();
            life.route.upstream.dry_runs = dry_runs.flat_map(|down| inbound::dry_runs(down)).collect();
            life.report(TcpEvent::Opened, Totals::default(), None);
            let Connection { stream: server, pod, arrived, .. } = upstream.connection;
            let (activity, mut revoked) = (Activity::default(), None);
            let end = async {
                // What comes in by a gateway to a pod of this node has to be let in by both.
                revoked = tokio::select! {
                    why = standing::revoked(Some(down), &activity) => why,
                    why = standing::revoked(arrived.as_ref(), &activity) => why,
                };
            };
            let totals = relay::run(stream, server, ahead, &activity, Some(&down.account), end).await;
            drop((pod, upstream.in_use));
            let failed = revoked.or_else(|| {
                let why = "a request line was cut in two so that nobody would read the request";
                totals.turned.then(|| Error::new(Kind::BadRequest, why))
            });
            life.report(TcpEvent::Closed, totals, failed.as_ref());
        }
        Err(error) => {
            stream.reset();
            life.report(TcpEvent::Closed, Totals::default(), Some(&error));
        }
    }
}

/// Reports a connection that arrived and got no further.
pub(super) fn report_refused(down: &Rc<Downstream>, error: &Error) {
    let mut life = Life::new(down);
    life.route.upstream.address = Some(down.dialled);
    life.route.upstream.workload =
        down.decide(|snapshot, _| snapshot.workload_at(down.dialled.ip().to_canonical()).map(Arc::clone));
    life.route.upstream.service = down.service_here();
    life.route.upstream.security = down.visitor().map(|caller| caller.security.clone()).unwrap_or_default();
    life.report(TcpEvent::Closed, Totals::default(), Some(error));
}

/// Routes and dials for a connection of which it is being found out what it speaks, trying other endpoints where one cannot
/// be reached.
pub(super) async fn dial(down: &Rc<Downstream>) -> Result<Box<Upstream>, Error> {
    dial_reporting(down, Purpose::Bytes { detected: true }, &mut Route::default()).await
}

/// As [`dial`]; leaves in `route` how far a failure got.
async fn dial_reporting(
    down: &Rc<Downstream>,
    purpose: Purpose,
    route: &mut Route,
) -> Result<Box<Upstream>, Error> {
    let mut tried = Vec::new();
    loop {
        let (to, in_use) = choose(down, &tried, route)?;
        let address = to.address;
        route.upstream.address = Some(address);
        route.upstream.workload = match &in_use {
            Some(in_use) => in_use.endpoint.workload.clone(),
            None => {
                down.decide(|snapshot, _| snapshot.workload_at(address.ip().to_canonical()).map(Arc::clone))
            }
        };
        match upstream::connect(down, &to, purpose).await {
            Ok(connection) => {
                route.upstream.local_address = connection.stream.local_addr();
                route.upstream.security = connection.security.clone();
                return Ok(Box::new(Upstream { connection, to, route: std::mem::take(route), in_use }));
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

/// Decides where to go; not to an endpoint of a service: to the address that was dialled.
fn choose(
    down: &Downstream,
    tried: &[SocketAddr],
    route: &mut Route,
) -> Result<(Towards, Option<InUse>), Error> {
    let as_dialled = Towards::address(down.dialled);
    if down.is_inbound() {
        route.upstream.cluster = Some(INBOUND_PASSTHROUGH_CLUSTER.into());
        route.upstream.service = down.service_here();
        return Ok((as_dialled, None));
    }
    match down.route_tcp(fastrand::u64(..)) {
        TcpDecision::Forward { destination, virtual_service } => {
            route.virtual_service = virtual_service;
            let cluster =
                down.cluster(&destination).map_err(|error: Unroutable| Error::new(Kind::NoCluster, error))?;
            route.upstream.service = Some(Arc::clone(&cluster.service));
            route.upstream.cluster = Some(Arc::clone(&cluster.name));
            let in_use = cluster
                .pick(down.dialled, tried, fastrand::u64(..))
                .ok_or(Error::from(Kind::NoHealthyUpstream))?;
            Ok((Towards::endpoint(&cluster, in_use.endpoint.address), Some(in_use)))
        }
        TcpDecision::Passthrough => {
            route.upstream.cluster = Some(PASSTHROUGH_CLUSTER.into());
            Ok((as_dialled, None))
        }
        TcpDecision::NoRoute => Err(Kind::NoRoute.into()),
        TcpDecision::BlackHole => Err(Kind::BlackHole.into()),
    }
}

/// Keeps a connection that was opened for a silent client, which then spoke HTTP: a request may use it.
pub(super) fn keep_for_http(down: &Rc<Downstream>, upstream: Option<Box<Upstream>>) {
    // What goes through a pipe is admitted at its other end; requests are admitted before.
    if let Some(upstream) = upstream
        && !upstream.connection.stream.is_pipe()
    {
        Pool::adopt(down, &upstream.to, upstream.connection);
    }
}

/// A connection's record, from its beginning to its end.
#[derive(Debug)]
struct Life<'a> {
    down: &'a Rc<Downstream>,
    started: SystemTime,
    begun: Instant,
    source: Option<Arc<Workload>>,
    route: Route,
    /// The node asks for it by the pod's probes.
    probe: bool,
}

impl<'a> Life<'a> {
    fn new(down: &'a Rc<Downstream>) -> Self {
        Self {
            down,
            started: SystemTime::now(),
            begun: Instant::now(),
            source: down.source(),
            route: Route::default(),
            probe: false,
        }
    }

    fn report(&mut self, event: TcpEvent, totals: Totals, failed: Option<&Error>) {
        let down = self.down;
        if let Some(error) = failed {
            let (peer, dialled, side) = (down.peer, down.dialled, error.kind.side());
            tracing::debug!(%peer, %dialled, %error, ?side, "connection failed");
        }
        self.route.upstream.probe = self.probe;
        self.route.upstream.refused = failed.and_then(Error::refusal).cloned().map(Box::new);
        let flag: Option<ResponseFlag> = failed.and_then(|error| error.kind.flag());
        down.core.recorder.tcp(&TcpRecord {
            event,
            inbound: down.is_inbound(),
            started: self.started,
            source: self.source.as_ref(),
            downstream: down.peer,
            dialled: down.dialled,
            upstream: &self.route.upstream,
            flags: flag.as_slice(),
            upstream_failure: failed.and_then(Error::cause).as_deref(),
            virtual_service: self.route.virtual_service.as_deref(),
            server_name: down.server_name(),
            received_bytes: totals.received,
            sent_bytes: totals.sent,
            duration: self.begun.elapsed(),
        });
    }
}
