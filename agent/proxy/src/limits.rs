//! Every bound of the proxy, in one place.

use std::time::Duration;

use weft_limits::Cost;

/// What a client's connection costs its account: its task, and what HTTP reads into.
pub(super) const CONNECTION: Cost = Cost { standing: 8 << 10, descriptors: 1 };
/// What TLS that ends at a gateway costs beside its client's connection.
pub(super) const ENDED_TLS: Cost = Cost { standing: 24 << 10, descriptors: 0 };
/// What a request under way costs beside its headers: its task, and its part of both connections.
const REQUEST_BYTES: u32 = 16 << 10;
/// What a request costs whose head is of this size. Headers stay for as long as it does: it may be tried again, and is recorded.
pub(super) fn request(head_bytes: usize) -> Cost {
    let head = u32::try_from(head_bytes).unwrap_or(u32::MAX);
    Cost { standing: REQUEST_BYTES.saturating_add(head), descriptors: 0 }
}
/// What a connection to an endpoint costs whoever it was opened for, also while it is kept for the next request.
pub(super) const UPSTREAM: Cost = Cost { standing: 16 << 10, descriptors: 1 };
/// What a connection between nodes costs: TLS, and the queues of its tunnels.
pub(super) const CARRIER: Cost = Cost { standing: 64 << 10, descriptors: 1 };
/// What one that arrives costs beside a client's connection.
pub(super) const CARRIED: Cost = Cost { standing: 48 << 10, descriptors: 0 };
/// What a tunnel that arrives costs beside the connection that it leads to.
pub(super) const TUNNEL: Cost = Cost { standing: 8 << 10, descriptors: 0 };
/// What two ends within a worker cost.
pub(super) const PIPE: Cost = Cost { standing: 16 << 10, descriptors: 0 };
/// Between two looks whether a pod may have one connection more.
pub(super) const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// Between two looks at all accounts.
pub(super) const ACCOUNTS_TICK: Duration = Duration::from_millis(100);

/// Request or response head, as Envoy's `max_request_headers_kb`; over it the client gets 431. (Header lines are limited to
/// 100 by hyper's default, which is Envoy's too; setting it would cost an allocation for each request.)
pub(super) const HEADER_BYTES: usize = 60 * 1024;
/// What HTTP/2 reads of a head to be able to answer 431; over it the connection ends (ENHANCE_YOUR_CALM).
pub(super) const HTTP2_HEADER_BYTES: u32 = 240 * 1024;
/// What waits to be sent on one HTTP/2 stream. What a stream sends beyond its peer's window, or its peer does not read, stays here.
pub(super) const HTTP2_SEND_BUFFER_BYTES: usize = 128 * 1024;
/// What hyper may buffer for one HTTP/1 message side.
pub(super) const HTTP1_BUFFER_BYTES: usize = 128 * 1024;
/// Streams that one HTTP/2 client may have open.
pub(super) const HTTP2_STREAMS: u32 = 1000;
/// HTTP/2 window of one stream: what a slow reader makes the proxy hold.
pub(super) const HTTP2_STREAM_WINDOW_BYTES: u32 = 512 * 1024;
/// HTTP/2 window of one connection.
pub(super) const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// First bytes kept while it is open what the client speaks.
pub(super) const SNIFF_BYTES: usize = 16 * 1024;
/// A request line longer than this is taken as HTTP once its start looks like it.
pub(super) const SNIFF_LINE_BYTES: usize = 8 * 1024;
/// How much of a first line is looked at that has passed as bytes before it was over: what programs read of a head at the most
/// (Go's megabyte).
pub(super) const FIRST_LINE_BYTES: usize = 1024 * 1024;
/// How long an undeclared port's client may be silent before its endpoint is dialled, in case that one speaks first.
pub(super) const SILENT_CLIENT: Duration = Duration::from_millis(1);
/// How long a silent client is kept when no endpoint of an undeclared port could be dialled: an HTTP client that
/// speaks within it still gets its 503.
pub(super) const SILENT_CLIENT_GRACE: Duration = Duration::from_millis(250);

/// Wait for a connection where no cluster says otherwise (Istio's `connectTimeout`).
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Endpoints tried for one TCP connection.
pub(super) const TCP_ATTEMPTS: usize = 3;

