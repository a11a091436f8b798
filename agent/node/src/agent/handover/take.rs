//! The successor's side.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};
use weft_common::LAYOUT_VERSION;

use super::estate::Estate;
use super::wire::{Hello, Message, PROTOCOL, Welcome};
use crate::agent::{AgentOptions, VERSION};
use crate::channel::Channel;

/// For the other agent to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Why an agent cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// Nobody listens, or somebody who does not speak this.
    #[error(
        "the agent{holder} that uses the run directory cannot be asked to hand over (if it is of an older version, or busy \
         with another successor, stop it first)"
    )]
    Unreachable {
        /// ` (pid N)`, if known.
        holder: String,
        /// Why.
        source: io::Error,
    },
    /// It does not want to.
    #[error("the agent{holder} that uses the run directory does not hand over: {why}")]
    Refused {
        /// ` (pid N)`, if known.
        holder: String,
        /// Why.
        why: String,
    },
    /// It is there, and does not go on.
    #[error("the agent that was to hand over has given up, and serves on")]
    GivenUp(#[source] io::Error),
}

/// An agent that runs, and is going to hand over.
#[derive(Debug)]
pub struct Predecessor {
    channel: Channel,
    welcome: Welcome,
    process: Option<OwnedFd>,
}

impl Predecessor {
    /// Tells the agent that listens at `socket` who wants to follow it.
    pub fn greet(socket: &Path, holder: &str, options: &AgentOptions) -> Result<Self, HandoverError> {
        let hello = Hello {
            protocol: PROTOCOL,
            version: VERSION.to_owned(),
            layout: LAYOUT_VERSION,
            node: options.node.clone(),
            bpf_dir: options.bpf_dir.clone(),
            pod: options.pod.clone(),
        };
        let greeted = || -> io::Result<_> {
            let channel = Channel::connect(socket)?;
            let process = pidfd_open(channel.peer()?.pid, PidfdFlags::empty()).ok();
            channel.send(&Message::Hello(hello), &[])?;
            let answer = channel.receive(Some(ANSWER))?;
            Ok((channel, process, answer.map(|(message, _)| message)))
        };
        let unreachable = |source| HandoverError::Unreachable { holder: holder.to_owned(), source };
        match greeted().map_err(unreachable)? {
            (channel, process, Some(Message::Welcome(welcome))) => Ok(Self { channel, welcome, process }),
            (_, _, Some(Message::Refused(why))) => {
                Err(HandoverError::Refused { holder: holder.to_owned(), why })
            }
            _ => Err(unreachable(io::Error::other("it does not answer as it should"))),
        }
    }

    /// What it has said of itself.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Whether it is there, waiting to be asked.
    pub fn waits(&self) -> bool {
        self.channel.is_quiet()
    }

    /// Asks for everything. `None`: it has ended, and nobody serves.
    pub fn ask(&self) -> Result<Option<Estate>, HandoverError> {
        match self.channel.send(&Message::Ask, &[]).and_then(|()| self.receive_all()) {
            Ok(estate) => Ok(Some(estate)),
            Err(error) => self.is_over(error).map(|()| None),
        }
    }

    fn receive_all(&self) -> io::Result<Estate> {
        let mut estate = Estate::default();
        loop {
            let Some((message, files)) = self.channel.receive(Some(ANSWER))? else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            if estate.take(message, files)? {
                return Ok(estate);
            }
        }
    }

    /// Says that everything serves. From here on nobody else does, whatever the answer.
    pub fn taken(&self) -> Result<(), HandoverError> {
        let released =
            self.channel.send(&Message::Taken, &[]).and_then(|()| self.channel.receive(Some(ANSWER)));
        match released {
            Ok(Some((Message::Released, _))) => Ok(()),
            Ok(Some(_)) => self.is_over(io::Error::other("it answers something else")),
            Ok(None) => self.is_over(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => self.is_over(error),
        }
    }

    /// Whether the process has ended: then an error of the connection means no more than that.
    fn is_over(&self, error: io::Error) -> Result<(), HandoverError> {
        let Some(process) = &self.process else { return Ok(()) };
        let mut process = [PollFd::new(process, PollFlags::IN)];
        // A process that is ending closes its connections first.
        let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
        match poll(&mut process, Some(&patience)) {
            Ok(0) => Err(HandoverError::GivenUp(error)),
            _ => Ok(()),
        }
    }

    /// Waits for its end, however long that takes.
    pub fn wait(self) {
        while let Ok(Some(_)) = self.channel.receive::<Message>(None) {}
    }
}
