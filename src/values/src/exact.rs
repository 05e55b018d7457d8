//! Exact sums of doubles and of products of two doubles, and what statistics tell of them:
//! variances ([`Moments`]), covariances and regressions ([`Pairs`]). They are free of order, what
//! was added can be taken back, and every result is rounded once.
//!
//! A finite double is an integer multiple of 2^-1074, a product of two one of 2^-2148. A sum of
//! such is a big integer ([`Exact`]), of which only the words are kept in which something is: two
//! or three for values of about one size.
//!
//! The sum of squares of what n values are off their average by is `(n * sum(x^2) - sum(x)^2) / n`:
//! the numerator is computed as a big integer, without any loss, and the quotient is the nearest
//! double. PostgreSQL's, which is computed row by row, differs from it in its last digits, and not
//! by the same ones in every order of rows.

mod moments;
mod pairs;
mod rounding;

use num_bigint::BigUint;
use num_integer::Integer;
use num_traits::Zero;

pub use moments::{Moments, Spread};
pub use pairs::{Pairs, Regression};
pub use rounding::{DOUBLE, Format, SINGLE, quotient};

/// Bits of a quotient before it is rounded, and of a root that something is divided by.
const QUOTIENT_BITS: u64 = 128;

/// The exponent of the unit of a sum of doubles.
const UNIT: i32 = -1074;
/// That of a sum of products.
const UNIT_OF_PRODUCTS: i32 = 2 * UNIT;

/// A big integer, which counts units of some power of two.
#[derive(Clone, Debug, Default)]
pub struct Exact {
    /// So many words of zeros come before the first that is kept.
    low: usize,
    /// In two's complement; the highest word goes on for ever with its sign. It is above every
    /// word that something was added to, so that it takes 2^62 additions.
    words: Vec<u64>,
}

/// Whether a double is negative, its mantissa and the unit that it counts; nothing for zero.
fn parts(value: f64) -> (bool, u64, u32) {
    let bits = value.to_bits();
    let (exponent, fraction) = ((bits >> 52 & 0x7FF) as u32, bits & ((1 << 52) - 1));
    let (mantissa, unit) = match exponent {
        0 => (fraction, 0),
        _ => (fraction | 1 << 52, exponent - 1),
    };
    (value.is_sign_negative(), mantissa, unit)
}

impl Exact {
    /// Adds `weight` times a finite double to a sum of doubles.
    pub fn add(&mut self, value: f64, weight: i64) {
        let (negative, mantissa, unit) = parts(value);
        self.add_scaled(negative, mantissa.into(), unit, weight);
    }

    /// Adds `weight` times the product of two finite doubles to a sum of products.
    pub fn add_product(&mut self, a: f64, b: f64, weight: i64) {
        let (a, b) = (parts(a), parts(b));
        let mantissa = u128::from(a.1) * u128::from(b.1);
        self.add_scaled(a.0 != b.0, mantissa, a.2 + b.2, weight);
    }

    /// Adds `weight` times `mantissa`, of up to 106 bits, times 2^`shift`.
    fn add_scaled(&mut self, negative: bool, mantissa: u128, shift: u32, weight: i64) {
        if mantissa == 0 || weight == 0 {
            return;
        }
        let times = u128::from(weight.unsigned_abs());
        let low = u128::from(mantissa as u64) * times;
        let high = (mantissa >> 64) * times + (low >> 64);
        let words = [low as u64, high as u64, (high >> 64) as u64];
        let (at, bits) = (shift as usize / 64, shift % 64);
        let shifted = match bits {
            0 => [words[0], words[1], words[2], 0],
            bits => [
                words[0] << bits,
                words[1] << bits | words[0] >> (64 - bits),
                words[2] << bits | words[1] >> (64 - bits),
                words[2] >> (64 - bits),
            ],
        };
        let used = shifted.iter().rposition(|w| *w != 0).map_or(0, |i| i + 1);
        self.add_words(at, &shifted[..used], negative != (weight < 0));
    }

