//! Aggregates of numerics from which rows can be taken away again.
//!
//! Law: after any sequence of [`Sum::add`], [`Sum::remove`] and [`Sum::merge`] the results equal
//! PostgreSQL's over the rows that remain. The total is exact, so adding and removing commute. What
//! a total alone would lose is counted apart: how many rows are `NaN` or infinite, and how many
//! rows there are of each scale, because a sum's scale is the largest among its rows.
//!
//! Rows may come with a weight (`change`), and a count may be negative for a while, when a removal
//! overtakes its addition; results are meaningful when every count is at least 0 again.
//!
//! State: the total (an `i128` while it fits) at the largest scale of the rows, the same for the
//! squares if asked for, and one count per scale, the first one inline. Cost of a row: one addition
//! (and one multiplication for the squares), O(number of scales).

use num_bigint::BigInt;
use tidemark_common::{Error, Result};

use super::arithmetic::{divide, division_scale};
use super::functions::square_root;
use super::int::Int;
use super::{Numeric, Repr, SCALE_MAX};

/// Accumulates sum and avg, and with [`Sum::with_squares`] also variance and stddev.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// At `scale`.
    total: Total,
    /// At twice `scale`; `None` if not asked for.
    squares: Option<Total>,
    /// At least the largest scale of the rows; equal to it when no count is negative.
    scale: u16,
    /// Finite rows.
    rows: Scales,
    nans: i64,
    infinities: i64,
    neg_infinities: i64,
}

/// An exact total.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Total(Int);

impl Default for Total {
    fn default() -> Total {
        Total(Int::Small(0))
    }
}

impl Total {
    /// Adds `v * weight`.
    #[inline]
    fn change(&mut self, v: &Int, weight: i64) {
        self.0 = match weight {
            1 => self.0.add(v),
            -1 => self.0.sub(v),
            _ => self.0.add(&v.mul(&Int::Small(i128::from(weight)))),
        };
    }
}

/// How many rows there are of each scale, in ascending order of scale; counts are not zero.
///
/// The smallest scale is inline, so that a column of one scale allocates nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Scales {
    /// Unused while its count is 0; then `others` is empty.
    first: (u16, i64),
    others: Vec<(u16, i64)>,
}

impl Scales {
    /// Changes a count; whether one became zero.
    #[inline]
    fn change(&mut self, scale: u16, rows: i64) -> bool {
        if self.first.1 == 0 {
            self.first = (scale, rows);
        } else if self.first.0 == scale {
            self.first.1 = self.first.1.wrapping_add(rows);
        } else {
            return self.change_others(scale, rows);
        }
        if self.first.1 != 0 {
            return false;
        }
        self.first = if self.others.is_empty() {
            (0, 0)
        } else {
            self.others.remove(0)
        };
        true
    }

    fn change_others(&mut self, scale: u16, rows: i64) -> bool {
        if rows == 0 {
            return false;
        }
        if scale < self.first.0 {
            let first = std::mem::replace(&mut self.first, (scale, rows));
            self.others.insert(0, first);
            return false;
        }
        match self.others.binary_search_by_key(&scale, |entry| entry.0) {
            Err(at) => self.others.insert(at, (scale, rows)),
            Ok(at) => {
                self.others[at].1 = self.others[at].1.wrapping_add(rows);
                if self.others[at].1 == 0 {
                    self.others.remove(at);
                    return true;
                }
            }
        }
        false
    }

    fn entries(&self) -> impl DoubleEndedIterator<Item = (u16, i64)> {
        let first = (self.first.1 != 0).then_some(self.first);
        first.into_iter().chain(self.others.iter().copied())
    }

    fn total(&self) -> i64 {
        self.entries()
            .fold(0, |total, entry| total.wrapping_add(entry.1))
    }

    /// The largest scale that occurs.
    fn largest(&self) -> u16 {
        self.others.last().unwrap_or(&self.first).0
    }

    /// The largest scale of which there are rows.
    fn largest_present(&self) -> u16 {
        self.entries()
            .rev()
            .find(|entry| entry.1 > 0)
            .map_or(0, |entry| entry.0)
    }
}

