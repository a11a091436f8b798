//! What the API server is told of this node's pods: their condition `weft.dev/Enrolled`, by which other nodes decide
//! whether to use mutual TLS.
//!
//! A pod is announced after it is in the mesh, and leaves the mesh after the announcement was taken back and the other
//! nodes had time to see it: so nobody ever speaks TLS to a pod that does not. Meanwhile some still, or again, speak plain
//! text to one that does: it lets them in, as it did outside of the mesh.

mod write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use weft_rules::workload::Announced;

pub use self::write::{Order, keep};

/// How long other nodes need to see that an announcement was taken back.
pub const GRACE: Duration = Duration::from_millis(500);
/// A pod whose condition is other than was written for so long was written to by somebody else.
const OVERWRITTEN: Duration = Duration::from_secs(5);

/// What is true of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Tells the pod from others of its name.
    pub uid: Arc<str>,
    /// Whether it is in the mesh.
    pub enrolled: bool,
    /// In one word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Statement {
    /// What the condition says then.
    fn as_announced(&self) -> Announced {
        if self.enrolled { Announced::Enrolled } else { Announced::Left }
    }
}

/// A pod of this node, and what should be said of it.
#[derive(Debug)]
pub struct Subject {
    /// What is true; `None`: it is not time to say anything.
    pub truth: Option<Statement>,
    /// Tells the pod from others of its name.
    pub uid: Arc<str>,
    /// What its condition says as far as the watch has seen.
    pub carried: Option<Announced>,
}

/// The server has taken a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// `namespace/name`.
    pub key: Arc<str>,
    /// What it was.
    pub statement: Statement,
}

#[derive(Debug)]
struct Told {
    statement: Statement,
    /// Since when the server knows.
    taken: Option<Instant>,
}

/// What was said of each pod.
#[derive(Debug)]
pub struct Announcements {
    told: BTreeMap<Arc<str>, Told>,
    orders: mpsc::UnboundedSender<Order>,
}

impl Announcements {
    /// Nothing was said yet; `orders` are carried out by [`keep`].
    pub fn new(orders: mpsc::UnboundedSender<Order>) -> Self {
        Self { told: BTreeMap::new(), orders }
    }

    /// Says what is true of all pods of this node, where the server knows otherwise.
    pub fn say(&mut self, subjects: BTreeMap<Arc<str>, Subject>, now: Instant) {
        self.told.retain(|key, _| {
            let stays = subjects.contains_key(key);
            if !stays {
                let _ = self.orders.send(Order::Forget(key.clone()));
            }
            stays
        });
        for (key, subject) in subjects {
            let told = self.told.get(&key).filter(|told| told.statement.uid == subject.uid);
            let Some(truth) = subject.truth else { continue };
            let known = match told {
                Some(told) if told.statement == truth => {
                    let settled =
                        told.taken.is_some_and(|at| now.saturating_duration_since(at) > OVERWRITTEN);
                    if !settled || subject.carried == Some(truth.as_announced()) {
                        continue;
                    }
                    subject.carried
                }
                Some(told) => Some(told.statement.as_announced()),
                None if subject.carried == Some(truth.as_announced()) => {
                    self.told.insert(key, Told { statement: truth, taken: Some(now) });
                    continue;
                }
                None => subject.carried,
            };
            let turns = known != Some(truth.as_announced());
            let _ = self.orders.send(Order::Write { key: key.clone(), statement: truth.clone(), turns });
            self.told.insert(key, Told { statement: truth, taken: None });
        }
    }

    /// Takes note that the server knows.
    pub fn taken(&mut self, taken: &Taken, now: Instant) {
        if let Some(told) = self.told.get_mut(&taken.key)
            && told.statement == taken.statement
        {
            told.taken = Some(now);
        }
    }

    /// When a pod may leave the mesh; `None`: not before the server was told, which [`Self::say`] does.
    pub fn may_leave(
        &self,
        key: &str,
        uid: &str,
        carried: Option<Announced>,
        now: Instant,
    ) -> Option<Instant> {
        match self.told.get(key).filter(|told| *told.statement.uid == *uid) {
            Some(told) if told.statement.enrolled => None,
            Some(told) => told.taken.map(|at| at + GRACE),
            None if carried.is_some_and(Announced::is_called) => None,
            None => Some(now),
        }
    }

    /// Since when the server knows that a pod is in the mesh; `None`: it does not.
    pub fn known_to_join(&self, key: &str, uid: &str) -> Option<Instant> {
        let told = self.told.get(key).filter(|told| *told.statement.uid == *uid);
        told.filter(|told| told.statement.enrolled)?.taken
    }

    /// Whether the server knows all that was said.
    pub fn all_taken(&self) -> bool {
        self.told.values().all(|told| told.taken.is_some())
    }

    /// The statement of a pod that is in force.
    pub fn told(&self, key: &str) -> Option<&Statement> {
        self.told.get(key).map(|told| &told.statement)
    }
}

#[cfg(test)]
mod tests;
