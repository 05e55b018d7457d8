//! Cuts the text of a date, a time or an interval into fields, by PostgreSQL's rules: digits with
//! their separators, words, signed numbers; other punctuation only separates.

use super::failure::Failure;
use super::word::word;

/// The most fields of a text.
pub(super) const FIELDS_MAX: usize = 25;
/// Bytes for fields of dates and times; each takes one more than its length.
pub(super) const SHORT: usize = 129;
/// Bytes for fields of timestamps.
pub(super) const LONG: usize = 153;
/// Bytes for fields of intervals.
pub(super) const INTERVAL: usize = 256;

/// What a field looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Number,
    Word,
    Date,
    Time,
    Zone,
    Special,
}

/// The fields of a text in lower case.
pub(super) struct Tokens {
    bytes: [u8; INTERVAL],
    used: usize,
    limit: usize,
    fields: [(u16, u16, Shape); FIELDS_MAX],
    /// How many fields there are.
    pub(super) count: usize,
}

/// The place in the text while it is cut.
struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    /// The next byte; 0 at the end.
    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

impl Tokens {
    /// Cuts `text`; the fields may take `limit` bytes.
    pub(super) fn cut(text: &str, limit: usize) -> Result<Tokens, Failure> {
        let mut tokens = Tokens {
            bytes: [0; INTERVAL],
            used: 0,
            limit,
            fields: [(0, 0, Shape::Word); FIELDS_MAX],
            count: 0,
        };
        let mut cursor = Cursor {
            text: text.as_bytes(),
            at: 0,
        };
        loop {
            let byte = cursor.peek();
            if cursor.at >= cursor.text.len() {
                return Ok(tokens);
            }
            if is_space(byte) {
                cursor.at += 1;
                continue;
            }
            let start = tokens.used;
            let shape = match byte {
                b'0'..=b'9' => tokens.digits(&mut cursor)?,
                b'.' => {
                    tokens.push(&mut cursor)?;
                    tokens.push_while(&mut cursor, |b| b.is_ascii_digit())?;
                    Shape::Number
                }
                b'a'..=b'z' | b'A'..=b'Z' => tokens.letters(&mut cursor, start)?,
                b'+' | b'-' => tokens.signed(&mut cursor)?,
                _ if byte.is_ascii_punctuation() => {
                    cursor.at += 1;
                    continue;
                }
                _ => return Err(Failure::Format),
            };
            if tokens.count == FIELDS_MAX {
                return Err(Failure::Format);
            }
            let length = tokens.used - start;
            tokens.fields[tokens.count] = (start as u16, length as u16, shape);
            tokens.count += 1;
            tokens.room()?;
            tokens.used += 1;
        }
    }

    /// The bytes of a field.
    pub(super) fn field(&self, index: usize) -> &[u8] {
        let (start, length, _) = self.fields[index];
        &self.bytes[usize::from(start)..usize::from(start + length)]
    }

    /// What a field looks like.
    pub(super) fn shape(&self, index: usize) -> Shape {
        self.fields[index].2
    }

    fn room(&self) -> Result<(), Failure> {
        if self.used + 1 < self.limit {
            Ok(())
        } else {
            Err(Failure::Format)
        }
    }

    fn push(&mut self, cursor: &mut Cursor) -> Result<(), Failure> {
        self.room()?;
        self.bytes[self.used] = cursor.peek().to_ascii_lowercase();
        self.used += 1;
        cursor.at += 1;
        Ok(())
    }

    fn push_while(&mut self, c: &mut Cursor, more: impl Fn(u8) -> bool) -> Result<(), Failure> {
        while more(c.peek()) {
            self.push(c)?;
        }
        Ok(())
    }

    /// A field that begins with a digit: a number, a time, or a date with its delimiters.
    fn digits(&mut self, cursor: &mut Cursor) -> Result<Shape, Failure> {
        self.push_while(cursor, |b| b.is_ascii_digit())?;
        let delimiter = cursor.peek();
        match delimiter {
            b':' => {
                self.push_while(cursor, |b| b.is_ascii_digit() || b == b':' || b == b'.')?;
                return Ok(Shape::Time);
            }
            b'-' | b'/' | b'.' => {}
            _ => return Ok(Shape::Number),
        }
        self.push(cursor)?;
        if !cursor.peek().is_ascii_digit() {
            self.push_while(cursor, |b| b.is_ascii_alphanumeric() || b == delimiter)?;
            return Ok(Shape::Date);
        }
        self.push_while(cursor, |b| b.is_ascii_digit())?;
        // Three fields need the same delimiter twice.
        if cursor.peek() == delimiter {
            self.push_while(cursor, |b| b.is_ascii_digit() || b == delimiter)?;
            return Ok(Shape::Date);
        }
        Ok(if delimiter == b'.' {
            Shape::Number
        } else {
            Shape::Date
        })
    }

    /// A word; or a date that begins with a month's name, or the name of a zone.
    fn letters(&mut self, cursor: &mut Cursor, start: usize) -> Result<Shape, Failure> {
        self.push_while(cursor, |b| b.is_ascii_alphabetic())?;
        let joined = match cursor.peek() {
            b'-' | b'/' | b'.' => true,
            b'+' | b'0'..=b'9' => word(&self.bytes[start..self.used]).is_none(),
            _ => false,
        };
        if !joined {
            return Ok(Shape::Word);
        }
        self.push_while(cursor, |b| {
            b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'/' | b'_' | b'.' | b':')
        })?;
        Ok(Shape::Date)
    }

    /// A sign with a number (a zone or a part of an interval) or with a word.
    fn signed(&mut self, cursor: &mut Cursor) -> Result<Shape, Failure> {
        self.push(cursor)?;
        while is_space(cursor.peek()) {
            cursor.at += 1;
        }
        let byte = cursor.peek();
        if byte.is_ascii_digit() {
            self.push_while(cursor, |b| {
                b.is_ascii_digit() || matches!(b, b':' | b'.' | b'-')
            })?;
            Ok(Shape::Zone)
        } else if byte.is_ascii_alphabetic() {
            self.push_while(cursor, |b| b.is_ascii_alphabetic())?;
            Ok(Shape::Special)
        } else {
            Err(Failure::Format)
        }
    }
}
