//! Expressions as programs that a set of threads runs through, and the characters as colours: two
//! characters have the same colour if no set of the pattern tells them apart.

use super::Fault;
use super::parse::{Place, Re};
use crate::letters::{Class, Ranges};
use std::collections::HashMap;
use std::rc::Rc;

/// A step of a thread.
#[derive(Debug)]
pub(super) enum Step {
    /// Reads a character of a set.
    Set(usize, u32),
    Split(u32, u32),
    Place(Place, u32),
    Look(usize, u32),
    Match,
}

/// Steps that a program may have: what a pattern of nested repetitions asks for beyond is refused.
const STEPS_MAX: usize = 50_000;

/// Calls that writing a program may take; repetitions of nothing write no steps.
const WRITES_MAX: usize = 4 * STEPS_MAX;

#[derive(Debug)]
pub(super) struct Program {
    pub steps: Vec<Step>,
    pub start: u32,
    /// Whether it asks for places: the state must remember the last character.
    pub has_places: bool,
    /// Whether it looks ahead or behind.
    pub has_looks: bool,
}

impl Program {
    pub fn new(re: &Rc<Re>) -> Result<Program, Fault> {
        let mut program = Program {
            steps: vec![Step::Match],
            start: 0,
            has_places: false,
            has_looks: false,
        };
        let mut writes = 0;
        program.start = program.write(re, 0, &mut writes)?;
        Ok(program)
    }

    fn push(&mut self, step: Step) -> Result<u32, Fault> {
        if self.steps.len() >= STEPS_MAX {
            return Err(Fault::Complex);
        }
        self.steps.push(step);
        Ok(self.steps.len() as u32 - 1)
    }

    /// Writes what matches `re` and then goes on at `next`; gives where it begins.
    fn write(&mut self, re: &Re, next: u32, writes: &mut usize) -> Result<u32, Fault> {
        *writes += 1;
        if *writes > WRITES_MAX {
            return Err(Fault::Complex);
        }
        match re {
            Re::Empty => Ok(next),
            Re::Set(set) => self.push(Step::Set(*set, next)),
            Re::Place(place) => {
                self.has_places = true;
                self.push(Step::Place(*place, next))
            }
            Re::Look(look) => {
                self.has_looks = true;
                self.push(Step::Look(*look, next))
            }
            Re::Cat(parts) => parts
                .iter()
                .rev()
                .try_fold(next, |next, part| self.write(part, next, writes)),
            Re::Alt(branches) => {
                let mut start = None;
                for branch in branches.iter().rev() {
                    let branch = self.write(branch, next, writes)?;
                    start = Some(match start {
                        None => branch,
                        Some(other) => self.push(Step::Split(branch, other))?,
                    });
                }
                Ok(start.unwrap_or(next))
            }
            Re::Repeat(part, least, most) => self.write_repeat(part, *least, *most, next, writes),
        }
    }

    fn write_repeat(
        &mut self,
        part: &Re,
        least: u32,
        most: Option<u32>,
        next: u32,
        writes: &mut usize,
    ) -> Result<u32, Fault> {
        let mut start = next;
        match most {
            None => {
                let again = self.push(Step::Split(next, next))?;
                let body = self.write(part, again, writes)?;
                self.steps[again as usize] = Step::Split(body, next);
                start = again;
            }
            Some(most) => {
                for _ in least..most {
                    let body = self.write(part, start, writes)?;
                    start = self.push(Step::Split(body, next))?;
                }
            }
        }
        for _ in 0..least {
            start = self.write(part, start, writes)?;
        }
        Ok(start)
    }
}

/// What the character before or after a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Side {
    /// The end of the text.
    Edge,
    NewLine,
    Word,
    Other,
}

