//! A program as a deterministic automaton whose states are made when they are first needed, each a
//! set of threads. Whether the text so far matches is known only when the next character has been
//! seen, for a place (`$`, `\M`) depends on it: a transition says it of where it begins.

use super::program::{Colors, Program, Side, Step};
use std::collections::HashMap;
use std::rc::Rc;

/// States kept before all are forgotten.
const STATES_MAX: usize = 4096;

/// Transitions kept before all are forgotten.
const TRANSITIONS_MAX: usize = 1 << 20;

const UNKNOWN: u32 = u32::MAX;

/// The state without threads.
pub(super) const DEAD: u32 = 0;

type Key = (Rc<[u32]>, Side);

pub(super) struct Automaton {
    pub program: Program,
    /// Whether a match may begin at every place.
    searches: bool,
    states: Vec<Key>,
    numbers: HashMap<Key, u32>,
    /// By state and colour: the next state, doubled, plus one if the text before matches.
    transitions: Vec<u32>,
    width: usize,
    /// Counts how often the states were forgotten.
    pub generation: u32,
    threads: Vec<u32>,
    seen: Vec<bool>,
}

impl Automaton {
    pub fn new(mut program: Program, searches: bool, colors: &Colors) -> Automaton {
        if searches {
            // Threads that have read something do not come back to this step.
            program
                .steps
                .push(Step::Split(program.start, program.start));
            program.start = program.steps.len() as u32 - 1;
        }
        let seen = vec![false; program.steps.len()];
        let mut automaton = Automaton {
            program,
            searches,
            states: Vec::new(),
            numbers: HashMap::new(),
            transitions: Vec::new(),
            width: colors.count() + 1,
            generation: 0,
            threads: Vec::new(),
            seen,
        };
        automaton.forget();
        automaton
    }

    fn forget(&mut self) {
        self.states.clear();
        self.numbers.clear();
        self.transitions.clear();
        self.generation += 1;
        self.state(Rc::from([]), Side::Other);
    }

    fn state(&mut self, threads: Rc<[u32]>, before: Side) -> u32 {
        let before = if self.program.has_places && !threads.is_empty() {
            before
        } else {
            Side::Other
        };
        let key = (threads, before);
        if let Some(known) = self.numbers.get(&key) {
            return *known;
        }
        let number = self.states.len() as u32;
        self.states.push(key.clone());
        self.numbers.insert(key, number);
        let wanted = self.transitions.len() + self.width;
        self.transitions.resize(wanted, UNKNOWN);
        number
    }

    /// The state of a match that begins after `before`.
    pub fn begin(&mut self, before: Side) -> u32 {
        self.state(Rc::from([self.program.start]), before)
    }

    /// Whether nothing has matched so far: a match that ends later begins here or later.
    pub fn is_cold(&self, state: u32) -> bool {
        *self.states[state as usize].0 == [self.program.start]
    }

    /// The next state, and whether the text before the character matches, if they are known.
    #[inline]
    pub fn known(&self, state: u32, color: usize) -> Option<(u32, bool)> {
        let packed = self.transitions[state as usize * self.width + color];
        (packed != UNKNOWN).then_some((packed >> 1, packed & 1 == 1))
    }

    /// Finds out where `state` leads; `looks` answers what must follow or precede.
    pub fn explore<E>(
        &mut self,
        state: u32,
        color: usize,
        colors: &Colors,
        looks: impl FnMut(usize) -> Result<bool, E>,
    ) -> Result<(u32, bool), E> {
        let (kernel, before) = self.states[state as usize].clone();
        let matches = self.close(&kernel, before, colors.side(color), looks)?;
        let mut next: Vec<u32> = Vec::new();
        for thread in &self.threads {
            if let Step::Set(set, to) = &self.program.steps[*thread as usize]
                && colors.has(color, *set)
            {
                next.push(*to);
            }
        }
        if self.searches && color < colors.count() {
            next.push(self.program.start);
        }
        next.sort_unstable();
        next.dedup();
        let full = self.states.len() >= STATES_MAX || self.transitions.len() >= TRANSITIONS_MAX;
        if full {
            self.forget();
        }
        let next = self.state(Rc::from(next), colors.side(color));
        if !self.program.has_looks && !full {
            let at = state as usize * self.width + color;
            self.transitions[at] = (next << 1) | u32::from(matches);
        }
        Ok((next, matches))
    }

    /// Follows what reads nothing, into `threads`; whether a match is among it.
    fn close<E>(
        &mut self,
        kernel: &[u32],
        before: Side,
        after: Side,
        mut looks: impl FnMut(usize) -> Result<bool, E>,
    ) -> Result<bool, E> {
        self.threads.clear();
        self.seen.fill(false);
        let mut stack: Vec<u32> = kernel.to_vec();
        let mut matches = false;
        while let Some(thread) = stack.pop() {
            if std::mem::replace(&mut self.seen[thread as usize], true) {
                continue;
            }
            match &self.program.steps[thread as usize] {
                Step::Match => matches = true,
                Step::Set(..) => self.threads.push(thread),
                Step::Split(a, b) => stack.extend([*a, *b]),
                Step::Place(place, next) => {
                    if place.holds(before, after) {
                        stack.push(*next);
                    }
                }
                Step::Look(look, next) => {
                    if looks(*look)? {
                        stack.push(*next);
                    }
                }
            }
        }
        Ok(matches)
    }
}
