//! AuthorizationPolicy.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::WorkloadSelector;
use crate::meta::{Resource, not_empty};

/// `security.istio.io` AuthorizationPolicy.
pub type AuthorizationPolicy = Resource<AuthorizationPolicySpec>;

/// `AuthorizationPolicy.spec`. Without rules, ALLOW allows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AuthorizationPolicySpec {
    /// The workloads it is for; absent means all of the namespace (of the mesh, in the root namespace).
    pub selector: Option<WorkloadSelector>,
    /// Older form of `targetRefs`.
    pub target_ref: Option<PolicyTargetReference>,
    /// Gateways, Services and the like that it is for.
    pub target_refs: Vec<PolicyTargetReference>,
    /// One that matches is enough. Absent and empty both match nothing; `[{}]` matches everything.
    pub rules: Vec<Rule>,
    /// What a match means.
    pub action: PolicyAction,
    /// Who decides where the action is CUSTOM.
    pub provider: Option<ExtensionProviderReference>,
}

/// One of `targetRefs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PolicyTargetReference {
    /// API group; empty is the core group.
    pub group: String,
    /// `Gateway`, `GatewayClass`, `Service` or `ServiceEntry`.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Only the policy's own.
    pub namespace: String,
}

/// `action`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PolicyAction {
    /// A match lets pass; if any ALLOW policy is there and none matches, nothing passes.
    #[default]
    Allow,
    /// A match is refused.
    Deny,
    /// A match is noted.
    Audit,
    /// A match is asked about elsewhere.
    Custom,
}

/// `provider`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExtensionProviderReference {
    /// One of MeshConfig's `extensionProviders`.
    pub name: String,
}

/// One of `rules`: all of its parts that are there must match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rule {
    /// Callers; one of them. Absent: any.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<RuleFrom>,
    /// Operations; one of them. Absent: any.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<RuleTo>,
    /// Conditions; all of them.
    pub when: Vec<Condition>,
}

/// One of `from`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RuleFrom {
    /// The caller.
    pub source: Option<Source>,
}

/// `from[].source`: within a list one is enough, all lists must agree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Source {
    /// `TRUST_DOMAIN/ns/NS/sa/SA` of the peer's certificate.
    pub principals: Vec<String>,
    /// None of these.
    pub not_principals: Vec<String>,
    /// `ISS/SUB` of the request's token.
    pub request_principals: Vec<String>,
    /// None of these.
    pub not_request_principals: Vec<String>,
    /// Of the peer's certificate.
    pub namespaces: Vec<String>,
    /// None of these.
    pub not_namespaces: Vec<String>,
    /// `NS/SA`, or `SA` of the policy's own namespace.
    pub service_accounts: Vec<String>,
    /// None of these.
    pub not_service_accounts: Vec<String>,
    /// Of the connection: an address or CIDR block.
    pub ip_blocks: Vec<String>,
    /// None of these.
    pub not_ip_blocks: Vec<String>,
    /// Of the client as `X-Forwarded-For` tells it, as far as that is trusted.
    pub remote_ip_blocks: Vec<String>,
    /// None of these.
    pub not_remote_ip_blocks: Vec<String>,
    /// Of the peer's certificate.
    pub trust_domains: Vec<String>,
    /// None of these.
    pub not_trust_domains: Vec<String>,
}

/// One of `to`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RuleTo {
    /// What is asked for.
    pub operation: Option<Operation>,
}

/// `to[].operation`: within a list one is enough, all lists must agree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Operation {
    /// Of the request, without regard to case.
    pub hosts: Vec<String>,
    /// None of these.
    pub not_hosts: Vec<String>,
    /// Of the workload.
    pub ports: Vec<String>,
    /// None of these.
    pub not_ports: Vec<String>,
    /// Of the request.
    pub methods: Vec<String>,
    /// None of these.
    pub not_methods: Vec<String>,
    /// Of the request, normalised, without its query; `{*}` is one segment, `{**}` any number.
    pub paths: Vec<String>,
    /// None of these.
    pub not_paths: Vec<String>,
}

/// One of `when`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Condition {
    /// An attribute: `request.headers[NAME]`, `source.ip`, `request.auth.claims[A][B]`, …
    pub key: String,
    /// One of these.
    pub values: Vec<String>,
    /// None of these.
    pub not_values: Vec<String>,
}
