//! DestinationRule.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::PortSelector;
use crate::duration::Span;
use crate::meta::{Labels, Resource};

/// `networking.istio.io` DestinationRule.
pub type DestinationRule = Resource<DestinationRuleSpec>;

/// `DestinationRule.spec`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DestinationRuleSpec {
    /// The service it applies to.
    pub host: String,
    /// Applies to all subsets unless they override it.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Named groups of endpoints.
    pub subsets: Vec<Subset>,
    /// Namespaces that see it; empty means all.
    pub export_to: Vec<String>,
    /// Callers that it applies to.
    pub workload_selector: Option<WorkloadSelector>,
}

/// A selection of pods by label.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WorkloadSelector {
    /// All must be present.
    pub match_labels: Labels,
}

/// One of `spec.subsets`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Subset {
    /// DNS label.
    pub name: String,
    /// Labels that its endpoints have; none means all endpoints.
    pub labels: Labels,
    /// Overrides the rule's policy, part by part.
    pub traffic_policy: Option<TrafficPolicy>,
}

/// How connections to a destination are made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TrafficPolicy {
    /// Choice of endpoint.
    pub load_balancer: Option<LoadBalancerSettings>,
    /// Limits and timeouts of connections.
    pub connection_pool: Option<ConnectionPoolSettings>,
    /// Ejection of failing endpoints.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS to the endpoints.
    pub tls: Option<ClientTlsSettings>,
    /// Replaces the above for one port.
    pub port_level_settings: Vec<PortTrafficPolicy>,
    /// Tunnel through a CONNECT proxy.
    pub tunnel: Option<TunnelSettings>,
    /// PROXY protocol towards the endpoints.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Share of active requests that may be retries.
    pub retry_budget: Option<RetryBudget>,
}

/// `trafficPolicy.portLevelSettings[]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PortTrafficPolicy {
    /// The port.
    pub port: Option<PortSelector>,
    /// Choice of endpoint.
    pub load_balancer: Option<LoadBalancerSettings>,
    /// Limits and timeouts of connections.
    pub connection_pool: Option<ConnectionPoolSettings>,
    /// Ejection of failing endpoints.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS to the endpoints.
    pub tls: Option<ClientTlsSettings>,
}

/// `loadBalancer`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LoadBalancerSettings {
    /// One of the simple algorithms.
    pub simple: Option<SimpleLb>,
    /// Affinity by hash.
    pub consistent_hash: Option<ConsistentHash>,
    /// Locality preferences.
    pub locality_lb_setting: Option<LocalityLbSetting>,
    /// Older name of `warmup.duration`.
    pub warmup_duration_secs: Option<Span>,
    /// Slow start of new endpoints.
    pub warmup: Option<Warmup>,
    /// Preference for the caller's zone.
    pub zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
}

/// `loadBalancer.simple`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SimpleLb {
    /// The default: LEAST_REQUEST.
    Unspecified,
    /// Deprecated alias of LEAST_REQUEST.
    LeastConn,
    /// Uniformly random.
    Random,
    /// To the address that the caller dialled.
    Passthrough,
    /// In turn.
    RoundRobin,
    /// The less busy of two random choices.
    LeastRequest,
}

/// `loadBalancer.consistentHash`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConsistentHash {
    /// Hash of a header.
    pub http_header_name: Option<String>,
    /// Hash of a cookie.
    pub http_cookie: Option<HttpCookie>,
    /// Hash of the caller's address.
    pub use_source_ip: Option<bool>,
    /// Hash of a query parameter.
    pub http_query_parameter_name: Option<String>,
    /// Ketama ring.
    pub ring_hash: Option<RingHash>,
    /// Maglev table.
    pub maglev: Option<Maglev>,
    /// Deprecated place of `ringHash.minimumRingSize`.
    pub minimum_ring_size: Option<u64>,
}

/// `consistentHash.httpCookie`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpCookie {
    /// Cookie name.
    pub name: String,
    /// Path of a minted cookie.
    pub path: Option<String>,
    /// Life of a minted cookie; absent mints none.
    pub ttl: Option<Span>,
    /// Further attributes of a minted cookie.
    pub attributes: Vec<CookieAttribute>,
}

/// An attribute of a minted cookie.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CookieAttribute {
    /// Name.
    pub name: String,
    /// Value.
    pub value: Option<String>,
}

/// `consistentHash.ringHash`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RingHash {
    /// 1024 when absent.
    pub minimum_ring_size: Option<u64>,
}

/// `consistentHash.maglev`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Maglev {
    /// 65537 when absent.
    pub table_size: Option<u64>,
}

/// `loadBalancer.warmup`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Warmup {
    /// How long.
    pub duration: Option<Span>,
    /// 10 when absent.
    pub minimum_percent: Option<f64>,
    /// 1 when absent.
    pub aggression: Option<f64>,
}

/// `loadBalancer.localityLbSetting`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LocalityLbSetting {
    /// Weights between localities.
    pub distribute: Vec<LocalityDistribute>,
    /// Where to fail over to.
    pub failover: Vec<LocalityFailover>,
    /// Labels in order of preference.
    pub failover_priority: Vec<String>,
    /// Switch.
    pub enabled: Option<bool>,
}