impl Sum {
    /// For sum and avg.
    pub fn new() -> Sum {
        Sum::default()
    }

    /// For variance and stddev too.
    pub fn with_squares() -> Sum {
        Sum {
            squares: Some(Total::default()),
            ..Sum::default()
        }
    }

    /// A row comes.
    #[inline]
    pub fn add(&mut self, value: &Numeric) {
        self.change(value, 1);
    }

    /// A row goes that has been added.
    #[inline]
    pub fn remove(&mut self, value: &Numeric) {
        self.change(value, -1);
    }

    /// `rows` equal rows come (or go, if negative).
    #[inline]
    pub fn change(&mut self, value: &Numeric, rows: i64) {
        match &value.0 {
            Repr::Small(v, scale) => self.change_finite(&Int::Small(*v), *scale, rows),
            Repr::Big(v, scale) => self.change_finite(&Int::Big(v.as_ref().clone()), *scale, rows),
            Repr::NegInfinity => self.neg_infinities += rows,
            Repr::Infinity => self.infinities += rows,
            Repr::NaN => self.nans += rows,
        }
    }

    #[inline]
    fn change_finite(&mut self, v: &Int, scale: u16, rows: i64) {
        if rows == 0 {
            return;
        }
        self.raise(scale);
        let up = u32::from(self.scale - scale);
        if let Some(squares) = &mut self.squares {
            squares.change(&v.mul(v).times_pow10(2 * up), rows);
        }
        if up == 0 {
            self.total.change(v, rows);
        } else {
            self.total.change(&v.times_pow10(up), rows);
        }
        if self.rows.change(scale, rows) {
            self.lower();
        }
    }

    /// Brings the totals to `scale` if theirs is smaller.
    #[inline]
    fn raise(&mut self, scale: u16) {
        if scale > self.scale {
            let up = u32::from(scale - self.scale);
            self.total.0 = self.total.0.times_pow10(up);
            if let Some(squares) = &mut self.squares {
                squares.0 = squares.0.times_pow10(2 * up);
            }
            self.scale = scale;
        }
    }

    /// Brings the totals down to the largest scale that occurs, if that loses nothing.
    fn lower(&mut self) {
        let scale = self.rows.largest();
        if scale >= self.scale {
            return;
        }
        let down = u32::from(self.scale - scale);
        let (total, rest) = self.total.0.div_rem_pow10(down);
        let squares = self
            .squares
            .as_ref()
            .map(|squares| squares.0.div_rem_pow10(2 * down));
        if !rest.is_zero() || squares.as_ref().is_some_and(|(_, rest)| !rest.is_zero()) {
            return;
        }
        self.total = Total(total);
        self.squares = squares.map(|(squares, _)| Total(squares));
        self.scale = scale;
    }

    /// Adds all rows of `other`. The result knows squares if both do.
    pub fn merge(&mut self, other: &Sum) {
        self.raise(other.scale);
        let up = u32::from(self.scale - other.scale);
        self.total.change(&other.total.0.times_pow10(up), 1);
        self.squares = match (self.squares.take(), &other.squares) {
            (Some(mut squares), Some(others)) => {
                squares.change(&others.0.times_pow10(2 * up), 1);
                Some(squares)
            }
            _ => None,
        };
        for (scale, rows) in other.rows.entries() {
            self.rows.change(scale, rows);
        }
        self.nans += other.nans;
        self.infinities += other.infinities;
        self.neg_infinities += other.neg_infinities;
        self.lower();
    }

    /// How many rows there are.
    pub fn rows(&self) -> i64 {
        let specials = [self.nans, self.infinities, self.neg_infinities];
        specials
            .into_iter()
            .fold(self.rows.total(), i64::wrapping_add)
    }

    /// Whether nothing is left, so that the state may be forgotten.
    pub fn is_empty(&self) -> bool {
        let counts = [
            self.rows.first.1,
            self.nans,
            self.infinities,
            self.neg_infinities,
        ];
        counts == [0; 4] && self.total.0.is_zero()
    }

