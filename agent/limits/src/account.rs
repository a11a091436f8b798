//! A worker's side of the budget: one account for each holder that it serves. Drawing on it is adding to a cell; what the account
//! has of the shares it takes in pieces, and gives back when it needs less.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::sync::Notify;
use tokio::task::{AbortHandle, Id};

use super::budget::{Budget, Resource, Share};

/// What something costs for as long as it is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes of [`Resource::Standing`].
    pub standing: u32,
    /// File descriptors.
    pub descriptors: u32,
}

impl Cost {
    fn of(self, resource: Resource) -> u64 {
        match resource {
            Resource::Standing => self.standing.into(),
            Resource::Buffered => 0,
            Resource::Descriptors => self.descriptors.into(),
        }
    }
}

/// What one worker holds for one holder.
#[derive(Debug)]
pub struct Account {
    budget: Arc<Budget>,
    chain: Box<[Arc<Share>]>,
    counts: [Drawn; Resource::COUNT],
    flow: Arc<Flow>,
    turn: Turn,
    /// Its connections, which may have to end.
    connections: RefCell<HashMap<Id, AbortHandle, foldhash::fast::RandomState>>,
    ended: Cell<u64>,
}

#[derive(Debug, Default)]
struct Drawn {
    used: Cell<u64>,
    /// Taken from the shares; at least what is used.
    taken: Cell<u64>,
}

/// What a reader or writer of an account's waits for, if it waits.
#[derive(Default)]
pub struct Waiting(Option<Pin<Box<dyn Future<Output = ()>>>>);

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waiting").field(&self.0.is_some()).finish()
    }
}

impl Waiting {
    /// Waits as `wait` does, unless nothing is waited for and it `may` go on.
    pub fn poll<F>(&mut self, may: bool, wait: impl FnOnce() -> F, context: &mut Context<'_>) -> Poll<()>
    where
        F: Future<Output = ()> + 'static,
    {
        if self.0.is_none() && may {
            return Poll::Ready(());
        }
        let waiting = self.0.get_or_insert_with(|| Box::pin(wait()));
        ready!(waiting.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(())
    }
}

/// What is done for a holder between two looks at what others want.
#[derive(Debug, Default)]
struct Turn {
    /// As bytes of bodies.
    spent: Cell<usize>,
    /// Somebody lets the others have theirs, and begins the next one then.
    heralded: Cell<bool>,
    /// For those who wait for it, one after the other.
    next: Notify,
}

impl Turn {
    fn spend(&self, work: usize) {
        self.spent.set(self.spent.get().saturating_add(work));
    }

    fn is_over(&self) -> bool {
        self.spent.get() >= TURN
    }
}

/// The one of all who wait for a holder's next turn that lets the others have theirs.
struct Herald<'a>(&'a Turn);

impl<'a> Herald<'a> {
    /// `None`: there is one.
    fn of(turn: &'a Turn) -> Option<Self> {
        (!turn.heralded.replace(true)).then(|| Self(turn))
    }
}

impl Drop for Herald<'_> {
    fn drop(&mut self) {
        self.0.heralded.set(false);
        // Who has overdrawn waits for longer.
        self.0.spent.set(self.0.spent.get().saturating_sub(TURN));
        self.0.next.notify_one();
    }
}

/// What of an account's bodies was written since it last looked. HTTP's clients want what they send to be `Send`, so this is.
#[derive(Debug, Default)]
struct Flow {
    written: AtomicU64,
    room: Arc<Notify>,
}

impl Flow {
    /// Bytes were written, or given up.
    fn written(&self, bytes: u64) {
        self.written.fetch_add(bytes, Relaxed);
        // One of those who wait: many at once would only find that there is no room again.
        self.room.notify_one();
    }
}

impl Account {
    fn new(budget: &Arc<Budget>, chain: Box<[Arc<Share>]>) -> Rc<Self> {
        let ended = Cell::new(ends(&chain));
        Rc::new(Self {
            budget: Arc::clone(budget),
            chain,
            counts: Default::default(),
            flow: Arc::default(),
            turn: Turn::default(),
            connections: RefCell::default(),
            ended,
        })
    }

    /// Pays for something; `None`: there is no room for it, which is noted.
    pub fn charge(self: &Rc<Self>, cost: Cost) -> Option<Charge> {
        let lacking = Resource::ALL.iter().position(|resource| !self.take(*resource, cost.of(*resource)));
        let Some(lacking) = lacking else { return Some(Charge { account: Rc::clone(self), cost }) };
        for resource in &Resource::ALL[..lacking] {
            self.give_back(*resource, cost.of(*resource));
        }
        let lacking = Resource::ALL[lacking];
        self.budget.note_refused(&self.chain, lacking, cost.of(lacking));
        None
    }

