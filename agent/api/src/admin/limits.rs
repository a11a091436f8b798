//! What the agent may hold for others, and who is at a bound.

use serde::{Deserialize, Serialize};

/// The agent's limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Memory that the agent may have, in bytes.
    pub memory_bytes: u64,
    /// How near that is: `none`, `high` or `critical`.
    pub pressure: String,
    /// In all.
    pub all: Vec<LimitRow>,
    /// Holders that were refused something in the last minute.
    pub holders: Vec<LimitRow>,
}

/// One resource of one holder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LimitRow {
    /// Who: `pod shop/web`, `10.0.0.7 at pod shop/web`, `namespace shop`, `all together`.
    pub holder: String,
    /// `standing_bytes`, `buffered_bytes` or `descriptors`.
    pub resource: String,
    /// What it has.
    pub used: u64,
    /// What it may have.
    pub max: u64,
    /// How often it was refused more, or had to wait, since it came.
    pub refused: u64,
    /// How long ago the last time was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused_seconds_ago: Option<u64>,
}
