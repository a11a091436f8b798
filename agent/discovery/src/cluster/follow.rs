//! What each watch brings, in batches, to the control thread and into the file that is kept; and what that file holds, when
//! the server says nothing to an agent that starts.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::Client;
use tokio::sync::{Semaphore, watch as watch_channel};
use weft_api::kinds::Kind;
use weft_rules::compile::Change;

use super::contact::Contact;
use super::item::Item;
use super::kept::{self, Journal, Kept, KeptError};
use super::kinds::Watched;
use super::set::{Delta, Set};
use super::watch::{self, Event};
use super::{Batch, ClusterOptions, News, ON_THE_WAY, SHOWN, State, Tell};

/// Events that are taken in together, at most.
const BATCH: usize = 128;
/// A server that has not said a word for so long is taken for away by an agent that starts.
const FIRST_WORD: Duration = Duration::from_millis(1500);
/// And so is one that has not told all after so long: it may answer, and be unable to tell anything.
const FIRST_LISTS: Duration = Duration::from_secs(15);

/// What is kept, and what was.
#[derive(Debug, Clone)]
pub(super) struct Keeping {
    journal: Option<Journal>,
    /// Holds what an agent before has kept, from when it counts.
    resorted: watch_channel::Sender<Option<Arc<Kept>>>,
    /// Watches whose first lists are not complete.
    unlisted: Rc<Cell<usize>>,
    path: PathBuf,
    node: String,
}

impl Keeping {
    /// Begins to keep; and, should the server not say a word, has what was kept before count.
    pub(super) fn start(options: &ClusterOptions, watches: usize, contact: &Contact) -> Self {
        let silent = contact.clone();
        let journal = Journal::start(options.kept.clone(), &options.node, watches, move || silent.silence());
        let journal = journal.inspect_err(|error| tracing::warn!(%error, "what is known is not kept")).ok();
        let keeping = Self {
            journal,
            resorted: watch_channel::Sender::new(None),
            unlisted: Rc::new(Cell::new(watches)),
            path: options.kept.clone(),
            node: options.node.clone(),
        };
        let (late, contact) = (keeping.clone(), contact.clone());
        tokio::task::spawn_local(async move {
            tokio::time::sleep(FIRST_WORD).await;
            if !contact.has_spoken() {
                late.resort();
            }
            tokio::time::sleep(FIRST_LISTS).await;
            late.resort();
        });
        keeping
    }

