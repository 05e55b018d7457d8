//! PostgreSQL's binary format of a numeric (`numeric_send`, `numeric_recv`).
//!
//! All in network order: the number of base-10000 digits, the weight (the power of 10000 of the
//! first digit, signed), the sign, the display scale, each in two bytes; then the digits, two bytes
//! each, without zeros at either end. The sign is 0x0000 positive, 0x4000 negative, 0xC000 `NaN`,
//! 0xD000 `Infinity`, 0xF000 `-Infinity`.

use num_bigint::{BigInt, BigUint};
use tidemark_common::{Error, Result};

use super::int::Int;
use super::{INVALID_BINARY, Numeric, PROTOCOL_VIOLATION, SCALE_MAX, overflow};

const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEG_INFINITY: u16 = 0xF000;
/// What PostgreSQL sends as the scale of an infinity.
const INFINITY_SCALE: u16 = 32;

impl Numeric {
    /// Appends the binary format.
    pub fn write_wire(&self, out: &mut Vec<u8>) {
        let mut put = |v: u16| out.extend_from_slice(&v.to_be_bytes());
        let Some((v, scale)) = self.parts() else {
            let (sign, scale) = match self.signum() {
                0 => (NAN, 0),
                1 => (INFINITY, INFINITY_SCALE),
                _ => (NEG_INFINITY, INFINITY_SCALE),
            };
            for field in [0, 0, sign, scale] {
                put(field);
            }
            return;
        };
        let (mut digits, weight) = digits_of(&v, scale);
        while digits.last() == Some(&0) {
            digits.pop();
        }
        put(digits.len() as u16);
        put(weight as u16);
        put(if v.sign() < 0 { NEGATIVE } else { POSITIVE });
        put(scale);
        for digit in digits {
            put(digit);
        }
    }

    /// Reads the binary format; digits beyond the scale are cut off, as PostgreSQL does.
    ///
    /// # Errors
    /// `22P03` of an impossible sign, scale or digit or of bytes left over, `08P01` of bytes that
    /// are missing, `22003` beyond the limits.
    pub fn read_wire(bytes: &[u8]) -> Result<Numeric> {
        let mut fields = bytes
            .chunks_exact(2)
            .map(|b| u16::from_be_bytes([b[0], b[1]]));
        let mut next = || {
            let error = || Error::user(PROTOCOL_VIOLATION, "insufficient data left in message");
            fields.next().ok_or_else(error)
        };
        let invalid = |message: &str| Error::user(INVALID_BINARY, message);
        let (count, weight, sign, scale) = (next()?, next()? as i16, next()?, next()?);
        if !matches!(sign, POSITIVE | NEGATIVE | NAN | INFINITY | NEG_INFINITY) {
            return Err(invalid("invalid sign in external \"numeric\" value"));
        }
        if scale > SCALE_MAX {
            return Err(invalid("invalid scale in external \"numeric\" value"));
        }
        let mut digits = Vec::with_capacity(usize::from(count).min(bytes.len()));
        for _ in 0..count {
            let digit = next()?;
            if digit >= 10_000 {
                return Err(invalid("invalid digit in external \"numeric\" value"));
            }
            digits.push(digit);
        }
        if bytes.len() != 8 + 2 * digits.len() {
            return Err(invalid("incorrect binary data format"));
        }
        match sign {
            NAN => Ok(Numeric::NAN),
            INFINITY => Ok(Numeric::INFINITY),
            NEG_INFINITY => Ok(Numeric::NEG_INFINITY),
            _ => from_digits(&digits, weight, sign == NEGATIVE, scale),
        }
    }
}

/// The base-10000 digits without leading zeros, and the weight of the first.
fn digits_of(v: &Int, scale: u16) -> (Vec<u16>, i16) {
    // Zeros after the last digit bring the point between two digits.
    let padding = (4 - scale % 4) % 4;
    let groups_after_point = i32::from((scale + padding) / 4);
    let v = v.times_pow10(u32::from(padding));
    let digits: Vec<u16> = match &v {
        Int::Small(v) => {
            let mut digits = Vec::with_capacity(10);
            let mut rest = v.unsigned_abs();
            while rest > u128::from(u64::MAX) {
                digits.push((rest % 10_000) as u16);
                rest /= 10_000;
            }
            let mut rest = rest as u64;
            while rest > 0 {
                digits.push((rest % 10_000) as u16);
                rest /= 10_000;
            }
            digits.reverse();
            digits
        }
        Int::Big(v) => {
            let pairs = v.magnitude().to_radix_be(100);
            let odd = pairs.len() % 2;
            let join = |p: &[u8]| p.iter().fold(0, |n, d| n * 100 + u16::from(*d));
            pairs[..odd]
                .chunks(2)
                .chain(pairs[odd..].chunks(2))
                .map(join)
                .collect()
        }
    };
    if digits.is_empty() {
        return (digits, 0);
    }
    let weight = digits.len() as i32 - 1 - groups_after_point;
    (digits, weight as i16)
}

fn from_digits(digits: &[u16], weight: i16, negative: bool, scale: u16) -> Result<Numeric> {
    let unscaled = if digits.len() <= 9 {
        let value = digits
            .iter()
            .fold(0i128, |n, d| n * 10_000 + i128::from(*d));
        Int::Small(value)
    } else {
        let pairs: Vec<u8> = digits
            .iter()
            .flat_map(|d| [(d / 100) as u8, (d % 100) as u8])
            .collect();
        let value = BigUint::from_radix_be(&pairs, 100).unwrap_or_default();
        Int::from(BigInt::from(value))
    };
    let unscaled = if negative { unscaled.neg() } else { unscaled };
    // The last digit stands for 10^-own.
    let own = 4 * (digits.len() as i32 - 1 - i32::from(weight));
    let shift = i32::from(scale) - own;
    let unscaled = if shift >= 0 {
        if i64::from(unscaled.digits()) - i64::from(own) > i64::from(super::DIGITS_MAX) {
            return Err(overflow());
        }
        unscaled.times_pow10(shift.unsigned_abs())
    } else {
        unscaled.div_rem_pow10(shift.unsigned_abs()).0
    };
    Numeric::checked(unscaled, scale)
}