/// `localityLbSetting.distribute[]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LocalityDistribute {
    /// Locality of the caller.
    pub from: String,
    /// Weights by locality.
    pub to: BTreeMap<String, u32>,
}

/// `loadBalancer.zoneAwareLbSetting`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ZoneAwareLbSetting {
    /// Switch.
    pub enabled: Option<bool>,
    /// Where to fail over to.
    pub failover: Vec<LocalityFailover>,
    /// Labels in order of preference.
    pub failover_priority: Vec<String>,
    /// Zones do not count below so many endpoints.
    pub min_cluster_size: Option<u32>,
}

/// `localityLbSetting.failover[]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LocalityFailover {
    /// Region.
    pub from: String,
    /// Region.
    pub to: String,
}

/// `connectionPool`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConnectionPoolSettings {
    /// For TCP and HTTP.
    pub tcp: Option<TcpSettings>,
    /// For HTTP.
    pub http: Option<HttpSettings>,
}

/// `connectionPool.tcp`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TcpSettings {
    /// Upper bound of connections.
    pub max_connections: Option<i32>,
    /// 10 s when absent.
    pub connect_timeout: Option<Span>,
    /// Keep-alive probes.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Longest life of a connection.
    pub max_connection_duration: Option<Span>,
    /// Closed after so long without bytes.
    pub idle_timeout: Option<Span>,
}

/// `connectionPool.tcp.tcpKeepalive`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TcpKeepalive {
    /// Unanswered probes before it is dead.
    pub probes: Option<u32>,
    /// Idle time before the first.
    pub time: Option<Span>,
    /// Time between probes.
    pub interval: Option<Span>,
}

/// `connectionPool.http`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpSettings {
    /// Requests waiting for a connection.
    pub http1_max_pending_requests: Option<i32>,
    /// Requests under way.
    pub http2_max_requests: Option<i32>,
    /// Requests per connection; 0 is unlimited.
    pub max_requests_per_connection: Option<i32>,
    /// Retries under way.
    pub max_retries: Option<i32>,
    /// Idle time of pooled connections.
    pub idle_timeout: Option<Span>,
    /// `DEFAULT`, `DO_NOT_UPGRADE`, `UPGRADE`.
    pub h2_upgrade_policy: Option<String>,
    /// Speak upstream what the client speaks.
    pub use_client_protocol: Option<bool>,
    /// Streams per HTTP/2 connection.
    pub max_concurrent_streams: Option<i32>,
    /// PING frames on HTTP/2 connections.
    pub http2_keep_alive: Option<Http2KeepAlive>,
}

/// `connectionPool.http.http2KeepAlive`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Http2KeepAlive {
    /// Time between PING frames.
    pub interval: Option<Span>,
    /// How long an answer may take.
    pub timeout: Option<Span>,
}

/// `outlierDetection`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OutlierDetection {
    /// Deprecated name of `consecutive5xxErrors`.
    pub consecutive_errors: Option<i32>,
    /// Tell local errors from those of the service.
    pub split_external_local_origin_errors: Option<bool>,
    /// Local errors in a row.
    pub consecutive_local_origin_failures: Option<u32>,
    /// 502, 503 and 504 in a row.
    pub consecutive_gateway_errors: Option<u32>,
    /// Any 5xx in a row.
    #[serde(rename = "consecutive5xxErrors")]
    pub consecutive_5xx_errors: Option<u32>,
    /// Time between sweeps.
    pub interval: Option<Span>,
    /// Ejection time, times the number of ejections.
    pub base_ejection_time: Option<Span>,
    /// Largest share of ejected hosts.
    pub max_ejection_percent: Option<i32>,
    /// Off below this share of healthy hosts.
    pub min_health_percent: Option<i32>,
    /// HTTP statuses that count as errors.
    pub outlier_detection_http_error_codes: Vec<u32>,
}

/// `tls`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClientTlsSettings {
    /// How.
    pub mode: Option<TlsMode>,
    /// Path of a file.
    pub client_certificate: Option<String>,
    /// Path of a file.
    pub private_key: Option<String>,
    /// Path of a file.
    pub ca_certificates: Option<String>,
    /// Name of a Secret.
    pub credential_name: Option<String>,
    /// Accepted names of the server.
    pub subject_alt_names: Vec<String>,
    /// Server name to send.
    pub sni: Option<String>,
    /// Accept any certificate.
    pub insecure_skip_verify: Option<bool>,
    /// Path of a revocation list.
    pub ca_crl: Option<String>,
}

/// `tls.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TlsMode {
    /// Plaintext.
    Disable,
    /// Server certificate only.
    Simple,
    /// With own certificates.
    Mutual,
    /// With mesh identities.
    IstioMutual,
}

/// `tunnel`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TunnelSettings {
    /// `CONNECT` or `POST`.
    pub protocol: Option<String>,
    /// Host to ask the tunnel for.
    pub target_host: String,
    /// Port to ask the tunnel for.
    pub target_port: u32,
}

/// `proxyProtocol`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProxyProtocol {
    /// `V1` or `V2`.
    pub version: Option<String>,
}

/// `retryBudget`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RetryBudget {
    /// Share of active requests.
    pub percent: Option<f64>,
    /// Floor of concurrent retries.
    pub min_retry_concurrency: Option<u32>,
    /// The time that is looked back upon.
    pub budget_interval: Option<Span>,
}