    /// Adds a magnitude that begins at word `at`, or takes it away.
    fn add_words(&mut self, at: usize, magnitude: &[u64], negative: bool) {
        self.make_room(at, at + magnitude.len() + 1);
        let extension = if negative { u64::MAX } else { 0 };
        let mut carry = negative;
        for (i, word) in self.words[at - self.low..].iter_mut().enumerate() {
            if i >= magnitude.len() && carry == negative {
                break;
            }
            let part = magnitude.get(i).copied().unwrap_or(0) ^ extension;
            let (sum, first) = word.overflowing_add(part);
            let (sum, second) = sum.overflowing_add(carry.into());
            *word = sum;
            carry = first || second;
        }
    }

    /// Keeps the words `from..to` at least.
    fn make_room(&mut self, from: usize, to: usize) {
        if self.words.is_empty() {
            self.low = from;
            self.words.resize(to - from, 0);
            return;
        }
        if from < self.low {
            let zeros = std::iter::repeat_n(0, self.low - from);
            self.words.splice(0..0, zeros);
            self.low = from;
        }
        if to > self.low + self.words.len() {
            let extension = if self.is_negative() { u64::MAX } else { 0 };
            self.words.resize(to - self.low, extension);
        }
    }

    fn is_negative(&self) -> bool {
        self.words.last().is_some_and(|w| w >> 63 == 1)
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.words.iter().all(|w| *w == 0)
    }

    /// Adds another sum of the same unit.
    pub fn merge(&mut self, other: &Exact) {
        let (negative, magnitude) = other.magnitude();
        self.add_words(other.low, &magnitude, negative);
    }

    /// Takes one away.
    fn minus(mut self, other: &Exact) -> Exact {
        let (negative, magnitude) = other.magnitude();
        self.add_words(other.low, &magnitude, !negative);
        self
    }

    /// Its sign, and its words without it.
    fn magnitude(&self) -> (bool, Vec<u64>) {
        let negative = self.is_negative();
        let mut words = self.words.clone();
        let mut carry = negative;
        for word in words.iter_mut().filter(|_| negative) {
            (*word, carry) = (!*word).overflowing_add(carry.into());
        }
        (negative, words)
    }

    /// The product of two: it counts units of the product of their units.
    fn times(&self, other: &Exact) -> Exact {
        let ((a_negative, a), (b_negative, b)) = (self.magnitude(), other.magnitude());
        let mut words = vec![0u64; a.len() + b.len() + 1];
        for (i, x) in a.iter().enumerate() {
            let mut carry = 0u128;
            for (j, y) in b.iter().enumerate() {
                let sum = u128::from(*x) * u128::from(*y) + u128::from(words[i + j]) + carry;
                words[i + j] = sum as u64;
                carry = sum >> 64;
            }
            words[i + b.len()] = carry as u64;
        }
        let mut product = Exact::default();
        product.add_words(self.low + other.low, &words, a_negative != b_negative);
        product
    }

    /// So many times this.
    fn many(&self, times: u64) -> Exact {
        self.times(&Exact {
            low: 0,
            words: vec![times, 0],
        })
    }

    /// This many of 2^`unit`, divided by all of the divisors and rounded once; infinite beyond all
    /// doubles.
    fn rounded(&self, unit: i32, divisors: &[u64]) -> f64 {
        let (negative, magnitude) = self.magnitude();
        let value = quotient(&magnitude, unit + 64 * self.low as i32, divisors, DOUBLE);
        if negative { -value } else { value }
    }

    /// The magnitude as a number.
    fn big(&self) -> BigUint {
        let (_, words) = self.magnitude();
        let halves = words.iter().flat_map(|w| [*w as u32, (*w >> 32) as u32]);
        BigUint::new(halves.collect()) << (64 * self.low)
    }

    /// The quotient by a magnitude times 2^`exponent`, rounded once; infinite beyond all doubles.
    fn divided(&self, by: &BigUint, exponent: i32) -> f64 {
        let numerator = self.big();
        let shift = (QUOTIENT_BITS + by.bits()).saturating_sub(numerator.bits());
        let (mut quotient, remainder) = (numerator << shift).div_rem(by);
        // The last bit, which is far behind those of a double, says whether there is a rest.
        quotient.set_bit(0, quotient.bit(0) || !remainder.is_zero());
        let digits = quotient.to_u64_digits();
        let value = rounding::quotient(&digits, exponent - shift as i32, &[], DOUBLE);
        match self.is_negative() {
            true => -value,
            false => value,
        }
    }

