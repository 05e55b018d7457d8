//! Finding a match in a text, and taking it apart into groups.
//!
//! A match begins as far left as any does. Its extent is the longest from there, or the shortest
//! if the whole expression prefers less; then every part of the tree gets, from the left, the
//! longest or shortest extent with which the rest still matches. Where references are, an extent
//! that cannot be taken apart is passed over for the next.

use super::automaton::{Automaton, DEAD};
use super::parse::{Node, Op, SHORTER};
use super::program::{Program, Side};
use super::{Code, Fault};
use crate::letters::lower;
use tidemark_common::check_interrupt;

/// Characters that a search may look at, beside some for each of the text: what takes a power of
/// the text's length stops.
const LOOKS_MAX: u64 = 100_000_000;

/// How many of them are looked at before it is asked whether anybody still waits.
const LOOKS_UNINTERRUPTED: u64 = 1 << 16;

/// Extent of a group in bytes, if it took part.
pub type Extent = Option<(usize, usize)>;

/// What the automata remember between texts.
#[derive(Default)]
pub(super) struct Memory {
    /// By number: of the whole, of its search, of each look, then of the tree's nodes.
    automata: Vec<Option<Box<Automaton>>>,
}

/// The automaton of the whole expression.
const WHOLE: usize = 0;
/// The same for a match that begins anywhere.
const SEARCH: usize = 1;
const FIRST_LOOK: usize = 2;

pub(super) struct Matcher<'a> {
    code: &'a Code,
    memory: &'a mut Memory,
    text: &'a str,
    left: u64,
    groups: Vec<Extent>,
    /// Of each look behind: how far it was run, by which generation, and its state there.
    behind: Vec<(usize, u32, u32)>,
}

type Result<T> = std::result::Result<T, Fault>;

