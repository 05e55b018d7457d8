//! Numbers to texts.

use super::Number;
use super::pattern::{Anchor, Node, Pattern, Shape};
use crate::numeric::Numeric;
use tidemark_common::{Error, Result, SqlState};

/// Digits that floats have for certain.
const DOUBLE_DIGITS: usize = 15;
const REAL_DIGITS: usize = 6;

/// Ends the text: a position behind the number's digits has none, and `SG` has no sign of a Roman
/// number.
const END: char = '\0';

/// A number as digits, ready to be put into a pattern.
struct Digits {
    /// Without its sign; may hold a point.
    text: String,
    negative: bool,
}

fn out_of_range(name: &str) -> Error {
    Error::user(
        SqlState::NUMERIC_OUT_OF_RANGE,
        format!("{name} out of range"),
    )
}

impl Pattern {
    /// Appends the text of a number.
    ///
    /// Errors: `22003` for one that is too large for what the pattern asks.
    pub fn to_char(&self, number: &Number<'_>, out: &mut String) -> Result<()> {
        let before = out.len();
        self.write(number, out)?;
        if let Some(end) = out[before..].find(END) {
            out.truncate(before + end);
        }
        Ok(())
    }

    fn write(&self, number: &Number<'_>, out: &mut String) -> Result<()> {
        let mut shape = self.shape.clone();
        if shape.roman {
            let roman = roman(whole(number)?);
            return Writer::new(&mut shape, &roman, END, 0, out).write(&self.nodes);
        }
        if shape.scientific {
            return scientific(number, &shape, out);
        }
        let digits = digits(number, &mut shape)?;
        let length = digits.text.find('.').unwrap_or(digits.text.len());
        let sign = if digits.negative { '-' } else { '+' };
        let blanks = shape.before.saturating_sub(length);
        let text = if length > shape.before {
            let point = format!("{}.{}", "#".repeat(shape.before), "#".repeat(shape.after));
            point
        } else {
            digits.text
        };
        Writer::new(&mut shape, &text, sign, blanks, out).write(&self.nodes)
    }
}

/// The number as an `integer`, for `RN`.
fn whole(number: &Number<'_>) -> Result<i32> {
    Ok(match number {
        Number::Int4(v) => *v,
        Number::Int8(v) => i32::try_from(*v).map_err(|_| out_of_range("integer"))?,
        // What C makes of a float that is no integer of this size is no Roman number either.
        Number::Float4(v) => v.round_ties_even() as i32,
        Number::Float8(v) => v.round_ties_even() as i32,
        Number::Numeric(v) => v.round(0)?.to_i32()?,
    })
}

/// 15 `#` for what the Romans could not write.
fn roman(number: i32) -> String {
    if !(1..=3999).contains(&number) {
        return "#".repeat(15);
    }
    const VALUES: [(i32, &str); 13] = [
        (1000, "M"),
        (900, "CM"),
        (500, "D"),
        (400, "CD"),
        (100, "C"),
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
        (10, "X"),
        (9, "IX"),
        (5, "V"),
        (4, "IV"),
        (1, "I"),
    ];
    let (mut rest, mut text) = (number, String::new());
    for (value, letters) in VALUES {
        while rest >= value {
            text.push_str(letters);
            rest -= value;
        }
    }
    text
}

/// `EEEE`: one digit before the point.
fn scientific(number: &Number<'_>, shape: &Shape, out: &mut String) -> Result<()> {
    let text = match number {
        Number::Int4(v) => of_float((*v).into(), shape.after),
        Number::Float4(v) => of_float((*v).into(), shape.after),
        Number::Float8(v) => of_float(*v, shape.after),
        Number::Int8(v) => of_numeric(&Numeric::from(*v), shape.after)?,
        Number::Numeric(v) => of_numeric(v, shape.after)?,
    };
    match text {
        Some(text) => {
            if !text.starts_with('-') {
                out.push(' ');
            }
            out.push_str(&text);
        }
        None => {
            // Room for a sign, the point and the exponent.
            let length = shape.before + shape.after + 6;
            let cell = |i: usize| match i {
                i if i == shape.before + 1 => '.',
                0 => ' ',
                _ => '#',
            };
            out.extend((0..length).map(cell));
        }
    }
    Ok(())
}

