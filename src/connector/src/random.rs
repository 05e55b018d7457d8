//! Randomness as a function: the value of a field of an event is `hash(seed, event, field)`, so any
//! event can be made at any time, in any order, by any worker, and a field that nobody asks for
//! costs nothing. The hash is the finaliser of SplitMix64 over a sum of odd multiples (Steele, Lea,
//! Flood 2014).

const EVENT: u64 = 0x9E37_79B9_7F4A_7C15;
const FIELD: u64 = 0xD134_2543_DE82_EF95;

#[inline(always)]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The random function of one field.
#[derive(Clone, Copy, Debug)]
pub struct Field(u64);

impl Field {
    /// Field `field` under `seed`.
    pub fn new(seed: u64, field: u64) -> Field {
        Field(mix(seed.wrapping_add(EVENT)).wrapping_add((field + 1).wrapping_mul(FIELD)))
    }

    /// 64 random bits of event `n`.
    #[inline(always)]
    pub fn bits(self, n: u64) -> u64 {
        mix(self.0.wrapping_add(n.wrapping_mul(EVENT)))
    }

    /// A number in `0..limit` of event `n`; `limit` at least 1.
    #[inline(always)]
    pub fn below(self, n: u64, limit: u64) -> u64 {
        scale(self.bits(n), limit)
    }
}

/// Maps 64 random bits to `0..limit`.
#[inline(always)]
pub fn scale(bits: u64, limit: u64) -> u64 {
    ((u128::from(bits) * u128::from(limit)) >> 64) as u64
}

/// Appends `length` letters a to z that follow from `bits`, eight at a time: each byte b of a
/// random word becomes 'a' + b * 26 / 256.
#[inline(always)]
pub fn letters(out: &mut Vec<u8>, bits: u64, length: usize) {
    const LANES: u64 = 0x00FF_00FF_00FF_00FF;
    let end = out.len() + length;
    out.reserve(length + 8);
    let mut word = bits | 1;
    while out.len() < end {
        let even = (((word & LANES) * 26) >> 8) & LANES;
        let odd = (((word >> 8) & LANES) * 26) & !LANES;
        out.extend_from_slice(&((even | odd) + 0x6161_6161_6161_6161).to_le_bytes());
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
    }
    out.truncate(end);
}

/// Appends `value` in base `radix` (10 or 36), at least `width` digits.
pub fn digits(out: &mut Vec<u8>, mut value: u64, radix: u64, width: usize) {
    let mut text = [b'0'; 64];
    let mut at = text.len();
    while value > 0 || text.len() - at < width.max(1) {
        at -= 1;
        text[at] = b"0123456789abcdefghijklmnopqrstuvwxyz"[(value % radix) as usize];
        value /= radix;
    }
    out.extend_from_slice(&text[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_lower_case_and_spread_evenly() {
        let mut text = Vec::new();
        for n in 0..1000 {
            letters(&mut text, Field::new(1, 2).bits(n), 67);
        }
        assert_eq!(text.len(), 67_000);
        let mut counts = [0usize; 26];
        text.iter().for_each(|b| counts[(b - b'a') as usize] += 1);
        assert!(
            counts.iter().all(|c| (2000..3300).contains(c)),
            "{counts:?}"
        );
    }

    #[test]
    fn digits_pad_and_convert() {
        let mut out = Vec::new();
        digits(&mut out, 7, 10, 4);
        digits(&mut out, 7919, 36, 0);
        digits(&mut out, 0, 10, 0);
        assert_eq!(out, b"000763z0");
    }
}
