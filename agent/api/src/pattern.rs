//! Regular expressions as RE2 has them: read, and weighed before anybody compiles them.
//!
//! Twenty characters can stand for millions of instructions: `(a{1,100}){1,100}` repeats `a` ten thousand times. What one
//! stands for is counted on its syntax, which takes microseconds; nothing is compiled here. It is counted twice: from above,
//! before classes of characters are made up, and then closely.

use regex_syntax::ast::{
    self, Ast, ClassSet, ClassSetBinaryOp, ClassSetItem, Flag, FlagsItemKind, Literal, RepetitionKind,
    RepetitionRange, Visitor,
};
use regex_syntax::hir::translate::TranslatorBuilder;
use regex_syntax::hir::{Class, Hir, HirKind};

/// Longest text of a regular expression; Istio's own bound.
pub const LONGEST: usize = 1024;
/// Most instructions that one may stand for. One takes about 32 bytes of every agent's memory, and a text that is matched
/// costs at worst a few nanoseconds for each of its bytes and each instruction.
pub const MOST_INSTRUCTIONS: u64 = 4096;
/// How deep groups and counts may be nested.
const DEEPEST: u32 = 100;

/// The same, counted from above.
const MOST_FROM_ABOVE: u64 = 8 * MOST_INSTRUCTIONS;

/// What a class of Unicode's stands for, at most: it is a tree of byte sequences.
const UNICODE_CLASS: u64 = 512;
/// The same where case is ignored: to find the other case of each character takes long.
const FOLDED_CLASS: u64 = 8192;
/// Any character of Unicode.
const ANY_CHARACTER: u64 = 16;

/// A regular expression that may be compiled.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// Its syntax.
    pub hir: Hir,
    /// Instructions that it stands for, or more.
    pub instructions: u64,
}

/// Why a text is no regular expression that weft takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// RE2 knows no such thing.
    #[error("{0}")]
    Syntax(String),
    /// The text itself.
    #[error("longer than {LONGEST} bytes")]
    Long,
    /// What it stands for.
    #[error("stands for about {0} instructions, more than {MOST_INSTRUCTIONS}")]
    Large(u64),
}

/// Reads a regular expression. As in RE2, classes such as `\w` and `\d` are ASCII; patterns that speak of Unicode classes
/// get them. Never panics.
///
/// # Errors
/// [`Wrong`], with the reason in words.
pub fn parse(text: &str) -> Result<Parsed, Wrong> {
    if text.len() > LONGEST {
        return Err(Wrong::Long);
    }
    let ast = ast::parse::ParserBuilder::new().nest_limit(DEEPEST).build().parse(text);
    let ast = ast.map_err(|error| Wrong::Syntax(error.kind().to_string()))?;
    let Ok(traits) = ast::visit(&ast, Traits::default());
    let from_above = traits.weigh(&ast);
    if from_above > MOST_FROM_ABOVE {
        return Err(Wrong::Large(from_above));
    }
    let translate =
        |unicode: bool| TranslatorBuilder::new().unicode(unicode).utf8(false).build().translate(text, &ast);
    let hir = translate(false).or_else(|_| translate(true));
    let hir = hir.map_err(|error| Wrong::Syntax(error.kind().to_string()))?;
    match weigh(&hir) {
        instructions if instructions > MOST_INSTRUCTIONS => Err(Wrong::Large(instructions)),
        instructions => Ok(Parsed { hir, instructions }),
    }
}

/// Counts instructions closely.
fn weigh(hir: &Hir) -> u64 {
    let sum = |all: &[Hir]| all.iter().fold(0u64, |sum, hir| sum.saturating_add(weigh(hir)));
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Class(Class::Bytes(class)) => 1 + class.ranges().len() as u64 / 4,
        HirKind::Class(Class::Unicode(class)) if class.is_ascii() => 1 + class.ranges().len() as u64 / 4,
        HirKind::Class(Class::Unicode(class)) => ANY_CHARACTER + class.ranges().len() as u64,
        HirKind::Capture(capture) => weigh(&capture.sub).saturating_add(2),
        HirKind::Concat(all) => sum(all),
        HirKind::Alternation(all) => sum(all).saturating_add(all.len() as u64),
        HirKind::Repetition(repetition) => {
            let one = weigh(&repetition.sub);
            let must = one.saturating_mul(u64::from(repetition.min));
            let may = match repetition.max {
                None => one.saturating_add(2),
                Some(max) => {
                    one.saturating_add(1).saturating_mul(u64::from(max.saturating_sub(repetition.min)))
                }
            };
            must.saturating_add(may).saturating_add(1)
        }
    }
}

