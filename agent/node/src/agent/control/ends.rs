//! Pods that end, and certificates that are revoked: connections hear of it in time.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::timeout;
use weft_datapath::{Life, LocalPod};
use weft_proxy::Command;
use weft_rules::workload::{Enrolment, Workload};

use super::Control;
use crate::agent::pods;
use crate::cni::protocol::{Answer, CLOSING, Pod};

impl Control {
    /// Has the connections of pods that are being ended, or have ended, know of it.
    pub(super) fn note_ends(&self) {
        for (key, enrolled) in &self.enrolled {
            let object = self.local.get(key).filter(|pod| pod.uid == enrolled.uid);
            let life = life_of(object.map(AsRef::as_ref));
            if enrolled.pod.set_life(life) {
                tracing::debug!(pod = %key, ?life, "the pod's life has gone on");
                self.go_on(&enrolled.pod);
            }
        }
    }

    /// Tells the workers where other certificates are revoked than before.
    pub(super) fn end_revoked(&mut self) {
        let revoked = self.shared.identities.as_ref().map(|identities| identities.revoked());
        if self.revoked != revoked {
            self.revoked = revoked;
            for worker in &self.workers {
                let _ = worker.commands.send(Command::EndRevoked);
            }
        }
    }

    fn go_on(&self, pod: &Arc<LocalPod>) -> Vec<oneshot::Receiver<()>> {
        let tell = |worker: &weft_proxy::Worker| {
            let (done, closed) = oneshot::channel();
            let _ = worker.commands.send(Command::GoOn { pod: Arc::clone(pod), done: Some(done) });
            closed
        };
        self.workers.iter().map(tell).collect()
    }

    /// A pod's network goes: what is open there is closed while those at the other ends can hear of it.
    pub(super) fn network_goes(
        &mut self,
        pod: &Pod,
        netns: Option<&OwnedFd>,
        reply: oneshot::Sender<Answer>,
    ) {
        let key = pod.key();
        let id = netns.and_then(|netns| pods::netns_of(netns.as_fd()).ok());
        let enrolled = self.enrolled.get(&*key).filter(|enrolled| match id {
            Some(id) => enrolled.netns == id,
            None => self.told.is_told(pod),
        });
        let closing = match enrolled {
            Some(enrolled) if enrolled.pod.set_life(Life::Gone) => self.go_on(&enrolled.pod),
            _ => Vec::new(),
        };
        self.told.forget(pod);
        tokio::spawn(async move {
            let closed = async {
                for worker in closing {
                    // A worker that has ended has no connections.
                    let _ = worker.await;
                }
            };
            if timeout(CLOSING, closed).await.is_err() {
                tracing::warn!(pod = %key, "its network goes, and connections are open there still");
            }
            let _ = reply.send(Answer::Done);
        });
    }
}

/// How far the life of a pod is, by its object; `None`: it has none any more.
fn life_of(object: Option<&Workload>) -> Life {
    match object {
        Some(pod) if pod.enrolment == Enrolment::NotRunning => Life::Ended,
        Some(pod) if pod.terminating => Life::Ending,
        Some(_) => Life::Serving,
        None => Life::Ended,
    }
}
