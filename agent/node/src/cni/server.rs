//! Takes what plugins say to the control thread, and its answers back.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::{mpsc, oneshot};

use super::protocol::{Answer, Pod, Request};
use crate::agent::Message;
use crate::channel::Channel;

/// For a plugin to say what it wants, or to take an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether it is over.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// After an accept that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Something that a plugin tells the control thread.
#[derive(Debug)]
pub enum Told {
    /// A pod has its network.
    Add {
        /// The pod.
        pod: Pod,
        /// Its network namespace.
        netns: OwnedFd,
        /// Hears when it is in the mesh, or why it is not.
        reply: oneshot::Sender<Answer>,
    },
    /// The plugin has closed a pod, which waits to be enrolled or let go.
    Enclosed {
        /// The pod.
        pod: Pod,
        /// Its network namespace.
        netns: OwnedFd,
    },
    /// A pod's network goes.
    Delete {
        /// The pod.
        pod: Pod,
        /// Its network namespace, where that is there still.
        netns: Option<OwnedFd>,
        /// Hears when what the agent has open there is closed.
        reply: oneshot::Sender<Answer>,
    },
}

/// Serves plugins, each on a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Server {
    /// Serves those that come to `listener`, which does not block: another agent may accept from it, too.
    pub fn start(listener: OwnedFd, control: mpsc::UnboundedSender<Message>) -> io::Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        std::thread::Builder::new().name("weft-cni".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let mut fds = [PollFd::new(&listener, PollFlags::IN)];
                // Whatever is wrong with it, accepting tells.
                let _ = poll(&mut fds, Some(&LOOK));
                match Channel::accept(listener.as_fd()) {
                    Ok(channel) => spawn(channel, control.clone()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a CNI plugin");
                        std::thread::sleep(PAUSE);
                    }
                }
            }
        })?;
        Ok(Self { stop })
    }
}

fn spawn(channel: Channel, control: mpsc::UnboundedSender<Message>) {
    let work = move || {
        if let Err(error) = one(&channel, &control) {
            tracing::warn!(%error, "a CNI plugin was not served");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("weft-cni-pod".to_owned()).spawn(work) {
        tracing::warn!(%error, "a CNI plugin was not served");
    }
}

fn one(channel: &Channel, control: &mpsc::UnboundedSender<Message>) -> io::Result<()> {
    if channel.peer()?.uid != rustix::process::geteuid() {
        return Err(io::Error::other("it is another user's"));
    }
    channel.limit_sending(PATIENCE)?;
    let Some((request, files)) = channel.receive(Some(PATIENCE))? else { return Ok(()) };
    let netns = files.into_iter().next().ok_or_else(|| io::Error::other("no network namespace"));
    let answer = match request {
        Request::Status => Answer::Done,
        Request::Enclosed(pod) => {
            let _ = control.send(Message::Cni(Told::Enclosed { pod, netns: netns? }));
            Answer::Done
        }
        Request::Delete(pod) => {
            let (reply, answer) = oneshot::channel();
            let netns = netns.ok();
            // It answers in time. An agent that ends has closed all.
            match control.send(Message::Cni(Told::Delete { pod, netns, reply })) {
                Ok(()) => answer.blocking_recv().unwrap_or(Answer::Done),
                Err(_) => Answer::Done,
            }
        }
        Request::Add(pod) => {
            let netns = netns?;
            let (reply, answer) = oneshot::channel();
            let ending = || Answer::NotYet("the agent is ending".to_owned());
            // It answers in time.
            match control.send(Message::Cni(Told::Add { pod, netns, reply })) {
                Ok(()) => answer.blocking_recv().unwrap_or_else(|_| ending()),
                Err(_) => ending(),
            }
        }
    };
    channel.send(&answer, &[])
}
