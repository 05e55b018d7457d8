//! Intervals of ISO 8601: with designators (`P1Y2M3DT4H5M6S`) and the alternative format
//! (`P0001-02-03T04:05:06`, `P00010203T040506`).

use super::DAY;
use super::failure::Failure;
use super::interval_text::Sum;
use super::word::Unit;

/// Reads an interval that begins with `P`.
pub(super) fn read(text: &str) -> Result<Sum, Failure> {
    let bytes = text.as_bytes();
    if bytes.len() < 2 || bytes[0] != b'P' {
        return Err(Failure::Format);
    }
    let mut reader = Reader {
        rest: &bytes[1..],
        sum: Sum::default(),
    };
    let (mut is_date, mut has_field) = (true, false);
    while let Some(first) = reader.rest.first() {
        if *first == b'T' {
            reader.rest = &reader.rest[1..];
            (is_date, has_field) = (false, false);
            continue;
        }
        let step = if is_date {
            reader.date_part(has_field)?
        } else {
            reader.time_part(has_field)?
        };
        match step {
            Step::Field => has_field = true,
            Step::Time => (is_date, has_field) = (false, false),
            Step::End => break,
        }
    }
    Ok(reader.sum)
}

enum Step {
    /// A number with a designator was read.
    Field,
    /// The date is complete, the time follows.
    Time,
    End,
}

struct Reader<'a> {
    rest: &'a [u8],
    sum: Sum,
}

impl Reader<'_> {
    fn add(&mut self, unit: Unit, value: i64, part: f64) -> Result<(), Failure> {
        self.sum.add(unit, value, part).ok_or(Failure::Field)
    }

    fn next(&mut self) -> u8 {
        let Some((byte, rest)) = self.rest.split_first() else {
            return 0;
        };
        self.rest = rest;
        *byte
    }

    /// A number as C's `strtod` reads it: whole part, fraction, and its digits before the point.
    fn number(&mut self) -> Result<(i64, f64, usize), Failure> {
        let text = self.rest;
        if !text
            .first()
            .is_some_and(|b| b.is_ascii_digit() || matches!(b, b'-' | b'.'))
        {
            return Err(Failure::Format);
        }
        let count = |from: usize| {
            text[from.min(text.len())..]
                .iter()
                .take_while(|b| b.is_ascii_digit())
                .count()
        };
        let start = usize::from(text[0] == b'-');
        let width = count(start);
        let mut end = start + width;
        let mut digits = width;
        if text.get(end) == Some(&b'.') {
            let more = count(end + 1);
            digits += more;
            if digits > 0 {
                end += 1 + more;
            }
        }
        if digits == 0 {
            return Err(Failure::Format);
        }
        if matches!(text.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(text.get(end + 1), Some(b'+' | b'-')));
            let more = count(end + 1 + sign);
            if more > 0 {
                end += 1 + sign + more;
            }
        }
        let value: f64 = std::str::from_utf8(&text[..end])
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or(Failure::Format)?;
        if !(-1e15..=1e15).contains(&value) {
            return Err(Failure::Field);
        }
        self.rest = &text[end..];
        Ok((value.trunc() as i64, value - value.trunc(), width))
    }

    fn date_part(&mut self, has_field: bool) -> Result<Step, Failure> {
        let (value, part, width) = self.number()?;
        let designator = self.next();
        let unit = match designator {
            b'Y' => Unit::Year,
            b'M' => Unit::Month,
            b'W' => Unit::Week,
            b'D' => Unit::Day,
            0 | b'T' if width == 8 && !has_field => {
                self.add(Unit::Year, value / 10_000, 0.0)?;
                self.add(Unit::Month, value / 100 % 100, 0.0)?;
                self.add(Unit::Day, value % 100, 0.0)?;
                self.sum.add_fraction(part, DAY).ok_or(Failure::Field)?;
                return Ok(if designator == 0 {
                    Step::End
                } else {
                    Step::Time
                });
            }
            0 | b'T' | b'-' => {
                if has_field {
                    return Err(Failure::Format);
                }
                return self.extended_date(value, part, designator);
            }
            _ => return Err(Failure::Format),
        };
        self.add(unit, value, part)?;
        Ok(Step::Field)
    }

    /// `Y-M-D`, of which the year has been read.
    fn extended_date(&mut self, value: i64, part: f64, after: u8) -> Result<Step, Failure> {
        self.add(Unit::Year, value, part)?;
        let mut after = after;
        for unit in [Unit::Month, Unit::Day] {
            match after {
                0 => return Ok(Step::End),
                b'T' => return Ok(Step::Time),
                b'-' => {}
                _ => return Err(Failure::Format),
            }
            let (value, part, _) = self.number()?;
            self.add(unit, value, part)?;
            after = self.next();
        }
        match after {
            0 => Ok(Step::End),
            b'T' => Ok(Step::Time),
            _ => Err(Failure::Format),
        }
    }

    fn time_part(&mut self, has_field: bool) -> Result<Step, Failure> {
        let (value, part, width) = self.number()?;
        let designator = self.next();
        let unit = match designator {
            b'H' => Unit::Hour,
            b'M' => Unit::Minute,
            b'S' => Unit::Second,
            0 if width == 6 && !has_field => {
                self.add(Unit::Hour, value / 10_000, 0.0)?;
                self.add(Unit::Minute, value / 100 % 100, 0.0)?;
                self.add(Unit::Second, value % 100, 0.0)?;
                self.sum.add_fraction(part, 1).ok_or(Failure::Field)?;
                return Ok(Step::End);
            }
            0 | b':' => {
                if has_field {
                    return Err(Failure::Format);
                }
                return self.extended_time(value, part, designator);
            }
            _ => return Err(Failure::Format),
        };
        self.add(unit, value, part)?;
        Ok(Step::Field)
    }

    /// `H:M:S`, of which the hour has been read.
    fn extended_time(&mut self, value: i64, part: f64, after: u8) -> Result<Step, Failure> {
        self.add(Unit::Hour, value, part)?;
        let mut after = after;
        for unit in [Unit::Minute, Unit::Second] {
            match after {
                0 => return Ok(Step::End),
                b':' => {}
                _ => return Err(Failure::Format),
            }
            let (value, part, _) = self.number()?;
            self.add(unit, value, part)?;
            after = self.next();
        }
        if after == 0 {
            Ok(Step::End)
        } else {
            Err(Failure::Format)
        }
    }
}
