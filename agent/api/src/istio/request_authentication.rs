//! RequestAuthentication.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PolicyTargetReference, WorkloadSelector};
use crate::duration::Span;
use crate::meta::Resource;

/// `security.istio.io` RequestAuthentication.
pub type RequestAuthentication = Resource<RequestAuthenticationSpec>;

/// `RequestAuthentication.spec`. It refuses bad tokens; that there is one at all, an AuthorizationPolicy demands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RequestAuthenticationSpec {
    /// The workloads it is for; absent means all of the namespace (of the mesh, in the root namespace).
    pub selector: Option<WorkloadSelector>,
    /// Older form of `targetRefs`.
    pub target_ref: Option<PolicyTargetReference>,
    /// Gateways, Services and the like that it is for.
    pub target_refs: Vec<PolicyTargetReference>,
    /// Issuers whose tokens are accepted.
    pub jwt_rules: Vec<JwtRule>,
}

/// One of `jwtRules`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct JwtRule {
    /// The token's `iss`, to the letter.
    pub issuer: String,
    /// One of the token's `aud`; empty accepts any.
    pub audiences: Vec<String>,
    /// Where the keys are. With neither this nor `jwks`: what OpenID discovery at the issuer says.
    #[serde(alias = "jwks_uri")]
    pub jwks_uri: Option<String>,
    /// The keys themselves.
    pub jwks: Option<String>,
    /// Headers that may hold the token.
    pub from_headers: Vec<JwtHeader>,
    /// Query parameters that may hold it.
    pub from_params: Vec<String>,
    /// Cookies that may hold it.
    pub from_cookies: Vec<String>,
    /// Header for the payload, in base64url.
    pub output_payload_to_header: Option<String>,
    /// Whether the program gets the token too.
    pub forward_original_token: Option<bool>,
    /// Headers for single claims.
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    /// Longest wait for `jwksUri`; 5 s when absent.
    pub timeout: Option<Span>,
    /// Claims, besides `scope` and `permission`, whose text is a list separated by spaces.
    pub space_delimited_claims: Vec<String>,
}

/// One of `fromHeaders`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct JwtHeader {
    /// The header.
    pub name: String,
    /// What stands before the token.
    pub prefix: Option<String>,
}

/// One of `outputClaimToHeaders`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClaimToHeader {
    /// The header.
    pub header: String,
    /// The claim; `a.b` is one within another.
    pub claim: String,
}