/// Idle upstream connections kept by one worker for one (source pod, endpoint, version).
pub(super) const POOL_IDLE_PER_KEY: usize = 256;
/// Idle upstream connections kept by one worker.
pub(super) const POOL_IDLE: usize = 8192;
/// Age at which an idle upstream connection is closed (Istio's `idleTimeout`).
pub(super) const POOL_IDLE_TIMEOUT: Duration = Duration::from_hours(1);
/// Age at which one is closed that was opened ahead and never used.
pub(super) const POOL_UNUSED_TIMEOUT: Duration = Duration::from_secs(10);
/// How often idle connections are looked through.
pub(super) const POOL_SWEEP: Duration = Duration::from_secs(15);

/// Body bytes kept for a retry, as Envoy's `per_connection_buffer_limit_bytes`; a longer body is not retried.
pub(super) const REPLAY_BYTES: usize = 1024 * 1024;
/// Body bytes queued for a mirror that is slower than the request; beyond, the copy is given up.
pub(super) const MIRROR_BYTES: usize = 1024 * 1024;
/// Mirrored requests under way on one worker; more are left out.
pub(super) const MIRRORS: usize = 1024;
/// How long the copy of a request may take where its route has no timeout.
pub(super) const MIRROR_TIMEOUT: Duration = Duration::from_mins(1);

/// How long `Expect: 100-continue` holds a body back from an endpoint that says nothing (RFC 9110, 10.1.1: a client
/// should not wait indefinitely; curl waits this long).
pub(super) const EXPECT_WAIT: Duration = Duration::from_secs(1);
/// Bytes of interim responses (102, 103) queued for one client.
pub(super) const INTERIM_BYTES: usize = 16 * 1024;

/// How long a pod's listeners stay open after it has left the mesh: for connections that were captured, or whose
/// handshake with a far client had begun, just before.
pub(super) const LAST_ARRIVALS: Duration = Duration::from_secs(1);
/// How long somebody who asks how a gateway is may take, and the buffer for what is said.
pub(super) const HEALTH: Duration = Duration::from_secs(5);
pub(super) const HEALTH_BUFFER_BYTES: usize = 8 * 1024;
/// How often it is looked which programs of a pod that is being ended still listen.
pub(super) const ENDING_LOOK: Duration = Duration::from_millis(100);
/// How long a connection that has to end keeps still before it does.
pub(super) const QUIET: Duration = Duration::from_millis(20);
/// How long such a connection may go on at the longest.
pub(super) const REVOKED: Duration = Duration::from_secs(5);

/// How long a client of HTTP/1.1 that has said all is taken to wait for its answer: one that has gone looks the same.
pub(super) const HALF_CLOSED: Duration = Duration::from_secs(15);
/// The same where not all of its request has been seen: it may have, for the endpoint has not taken all of it.
pub(super) const HALF_ASKED: Duration = Duration::from_secs(1);
/// How long a closed client's last bytes are read, so that a reset does not overtake the answer.
pub(super) const LINGER: Duration = Duration::from_secs(1);
/// How many of them.
pub(super) const LINGER_BYTES: usize = 256 * 1024;

/// How long a peer may take over its TLS handshake, and the beginning of HTTP/2 after it.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes under way at one listener; those beyond wait.
pub(super) const HANDSHAKES: usize = 128;
/// Tunnels that one connection between nodes may carry, as ztunnel has it.
pub(super) const HBONE_STREAMS: u32 = 200;
/// Tunnels that a caller puts on one connection before it opens another, as ztunnel does.
pub(super) const HBONE_STREAMS_USED: usize = 100;
/// Window of one tunnel: ztunnel's 4 MiB.
pub(super) const HBONE_STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Window of one connection between nodes.
pub(super) const HBONE_CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// Largest frame that is taken: ztunnel's 1 MiB.
pub(super) const HBONE_FRAME_BYTES: u32 = 1024 * 1024;
/// Head of a CONNECT: an authority, and what it tells of its caller.
pub(super) const HBONE_HEADER_BYTES: u32 = 16 * 1024;
/// What waits to be sent for one tunnel.
pub(super) const HBONE_SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Bytes in one frame of a tunnel: the other end takes a frame as a whole, and larger ones cost it more than they save.
pub(super) const HBONE_PIECE_BYTES: usize = 48 * 1024;
/// How often a peer is asked whether it is there.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long it may take to say so.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Age at which a connection between nodes that carries nothing is closed.
pub(super) const HBONE_IDLE: Duration = Duration::from_mins(5);
