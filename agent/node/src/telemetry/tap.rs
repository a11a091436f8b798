//! `weft tap`: events for whoever listens. Costs one load per event while nobody does.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use weft_api::admin::{HttpTap, Peer, TapEvent, TapFilter, TapRecord, TcpState, TcpTap, Verdict};
use weft_rules::workload::Workload;

use super::access_log::{Clock, protocol};
use super::flags::{FlagSet, ResponseFlag};
use super::record::{HttpRecord, TcpEvent, TcpRecord, Upstream};
use super::security::{Refusal, Security};

/// Events that wait for one slow reader; later ones are left out, and counted.
const QUEUE_EVENTS: usize = 1_024;

/// Who listens.
#[derive(Debug)]
pub struct Taps {
    listening: AtomicUsize,
    subscribers: ArcSwap<Vec<Arc<Subscriber>>>,
    /// Held while the list of subscribers is changed.
    changing: Mutex<()>,
    left_out: AtomicU64,
}

#[derive(Debug)]
struct Subscriber {
    filter: TapFilter,
    queue: mpsc::Sender<Arc<TapEvent>>,
    left_out: AtomicU64,
}

/// One listener's end. Dropping it ends the tap.
#[derive(Debug)]
pub struct Subscription {
    taps: Arc<Taps>,
    subscriber: Arc<Subscriber>,
    queue: mpsc::Receiver<Arc<TapEvent>>,
    next: Option<Arc<TapEvent>>,
}

impl Subscription {
    /// The next event, if there is one already.
    pub fn ready(&mut self) -> Option<Arc<TapEvent>> {
        self.next.take().or_else(|| self.queue.try_recv().ok())
    }

    /// Waits for the next event. A gap is told where it was. Nothing is lost when the wait is given up.
    pub async fn next(&mut self) -> Arc<TapEvent> {
        if self.next.is_none() {
            self.next = self.queue.recv().await;
        }
        let count = self.subscriber.left_out.swap(0, Ordering::Relaxed);
        if count > 0 {
            return Arc::new(TapEvent::LeftOut { count });
        }
        // The queue ends only with the subscription, which holds a sender itself.
        self.next.take().unwrap_or_else(|| Arc::new(TapEvent::LeftOut { count: 0 }))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.taps.change(|list| list.retain(|one| !Arc::ptr_eq(one, &self.subscriber)));
    }
}

impl Taps {
    /// Nobody listens yet.
    pub fn new() -> Self {
        Self {
            listening: AtomicUsize::new(0),
            subscribers: ArcSwap::default(),
            changing: Mutex::default(),
            left_out: AtomicU64::new(0),
        }
    }

    /// Whether anybody listens.
    pub fn wanted(&self) -> bool {
        self.listening.load(Ordering::Relaxed) > 0
    }

    /// How many listen.
    pub fn listening(&self) -> usize {
        self.listening.load(Ordering::Relaxed)
    }

    /// Events that some listener missed, ever.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// Adds a listener.
    pub fn subscribe(self: &Arc<Self>, filter: TapFilter) -> Subscription {
        let (sender, queue) = mpsc::channel(QUEUE_EVENTS);
        let subscriber = Arc::new(Subscriber { filter, queue: sender, left_out: AtomicU64::new(0) });
        self.change(|list| list.push(subscriber.clone()));
        Subscription { taps: self.clone(), subscriber, queue, next: None }
    }

