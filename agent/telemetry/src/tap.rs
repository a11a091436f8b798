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
use super::shares::{Share, Shares};

/// Events that wait for one slow reader; later ones are left out, and counted.
const QUEUE_EVENTS: usize = 4_096;
/// Bytes of them.
const QUEUE_BYTES: usize = 4 << 20;
/// What an event takes beside what its caller chose.
const EVENT_BYTES: usize = 1_024;
/// What is shown of a text that a caller chose.
const TEXT_BYTES: usize = 2_048;
/// Taps at a time.
const TAPS: usize = 16;

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
    queue: mpsc::Sender<Waiting>,
    shares: Shares,
    left_out: AtomicU64,
}

#[derive(Debug)]
struct Waiting {
    event: Arc<TapEvent>,
    share: Share,
}

/// One listener's end. Dropping it ends the tap.
#[derive(Debug)]
pub struct Subscription {
    taps: Arc<Taps>,
    subscriber: Arc<Subscriber>,
    queue: mpsc::Receiver<Waiting>,
    next: Option<Arc<TapEvent>>,
}

impl Subscription {
    /// The next event, if there is one already.
    pub fn ready(&mut self) -> Option<Arc<TapEvent>> {
        self.next.take().or_else(|| self.queue.try_recv().ok().map(|waiting| self.taken(waiting)))
    }

    fn taken(&self, Waiting { event, share }: Waiting) -> Arc<TapEvent> {
        self.subscriber.shares.give_back(&share);
        event
    }

    /// Waits for the next event. A gap is told where it was. Nothing is lost when the wait is given up.
    pub async fn next(&mut self) -> Arc<TapEvent> {
        if self.next.is_none() {
            self.next = self.queue.recv().await.map(|waiting| self.taken(waiting));
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

    /// Adds a listener; `None`: there are too many.
    pub fn subscribe(self: &Arc<Self>, filter: TapFilter) -> Option<Subscription> {
        let (sender, queue) = mpsc::channel(QUEUE_EVENTS);
        let shares = Shares::new(QUEUE_BYTES);
        let subscriber = Arc::new(Subscriber { filter, queue: sender, shares, left_out: AtomicU64::new(0) });
        let mut room = false;
        self.change(|list| {
            room = list.len() < TAPS;
            if room {
                list.push(subscriber.clone());
            }
        });
        room.then(|| Subscription { taps: self.clone(), subscriber, queue, next: None })
    }

    fn change(&self, edit: impl FnOnce(&mut Vec<Arc<Subscriber>>)) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list = Vec::clone(&self.subscribers.load());
        edit(&mut list);
        self.listening.store(list.len(), Ordering::Relaxed);
        self.subscribers.store(Arc::new(list));
    }

    fn send(&self, event: TapEvent, pod: Option<&Arc<Workload>>) {
        let event = Arc::new(event);
        let size = size(&event);
        for subscriber in self.subscribers.load().iter() {
            if !subscriber.filter.matches(&event) {
                continue;
            }
            let sent = subscriber.shares.take(pod, size).is_some_and(|share| {
                let waiting = Waiting { event: event.clone(), share };
                subscriber
                    .queue
                    .try_send(waiting)
                    .map_err(|refused| subscriber.shares.give_back(&refused.into_inner().share))
                    .is_ok()
            });
            if !sent {
                subscriber.left_out.fetch_add(1, Ordering::Relaxed);
                self.left_out.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Shows a request.
    pub fn http(&self, record: &HttpRecord<'_>) {
        let flags = FlagSet::from(record.flags);
        let header = |value: Option<&http::HeaderValue>| {
            value.map_or_else(String::new, |value| cut(&String::from_utf8_lossy(value.as_bytes())))
        };
        let event = TapEvent::Http(TapRecord {
            time: Clock::default().format(record.started).to_string(),
            reporter: reporter(record.inbound),
            source: source(record.source, record.downstream, record.upstream),
            destination: destination(record.source, record.dialled, record.upstream),
            verdict: verdict(record.upstream, flags, record.status),
            flags: flags.to_string(),
            policy: denying(record.upstream),
            would_deny: would_deny(record.upstream),
            connection_security_policy: security(record.upstream),
            probe: record.upstream.probe,
            duration_ms: record.duration.as_secs_f64() * 1_000.0,
            request_bytes: record.request_bytes,
            response_bytes: record.response_bytes,
            detail: HttpTap {
                protocol: protocol(record.version).to_owned(),
                method: cut(record.method.as_str()),
                authority: cut(record.authority),
                path: cut(record.path),
                status: record.status,
                grpc_status: record.grpc_status,
                virtual_service: record.virtual_service.unwrap_or_default().to_owned(),
                route: record.route.unwrap_or_default().to_owned(),
                subset: subset(record.upstream),
                attempts: record.attempts,
                mirrored: record.mirrored,
                request_id: header(record.request_id),
                user_agent: header(record.user_agent),
            },
        });
        self.send(event, record.pod());
    }

    /// Shows a connection.
    pub fn tcp(&self, record: &TcpRecord<'_>) {
        let flags = FlagSet::from(record.flags);
        let event = TapEvent::Tcp(TapRecord {
            time: Clock::default().format(record.started).to_string(),
            reporter: reporter(record.inbound),
            source: source(record.source, record.downstream, record.upstream),
            destination: destination(record.source, record.dialled, record.upstream),
            verdict: verdict(record.upstream, flags, 0),
            flags: flags.to_string(),
            policy: denying(record.upstream),
            would_deny: would_deny(record.upstream),
            connection_security_policy: security(record.upstream),
            probe: record.upstream.probe,
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
        });
        self.send(event, record.pod());
    }
}

/// About what an event takes in memory.
fn size(event: &TapEvent) -> usize {
    let TapEvent::Http(TapRecord { detail, .. }) = event else { return EVENT_BYTES };
    let HttpTap { method, authority, path, request_id, user_agent, .. } = detail;
    EVENT_BYTES + method.len() + authority.len() + path.len() + request_id.len() + user_agent.len()
}

/// As much of a text as is shown.
fn cut(text: &str) -> String {
    if text.len() <= TEXT_BYTES {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(TEXT_BYTES)])
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

fn would_deny(upstream: &Upstream) -> Vec<String> {
    upstream.dry_runs.iter().filter(|one| one.denies).map(|one| one.policy.to_string()).collect()
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