fn of_float(value: f64, after: usize) -> Option<String> {
    if !value.is_finite() {
        return None;
    }
    let text = format!("{value:.after$e}");
    let (digits, exponent) = text.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    Some(format!("{digits}e{exponent:+03}"))
}

fn of_numeric(value: &Numeric, after: usize) -> Result<Option<String>> {
    let text = value.to_string();
    if text.ends_with(|c: char| !c.is_ascii_digit()) {
        return Ok(None);
    }
    let plain = text.trim_start_matches('-');
    let point = plain.find('.').unwrap_or(plain.len()) as i32;
    let first = plain.find(|c: char| ('1'..='9').contains(&c));
    let exponent = match first {
        None => 0,
        Some(at) if (at as i32) < point => point - 1 - at as i32,
        Some(at) => point - at as i32,
    };
    // Digits are rounded after the exponent is told: 9.99 is 10 of it, not 1.
    let normal = Numeric::parse(&format!("{text}e{}", -exponent))?;
    let rounded = normal.round(after.min(1000) as i32)?;
    Ok(Some(format!("{rounded}e{exponent:+03}")))
}

/// The digits of a number with as many places as the pattern has.
fn digits(number: &Number<'_>, shape: &mut Shape) -> Result<Digits> {
    let shift = shape.shift;
    if shape.shifts {
        shape.before += shift;
    }
    let power = 10f64.powi(shift.min(1000) as i32);
    match number {
        Number::Int4(v) => {
            let factor = if power < 2_147_483_648.0 {
                power as i32
            } else {
                i32::MIN
            };
            let shifted = if shape.shifts {
                v.wrapping_mul(factor)
            } else {
                *v
            };
            Ok(of_integer(shifted.into(), shape.after))
        }
        Number::Int8(v) => {
            let mut shifted = *v;
            if shape.shifts {
                let factor = 10i64.checked_pow(shift as u32);
                let factor = factor.ok_or_else(|| out_of_range("bigint"))?;
                shifted = v
                    .checked_mul(factor)
                    .ok_or_else(|| out_of_range("bigint"))?;
            }
            Ok(of_integer(shifted, shape.after))
        }
        Number::Float4(v) => {
            let shifted = if shape.shifts { v * power as f32 } else { *v };
            Ok(of_places(shifted.into(), REAL_DIGITS, shape))
        }
        Number::Float8(v) => {
            let shifted = if shape.shifts { v * power } else { *v };
            Ok(of_places(shifted, DOUBLE_DIGITS, shape))
        }
        Number::Numeric(v) => {
            let shifted;
            let value = if shape.shifts {
                let power = Numeric::parse(&format!("1e{shift}"))?;
                shifted = v.mul(&power)?;
                &shifted
            } else {
                v
            };
            Ok(signed(value.round(shape.after as i32)?.to_string()))
        }
    }
}

fn signed(text: String) -> Digits {
    match text.strip_prefix('-') {
        Some(digits) => Digits {
            text: digits.to_string(),
            negative: true,
        },
        None => Digits {
            text,
            negative: false,
        },
    }
}

fn of_integer(value: i64, after: usize) -> Digits {
    let mut digits = signed(value.to_string());
    if after > 0 {
        digits.text.push('.');
        digits.text.extend(std::iter::repeat_n('0', after));
    }
    digits
}

