//! Taking over from an agent that runs, and handing over to one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use weft_api::causes;
use weft_datapath::LocalPod;
use weft_proxy::{Command, Lent};

use super::Control;
use crate::agent::handover::{self, Predecessor, Request, State};
use crate::agent::pods::{self, Enrolled};
use crate::agent::run_dir::RunDir;
use crate::agent::{AgentError, Doors, Message, Public};

/// How often an agent that prepares to take over looks whether it is prepared.
pub(super) const PREPARING: Duration = Duration::from_millis(25);
/// How long certificates are waited for, where there are some.
const CERTIFICATES: Duration = Duration::from_secs(30);
/// For a worker to lend its listeners.
const LENDING: Duration = Duration::from_secs(10);
/// How long a dead agent may keep its files.
const ENDING: Duration = Duration::from_secs(5);
/// After the drain's time is over, for requests that are under way.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// What an agent has that is going to take over.
#[derive(Debug)]
pub struct Succeeding {
    /// From whom.
    pub predecessor: Predecessor,
    /// Sockets of its own.
    pub public: Public,
    /// Gets all of them.
    pub opened: oneshot::Sender<Doors>,
}

/// An agent that has handed over, and serves the connections that it has.
#[derive(Debug)]
pub(super) struct Retired {
    /// Its last connection has ended.
    empty: bool,
    /// When it ends at the latest; `None`: as long as nobody tells it to.
    until: Option<Instant>,
}

impl Control {
    /// Takes over when everything is prepared that can be. True: it has.
    pub(super) fn succeed(&mut self) -> Result<bool, AgentError> {
        let Some(succeeding) = &self.succeeding else { return Ok(false) };
        let waits = succeeding.predecessor.waits();
        if waits && !self.is_prepared() {
            return Ok(false);
        }
        let Some(Succeeding { predecessor, public, opened }) = self.succeeding.take() else {
            return Ok(false);
        };
        let began = Instant::now();
        let estate = if waits { predecessor.ask()? } else { None };
        let Some(estate) = estate else {
            tracing::warn!("the agent that was to hand over has ended: going on as after a crash");
            let _ = opened.send(self.reopen()?);
            return Ok(true);
        };
        let doors = Doors::take_over(&self.shared.options, public, estate.doors)?;
        let mut arrivals = Vec::new();
        for standing in estate.pods {
            let key = standing.network.key.clone();
            let adopted = self.datapath.adopt(standing);
            match adopted
                .map(|(pod, listeners)| pods::netns_of(pod.netns()).map(|netns| (pod, netns, listeners)))
            {
                Ok(Ok((pod, netns, listeners))) => {
                    let uid = self.local.get(&key).map(|pod| pod.uid.clone()).unwrap_or_default();
                    self.enrolled.insert(key, Enrolled { pod: pod.clone(), netns, uid, joins: None });
                    arrivals.push((pod, listeners));
                }
                Ok(Err(error)) => tracing::warn!(pod = %key, %error, "cannot be taken over"),
                Err(error) => tracing::warn!(pod = %key, error = causes::all(&error), "cannot be taken over"),
            }
        }
        self.want_certificates();
        self.unconfirmed = true;
        self.publish_pods();
        predecessor.taken()?;
        let pods = arrivals.len();
        self.serve(arrivals);
        self.shared.succession.follows(predecessor.welcome().pod.as_deref());
        let _ = opened.send(doors);
        tracing::info!(pods, took = ?began.elapsed(), version = predecessor.welcome().version, "has taken over");
        self.await_end(predecessor)?;
        Ok(true)
    }

    /// Whether there is all that was to be prepared.
    fn is_prepared(&mut self) -> bool {
        if !self.source.waiting_for().is_empty() {
            return false;
        }
        if !self.shared.credentials.on_their_way().is_empty() && self.started.elapsed() < CERTIFICATES {
            return false;
        }
        let Some(identities) = self.shared.identities.clone() else { return true };
        self.want_certificates_of(self.desired.keys());
        let wanted = identities.wanted();
        let there = identities.ends().len();
        let patient = self.started.elapsed() < CERTIFICATES;
        if there < wanted && !patient && self.warned_at.is_none_or(|at| at.elapsed() > CERTIFICATES) {
            self.warned_at = Some(Instant::now());
            let waits = if there == 0 {
                "the agent before serves on until there are some"
            } else {
                "going on without the others"
            };
            tracing::warn!(there, wanted, "certificates are missing: {waits}");
        }
        there >= wanted || (there > 0 && !patient)
    }

