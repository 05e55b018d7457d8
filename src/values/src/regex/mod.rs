//! Regular expressions that mean what PostgreSQL's do: advanced, extended and basic ones, with
//! references and with looks ahead and behind.
//!
//! PostgreSQL does not take the first alternative that fits, as Perl's engines do: a match begins
//! as far left as one can and is then the longest, or the shortest where the expression prefers
//! less. Only then is it asked which part matched what. So this is an engine of its own. A pattern
//! is read into the sets of texts that it matches ([`parse`]); automata made while they run find
//! the extents ([`automaton`]), and a tree of those parts in which somebody takes interest takes a
//! match apart ([`matcher`], [`repeat`]).
//!
//! A search looks at each character once where there is no match, and where there is one, once
//! more for every place where one might have begun before. References and repeated groups may need
//! more; what needs too much stops with an error (`54001`) instead of holding up everything else.
//!
//! What is PostgreSQL's and not here: nothing that its manual describes. Limits are 600 nested
//! parentheses and 50,000 steps of a program (`regular expression is too complex`).

mod automaton;
mod lex;
mod matcher;
mod names;
mod parse;
mod program;
mod repeat;
mod replace;
mod similar;
#[cfg(test)]
mod tests;

use crate::letters::Ranges;
pub use matcher::Extent;
use matcher::{Matcher, Memory};
use parse::{Look, Node, Re};
use program::Colors;
pub use replace::Replacement;
pub use similar::from_similar;
use std::cell::RefCell;
use std::rc::Rc;
use tidemark_common::{Error, Result, SqlState};

/// How a pattern is read and what line feeds mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flags {
    /// Not a basic expression.
    pub extended: bool,
    /// With escapes, non-greedy quantifiers and so on.
    pub advanced: bool,
    /// The pattern is the text itself.
    pub quote: bool,
    /// Case does not matter.
    pub ignore_case: bool,
    /// White space and comments in the pattern are skipped.
    pub expanded: bool,
    /// `.` and `[^...]` do not match a line feed.
    pub newline_stops: bool,
    /// `^` and `$` match at line feeds too.
    pub newline_anchors: bool,
}

impl Default for Flags {
    fn default() -> Flags {
        Flags {
            extended: true,
            advanced: true,
            quote: false,
            ignore_case: false,
            expanded: false,
            newline_stops: false,
            newline_anchors: false,
        }
    }
}

impl Flags {
    /// The flags of `~*`.
    pub fn ignoring_case() -> Flags {
        Flags {
            ignore_case: true,
            ..Flags::default()
        }
    }

    /// The flags that the argument of a function asks for, and whether `g` is among them.
    ///
    /// Errors: `22023` for a letter that is no flag.
    pub fn read(letters: &str) -> Result<(Flags, bool)> {
        let (mut flags, mut global) = (Flags::default(), false);
        for letter in letters.chars() {
            if letter == 'g' {
                global = true;
            } else if letter == 'e' {
                // PostgreSQL asks for extended expressions here and gets basic ones.
                (flags.extended, flags.advanced, flags.quote) = (false, false, false);
            } else if !flags.set(letter) {
                return Err(Error::user(
                    SqlState::INVALID_PARAMETER,
                    format!("invalid regular expression option: \"{letter}\""),
                ));
            }
        }
        Ok((flags, global))
    }

    /// Applies a letter; `false` if it is none.
    fn set(&mut self, letter: char) -> bool {
        match letter {
            'b' => (self.extended, self.advanced, self.quote) = (false, false, false),
            'c' => self.ignore_case = false,
            'e' => (self.extended, self.advanced, self.quote) = (true, false, false),
            'i' => self.ignore_case = true,
            'm' | 'n' => (self.newline_stops, self.newline_anchors) = (true, true),
            'p' => (self.newline_stops, self.newline_anchors) = (true, false),
            'q' => (self.extended, self.advanced, self.quote) = (false, false, true),
            's' => (self.newline_stops, self.newline_anchors) = (false, false),
            't' => self.expanded = false,
            'w' => (self.newline_stops, self.newline_anchors) = (false, true),
            'x' => self.expanded = true,
            _ => return false,
        }
        true
    }

    fn check(self) -> Result<(), Fault> {
        let newline = self.newline_stops || self.newline_anchors;
        let with_quote = self.extended || self.advanced || self.expanded || newline;
        if (self.quote && with_quote) || (self.advanced && !self.extended) {
            return Err(Fault::Argument);
        }
        Ok(())
    }
}

