//! The predecessor's side: who may take over, and what it is given.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;
use weft_common::LAYOUT_VERSION;
use weft_datapath::LocalPod;
use weft_proxy::Lent;

use super::State;
use super::wire::{Hello, Message, PROTOCOL, PodMessage, Welcome};
use crate::agent::{self, Doors, Shared};
use crate::channel::{Channel, FILES, borrow};

/// For a successor to say who it is, or to take a message.
const ANSWER: Duration = Duration::from_secs(5);
/// For a successor to put everything that it was given in place.
const COMMIT: Duration = Duration::from_mins(1);

/// A successor is prepared, and asks.
#[derive(Debug)]
pub struct Request {
    channel: Channel,
    /// The agent's own sockets.
    pub doors: Arc<Doors>,
    /// Hears whether everything is the successor's now. The channel must live as long as this process.
    reply: oneshot::Sender<bool>,
}

/// Lets successors in, one at a time, on a thread of its own.
pub fn listen(doors: &Arc<Doors>, shared: Arc<Shared>) -> io::Result<()> {
    let listener = doors.handover()?;
    let doors = Arc::downgrade(doors);
    std::thread::Builder::new().name("weft-handover".to_owned()).spawn(move || {
        loop {
            let served =
                Channel::accept(listener.as_fd()).and_then(|channel| serve(channel, &doors, &shared));
            match served {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "an agent that wanted to take over has failed");
                    // Should the listener itself be broken, this is not to burn a core.
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    })?;
    Ok(())
}

/// Serves one successor. True: it has taken over.
fn serve(channel: Channel, doors: &Weak<Doors>, shared: &Arc<Shared>) -> io::Result<bool> {
    let peer = channel.peer()?;
    if peer.uid != rustix::process::geteuid() {
        return refuse(&channel, "it is another user's".to_owned());
    }
    channel.limit_sending(ANSWER)?;
    let hello = match channel.receive(Some(ANSWER))? {
        Some((Message::Hello(hello), _)) => hello,
        Some(_) => return Err(io::Error::other("it does not say who it is")),
        None => return Ok(false),
    };
    let Some(doors) = doors.upgrade() else { return refuse(&channel, "it is ending".to_owned()) };
    if let Some(why) = objection(&hello, shared) {
        return refuse(&channel, why);
    }
    let id = peer.pid.as_raw_nonzero();
    let (names, _) = doors.lend(&shared.options)?;
    let welcome =
        Welcome { version: agent::VERSION.to_owned(), pod: shared.options.pod.clone(), doors: names };
    channel.send(&Message::Welcome(welcome), &[])?;
    tracing::info!(process = id, version = hello.version, "an agent prepares to take over");
    // Whoever asks for readiness at this node's port means the successor by now; unless that is in another container of
    // the same pod, which is as ready as this agent is: without an API server, it may prepare for long.
    let pod = shared.options.pod.as_ref();
    let waiting = (pod.is_none() || pod != hello.pod.as_ref())
        .then(|| shared.readiness.hold("the agent that takes over"));
    shared.succession.set(State::Preparing);
    let outcome = hand_over(channel, doors, shared);
    drop(waiting);
    // When it has, `give` has said so.
    if !matches!(outcome, Ok(true)) {
        shared.succession.set(State::None);
    }
    if matches!(outcome, Ok(false)) {
        tracing::warn!(process = id, "the agent that was to take over has ended before; serving on");
    }
    outcome
}

fn hand_over(channel: Channel, doors: Arc<Doors>, shared: &Shared) -> io::Result<bool> {
    match channel.receive(None)? {
        Some((Message::Ask, _)) => {}
        Some(_) => return Err(io::Error::other("it does not ask")),
        None => return Ok(false),
    }
    let (reply, outcome) = oneshot::channel();
    let ended = |_| io::Error::other("this agent is ending");
    shared
        .control
        .send(agent::Message::HandOver(Request { channel, doors, reply }))
        .map_err(|_| io::Error::other("this agent is ending"))?;
    outcome.blocking_recv().map_err(ended)
}

fn refuse(channel: &Channel, why: String) -> io::Result<bool> {
    tracing::warn!(why, "an agent that wanted to take over was refused");
    channel.send(&Message::Refused(why), &[])?;
    Ok(false)
}

/// Why an agent cannot follow this one.
fn objection(hello: &Hello, shared: &Shared) -> Option<String> {
    let options = &shared.options;
    if hello.protocol != PROTOCOL {
        return Some(format!("it speaks version {PROTOCOL} of the handover, not {}", hello.protocol));
    }
    if hello.layout != LAYOUT_VERSION {
        return Some(format!(
            "its kernel maps have layout {LAYOUT_VERSION}, not {}: stop it, and start the other one after it; pods fail closed in between",
            hello.layout
        ));
    }
    if hello.node != options.node {
        return Some(format!("it serves node {}, not {}", options.node, hello.node));
    }
    if hello.bpf_dir != options.bpf_dir {
        return Some(format!("it pins at {}, not at {}", options.bpf_dir.display(), hello.bpf_dir.display()));
    }
    if shared.succession.has_followed(hello.pod.as_deref()) {
        return Some("it has taken over from this very pod before, which only waits for its end".to_owned());
    }
    None
}

/// Gives everything to the successor that asked, and waits until it serves: then the succession is done. `Err` hears why it
/// does not: then all is as before.
pub fn give(request: Request, shared: &Shared, pods: &[Arc<LocalPod>], lent: &[Lent]) -> io::Result<()> {
    let Request { channel, doors, reply } = request;
    let files = doors.lend(&shared.options);
    let outcome = files.and_then(|doors| send_all(&channel, doors, pods, lent)).and_then(|()| match channel
        .receive(Some(COMMIT))?
    {
        Some((Message::Taken, _)) => Ok(()),
        Some(_) => Err(io::Error::other("it does not say that it serves")),
        None => Err(io::Error::other("it has ended")),
    });
    if outcome.is_ok() {
        doors.leave();
        // It hears of this process's end by the channel's.
        if let Err(error) = channel.send(&Message::Released, &[]) {
            tracing::warn!(%error, "the agent that took over has ended");
        }
        std::mem::forget(channel);
        // Here and not where the reply is heard: what the caller does next, this agent's end too, comes after it.
        shared.succession.set(State::Done);
    }
    let _ = reply.send(outcome.is_ok());
    outcome
}

fn send_all(
    channel: &Channel,
    (names, files): (Vec<String>, Vec<OwnedFd>),
    pods: &[Arc<LocalPod>],
    lent: &[Lent],
) -> io::Result<()> {
    channel.send(&Message::Doors(names), &borrow(&files))?;
    for pod in pods {
        let message = PodMessage {
            key: pod.network.key.to_string(),
            cookie: pod.cookie,
            netns: PathBuf::clone(&pod.network.netns),
            addresses: pod.network.addresses.clone(),
        };
        channel.send(&Message::Pod(message), &[pod.netns()])?;
    }
    for some in lent.chunks(FILES) {
        let places = some.iter().map(|(place, _)| (place.cookie, place.kind, place.worker)).collect();
        let files: Vec<_> = some.iter().map(|(_, file): &(_, OwnedFd)| file.as_fd()).collect();
        channel.send(&Message::Listeners(places), &files)?;
    }
    channel.send(&Message::End, &[])
}