impl<'a> Matcher<'a> {
    pub fn new(code: &'a Code, memory: &'a mut Memory, text: &'a str) -> Matcher<'a> {
        Matcher {
            code,
            memory,
            text,
            left: LOOKS_MAX + 64 * text.len() as u64,
            groups: Vec::new(),
            behind: vec![(0, 0, 0); code.looks.len()],
        }
    }

    /// Whether there is a match that begins at `from` or later.
    pub fn is_match(&mut self, from: usize) -> Result<bool> {
        if self.code.refers {
            return Ok(self.find(from, false)?.is_some());
        }
        Ok(self.search(from)?.is_some())
    }

    /// The leftmost match that begins at `from` or later; its groups with `groups`, from 1.
    pub fn find(&mut self, from: usize, groups: bool) -> Result<Option<(usize, usize)>> {
        let Some((cold, close)) = self.search(from)? else {
            return Ok(None);
        };
        let tree = &self.code.tree;
        let shorter = tree.flags & SHORTER != 0;
        let mut begin = cold;
        while begin <= self.text.len() {
            if self.code.refers {
                if let Some(end) = self.find_with_references(tree, begin, shorter)? {
                    return Ok(Some((begin, end)));
                }
            } else {
                debug_assert!(begin <= close, "the search found a match");
                let end = if shorter {
                    self.shortest(WHOLE, begin, begin, self.text.len())?
                } else {
                    self.longest(WHOLE, begin, self.text.len())?
                };
                if let Some(end) = end {
                    if groups {
                        self.clear();
                        self.dissect(tree, begin, end)?;
                    }
                    return Ok(Some((begin, end)));
                }
            }
            begin = self.after(begin);
        }
        Ok(None)
    }

    /// The groups of the last match, from 1.
    pub fn groups(&self) -> &[Extent] {
        &self.groups
    }

    fn clear(&mut self) {
        self.groups.clear();
        self.groups.resize(self.code.groups, None);
    }

    fn find_with_references(
        &mut self,
        tree: &Node,
        begin: usize,
        shorter: bool,
    ) -> Result<Option<usize>> {
        let (mut least, mut most) = (begin, self.text.len());
        loop {
            let end = if shorter {
                self.shortest(WHOLE, begin, least, most)?
            } else {
                self.longest(WHOLE, begin, most)?
            };
            let Some(end) = end else { return Ok(None) };
            self.clear();
            if self.dissect(tree, begin, end)? {
                return Ok(Some(end));
            }
            if end == if shorter { most } else { begin } {
                return Ok(None);
            }
            if shorter {
                least = self.after(end);
            } else {
                most = self.before(end);
            }
        }
    }

    fn after(&self, at: usize) -> usize {
        at + self.text[at..].chars().next().map_or(1, char::len_utf8)
    }

    fn before(&self, at: usize) -> usize {
        at - self.text[..at]
            .chars()
            .next_back()
            .map_or(1, char::len_utf8)
    }

    fn automaton(&mut self, slot: usize) -> Result<Box<Automaton>> {
        if self.memory.automata.len() <= slot {
            self.memory.automata.resize_with(slot + 1, || None);
        }
        if let Some(automaton) = self.memory.automata[slot].take() {
            return Ok(automaton);
        }
        let (re, searches) = match slot {
            WHOLE => (&self.code.tree.re, false),
            SEARCH => (&self.code.tree.re, true),
            slot => match self.code.looks.get(slot - FIRST_LOOK) {
                Some(look) => (&look.re, !look.ahead),
                None => {
                    let node = slot - FIRST_LOOK - self.code.looks.len();
                    (&self.code.parts[node], false)
                }
            },
        };
        let program = Program::new(re)?;
        Ok(Box::new(Automaton::new(
            program,
            searches,
            &self.code.colors,
        )))
    }

    /// The end of the match that ends first, and a place before which no match begins.
    fn search(&mut self, from: usize) -> Result<Option<(usize, usize)>> {
        let mut automaton = self.automaton(SEARCH)?;
        let found = self.search_with(&mut automaton, from);
        self.memory.automata[SEARCH] = Some(automaton);
        found
    }

    fn search_with(
        &mut self,
        automaton: &mut Automaton,
        from: usize,
    ) -> Result<Option<(usize, usize)>> {
        let (text, colors) = (self.text, &self.code.colors);
        let mut state = automaton.begin(colors.before(text, from));
        let (mut at, mut cold) = (from, from);
        loop {
            if automaton.is_cold(state) {
                cold = at;
            }
            let (color, length) = colors.at(text, at);
            let (next, matches) = self.step(automaton, state, color, at)?;
            if matches {
                return Ok(Some((cold, at)));
            }
            if at >= text.len() {
                return Ok(None);
            }
            (state, at) = (next, at + length);
        }
    }

    /// The longest match from `begin` that ends at `limit` or before.
    fn longest(&mut self, slot: usize, begin: usize, limit: usize) -> Result<Option<usize>> {
        let mut automaton = self.automaton(slot)?;
        let found = self.run(&mut automaton, begin, limit, None);
        self.memory.automata[slot] = Some(automaton);
        found
    }

    /// The shortest match from `begin` that ends at `least` or after, and at `limit` or before.
    fn shortest(
        &mut self,
        slot: usize,
        begin: usize,
        least: usize,
        limit: usize,
    ) -> Result<Option<usize>> {
        let mut automaton = self.automaton(slot)?;
        let found = self.run(&mut automaton, begin, limit, Some(least));
        self.memory.automata[slot] = Some(automaton);
        found
    }

    /// The last end of a match, or the first at or after `least`.
    fn run(
        &mut self,
        automaton: &mut Automaton,
        begin: usize,
        limit: usize,
        least: Option<usize>,
    ) -> Result<Option<usize>> {
        let (text, colors) = (self.text, &self.code.colors);
        let mut state = automaton.begin(colors.before(text, begin));
        let (mut at, mut end) = (begin, None);
        loop {
            let (color, length) = colors.at(text, at);
            let (next, matches) = self.step(automaton, state, color, at)?;
            if matches {
                match least {
                    None => end = Some(at),
                    Some(least) if at >= least => return Ok(Some(at)),
                    Some(_) => {}
                }
            }
            if at >= limit || next == DEAD {
                return Ok(end);
            }
            (state, at) = (next, at + length);
        }
    }

    #[inline]
    fn step(
        &mut self,
        automaton: &mut Automaton,
        state: u32,
        color: usize,
        at: usize,
    ) -> Result<(u32, bool)> {
        self.left = self.left.checked_sub(1).ok_or(Fault::Endless)?;
        if self.left % LOOKS_UNINTERRUPTED == 0 && check_interrupt().is_err() {
            return Err(Fault::Unwanted);
        }
        match automaton.known(state, color) {
            Some(known) => Ok(known),
            None => {
                self.left = self
                    .left
                    .saturating_sub(automaton.program.steps.len() as u64 / 8);
                let code = self.code;
                automaton.explore(state, color, &code.colors, |look| self.look(look, at))
            }
        }
    }

    /// Whether what must follow or precede does.
    fn look(&mut self, look: usize, at: usize) -> Result<bool> {
        let wanted = &self.code.looks[look];
        let found = if wanted.ahead {
            self.shortest(FIRST_LOOK + look, at, at, self.text.len())?
                .is_some()
        } else {
            self.look_behind(look, at)?
        };
        Ok(found == wanted.positive)
    }

    fn look_behind(&mut self, look: usize, at: usize) -> Result<bool> {
        let slot = FIRST_LOOK + look;
        let mut automaton = self.automaton(slot)?;
        let (mut place, generation, mut state) = self.behind[look];
        if generation != automaton.generation || place > at {
            place = 0;
            state = automaton.begin(Side::Edge);
        }
        let found = loop {
            let (color, length) = self.code.colors.at(self.text, place);
            let (next, matches) = self.step(&mut automaton, state, color, place)?;
            if place >= at {
                break matches;
            }
            (state, place) = (next, place + length);
        };
        self.behind[look] = (place, automaton.generation, state);
        self.memory.automata[slot] = Some(automaton);
        Ok(found)
    }

    fn slot(&self, node: &Node) -> usize {
        FIRST_LOOK + self.code.looks.len() + node.number
    }

    /// Whether a part matches exactly this extent, as far as its automaton tells.
    fn covers(&mut self, node: &Node, begin: usize, end: usize) -> Result<bool> {
        Ok(self.longest(self.slot(node), begin, end)? == Some(end))
    }

    /// Sets the groups of a part that matches this extent; `false` if references do not.
    fn dissect(&mut self, node: &Node, begin: usize, end: usize) -> Result<bool> {
        self.left = self.left.checked_sub(1).ok_or(Fault::Endless)?;
        let fits = match &node.op {
            Op::Leaf => true,
            Op::Back(group, least, most) => self.refers(*group, *least, *most, begin, end),
            Op::Cat => self.dissect_cat(node, begin, end)?,
            Op::Alt => self.dissect_alt(node, begin, end)?,
            Op::Repeat(least, most) => {
                super::repeat::dissect(self, &node.children[0], (*least, *most), begin, end)?
            }
            Op::Group => self.dissect(&node.children[0], begin, end)?,
        };
        if fits && node.capture > 0 {
            self.groups[node.capture - 1] = Some((begin, end));
        }
        Ok(fits)
    }

    /// Forgets the groups within a part.
    fn zap(&mut self, node: &Node) {
        if node.capture > 0 {
            self.groups[node.capture - 1] = None;
        }
        node.children.iter().for_each(|child| self.zap(child));
    }

    fn dissect_cat(&mut self, node: &Node, begin: usize, end: usize) -> Result<bool> {
        let [left, right] = node.children.as_slice() else {
            return Err(Fault::Bug);
        };
        let shorter = left.flags & SHORTER != 0;
        let slot = self.slot(left);
        let mut middle = if shorter {
            self.shortest(slot, begin, begin, end)?
        } else {
            self.longest(slot, begin, end)?
        };
        while let Some(at) = middle {
            if self.covers(right, at, end)? {
                if self.dissect(left, begin, at)? && self.dissect(right, at, end)? {
                    return Ok(true);
                }
                self.zap(left);
                self.zap(right);
            }
            if at == if shorter { end } else { begin } {
                break;
            }
            middle = if shorter {
                self.shortest(slot, begin, self.after(at), end)?
            } else {
                self.longest(slot, begin, self.before(at))?
            };
        }
        Ok(false)
    }

    fn dissect_alt(&mut self, node: &Node, begin: usize, end: usize) -> Result<bool> {
        for branch in &node.children {
            if self.covers(branch, begin, end)? {
                if self.dissect(branch, begin, end)? {
                    return Ok(true);
                }
                self.zap(branch);
            }
        }
        Ok(false)
    }

    /// Whether the extent is the text of a group, so many times.
    fn refers(
        &self,
        group: usize,
        least: u32,
        most: Option<u32>,
        begin: usize,
        end: usize,
    ) -> bool {
        let Some((from, to)) = self.groups[group - 1] else {
            return false;
        };
        if from == to {
            return begin == end;
        }
        if begin == end {
            return least == 0;
        }
        let wanted: Vec<char> = self.text[from..to].chars().collect();
        let found: Vec<char> = self.text[begin..end].chars().collect();
        if found.len() % wanted.len() != 0 {
            return false;
        }
        let times = (found.len() / wanted.len()) as u64;
        let enough = times >= u64::from(least) && most.is_none_or(|most| times <= u64::from(most));
        let equal =
            |(a, b): (&char, &char)| a == b || (self.code.ignores_case && lower(*a) == lower(*b));
        enough && wanted.iter().cycle().zip(&found).all(equal)
    }
}

impl super::repeat::Parts for Matcher<'_> {
    fn longest(&mut self, node: &Node, begin: usize, limit: usize) -> Result<Option<usize>> {
        Matcher::longest(self, self.slot(node), begin, limit)
    }
    fn shortest(
        &mut self,
        node: &Node,
        begin: usize,
        least: usize,
        limit: usize,
    ) -> Result<Option<usize>> {
        Matcher::shortest(self, self.slot(node), begin, least, limit)
    }
    fn dissect(&mut self, node: &Node, begin: usize, end: usize) -> Result<bool> {
        self.zap(node);
        Matcher::dissect(self, node, begin, end)
    }
    fn forget(&mut self, node: &Node) {
        self.zap(node);
    }
    fn after(&self, at: usize) -> usize {
        Matcher::after(self, at)
    }
    fn before(&self, at: usize) -> usize {
        Matcher::before(self, at)
    }
    fn characters(&self, begin: usize, end: usize) -> usize {
        self.text[begin..end].chars().count()
    }
}
