//! Open addressing from tags (32 bits of a hash) to ids.
//!
//! A slot is 8 bytes: the tag, which also says where the slot belongs, and the id; so growing and
//! removing never look at keys. Search is linear from the tag's home, which is `tag * slots /
//! 2^32`: any number of slots will do, and because homes are in the order of the tags, growing by
//! half reads and writes memory in order.
//!
//! The last bits of a tag are the key's vnode. Above some size the table is a part per vnode, each
//! growing on its own and not at the same time as the others: no batch waits for more than a few
//! parts to grow, and memory never holds the whole table twice. (Of a worker with few vnodes the
//! parts are few, and each is a larger share.) A restore, which comes vnode by vnode, works in one
//! part at a time, and that stays in the cache.

use tidemark_changelog::vnode_of_hash;
use tidemark_common::VNODES;

const EMPTY: u64 = u64::MAX;
/// Slots filled at most, of 32. Small tables, which stay in the cache, are kept half empty: there a
/// search that goes on costs more than a look-up.
const LOAD: usize = 25;
const SMALL_LOAD: usize = 14;
const SMALL_SLOTS: usize = 1 << 13;
/// Slots from which on the table is in parts.
const WHOLE_SLOTS_MAX: usize = 1 << 17;
/// Bits of a tag that are the vnode.
const VNODE_BITS: u32 = VNODES.trailing_zeros();

/// A table from tags to ids; one tag may have many ids.
#[derive(Debug)]
pub(super) struct Table {
    /// One, or one per vnode.
    parts: Vec<Part>,
}

/// Slots hold the tag in their upper half and the id in their lower. An id is below `u32::MAX`, so
/// no slot in use is `EMPTY`.
#[derive(Debug)]
struct Part {
    slots: Vec<u64>,
    used: usize,
    /// Slots filled at most, of 32.
    load: usize,
}

/// Where a search ended without result.
#[derive(Clone, Copy)]
pub(super) struct Place(usize);

#[inline(always)]
pub(super) fn tag_of(hash: u64) -> u32 {
    (hash as u32) << VNODE_BITS | vnode_of_hash(hash) as u32
}

#[inline(always)]
fn slot_of(tag: u32, id: u32) -> u64 {
    u64::from(tag) << 32 | u64::from(id)
}

#[inline(always)]
fn tag_in(slot: u64) -> u32 {
    (slot >> 32) as u32
}

impl Part {
    fn new(slots: usize, load: usize) -> Part {
        Part {
            slots: vec![EMPTY; slots],
            used: 0,
            load,
        }
    }

    #[inline(always)]
    fn home(&self, tag: u32) -> usize {
        (u64::from(tag) * self.slots.len() as u64 >> 32) as usize
    }

    #[inline(always)]
    fn next(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() {
            0
        } else {
            at + 1
        }
    }

    #[inline(always)]
    fn probe(&self, tag: u32) -> Result<u32, usize> {
        let mut at = self.home(tag);
        loop {
            let slot = self.slots[at];
            if slot == EMPTY {
                return Err(at);
            }
            if tag_in(slot) == tag {
                return Ok(slot as u32);
            }
            at = self.next(at);
        }
    }

    fn first_empty(&self, tag: u32) -> usize {
        let mut at = self.home(tag);
        while self.slots[at] != EMPTY {
            at = self.next(at);
        }
        at
    }

    fn is_full(&self) -> bool {
        self.used * 32 >= self.slots.len() * self.load
    }

    #[cold]
    fn grow(&mut self) {
        let slots = self.slots.len();
        let more = if self.load == SMALL_LOAD && slots < SMALL_SLOTS {
            Part::new(slots * 2, SMALL_LOAD)
        } else {
            Part::new(slots + slots / 2, LOAD)
        };
        let old = std::mem::replace(self, more);
        old.in_use()
            .for_each(|slot| self.put(tag_in(slot), slot as u32));
    }

