//! The bytes of a value: tags, counts, skipping, and the display scales that follow the key.
//!
//! The format itself is in the documentation of the module above. Everything here reads with
//! bounds checks and reports damage as `XX001`.

use std::cmp::Ordering;
use std::ffi::CStr;

use tidemark_common::error::{Error, Result};

use super::number;

/// An empty array at the top of a value.
pub(super) const EMPTY_TOP: u8 = 0x01;
/// JSON `null`.
pub(super) const NULL: u8 = 0x02;
/// A string, up to the byte 0.
pub(super) const STRING: u8 = 0x03;
/// A number.
pub(super) const NUMBER: u8 = 0x04;
/// `false`.
pub(super) const FALSE: u8 = 0x05;
/// `true`.
pub(super) const TRUE: u8 = 0x06;
/// An array: a count and so many values.
pub(super) const ARRAY: u8 = 0x07;
/// An object: a count and so many pairs.
pub(super) const OBJECT: u8 = 0x08;

/// The first byte of a count that does not fit in one byte.
const COUNT_LONG: u8 = 0xF8;

/// What reading damaged bytes reports.
#[cold]
pub(super) fn damaged() -> Error {
    Error::corrupt("damaged jsonb value")
}

/// The order-preserving key at the beginning of an encoded value (all of `bytes` when damaged).
pub fn key_of(bytes: &[u8]) -> &[u8] {
    split(bytes).0
}

/// PostgreSQL's order of two encoded values.
pub fn compare(a: &[u8], b: &[u8]) -> Ordering {
    key_of(a).cmp(key_of(b))
}

/// The key and the scales of an encoded value; of a damaged one all bytes and none.
pub(super) fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    try_split(bytes).unwrap_or((bytes, &[]))
}

fn try_split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&last, rest) = bytes.split_last()?;
    let (length, rest) = if last == 0xFF {
        let (rest, length) = rest.split_last_chunk::<4>()?;
        (u32::from_le_bytes(*length) as usize, rest)
    } else {
        (usize::from(last), rest)
    };
    rest.split_at_checked(rest.len().checked_sub(length)?)
}

/// The tag at `at`.
pub(super) fn tag(key: &[u8], at: usize) -> Result<u8> {
    key.get(at).copied().ok_or_else(damaged)
}

/// The count at `at` and where its bytes end.
pub(super) fn count(key: &[u8], at: usize) -> Result<(usize, usize)> {
    let first = tag(key, at)?;
    if first < COUNT_LONG {
        return Ok((usize::from(first), at + 1));
    }
    let length = usize::from(first - COUNT_LONG) + 1;
    let bytes = key.get(at + 1..at + 1 + length).filter(|b| b.len() <= 4);
    let bytes = bytes.ok_or_else(damaged)?;
    let count = bytes.iter().fold(0, |n, &b| n << 8 | usize::from(b));
    Ok((count, at + 1 + length))
}

/// The bytes of a count: how many of the array are in use, and the array.
pub(super) fn count_bytes(count: usize) -> Result<(usize, [u8; 5])> {
    let mut out = [0; 5];
    if count < usize::from(COUNT_LONG) {
        out[0] = count as u8;
        return Ok((1, out));
    }
    let Ok(count) = u32::try_from(count) else {
        return Err(Error::user(
            tidemark_common::error::SqlState("54000"),
            "number of jsonb array elements exceeds the maximum allowed (4294967295)",
        ));
    };
    let bytes = count.to_be_bytes();
    let skip = count.leading_zeros() as usize / 8;
    let length = 4 - skip;
    out[0] = COUNT_LONG + (length as u8 - 1);
    out[1..1 + length].copy_from_slice(&bytes[skip..]);
    Ok((1 + length, out))
}