    /// Pays for something that is there already, whether there is room or not.
    pub fn charge_anyway(self: &Rc<Self>, cost: Cost) -> Charge {
        for resource in Resource::ALL {
            self.take_anyway(resource, cost.of(resource));
        }
        Charge { account: Rc::clone(self), cost }
    }

    /// Whether something could be paid for. Where not, that is noted.
    pub fn has_room(&self, cost: Cost) -> bool {
        let lacking =
            Resource::ALL.iter().find(|resource| !self.has_room_of(**resource, cost.of(**resource)));
        if let Some(lacking) = lacking {
            self.budget.note_refused(&self.chain, *lacking, cost.of(*lacking));
        }
        lacking.is_none()
    }

    fn has_room_of(&self, resource: Resource, amount: u64) -> bool {
        let Drawn { used, taken } = &self.counts[resource as usize];
        match (used.get() + amount).checked_sub(taken.get()) {
            None | Some(0) => true,
            Some(more) => self.budget.has_room(&self.chain, resource, more),
        }
    }

    /// Waits until it is this holder's turn to do what keeps the worker busy for long. Would all go on that comes at once of a
    /// thousand requests, everybody else would wait for the last of them. Cancel-safe.
    pub async fn turn(&self) {
        if !self.turn.is_over() {
            return;
        }
        while self.turn.is_over() {
            match Herald::of(&self.turn) {
                Some(_herald) => tokio::task::yield_now().await,
                None => self.turn.next.notified().await,
            }
        }
        // One after the other: of many at once, most would only find that the turn is over.
        self.turn.next.notify_one();
    }

    /// Notes a request that has begun.
    pub fn note_request(&self) {
        self.turn.spend(REQUEST);
    }

    /// Whether this holder's turn is over.
    pub fn is_turn_over(&self) -> bool {
        self.turn.is_over()
    }

    /// Dials in this holder's turn.
    pub async fn turn_to_dial(&self) {
        self.turn().await;
        self.turn.spend(DIAL);
    }

    /// Takes up a stranger's TLS in this holder's turn: a handshake keeps the worker as busy as some dials.
    pub async fn turn_for_handshake(&self) {
        self.turn().await;
        self.turn.spend(HANDSHAKE);
    }

    /// Whether more of a body may be read. A worker that holds nothing of a holder's bodies may always go on.
    pub fn may_buffer(&self) -> bool {
        self.settle();
        let Drawn { used, taken } = &self.counts[Resource::Buffered as usize];
        used.get() < taken.get()
            || used.get() == 0
            || self.budget.has_room(&self.chain, Resource::Buffered, 1)
    }

    /// Whether more of a body may be read at once, in this turn.
    pub fn may_read(&self) -> bool {
        !self.turn.is_over() && self.may_buffer()
    }

    /// Waits until more of a body may be read. Cancel-safe.
    pub async fn room(&self) {
        if !self.may_buffer() {
            // Because of this holder or another one.
            self.budget.note_refused(&self.chain, Resource::Buffered, 1);
        }
        while !self.may_buffer() {
            self.flow.room.notified().await;
            if self.may_buffer() {
                self.flow.room.notify_one();
            }
        }
        self.turn().await;
    }

    fn settle(&self) {
        if self.flow.written.load(Relaxed) > 0 {
            self.give_back(Resource::Buffered, self.flow.written.swap(0, Relaxed));
        }
    }

    /// Serves a connection of this holder's: to its end, or until the agent is about to run out of memory and this holder has most.
    pub fn serve(self: &Rc<Self>, connection: impl Future<Output = ()> + 'static) {
        let account = Rc::clone(self);
        let task = tokio::task::spawn_local(async move {
            connection.await;
            account.connections.borrow_mut().remove(&tokio::task::id());
        });
        self.connections.borrow_mut().insert(task.id(), task.abort_handle());
    }

    fn take(&self, resource: Resource, amount: u64) -> bool {
        let Drawn { used, taken } = &self.counts[resource as usize];
        let wanted = used.get() + amount;
        if let Some(more) = wanted.checked_sub(taken.get()).filter(|more| *more > 0) {
            let ahead = wanted / AHEAD;
            let got = if ahead > 0 && self.budget.take(&self.chain, resource, more + ahead) {
                more + ahead
            } else if self.budget.take(&self.chain, resource, more) {
                more
            } else {
                return false;
            };
            taken.set(taken.get() + got);
        }
        used.set(wanted);
        true
    }