    fn in_use(&self) -> impl Iterator<Item = u64> + '_ {
        self.slots.iter().copied().filter(|slot| *slot != EMPTY)
    }

    fn put(&mut self, tag: u32, id: u32) {
        let at = self.first_empty(tag);
        self.slots[at] = slot_of(tag, id);
        self.used += 1;
    }

    /// How far a slot at `at` is behind `from`, around the end.
    fn distance(&self, from: usize, at: usize) -> usize {
        if at >= from {
            at - from
        } else {
            at + self.slots.len() - from
        }
    }

    /// Takes a slot out and closes the gap, so that every search still ends at the first empty
    /// slot.
    fn remove(&mut self, tag: u32, id: u32) {
        let mut gap = self.home(tag);
        while self.slots[gap] != slot_of(tag, id) {
            assert!(self.slots[gap] != EMPTY, "id {id} is in the table");
            gap = self.next(gap);
        }
        let mut at = gap;
        loop {
            at = self.next(at);
            let slot = self.slots[at];
            if slot == EMPTY {
                break;
            }
            // A slot may move into the gap if its home is not between the gap (exclusive) and where
            // it is.
            if self.distance(self.home(tag_in(slot)), at) >= self.distance(gap, at) {
                self.slots[gap] = slot;
                gap = at;
            }
        }
        self.slots[gap] = EMPTY;
        self.used -= 1;
    }
}

impl Table {
    pub(super) fn new() -> Table {
        Table {
            parts: vec![Part::new(16, SMALL_LOAD)],
        }
    }

    #[inline(always)]
    fn part_of(&self, tag: u32) -> usize {
        // There are a power of two of them.
        tag as usize & (self.parts.len() - 1)
    }

    #[inline(always)]
    pub(super) fn prefetch(&self, tag: u32) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let part = &self.parts[self.part_of(tag)];
            let at = part.home(tag);
            // SAFETY: a home is inside the part, and a prefetch never faults.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(part.slots.as_ptr().add(at).cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = tag;
    }

    /// The first id with this tag, or the place for it.
    #[inline(always)]
    pub(super) fn probe(&self, tag: u32) -> Result<u32, Place> {
        self.parts[self.part_of(tag)].probe(tag).map_err(Place)
    }

    /// Adds an id where `probe` has just ended.
    #[inline(always)]
    pub(super) fn insert_at(&mut self, place: Place, tag: u32, id: u32) {
        let index = self.part_of(tag);
        let part = &mut self.parts[index];
        if part.is_full() {
            return self.insert(tag, id);
        }
        part.slots[place.0] = slot_of(tag, id);
        part.used += 1;
    }

    /// Adds an id.
    pub(super) fn insert(&mut self, tag: u32, id: u32) {
        if self.parts[self.part_of(tag)].is_full() {
            if self.parts.len() == 1 && self.parts[0].slots.len() >= WHOLE_SLOTS_MAX {
                self.divide();
            } else {
                let part = self.part_of(tag);
                self.parts[part].grow();
            }
        }
        let part = self.part_of(tag);
        self.parts[part].put(tag, id);
    }

    /// From one part to one per vnode. Their sizes differ, so that they will not grow at the same
    /// time.
    #[cold]
    fn divide(&mut self) {
        let whole = std::mem::take(&mut self.parts).remove(0);
        let vnode = |slot: u64| tag_in(slot) as usize % VNODES;
        let mut used = vec![0; VNODES];
        whole.in_use().for_each(|slot| used[vnode(slot)] += 1);
        // Neighbours, which one worker has, differ most.
        let turn = |vnode: usize| usize::from((vnode as u8).reverse_bits());
        let size = |(vnode, used): (usize, &usize)| {
            (used * 32 / LOAD + 16) * (VNODES * 2 + turn(vnode)) / (VNODES * 2)
        };
        let sizes = used.iter().enumerate().map(size);
        self.parts = sizes.map(|size| Part::new(size, LOAD)).collect();
        for slot in whole.in_use() {
            self.parts[vnode(slot)].put(tag_in(slot), slot as u32);
        }
    }

    /// Every id with this tag.
    pub(super) fn candidates(&self, tag: u32) -> impl Iterator<Item = u32> + '_ {
        let part = &self.parts[self.part_of(tag)];
        let mut at = part.home(tag);
        std::iter::from_fn(move || {
            while part.slots[at] != EMPTY {
                let slot = part.slots[at];
                at = part.next(at);
                if tag_in(slot) == tag {
                    return Some(slot as u32);
                }
            }
            None
        })
    }

    /// Takes out an id, which must be there.
    pub(super) fn remove(&mut self, tag: u32, id: u32) {
        let part = self.part_of(tag);
        self.parts[part].remove(tag, id);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.parts
            .iter()
            .map(|p| p.slots.capacity() * 8 + size_of::<Part>())
            .sum()
    }
}