    /// The server is away: what was kept counts, for watches that have had no list yet.
    pub(super) fn resort(&self) {
        if self.unlisted.get() == 0 || self.resorted.borrow().is_some() {
            return;
        }
        let file = self.path.display();
        match Kept::open(&self.path, &self.node) {
            Ok(kept) => {
                let age = kept.as_of.elapsed().unwrap_or_default();
                tracing::warn!(
                    ?age,
                    objects = kept.count(),
                    "the API server tells nothing: going on by what the agent before knew"
                );
                self.resorted.send_replace(Some(Arc::new(kept)));
            }
            Err(KeptError::File(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%file, %error, "what an agent before has kept is of no use"),
        }
    }

    fn put(&self, watch: &str, item: &Item, change: Option<&Change>) {
        if let (Some(journal), Some(Change::Put(object))) = (&self.journal, change) {
            journal.put(watch, &item.name(), &kept::text(object, item));
        }
    }

    fn listed(&self) {
        self.unlisted.set(self.unlisted.get().saturating_sub(1));
        if let Some(journal) = &self.journal {
            journal.listed();
        }
    }
}

/// What follows a kind needs.
pub(super) struct Follower<N, R> {
    pub(super) client: Client,
    pub(super) contact: Contact,
    pub(super) asked: watch_channel::Receiver<u64>,
    pub(super) room: Arc<Semaphore>,
    pub(super) keeping: Keeping,
    pub(super) tell: Tell<N, R>,
}

/// How far a watch is.
struct Course {
    watch: Arc<str>,
    set: Set,
    state: State,
    caught_up: u64,
    /// Its first list is complete, or its kind is not there.
    listed: bool,
    /// It knows what was kept.
    primed: bool,
}

impl<N: Fn(News), R: Fn(&'static str, usize)> Follower<N, R> {
    /// Tells what one watch brings.
    pub(super) async fn follow(self, watched: Watched) {
        let kind = watched.kind;
        let mut course = Course {
            watch: watched.name().into(),
            set: Set::new(kind, &self.tell.node),
            state: State::Listing,
            caught_up: 0,
            listed: false,
            primed: false,
        };
        let events = watch::follow(self.client.clone(), self.contact.clone(), watched, self.asked.clone());
        let mut events = Box::pin(events).ready_chunks(BATCH);
        let mut resorted = self.keeping.resorted.subscribe();
        loop {
            let events = tokio::select! {
                events = events.next() => events,
                kept = resort(&mut resorted), if !course.listed && !course.primed => {
                    self.prime(&mut course, &kept).await;
                    continue;
                }
            };
            let Some(events) = events else { return };
            let before = (course.state.clone(), course.caught_up);
            let mut delta = Delta::default();
            for event in events {
                self.take(&mut course, event, kind, &mut delta);
            }
            if (&course.state, course.caught_up) != (&before.0, before.1)
                || !delta.changes.is_empty()
                || !delta.reports.is_empty()
            {
                self.report(&course, delta).await;
            }
        }
    }

    fn take(&self, course: &mut Course, event: Event, kind: Kind, delta: &mut Delta) {
        match event {
            Event::Begin => course.set.begin(),
            Event::Is(item) => {
                (self.tell.received)(kind.name(), item.text().len());
                let before = delta.changes.len();
                course.set.put(&item, delta);
                self.keeping.put(&course.watch, &item, delta.changes.get(before));
            }
            Event::Gone(item) => {
                (self.tell.received)(kind.name(), item.text().len());
                let before = delta.changes.len();
                course.set.gone(&item, delta);
                self.keep_gone(&course.watch, &delta.changes[before..]);
            }
            Event::Complete => {
                let before = delta.changes.len();
                course.set.complete(delta);
                self.keep_gone(&course.watch, &delta.changes[before..]);
                tracing::debug!(watch = %course.watch, objects = course.set.in_force(), "listed");
                self.is_listed(course, State::Current);
            }
            Event::Resumed => course.state = State::Current,
            Event::CaughtUp(asked) => course.caught_up = asked,
            Event::Absent => self.is_listed(course, State::Absent),
            Event::Failed(why) => course.state = failing(&course.watch, &course.state, &why),
        }
    }

    fn is_listed(&self, course: &mut Course, state: State) {
        course.state = state;
        if !std::mem::replace(&mut course.listed, true) {
            self.keeping.listed();
        }
    }

    fn keep_gone(&self, watch: &str, changes: &[Change]) {
        let Some(journal) = &self.keeping.journal else { return };
        for change in changes {
            if let Change::Delete(key) = change {
                let name = if key.namespace.is_empty() {
                    key.name.to_string()
                } else {
                    format!("{}/{}", key.namespace, key.name)
                };
                journal.gone(watch, &name);
            }
        }
    }

    /// Takes in what was kept.
    async fn prime(&self, course: &mut Course, kept: &Kept) {
        course.primed = true;
        let watch = Arc::clone(&course.watch);
        let mut delta = Delta::default();
        for object in kept.objects(&watch) {
            match object {
                Ok((name, text)) => {
                    let before = delta.changes.len();
                    course.set.prime(name, &text, &mut delta);
                    if let (Some(journal), true) = (&self.keeping.journal, delta.changes.len() > before) {
                        journal.put(&watch, name, &text);
                    }
                }
                Err(error) => tracing::warn!(%watch, %error, "an object that was kept cannot be read"),
            }
            if delta.changes.len() == BATCH {
                self.report(course, std::mem::take(&mut delta)).await;
            }
        }
        course.state = State::Kept(kept.as_of);
        self.report(course, delta).await;
    }

    async fn report(&self, course: &Course, delta: Delta) {
        // What the control thread is busy with is waited for; changes of the state alone need no room.
        let count = delta.changes.len().min(ON_THE_WAY) as u32;
        let room = if count == 0 { None } else { self.room.clone().acquire_many_owned(count).await.ok() };
        (self.tell.report)(News::Objects(Batch {
            watch: course.watch.clone(),
            delta,
            in_force: course.set.in_force(),
            state: course.state.clone(),
            caught_up: course.caught_up,
            room,
        }));
        // Other watches have their turn between two batches.
        tokio::task::yield_now().await;
    }
}

/// Waits until what was kept counts. Cancel-safe.
async fn resort(resorted: &mut watch_channel::Receiver<Option<Arc<Kept>>>) -> Arc<Kept> {
    loop {
        let kept = resorted.borrow_and_update().clone();
        match kept {
            Some(kept) => return kept,
            None if resorted.changed().await.is_err() => std::future::pending().await,
            None => {}
        }
    }
}

fn failing(watch: &str, before: &State, why: &str) -> State {
    let state = State::Failing(why.chars().take(SHOWN).collect());
    if *before != state {
        tracing::info!(watch, why, "the watch is interrupted; what is known stays in force");
    }
    state
}
