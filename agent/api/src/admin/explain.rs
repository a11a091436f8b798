//! `weft explain`: what would happen to a request, and why.

use serde::{Deserialize, Serialize};

/// A request that nobody sends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExplainRequest {
    /// The caller: `pod/NAME[.NS]`, `deploy/NAME[.NS]`, `NAME.NS`, or a pod's address. Of a gateway pod: the request comes to it
    /// from outside.
    pub from: String,
    /// With an empty `from`, asks what a caller at this address would get that proves nothing and is routed by nobody; with a
    /// gateway, its client's address.
    pub from_address: Option<String>,
    /// The destination: a host or URL as the caller would dial it, `HOST[:PORT]` or `ADDRESS:PORT`. At a gateway, the port is the
    /// Gateway's.
    pub to: String,
    /// `GET` when absent; with neither method, path nor headers a TCP port is explained as a connection.
    pub method: Option<String>,
    /// `/` when absent; may hold a query.
    pub path: Option<String>,
    /// Name and value, in order, repeats allowed.
    pub headers: Vec<(String, String)>,
}

/// What would happen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Explanation {
    /// The rule that decides; `null` when none does and the service's default holds.
    pub matched: Option<Matched>,
    /// `route`, `redirect …`, `directResponse …`, `passthrough`, `notFound`, `unavailable`, `deny`.
    pub action: String,
    /// Where it would go, by weight.
    pub backends: Vec<Backend>,
    /// Policies that had a say, in the order of decision.
    pub policies: Vec<Decision>,
    /// How the bytes travel: `none (same node)`, `mtls (hbone)`, `plaintext`, …
    pub tls: String,
    /// Deadline over all tries, as `15s`; `null` for none.
    pub timeout: Option<String>,
    /// Retries; `null` for none.
    pub retries: Option<RetryPlan>,
    /// Faults that would be injected; `null` for none.
    pub faults: Option<FaultPlan>,
    /// What else a person would want to know, one sentence each.
    pub notes: Vec<String>,
}

/// Names a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Matched {
    /// `NS/NAME`.
    pub virtual_service: String,
    /// The route's name, or its place: `http[1]`.
    pub route: String,
}

/// A weighted destination.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Backend {
    /// Full host name.
    pub host: String,
    /// The subset, if one is asked for.
    pub subset: Option<String>,
    /// The service's port; `null` when it is the one addressed.
    pub port: Option<u16>,
    /// Share of the sum of all weights.
    pub weight: u32,
    /// `ADDRESS:PORT` of each healthy endpoint; of many, of the first ones.
    pub endpoints: Vec<String>,
    /// How many there are beside these.
    #[serde(skip_serializing_if = "is_zero")]
    pub more_endpoints: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(super) fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// A policy's say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Decision {
    /// `Kind/NS/NAME`.
    pub name: String,
    /// `ALLOW`, `DENY`, `STRICT`, …
    pub action: String,
    /// What it decided here: `allowed by rules[0]`, `denied`, `not matched`.
    pub decided: String,
}

/// Retries as they would be done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryPlan {
    /// Retries after the first try.
    pub attempts: u32,
    /// Conditions, comma-separated.
    pub retry_on: String,
    /// Deadline of each try.
    pub per_try_timeout: Option<String>,
}

/// Faults as they would be injected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FaultPlan {
    /// For example `7s in 100%`.
    pub delay: Option<String>,
    /// For example `503 in 10%`.
    pub abort: Option<String>,
}