/// What is wrong with a pattern, or stops a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Version,
    Quantifier,
    Option,
    Escape,
    Braces,
    Brackets,
    Parentheses,
    Repetition,
    Range,
    ClassName,
    Collating,
    Reference,
    Complex,
    Argument,
    Endless,
    Unwanted,
    Bug,
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        let what = match fault {
            Fault::Version => "invalid regexp (reg version 0.8)",
            Fault::Quantifier => "quantifier operand invalid",
            Fault::Option => "invalid embedded option",
            Fault::Escape => "invalid escape \\ sequence",
            Fault::Braces => "braces {} not balanced",
            Fault::Brackets => "brackets [] not balanced",
            Fault::Parentheses => "parentheses () not balanced",
            Fault::Repetition => "invalid repetition count(s)",
            Fault::Range => "invalid character range",
            Fault::ClassName => "invalid character class",
            Fault::Collating => "invalid collating element",
            Fault::Reference => "invalid backreference number",
            Fault::Complex => "regular expression is too complex",
            Fault::Argument => "invalid argument to regex function",
            Fault::Endless => {
                return Error::user(
                    SqlState::STATEMENT_TOO_COMPLEX,
                    "matching a regular expression takes too many steps",
                );
            }
            Fault::Unwanted => {
                let message = "canceling statement due to user request";
                return Error::user(SqlState::QUERY_CANCELED, message);
            }
            Fault::Bug => return Error::internal("a regular expression was misread"),
        };
        Error::user(
            SqlState("2201B"),
            format!("invalid regular expression: {what}"),
        )
    }
}

/// What a pattern means; does not change.
struct Code {
    tree: Node,
    groups: usize,
    refers: bool,
    looks: Vec<Look>,
    parts: Vec<Rc<Re>>,
    colors: Colors,
    ignores_case: bool,
}

/// A compiled pattern. It remembers what it has learned of texts, so it stays with a thread.
pub struct Regex {
    code: Code,
    memory: RefCell<Memory>,
}

impl Regex {
    /// Compiles a pattern.
    ///
    /// Errors: `2201B` for one that is invalid.
    pub fn new(pattern: &str, flags: Flags) -> Result<Regex> {
        Ok(Regex::compile(pattern, flags)?)
    }

    fn compile(pattern: &str, flags: Flags) -> Result<Regex, Fault> {
        flags.check()?;
        let mut parsed = parse::parse(pattern, flags)?;
        let sets: &[Ranges] = &parsed.sets;
        let mut parts = Vec::new();
        parsed.tree.count(&mut parts);
        // A program too long is told now, not with the first text.
        let programs = parsed.looks.iter().map(|l| &l.re).chain([&parsed.tree.re]);
        let mut has_places = false;
        for re in programs {
            has_places |= program::Program::new(re)?.has_places;
        }
        Ok(Regex {
            code: Code {
                groups: parsed.groups,
                refers: parsed.refers,
                colors: Colors::new(sets, has_places),
                ignores_case: parsed.flags.ignore_case,
                looks: parsed.looks,
                parts,
                tree: parsed.tree,
            },
            memory: RefCell::default(),
        })
    }

    /// How many groups it captures.
    pub fn groups(&self) -> usize {
        self.code.groups
    }

    /// Whether a text has a match.
    ///
    /// Errors: `54001` if that takes too long to tell.
    pub fn is_match(&self, text: &str) -> Result<bool> {
        let mut memory = self.memory.borrow_mut();
        Ok(Matcher::new(&self.code, &mut memory, text).is_match(0)?)
    }

    /// The leftmost match that begins at byte `from` or later. `extents` becomes the match and its
    /// groups, or the match alone if it has room for no more than one.
    ///
    /// Errors: `54001` if that takes too long to tell.
    pub fn find_at(&self, text: &str, from: usize, extents: &mut Extents) -> Result<bool> {
        extents.0.clear();
        if from > text.len() {
            return Ok(false);
        }
        let mut memory = self.memory.borrow_mut();
        let mut matcher = Matcher::new(&self.code, &mut memory, text);
        let groups = extents.1 && self.code.groups > 0;
        let Some(whole) = matcher.find(from, groups)? else {
            return Ok(false);
        };
        extents.0.push(Some(whole));
        if groups {
            extents.0.extend_from_slice(matcher.groups());
        }
        Ok(true)
    }
}

/// Where a match and its groups are, in bytes.
#[derive(Debug, Clone)]
pub struct Extents(Vec<Extent>, bool);

impl Extents {
    /// Of the match only, or of its groups too.
    pub fn new(groups: bool) -> Extents {
        Extents(Vec::new(), groups)
    }

    /// The match.
    pub fn whole(&self) -> (usize, usize) {
        self.0.first().copied().flatten().unwrap_or_default()
    }

    /// A group, from 1; 0 is the match.
    pub fn get(&self, group: usize) -> Extent {
        self.0.get(group).copied().flatten()
    }

    /// Where the search for the next match goes on: after an empty one, a character later; beyond
    /// the text there is no further one.
    pub fn next(&self, text: &str) -> usize {
        match self.whole() {
            (from, to) if from == to => to + text[to..].chars().next().map_or(1, char::len_utf8),
            (_, to) => to,
        }
    }
}
