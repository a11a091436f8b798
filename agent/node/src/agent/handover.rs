//! An agent takes over from another one while both run: no connection is cut and none is refused.
//!
//! ```text
//! successor                        predecessor
//!   Hello          ──▶               who may follow? readiness is the successor's now
//!                  ◀──   Welcome
//!   (prepares: rules, certificates, programs)
//!   Ask            ──▶
//!                  ◀──   Doors, Pod, Listeners …, End     with the sockets
//!   (puts its programs in place; nothing is accepted yet)
//!   Taken          ──▶               stops accepting, and goes on with the connections that it has
//!                  ◀──   Released
//! ```
//!
//! Up to `Taken` the predecessor serves on as if nothing had happened, should the successor die. The connection stays open
//! until the predecessor has ended: until then pods keep the rules that its connections need.

mod estate;
mod give;
mod take;
mod wire;

use std::sync::OnceLock;

use tokio::sync::watch;

pub use give::{Request, give, listen};
pub use take::{HandoverError, Predecessor};

/// How far an agent's own succession is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nobody wants to take over.
    None,
    /// A successor prepares itself.
    Preparing,
    /// It has taken over.
    Done,
}

/// Who came before an agent, and who comes after it.
#[derive(Debug)]
pub struct Succession {
    state: watch::Sender<State>,
    /// The Kubernetes pod whose agent was taken over from.
    predecessor: OnceLock<String>,
}

impl Default for Succession {
    fn default() -> Self {
        Self { state: watch::Sender::new(State::None), predecessor: OnceLock::new() }
    }
}

impl Succession {
    /// How far it is.
    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Waits until nobody prepares to take over any more; answers how that ended.
    pub async fn settled(&self) -> State {
        let mut state = self.state.subscribe();
        state.wait_for(|state| *state != State::Preparing).await.map_or(State::None, |state| *state)
    }

    /// Waits until a successor has taken over.
    pub async fn done(&self) {
        let mut state = self.state.subscribe();
        // The sender is part of this.
        let _ = state.wait_for(|state| *state == State::Done).await;
    }

    fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    /// Remembers from whom was taken over.
    pub fn follows(&self, pod: Option<&str>) {
        if let Some(pod) = pod {
            let _ = self.predecessor.set(pod.to_owned());
        }
    }

    /// Whether that Kubernetes pod's agent was taken over from. Should its container be started again, it must not take
    /// everything back.
    fn has_followed(&self, pod: Option<&str>) -> bool {
        pod.is_some() && self.predecessor.get().map(String::as_str) == pod
    }
}
