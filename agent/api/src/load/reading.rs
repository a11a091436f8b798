//! What to do with an object, by its kind and version.

use crate::kinds::{self, Kind, State};

/// What to do with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reading {
    /// Read it.
    Read(Kind),
    /// A kind that is read, in another group or version: the ones accepted.
    OtherVersion(String),
    /// A kind of the mesh that has no effect yet: what is said of it.
    NotYet(String),
    /// A kind of the past, with today's.
    Removed(&'static str),
    /// A kind that weft will not have: what is said of it.
    Never(String),
    /// Somebody else's.
    Foreign,
}

/// Says what to do with an object of this `apiVersion` and `kind`.
pub(super) fn reading(api_version: &str, kind: &str) -> Reading {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    if let Some(today) = kinds::today(group, kind) {
        return Reading::Removed(today);
    }
    let told = || kinds::in_vain(group, kind).unwrap_or_default();
    match kinds::find(group, kind).map(|entry| entry.state) {
        Some(State::NotYet(_)) => return Reading::NotYet(told()),
        Some(State::Never(_)) => return Reading::Never(told()),
        Some(State::Read(_)) | None => {}
    }
    if let Some(read) = Kind::named(group, kind) {
        let entry = read.entry();
        return if entry.versions.contains(&version) {
            Reading::Read(read)
        } else {
            Reading::OtherVersion(entry.accepted())
        };
    }
    // `VirtualService` of another vendor's group is that vendor's; of `networking/v1` it is a slip.
    let slip = !group.contains('.') || group.contains("istio") || group.ends_with("k8s.io");
    let meant = Kind::ALL.into_iter().map(Kind::entry).find(|entry| entry.kind == kind);
    match meant.filter(|entry| slip && !(entry.group.is_empty() && group.contains('.'))) {
        Some(entry) => Reading::OtherVersion(entry.accepted()),
        None => Reading::Foreign,
    }
}
