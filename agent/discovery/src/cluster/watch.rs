//! Follows one kind: a streaming list, then a watch that goes on by resourceVersion, forever.
//!
//! kube's own `watcher` does most of this, and is not used for what it does not: it begins every list at version "0",
//! which a server that lags behind answers with a state of the past (an AuthorizationPolicy would be gone for a moment);
//! it holds a dead connection for five minutes; and one object that cannot be decoded ends a whole list.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use kube::Client;
use kube::core::params::{ListParams, WatchParams};
use kube::core::{Request, WatchEvent};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::contact::Contact;
use super::item::{Item, Page};
use super::kinds::Watched;
use super::served;
use super::trouble::Trouble;

/// A server sends a bookmark each minute or so: one that is silent for longer is taken for dead.
const SILENCE: Duration = Duration::from_secs(100);
/// How long a server may take to begin an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Bounds of the waits between attempts.
const SHORTEST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// How often a kind that the server does not have is asked for.
const ABSENT_WAIT: Duration = Duration::from_secs(4);
/// A kind that was there is believed to be gone, with its objects, when it was missing so often in a row.
const GONE_AFTER: u32 = 3;
/// Objects in a page of a list.
const PAGE: u32 = 500;
/// A watch that is silent for so long, after the server has said that it knows of nothing newer, has told all.
const QUIET: Duration = Duration::from_millis(20);
/// The annotation of the bookmark that ends a streaming list.
const LIST_END: &str = "k8s.io/initial-events-end";

/// Something that became known.
#[derive(Debug)]
pub enum Event {
    /// A list begins.
    Begin,
    /// An object as it is now.
    Is(Item),
    /// An object that is no more.
    Gone(Item),
    /// The list is complete.
    Complete,
    /// The watch goes on after an interruption.
    Resumed,
    /// All that the server knew when this number was asked for has been told.
    CaughtUp(u64),
    /// The server does not have the kind.
    Absent,
    /// An attempt failed; others follow.
    Failed(String),
}

type Events = Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<Item>>> + Send>>;

enum Phase {
    /// No connection.
    Idle,
    /// A streaming list.
    Listing(Events),
    /// A list in pages: what is left of the last, and where the next begins.
    Paging { items: VecDeque<Item>, next: Option<String> },
    /// What happens after the list.
    Watching { events: Events, since: Instant },
}

struct Follower {
    client: Client,
    contact: Contact,
    watched: Watched,
    /// The version of the kind that is served, once known.
    served: Option<&'static str>,
    /// Where the watch goes on; empty before the first list.
    version: String,
    /// Whether the server has streaming lists, as far as is known.
    streams: bool,
    phase: Phase,
    wait: Duration,
    /// Attempts that failed in a row.
    failures: u32,
    /// How often in a row the kind was missing.
    absences: u32,
    /// Counts how often somebody asked for all that the server knows.
    asked: watch::Receiver<u64>,
    /// What was asked for, when the server has said that it knows of nothing newer.
    catching_up: Option<u64>,
    /// What has been found out and not told yet.
    untold: VecDeque<Event>,
}

/// What a stream brings.
enum Heard {
    Event(WatchEvent<Item>),
    Trouble(Trouble),
    /// The stream has ended, or is not to be trusted any more.
    End,
    /// Nothing for a while.
    Nothing,
    /// Somebody asks for all that the server knows.
    Asked,
}

/// Follows a kind; `asked` counts up when somebody wants [`Event::CaughtUp`]. The stream has no end.
pub fn follow(
    client: Client,
    contact: Contact,
    watched: Watched,
    asked: watch::Receiver<u64>,
) -> impl Stream<Item = Event> {
    let follower = Follower {
        client,
        contact,
        watched,
        served: None,
        version: String::new(),
        streams: true,
        phase: Phase::Idle,
        wait: Duration::ZERO,
        failures: 0,
        absences: 0,
        asked,
        catching_up: None,
        untold: VecDeque::new(),
    };
    futures_util::stream::unfold(follower, |mut follower| async {
        let event = follower.next().await;
        Some((event, follower))
    })
}

