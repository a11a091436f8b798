//! What all workers share: who holds how much. Counters only; a lock is taken where a worker meets a holder for the first time.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use weft_api::budget::Sums;

use super::Limits;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// Bytes of what stands: connections, requests, their headers, tunnels.
    Standing,
    /// Bytes of bodies that were read and not written yet.
    Buffered,
    /// File descriptors.
    Descriptors,
}

impl Resource {
    /// How many there are.
    pub const COUNT: usize = 3;
    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [Self::Standing, Self::Buffered, Self::Descriptors];

    /// As metrics and status call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Standing => "standing_bytes",
            Self::Buffered => "buffered_bytes",
            Self::Descriptors => "descriptors",
        }
    }
}

/// Somebody on whose behalf things are held.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Holder {
    /// Everybody together.
    All,
    /// The pods of a namespace together.
    Namespace(Arc<str>),
    /// A pod of this node.
    Pod {
        /// `namespace/name`.
        key: Arc<str>,
        /// What comes to it, else what it opens.
        inbound: bool,
        /// It serves for others.
        gateway: bool,
    },
    /// Whoever connects to a pod of this node.
    Peer {
        /// From where.
        address: IpAddr,
        /// `namespace/name` of the pod.
        pod: Arc<str>,
    },
}

impl Holder {
    /// `all`, `namespace`, `pod` or `peer`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Namespace(_) => "namespace",
            Self::Pod { .. } => "pod",
            Self::Peer { .. } => "peer",
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all together"),
            Self::Namespace(name) => write!(f, "namespace {name}"),
            Self::Pod { key, inbound: false, .. } => write!(f, "pod {key}"),
            Self::Pod { key, inbound: true, .. } => write!(f, "callers of pod {key}"),
            Self::Peer { address, pod } => write!(f, "{address} at pod {pod}"),
        }
    }
}

/// How near the container's limit the agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub enum Pressure {
    /// Far.
    None,
    /// Shares are a quarter of what they are otherwise, but for holders that have little.
    High,
    /// Only holders that have little get anything.
    Critical,
}

/// A holder's share: what it may have, and has.
#[derive(Debug)]
pub struct Share {
    /// Whose.
    pub holder: Holder,
    counts: [Count; Resource::COUNT],
    /// How often its connections were ended.
    ended: AtomicU64,
}

#[derive(Debug)]
struct Count {
    max: u64,
    used: AtomicU64,
    refused: AtomicU64,
    /// In milliseconds of the budget's life; 0: never.
    refused_at: AtomicU64,
}

impl Share {
    fn new(holder: Holder, limits: &Limits) -> Self {
        let counts = limits.of(&holder).map(|max| Count {
            max,
            used: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            refused_at: AtomicU64::new(0),
        });
        Self { holder, counts, ended: AtomicU64::new(0) }
    }

    /// What it may have.
    pub fn max(&self, resource: Resource) -> u64 {
        self.counts[resource as usize].max
    }

    /// What it has.
    pub fn used(&self, resource: Resource) -> u64 {
        self.counts[resource as usize].used.load(Relaxed)
    }

    /// How often it was refused more, or had to wait.
    pub fn refused(&self, resource: Resource) -> u64 {
        self.counts[resource as usize].refused.load(Relaxed)
    }

    /// How often its connections were to end.
    pub(super) fn ended(&self) -> u64 {
        self.ended.load(Relaxed)
    }

    fn bytes(&self) -> u64 {
        self.used(Resource::Standing) + self.used(Resource::Buffered)
    }
}

/// Where shares are counted.
#[derive(Debug)]
pub struct Budget {
    limits: Limits,
    all: Arc<Share>,
    shares: Mutex<HashMap<Holder, Arc<Share>, foldhash::fast::RandomState>>,
    pressure: AtomicU8,
    /// What the objects in force take.
    objects: Mutex<Sums>,
    /// Refusals, by resource and [`Holder::kind`].
    refused: [[AtomicU64; KINDS.len()]; Resource::COUNT],
    /// Counts the times that idle connections are to be closed.
    trimmed: AtomicU64,
    ended: AtomicU64,
    started: Instant,
}

