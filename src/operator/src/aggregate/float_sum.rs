//! Exact sums of floats: free of order, and a retraction takes back exactly what was added. Rounded
//! once, when the result is read.
//!
//! A finite double is `m * 2^e` with an integer |m| < 2^53, so a sum of doubles is an integer
//! multiple of 2^-1074. Each group keeps one 128-bit integer in units of `2^(anchor - 1074)`; its
//! anchor is set below the group's first value, so that values within a factor of about 2^22 of it
//! go there by one shift and one addition. Anything else goes to bins of 32 bits of exponent in a
//! map beside, rarely. The sum of all is the exact sum, whichever way the parts went, and the
//! result is its nearest float (ties to even). A mean is the nearest float of the exact sum divided
//! by the count. Infinities and NaN are counted.
//!
//! The stored form of a sum is canonical: sign and magnitude of the big integer, without leading
//! and trailing zero words.

use hashbrown::HashMap;
use tidemark_state::chunked::Chunked;
use tidemark_values::exact::{DOUBLE, Format, quotient};

/// The lowest exponent of a double: values are multiples of 2^-LOWEST.
const LOWEST: i32 = 1074;
/// Bits of exponent below a group's first value that its word covers.
const BELOW: i32 = 22;
/// Bits of exponent that a group's word covers: 53 + 44 bits leave 2^30 additions before a carry.
const SPAN: i32 = 44;
/// Words of the big integer: 2,098 bits of a double and 2^63 additions of 2^63 weight.
const WORDS: usize = 36;

/// Set in the anchor of a group that has bins.
const HAS_BINS: u16 = 1 << 15;

/// One exact sum per group.
#[derive(Default)]
pub(super) struct ExactSums {
    words: Chunked<i128>,
    /// Anchor plus one; 0 where there is none yet. The highest bit says that the group has bins.
    anchors: Chunked<u16>,
    /// Bins `(group, exponent / 32)`.
    bins: HashMap<(u32, u8), i128>,
    /// Counts of NaN, infinity and negative infinity.
    specials: HashMap<u32, [i64; 3]>,
}

/// A sum as sign and magnitude in units of 2^-1074.
struct Big {
    negative: bool,
    words: [u64; WORDS],
}

impl ExactSums {
    pub fn grow(&mut self, capacity: usize) {
        self.words.grow(capacity);
        self.anchors.grow(capacity);
    }

    /// Adds `weight` times `value` to group `id`.
    #[inline]
    pub fn add(&mut self, id: u32, value: f64, weight: i64) {
        let bits = value.to_bits();
        let exponent = (bits >> 52 & 0x7FF) as i32;
        if exponent == 0x7FF {
            return self.add_special(id, value, weight);
        }
        let fraction = (bits & ((1 << 52) - 1)) as i64;
        // Units of 2^(base - 1074).
        let (mantissa, base) = if exponent == 0 {
            (fraction, 0)
        } else {
            (fraction | 1 << 52, exponent - 1)
        };
        if mantissa == 0 {
            return;
        }
        let mantissa = if (bits as i64) < 0 {
            -mantissa
        } else {
            mantissa
        };
        let anchor = self.anchors.get_mut(id);
        if *anchor & !HAS_BINS == 0 {
            *anchor |= (base - BELOW).max(0) as u16 + 1;
        }
        let anchor = i32::from(*anchor & !HAS_BINS) - 1;
        let shift = base - anchor;
        let amount = i128::from(mantissa) * i128::from(weight);
        if (0..SPAN).contains(&shift) && weight.unsigned_abs() < 1 << 20 {
            let word = self.words.get_mut(id);
            match word.checked_add(amount << shift) {
                Some(sum) => return *word = sum,
                None => {
                    let full = std::mem::take(word);
                    self.spill(id, full, anchor);
                }
            }
        }
        self.spill(id, amount, base);
    }

    #[cold]
    fn add_special(&mut self, id: u32, value: f64, weight: i64) {
        let counts = self.specials.entry(id).or_default();
        let which = if value.is_nan() {
            0
        } else {
            1 + usize::from(value < 0.0)
        };
        counts[which] += weight;
        if *counts == [0; 3] {
            self.specials.remove(&id);
        }
    }

