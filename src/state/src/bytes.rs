//! Strings and byte strings under dense ids.
//!
//! Each value is 16 bytes: its length, and up to 12 bytes of the value itself; of a longer value
//! its first four bytes and where the whole is in an arena (block and offset). So short values
//! (most keys) cost one cache miss and no arena, and unequal long ones are told apart without
//! looking at the arena. NULL is a length of its own.
//!
//! The arena is a list of blocks that are filled once. Values taken out leave garbage: a block
//! without a living value is freed at once; when garbage is more than half of the arena, the living
//! values of the blocks that are at least half garbage move, in one pass over the views.

use crate::ABSENT;
use crate::chunked::Chunked;
use std::cmp::Ordering;

const INLINE: usize = 12;
const NULL: u32 = u32::MAX;
const BLOCK_BYTES: usize = 1 << 18;

/// Length, then the value's bytes, or first four bytes, block and offset.
type View = [u32; 4];

#[derive(Clone, Debug, Default)]
struct Block {
    data: Vec<u8>,
    garbage: usize,
}

/// A column of optional byte strings.
#[derive(Clone, Debug, Default)]
pub struct ByteColumn {
    views: Chunked<View>,
    blocks: Vec<Block>,
    free_blocks: Vec<u32>,
    /// The block being filled; `u32::MAX` if none.
    filling: Option<u32>,
    used: usize,
    garbage: usize,
}

#[inline(always)]
fn inline_view(value: &[u8]) -> View {
    let mut bytes = [0u8; 16];
    bytes[..4].copy_from_slice(&(value.len() as u32).to_ne_bytes());
    bytes[4..4 + value.len()].copy_from_slice(value);
    to_view(bytes)
}

#[inline(always)]
fn to_view(bytes: [u8; 16]) -> View {
    let word = |i: usize| u32::from_ne_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
    [word(0), word(4), word(8), word(12)]
}

#[inline(always)]
fn prefix(value: &[u8]) -> u32 {
    u32::from_ne_bytes([value[0], value[1], value[2], value[3]])
}

