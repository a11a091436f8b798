//! `weft relay`: standard input and output to an agent's socket, for commands on another machine.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;

use anyhow::Context;
use clap::Args;

use crate::client::{Unreachable, socket};
use crate::output::Outcome;

/// Speaks to the agent of this run directory for whoever is at the other end of standard input and output: this is what the
/// commands run in an agent's pod, by `kubectl exec`.
#[derive(Debug, Args)]
pub struct RelayArgs {
    /// Run directory of the agent
    #[arg(long, value_name = "DIR", env = "WEFT_RUN_DIR", default_value = "/run/weft")]
    run_dir: PathBuf,
}

impl RelayArgs {
    /// Relays until the agent has said everything, or nobody listens.
    pub fn run(&self) -> anyhow::Result<Outcome> {
        let mut agent = UnixStream::connect(socket(&self.run_dir))
            .map_err(|source| Unreachable::new(&self.run_dir, source))?;
        // Not Rust's own handles: those keep back what is no full line.
        let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let mut questions = agent.try_clone()?;
        // It ends with the process: the end of the questions is not the end of the answers.
        thread::Builder::new()
            .name("weft-questions".into())
            .spawn(move || copy(&mut input, &mut questions))?;
        copy(&mut agent, &mut output).context("cannot relay")?;
        Ok(Outcome::Good)
    }
}

/// Passes on what there is as it comes.
///
/// Not `io::copy`, which splices where it can: splice(2) keeps a pipe locked while it waits for a socket, and what the pipe
/// holds by then cannot be read until the socket says more.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