impl Follower {
    async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.untold.pop_front() {
                return event;
            }
            match std::mem::replace(&mut self.phase, Phase::Idle) {
                Phase::Idle => self.begin().await,
                Phase::Listing(events) => self.list(events).await,
                Phase::Paging { items, next } => self.page(items, next).await,
                Phase::Watching { events, since } => self.watch(events, since).await,
            }
        }
    }

    /// Makes a connection: for a list, or to go on with the watch.
    async fn begin(&mut self) {
        if !self.wait.is_zero() {
            // Not all nodes at once.
            let wait = self.wait.mul_f64(0.5 + fastrand::f64());
            self.wait = Duration::ZERO;
            let _ = timeout(wait, self.contact.regained()).await;
        }
        let Some(version) = self.find().await else { return };
        let request = Request::new(self.watched.path(version));
        // Servers close watches after five to ten minutes; here, not all at once.
        let mut params = WatchParams::default().timeout(300 + fastrand::u32(0..300));
        params.field_selector.clone_from(&self.watched.fields);
        if !self.version.is_empty() {
            match self.events(&request, &params).await {
                Ok(events) => {
                    self.untold.push_back(Event::Resumed);
                    self.phase = Phase::Watching { events, since: Instant::now() };
                }
                Err(error) => self.failed(&error),
            }
        } else if self.streams {
            params.send_initial_events = true;
            match self.events(&request, &params).await {
                Ok(events) => {
                    self.untold.push_back(Event::Begin);
                    self.phase = Phase::Listing(events);
                }
                Err(Trouble::Api { code: 400 | 422, .. }) => self.streams = false,
                Err(error) => self.failed(&error),
            }
        } else {
            self.untold.push_back(Event::Begin);
            self.phase = Phase::Paging { items: VecDeque::new(), next: Some(String::new()) };
        }
    }

    /// The version that is served; `None` when there is nothing to follow now.
    async fn find(&mut self) -> Option<&'static str> {
        if self.served.is_none() {
            self.served = if self.watched.is_custom() {
                match served::find(&self.client, &self.watched).await {
                    Ok(Some(version)) => Some(version),
                    Ok(None) => {
                        self.absent();
                        None
                    }
                    Err(error) => {
                        self.failed(&error);
                        None
                    }
                }
            } else {
                self.watched.kind.entry().versions.first().copied()
            };
        }
        self.served
    }

    fn absent(&mut self) {
        self.wait = ABSENT_WAIT;
        self.absences = self.absences.saturating_add(1);
        if self.absences == GONE_AFTER {
            self.version.clear();
            self.untold.extend([Event::Begin, Event::Complete]);
        }
        self.untold.push_back(Event::Absent);
    }

    async fn events(&self, request: &Request, params: &WatchParams) -> Result<Events, Trouble> {
        let request = request.watch(params, &self.version).map_err(|error| Trouble::other(&error))?;
        let events = timeout(ANSWER, self.client.request_events::<Item>(request)).await;
        let events = events.map_err(|_| Trouble::silent(ANSWER))??;
        self.contact.heard();
        Ok(Box::pin(events))
    }

    /// The next event of a stream, unless it is dead.
    async fn hear(&mut self, events: &mut Events, patience: Duration) -> Heard {
        let asked = async {
            if self.asked.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let event = tokio::select! {
            biased;
            event = timeout(patience, events.next()) => event,
            // Connections from before may be dead without a word.
            () = self.contact.regained() => return Heard::End,
            () = asked => return Heard::Asked,
        };
        match event {
            Err(_) => Heard::Nothing,
            Ok(None) => Heard::End,
            Ok(Some(Err(error))) => Heard::Trouble(error.into()),
            Ok(Some(Ok(WatchEvent::Error(status)))) => Heard::Trouble(Trouble::from(*status)),
            Ok(Some(Ok(event))) => {
                self.contact.heard();
                Heard::Event(event)
            }
        }
    }

    async fn list(&mut self, mut events: Events) {
        match self.hear(&mut events, SILENCE).await {
            Heard::Event(WatchEvent::Added(item) | WatchEvent::Modified(item)) => {
                self.untold.push_back(Event::Is(item));
            }
            Heard::Event(WatchEvent::Deleted(item)) => self.untold.push_back(Event::Gone(item)),
            Heard::Event(WatchEvent::Bookmark(bookmark)) => {
                if bookmark.metadata.annotations.contains_key(LIST_END) {
                    self.complete(bookmark.metadata.resource_version);
                    self.phase = Phase::Watching { events, since: Instant::now() };
                } else {
                    // A server of the past: it took no notice of the wish for a list.
                    self.streams = false;
                }
                return;
            }
            // The list may be older than the question.
            Heard::Asked => self.asked.mark_changed(),
            Heard::Nothing => return self.failed(&Trouble::silent(SILENCE)),
            Heard::Trouble(trouble) => return self.failed(&trouble),
            Heard::End | Heard::Event(WatchEvent::Error(_)) => {
                return self.failed(&Trouble::Other("the server broke the list off".to_owned()));
            }
        }
        self.phase = Phase::Listing(events);
    }

    async fn page(&mut self, mut items: VecDeque<Item>, next: Option<String>) {
        if let Some(item) = items.pop_front() {
            self.untold.push_back(Event::Is(item));
            self.phase = Phase::Paging { items, next };
            return;
        }
        let Some(token) = next else { return };
        let mut params = ListParams::default().limit(PAGE);
        params.field_selector.clone_from(&self.watched.fields);
        params.continue_token = Some(token).filter(|token| !token.is_empty());
        match self.fetch(&params).await {
            Ok(page) => {
                let items: VecDeque<Item> = page.items.unwrap_or_default().into();
                if page.metadata.next.is_empty() {
                    self.untold.extend(items.into_iter().map(Event::Is));
                    self.complete(page.metadata.resource_version);
                } else {
                    self.phase = Phase::Paging { items, next: Some(page.metadata.next) };
                }
            }
            Err(error) => self.failed(&error),
        }
    }

    async fn fetch(&self, params: &ListParams) -> Result<Page, Trouble> {
        let version = self.served.unwrap_or_default();
        let request = Request::new(self.watched.path(version)).list(params);
        let request = request.map_err(|error| Trouble::other(&error))?;
        let page = timeout(ANSWER, self.client.request::<Page>(request)).await;
        let page = page.map_err(|_| Trouble::silent(ANSWER))??;
        self.contact.heard();
        Ok(page)
    }

    fn complete(&mut self, version: String) {
        self.version = version;
        (self.failures, self.absences) = (0, 0);
        self.untold.push_back(Event::Complete);
    }

    async fn watch(&mut self, mut events: Events, since: Instant) {
        let patience = if self.catching_up.is_some() { QUIET } else { SILENCE };
        match self.hear(&mut events, patience).await {
            Heard::Event(event) => {
                self.failures = 0;
                self.tell(event);
            }
            Heard::Nothing => match self.catching_up.take() {
                Some(asked) => self.untold.push_back(Event::CaughtUp(asked)),
                None => return self.failed(&Trouble::silent(SILENCE)),
            },
            Heard::Asked => {
                let asked = *self.asked.borrow_and_update();
                let mut params = ListParams::default().limit(1);
                params.field_selector.clone_from(&self.watched.fields);
                // Answered when the server's own state is not older than the question; its watches are fed by then.
                match self.fetch(&params).await {
                    Ok(_) => self.catching_up = Some(asked),
                    Err(trouble) => return self.failed(&trouble),
                }
            }
            Heard::Trouble(Trouble::Api { code: 410, .. }) => {
                tracing::debug!(kind = self.watched.name(), "the watch fell behind; listing anew");
                return self.version.clear();
            }
            Heard::Trouble(trouble) => return self.failed(&trouble),
            // Watches end by themselves now and then.
            Heard::End => {
                if since.elapsed() < Duration::from_secs(1) {
                    self.wait = self.next_wait();
                }
                return;
            }
        }
        self.phase = Phase::Watching { events, since };
    }

    fn tell(&mut self, event: WatchEvent<Item>) {
        match event {
            WatchEvent::Added(item) | WatchEvent::Modified(item) => {
                item.resource_version().clone_into(&mut self.version);
                self.untold.push_back(Event::Is(item));
            }
            WatchEvent::Deleted(item) => {
                item.resource_version().clone_into(&mut self.version);
                self.untold.push_back(Event::Gone(item));
            }
            WatchEvent::Bookmark(bookmark) => self.version = bookmark.metadata.resource_version,
            WatchEvent::Error(_) => {}
        }
    }

    fn failed(&mut self, trouble: &Trouble) {
        match trouble {
            // The kind, or the version of it that was watched, is gone.
            Trouble::Api { code: 404, .. } if self.watched.is_custom() => self.served = None,
            Trouble::Api { code: 410, .. } => self.version.clear(),
            Trouble::Api { .. } => {}
            Trouble::Other(_) => self.contact.doubt(),
        }
        self.wait = self.next_wait();
        self.untold.push_back(Event::Failed(trouble.to_string()));
    }

    fn next_wait(&mut self) -> Duration {
        let wait = SHORTEST_WAIT.saturating_mul(1 << self.failures.min(10)).min(LONGEST_WAIT);
        self.failures = self.failures.saturating_add(1);
        wait
    }
}

#[cfg(test)]
mod tests;
