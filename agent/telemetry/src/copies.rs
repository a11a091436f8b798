//! What became of copies of requests (`mirror` of a VirtualService).

use super::series::Cell;

/// How a copy ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyEnd {
    /// Its destination has answered, whatever it said.
    Answered,
    /// Its destination took its body slower than the request's own did.
    TooSlow,
    /// Its request broke off.
    BrokenOff,
    /// There was no answer in time.
    TimedOut,
    /// Its destination could not be reached, or ended the connection.
    Failed,
    /// Its destination's policies.
    Refused,
    /// There is no such destination, or it has no endpoint.
    NoDestination,
    /// As many copies as can be were under way.
    TooMany,
}

/// All, in their order, as metrics call them, and as the log does.
const ALL: [(CopyEnd, &str, &str); 8] = [
    (CopyEnd::Answered, "answered", "via_upstream"),
    (CopyEnd::TooSlow, "too_slow", "mirror_given_up{too_slow}"),
    (CopyEnd::BrokenOff, "request_broke_off", "mirror_given_up{request_broke_off}"),
    (CopyEnd::TimedOut, "timed_out", "mirror_given_up{timed_out}"),
    (CopyEnd::Failed, "failed", "mirror_failed"),
    // Who refused is told otherwise.
    (CopyEnd::Refused, "refused", ""),
    (CopyEnd::NoDestination, "no_destination", ""),
    (CopyEnd::TooMany, "too_many", ""),
];

impl CopyEnd {
    /// Details for the log, as Envoy words its own.
    pub fn details(self) -> &'static str {
        ALL[self as usize].2
    }
}

/// One worker's count of copies.
#[derive(Debug, Default)]
pub struct Copies([Cell; ALL.len()]);

impl Copies {
    /// A copy has ended, or there was to be one.
    pub fn count(&self, end: CopyEnd) {
        self.0[end as usize].add(1);
    }

    /// How many have ended how.
    pub fn all(&self) -> [(&'static str, u64); ALL.len()] {
        ALL.map(|(end, name, _)| (name, self.0[end as usize].get()))
    }
}