    /// Adds `amount * 2^base` to the bins.
    #[cold]
    fn spill(&mut self, id: u32, amount: i128, base: i32) {
        *self.anchors.get_mut(id) |= HAS_BINS;
        let (low, high) = (amount & i128::from(u64::MAX), amount >> 64);
        for (part, base) in [(low, base), (high, base + 64)] {
            if part != 0 {
                let bin = self.bins.entry((id, (base / 32) as u8)).or_default();
                *bin = bin
                    .checked_add(part << (base % 32))
                    .expect("a bin takes 2^31 additions");
                if *bin == 0 {
                    self.bins.remove(&(id, (base / 32) as u8));
                }
            }
        }
    }

    /// The sum of group `id` divided by `count`, rounded once to `format`.
    pub fn value(&self, id: u32, count: u64, format: Format) -> f64 {
        if let Some([nan, plus, minus]) = self.specials.get(&id) {
            return match (*nan > 0, *plus > 0, *minus > 0) {
                (false, true, false) => f64::INFINITY,
                (false, false, true) => f64::NEG_INFINITY,
                _ => f64::NAN,
            };
        }
        let (word, anchor) = (self.words.get(id), self.anchors.get(id));
        if anchor & HAS_BINS == 0 {
            let magnitude = word.unsigned_abs();
            let value = quotient(
                &[magnitude as u64, (magnitude >> 64) as u64],
                i32::from(anchor) - 1 - LOWEST,
                &[count],
                format,
            );
            return if word < 0 { -value } else { value };
        }
        let big = self.big(id);
        let value = quotient(&big.words, -LOWEST, &[count], format);
        if big.negative { -value } else { value }
    }

    /// The whole sum of a group.
    fn big(&self, id: u32) -> Big {
        let mut words = [0u64; WORDS];
        let anchor = self.anchors.get(id);
        add_shifted(
            &mut words,
            self.words.get(id),
            usize::from(anchor & !HAS_BINS).saturating_sub(1),
        );
        for bin in (0..=(WORDS * 2 - 5) as u8).take_while(|_| anchor & HAS_BINS != 0) {
            if let Some(amount) = self.bins.get(&(id, bin)) {
                add_shifted(&mut words, *amount, usize::from(bin) * 32);
            }
        }
        let negative = words[WORDS - 1] >> 63 == 1;
        if negative {
            let mut carry = true;
            for word in &mut words {
                let (negated, overflow) = (!*word).overflowing_add(u64::from(carry));
                *word = negated;
                carry = overflow;
            }
        }
        Big { negative, words }
    }

    /// Forgets the group.
    pub fn reset(&mut self, id: u32) {
        let had_bins = self.anchors.get(id) & HAS_BINS != 0;
        self.words.set(id, 0);
        self.anchors.set(id, 0);
        self.specials.remove(&id);
        if had_bins {
            self.bins.retain(|(group, _), _| *group != id);
        }
    }

    /// The sum in its stored form: flags (1 negative, 2 specials), then the specials' counts if
    /// any, then the index of the lowest word and the words up to the highest.
    pub fn save(&self, id: u32, to: &mut Vec<u8>) {
        let big = self.big(id);
        let specials = self.specials.get(&id);
        to.push(u8::from(big.negative) | u8::from(specials.is_some()) << 1);
        specials
            .into_iter()
            .flatten()
            .for_each(|count| to.extend_from_slice(&count.to_le_bytes()));
        if let Some(low) = big.words.iter().position(|w| *w != 0) {
            let high = big.words.iter().rposition(|w| *w != 0).unwrap_or(low);
            to.push(low as u8);
            big.words[low..=high]
                .iter()
                .for_each(|word| to.extend_from_slice(&word.to_le_bytes()));
        }
    }

    /// Takes a stored form back; the group must be new or [`ExactSums::reset`]. `None` if the bytes
    /// are no such form.
    pub fn load(&mut self, id: u32, from: &[u8]) -> Option<()> {
        self.merge(id, from)?;
        self.gather_bins(id);
        Some(())
    }