/// The bytes of the string whose tag is at `at`, and where the value ends.
pub(super) fn string_bytes(key: &[u8], at: usize) -> Result<(&[u8], usize)> {
    let rest = key.get(at + 1..).unwrap_or_default();
    let text = CStr::from_bytes_until_nul(rest)
        .map_err(|_| damaged())?
        .to_bytes();
    Ok((text, at + 1 + text.len() + 1))
}

/// The string whose tag is at `at`, and where the value ends.
pub(super) fn string(key: &[u8], at: usize) -> Result<(&str, usize)> {
    let (bytes, end) = string_bytes(key, at)?;
    Ok((std::str::from_utf8(bytes).map_err(|_| damaged())?, end))
}

/// Where the value at `at` ends. Takes time in proportion to its length.
pub(super) fn skip(key: &[u8], mut at: usize) -> Result<usize> {
    let mut pending = 1usize;
    while pending > 0 {
        pending -= 1;
        match tag(key, at)? {
            EMPTY_TOP | NULL | FALSE | TRUE => at += 1,
            STRING => at = string_bytes(key, at)?.1,
            NUMBER => at = number::skip(key, at + 1)?,
            ARRAY => {
                let (n, after) = count(key, at + 1)?;
                pending += n;
                at = after;
            }
            OBJECT => {
                let (n, after) = count(key, at + 1)?;
                pending += 2 * n;
                at = after;
            }
            _ => return Err(damaged()),
        }
    }
    Ok(at)
}

/// Reads the display scales in the order of their numbers; a copy keeps its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scales<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Scales<'a> {
    /// All entries of a value.
    pub(super) fn new(bytes: &'a [u8]) -> Scales<'a> {
        Scales {
            rest: bytes,
            offset: 0,
        }
    }

    /// Drops the entries of numbers before `offset`.
    pub(super) fn advance(&mut self, offset: usize) {
        while let Some((at, _, rest)) = self.peek() {
            if at >= offset {
                break;
            }
            *self = Scales { rest, offset: at };
        }
    }

    /// How many zeros the number with its tag at `offset` shows beyond its last digit.
    pub(super) fn extra_at(&mut self, offset: usize) -> u32 {
        if self.rest.is_empty() {
            return 0;
        }
        self.advance(offset);
        match self.peek() {
            Some((at, extra, _)) if at == offset => extra,
            _ => 0,
        }
    }

    /// The next entry that stands before `end`: where its number is, and its zeros.
    pub(super) fn next_before(&mut self, end: usize) -> Option<(usize, u32)> {
        let (at, extra, rest) = self.peek()?;
        if at >= end {
            return None;
        }
        *self = Scales { rest, offset: at };
        Some((at, extra))
    }

    fn peek(&self) -> Option<(usize, u32, &'a [u8])> {
        let (delta, rest) = read_leb(self.rest)?;
        let (extra, rest) = read_leb(rest)?;
        Some((
            self.offset.checked_add(delta)?,
            extra.min(number::SCALE_MAX) as u32,
            rest,
        ))
    }
}

/// Appends scales and trailer to a key that is already in `out`.
pub(super) fn write_tail(out: &mut Vec<u8>, entries: impl Iterator<Item = (usize, u32)>) {
    let start = out.len();
    let mut last = 0;
    for (at, extra) in entries {
        write_leb(out, at - last);
        write_leb(out, extra as usize);
        last = at;
    }
    let length = out.len() - start;
    if length < 0xFF {
        out.push(length as u8);
    } else {
        // A key of 4 GB does not get here: the Arrow column that holds it is smaller.
        out.extend_from_slice(&(length as u32).to_le_bytes());
        out.push(0xFF);
    }
}

fn write_leb(out: &mut Vec<u8>, mut n: usize) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn read_leb(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut n = 0u64;
    for (i, &b) in bytes.iter().enumerate().take(9) {
        n |= u64::from(b & 0x7F) << (7 * i);
        if b < 0x80 {
            return Some((n as usize, &bytes[i + 1..]));
        }
    }
    None
}
