//! Vectors under dense ids that grow without ever being copied whole.
//!
//! A vector of n values is a list of chunks of 64 Ki values. The first chunk grows by doubling, so
//! that a small state is small; every later one is allocated once. Growing therefore costs no copy
//! of what is there, and never needs twice the memory. Access is two dependent loads, of which the
//! first (the chunk's address) stays in the cache.

/// Values per chunk, as a power of two.
const CHUNK_BITS: u32 = 16;
const CHUNK: usize = 1 << CHUNK_BITS;
const CHUNK_MASK: usize = CHUNK - 1;

/// A growable vector of plain values. Slots that were never set hold the default.
#[derive(Clone, Debug, Default)]
pub struct Chunked<T> {
    chunks: Vec<Vec<T>>,
    len: usize,
}

impl<T: Copy + Default> Chunked<T> {
    /// Without values.
    pub fn new() -> Chunked<T> {
        Chunked {
            chunks: Vec::new(),
            len: 0,
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes it at least `len` long; new slots hold the default.
    pub fn grow(&mut self, len: usize) {
        if len <= self.len {
            return;
        }
        let mut allocated = match self.chunks.as_slice() {
            [] => 0,
            [first] => first.len(),
            more => more.len() * CHUNK,
        };
        while allocated < len {
            if allocated < CHUNK {
                let size = len.next_power_of_two().clamp(16, CHUNK);
                match self.chunks.first_mut() {
                    Some(first) => first.resize(size, T::default()),
                    None => self.chunks.push(vec![T::default(); size]),
                }
                allocated = size;
            } else {
                self.chunks.push(vec![T::default(); CHUNK]);
                allocated += CHUNK;
            }
        }
        self.len = len;
    }

    /// The value of slot `id`.
    #[inline(always)]
    pub fn get(&self, id: u32) -> T {
        let id = id as usize;
        self.chunks[id >> CHUNK_BITS][id & CHUNK_MASK]
    }

    /// Sets slot `id`, which exists.
    #[inline(always)]
    pub fn set(&mut self, id: u32, value: T) {
        let id = id as usize;
        self.chunks[id >> CHUNK_BITS][id & CHUNK_MASK] = value;
    }

    /// The value of slot `id`, to be changed.
    #[inline(always)]
    pub fn get_mut(&mut self, id: u32) -> &mut T {
        let id = id as usize;
        &mut self.chunks[id >> CHUNK_BITS][id & CHUNK_MASK]
    }

    /// Sets the slots from `first` on, which exist, to `values`.
    pub fn copy_from(&mut self, first: u32, values: &[T]) {
        let mut at = first as usize;
        let mut values = values;
        while !values.is_empty() {
            let offset = at & CHUNK_MASK;
            let n = values.len().min(CHUNK - offset);
            self.chunks[at >> CHUNK_BITS][offset..offset + n].copy_from_slice(&values[..n]);
            values = &values[n..];
            at += n;
        }
    }

    /// All values, in order of id.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let len = self.len;
        self.chunks.iter_mut().flatten().take(len)
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        self.chunks
            .iter()
            .map(|c| c.capacity() * size_of::<T>())
            .sum()
    }
}

/// A growable set of ids.
#[derive(Clone, Debug, Default)]
pub struct Bitmap {
    words: Chunked<u64>,
}

impl Bitmap {
    /// Makes room for the ids below `len`.
    pub fn grow(&mut self, len: usize) {
        self.words.grow(len.div_ceil(64));
    }

    /// Whether `id` is in the set.
    #[inline(always)]
    pub fn get(&self, id: u32) -> bool {
        self.words.get(id >> 6) >> (id & 63) & 1 == 1
    }

    /// Whether `id` is in the set; ids for which there is no room are not.
    #[inline(always)]
    pub fn contains(&self, id: u32) -> bool {
        ((id >> 6) as usize) < self.words.len() && self.get(id)
    }

    /// Adds or takes out `id`.
    #[inline(always)]
    pub fn set(&mut self, id: u32, value: bool) {
        let word = self.words.get_mut(id >> 6);
        *word = *word & !(1 << (id & 63)) | u64::from(value) << (id & 63);
    }

    /// The ids of either set; both have room for the same, or one for none.
    pub fn union(mut self, other: Bitmap) -> Bitmap {
        self.grow(other.words.len() * 64);
        other.ids().for_each(|id| self.set(id, true));
        self
    }

    /// The first id in the set that is not below `from`.
    pub fn first_from(&self, from: u32) -> Option<u32> {
        let first = from >> 6;
        (first..self.words.len() as u32).find_map(|w| {
            let below = if w == first {
                (1 << (from & 63)) - 1
            } else {
                0
            };
            let word = self.words.get(w) & !below;
            (word != 0).then(|| w * 64 + word.trailing_zeros())
        })
    }

    /// The ids in the set, ascending.
    pub fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.words.len() as u32).flat_map(move |w| {
            let mut word = self.words.get(w);
            std::iter::from_fn(move || {
                if word == 0 {
                    return None;
                }
                let bit = word.trailing_zeros();
                word &= word - 1;
                Some(w * 64 + bit)
            })
        })
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        self.words.memory_bytes()
    }
}

/// Hands out dense ids, those given back first.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    free: Vec<u32>,
    live: Bitmap,
    capacity: usize,
    len: usize,
}

impl Slots {
    /// Ids handed out and not given back.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no id is handed out.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All ids are below this.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Appends `n` new ids to `ids`.
    pub fn take(&mut self, n: usize, ids: &mut Vec<u32>) {
        let reused = n.min(self.free.len());
        ids.extend(self.free.drain(self.free.len() - reused..));
        let first = self.capacity;
        self.capacity += n - reused;
        assert!(
            self.capacity < u32::MAX as usize,
            "a state table holds fewer than 2^32 rows"
        );
        ids.extend(first as u32..self.capacity as u32);
        self.live.grow(self.capacity);
        for id in &ids[ids.len() - n..] {
            self.live.set(*id, true);
        }
        self.len += n;
    }

    /// One new id.
    #[inline]
    pub fn take_one(&mut self) -> u32 {
        let id = self.free.pop().unwrap_or_else(|| {
            let id = self.capacity as u32;
            self.capacity += 1;
            assert!(
                self.capacity < u32::MAX as usize,
                "a state table holds fewer than 2^32 rows"
            );
            self.live.grow(self.capacity);
            id
        });
        self.live.set(id, true);
        self.len += 1;
        id
    }

    /// Gives `id` back, which must be in use.
    pub fn give_back(&mut self, id: u32) {
        assert!(self.is_live(id), "id {id} is not in use");
        self.live.set(id, false);
        self.free.push(id);
        self.len -= 1;
    }

    /// Whether `id` is in use.
    #[inline]
    pub fn is_live(&self, id: u32) -> bool {
        self.live.contains(id)
    }

    /// The ids in use, ascending.
    pub fn live_ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.live.ids()
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        self.free.capacity() * 4 + self.live.memory_bytes()
    }
}