    /// Adds a stored form to the group.
    fn merge(&mut self, id: u32, from: &[u8]) -> Option<()> {
        let (flags, mut rest) = from.split_first()?;
        if flags & 2 != 0 {
            let (counts, after) = rest.split_at_checked(24)?;
            let count = |i: usize| {
                i64::from_le_bytes(counts[i * 8..i * 8 + 8].try_into().expect("eight bytes"))
            };
            let sums = self.specials.entry(id).or_default();
            (0..3).for_each(|i| sums[i] += count(i));
            rest = after;
        }
        let Some((low, words)) = rest.split_first() else {
            return Some(());
        };
        let words: Vec<u64> = words
            .chunks_exact(8)
            .map(|b| u64::from_le_bytes(b.try_into().expect("eight bytes")))
            .collect();
        if usize::from(*low) + words.len() > WORDS {
            return None;
        }
        let negative = flags & 1 != 0;
        for (i, word) in words.iter().enumerate() {
            let amount = if negative {
                -i128::from(*word)
            } else {
                i128::from(*word)
            };
            self.spill(id, amount, (i32::from(*low) + i as i32) * 64);
        }
        Some(())
    }

    /// Moves what a restored group has in bins into its word, if it fits with room to add.
    fn gather_bins(&mut self, id: u32) {
        let big = self.big(id);
        let Some(lowest) = big.words.iter().position(|w| *w != 0) else {
            return;
        };
        let highest = big.words.iter().rposition(|w| *w != 0).unwrap_or(lowest);
        let bottom = lowest * 64 + big.words[lowest].trailing_zeros() as usize;
        let top = highest * 64 + 64 - big.words[highest].leading_zeros() as usize;
        if top - bottom + BELOW as usize > 100 {
            return;
        }
        let anchor = bottom.saturating_sub(BELOW as usize);
        let mut word = 0u128;
        for bit in bottom..top {
            word |= u128::from(big.words[bit / 64] >> (bit % 64) & 1) << (bit - anchor);
        }
        self.reset_sum(id);
        self.anchors.set(id, anchor as u16 + 1);
        self.words.set(
            id,
            if big.negative {
                -(word as i128)
            } else {
                word as i128
            },
        );
    }

    fn reset_sum(&mut self, id: u32) {
        let specials = self.specials.remove(&id);
        self.reset(id);
        if let Some(specials) = specials {
            self.specials.insert(id, specials);
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.words.memory_bytes()
            + self.anchors.memory_bytes()
            + self.bins.capacity() * 32
            + self.specials.capacity() * 32
    }
}

/// One exact sum of floats, for whoever aggregates outside of a dataflow: the same answer as a
/// view's.
#[derive(Default)]
pub struct ExactSum(ExactSums);

impl ExactSum {
    /// The sum of nothing.
    pub fn new() -> ExactSum {
        let mut sums = ExactSums::default();
        sums.grow(1);
        ExactSum(sums)
    }

    /// Adds `weight` times `value`.
    #[inline]
    pub fn add(&mut self, value: f64, weight: i64) {
        self.0.add(0, value, weight);
    }

    /// The sum divided by `count`, rounded once.
    pub fn value(&self, count: u64) -> f64 {
        self.0.value(0, count, DOUBLE)
    }

    /// Whether an infinity was added.
    pub fn has_infinite(&self) -> bool {
        self.0.specials.contains_key(&0)
    }

    /// Its stored form, to be merged elsewhere.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.save(0, &mut bytes);
        bytes
    }

    /// Adds a sum in its stored form; `None` if the bytes are no such form.
    pub fn merge(&mut self, bytes: &[u8]) -> Option<()> {
        self.0.merge(0, bytes)
    }
}

