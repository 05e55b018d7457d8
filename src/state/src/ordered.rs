//! Ids in an order that somebody else knows: a list that is searched by comparison, and in which
//! an id has a position.
//!
//! A list of one id, which is what most partitions of a relation are, is that id. A longer one is
//! cut into blocks of up to [`BLOCK`] ids, so that an insertion moves a few hundred bytes however
//! long the list is; its position is the sum of the lengths of the blocks before. A search compares
//! with the first ids of blocks, then within one.

use std::cmp::Ordering;

/// Ids of a block; a full one is cut in two.
const BLOCK: usize = if cfg!(test) { 4 } else { 128 };

/// Ids in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum OrderedList {
    /// No id.
    #[default]
    Empty,
    /// One id.
    One(u32),
    /// Blocks, none of them empty.
    Many(Box<Vec<Vec<u32>>>),
}

/// Where in a list an id is, or would be; good until the list changes. Places are ordered as they
/// are in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    block: usize,
    at: usize,
}

impl Place {
    /// Before all ids.
    pub const FIRST: Place = Place { block: 0, at: 0 };
}

impl OrderedList {
    /// The ids in pieces.
    fn block(&self, block: usize) -> &[u32] {
        match self {
            OrderedList::Empty => &[],
            OrderedList::One(id) if block == 0 => std::slice::from_ref(id),
            OrderedList::One(_) => &[],
            OrderedList::Many(blocks) => blocks.get(block).map_or(&[], Vec::as_slice),
        }
    }

    fn blocks(&self) -> usize {
        match self {
            OrderedList::Empty => 0,
            OrderedList::One(_) => 1,
            OrderedList::Many(blocks) => blocks.len(),
        }
    }

    /// Whether there is no id.
    pub fn is_empty(&self) -> bool {
        matches!(self, OrderedList::Empty)
    }

    /// Number of ids.
    pub fn len(&self) -> usize {
        (0..self.blocks()).map(|b| self.block(b).len()).sum()
    }

    /// Whether it has more than `count` ids.
    pub fn is_longer_than(&self, count: usize) -> bool {
        let mut seen = 0;
        (0..self.blocks()).any(|b| {
            seen += self.block(b).len();
            seen > count
        })
    }

    /// Where the id is for which `compare` says that it is the wanted one, or where it would be:
    /// `compare` tells how an id of the list compares with it.
    pub fn find(&self, mut compare: impl FnMut(u32) -> Ordering) -> Result<Place, Place> {
        let (mut low, mut high) = (0, self.blocks());
        // The last block whose first id is not above the wanted one.
        while high - low > 1 {
            let middle = low.midpoint(high);
            match compare(self.block(middle)[0]) {
                Ordering::Greater => high = middle,
                Ordering::Less => low = middle,
                Ordering::Equal => {
                    return Ok(Place {
                        block: middle,
                        at: 0,
                    });
                }
            }
        }
        let place = |at| Place { block: low, at };
        let found = self.block(low).binary_search_by(|id| compare(*id));
        found.map(place).map_err(place)
    }

    /// Puts an id where [`OrderedList::find`] did not find it.
    pub fn insert(&mut self, place: Place, id: u32) {
        match self {
            OrderedList::Empty => *self = OrderedList::One(id),
            OrderedList::One(first) => {
                let pair = if place.at == 0 {
                    vec![id, *first]
                } else {
                    vec![*first, id]
                };
                *self = OrderedList::Many(Box::new(vec![pair]));
            }
            OrderedList::Many(blocks) => {
                let block = &mut blocks[place.block];
                block.insert(place.at, id);
                if block.len() > BLOCK {
                    // What grows at its end leaves full blocks behind.
                    let at_the_end = place.at + 1 == block.len();
                    let at = if at_the_end { BLOCK } else { block.len() / 2 };
                    let rest = block.split_off(at);
                    blocks.insert(place.block + 1, rest);
                }
            }
        }
    }

