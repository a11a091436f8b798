//! Waiting for something to become true, with an end.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(5);

/// Looks until `look` answers, for at most `patience`; then fails, naming `what` and the last reason.
pub fn eventually<T>(what: &str, patience: Duration, look: impl FnMut() -> Result<T>) -> Result<T> {
    eventually_each(PERIOD, what, patience, look)
}

/// As [`eventually`], with so long between two looks.
pub(crate) fn eventually_each<T>(
    period: Duration,
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() >= patience => {
                bail!("{what}: not within {patience:?}: {error:#}");
            }
            Err(_) => std::thread::sleep(period),
        }
    }
}

/// As [`eventually`], for a plain condition; answers how long it took.
pub fn within(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) -> Result<Duration> {
    let start = Instant::now();
    eventually(what, patience, || {
        anyhow::ensure!(holds(), "it does not hold");
        Ok(())
    })?;
    Ok(start.elapsed())
}

/// Locks, also after a panic of another holder: its world is to be removed all the same.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