    /// Bytes of memory outside of itself.
    pub fn heap_bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }

    /// Appends the stored form, which equal sums share: the sign and the number of words, where
    /// they begin, and the words without zeros at either end.
    pub fn encode(&self, to: &mut Vec<u8>) {
        let (negative, words) = self.magnitude();
        let from = words.iter().position(|w| *w != 0).unwrap_or(words.len());
        let end = words.iter().rposition(|w| *w != 0).map_or(from, |i| i + 1);
        let low = if end > from { self.low + from } else { 0 };
        let head = (end - from) as u16 | u16::from(negative) << 15;
        to.extend_from_slice(&head.to_le_bytes());
        to.extend_from_slice(&(low as u16).to_le_bytes());
        for word in &words[from..end] {
            to.extend_from_slice(&word.to_le_bytes());
        }
    }

    /// Reads a stored form off the beginning; `None` if there is none.
    pub fn decode(from: &mut &[u8]) -> Option<Exact> {
        let head = u16::from_le_bytes(take(from)?);
        let low = u16::from_le_bytes(take(from)?);
        let words = (0..head & 0x7FFF).map(|_| take(from).map(u64::from_le_bytes));
        let words = words.collect::<Option<Vec<u64>>>()?;
        let mut sum = Exact::default();
        sum.add_words(low.into(), &words, head >> 15 == 1);
        Some(sum)
    }
}

/// The next bytes.
fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*first)
}

/// What is kept of the values of one variable: the sum of those that are numbers and that of their
/// squares, and how many are NaN, infinity and minus infinity.
#[derive(Clone, Debug, Default)]
struct Variable {
    sum: Exact,
    squares: Exact,
    others: [i64; 3],
}

impl Variable {
    fn add(&mut self, value: f64, weight: i64, squares: bool) {
        if !value.is_finite() {
            let which = match value.is_nan() {
                true => 0,
                false => 1 + usize::from(value < 0.0),
            };
            self.others[which] += weight;
            return;
        }
        self.sum.add(value, weight);
        if squares {
            self.squares.add_product(value, value, weight);
        }
    }

    fn merge(&mut self, other: &Variable) {
        self.sum.merge(&other.sum);
        self.squares.merge(&other.squares);
        for (count, more) in self.others.iter_mut().zip(other.others) {
            *count += more;
        }
    }

    fn is_finite(&self) -> bool {
        self.others == [0; 3]
    }

    /// The sum divided by so many.
    fn average(&self, rows: u64) -> f64 {
        match self.others.map(|count| count != 0) {
            [false, false, false] => self.sum.rounded(UNIT, &[rows]),
            [false, true, false] => f64::INFINITY,
            [false, false, true] => f64::NEG_INFINITY,
            _ => f64::NAN,
        }
    }

    /// The sum of squares of what the values are off their average by, divided by `divisors`.
    fn spread(&self, rows: u64, divisors: &[u64]) -> f64 {
        let squares = self.squares(rows);
        squares.map_or(f64::NAN, |sum| sum.rounded(UNIT_OF_PRODUCTS, divisors))
    }

    /// `rows` times that sum; unknown if one of the values is no number.
    fn squares(&self, rows: u64) -> Option<Exact> {
        self.is_finite()
            .then(|| off(&self.squares, rows, &self.sum, &self.sum))
    }

    fn heap_bytes(&self) -> usize {
        self.sum.heap_bytes() + self.squares.heap_bytes()
    }

    fn encode(&self, to: &mut Vec<u8>) {
        to.push(u8::from(!self.is_finite()));
        if !self.is_finite() {
            let counts = self.others.iter();
            counts.for_each(|count| to.extend_from_slice(&count.to_le_bytes()));
        }
        self.sum.encode(to);
        self.squares.encode(to);
    }

    fn decode(from: &mut &[u8]) -> Option<Variable> {
        let mut others = [0; 3];
        if take::<1>(from)? == [1] {
            for count in &mut others {
                *count = i64::from_le_bytes(take(from)?);
            }
        }
        Some(Variable {
            sum: Exact::decode(from)?,
            squares: Exact::decode(from)?,
            others,
        })
    }
}

/// `rows` times the sum of products of what pairs are off their averages by.
fn off(products: &Exact, rows: u64, x: &Exact, y: &Exact) -> Exact {
    products.many(rows).minus(&x.times(y))
}

#[cfg(test)]
mod tests;
