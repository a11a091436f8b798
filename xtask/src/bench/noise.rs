//! What else the machine does: client, server and agent share its cores, and whatever else runs shares them too.

use std::fs;
use std::thread;
use std::time::Duration;

/// How long the machine is looked at before a measurement.
const LOOK: Duration = Duration::from_millis(150);
/// Load average, and busy cores, above which figures are not to be trusted.
const QUIET: f64 = 0.5;

/// What was seen of other programs.
pub struct Noise {
    load_at_start: f64,
    busy: Vec<f64>,
}

impl Noise {
    /// Looks at the load average, before bench itself adds to it.
    pub fn at_start() -> Self {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load_at_start = load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0);
        if load_at_start > QUIET {
            eprintln!("  ! load average {load_at_start}: other programs run here, or did a minute ago");
        }
        Self { load_at_start, busy: Vec::new() }
    }

    /// Looks at the machine while bench itself rests.
    pub fn look(&mut self) {
        let (busy_before, all_before) = cpu_times();
        thread::sleep(LOOK);
        let (busy, all) = cpu_times();
        let share = (busy - busy_before) as f64 / (all - all_before).max(1) as f64;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        self.busy.push(share * cores as f64);
    }

    /// Says what was seen.
    pub fn print(&self) {
        let count = self.busy.len().max(1) as f64;
        let mean = self.busy.iter().sum::<f64>() / count;
        let most = self.busy.iter().copied().fold(0.0, f64::max);
        println!(
            "Between measurements, other programs used {mean:.2} cores on average, {most:.2} at most; \
             load average at start {:.2}.",
            self.load_at_start
        );
        if mean > QUIET / 2.0 || self.load_at_start > QUIET {
            println!(
                "! The machine was not quiet: take the CPU columns rather than the rates, or measure again."
            );
        }
    }
}

/// Busy and all time of all cores so far, in ticks.
fn cpu_times() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let times: Vec<u64> = line.split_whitespace().skip(1).take(8).flat_map(str::parse).collect();
    let all: u64 = times.iter().sum();
    let idle: u64 = times.iter().skip(3).take(2).sum();
    (all - idle, all)
}
