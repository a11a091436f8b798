//! The end of a pod, as one worker's connections hear of it.
//!
//! Without a mesh the kernel tells a caller at once when the program that it called is gone: its sockets are closed. Here
//! the caller's socket is the agent's, which does that in its place. What it goes by:
//!
//! - the pod's deletion was asked for: who calls again is told not to, by the answers, while the program still gives some;
//! - no program listens at the port any more: nobody will answer there, and connections that carry nothing are closed. It is
//!   looked at when a connection to the program ends, and again and again while the pod is being ended;
//! - the pod's object is gone: the same, for all of its ports;
//! - its network goes: everything is closed while that can still be heard.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use weft_datapath::{Life, LocalPod};

use super::connection::Downstream;
use super::core::Core;
use super::limits;

/// Stands for all ports of a pod.
const WHOLE: u16 = 0;

/// A connection to a program has ended. So long after that, whether it listens, in turn: a process that ends closes its
/// files one after the other.
const LOOKS: [Duration; 3] = [Duration::from_millis(10), Duration::from_millis(100), Duration::from_secs(1)];

/// What the connections of one worker that have to do with pods of this node wait for.
#[derive(Debug, Default)]
pub(super) struct Ends {
    places: RefCell<HashMap<(u64, u16), Rc<Place>, foldhash::fast::RandomState>>,
}

/// A port of a pod, or the pod as a whole, where connections stand.
#[derive(Debug, Default)]
pub(super) struct Place {
    changed: Notify,
    /// Counts how often nobody was found to listen.
    deserted: Cell<u64>,
    /// Counts the reasons to look; 0: nobody looks.
    looks: Cell<u64>,
}

impl Ends {
    fn at(&self, cookie: u64, port: u16) -> Rc<Place> {
        Rc::clone(self.places.borrow_mut().entry((cookie, port)).or_default())
    }

    /// What concerns a pod as a whole.
    pub(super) fn of_pod(&self, pod: &LocalPod) -> Rc<Place> {
        self.at(pod.cookie, WHOLE)
    }

    /// What concerns a connection: whoever arrived for a program depends on that one.
    pub(super) fn of(&self, down: &Downstream) -> Rc<Place> {
        self.at(down.pod.cookie, if down.is_inbound() { down.dialled.port() } else { WHOLE })
    }

    /// The ports of a pod to which connections stand that would hear of its program's end.
    fn ports(&self, pod: &LocalPod) -> Vec<(u16, Rc<Place>)> {
        let places = self.places.borrow();
        let of_pod = places.iter().filter(|((cookie, port), place)| {
            *cookie == pod.cookie && *port != WHOLE && Rc::strong_count(place) > 1
        });
        of_pod.map(|((_, port), place)| (*port, Rc::clone(place))).collect()
    }

    fn wake(&self, concerned: impl Fn(u64) -> bool) {
        for ((cookie, _), place) in &*self.places.borrow() {
            if concerned(*cookie) {
                place.changed.notify_waiters();
            }
        }
    }

    /// The worker itself goes on to another phase.
    pub(super) fn wake_all(&self) {
        self.wake(|_| true);
    }

    /// Forgets places where no connection stands.
    pub(super) fn sweep(&self) {
        self.places.borrow_mut().retain(|_, place| Rc::strong_count(place) > 1);
    }
}

impl Place {
    /// Waits until the pod's network goes. Cancel-safe.
    pub(super) async fn gone(&self, pod: &LocalPod) {
        while pod.life() < Life::Gone {
            self.changed.notified().await;
        }
    }

    /// Waits until a connection should end as soon as it carries nothing: nobody is there to answer, or the worker drains.
    /// Cancel-safe.
    pub(super) async fn idle_ends(&self, down: &Downstream) {
        let before = self.deserted.get();
        while !(down.core.is_draining() || down.pod.life() >= Life::Ended || self.deserted.get() != before) {
            self.changed.notified().await;
        }
    }

    /// Waits until a connection that carries several things at once should take no more: as above, or its pod is being ended,
    /// or another agent has the listeners. One that began when that was known already is wanted all the same. Cancel-safe.
    pub(super) async fn takes_no_more(&self, core: &Core, pod: &LocalPod, began: Life) {
        let before = self.deserted.get();
        let enough = if began == Life::Serving { Life::Ending } else { Life::Ended };
        while !(core.is_retiring() || pod.life() >= enough || self.deserted.get() != before) {
            self.changed.notified().await;
        }
    }

    /// Nobody listens here.
    fn desert(&self) {
        self.deserted.set(self.deserted.get() + 1);
        self.changed.notify_waiters();
    }
}

/// Whether callers should not come back by a connection that arrived: its pod is being ended.
pub(super) fn is_last_answer(down: &Downstream) -> bool {
    down.arrived() && down.pod.life() >= Life::Ending
}

/// A connection to a program has ended: looks whether that was the program's end.
pub(super) fn look(core: &Rc<Core>, pod: &Arc<LocalPod>, port: u16) {
    let place = core.ends.places.borrow().get(&(pod.cookie, port)).cloned();
    let Some(place) = place.filter(|place| Rc::strong_count(place) > 2) else { return };
    let looks = place.looks.get();
    place.looks.set(looks + 1);
    if looks == 0 {
        let pod = Arc::clone(pod);
        tokio::task::spawn_local(async move {
            loop {
                let looks = place.looks.get();
                if is_deserted_soon(&pod, port).await {
                    place.desert();
                    break;
                }
                if place.looks.get() == looks {
                    break;
                }
            }
            place.looks.set(0);
        });
    }
}

/// Looks for a while whether nobody listens any more.
async fn is_deserted_soon(pod: &LocalPod, port: u16) -> bool {
    for wait in LOOKS {
        tokio::time::sleep(wait).await;
        // What cannot be asked is not known.
        if pod.listening().is_ok_and(|ports| !ports.contains(&port)) {
            return true;
        }
    }
    false
}

/// A pod's life has gone on: its connections hear of it. `done` hears when those that had to be closed are.
pub(super) fn go_on(core: &Rc<Core>, pod: &Arc<LocalPod>, done: Option<oneshot::Sender<()>>) {
    core.ends.wake(|cookie| cookie == pod.cookie);
    match pod.life() {
        Life::Serving | Life::Ended => {}
        Life::Ending => _ = tokio::task::spawn_local(watch(Rc::clone(core), Arc::clone(pod))),
        Life::Gone => {
            core.pool.release(pod);
            core.tunnels.release(pod);
        }
    }
    if let Some(done) = done {
        tokio::task::spawn_local(async move {
            // Every task that was woken has its turn before this one has its next: first those of the connections, then those
            // that these have woken, which drive what they had open.
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            _ = done.send(());
        });
    }
}

/// Looks again and again which programs of a pod that is being ended are still there.
async fn watch(core: Rc<Core>, pod: Arc<LocalPod>) {
    while pod.life() == Life::Ending && !core.is_draining() {
        let standing = core.ends.ports(&pod);
        if !standing.is_empty()
            && let Ok(listening) = pod.listening()
        {
            for (_, place) in standing.iter().filter(|(port, _)| !listening.contains(port)) {
                place.desert();
            }
        }
        tokio::time::sleep(limits::ENDING_LOOK).await;
    }
}