    /// Takes out the id at a place.
    pub fn remove(&mut self, place: Place) -> u32 {
        let OrderedList::Many(blocks) = self else {
            let id = self.block(place.block)[place.at];
            *self = OrderedList::Empty;
            return id;
        };
        let id = blocks[place.block].remove(place.at);
        let len = blocks[place.block].len();
        let next = blocks.get(place.block + 1).map_or(usize::MAX, Vec::len);
        if len == 0 {
            blocks.remove(place.block);
        } else if len.saturating_add(next) <= BLOCK / 2 {
            let next = blocks.remove(place.block + 1);
            blocks[place.block].extend(next);
        }
        if let [only] = blocks.as_slice()
            && let [only] = only.as_slice()
        {
            *self = OrderedList::One(*only);
        }
        id
    }

    /// The id at a position, counted from 0.
    pub fn get(&self, position: usize) -> Option<u32> {
        let mut rest = position;
        for b in 0..self.blocks() {
            let block = self.block(b);
            match block.get(rest) {
                Some(id) => return Some(*id),
                None => rest -= block.len(),
            }
        }
        None
    }

    /// The last id.
    pub fn last(&self) -> Option<u32> {
        let blocks = self.blocks();
        self.block(blocks.checked_sub(1)?).last().copied()
    }

    /// Takes out the last id.
    pub fn pop(&mut self) -> Option<u32> {
        let block = self.blocks().checked_sub(1)?;
        let at = self.block(block).len() - 1;
        Some(self.remove(Place { block, at }))
    }

    /// How many ids are before a place.
    pub fn position(&self, place: Place) -> usize {
        let before = (0..place.block).map(|b| self.block(b).len());
        before.sum::<usize>() + place.at
    }

    /// The ids from a place on.
    pub fn iter_from(&self, place: Place) -> impl Iterator<Item = u32> + '_ {
        let first = &self.block(place.block)[place.at.min(self.block(place.block).len())..];
        let rest = (place.block + 1..self.blocks()).flat_map(|b| self.block(b));
        first.iter().chain(rest).copied()
    }

    /// All ids.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.iter_from(Place::FIRST)
    }

    /// The ids before a place, the nearest first.
    pub fn iter_before(&self, place: Place) -> impl Iterator<Item = u32> + '_ {
        let last = &self.block(place.block)[..place.at.min(self.block(place.block).len())];
        let rest = (0..place.block.min(self.blocks())).rev();
        let rest = rest.flat_map(|b| self.block(b).iter().rev());
        last.iter().rev().chain(rest).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_common::random::Random;

    /// Random insertions and removals against a sorted vector.
    #[test]
    fn a_list_is_a_sorted_vector() {
        let mut random = Random(11);
        for round in 0..200 {
            let (mut list, mut model) = (OrderedList::default(), Vec::<u32>::new());
            let range = 1 + random.below(60) as u32;
            for _ in 0..random.below(300) {
                let id = random.below(range as usize) as u32;
                let found = list.find(|other| other.cmp(&id));
                match (found, model.binary_search(&id)) {
                    (Ok(place), Ok(at)) => {
                        assert_eq!(list.position(place), at);
                        let before: Vec<u32> = list.iter_before(place).collect();
                        let expected: Vec<u32> = model[..at].iter().rev().copied().collect();
                        assert_eq!(before, expected);
                        assert!(list.iter_from(place).eq(model[at..].iter().copied()));
                        assert_eq!(list.remove(place), model.remove(at));
                    }
                    (Err(place), Err(at)) => {
                        assert_eq!(list.position(place), at);
                        list.insert(place, id);
                        model.insert(at, id);
                    }
                    (a, b) => panic!("round {round}: {id} is {a:?} and not {b:?}"),
                }
                assert!(list.iter().eq(model.iter().copied()), "round {round}");
                assert_eq!(list.len(), model.len());
                assert_eq!(list.last(), model.last().copied());
                let at = random.below(1 + model.len());
                assert_eq!(list.get(at), model.get(at).copied());
                assert_eq!(list.is_longer_than(at), model.len() > at);
            }
            while let Some(last) = list.pop() {
                assert_eq!(Some(last), model.pop());
            }
            assert!(model.is_empty() && list.is_empty());
        }
    }
}
