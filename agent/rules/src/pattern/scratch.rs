//! What matching needs beside the expressions: memory, a bounded amount in each thread, and work, a bounded amount for
//! each request.
//!
//! An expression learns while it matches, and what it has learnt makes it fast. Kept with the expression that would be one
//! memory for each of thousands, in each thread; here it is the thread's, and what was not used for longest goes first.
//! None of it changes what matches.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use regex_automata::nfa::thompson::pikevm;
use regex_automata::util::iter::Searcher;
use regex_automata::{Anchored, Input, hybrid, meta};

use super::program::{Finder, Whole};

/// Most bytes that one thread keeps.
const KEPT_BYTES: usize = 4 << 20;
/// Work on one request: about 30 ms. A unit is a byte of text, where all is learnt.
const WORK: u64 = 1 << 24;
/// A byte of text and a state, where nothing can be learnt.
const STEP: u64 = 4;
/// To learn a byte.
const LEARNING: u64 = 16;
/// To find out that a text teaches too much.
const GIVING_UP: u64 = 1 << 21;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

struct Scratch {
    kept: HashMap<usize, Kept, foldhash::fast::RandomState>,
    bytes: usize,
    /// Counts uses.
    turn: u64,
    vm: Option<pikevm::Cache>,
    work: u64,
    exhausted: bool,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { kept: HashMap::default(), bytes: 0, turn: 0, vm: None, work: u64::MAX, exhausted: false }
    }
}

/// What an expression has learnt.
struct Kept {
    learnt: Learnt,
    bytes: usize,
    used: u64,
}

/// With the expression, so that no other one gets its address meanwhile.
enum Learnt {
    Whole(Weak<Whole>, Box<hybrid::dfa::Cache>),
    Finder(Weak<Finder>, Box<meta::Cache>),
}

/// Decides something about one request. `None`: the regular expressions in question need too much work for it.
pub(crate) fn bounded<T>(decide: impl FnOnce() -> T) -> Option<T> {
    SCRATCH.with_borrow_mut(|scratch| (scratch.work, scratch.exhausted) = (WORK, false));
    let decided = decide();
    let exhausted = SCRATCH.with_borrow_mut(|scratch| {
        scratch.work = u64::MAX;
        std::mem::take(&mut scratch.exhausted)
    });
    (!exhausted).then_some(decided)
}

impl Whole {
    /// Whether it matches all of a text. Under [`bounded`], false where that takes too much work.
    pub(crate) fn matches(self: &Arc<Self>, text: &[u8]) -> bool {
        SCRATCH.with_borrow_mut(|scratch| scratch.matches(self, text))
    }
}

impl Finder {
    /// Whether to find all matches in a text of this length would take too long.
    pub(crate) fn is_too_much(&self, length: usize) -> bool {
        self.instructions.saturating_mul(length as u64) > WORK / STEP
    }

    /// Replaces every match by what `with` makes of its groups.
    pub(crate) fn replace_all(
        self: &Arc<Self>,
        text: &[u8],
        with: impl Fn(&Groups<'_>, &mut Vec<u8>),
    ) -> Vec<u8> {
        SCRATCH.with_borrow_mut(|scratch| {
            let (mut replaced, mut end) = (Vec::with_capacity(text.len()), 0);
            let cache = scratch.of_finder(self);
            let mut groups = Groups { text, captures: self.regex.create_captures() };
            let mut searcher = Searcher::new(Input::new(text));
            while let Some(found) = searcher.advance(|input| {
                self.regex.search_captures_with(cache, input, &mut groups.captures);
                Ok(groups.captures.get_match())
            }) {
                replaced.extend_from_slice(&text[end..found.start()]);
                with(&groups, &mut replaced);
                end = found.end();
            }
            replaced.extend_from_slice(&text[end..]);
            scratch.settle(Arc::as_ptr(self) as usize);
            replaced
        })
    }
}

/// The groups of a match.
pub(crate) struct Groups<'a> {
    text: &'a [u8],
    captures: regex_automata::util::captures::Captures,
}

impl Groups<'_> {
    /// What a group matched; nothing, where it did not.
    pub(crate) fn get(&self, index: usize) -> &[u8] {
        self.captures.get_group(index).map_or(&[], |span| &self.text[span])
    }
}

impl Scratch {
    fn matches(&mut self, program: &Arc<Whole>, text: &[u8]) -> bool {
        if !self.spend(text.len() as u64) {
            return false;
        }
        let input = Input::new(text).anchored(Anchored::Yes).earliest(true);
        let found = program.dfa.try_search_fwd(self.of_whole(program), &input);
        let learnt = self.settle(Arc::as_ptr(program) as usize);
        // It was found out already: that costs what comes after.
        self.spend(learnt.saturating_mul(LEARNING));
        match found {
            Ok(found) => found.is_some(),
            Err(_) => self.step_through(program, input),
        }
    }

    /// State by state, with nothing learnt.
    fn step_through(&mut self, program: &Whole, input: Input<'_>) -> bool {
        let steps = (program.states as u64).saturating_mul(input.haystack().len() as u64);
        if !self.spend(GIVING_UP.saturating_add(steps.saturating_mul(STEP))) {
            return false;
        }
        let cache = self.vm.get_or_insert_with(|| program.vm.create_cache());
        cache.reset(&program.vm);
        program.vm.is_match(cache, input)
    }