/// The kinds of holders, from all to the nearest.
pub(super) const KINDS: [&str; 4] = ["all", "namespace", "pod", "peer"];
/// Whoever has no more than this part of all has little.
const LITTLE: u64 = 32;
/// This part of all is for those who have little.
const RESERVE: u64 = 10;
/// What is left of a share where memory is short.
const SHRUNK: u64 = 4;
/// How long a holder is named after it was refused something.
pub(super) const NAMED: Duration = Duration::from_mins(1);
/// Holders without anything that are remembered, because they were refused something.
const REMEMBERED: usize = 256;

impl Budget {
    /// A budget of which nothing is used.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            all: Arc::new(Share::new(Holder::All, &limits)),
            limits,
            shares: Mutex::default(),
            pressure: AtomicU8::new(Pressure::None as u8),
            objects: Mutex::default(),
            refused: Default::default(),
            trimmed: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            started: Instant::now(),
        })
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Takes note of what the objects in force take.
    pub fn take_objects(&self, sums: Sums) {
        *self.objects.lock().unwrap_or_else(PoisonError::into_inner) = sums;
    }

    /// What the objects in force take.
    pub fn objects(&self) -> Sums {
        *self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everybody's share.
    pub fn all(&self) -> &Share {
        &self.all
    }

    /// The shares that pay for what is held for a pod, and there for a peer: from the nearest to all.
    pub(super) fn chain(
        &self,
        pod: &Arc<str>,
        inbound: bool,
        gateway: bool,
        peer: Option<IpAddr>,
    ) -> Box<[Arc<Share>]> {
        let namespace = pod.split_once('/').map_or("", |(namespace, _)| namespace);
        let own = Holder::Pod { key: Arc::clone(pod), inbound, gateway };
        let peer = peer.map(|address| Holder::Peer { address, pod: Arc::clone(pod) });
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let mut share = |holder: Holder| {
            let found = shares.entry(holder.clone());
            Arc::clone(found.or_insert_with(|| Arc::new(Share::new(holder, &self.limits))))
        };
        let mut chain: Vec<Arc<Share>> = peer.into_iter().map(&mut share).collect();
        chain.push(share(own));
        chain.push(share(Holder::Namespace(namespace.into())));
        chain.push(Arc::clone(&self.all));
        chain.into()
    }

    /// Takes from all shares of a chain, or from none.
    pub(super) fn take(&self, chain: &[Arc<Share>], resource: Resource, amount: u64) -> bool {
        let little = self.is_little(chain, resource, amount);
        for (at, share) in chain.iter().enumerate() {
            let count = &share.counts[resource as usize];
            let before = count.used.fetch_add(amount, Relaxed);
            if before + amount > self.allowed(share, count.max, little) {
                Self::give_back(&chain[..=at], resource, amount);
                return false;
            }
        }
        true
    }

    /// Takes from all shares of a chain whatever they have: it is there already.
    pub(super) fn take_anyway(chain: &[Arc<Share>], resource: Resource, amount: u64) {
        for share in chain {
            share.counts[resource as usize].used.fetch_add(amount, Relaxed);
        }
    }

    /// Gives back to all shares of a chain.
    pub(super) fn give_back(chain: &[Arc<Share>], resource: Resource, amount: u64) {
        for share in chain {
            share.counts[resource as usize].used.fetch_sub(amount, Relaxed);
        }
    }

    /// Whether so much could be taken now.
    pub(super) fn has_room(&self, chain: &[Arc<Share>], resource: Resource, amount: u64) -> bool {
        let little = self.is_little(chain, resource, amount);
        chain.iter().all(|share| {
            let count = &share.counts[resource as usize];
            count.used.load(Relaxed) + amount <= self.allowed(share, count.max, little)
        })
    }

    /// Notes who had no room: the nearest one of a chain, which is at its bound or pays for one that is.
    pub(super) fn note_refused(&self, chain: &[Arc<Share>], resource: Resource, amount: u64) {
        let little = self.is_little(chain, resource, amount);
        let full = chain.iter().find(|share| {
            let count = &share.counts[resource as usize];
            count.used.load(Relaxed) + amount > self.allowed(share, count.max, little)
        });
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let Some(nearest) = chain.first() else { return };
        let full = full.unwrap_or(nearest);
        let both = [Some(full), (!Arc::ptr_eq(nearest, full)).then_some(nearest)];
        for share in both.into_iter().flatten() {
            let count = &share.counts[resource as usize];
            count.refused.fetch_add(1, Relaxed);
            count.refused_at.store(now, Relaxed);
        }
        let kind = KINDS.iter().position(|kind| *kind == full.holder.kind()).unwrap_or(0);
        self.refused[resource as usize][kind].fetch_add(1, Relaxed);
    }

    fn is_little(&self, chain: &[Arc<Share>], resource: Resource, amount: u64) -> bool {
        let nearest = chain.first().map_or(0, |share| share.used(resource));
        nearest + amount <= self.little(resource)
    }

    /// What is little. Of memory also where more than there is was promised.
    fn little(&self, resource: Resource) -> u64 {
        let all = self.all.max(resource);
        match resource {
            Resource::Standing | Resource::Buffered => all.min(self.limits.memory) / LITTLE,
            Resource::Descriptors => all / LITTLE,
        }
    }

    fn allowed(&self, share: &Share, max: u64, little: bool) -> u64 {
        if little {
            return max;
        }
        match (self.pressure(), &share.holder) {
            (Pressure::Critical, _) => 0,
            (_, Holder::All) => max - max / RESERVE,
            (Pressure::None, _) => max,
            (Pressure::High, _) => max / SHRUNK,
        }
    }

    /// How near the limit the agent is.
    pub fn pressure(&self) -> Pressure {
        match self.pressure.load(Relaxed) {
            0 => Pressure::None,
            1 => Pressure::High,
            _ => Pressure::Critical,
        }
    }

    /// The watcher has looked.
    pub(super) fn set_pressure(&self, pressure: Pressure) {
        self.pressure.store(pressure as u8, Relaxed);
    }

    /// Asks workers to close what is idle.
    pub(super) fn trim(&self) {
        self.trimmed.fetch_add(1, Relaxed);
    }

    /// How often that was asked.
    pub fn trimmed(&self) -> u64 {
        self.trimmed.load(Relaxed)
    }

    /// Asks workers to end the connections of whoever has most, if that is not little; answers who that is.
    pub(super) fn end_heaviest(&self) -> Option<Holder> {
        let shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let nearest = shares.values().filter(|share| match &share.holder {
            Holder::Peer { .. } | Holder::Pod { inbound: false, .. } => true,
            Holder::All | Holder::Namespace(_) | Holder::Pod { .. } => false,
        });
        let heaviest = nearest.max_by_key(|share| share.bytes())?;
        (heaviest.bytes() > self.little(Resource::Standing)).then(|| {
            heaviest.ended.fetch_add(1, Relaxed);
            self.ended.fetch_add(1, Relaxed);
            heaviest.holder.clone()
        })
    }

    /// How often somebody's connections were ended.
    pub fn ended(&self) -> u64 {
        self.ended.load(Relaxed)
    }

    /// Refusals of a resource to holders of each of [`KINDS`].
    pub(super) fn refusals(&self, resource: Resource) -> [u64; KINDS.len()] {
        std::array::from_fn(|kind| self.refused[resource as usize][kind].load(Relaxed))
    }

    /// Holders that were refused something lately, with when that was.
    pub(super) fn refused_lately(&self) -> Vec<(Arc<Share>, Resource, Duration)> {
        let life = self.started.elapsed();
        let shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let all = shares.values().chain([&self.all]);
        all.flat_map(|share| Resource::ALL.map(|resource| (share, resource)))
            .filter_map(|(share, resource)| Some((Arc::clone(share), resource, share.since(resource, life)?)))
            .filter(|(_, _, since)| *since < NAMED)
            .collect()
    }

    /// Forgets holders that have nothing, and were refused nothing lately.
    pub(super) fn forget_unused(&self) {
        let life = self.started.elapsed();
        let mut kept = 0;
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.retain(|_, share| {
            // An account, or a chain that is being made, has it.
            if Arc::strong_count(share) > 1 {
                return true;
            }
            let lately = Resource::ALL
                .iter()
                .any(|resource| share.since(*resource, life).is_some_and(|since| since < NAMED));
            kept += usize::from(lately);
            lately && kept <= REMEMBERED
        });
    }
}