    /// Goes on alone, after an agent that has died.
    fn reopen(&mut self) -> Result<Doors, AgentError> {
        let options = &self.shared.options;
        let began = std::time::Instant::now();
        let run_dir = loop {
            match RunDir::take(&options.run_dir) {
                Err(_) if began.elapsed() < ENDING => std::thread::sleep(PREPARING),
                other => break other?,
            }
        };
        // Whoever cannot reach the agent yet is found in what is pinned.
        let doors = Doors::open(options, run_dir)?;
        self.datapath.take_over()?;
        self.learn_enclosed();
        Ok(doors)
    }

    fn await_end(&mut self, predecessor: Predecessor) -> Result<(), AgentError> {
        self.follows = true;
        self.claimed = true;
        let control = self.shared.control.clone();
        let wait = move || {
            predecessor.wait();
            let _ = control.send(Message::PredecessorEnded);
        };
        let thread = std::thread::Builder::new().name("weft-before".to_owned()).spawn(wait);
        thread.map(drop).map_err(|source| AgentError::Start { what: "a thread", source })
    }

    /// The agent from which this one has taken over has ended.
    pub(super) fn predecessor_ended(&mut self) {
        tracing::info!("the agent that handed over has ended");
        self.follows = false;
        if self.retired.is_some() {
            return;
        }
        match self.datapath.predecessor_ended() {
            // What plugins had closed before it was not handed over.
            Ok(()) => self.learn_enclosed(),
            Err(error) => {
                tracing::warn!(
                    error = causes::all(&error),
                    "what the agent before has left cannot be removed"
                );
            }
        }
        self.claimed = false;
    }

    /// Hands everything to a successor, which asks for it. Should that fail, everything is as before.
    pub(super) async fn hand_over(&mut self, request: Request) {
        let pods: Vec<Arc<LocalPod>> = self.datapath.pods().cloned().collect();
        let given = match self.lend().await {
            Ok(lent) => handover::give(request, &self.shared, &pods, &lent),
            Err(error) => Err(error),
        };
        if let Err(error) = given {
            tracing::warn!(%error, "the agent that was to take over has failed; serving on");
            return;
        }
        self.datapath.hand_over();
        let mut ends = Vec::new();
        for worker in &self.workers {
            let (emptied, end) = oneshot::channel();
            let _ = worker.commands.send(Command::Retire { emptied });
            ends.push(end);
        }
        let control = self.shared.control.clone();
        tokio::spawn(async move {
            for end in ends {
                // A worker that has ended has no connections.
                let _ = end.await;
            }
            let _ = control.send(Message::Emptied);
        });
        // In a pod, an end would be taken for a crash, and a container be started again.
        let stays = self.shared.options.pod.is_some() && !self.shared.options.stands_by;
        let drain = self.shared.options.drain_replaced();
        let until = (!stays).then(|| Instant::now() + drain);
        tracing::info!(pods = pods.len(), ?drain, "handed over; draining");
        self.retired = Some(Retired { empty: false, until });
    }

    /// Duplicates of all listeners in pods.
    async fn lend(&self) -> std::io::Result<Vec<Lent>> {
        let mut all = Vec::new();
        for worker in &self.workers {
            let (reply, lent) = oneshot::channel();
            let silent = || std::io::Error::other("a worker does not answer");
            worker.commands.send(Command::Lend(reply)).map_err(|_| silent())?;
            all.extend(timeout(LENDING, lent).await.map_err(|_| silent())?.map_err(|_| silent())??);
        }
        Ok(all)
    }

    /// No connection is left here.
    pub(super) fn emptied(&mut self) {
        if let Some(retired) = &mut self.retired {
            retired.empty = true;
            tracing::info!("the last connection has ended");
        }
    }

    /// Somebody tells the agent to end. True: at once; false: it has handed over, and drains a while.
    pub(super) fn told_to_end(&mut self) -> bool {
        let drain = self.shared.options.drain_replaced();
        let Some(retired) = &mut self.retired else { return true };
        retired.until.get_or_insert(Instant::now() + drain);
        false
    }

    /// Whether this agent has handed over, and nothing keeps it.
    pub(super) fn is_over(&self) -> bool {
        self.retired.as_ref().is_some_and(|retired| {
            let until = retired.until;
            until.is_some_and(|until| until <= Instant::now() || (retired.empty && !self.follows))
        })
    }

    /// When to look again whether it is over.
    pub(super) fn over_at(&self) -> Option<Instant> {
        self.retired.as_ref()?.until
    }

    /// Ends after a handover: connections that are still there are cut.
    pub(super) fn last_answers(&self) -> Option<Duration> {
        let retired = self.retired.as_ref()?;
        debug_assert_eq!(self.shared.succession.state(), State::Done);
        Some(if retired.empty { Duration::ZERO } else { LAST_ANSWERS })
    }
}