    fn take_anyway(&self, resource: Resource, amount: u64) {
        if !self.take(resource, amount) {
            let Drawn { used, taken } = &self.counts[resource as usize];
            let wanted = used.get() + amount;
            if let Some(more) = wanted.checked_sub(taken.get()) {
                Budget::take_anyway(&self.chain, resource, more);
                taken.set(wanted);
            }
            used.set(wanted);
        }
    }

    fn give_back(&self, resource: Resource, amount: u64) {
        let Drawn { used, taken } = &self.counts[resource as usize];
        let left = used.get() - amount;
        used.set(left);
        // What the next of its kind needs is kept, so that whoever sends one request after another meets no shared counter.
        if taken.get() - left > left / AHEAD + KEPT[resource as usize] {
            self.trim(resource);
        }
    }

    /// Keeps what is used.
    fn trim(&self, resource: Resource) {
        let Drawn { used, taken } = &self.counts[resource as usize];
        Budget::give_back(&self.chain, resource, taken.get() - used.get());
        taken.set(used.get());
    }

    /// Now and then: others may have made room, or somebody may have to end.
    fn tick(&self) {
        self.settle();
        for resource in Resource::ALL {
            self.trim(resource);
        }
        // Others may have made room. One who waits tells the next.
        if self.may_buffer() {
            self.flow.room.notify_one();
        }
        let ended = ends(&self.chain);
        if self.ended.replace(ended) != ended {
            self.connections.take().into_values().for_each(|connection| connection.abort());
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        for resource in Resource::ALL {
            Budget::give_back(&self.chain, resource, self.counts[resource as usize].taken.get());
        }
    }
}

fn ends(chain: &[Arc<Share>]) -> u64 {
    chain.iter().map(|share| share.ended()).sum()
}

/// So many bytes of bodies are read for a holder in one turn.
const TURN: usize = 256 << 10;
/// A connection that is dialled takes about as long as so many.
const DIAL: usize = 64 << 10;
/// The server's side of a handshake.
const HANDSHAKE: usize = 128 << 10;
/// And a request of HTTP/2 that begins, before it does anything.
const REQUEST: usize = 8 << 10;
/// This part of what is used is taken ahead.
const AHEAD: u64 = 16;
/// What is kept of each resource beside that, until the next tick.
const KEPT: [u64; Resource::COUNT] = [64 << 10, 256 << 10, 8];

/// Bytes of bodies that are paid for until this drops.
#[derive(Debug)]
pub struct Buffered {
    flow: Arc<Flow>,
    bytes: u64,
}

impl Buffered {
    /// Has `account` pay.
    pub fn new(account: &Account, bytes: usize) -> Self {
        account.turn.spend(bytes);
        account.take_anyway(Resource::Buffered, bytes as u64);
        Self { flow: Arc::clone(&account.flow), bytes: bytes as u64 }
    }

    /// Some bytes more, which the same account pays.
    pub fn add(&mut self, account: &Account, bytes: usize) {
        account.take_anyway(Resource::Buffered, bytes as u64);
        self.bytes += bytes as u64;
    }
}

impl Drop for Buffered {
    fn drop(&mut self) {
        self.flow.written(self.bytes);
    }
}

/// Something that is paid for until it drops.
#[derive(Debug)]
pub struct Charge {
    account: Rc<Account>,
    cost: Cost,
}

impl Drop for Charge {
    fn drop(&mut self) {
        for resource in Resource::ALL {
            self.account.give_back(resource, self.cost.of(resource));
        }
    }
}

/// Whose account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    /// The pod's network namespace.
    cookie: u64,
    inbound: bool,
    peer: Option<IpAddr>,
}

/// The accounts of a worker.
#[derive(Debug)]
pub struct Accounts {
    budget: Arc<Budget>,
    open: RefCell<HashMap<Key, Weak<Account>, foldhash::fast::RandomState>>,
}

impl Accounts {
    /// None yet.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { budget, open: RefCell::default() }
    }

    /// The account for what a pod opens, or for what comes to it, there from `peer` alone. `is_gateway` is asked for a new one.
    pub fn of(
        &self,
        (cookie, pod): (u64, &Arc<str>),
        inbound: bool,
        peer: Option<IpAddr>,
        is_gateway: impl FnOnce() -> bool,
    ) -> Rc<Account> {
        let key = Key { cookie, inbound, peer: peer.map(network_of) };
        let mut open = self.open.borrow_mut();
        if let Some(account) = open.get(&key).and_then(Weak::upgrade) {
            return account;
        }
        let account = Account::new(&self.budget, self.budget.chain(pod, inbound, is_gateway(), key.peer));
        open.insert(key, Rc::downgrade(&account));
        account
    }

    /// Looks after all accounts: several times a second.
    pub fn tick(&self) {
        // A woken one may need the list.
        let mut all = Vec::new();
        self.open.borrow_mut().retain(|_, account| {
            let account = account.upgrade();
            let open = account.is_some();
            all.extend(account);
            open
        });
        for account in &all {
            account.tick();
        }
    }
}