/// The bytes of an inline view.
#[inline(always)]
fn inline_bytes(view: &View) -> [u8; INLINE] {
    let mut bytes = [0; INLINE];
    for (i, word) in view[1..].iter().enumerate() {
        bytes[i * 4..i * 4 + 4].copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

impl ByteColumn {
    /// Makes room for the ids below `len`.
    pub fn grow(&mut self, len: usize) {
        self.views.grow(len);
    }

    /// The values of these ids one after the other, where each begins and the last one ends, and
    /// whether one is NULL. `ABSENT` counts as NULL.
    pub fn gather(&self, ids: &[u32]) -> (Vec<i32>, Vec<u8>, bool) {
        let mut views = Vec::with_capacity(ids.len());
        let mut offsets = Vec::with_capacity(ids.len() + 1);
        let (mut total, mut nulls) = (0usize, false);
        offsets.push(0i32);
        for id in ids {
            let view = if *id == ABSENT {
                [NULL, 0, 0, 0]
            } else {
                self.views.get(*id)
            };
            match view[0] {
                NULL => nulls = true,
                len => total += len as usize,
            }
            if view[0] != NULL && view[0] as usize > INLINE {
                self.prefetch(&view);
            }
            offsets.push(
                i32::try_from(total).expect("less than 2 GiB of text are gathered at a time"),
            );
            views.push(view);
        }
        (offsets, self.concat(&views, total), nulls)
    }

    /// The values of these views, `total` bytes, one after the other.
    fn concat(&self, views: &[View], total: usize) -> Vec<u8> {
        let mut values: Vec<u8> = Vec::with_capacity(total + INLINE);
        let start = values.as_mut_ptr();
        let mut at = 0;
        for view in views {
            let len = if view[0] == NULL { 0 } else { view[0] as usize };
            assert!(
                at + len <= total,
                "the values are as long as their views say"
            );
            if len <= INLINE {
                // SAFETY: `at <= total`, and INLINE bytes more than `total` were reserved; what is
                // too much is overwritten by the next value or cut off.
                unsafe {
                    start
                        .add(at)
                        .cast::<[u8; INLINE]>()
                        .write(inline_bytes(view))
                };
            } else {
                // SAFETY: `at + len <= total`, which was reserved; the arena is other memory.
                unsafe {
                    std::ptr::copy_nonoverlapping(self.stored(view).as_ptr(), start.add(at), len)
                };
            }
            at += len;
        }
        // SAFETY: the first `at` bytes were written.
        unsafe { values.set_len(at) };
        values
    }

    /// Whether the value is NULL.
    #[inline(always)]
    pub fn is_null(&self, id: u32) -> bool {
        self.views.get(id)[0] == NULL
    }

    /// Appends the value to `to` and tells whether it is not NULL.
    pub fn append_to(&self, id: u32, to: &mut Vec<u8>) -> bool {
        let view = self.views.get(id);
        self.append_view(&view, to);
        view[0] != NULL
    }

    #[inline(always)]
    fn append_view(&self, view: &View, to: &mut Vec<u8>) {
        match view[0] {
            NULL => {}
            len if len as usize <= INLINE => {
                to.extend_from_slice(&inline_bytes(view)[..len as usize])
            }
            _ => to.extend_from_slice(self.stored(view)),
        }
    }

    #[inline(always)]
    fn prefetch(&self, view: &View) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch never faults, wherever it points.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.stored(view).as_ptr().cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = view;
    }

    #[inline(always)]
    fn stored(&self, view: &View) -> &[u8] {
        &self.blocks[view[2] as usize].data[view[3] as usize..view[3] as usize + view[0] as usize]
    }

    /// Whether the value of slot `id` is `value`.
    #[inline(always)]
    pub fn equals(&self, id: u32, value: Option<&[u8]>) -> bool {
        let view = self.views.get(id);
        match value {
            None => view[0] == NULL,
            Some(v) if v.len() <= INLINE => view == inline_view(v),
            Some(v) => {
                view[0] as usize == v.len() && view[1] == prefix(v) && self.stored(&view) == v
            }
        }
    }

    /// How the value of a slot compares with that of a slot of another column, byte by byte;
    /// neither is NULL.
    pub fn order(&self, a: u32, other: &ByteColumn, b: u32) -> Ordering {
        let columns = [self, other];
        let views = [self.views.get(a), other.views.get(b)];
        let inline = views.map(|v| inline_bytes(&v));
        let value = |i: usize| match views[i][0] as usize {
            len if len <= INLINE => &inline[i][..len],
            _ => columns[i].stored(&views[i]),
        };
        value(0).cmp(value(1))
    }

    /// Sets the value of a slot that holds nothing (new, or cleared).
    #[inline(always)]
    pub fn set(&mut self, id: u32, value: Option<&[u8]>) {
        let view = match value {
            None => [NULL, 0, 0, 0],
            Some(v) if v.len() <= INLINE => inline_view(v),
            Some(v) => {
                let (block, offset) = self.store(v);
                [v.len() as u32, prefix(v), block, offset]
            }
        };
        self.views.set(id, view);
    }

    /// Takes the value out of a slot.
    #[inline]
    pub fn clear(&mut self, id: u32) {
        let view = self.views.get(id);
        self.views.set(id, [0; 4]);
        if view[0] == NULL || view[0] as usize <= INLINE {
            return;
        }
        let len = view[0] as usize;
        let block = &mut self.blocks[view[2] as usize];
        block.garbage += len;
        self.garbage += len;
        if block.garbage == block.data.len() {
            self.free_block(view[2]);
        } else if self.garbage > BLOCK_BYTES && self.garbage * 2 > self.used {
            self.compact();
        }
    }

    fn free_block(&mut self, block: u32) {
        let freed = std::mem::take(&mut self.blocks[block as usize]);
        self.used -= freed.data.len();
        self.garbage -= freed.garbage;
        if self.filling == Some(block) {
            self.filling = None;
        }
        self.free_blocks.push(block);
    }

    fn store(&mut self, value: &[u8]) -> (u32, u32) {
        let block = match self.filling {
            Some(b) if self.blocks[b as usize].data.len() + value.len() <= BLOCK_BYTES => b,
            _ => {
                let block = self.new_block();
                if value.len() <= BLOCK_BYTES / 4 {
                    self.filling = Some(block);
                } else {
                    self.blocks[block as usize].data.reserve_exact(value.len());
                }
                block
            }
        };
        let data = &mut self.blocks[block as usize].data;
        let offset = data.len();
        if data.capacity() < offset + value.len() {
            // The first block grows by doubling; all others are allocated whole.
            let capacity = if self.used >= BLOCK_BYTES / 2 {
                BLOCK_BYTES
            } else {
                ((offset + value.len()) * 2).clamp(256, BLOCK_BYTES)
            };
            data.reserve_exact(capacity - offset);
        }
        data.extend_from_slice(value);
        self.used += value.len();
        (block, offset as u32)
    }

    fn new_block(&mut self) -> u32 {
        self.free_blocks.pop().unwrap_or_else(|| {
            self.blocks.push(Block::default());
            self.blocks.len() as u32 - 1
        })
    }

    /// Moves the living values out of the blocks that are at least half garbage.
    fn compact(&mut self) {
        let victims: Vec<bool> = self
            .blocks
            .iter()
            .map(|b| b.garbage * 2 >= b.data.len() && b.garbage > 0)
            .collect();
        let mut old: Vec<Vec<u8>> = vec![Vec::new(); victims.len()];
        for (i, _) in victims.iter().enumerate().filter(|(_, v)| **v) {
            let block = &mut self.blocks[i];
            self.used -= block.data.len();
            self.garbage -= block.garbage;
            old[i] = std::mem::take(&mut block.data);
            block.garbage = 0;
            self.free_blocks.push(i as u32);
        }
        self.filling = self.filling.filter(|b| !victims[*b as usize]);
        let mut views = std::mem::take(&mut self.views);
        for view in views.iter_mut() {
            if view[0] != NULL && view[0] as usize > INLINE && victims[view[2] as usize] {
                let value =
                    &old[view[2] as usize][view[3] as usize..view[3] as usize + view[0] as usize];
                (view[2], view[3]) = self.store(value);
            }
        }
        self.views = views;
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        self.views.memory_bytes() + self.blocks.iter().map(|b| b.data.capacity()).sum::<usize>()
    }
}
