//! What is wrong with an object.

use serde::{Deserialize, Serialize};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing to do.
    Info,
    /// Accepted, and probably not what was meant.
    Warning,
    /// Refused.
    Error,
}

/// One thing to say about one object; a line of `weft analyze`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Stable, upper camel case: `UnknownField`, `InvalidRegex`, …
    pub code: String,
    /// `Kind/namespace/name`.
    pub resource: String,
    /// Where in the object, as `spec.http[0].route[1].weight`; empty for the whole.
    pub path: String,
    /// What is wrong, and in parentheses what to do about it.
    pub message: String,
    /// The file, where it came from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line in the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
}