/// `words += amount * 2^shift`, in two's complement.
fn add_shifted(words: &mut [u64; WORDS], amount: i128, shift: usize) {
    if amount == 0 {
        return;
    }
    let (at, bits) = (shift / 64, (shift % 64) as u32);
    let extension = if amount < 0 { u64::MAX } else { 0 };
    let (low, high) = (amount as u64, (amount >> 64) as u64);
    let parts = if bits == 0 {
        [low, high, extension]
    } else {
        [
            low << bits,
            high << bits | low >> (64 - bits),
            extension << bits | high >> (64 - bits),
        ]
    };
    let mut carry = false;
    for (i, word) in words.iter_mut().enumerate().skip(at) {
        let part = parts.get(i - at).copied().unwrap_or(extension);
        let (sum, first) = word.overflowing_add(part);
        let (sum, second) = sum.overflowing_add(u64::from(carry));
        *word = sum;
        carry = first || second;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_common::random::Random;
    use tidemark_values::exact::SINGLE;

    fn sum(values: &[f64]) -> f64 {
        let mut sums = ExactSums::default();
        sums.grow(1);
        values.iter().for_each(|v| sums.add(0, *v, 1));
        sums.value(0, 1, DOUBLE)
    }

    fn float(random: &mut Random, range: u64) -> f64 {
        let exponent = 1023 - range / 2 + random.below_u64(range);
        let (sign, fraction) = (random.next_u64() & 1 << 63, random.next_u64() >> 12);
        f64::from_bits(sign | exponent.min(2046) << 52 | fraction)
    }

    #[test]
    fn sums_that_doubles_get_wrong() {
        assert_eq!(sum(&[1e100, 1.0, -1e100]), 1.0);
        assert_eq!(sum(&[0.1; 10]), 1.0);
        assert_eq!(sum(&[f64::MAX, f64::MAX, -f64::MAX]), f64::MAX);
        assert_eq!(sum(&[f64::MAX, f64::MAX]), f64::INFINITY);
        assert_eq!(
            sum(&[f64::from_bits(1), f64::from_bits(1)]),
            f64::from_bits(2)
        );
        assert_eq!(sum(&[f64::from_bits(1), 1.0, -1.0]), f64::from_bits(1));
        assert_eq!(sum(&[f64::INFINITY, 1.0]), f64::INFINITY);
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        assert_eq!(sum(&[-2.5, 0.0, -0.0]), -2.5);
        assert_eq!(sum(&[]), 0.0);
        // A tie, and a tie with a little more.
        assert_eq!(sum(&[1.0, f64::EPSILON / 2.0]), 1.0);
        assert_eq!(sum(&[1.0, f64::EPSILON / 2.0, 1e-300]), 1.0 + f64::EPSILON);
    }

    #[test]
    fn two_values_are_rounded_as_the_processor_does() {
        let mut random = Random(7);
        for range in [2, 60, 200, 2000] {
            for _ in 0..2000 {
                let (a, b) = (float(&mut random, range), float(&mut random, range));
                assert_eq!(
                    sum(&[a, b]).to_bits(),
                    (a + b + 0.0).to_bits(),
                    "{a:e} + {b:e}"
                );
            }
        }
    }

    #[test]
    fn quotients_are_rounded_as_the_processor_does() {
        let mut random = Random(9);
        for _ in 0..5000 {
            let (a, n) = (float(&mut random, 100), random.next_u64() % 1000 + 1);
            let mut sums = ExactSums::default();
            sums.grow(1);
            sums.add(0, a, 1);
            assert_eq!(sums.value(0, n, DOUBLE), a / n as f64, "{a:e} / {n}");
            assert_eq!(
                sums.value(0, 1, SINGLE),
                f64::from(a as f32),
                "{a:e} as real"
            );
        }
    }

    #[test]
    fn order_retraction_and_storing_do_not_matter() {
        let mut random = Random(11);
        for range in [3, 40, 300, 2000] {
            let values: Vec<f64> = (0..200).map(|_| float(&mut random, range)).collect();
            let (mut forward, mut backward) = (ExactSums::default(), ExactSums::default());
            forward.grow(2);
            backward.grow(2);
            values.iter().for_each(|v| forward.add(0, *v, 1));
            for (i, v) in values.iter().enumerate().rev() {
                backward.add(0, *v, 3);
                backward.add(0, *v, -2);
                backward.add(0, 1e7 * i as f64, 1);
                if i % 50 == 0 {
                    let mut stored = Vec::new();
                    backward.save(0, &mut stored);
                    backward.reset(0);
                    backward.load(0, &stored).unwrap();
                }
            }
            (0..values.len()).for_each(|i| backward.add(0, 1e7 * i as f64, -1));
            assert_eq!(
                forward.value(0, 1, DOUBLE).to_bits(),
                backward.value(0, 1, DOUBLE).to_bits()
            );
            let (mut a, mut b) = (Vec::new(), Vec::new());
            forward.save(0, &mut a);
            backward.save(0, &mut b);
            assert_eq!(a, b, "one stored form");
            let (mut odd, mut even) = (ExactSum::new(), ExactSum::new());
            values.iter().enumerate().for_each(|(i, v)| {
                if i % 2 == 0 {
                    even.add(*v, 1)
                } else {
                    odd.add(*v, 1)
                }
            });
            even.merge(&odd.to_bytes()).unwrap();
            assert_eq!(even.to_bytes(), a, "parts merge to the whole");
            values.iter().for_each(|v| forward.add(0, *v, -1));
            assert_eq!(forward.value(0, 1, DOUBLE), 0.0);
        }
    }
}