impl Place {
    pub fn holds(self, before: Side, after: Side) -> bool {
        let (word_before, word_after) = (before == Side::Word, after == Side::Word);
        match self {
            Place::TextStart => before == Side::Edge,
            Place::TextEnd => after == Side::Edge,
            Place::LineStart => matches!(before, Side::Edge | Side::NewLine),
            Place::LineEnd => matches!(after, Side::Edge | Side::NewLine),
            Place::WordStart => !word_before && word_after,
            Place::WordEnd => word_before && !word_after,
            Place::WordEdge => word_before != word_after,
            Place::NoWordEdge => word_before == word_after,
        }
    }
}

/// The colours of a pattern's characters.
pub(super) struct Colors {
    ascii: [u16; 128],
    /// First code points of ranges, and the colour of each.
    starts: Vec<u32>,
    colors: Vec<u16>,
    /// Of each colour, the sets that have it, and what it is beside a place.
    sets: Vec<Vec<u64>>,
    sides: Vec<Side>,
}

impl Colors {
    pub fn new(sets: &[Ranges], has_places: bool) -> Colors {
        let mut all: Vec<Ranges> = sets.to_vec();
        if has_places {
            all.push(Class::Word.ranges());
            all.push(vec![(10, 10)]);
        }
        let mut starts = vec![0];
        for (from, to) in all.iter().flatten() {
            starts.push(*from);
            starts.extend(to.checked_add(1));
        }
        starts.sort_unstable();
        starts.dedup();
        let words = all.len().div_ceil(64).max(1);
        let mut signatures = vec![vec![0u64; words]; starts.len()];
        for (i, set) in all.iter().enumerate() {
            for (from, to) in set {
                let first = starts.partition_point(|s| s < from);
                for (start, signature) in starts[first..].iter().zip(&mut signatures[first..]) {
                    if start > to {
                        break;
                    }
                    signature[i / 64] |= 1 << (i % 64);
                }
            }
        }
        let mut numbers: HashMap<Vec<u64>, u16> = HashMap::new();
        let mut by_color = Vec::new();
        let mut colors = Vec::with_capacity(starts.len());
        for signature in signatures {
            let fresh = numbers.len() as u16;
            let color = *numbers.entry(signature).or_insert_with_key(|signature| {
                by_color.push(signature.clone());
                fresh
            });
            colors.push(color);
        }
        let has = |signature: &[u64], i: usize| signature[i / 64] >> (i % 64) & 1 == 1;
        let side = |signature: &Vec<u64>| match has_places {
            true if has(signature, sets.len()) => Side::Word,
            true if has(signature, sets.len() + 1) => Side::NewLine,
            _ => Side::Other,
        };
        let sides = by_color.iter().map(side).collect();
        let mut found = Colors {
            ascii: [0; 128],
            starts,
            colors,
            sets: by_color,
            sides,
        };
        for c in 0..128 {
            found.ascii[c as usize] = found.of_code(c);
        }
        found
    }

    fn of_code(&self, code: u32) -> u16 {
        self.colors[self.starts.partition_point(|s| *s <= code) - 1]
    }

    /// How many there are; the end of the text has this number.
    pub fn count(&self) -> usize {
        self.sets.len()
    }

    /// The colour of the character at `at`, and its length in bytes; at the end, none.
    #[inline]
    pub fn at(&self, text: &str, at: usize) -> (usize, usize) {
        match text.as_bytes().get(at) {
            None => (self.count(), 1),
            Some(byte) if *byte < 128 => (usize::from(self.ascii[usize::from(*byte)]), 1),
            Some(_) => {
                let c = text[at..].chars().next().unwrap_or('\0');
                (usize::from(self.of_code(u32::from(c))), c.len_utf8())
            }
        }
    }

    pub fn has(&self, color: usize, set: usize) -> bool {
        self.sets
            .get(color)
            .is_some_and(|sets| sets[set / 64] >> (set % 64) & 1 == 1)
    }

    pub fn side(&self, color: usize) -> Side {
        self.sides.get(color).copied().unwrap_or(Side::Edge)
    }

    /// What stands before `at`.
    pub fn before(&self, text: &str, at: usize) -> Side {
        match text[..at].chars().next_back() {
            None => Side::Edge,
            Some(c) => self.side(usize::from(self.of_code(u32::from(c)))),
        }
    }
}
