//! Floating-point numbers as PostgreSQL prints them: the shortest digits that read back and are
//! nearer to the number than to its neighbours, and of two that are as near the even one. Plain
//! while the exponent is in -4..15 (`real`: -4..6), with an exponent of two digits and more
//! elsewhere.

use std::fmt::{Result, Write};

/// Exponents from which on there is one in the text.
const DOUBLE_DIGITS: i32 = 15;
const REAL_DIGITS: i32 = 6;

/// Writes a `double precision`.
pub fn write_double(value: f64, out: &mut impl Write) -> Result {
    match special(value) {
        Some(name) => out.write_str(name),
        None => {
            let mut buffer = ryu::Buffer::new();
            let shortest = buffer.format_finite(value);
            let beside = [value.next_down(), value.next_up()];
            match inside(shortest, value.abs(), beside.map(f64::abs)) {
                Some(longer) => write_digits(&longer, DOUBLE_DIGITS, out),
                None => write_digits(shortest, DOUBLE_DIGITS, out),
            }
        }
    }
}

/// Writes a `real`.
pub fn write_real(value: f32, out: &mut impl Write) -> Result {
    match special(f64::from(value)) {
        Some(name) => out.write_str(name),
        None => {
            let mut buffer = ryu::Buffer::new();
            let shortest = buffer.format_finite(value);
            let beside = [value.next_down(), value.next_up()].map(|v| f64::from(v.abs()));
            match inside(shortest, f64::from(value.abs()), beside) {
                Some(longer) => write_digits(&longer, REAL_DIGITS, out),
                None => write_digits(shortest, REAL_DIGITS, out),
            }
        }
    }
}

/// Where the shortest digits lie half way to a neighbour, which they can in large whole numbers
/// alone: the number with the digits that it takes to be nearer.
fn inside(shortest: &str, value: f64, beside: [f64; 2]) -> Option<String> {
    // Below, neighbours are less than 4 apart; above, no half has so few digits.
    const FIRST: f64 = 16_777_216.0;
    const LAST: f64 = 1e41;
    if !(FIRST..LAST).contains(&value) || beside.iter().any(|v| (v - value).abs() < 2.0) {
        return None;
    }
    let exact = |v: f64| (v / unit(value)) as u128;
    let is_nearer = |text: &str| {
        let digits = whole(text, value)?;
        let off = digits.abs_diff(exact(value));
        // The neighbour on the side where the digits are.
        let beyond = |v: &&f64| (digits > exact(value)) == (**v > value);
        let apart = exact(*beside.iter().find(beyond)?).abs_diff(exact(value));
        Some(2 * off < apart)
    };
    if is_nearer(shortest)? {
        return None;
    }
    let sign = if shortest.starts_with('-') { "-" } else { "" };
    let mut texts = (1..17).map(|digits| format!("{sign}{value:.digits$e}"));
    texts.find(|text| is_nearer(text) == Some(true))
}

/// The bits at the end of large numbers, which are none of their digits'.
const SPARE_BITS: u32 = 20;

/// What numbers of a size are counted in, so that they fit 128 bits.
fn unit(value: f64) -> f64 {
    if value < 1e37 {
        1.0
    } else {
        f64::from(1 << SPARE_BITS)
    }
}

/// The whole number that a text with a point and an exponent stands for, without its sign, in the
/// unit of a value.
fn whole(text: &str, value: f64) -> Option<u128> {
    let text = text.trim_start_matches('-');
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let exponent = exponent.parse::<i32>().ok()? - fraction.len() as i32;
    let exponent = u32::try_from(exponent).ok()?;
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let spare = if unit(value) > 1.0 { SPARE_BITS } else { 0 };
    let power = 5u128.checked_pow(exponent)?;
    let twos = 2u128.checked_pow(exponent.checked_sub(spare)?)?;
    digits.checked_mul(power)?.checked_mul(twos)
}

fn special(value: f64) -> Option<&'static str> {
    match value {
        v if v.is_nan() => Some("NaN"),
        f64::INFINITY => Some("Infinity"),
        f64::NEG_INFINITY => Some("-Infinity"),
        _ => None,
    }
}

/// From `-12.5`, `100000.0`, `1.5e-7` and `0.00001`.
fn write_digits(printed: &str, digits: i32, out: &mut impl Write) -> Result {
    let printed = match printed.strip_prefix('-') {
        Some(rest) => {
            out.write_char('-')?;
            rest
        }
        None => printed,
    };
    let (mantissa, exponent) = printed.split_once('e').unwrap_or((printed, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let exponent: i32 = exponent.parse().map_err(|_| std::fmt::Error)?;
    if whole == "0" && fraction.is_empty() {
        return out.write_char('0');
    }
    // All digits, without zeros before and after them, and the exponent of the first.
    let mut all = [0u8; 40];
    let mut length = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        all[length] = digit;
        length += 1;
    }
    let leading = all[..length].iter().take_while(|d| **d == b'0').count();
    let exponent = exponent + whole.len() as i32 - 1 - leading as i32;
    let all = std::str::from_utf8(&all[leading..length]).map_err(|_| std::fmt::Error)?;
    let all = all.trim_end_matches('0');
    if !(-4..digits).contains(&exponent) {
        let (first, rest) = all.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let sign = if exponent < 0 { '-' } else { '+' };
        return write!(out, "{first}{point}{rest}e{sign}{:02}", exponent.abs());
    }
    if exponent < 0 {
        let zeros = "0000";
        return write!(out, "0.{}{all}", &zeros[..(-exponent - 1) as usize]);
    }
    let whole = exponent as usize + 1;
    if all.len() <= whole {
        write!(out, "{all:0<whole$}")
    } else {
        write!(out, "{}.{}", &all[..whole], &all[whole..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_print_as_postgresql_does() {
        for (value, text) in [
            (1.0, "1"),
            (0.1, "0.1"),
            (-0.0, "-0"),
            (1e15, "1e+15"),
            (1e14, "100000000000000"),
            (123456789012345678.0, "1.2345678901234568e+17"),
            (999_999_999_876_543.25, "999999999876543.2"),
            (999_999_999_876_543.75, "999999999876543.8"),
            (1e-4, "0.0001"),
            (0.00012345, "0.00012345"),
            (1e-5, "1e-05"),
            (-2.5, "-2.5"),
            (1200.0, "1200"),
            (5e-324, "5e-324"),
            (36_028_797_002_186_752.0, "3.6028797002186752e+16"),
            (-36_028_797_002_186_752.0, "-3.6028797002186752e+16"),
            (9_007_199_254_740_992.0, "9.007199254740992e+15"),
            (1e23, "9.999999999999999e+22"),
            (36_028_797_018_963_968.0, "3.602879701896397e+16"),
            (1.125899906842624e38, "1.1258999068426239e+38"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::NEG_INFINITY, "-Infinity"),
            (f64::NAN, "NaN"),
        ] {
            let mut printed = String::new();
            write_double(value, &mut printed).unwrap();
            assert_eq!(printed, text);
        }
    }

    #[test]
    fn reals_have_exponents_earlier() {
        for (value, text) in [
            (0.1, "0.1"),
            (1e6, "1e+06"),
            (100_000.0, "100000"),
            (1e-7, "1e-07"),
            (f32::MIN_POSITIVE, "1.1754944e-38"),
            (16_777_216.0, "1.6777216e+07"),
            (8_589_934_592.0, "8.589935e+09"),
        ] {
            let mut printed = String::new();
            write_real(value, &mut printed).unwrap();
            assert_eq!(printed, text);
        }
    }
}