/// A caller's address; of IPv6 the network that one machine may have all addresses of (RFC 6177: a /64 at the least).
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !0 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::{LimitOptions, Limits};

    fn accounts(descriptors: u64) -> Accounts {
        let machine = Machine { memory: 1 << 30, memory_limit: None, descriptors: 0 };
        let told = LimitOptions { descriptors: Some(descriptors), ..LimitOptions::default() };
        Accounts::new(Budget::new(Limits::new(&told, &machine)))
    }

    fn of(accounts: &Accounts, pod: &str) -> Rc<Account> {
        accounts.of((pod.len() as u64, &pod.into()), false, None, || false)
    }

    const SOCKET: Cost = Cost { standing: 0, descriptors: 1 };

    #[test]
    fn a_holder_has_as_much_on_one_worker_as_on_many() {
        let one = accounts(4_000);
        let two = Accounts::new(Arc::clone(&one.budget));
        let (a, b) = (of(&one, "n/a"), of(&two, "n/a"));
        let mut held: Vec<Charge> = std::iter::from_fn(|| a.charge(SOCKET)).take(700).collect();
        // What it took ahead, others may have after a moment.
        one.tick();
        held.extend(std::iter::from_fn(|| b.charge(SOCKET)));
        assert_eq!(held.len(), 1_000, "a quarter of all");
        assert!(a.charge(SOCKET).is_none());
        assert!(of(&two, "n/bb").charge(SOCKET).is_some());
        held.truncate(699);
        one.tick();
        two.tick();
        held.extend(std::iter::from_fn(|| b.charge(SOCKET)));
        assert_eq!(held.len(), 1_000, "what one worker has given back, another has");
        drop(held);
        one.tick();
        two.tick();
        assert_eq!(one.budget.all().used(Resource::Descriptors), 0);
    }

    #[test]
    fn what_is_refused_takes_nothing() {
        let accounts = accounts(400);
        let account = of(&accounts, "n/a");
        let both = Cost { standing: 1_000, descriptors: 60 };
        let kept = account.charge(both).expect("60 of a hundred");
        assert!(account.charge(both).is_none());
        accounts.tick();
        let used = |what| accounts.budget.all().used(what);
        assert_eq!((used(Resource::Standing), used(Resource::Descriptors)), (1_000, 60));
        drop((kept, account));
        assert_eq!((used(Resource::Standing), used(Resource::Descriptors)), (0, 0));
    }

    #[tokio::test]
    async fn bodies_wait_until_others_are_written() {
        let accounts = accounts(4);
        let account = of(&accounts, "n/a");
        let (first, second) = (Buffered::new(&account, 1 << 29), Buffered::new(&account, 1 << 29));
        assert!(!account.may_buffer());
        let room = account.room();
        tokio::pin!(room);
        assert!(futures_util::poll!(&mut room).is_pending());
        drop(first);
        assert!(futures_util::poll!(&mut room).is_pending(), "there is still too much");
        drop(second);
        room.await;
    }

    #[tokio::test(flavor = "local")]
    async fn others_have_their_turn_between_the_dials_of_one_holder() {
        let accounts = accounts(4);
        let (account, log) = (of(&accounts, "n/a"), Rc::new(RefCell::new(String::new())));
        let dial = || {
            let (account, log) = (Rc::clone(&account), Rc::clone(&log));
            tokio::task::spawn_local(async move {
                account.turn_to_dial().await;
                log.borrow_mut().push('d');
            })
        };
        let mut dials: Vec<_> = std::iter::repeat_with(dial).take(40).collect();
        // Whose client leaves while it waits holds nobody up.
        tokio::task::yield_now().await;
        dials.drain(10..15).for_each(|dial| dial.abort());
        while dials.iter().any(|dial| !dial.is_finished()) {
            log.borrow_mut().push(' ');
            tokio::task::yield_now().await;
        }
        let log = log.take();
        let longest = log.split(' ').map(str::len).max();
        assert!(longest <= Some(TURN / DIAL), "{log:?}");
        assert_eq!(log.matches('d').count(), 35);
    }

    #[test]
    fn neighbours_of_ipv6_are_one_peer() {
        let of = |text: &str| network_of(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8::1"), "2001:db8::");
        assert_eq!(of("::ffff:10.0.0.1"), "10.0.0.1");
    }
}
