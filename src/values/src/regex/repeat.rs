//! Taking a repetition apart: into as long, or as short, pieces as the rest allows, from the left.
//! Pieces are first told by the part's automaton; once they reach the end, each is taken apart
//! itself, and where references make one fail, the last piece that can change does.

use super::Fault;
use super::parse::{Node, SHORTER};

type Result<T> = std::result::Result<T, Fault>;

/// What matches a part.
pub(super) trait Parts {
    fn longest(&mut self, node: &Node, begin: usize, limit: usize) -> Result<Option<usize>>;
    fn shortest(
        &mut self,
        node: &Node,
        begin: usize,
        least: usize,
        limit: usize,
    ) -> Result<Option<usize>>;
    /// Sets the groups anew.
    fn dissect(&mut self, node: &Node, begin: usize, end: usize) -> Result<bool>;
    fn forget(&mut self, node: &Node);
    fn after(&self, at: usize) -> usize;
    fn before(&self, at: usize) -> usize;
    fn characters(&self, begin: usize, end: usize) -> usize;
}

/// The pieces found so far.
struct Pieces<'a> {
    part: &'a Node,
    end: usize,
    least: usize,
    most: usize,
    /// Where the pieces end; the first entry is where they begin.
    ends: Vec<usize>,
    /// Pieces that were taken apart and have not changed since.
    verified: usize,
}

/// Whether `part` matches the extent so many times; sets its groups to those of the last.
pub(super) fn dissect(
    parts: &mut impl Parts,
    part: &Node,
    (least, most): (u32, Option<u32>),
    begin: usize,
    end: usize,
) -> Result<bool> {
    if least == 0 && begin == end {
        // A part that prefers more matches nothing once if it can, so that its groups are empty;
        // another one does not match at all.
        let once = part.flags & SHORTER == 0
            && parts.longest(part, begin, end)?.is_some()
            && parts.dissect(part, begin, end)?;
        if !once {
            parts.forget(part);
        }
        return Ok(true);
    }
    let least = least.max(1) as usize;
    let most = most.map_or(usize::MAX, |m| m as usize);
    let mut pieces = Pieces {
        part,
        end,
        least,
        most: parts.characters(begin, end).min(most).max(least),
        ends: vec![begin],
        verified: 0,
    };
    if part.flags & SHORTER == 0 {
        pieces.longest_first(parts)
    } else {
        pieces.shortest_first(parts)
    }
}

impl Pieces<'_> {
    /// The number of the piece that ends last.
    fn count(&self) -> usize {
        self.ends.len() - 1
    }

    /// Whether piece `number` may be empty from `at`: only to make enough of them.
    fn may_be_empty(&self, parts: &impl Parts, number: usize, at: usize) -> bool {
        number < self.least && self.least - number >= parts.characters(at, self.end)
    }

    fn changed(&mut self) {
        self.verified = self.verified.min(self.count() - 1);
    }

    /// Takes the pieces apart that were not yet.
    fn verify(&mut self, parts: &mut impl Parts) -> Result<bool> {
        for i in self.verified + 1..=self.count() {
            if !parts.dissect(self.part, self.ends[i - 1], self.ends[i])? {
                return Ok(false);
            }
            self.verified = i;
        }
        Ok(true)
    }

    fn longest_first(&mut self, parts: &mut impl Parts) -> Result<bool> {
        let mut limit = self.end;
        loop {
            let from = self.ends[self.count()];
            let mut shorten = true;
            if let Some(at) = parts.longest(self.part, from, limit)? {
                self.ends.push(at);
                self.changed();
                let number = self.count();
                if at == self.end {
                    if number >= self.least && self.verify(parts)? {
                        return Ok(true);
                    }
                } else if number >= self.most {
                    self.ends.pop();
                } else if at != from || self.may_be_empty(parts, number, at) {
                    limit = self.end;
                    shorten = false;
                }
            }
            if !shorten {
                continue;
            }
            // The last piece that can be shorter.
            loop {
                let number = self.count();
                if number == 0 {
                    return Ok(false);
                }
                let (from, at) = (self.ends[number - 1], self.ends[number]);
                self.ends.pop();
                if at > from {
                    limit = parts.before(at);
                    if limit > from || self.may_be_empty(parts, number, from) {
                        break;
                    }
                }
            }
        }
    }

    fn shortest_first(&mut self, parts: &mut impl Parts) -> Result<bool> {
        let mut least_end = self.ends[0];
        loop {
            let from = self.ends[self.count()];
            let number = self.count() + 1;
            let empty = least_end == from && least_end != self.end;
            if empty && !self.may_be_empty(parts, number, from) {
                least_end = parts.after(least_end);
            }
            let mut lengthen = true;
            if let Some(at) = parts.shortest(self.part, from, least_end, self.end)? {
                self.ends.push(at);
                self.changed();
                if at == self.end {
                    if number >= self.least && self.verify(parts)? {
                        return Ok(true);
                    }
                } else if number < self.most {
                    least_end = at;
                    lengthen = false;
                }
            }
            if !lengthen {
                continue;
            }
            // The last piece that can be longer.
            loop {
                if self.count() == 0 {
                    return Ok(false);
                }
                let at = self.ends.pop().unwrap_or(self.end);
                if at < self.end {
                    least_end = parts.after(at);
                    break;
                }
            }
        }
    }
}