    /// False where there is not so much left.
    fn spend(&mut self, work: u64) -> bool {
        let left = self.work.checked_sub(work);
        self.exhausted |= left.is_none();
        self.work = left.unwrap_or(0);
        left.is_some()
    }

    fn of_whole(&mut self, program: &Arc<Whole>) -> &mut hybrid::dfa::Cache {
        let fresh = || Learnt::Whole(Arc::downgrade(program), Box::new(program.dfa.create_cache()));
        match self.of(Arc::as_ptr(program) as usize, fresh) {
            Learnt::Whole(_, cache) => cache,
            Learnt::Finder(..) => unreachable!("an address is that of one expression"),
        }
    }

    fn of_finder(&mut self, program: &Arc<Finder>) -> &mut meta::Cache {
        let fresh = || Learnt::Finder(Arc::downgrade(program), Box::new(program.regex.create_cache()));
        match self.of(Arc::as_ptr(program) as usize, fresh) {
            Learnt::Finder(_, cache) => cache,
            Learnt::Whole(..) => unreachable!("an address is that of one expression"),
        }
    }

    fn of(&mut self, address: usize, fresh: impl FnOnce() -> Learnt) -> &mut Learnt {
        self.turn += 1;
        let kept = self.kept.entry(address).or_insert_with(|| Kept { learnt: fresh(), bytes: 0, used: 0 });
        kept.used = self.turn;
        &mut kept.learnt
    }

    /// Counts what a search has learnt, in bytes, and makes room.
    fn settle(&mut self, address: usize) -> u64 {
        let Some(kept) = self.kept.get_mut(&address) else { return 0 };
        let now = match &kept.learnt {
            Learnt::Whole(_, cache) => cache.memory_usage() + size_of::<hybrid::dfa::Cache>(),
            Learnt::Finder(_, cache) => cache.memory_usage() + size_of::<meta::Cache>(),
        } + size_of::<Kept>();
        let before = std::mem::replace(&mut kept.bytes, now);
        self.bytes = self.bytes + now - before;
        if self.bytes > KEPT_BYTES {
            self.make_room();
        }
        now.saturating_sub(before) as u64
    }

    /// Forgets the half that was not used for longest.
    fn make_room(&mut self) {
        let mut uses: Vec<u64> = self.kept.values().map(|kept| kept.used).collect();
        uses.sort_unstable();
        let oldest = uses[uses.len() / 2];
        self.kept.retain(|_, kept| kept.used >= oldest && kept.learnt.is_of_use());
        self.bytes = self.kept.values().map(|kept| kept.bytes).sum();
        self.vm = None;
    }
}

impl Learnt {
    fn is_of_use(&self) -> bool {
        match self {
            Self::Whole(program, _) => program.strong_count() > 0,
            Self::Finder(program, _) => program.strong_count() > 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(source: &str) -> Arc<Whole> {
        Arc::new(Whole::compile(source).unwrap())
    }

    /// Two letters in no order.
    fn noise(length: u32) -> Vec<u8> {
        (0..length).map(|i| if i.wrapping_mul(2_654_435_761) >> 13 & 1 == 0 { b'a' } else { b'b' }).collect()
    }

    #[test]
    fn a_thread_keeps_a_bounded_amount_of_what_expressions_learn() {
        let all: Vec<_> = (0..200).map(|n| whole(&format!("(a|b)*a(a|b){{{}}}", 100 + n))).collect();
        let text = noise(2000);
        for program in all.iter().chain(&all) {
            program.matches(&text);
            SCRATCH.with_borrow(|scratch| assert!(scratch.bytes <= KEPT_BYTES, "{}", scratch.bytes));
        }
        SCRATCH.with_borrow(|scratch| assert!(scratch.kept.len() > 10, "{}", scratch.kept.len()));
    }

    #[test]
    fn what_has_learnt_too_much_and_what_has_not_match_alike() {
        let program = whole("(a|b)*a(a|b){500}");
        for length in [500, 501, 502, 3000] {
            let text = noise(length);
            let expected = text.len() > 500 && text[text.len() - 501] == b'a';
            assert_eq!(program.matches(&text), expected, "{length}");
        }
    }

    #[test]
    fn a_request_gets_so_much_work_and_no_more() {
        let hard = whole("(a|b)*a(a|b){1000}");
        let easy = whole("(a|b)*");
        let (long, short) = (noise(60_000), noise(500));
        assert_eq!(bounded(|| easy.matches(&long)), Some(true), "learnt at once");
        assert_eq!(bounded(|| hard.matches(&short)), Some(false));
        assert_eq!(bounded(|| hard.matches(&long)), None);
        assert_eq!(bounded(|| easy.matches(&short)), Some(true), "the next request begins anew");
        assert_eq!(bounded(|| (0..1000).any(|_| !easy.matches(&long))), None, "all expressions together");
        assert!(hard.matches(&long) || !hard.matches(&long), "nobody counts outside of requests");
    }
}