/// A float with no more digits than are certain.
fn of_places(value: f64, certain: usize, shape: &mut Shape) -> Digits {
    if value.is_nan() || value.is_infinite() {
        let name = if value.is_nan() { "NaN" } else { "Infinity" };
        if name.len() + shape.after > certain {
            shape.after = certain.saturating_sub(name.len());
        }
        return Digits {
            text: name.into(),
            negative: value < 0.0,
        };
    }
    let length = format!("{:.0}", value.abs()).len();
    if length >= certain {
        shape.after = 0;
    } else if length + shape.after > certain {
        shape.after = certain - length;
    }
    signed(format!("{value:.*}", shape.after))
}

/// Puts a number into a pattern.
struct Writer<'a> {
    shape: &'a Shape,
    number: &'a [u8],
    sign: char,
    /// Blanks or zeros before the number's first digit.
    blanks: usize,
    sign_written: bool,
    /// Positions of digits, and that of the last one.
    count: usize,
    position: usize,
    /// The digit that is next.
    next: usize,
    /// The last digit that `FM` keeps.
    last: Option<usize>,
    /// Whether a digit was written last: then a comma is.
    in_number: bool,
    out: &'a mut String,
}

impl<'a> Writer<'a> {
    fn new(
        shape: &'a mut Shape,
        number: &'a str,
        sign: char,
        blanks: usize,
        out: &'a mut String,
    ) -> Writer<'a> {
        shape.zero_start = shape.zero_start.saturating_sub(1);
        let own_signs = shape.plus || shape.minus;
        let mut sign_written = own_signs && !(shape.plus && !shape.minus);
        if !own_signs {
            if sign != '-' && shape.fill {
                shape.bracket = false;
            }
            sign_written = sign == '+' && shape.fill && !shape.locale_sign;
            if shape.anchor == Anchor::Before && shape.before == shape.before_sign {
                shape.anchor = Anchor::After;
            }
        }
        let mut count = shape.after + shape.before;
        let number = number.as_bytes();
        let mut last = None;
        if shape.fill && shape.decimal && !shape.roman {
            last = last_relevant(number);
            if let Some(at) = last
                && shape.zero_end > blanks
            {
                last = Some(at.max((shape.zero_end - blanks).min(number.len() - 1)));
            }
        }
        if !sign_written && blanks == 0 {
            count += 1;
        }
        Writer {
            shape,
            number,
            sign,
            blanks,
            sign_written,
            count,
            position: 0,
            next: 0,
            last,
            in_number: false,
            out,
        }
    }

    fn write(mut self, nodes: &[Node]) -> Result<()> {
        for node in nodes {
            match node {
                Node::Nine | Node::Zero | Node::Point => {
                    if !self.shape.roman {
                        self.digit(*node == Node::Zero);
                    }
                }
                Node::Comma | Node::Thousands => match (self.in_number, self.shape.fill) {
                    (true, _) => self.out.push(','),
                    (false, true) => {}
                    (false, false) => self.out.push(' '),
                },
                Node::Currency => self.out.push(' '),
                Node::Roman(capitals) => self.roman(*capitals),
                Node::Ordinal(capitals) => self.ordinal(*capitals)?,
                Node::Minus => self.own_sign('-'),
                Node::Plus => self.own_sign('+'),
                Node::Sign => self.out.push(self.sign),
                Node::Silent => {}
                Node::Text(c) => self.out.push(*c),
            }
        }
        Ok(())
    }

    fn own_sign(&mut self, wanted: char) {
        if self.sign == wanted {
            self.out.push(wanted);
        } else if !self.shape.fill {
            self.out.push(' ');
        }
    }

    fn roman(&mut self, capitals: bool) {
        let text: String = self.number.iter().map(|b| char::from(*b)).collect();
        let text = if capitals { text } else { text.to_lowercase() };
        if self.shape.fill {
            self.out.push_str(&text);
        } else {
            self.out.push_str(&format!("{text:>15}"));
        }
    }

    fn ordinal(&mut self, capitals: bool) -> Result<()> {
        let overflows = self.number.first() == Some(&b'#');
        if self.shape.roman || overflows || self.sign == '-' || self.shape.decimal {
            return Ok(());
        }
        let last = self.number.last().copied().unwrap_or(b' ');
        if !last.is_ascii_digit() {
            let text = String::from_utf8_lossy(self.number);
            return Err(Error::user(
                SqlState::INVALID_TEXT,
                format!("\"{text}\" is not a number"),
            ));
        }
        let teen = self.number.len() > 1 && self.number[self.number.len() - 2] == b'1';
        let ending = match last {
            _ if teen => "th",
            b'1' => "st",
            b'2' => "nd",
            b'3' => "rd",
            _ => "th",
        };
        if capitals {
            self.out.push_str(&ending.to_ascii_uppercase());
        } else {
            self.out.push_str(ending);
        }
        Ok(())
    }

    /// Whether the digit that is next is a zero before the point that is not written.
    fn is_lone_zero(&self) -> bool {
        let zero = self.next == 0 && self.number.first() == Some(&b'0');
        !self.shape.zero && zero && self.shape.after != 0
    }

    /// Whether the last digit that is kept is the point.
    fn ends_with_point(&self) -> bool {
        self.last
            .is_some_and(|at| self.number.get(at) == Some(&b'.'))
    }

    /// The sign, where the number begins.
    fn leading_sign(&mut self) {
        let shape = self.shape;
        let begins =
            self.position >= self.blanks || (shape.zero && shape.zero_start == self.position);
        if self.sign_written || !begins || (self.is_lone_zero() && !self.ends_with_point()) {
            return;
        }
        if shape.locale_sign {
            if shape.anchor != Anchor::Before {
                return;
            }
            self.out.push(self.sign);
        } else if shape.bracket {
            self.out.push(if self.sign == '+' { ' ' } else { '<' });
        } else if self.sign == '+' {
            if !shape.fill {
                self.out.push(' ');
            }
        } else if self.sign == '-' {
            self.out.push('-');
        }
        self.sign_written = true;
    }

    /// A position of the number: a digit, the point, a zero or a blank.
    fn digit(&mut self, is_zero: bool) {
        let shape = self.shape;
        self.in_number = false;
        self.leading_sign();
        if self.position < self.blanks {
            if shape.zero && shape.zero_start <= self.position {
                self.out.push('0');
                self.in_number = true;
            } else if !shape.fill {
                self.out.push(' ');
            }
        } else {
            self.own_digit(is_zero);
            if self.next < self.number.len() {
                self.next += 1;
            }
        }
        let mut end = self.count + usize::from(shape.decimal);
        // One less than all positions: the count begins before the first.
        end = (end + usize::from(self.blanks > 0)).saturating_sub(1);
        if self.last == Some(self.next) {
            end = self.position;
        }
        if self.position + 1 == end {
            if self.sign_written && shape.bracket {
                self.out.push(if self.sign == '+' { ' ' } else { '>' });
            } else if shape.locale_sign && shape.anchor == Anchor::After {
                self.out.push(self.sign);
            }
        }
        self.position += 1;
    }

    fn own_digit(&mut self, is_zero: bool) {
        let digit = self.number.get(self.next).copied().unwrap_or(END as u8);
        if digit == b'.' {
            if !self.ends_with_point() || self.shape.fill {
                self.out.push('.');
            }
            return;
        }
        if self.last.is_some_and(|last| self.next > last) && !is_zero {
            return;
        }
        if self.is_lone_zero() {
            if !self.shape.fill {
                self.out.push(' ');
            } else if self.ends_with_point() {
                self.out.push('0');
            }
            return;
        }
        self.out.push(char::from(digit));
        self.in_number = true;
    }
}

/// The last digit after the point that is not zero, or the point.
fn last_relevant(number: &[u8]) -> Option<usize> {
    let point = number.iter().position(|b| *b == b'.')?;
    let last = number.iter().rposition(|b| *b != b'0')?;
    Some(last.max(point))
}
