//! `weft agent --supervise`: an agent that is killed is there again at once.
//!
//! The kubelet looks at its containers once a second, and lets those wait that end more than once in ten minutes; pods in
//! the mesh are cut off meanwhile. So the container's first process does nothing but start the agent, and start it
//! again when a signal has ended it. An agent that ends by itself has said why: its code is passed on.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
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
/// How often one that was not is started again before the kubelet is left to deal with it.
const CRASHES: u32 = 5;
/// Waits before the second of these starts; doubled for each that follows.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs the agent with the flags of this process, until it ends by itself or crashes again and again.
pub fn run() -> anyhow::Result<Outcome> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(supervise())
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

async fn supervise() -> anyhow::Result<Outcome> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (mut crashes, mut told_to_end) = (0, false);
    loop {
        let started = Instant::now();
        let mut agent = start()?;
        let status = loop {
            let told = tokio::select! {
                status = agent.wait() => break status?,
                _ = terminate.recv() => Signal::TERM,
                _ = interrupt.recv() => Signal::INT,
            };
            told_to_end = true;
            pass_on(&agent, told);
        };
        let Some(killer) = status.signal() else {
            // It has said by itself what was wrong.
            return Ok(if status.success() { Outcome::Good } else { Outcome::Bad });
        };
        // An agent that was to end has a successor, from which nothing may be taken back.
        anyhow::ensure!(!told_to_end, "signal {killer} ended the agent before it had drained");
        crashes = if started.elapsed() > WELL { 1 } else { crashes + 1 };
        anyhow::ensure!(crashes <= CRASHES, "signal {killer} ended the agent {crashes} times in a row");
        tracing::error!(signal = killer, lived = ?started.elapsed(), "the agent was killed; starting it again");
        if crashes > 1 {
            tokio::time::sleep(PAUSE * 2_u32.pow(crashes - 2)).await;
        }
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