    fn change(&self, edit: impl FnOnce(&mut Vec<Arc<Subscriber>>)) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list = Vec::clone(&self.subscribers.load());
        edit(&mut list);
        self.listening.store(list.len(), Ordering::Relaxed);
        self.subscribers.store(Arc::new(list));
    }

    fn send(&self, event: TapEvent) {
        let event = Arc::new(event);
        for subscriber in self.subscribers.load().iter() {
            if subscriber.filter.matches(&event) && subscriber.queue.try_send(event.clone()).is_err() {
                subscriber.left_out.fetch_add(1, Ordering::Relaxed);
                self.left_out.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Shows a request.
    pub fn http(&self, record: &HttpRecord<'_>) {
        let flags = FlagSet::from(record.flags);
        let header = |value: Option<&http::HeaderValue>| {
            value.map_or_else(String::new, |value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        self.send(TapEvent::Http(TapRecord {
            time: Clock::default().format(record.started).to_string(),
            reporter: reporter(record.inbound),
            source: source(record.source, record.downstream, record.upstream),
            destination: destination(record.source, record.dialled, record.upstream),
            verdict: verdict(record.upstream, flags, record.status),
            flags: flags.to_string(),
            policy: denying(record.upstream),
            connection_security_policy: security(record.upstream),
            duration_ms: record.duration.as_secs_f64() * 1_000.0,
            request_bytes: record.request_bytes,
            response_bytes: record.response_bytes,
            detail: HttpTap {
                protocol: protocol(record.version).to_owned(),
                method: record.method.to_string(),
                authority: record.authority.to_owned(),
                path: record.path.to_owned(),
                status: record.status,
                grpc_status: record.grpc_status,
                virtual_service: record.virtual_service.unwrap_or_default().to_owned(),
                route: record.route.unwrap_or_default().to_owned(),
                subset: subset(record.upstream),
                attempts: record.attempts,
                request_id: header(record.request_id),
                user_agent: header(record.user_agent),
            },
        }));
    }

    /// Shows a connection.
    pub fn tcp(&self, record: &TcpRecord<'_>) {
        let flags = FlagSet::from(record.flags);
        self.send(TapEvent::Tcp(TapRecord {
            time: Clock::default().format(record.started).to_string(),
            reporter: reporter(record.inbound),
            source: source(record.source, record.downstream, record.upstream),
            destination: destination(record.source, record.dialled, record.upstream),
            verdict: verdict(record.upstream, flags, 0),
            flags: flags.to_string(),
            policy: denying(record.upstream),
            connection_security_policy: security(record.upstream),
            duration_ms: record.duration.as_secs_f64() * 1_000.0,
            request_bytes: record.received_bytes,
            response_bytes: record.sent_bytes,
            detail: TcpTap {
                state: match record.event {
                    TcpEvent::Opened => TcpState::Opened,
                    TcpEvent::Closed => TcpState::Closed,
                },
                dialled: Some(record.dialled),
            },
        }));
    }
}

fn reporter(inbound: bool) -> String {
    if inbound { "destination" } else { "source" }.to_owned()
}

fn security(upstream: &Upstream) -> String {
    match upstream.security {
        Security::SameNode { .. } | Security::MutualTls(_) => "mutual_tls",
        Security::Plaintext(_) => "none",
        Security::Unknown => "unknown",
    }
    .to_owned()
}

fn denying(upstream: &Upstream) -> String {
    upstream.refused.as_deref().and_then(Refusal::policy).unwrap_or_default().to_owned()
}

fn peer(workload: Option<&Arc<Workload>>, address: Option<SocketAddr>) -> Peer {
    let Some(workload) = workload else { return Peer { address, ..Peer::default() } };
    Peer {
        namespace: workload.namespace.to_string(),
        pod: workload.name.to_string(),
        workload: workload.workload_name.to_string(),
        service: String::new(),
        address,
        identity: String::new(),
        labels: (*workload.labels).clone(),
    }
}

fn source(workload: Option<&Arc<Workload>>, downstream: SocketAddr, upstream: &Upstream) -> Peer {
    let [identity, _] = upstream.principals(workload);
    Peer { identity, ..peer(workload, Some(downstream)) }
}

fn destination(caller: Option<&Arc<Workload>>, dialled: SocketAddr, upstream: &Upstream) -> Peer {
    let mut peer = peer(upstream.workload.as_ref(), Some(upstream.address.unwrap_or(dialled)));
    [_, peer.identity] = upstream.principals(caller);
    if let Some(service) = &upstream.service {
        peer.service = service.host.to_string();
        if peer.namespace.is_empty() {
            peer.namespace = service.namespace.to_string();
        }
    }
    peer
}

/// The third part of Envoy's cluster name: `outbound|80|v1|host`.
fn subset(upstream: &Upstream) -> String {
    upstream.cluster.as_deref().and_then(|name| name.split('|').nth(2)).unwrap_or_default().to_owned()
}

fn verdict(upstream: &Upstream, flags: FlagSet, status: u16) -> Verdict {
    const FAILED: [ResponseFlag; 9] = [
        ResponseFlag::NoHealthyUpstream,
        ResponseFlag::UpstreamConnectionFailure,
        ResponseFlag::UpstreamRequestTimeout,
        ResponseFlag::UpstreamConnectionTermination,
        ResponseFlag::UpstreamRemoteReset,
        ResponseFlag::UpstreamRetryLimitExceeded,
        ResponseFlag::NoClusterFound,
        ResponseFlag::DownstreamProtocolError,
        ResponseFlag::UpstreamProtocolError,
    ];
    if upstream.refused.is_some() {
        Verdict::Denied
    } else if flags.has_any(&FAILED) {
        Verdict::Failed
    } else if flags.has_any(&[ResponseFlag::FaultInjected, ResponseFlag::NoRouteFound])
        || (upstream.address.is_none() && status != 0)
    {
        Verdict::Answered
    } else {
        Verdict::Forwarded
    }
}
