//! What traffic may make the agent hold: how much in all, how much on behalf of one holder, and what happens beyond.
//!
//! Three things are counted: memory of what *stands* (connections, requests and their headers, tunnels), memory of what is
//! *buffered* (bodies that were read and not written yet), and file *descriptors*. Whatever is held for somebody is paid for by
//! each of these in turn, from the nearest:
//!
//! ```text
//! the peer (whoever connects to a pod)  an eighth of all
//! the pod (each direction by itself)    a quarter of all; a gateway's half
//! the namespace                         half of all
//! all                                   the agent's; its last tenth is for holders that have little
//! ```
//!
//! Who has no more gets no more: its requests are answered 503 (`UO`), its connections wait in the kernel's queue, its bodies are not
//! read on. Nobody else notices. What cannot be counted is estimated, so a watcher looks at what the kernel counts: near the
//! container's limit the shares shrink, idle connections are closed, and in the end the heaviest holder loses its connections.
//!
//! A worker's time is not counted, but shared: what one holder brings at once is done in turns, between which others have theirs.
//!
//! [`account`] is a worker's side, without locks; [`budget`] what all workers share; [`machine`] what the kernel says; [`watch`] the
//! watcher; [`report`] what people and scrapes see. Bounds of one connection or message are in `proxy::limits`.

pub mod account;
pub mod budget;
pub mod machine;
pub mod report;
pub mod watch;

use weft_api::budget::Sums;

pub use account::{Account, Charge, Cost};
pub use budget::{Budget, Holder, Resource};

/// What `weft agent` was told of limits; what it was not told follows from the container's.
#[derive(Debug, Clone, Default)]
pub struct LimitOptions {
    /// Memory that the agent may have, in bytes.
    pub memory: Option<u64>,
    /// Memory for connections and requests that stand, in bytes.
    pub standing: Option<u64>,
    /// Memory for bodies on their way, in bytes.
    pub buffered: Option<u64>,
    /// File descriptors for connections.
    pub descriptors: Option<u64>,
    /// Memory for rules and policies, in bytes.
    pub rules: Option<u64>,
    /// Memory for Services and endpoints, in bytes.
    pub endpoints: Option<u64>,
    /// Instructions of regular expressions.
    pub regex_instructions: Option<u64>,
    /// A pod's part of all, in hundredths.
    pub pod_percent: Option<u8>,
    /// The part of whoever connects to a pod, in hundredths.
    pub peer_percent: Option<u8>,
    /// A namespace's part, in hundredths.
    pub namespace_percent: Option<u8>,
}

/// The limits in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Memory that the agent may have, in bytes.
    pub memory: u64,
    /// In all, by [`Resource`].
    pub all: [u64; Resource::COUNT],
    /// What the objects of all namespaces may take.
    pub objects: Sums,
    pod_percent: u8,
    peer_percent: u8,
    namespace_percent: u8,
}

/// Of a machine's memory, what an agent without any limit takes as its own: a quarter.
const OF_MACHINE: u64 = 4;
/// Less than this is no agent.
const LEAST_MEMORY: u64 = 64 << 20;
/// Descriptors that the agent needs for itself: at least a quarter of what it may have.
const OF_DESCRIPTORS: u64 = 4;

impl Limits {
    /// The limits that follow from what was told and what the machine has.
    pub fn new(told: &LimitOptions, machine: &machine::Machine) -> Self {
        let memory = told.memory.or(machine.memory_limit).unwrap_or(machine.memory / OF_MACHINE);
        let memory = memory.max(LEAST_MEMORY);
        let mut all = [0; Resource::COUNT];
        all[Resource::Standing as usize] = told.standing.unwrap_or(memory / 8 * 3);
        all[Resource::Buffered as usize] = told.buffered.unwrap_or(memory / 4);
        all[Resource::Descriptors as usize] =
            told.descriptors.unwrap_or(machine.descriptors - machine.descriptors / OF_DESCRIPTORS);
        let objects = Sums {
            rules: told.rules.unwrap_or(Sums::MOST.rules),
            endpoints: told.endpoints.unwrap_or(Sums::MOST.endpoints),
            instructions: told.regex_instructions.unwrap_or(Sums::MOST.instructions),
        };
        Self {
            memory,
            all,
            objects,
            pod_percent: told.pod_percent.unwrap_or(25),
            peer_percent: told.peer_percent.unwrap_or(12),
            namespace_percent: told.namespace_percent.unwrap_or(50),
        }
    }

    /// What a holder may have.
    pub fn of(&self, holder: &Holder) -> [u64; Resource::COUNT] {
        let percent = match holder {
            Holder::All => 100,
            Holder::Namespace(_) => self.namespace_percent,
            Holder::Pod { gateway: true, .. } => self.pod_percent.saturating_mul(2).min(100),
            Holder::Pod { .. } => self.pod_percent,
            Holder::Peer { .. } => self.peer_percent,
        };
        self.all.map(|all| all / 100 * u64::from(percent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_from_the_containers() {
        let machine =
            machine::Machine { memory: 64 << 30, memory_limit: Some(1 << 30), descriptors: 1_000_000 };
        let limits = Limits::new(&LimitOptions::default(), &machine);
        assert_eq!((limits.memory, limits.all), (1 << 30, [384 << 20, 256 << 20, 750_000]));
        let told =
            LimitOptions { memory: Some(256 << 20), descriptors: Some(2_000), ..LimitOptions::default() };
        let limits = Limits::new(&told, &machine);
        assert_eq!(limits.all, [96 << 20, 64 << 20, 2_000]);
        let pod = Holder::Pod { key: "shop/web".into(), inbound: false, gateway: false };
        assert_eq!(limits.of(&pod)[Resource::Descriptors as usize], 500);
        let unlimited = machine::Machine { memory_limit: None, ..machine };
        assert_eq!(Limits::new(&LimitOptions::default(), &unlimited).memory, 16 << 30);
    }
}
