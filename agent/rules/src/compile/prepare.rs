//! Regular expressions compiled apart from the objects that have them: it takes long, and nothing else should wait.

use std::sync::Arc;

use weft_api::budget::weigh;
use weft_api::object::Object;

use crate::compile::Compiler;
use crate::pattern::{Finder, Whole};

/// Regular expressions of one object that nobody has compiled yet.
#[derive(Debug, Default)]
pub struct Unprepared {
    whole: Vec<String>,
    within: Vec<String>,
    /// What they stand for: how long it will take.
    pub instructions: u64,
}

/// The same, compiled. One that cannot be is missing here; its route says so.
#[derive(Debug, Default)]
pub struct Prepared {
    whole: Vec<(String, Arc<Whole>)>,
    within: Vec<(String, Arc<Finder>)>,
}

impl Unprepared {
    /// Compiles them, on whatever thread this is.
    pub fn prepare(self) -> Prepared {
        let whole = |source: String| Whole::compile(&source).ok().map(|program| (source, Arc::new(program)));
        let within =
            |source: String| Finder::compile(&source).ok().map(|program| (source, Arc::new(program)));
        Prepared {
            whole: self.whole.into_iter().filter_map(whole).collect(),
            within: self.within.into_iter().filter_map(within).collect(),
        }
    }
}

impl Compiler {
    /// What of an object's regular expressions is to be compiled for it.
    pub fn unprepared(&self, object: &Object) -> Unprepared {
        let mut unprepared = Unprepared::default();
        let Object::VirtualService(rules) = object else { return unprepared };
        let rewrites = rules.spec.http.iter().filter_map(|route| route.rewrite.as_ref());
        let within: Vec<&str> =
            rewrites.filter_map(|rewrite| Some(&*rewrite.uri_regex_rewrite.as_ref()?.r#match)).collect();
        for (source, instructions) in weigh(object).into_iter().flat_map(|weight| weight.patterns) {
            let list = if within.contains(&&*source) {
                (!self.intern.has_finder(&source)).then_some(&mut unprepared.within)
            } else {
                (!self.intern.has_pattern(&source)).then_some(&mut unprepared.whole)
            };
            if let Some(list) = list {
                unprepared.instructions += instructions;
                list.push(source);
            }
        }
        unprepared
    }

    /// Takes in what was compiled apart; the next [`Self::apply`] has to bring the objects that it is for.
    pub fn take_prepared(&mut self, prepared: Prepared) {
        for (source, program) in prepared.whole {
            self.intern.take_pattern(&source, program);
        }
        for (source, program) in prepared.within {
            self.intern.take_finder(&source, program);
        }
    }
}
