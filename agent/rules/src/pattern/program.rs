//! Compiled regular expressions: bounded in size, without a memory of their own for matching.

use regex_automata::hybrid::dfa::DFA;
use regex_automata::meta;
use regex_automata::nfa::thompson::pikevm::PikeVM;
use regex_automata::nfa::thompson::{Compiler, Config, WhichCaptures};
use regex_syntax::hir::{Capture, Hir, HirKind, Look};
use weft_api::pattern::{Parsed, parse};

/// Most bytes of a compiled expression: behind the bound on instructions, should that ever count wrong.
const PROGRAM_BYTES: usize = 1 << 20;
/// Most bytes of what one expression learns while it matches, in each thread.
const LEARNT_BYTES: usize = 256 << 10;
/// The same of a table that finds groups in one pass.
const ONE_PASS_BYTES: usize = 16 << 10;
/// Groups that a substitution can name: `\0` to `\9`.
const GROUPS: u32 = 9;

/// Matches whole texts.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(super) dfa: DFA,
    /// For texts on which [`Self::dfa`] learns more than it may keep.
    pub(super) vm: PikeVM,
    pub(super) states: usize,
}

impl Whole {
    pub(crate) fn compile(source: &str) -> Result<Self, String> {
        let Parsed { hir, .. } = read(source)?;
        let too_large = |error: &dyn std::fmt::Display| refused(source, error);
        let nfa = Compiler::new()
            .configure(
                Config::new()
                    .utf8(false)
                    .which_captures(WhichCaptures::None)
                    .nfa_size_limit(Some(PROGRAM_BYTES)),
            )
            .build_from_hir(&Hir::concat(vec![hir, Hir::look(Look::End)]))
            .map_err(|error| too_large(&error))?;
        let config = DFA::config()
            .cache_capacity(LEARNT_BYTES)
            .skip_cache_capacity_check(true)
            .unicode_word_boundary(true)
            .minimum_cache_clear_count(Some(3))
            .minimum_bytes_per_state(Some(10));
        let dfa = DFA::builder().configure(config).build_from_nfa(nfa.clone());
        let dfa = dfa.map_err(|error| too_large(&error))?;
        let states = nfa.states().len();
        Ok(Self { dfa, vm: PikeVM::new_from_nfa(nfa).map_err(|error| too_large(&error))?, states })
    }
}

/// Finds matches anywhere in a text, with their groups.
#[derive(Debug)]
pub(crate) struct Finder {
    pub(super) regex: meta::Regex,
    pub(super) instructions: u64,
}

impl Finder {
    pub(crate) fn compile(source: &str) -> Result<Self, String> {
        let Parsed { hir, instructions } = read(source)?;
        let config = meta::Config::new()
            .utf8_empty(false)
            .nfa_size_limit(Some(PROGRAM_BYTES))
            .onepass_size_limit(Some(ONE_PASS_BYTES))
            .auto_prefilter(false)
            .hybrid(false)
            .dfa(false);
        // What is remembered of every group is remembered for every state.
        let regex = meta::Regex::builder().configure(config).build_from_hir(&with_first_groups(hir));
        Ok(Self { regex: regex.map_err(|error| refused(source, &error))?, instructions })
    }
}

fn read(source: &str) -> Result<Parsed, String> {
    parse(source).map_err(|wrong| refused(source, &wrong))
}

fn refused(source: &str, reason: &dyn std::fmt::Display) -> String {
    format!("{source:?} is not a valid regex: {reason}")
}

/// The same without the groups that no substitution can name. As deep as the parser lets it be.
fn with_first_groups(hir: Hir) -> Hir {
    let all = |hirs: Vec<Hir>| hirs.into_iter().map(with_first_groups).collect();
    match hir.into_kind() {
        HirKind::Capture(Capture { index, sub, .. }) if index > GROUPS => with_first_groups(*sub),
        HirKind::Capture(mut capture) => {
            capture.sub = Box::new(with_first_groups(*capture.sub));
            Hir::capture(capture)
        }
        HirKind::Repetition(mut repetition) => {
            repetition.sub = Box::new(with_first_groups(*repetition.sub));
            Hir::repetition(repetition)
        }
        HirKind::Concat(hirs) => Hir::concat(all(hirs)),
        HirKind::Alternation(hirs) => Hir::alternation(all(hirs)),
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) => Hir::literal(literal.0),
        HirKind::Class(class) => Hir::class(class),
        HirKind::Look(look) => Hir::look(look),
    }
}
