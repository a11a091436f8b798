//! Connections that stand are decided upon again when the rules change: what was let in by rules of the past does not
//! stay in. Requests are decided upon one by one anyway; this is for connections whose bytes nobody reads, and for
//! callers that may not be there at all any more.

use std::cell::Cell;
use std::rc::Rc;

use super::connection::Downstream;
use super::error::Error;
use super::inbound::{self, Verdict};
use super::limits;

/// What moves on a connection, as far as its end needs to know.
#[derive(Debug, Default)]
pub(super) struct Activity {
    moves: Cell<u64>,
    /// The last bytes went to the caller.
    answered: Cell<bool>,
}

impl Activity {
    /// Notes bytes that moved.
    pub(super) fn note(&self, from_caller: bool, to_caller: bool) {
        if from_caller || to_caller {
            self.moves.set(self.moves.get() + 1);
            self.answered.set(to_caller);
        }
    }

    /// Waits for a moment when nothing is under way, as far as can be told from outside.
    async fn quiet(&self) {
        let until = tokio::time::Instant::now() + limits::REVOKED;
        while tokio::time::Instant::now() < until {
            let before = self.moves.get();
            tokio::time::sleep(limits::QUIET).await;
            if self.moves.get() == before && self.answered.get() {
                return;
            }
        }
    }
}

/// Waits until the bytes of a connection may pass no more; answers why. `down`: the connection as its destination, or a
/// gateway, sees it; without one, this is not the place to decide. Cancel-safe.
pub(super) async fn revoked(down: Option<&Rc<Downstream>>, activity: &Activity) -> Option<Error> {
    let Some(down) = down.filter(|down| down.arrived()) else { return std::future::pending().await };
    loop {
        down.core.rules_changed().await;
        let verdict = inbound::decide_again(down);
        if let Some(error) = inbound::refusal(&verdict) {
            return Some(error);
        }
        // What it says has to be read now: it must come again. Between two requests nobody minds.
        if matches!(verdict, Verdict::Requests(_)) {
            activity.quiet().await;
            return None;
        }
    }
}

/// Waits until only callers with an identity are let in, where this one has none. Cancel-safe.
pub(super) async fn unproved(down: &Rc<Downstream>) {
    if !down.is_inbound() {
        return std::future::pending().await;
    }
    loop {
        down.core.rules_changed().await;
        if matches!(inbound::decide_again(down), Verdict::Unproved) {
            return;
        }
    }
}
