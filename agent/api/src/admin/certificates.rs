//! Certificates of a node's service accounts, and where they come from. Times are RFC 3339 in UTC.

use serde::{Deserialize, Serialize};

/// Answers `weft get certificates`; part of `weft status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Certificates {
    /// Who signs; absent without a CA: then traffic between nodes is plain text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<CertificateAuthority>,
    /// One line for each service account with pods in the mesh on this node.
    pub certificates: Vec<CertificateRow>,
}

/// Where certificates come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateAuthority {
    /// Whether it is part of the agent.
    pub kind: AuthorityKind,
    /// The folder, or the URL.
    pub location: String,
    /// When it last answered, or its folder was last read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered: Option<String>,
    /// Since when it has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the certificates of peers have to chain to.
    pub roots: Vec<RootRow>,
    /// Certificates that it has taken back; absent where it has published no list of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revocations: Option<RevocationsRow>,
}

/// Revocation lists (CRLs).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RevocationsRow {
    /// Where they are read from.
    pub file: String,
    /// How many are in force.
    pub lists: usize,
    /// Why what the file holds now is not in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The kinds of CA.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthorityKind {
    /// `--ca-dir`: the agent signs by itself.
    #[default]
    Embedded,
    /// `--ca-address`: a certificate service.
    External,
}

/// A trusted root.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RootRow {
    /// Its subject.
    pub subject: String,
    /// SHA-256 over the certificate, in hex.
    pub fingerprint: String,
    /// When it ends.
    pub not_after: String,
    /// For a root that the CA names no more: until when it is trusted nevertheless.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retired_until: Option<String>,
}

/// A line of `weft get certificates`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateRow {
    /// Namespace.
    pub namespace: String,
    /// Service account.
    pub service_account: String,
    /// `spiffe://…`.
    pub identity: String,
    /// What there is.
    pub state: CertificateState,
    /// In hex; absent without a certificate, as the times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// From when it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
    /// Until when it serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// When the next one, or the next try, is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<String>,
    /// Since when no new one could be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<String>,
    /// Why, as of the last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What there is for a service account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CertificateState {
    /// The first one is on its way.
    #[default]
    Requested,
    /// A certificate, and nothing wrong.
    Valid,
    /// A certificate that serves until it ends; the last attempt to renew it failed.
    RenewalFailing,
    /// None: the last attempt failed, or the one there was has ended.
    Missing,
}

/// A Secret by which gateways of this node end TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SecretRow {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Whether a server uses it.
    pub state: SecretState,
    /// Names of DNS that its certificate has.
    pub names: Vec<String>,
    /// Until when that is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// Why a server is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What becomes of a server by its Secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SecretState {
    /// It ends TLS.
    Serves,
    /// It ends TLS by a certificate whose time is over.
    Expired,
    /// Nobody is served by it.
    #[default]
    Closed,
}
