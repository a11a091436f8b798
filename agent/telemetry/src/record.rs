//! What is reported: a request or a connection that is over.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use weft_rules::guard::DryRun;
use weft_rules::upstream::cluster::Service;
use weft_rules::workload::Workload;

use super::flags::ResponseFlag;
use super::security::{Refusal, Security};

/// Where traffic went, as far as it got.
#[derive(Debug, Clone, Default)]
pub struct Upstream {
    /// The service addressed.
    pub service: Option<Arc<Service>>,
    /// Envoy's name of the cluster: `outbound|80|v1|host`, `PassthroughCluster`, …
    pub cluster: Option<Arc<str>>,
    /// The endpoint.
    pub address: Option<SocketAddr>,
    /// The endpoint's pod, where known.
    pub workload: Option<Arc<Workload>>,
    /// The agent's own address towards the endpoint.
    pub local_address: Option<SocketAddr>,
    /// How the caller and the endpoint knew each other.
    pub security: Security,
    /// Who refused, at the destination.
    pub refused: Option<Box<Refusal>>,
    /// What policies that are tried out said there of what was let in.
    pub dry_runs: Vec<DryRun>,
    /// The node itself asked, for what the pod's probes want: no traffic of anybody's.
    pub probe: bool,
}

impl Upstream {
    /// The first policy that would have refused it, were it in force.
    pub fn would_deny(&self) -> Option<&str> {
        self.dry_runs.iter().find(|one| one.denies).map(|one| &*one.policy)
    }
}

/// A request that has ended (its last body byte is through, or it failed).
#[derive(Debug)]
pub struct HttpRecord<'a> {
    /// When it began.
    pub started: std::time::SystemTime,
    /// True where the destination's side alone reports: the source's does it on its own node.
    pub inbound: bool,
    /// Who called, where known.
    pub source: Option<&'a Arc<Workload>>,
    /// The caller's address.
    pub downstream: SocketAddr,
    /// The address dialled.
    pub dialled: SocketAddr,
    /// Where it went.
    pub upstream: &'a Upstream,
    /// Method.
    pub method: &'a http::Method,
    /// Path and query as the client sent them.
    pub path: &'a str,
    /// `HTTP/1.1` or `HTTP/2`.
    pub version: http::Version,
    /// Host header as sent.
    pub authority: &'a str,
    /// `x-request-id` as forwarded.
    pub request_id: Option<&'a http::HeaderValue>,
    /// `user-agent` as sent.
    pub user_agent: Option<&'a http::HeaderValue>,
    /// `x-forwarded-for` as sent.
    pub forwarded_for: Option<&'a http::HeaderValue>,
    /// Status sent to the client; 0 if none was.
    pub status: u16,
    /// `grpc-status`, for gRPC.
    pub grpc_status: Option<u32>,
    /// Flags.
    pub flags: &'a [ResponseFlag],
    /// Envoy's `%RESPONSE_CODE_DETAILS%`, such as `via_upstream` or `route_not_found`. Empty: those of
    /// [`Upstream::refused`].
    pub details: &'static str,
    /// Why the endpoint could not be reached.
    pub upstream_failure: Option<&'a str>,
    /// Route name.
    pub route: Option<&'a str>,
    /// `namespace/name` of the VirtualService.
    pub virtual_service: Option<&'a str>,
    /// Body bytes from the client.
    pub request_bytes: u64,
    /// Body bytes to the client.
    pub response_bytes: u64,
    /// From the first byte of the request to the last of the response.
    pub duration: Duration,
    /// Time that the endpoint took for its headers.
    pub upstream_time: Option<Duration>,
    /// The server name that its client has asked for, where TLS has ended at a gateway.
    pub server_name: Option<&'a str>,
    /// Tries made.
    pub attempts: u32,
    /// Request and response messages, for gRPC.
    pub grpc_messages: Option<(u64, u64)>,
    /// It is the copy of a request, whose answer nobody gets.
    pub mirrored: bool,
}

impl<'a> HttpRecord<'a> {
    /// The pod of this node that it is about.
    pub fn pod(&self) -> Option<&'a Arc<Workload>> {
        if self.inbound { self.upstream.workload.as_ref() } else { self.source }
    }
}

impl<'a> TcpRecord<'a> {
    /// The pod of this node that it is about.
    pub fn pod(&self) -> Option<&'a Arc<Workload>> {
        if self.inbound { self.upstream.workload.as_ref() } else { self.source }
    }
}

/// What happened to a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpEvent {
    /// It stands.
    Opened,
    /// It is over.
    Closed,
}

/// A TCP connection that opened or closed. Bytes are totals at its end.
#[derive(Debug)]
pub struct TcpRecord<'a> {
    /// Opened or closed.
    pub event: TcpEvent,
    /// True where the destination's side alone reports: the source's does it on its own node, or is not in the mesh.
    pub inbound: bool,
    /// When it began.
    pub started: std::time::SystemTime,
    /// Who called, where known.
    pub source: Option<&'a Arc<Workload>>,
    /// The caller's address.
    pub downstream: SocketAddr,
    /// The address dialled.
    pub dialled: SocketAddr,
    /// Where it went.
    pub upstream: &'a Upstream,
    /// Flags.
    pub flags: &'a [ResponseFlag],
    /// Why the endpoint could not be reached.
    pub upstream_failure: Option<&'a str>,
    /// `namespace/name` of the VirtualService.
    pub virtual_service: Option<&'a str>,
    /// The server name that a TLS client asks for, where it was read.
    pub server_name: Option<&'a str>,
    /// Bytes from the caller.
    pub received_bytes: u64,
    /// Bytes to the caller.
    pub sent_bytes: u64,
    /// Length of its life so far.
    pub duration: Duration,
}
