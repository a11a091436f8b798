//! Readiness is held back by guards: whoever has something to finish first holds one and drops it when done.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What the agent's readiness waits for.
#[derive(Debug, Default)]
pub struct Readiness {
    held: Mutex<BTreeMap<String, usize>>,
}

/// Holds readiness back until it drops.
#[derive(Debug)]
pub struct Guard {
    readiness: Arc<Readiness>,
    what: String,
}

impl Readiness {
    /// Holds readiness back for `what`: `first-sync`, `programs-attached`, …
    pub fn hold(self: &Arc<Self>, what: &str) -> Guard {
        *self.lock().entry(what.to_owned()).or_default() += 1;
        Guard { readiness: self.clone(), what: what.to_owned() }
    }

    /// What is still held, by name; empty when ready.
    pub fn waiting_for(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut held = self.readiness.lock();
        if let Some(count) = held.get_mut(&self.what) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.what);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_the_last_guard_drops() {
        let readiness = Arc::new(Readiness::default());
        let sync = readiness.hold("first-sync");
        let programs = readiness.hold("programs-attached");
        let again = readiness.hold("first-sync");
        drop(sync);
        assert_eq!(readiness.waiting_for(), ["first-sync", "programs-attached"]);
        drop(programs);
        drop(again);
        assert!(readiness.waiting_for().is_empty());
    }
}
