//! How much of every node's memory objects may take: one object, those of one namespace, all together.
//!
//! Whoever may write objects in one namespace writes into the memory of every agent. What an object takes is estimated from
//! what it says ([`weigh`]), and a [`Ledger`] adds up what is in force. An object over a bound is refused like one that is
//! not valid: its last good version, and all others, stay in force. Pods, Namespaces and ConfigMaps are never refused: a
//! pod that an agent does not know would not be in the mesh. Kubernetes' own quotas bound those.

mod ledger;
mod weight;

pub use ledger::Ledger;
pub(crate) use weight::{RouteWeight, weigh_route};
pub use weight::{Share, Weight, weigh};

use crate::pattern;

/// Bounds of one share, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Of one object.
    pub object: u64,
    /// Of a namespace's objects.
    pub namespace: u64,
    /// Of all objects.
    pub all: u64,
}

/// Rules for traffic and policies.
pub const RULES: Bounds = Bounds { object: 8 << 20, namespace: 32 << 20, all: 128 << 20 };
/// Services and their endpoints.
pub const ENDPOINTS: Bounds = Bounds { object: 8 << 20, namespace: 96 << 20, all: 256 << 20 };
/// Regular expressions, in instructions of about 32 bytes. Equal ones of a namespace count once.
pub const PATTERNS: Bounds = Bounds { object: 1 << 15, namespace: 1 << 17, all: 1 << 20 };

/// Sums over all objects: what they take, or may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Bytes of rules and policies.
    pub rules: u64,
    /// Bytes of Services and endpoints.
    pub endpoints: u64,
    /// Instructions of regular expressions.
    pub instructions: u64,
}

impl Sums {
    /// What they may take where nobody says otherwise.
    pub const MOST: Self = Self { rules: RULES.all, endpoints: ENDPOINTS.all, instructions: PATTERNS.all };
}

impl Bounds {
    /// The same, where all objects may have `all`: a namespace has the same part of it.
    fn of(self, all: u64) -> Self {
        let part = u128::from(all) * u128::from(self.namespace) / u128::from(self.all);
        Self { object: self.object, namespace: part.try_into().unwrap_or(u64::MAX), all }
    }
}

/// What a namespace may have of [`RULES`] and [`ENDPOINTS`] even where the bound of all is reached: nobody's objects are
/// refused for what others have written.
pub const GUARANTEED: u64 = 1 << 20;
/// The same of [`PATTERNS`].
pub const GUARANTEED_PATTERNS: u64 = pattern::MOST_INSTRUCTIONS;