    /// The total when rows are not all finite.
    fn special(&self) -> Option<Numeric> {
        match (self.nans > 0, self.infinities > 0, self.neg_infinities > 0) {
            (false, false, false) => None,
            (false, true, false) => Some(Numeric::INFINITY),
            (false, false, true) => Some(Numeric::NEG_INFINITY),
            _ => Some(Numeric::NAN),
        }
    }

    /// SQL's `sum`; `None` (SQL's null) of no rows.
    ///
    /// # Errors
    /// `22003` beyond the limits.
    pub fn sum(&self) -> Result<Option<Numeric>> {
        if self.rows() <= 0 {
            return Ok(None);
        }
        if let Some(special) = self.special() {
            return Ok(Some(special));
        }
        let scale = self.rows.largest_present();
        let total = self
            .total
            .0
            .rescale(i32::from(self.scale), i32::from(scale));
        Numeric::checked(total, scale).map(Some)
    }

    /// SQL's `avg`; `None` of no rows.
    ///
    /// # Errors
    /// `22003` when the sum is beyond the limits.
    pub fn avg(&self) -> Result<Option<Numeric>> {
        match self.sum()? {
            Some(sum) if sum.is_finite() => sum.div(&Numeric::from(self.rows.total())).map(Some),
            other => Ok(other),
        }
    }

    /// SQL's `var_pop`; `None` of no rows, or if made without squares.
    ///
    /// # Errors
    /// `22003` beyond the limits.
    pub fn var_pop(&self) -> Result<Option<Numeric>> {
        self.deviation(false, false)
    }

    /// SQL's `var_samp`; `None` of fewer than two rows, or if made without squares.
    ///
    /// # Errors
    /// `22003` beyond the limits.
    pub fn var_samp(&self) -> Result<Option<Numeric>> {
        self.deviation(true, false)
    }

    /// SQL's `stddev_pop`; otherwise as [`Sum::var_pop`].
    ///
    /// # Errors
    /// `22003` beyond the limits.
    pub fn stddev_pop(&self) -> Result<Option<Numeric>> {
        self.deviation(false, true)
    }

    /// SQL's `stddev_samp`; otherwise as [`Sum::var_samp`].
    ///
    /// # Errors
    /// `22003` beyond the limits.
    pub fn stddev_samp(&self) -> Result<Option<Numeric>> {
        self.deviation(true, true)
    }

    /// (n * squares - total^2) / (n * (n - 1)) or / n^2, or the root of it.
    fn deviation(&self, sample: bool, root: bool) -> Result<Option<Numeric>> {
        let Some(squares) = &self.squares else {
            return Ok(None);
        };
        if self.rows() <= i64::from(sample) {
            return Ok(None);
        }
        if self.special().is_some() {
            return Ok(Some(Numeric::NAN));
        }
        let n = i128::from(self.rows.total());
        let rows = Int::Small(n);
        let total = &self.total.0;
        let spread = rows.mul(&squares.0).sub(&total.mul(total));
        if spread.sign() <= 0 {
            return Ok(Some(Numeric::ZERO));
        }
        let own = 2 * i32::from(self.rows.largest_present());
        let spread = spread.rescale(2 * i32::from(self.scale), own);
        let divisor = rows.mul(&Int::Small(if sample { n - 1 } else { n }));
        let scale = division_scale(&spread, own, &divisor, 0);
        let mut result = divide(&spread, own, &divisor, 0, scale);
        if root {
            result = square_root(&result, scale, scale);
        }
        Numeric::checked(result, scale as u16).map(Some)
    }
}

// The state's bytes: flags (1 squares, 2 rows that are not finite, 4 the scale is not the largest
// one of the rows), then numbers in 7-bit groups, the lowest first, signed ones zigzag: the counts
// of NaN, Infinity, -Infinity if flagged; the number of scales and each scale with its rows; the
// totals' scale if flagged; then total and squares, each as its length and that many bytes,
// two's complement, the highest first.

const FLAG_SQUARES: u8 = 1;
const FLAG_SPECIAL: u8 = 2;
const FLAG_SCALE: u8 = 4;

