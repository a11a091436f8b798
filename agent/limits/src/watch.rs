//! The watcher: what is held on behalf of others is counted and estimated, but the kernel counts pages. Near the limit it makes the
//! shares smaller, has idle connections closed, and at last ends the connections of whoever has most.

use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::budget::{Budget, Pressure};
use super::machine::{self, Group};

/// How often memory is looked at.
const INTERVAL: Duration = Duration::from_millis(200);
/// In hundredths of what the agent may have: from here on shares are smaller.
const HIGH: u64 = 80;
/// From here on only holders that have little get anything.
const CRITICAL: u64 = 90;
/// Between two holders that lose their connections: what the first one had must have time to go.
const PAUSE: Duration = Duration::from_secs(1);

/// Watches for as long as anybody has the budget.
///
/// # Errors
/// The thread cannot be made.
pub fn start(budget: &Arc<Budget>) -> io::Result<()> {
    let budget = Arc::downgrade(budget);
    thread::Builder::new().name("weft-limits".into()).spawn(move || watch(&budget)).map(drop)
}

fn watch(budget: &Weak<Budget>) {
    let group = Group::own();
    let mut ended = None;
    loop {
        thread::sleep(INTERVAL);
        let Some(budget) = budget.upgrade() else { return };
        budget.forget_unused();
        let before = budget.pressure();
        let used = percent(group.as_ref(), budget.limits().memory);
        let pressure = pressure(used);
        budget.set_pressure(pressure);
        if pressure > before {
            tracing::warn!("memory: {used} % of what the agent may have is in use; {}", doing(pressure));
        }
        if pressure > Pressure::None {
            budget.trim();
        }
        if pressure == Pressure::Critical && ended.is_none_or(|at: Instant| at.elapsed() >= PAUSE) {
            ended = Some(Instant::now());
            if let Some(holder) = budget.end_heaviest() {
                tracing::warn!(%holder, "memory: its connections end, for it holds most");
            }
        }
    }
}

/// What is used, in hundredths: of the container's limit as its kernel counts, and of what the agent was told.
fn percent(group: Option<&Group>, memory: u64) -> u64 {
    let of_group = group.and_then(|group| Some(group.used()? * 100 / group.limit.max(1)));
    let own = machine::resident().map(|resident| resident * 100 / memory.max(1));
    of_group.max(own).unwrap_or(0)
}

fn pressure(percent: u64) -> Pressure {
    match percent {
        ..HIGH => Pressure::None,
        HIGH..CRITICAL => Pressure::High,
        CRITICAL.. => Pressure::Critical,
    }
}

fn doing(pressure: Pressure) -> &'static str {
    match pressure {
        Pressure::None => "all is well",
        Pressure::High => "those who hold most get no more, and idle connections are closed",
        Pressure::Critical => "whoever holds most loses its connections",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_rises_in_two_steps() {
        use Pressure::{Critical, High, None};
        let steps = [0, 79, 80, 89, 90, 200].map(pressure);
        assert_eq!(steps, [None, None, High, High, Critical, Critical]);
    }
}