/// A policy's path with templates such as `/shops/{*}/items/{**}`, as a regular expression; `None`: it has none. Stars without
/// braces mean the same in it, as they do to Envoy.
pub fn path_template(path: &str) -> Option<String> {
    const ONE: &str = "{*}";
    const ANY: &str = "{**}";
    if !path.contains(ONE) && !path.contains(ANY) {
        return None;
    }
    let plain = path.replace(ANY, "**").replace(ONE, "*");
    let pieces = plain.split("**").map(|piece| {
        let literals: Vec<String> = piece.split('*').map(regex_syntax::escape).collect();
        literals.join("[^/]+")
    });
    let pieces: Vec<String> = pieces.collect();
    Some(pieces.join(".*"))
}

/// What makes characters expensive anywhere in the text.
#[derive(Debug, Clone, Copy, Default)]
struct Traits {
    unicode: bool,
    ignores_case: bool,
}

impl Visitor for Traits {
    type Output = Self;
    type Err = std::convert::Infallible;

    fn finish(self) -> Result<Self, Self::Err> {
        Ok(self)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), Self::Err> {
        match ast {
            Ast::Flags(set) => self.flags(&set.flags),
            Ast::Group(group) => group.flags().into_iter().for_each(|flags| self.flags(flags)),
            Ast::ClassUnicode(_) => self.unicode = true,
            Ast::Literal(literal) => self.literal(literal),
            _ => {}
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Self::Err> {
        match item {
            ClassSetItem::Literal(literal) => self.literal(literal),
            ClassSetItem::Range(range) => {
                self.literal(&range.start);
                self.literal(&range.end);
            }
            ClassSetItem::Unicode(_) => self.unicode = true,
            _ => {}
        }
        Ok(())
    }
}

impl Traits {
    fn literal(&mut self, literal: &Literal) {
        self.unicode |= !literal.c.is_ascii();
    }

    fn flags(&mut self, flags: &ast::Flags) {
        for item in &flags.items {
            match item.kind {
                FlagsItemKind::Flag(Flag::CaseInsensitive) => self.ignores_case = true,
                FlagsItemKind::Flag(Flag::Unicode) => self.unicode = true,
                _ => {}
            }
        }
    }

    fn weigh(self, ast: &Ast) -> u64 {
        match ast {
            Ast::Empty(_) | Ast::Flags(_) | Ast::Assertion(_) => 1,
            Ast::Literal(literal) => self.character(literal.c),
            Ast::Dot(_) => self.any(),
            Ast::ClassUnicode(_) => self.class(),
            Ast::ClassPerl(_) => self.perl(),
            Ast::ClassBracketed(class) => self.set(&class.kind).saturating_add(self.any()),
            Ast::Repetition(repetition) => repeated(self.weigh(&repetition.ast), &repetition.op.kind),
            Ast::Group(group) => self.weigh(&group.ast).saturating_add(2),
            Ast::Alternation(all) => self.sum(&all.asts).saturating_add(all.asts.len() as u64),
            Ast::Concat(all) => self.sum(&all.asts),
        }
    }

    fn sum(self, all: &[Ast]) -> u64 {
        all.iter().fold(0, |sum, ast| sum.saturating_add(self.weigh(ast)))
    }

    fn character(self, c: char) -> u64 {
        let bytes = c.len_utf8() as u64;
        // `ſ` is an `s`, and the Kelvin sign a `k`: several sequences of bytes for one letter.
        if self.unicode && self.ignores_case { 3 * bytes.max(2) } else { bytes }
    }

    fn any(self) -> u64 {
        if self.unicode { ANY_CHARACTER } else { 1 }
    }

    fn class(self) -> u64 {
        if self.ignores_case { FOLDED_CLASS } else { UNICODE_CLASS }
    }

    fn perl(self) -> u64 {
        if self.unicode { self.class() } else { 2 }
    }

    fn set(self, set: &ClassSet) -> u64 {
        match set {
            ClassSet::Item(item) => self.item(item),
            ClassSet::BinaryOp(ClassSetBinaryOp { lhs, rhs, .. }) => {
                self.set(lhs).saturating_add(self.set(rhs))
            }
        }
    }

    fn item(self, item: &ClassSetItem) -> u64 {
        match item {
            ClassSetItem::Empty(_) => 0,
            // Ranges of bytes share an instruction.
            ClassSetItem::Literal(_) | ClassSetItem::Range(_) | ClassSetItem::Ascii(_) if !self.unicode => 1,
            ClassSetItem::Literal(literal) => 2 * self.character(literal.c),
            ClassSetItem::Range(range) => {
                // Each character is asked for its other cases.
                let width = u64::from(u32::from(range.end.c).abs_diff(u32::from(range.start.c)));
                ANY_CHARACTER + if self.ignores_case { width / 64 } else { 0 }
            }
            ClassSetItem::Ascii(_) => ANY_CHARACTER,
            ClassSetItem::Unicode(_) => self.class(),
            ClassSetItem::Perl(_) => self.perl(),
            ClassSetItem::Bracketed(class) => self.set(&class.kind).saturating_add(self.any()),
            ClassSetItem::Union(union) => {
                union.items.iter().fold(0, |sum, item| sum.saturating_add(self.item(item)))
            }
        }
    }
}

/// A count copies what it repeats.
fn repeated(one: u64, kind: &RepetitionKind) -> u64 {
    let copies = |times: u32| one.saturating_add(1).saturating_mul(u64::from(times));
    match kind {
        RepetitionKind::ZeroOrOne | RepetitionKind::ZeroOrMore | RepetitionKind::OneOrMore => {
            one.saturating_add(2)
        }
        RepetitionKind::Range(RepetitionRange::Exactly(times) | RepetitionRange::Bounded(_, times)) => {
            copies(*times).saturating_add(1)
        }
        RepetitionKind::Range(RepetitionRange::AtLeast(times)) => {
            copies(times.saturating_add(1)).saturating_add(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_write_is_far_below_the_bound() {
        for (text, most) in [
            ("v[12]", 10),
            (r"^(.*?;)?(user=jason)(;.*)?$", 60),
            (r"/api/v[0-9]+/users/[^/]+/orders/\d+", 60),
            ("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", 150),
            ("https://([-a-z0-9]{1,63}\\.)*example\\.com(:[0-9]{1,5})?", 500),
            (".{0,1000}", 2100),
            (r"(?i)\p{Greek}+", 1100),
            ("(?i)ä+ß?", 60),
        ] {
            let parsed = parse(text).unwrap_or_else(|wrong| panic!("{text}: {wrong}"));
            assert!(parsed.instructions <= most, "{text}: {}", parsed.instructions);
        }
    }

    #[test]
    fn what_stands_for_too_much_is_refused_unseen() {
        for text in [
            "(a{1,100}){1,100}b",
            r"(\p{L}\p{M}*){1,60}x",
            "((a{1000}){1000}){1000}",
            "((((((((((a{9}){9}){9}){9}){9}){9}){9}){9}){9}){9}){999999999}",
            "(?i)[\u{0}-\u{10ffff}][\u{0}-\u{10ffff}]",
            r"(?i)(\w\p{L}[^\p{N}]\p{S}\pP)",
            "[^é]{300}",
        ] {
            assert!(matches!(parse(text), Err(Wrong::Large(_))), "{text}: {:?}", parse(text));
        }
        assert_eq!(parse(&"a".repeat(LONGEST + 1)).unwrap_err(), Wrong::Long);
        assert!(matches!(parse(&"(".repeat(500)), Err(Wrong::Syntax(_))));
        assert!(matches!(parse("(?=a)"), Err(Wrong::Syntax(_))));
        assert!(matches!(parse(r"\p{Klingon}"), Err(Wrong::Syntax(_))));
    }
}