impl Sum {
    /// Appends the state.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let specials = [self.nans, self.infinities, self.neg_infinities];
        let own_scale = self.scale != self.rows.largest();
        let mut flags = 0;
        if self.squares.is_some() {
            flags |= FLAG_SQUARES;
        }
        if specials != [0; 3] {
            flags |= FLAG_SPECIAL;
        }
        if own_scale {
            flags |= FLAG_SCALE;
        }
        out.push(flags);
        if specials != [0; 3] {
            for count in specials {
                put_signed(count, out);
            }
        }
        put(self.rows.entries().count() as u64, out);
        for (scale, rows) in self.rows.entries() {
            put(u64::from(scale), out);
            put_signed(rows, out);
        }
        if own_scale {
            put(u64::from(self.scale), out);
        }
        put_int(&self.total.0, out);
        if let Some(squares) = &self.squares {
            put_int(&squares.0, out);
        }
    }

    /// Reads what [`Sum::encode`] wrote.
    ///
    /// # Errors
    /// `XX001` when the bytes are no such state.
    pub fn decode(bytes: &[u8]) -> Result<Sum> {
        let damaged = || Error::corrupt("damaged numeric sum");
        let mut rest = bytes;
        let sum = read(&mut rest).ok_or_else(damaged)?;
        if rest.is_empty() {
            Ok(sum)
        } else {
            Err(damaged())
        }
    }
}

fn read(rest: &mut &[u8]) -> Option<Sum> {
    let (flags, tail) = rest.split_first()?;
    *rest = tail;
    if *flags > FLAG_SQUARES | FLAG_SPECIAL | FLAG_SCALE {
        return None;
    }
    let mut sum = Sum::default();
    if flags & FLAG_SPECIAL != 0 {
        sum.nans = take_signed(rest)?;
        sum.infinities = take_signed(rest)?;
        sum.neg_infinities = take_signed(rest)?;
    }
    for _ in 0..take(rest)? {
        let scale = take_scale(rest)?;
        sum.rows.change(scale, take_signed(rest)?);
    }
    sum.scale = if flags & FLAG_SCALE != 0 {
        take_scale(rest)?
    } else {
        sum.rows.largest()
    };
    sum.total = Total(take_int(rest)?);
    if flags & FLAG_SQUARES != 0 {
        sum.squares = Some(Total(take_int(rest)?));
    }
    (sum.scale >= sum.rows.largest()).then_some(sum)
}

fn put(mut v: u64, out: &mut Vec<u8>) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn put_signed(v: i64, out: &mut Vec<u8>) {
    put(((v << 1) ^ (v >> 63)) as u64, out);
}

fn put_int(v: &Int, out: &mut Vec<u8>) {
    match v {
        Int::Small(v) => {
            let bytes = v.to_be_bytes();
            // Leading bytes that only repeat the sign are left out.
            let fill = if *v < 0 { 0xFF } else { 0 };
            let mut start = 0;
            while start < 15 && bytes[start] == fill && (bytes[start + 1] ^ fill) < 0x80 {
                start += 1;
            }
            out.push((16 - start) as u8);
            out.extend_from_slice(&bytes[start..]);
        }
        Int::Big(v) => {
            let bytes = v.to_signed_bytes_be();
            put(bytes.len() as u64, out);
            out.extend_from_slice(&bytes);
        }
    }
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7F) << shift;
        if *byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take_signed(rest: &mut &[u8]) -> Option<i64> {
    let v = take(rest)?;
    Some((v >> 1) as i64 ^ -((v & 1) as i64))
}

fn take_scale(rest: &mut &[u8]) -> Option<u16> {
    u16::try_from(take(rest)?)
        .ok()
        .filter(|scale| *scale <= SCALE_MAX)
}

fn take_int(rest: &mut &[u8]) -> Option<Int> {
    let length = usize::try_from(take(rest)?).ok()?;
    if length == 0 || length > rest.len() {
        return None;
    }
    let (bytes, tail) = rest.split_at(length);
    *rest = tail;
    if length > 16 {
        return Some(Int::from(BigInt::from_signed_bytes_be(bytes)));
    }
    let mut full = if bytes[0] >= 0x80 {
        [0xFF; 16]
    } else {
        [0; 16]
    };
    full[16 - length..].copy_from_slice(bytes);
    Some(Int::Small(i128::from_be_bytes(full)))
}
