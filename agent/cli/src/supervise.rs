//! `weft agent --supervise`: an agent that is killed is there again at once.
//!
//! The kubelet looks at its containers once a second, and lets those wait that end more than once in ten minutes; pods in
//! the mesh are cut off meanwhile. So the container's first process does nothing but start the agent, and start it
//! again when a signal has ended it: at once, then after pauses that grow. An agent that ends by itself has said why: its
//! code is passed on.
//!
//! The first process itself may be killed, and its container with it. With `--standby`, in another container of the same
//! pod, a supervisor waits until no agent holds the run directory. Its agent serves until the kubelet has started the first
//! container again, however long it lets that wait; the agent there takes over, and this one stands by again.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::output::Outcome;

/// The flag that asks for it, which the agent itself is not given.
const FLAG: &str = "--supervise";
/// Tells the agent which process has started it.
const SUPERVISOR: &str = "WEFT_SUPERVISOR";
/// An agent that lived for so long was well.
const WELL: Duration = Duration::from_secs(30);
/// Waits before the second of the starts that follow an agent that was not; doubled for each that follows, up to these.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// After so many in a row, each start costs the API server more than it brings: then up to this.
const MANY: u32 = 20;
const LONGEST_PAUSE_OF_MANY: Duration = Duration::from_secs(30);
/// How often one that stands by looks whether there is an agent.
const LOOK: Duration = Duration::from_millis(50);

/// Runs the agent with the flags of this process, until it ends by itself. `standby`: the run directory, where it is to
/// start only while no other agent has that.
pub fn run(standby: Option<&PathBuf>) -> anyhow::Result<Outcome> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(supervise(standby))
}

/// In the agent: it is not to outlive its supervisor, which the container's end kills.
pub fn end_with_supervisor() -> anyhow::Result<()> {
    let Ok(supervisor) = std::env::var(SUPERVISOR) else { return Ok(()) };
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot ask to end with the supervisor")?;
    // It may have ended before this was asked for.
    let parent = getppid().map(|parent| parent.as_raw_pid().to_string());
    anyhow::ensure!(parent.as_ref() == Some(&supervisor), "the supervisor, process {supervisor}, has ended");
    Ok(())
}

async fn supervise(standby: Option<&PathBuf>) -> anyhow::Result<Outcome> {
    let mut told =
        Told { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    let mut crashes = 0;
    // The first agent of the pod is the first container's. Later there has been one, even if it was not seen.
    let mut seen = false;
    loop {
        if let Some(run_dir) = standby {
            tokio::select! {
                () = vacancy(run_dir, seen) => {}
                _ = told.next() => return Ok(Outcome::Good),
            }
            tracing::warn!("no agent is there: standing in for it");
            seen = true;
        }
        let started = Instant::now();
        let mut agent = start()?;
        let mut told_to_end = false;
        let status = loop {
            let signal = tokio::select! {
                status = agent.wait() => break status?,
                signal = told.next() => signal,
            };
            told_to_end = true;
            pass_on(&agent, signal);
        };
        let killer = status.signal();
        // It has said by itself what was wrong; one that stands by is followed, or was not the first to come.
        if killer.is_none() && (standby.is_none() || told_to_end) {
            return Ok(if status.success() { Outcome::Good } else { Outcome::Bad });
        }
        // An agent that was to end has a successor, from which nothing may be taken back.
        anyhow::ensure!(!told_to_end, "signal {} ended the agent before it had drained", killer.unwrap_or(0));
        crashes = if status.success() || started.elapsed() > WELL { 1 } else { crashes + 1 };
        if let Some(killer) = killer {
            tracing::error!(signal = killer, lived = ?started.elapsed(), crashes, "the agent was killed; starting it again");
        }
        tokio::select! {
            () = tokio::time::sleep(pause(crashes)) => {}
            _ = told.next() => return Ok(Outcome::Good),
        }
    }
}

/// How long to wait before an agent is started again that has been killed so often in a row.
fn pause(crashes: u32) -> Duration {
    let longest = if crashes < MANY { LONGEST_PAUSE } else { LONGEST_PAUSE_OF_MANY };
    let doubled = |times: u32| PAUSE.saturating_mul(2_u32.saturating_pow(times));
    match crashes {
        0 | 1 => Duration::ZERO,
        2..MANY => doubled(crashes - 2).min(longest),
        _ => (LONGEST_PAUSE * 2_u32.saturating_pow(crashes - MANY)).min(longest),
    }
}

/// Signals by which this process is told to end.
struct Told {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Told {
    /// Waits for one. Cancel-safe.
    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.interrupt.recv() => Signal::INT,
        }
    }
}

/// Waits until an agent has had the run directory (`seen`: that has been so), and none has it any more. Cancel-safe.
async fn vacancy(run_dir: &Path, mut seen: bool) {
    let mut told = false;
    loop {
        let taken = weft_node::agent::is_run_dir_taken(run_dir);
        if seen && !taken {
            return;
        }
        if taken && !std::mem::replace(&mut told, true) {
            tracing::info!("an agent is there: standing by");
        }
        seen |= taken;
        tokio::time::sleep(LOOK).await;
    }
}

fn start() -> anyhow::Result<Child> {
    let flags = std::env::args_os().skip(1).filter(|flag| flag != FLAG);
    Command::new("/proc/self/exe")
        .arg0(std::env::args_os().next().as_deref().unwrap_or(OsStr::new("weft")))
        .args(flags)
        .env_remove("WEFT_SUPERVISE")
        .env(SUPERVISOR, std::process::id().to_string())
        .spawn()
        .context("cannot start the agent")
}

fn pass_on(agent: &Child, signal: Signal) {
    // Gone already: its end is about to be seen.
    if let Some(id) = agent.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        let _ = kill_process(id, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_agent_is_started_within_a_second_until_that_has_become_a_habit() {
        assert_eq!(pause(1), Duration::ZERO);
        let seconds: Vec<f32> = (2..7).map(|crashes| pause(crashes).as_secs_f32()).collect();
        assert_eq!(seconds, [0.2, 0.4, 0.8, 1.0, 1.0]);
        assert!((1..=MANY).all(|crashes| pause(crashes) <= LONGEST_PAUSE));
        assert_eq!(pause(MANY + 1), LONGEST_PAUSE * 2);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE_OF_MANY);
    }
}