impl Share {
    /// How long ago it was refused something.
    fn since(&self, resource: Resource, life: Duration) -> Option<Duration> {
        match self.counts[resource as usize].refused_at.load(Relaxed) {
            0 => None,
            at => Some(life.saturating_sub(Duration::from_millis(at))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LimitOptions;
    use crate::machine::Machine;

    fn budget() -> Arc<Budget> {
        let machine = Machine { memory: 1 << 30, memory_limit: None, descriptors: 0 };
        let told = LimitOptions { descriptors: Some(3_200), ..LimitOptions::default() };
        Budget::new(Limits::new(&told, &machine))
    }

    fn pod(budget: &Budget, key: &str) -> Box<[Arc<Share>]> {
        budget.chain(&key.into(), false, false, None)
    }

    const WHAT: Resource = Resource::Descriptors;

    #[test]
    fn a_pod_has_its_share_and_its_namespace_another() {
        let budget = budget();
        let (greedy, other) = (pod(&budget, "shop/greedy"), pod(&budget, "shop/other"));
        assert!(budget.take(&greedy, WHAT, 800));
        assert!(!budget.take(&greedy, WHAT, 1));
        assert!(budget.take(&other, WHAT, 800));
        let third = pod(&budget, "shop/third");
        assert!(!budget.take(&third, WHAT, 1), "half of all is the namespace's");
        assert!(budget.take(&pod(&budget, "else/where"), WHAT, 800));
        assert_eq!(budget.all().used(WHAT), 2_400);
        Budget::give_back(&greedy, WHAT, 800);
        assert!(budget.take(&third, WHAT, 1));
    }

    #[test]
    fn a_peer_of_a_pod_has_less_than_the_pod() {
        let budget = budget();
        let peer = |address: &str| budget.chain(&"shop/web".into(), true, false, address.parse().ok());
        assert!(budget.take(&peer("10.0.0.1"), WHAT, 384));
        assert!(!budget.take(&peer("10.0.0.1"), WHAT, 1));
        assert!(budget.take(&peer("10.0.0.2"), WHAT, 384));
        assert!(!budget.take(&peer("10.0.0.3"), WHAT, 384), "they are as much as the pod may have");
        // What the pod opens itself is another share.
        assert!(budget.take(&pod(&budget, "shop/web"), WHAT, 800));
    }

    #[test]
    fn the_last_tenth_is_for_those_who_have_little() {
        let budget = budget();
        for namespace in 0..3 {
            assert!(budget.take(&pod(&budget, &format!("n{namespace}/a")), WHAT, 800));
        }
        let (much, little) = (pod(&budget, "n3/much"), pod(&budget, "n4/little"));
        assert!(budget.take(&much, WHAT, 480));
        assert!(!budget.take(&much, WHAT, 1));
        assert!(budget.take(&little, WHAT, 100));
        assert!(!budget.take(&little, WHAT, 1), "that is not little any more");
    }

    #[test]
    fn where_memory_is_short_the_heaviest_get_nothing_and_then_end() {
        let budget = budget();
        let (heavy, light) = (pod(&budget, "shop/heavy"), pod(&budget, "shop/light"));
        let what = Resource::Buffered;
        assert!(budget.take(&heavy, what, 12 << 20) && budget.take(&light, what, 1 << 10));
        budget.set_pressure(Pressure::High);
        assert!(!budget.take(&heavy, what, 1) && budget.take(&light, what, 1));
        budget.set_pressure(Pressure::Critical);
        assert!(!budget.take(&heavy, what, 1) && budget.take(&light, what, 1));
        assert_eq!(budget.end_heaviest().as_ref(), Some(&heavy[0].holder));
        assert_eq!((heavy[0].ended(), light[0].ended()), (1, 0));
        Budget::give_back(&heavy, what, 12 << 20);
        assert_eq!(budget.end_heaviest(), None, "who has little is left alone");
    }

    #[test]
    fn who_was_refused_is_named_and_who_has_nothing_is_forgotten() {
        let budget = budget();
        let greedy = pod(&budget, "shop/greedy");
        budget.note_refused(&greedy, WHAT, 801);
        drop((greedy, pod(&budget, "shop/gone")));
        budget.forget_unused();
        let named: Vec<String> =
            budget.refused_lately().iter().map(|(share, ..)| share.holder.to_string()).collect();
        assert_eq!(named, ["pod shop/greedy"]);
        assert_eq!(budget.refusals(WHAT), [0, 0, 1, 0]);
        assert_eq!(budget.shares.lock().unwrap().len(), 1);
    }
}
