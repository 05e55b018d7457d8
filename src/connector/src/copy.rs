//! COPY's two formats as bytes of a client: lines of fields. Text has a delimiter between columns,
//! backslash escapes, and a text of its own for NULL; CSV has quotes, which are doubled or escaped
//! within quotes.
//!
//! A [`Splitter`] takes the bytes as they come and gives complete lines, many at a time: one pass
//! over the bytes, and one text that all fields lie in, so that neither a line nor a field is
//! allocated. What is behind the last complete line is looked at again when more has come.

use arrow::array::StringArray;
use bytes::{Buf, BytesMut};
use std::iter::Peekable;
use std::str::Bytes;
use tidemark_common::{Error, Result, SqlState};

/// Bytes that are split into lines at a time.
pub const PART_BYTES: usize = 1 << 20;

/// How lines are written.
#[derive(Clone, Debug)]
pub struct LineFormat {
    /// CSV instead of text.
    pub csv: bool,
    /// Between columns; an ASCII byte, as the next two are.
    pub delimiter: u8,
    /// CSV's quote.
    pub quote: u8,
    /// What stands before a quote within quotes.
    pub escape: u8,
    /// What stands for NULL.
    pub null: String,
    /// Columns of CSV, by position, in which NULL may be quoted.
    pub force_null: Vec<bool>,
    /// Columns of CSV in which nothing is NULL.
    pub force_not_null: Vec<bool>,
}

/// Where a field lies in the text of its lines; `None` is NULL.
type Field = Option<(u32, u32)>;

/// Lines of fields.
#[derive(Default)]
pub struct Lines {
    text: String,
    fields: Vec<Field>,
    /// Where each line's fields end.
    ends: Vec<usize>,
}

impl Lines {
    /// How many.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The first line that has another number of fields, and its number.
    pub fn other_than(&self, width: usize) -> Option<(usize, usize)> {
        let begins = std::iter::once(&0).chain(&self.ends);
        let mut widths = self.ends.iter().zip(begins).map(|(end, begin)| end - begin);
        let line = widths.clone().position(|other| other != width)?;
        Some((line, widths.nth(line)?))
    }

    /// The fields of a line.
    pub fn line(&self, line: usize) -> Vec<Option<&str>> {
        let begin = line.checked_sub(1).map_or(0, |before| self.ends[before]);
        let fields = &self.fields[begin..self.ends[line]];
        fields.iter().map(|field| self.field(field)).collect()
    }

    /// The field at a position of every line, which all have it.
    pub fn column(&self, at: usize) -> StringArray {
        let begins = std::iter::once(&0).chain(&self.ends);
        let fields = begins
            .take(self.len())
            .map(|begin| &self.fields[begin + at]);
        fields.map(|field| self.field(field)).collect()
    }

    /// Takes the first line out.
    pub fn drop_first(&mut self) {
        if !self.is_empty() {
            let fields = self.ends.remove(0);
            self.fields.drain(..fields);
            self.ends.iter_mut().for_each(|end| *end -= fields);
        }
    }

    fn field(&self, field: &Field) -> Option<&str> {
        field.map(|(start, end)| &self.text[start as usize..end as usize])
    }

    /// Adds a field that the text has; it is never larger than 32 bits count.
    fn add(&mut self, start: usize, end: usize) {
        self.fields.push(Some((start as u32, end as u32)));
    }

    /// How many fields the line has that is not complete.
    fn open_fields(&self) -> usize {
        self.fields.len() - self.ends.last().unwrap_or(&0)
    }

    fn end_line(&mut self) {
        self.ends.push(self.fields.len());
    }

    /// Takes out what came behind the last complete line.
    fn drop_open(&mut self) {
        self.fields.truncate(*self.ends.last().unwrap_or(&0));
    }
}

/// What a part of the bytes is.
struct Split {
    lines: Lines,
    /// How much of it is complete lines, in bytes.
    complete: usize,
    /// The end was marked.
    ended: bool,
}

/// Splits bytes into lines of fields, part by part.
pub struct Splitter {
    format: LineFormat,
    /// Not split yet.
    data: BytesMut,
    /// How much of it is waited for: at least a part, and more after a part without a line's end.
    wanted: usize,
    /// The end was marked: what follows is not looked at.
    ended: bool,
}

impl Splitter {
    /// Nothing has come yet.
    pub fn new(format: LineFormat) -> Splitter {
        Splitter {
            format,
            data: BytesMut::new(),
            wanted: PART_BYTES,
            ended: false,
        }
    }

    /// Bytes that are held.
    pub fn held_bytes(&self) -> usize {
        self.data.len()
    }

    /// Bytes came, at most 2 GiB with those that are held: the lines that are complete, when there
    /// are enough of them.
    pub fn add(&mut self, bytes: &[u8]) -> Result<Lines> {
        if !self.ended {
            self.data.extend_from_slice(bytes);
        }
        if self.ended || self.data.len() < self.wanted {
            return Ok(Lines::default());
        }
        let lines = self.split(false)?;
        self.wanted = (2 * self.data.len()).max(PART_BYTES);
        Ok(lines)
    }

    /// Nothing more will come: the rest.
    pub fn finish(mut self) -> Result<Lines> {
        match self.ended {
            true => Ok(Lines::default()),
            false => self.split(true),
        }
    }

    fn split(&mut self, is_last: bool) -> Result<Lines> {
        let text = match std::str::from_utf8(&self.data) {
            Ok(text) => text,
            // A character may go on in what comes next.
            Err(e) if e.error_len().is_none() && !is_last => {
                std::str::from_utf8(&self.data[..e.valid_up_to()]).map_err(|_| no_text())?
            }
            Err(_) => return Err(no_text()),
        };
        let split = match self.format.csv {
            true => split_csv(text, &self.format, is_last)?,
            false => split_text(text, &self.format, is_last)?,
        };
        self.data.advance(split.complete);
        if split.ended {
            self.ended = true;
            self.data.clear();
        }
        Ok(split.lines)
    }
}

fn no_text() -> Error {
    Error::user(
        SqlState("22021"),
        "invalid byte sequence for encoding \"UTF8\"",
    )
}

/// The lines of text. It is taken as it is; what its escapes say stands behind it.
fn split_text(text: &str, format: &LineFormat, is_last: bool) -> Result<Split> {
    let bytes = text.as_bytes();
    let mut lines = Lines {
        text: text.into(),
        ..Lines::default()
    };
    let (mut line, mut start, mut at, mut escapes) = (0, 0, 0, false);
    while let Some(byte) = bytes.get(at) {
        match *byte {
            b'\\' => {
                at += 1;
                escapes = true;
            }
            b'\n' => {
                let end = match at > start && bytes[at - 1] == b'\r' {
                    true => at - 1,
                    false => at,
                };
                if &bytes[line..end] == b"\\." {
                    return Ok(lines.until(line, true));
                }
                lines.add_raw(start, end, escapes, format)?;
                lines.end_line();
                (line, start, escapes) = (at + 1, at + 1, false);
            }
            byte if byte == format.delimiter => {
                lines.add_raw(start, at, escapes, format)?;
                (start, escapes) = (at + 1, false);
            }
            _ => {}
        }
        at += 1;
    }
    if !is_last || line == text.len() {
        return Ok(lines.until(line, false));
    }
    if text[line..].trim_end_matches('\r') == "\\." {
        return Ok(lines.until(line, true));
    }
    let end = start + text[start..].trim_end_matches('\r').len();
    lines.add_raw(start, end, escapes, format)?;
    lines.end_line();
    Ok(lines.until(text.len(), false))
}

/// The lines of CSV. Their text has the fields without their quotes.
fn split_csv(text: &str, format: &LineFormat, is_last: bool) -> Result<Split> {
    let [delimiter, quote, escape] = [format.delimiter, format.quote, format.escape];
    let bytes = text.as_bytes();
    let mut lines = Lines::default();
    lines.text.reserve(text.len());
    let (mut line, mut start, mut quoted, mut inside) = (0, 0, false, false);
    // The text before is taken; the bytes that mean something are ASCII.
    let (mut taken, mut at) = (0, 0);
    while let Some(byte) = bytes.get(at).copied() {
        let next = bytes.get(at + 1).copied();
        if inside {
            let is_escape = byte == escape && next.is_some_and(|n| n == escape || n == quote);
            if is_escape || byte == quote {
                lines.text.push_str(&text[taken..at]);
                taken = at + 1;
                inside = is_escape;
                at += usize::from(is_escape);
            }
        } else if byte == quote || byte == delimiter || byte == b'\n' || byte == b'\r' {
            lines.text.push_str(&text[taken..at]);
            taken = at + 1;
            if byte == quote {
                (inside, quoted) = (true, true);
            } else if byte == b'\r' {
                if next.is_some_and(|next| next != b'\n') {
                    return Err(bad_format("unquoted carriage return found in data"));
                }
            } else {
                if byte == b'\n' && lines.is_end(start, quoted) {
                    return Ok(lines.until(line, true));
                }
                lines.add_csv(start, quoted, format);
                (start, quoted) = (lines.text.len(), false);
                if byte == b'\n' {
                    lines.end_line();
                    line = at + 1;
                }
            }
        }
        at += 1;
    }
    if !is_last {
        return Ok(lines.until(line, false));
    }
    lines.text.push_str(&text[taken..]);
    if inside {
        return Err(bad_format("unterminated CSV quoted field"));
    }
    if lines.is_end(start, quoted) {
        return Ok(lines.until(line, true));
    }
    if start < lines.text.len() || quoted || lines.open_fields() > 0 {
        lines.add_csv(start, quoted, format);
        lines.end_line();
    }
    Ok(lines.until(text.len(), false))
}

impl Lines {
    /// The complete ones, which end there.
    fn until(mut self, complete: usize, ended: bool) -> Split {
        self.drop_open();
        Split {
            lines: self,
            complete,
            ended,
        }
    }

    /// A field of the text as it came.
    fn add_raw(
        &mut self,
        start: usize,
        end: usize,
        escapes: bool,
        format: &LineFormat,
    ) -> Result<()> {
        let raw = &self.text[start..end];
        if raw == format.null {
            self.fields.push(None);
        } else if escapes {
            let value = unescaped(raw)?;
            let start = self.text.len();
            self.text.push_str(&value);
            self.add(start, self.text.len());
        } else {
            self.add(start, end);
        }
        Ok(())
    }

    /// The field of CSV that the text has from `start` on.
    fn add_csv(&mut self, start: usize, quoted: bool, format: &LineFormat) {
        let at = self.open_fields();
        let is_forced = |columns: &[bool]| columns.get(at).copied().unwrap_or(false);
        let may_be_null = match quoted {
            true => is_forced(&format.force_null),
            false => !is_forced(&format.force_not_null),
        };
        if may_be_null && self.text[start..] == format.null {
            self.fields.push(None);
        } else {
            self.add(start, self.text.len());
        }
    }

    /// Whether the text from `start` on is the mark of the end: alone in its line, and not quoted.
    fn is_end(&self, start: usize, quoted: bool) -> bool {
        !quoted && self.open_fields() == 0 && &self.text[start..] == "\\."
    }
}

/// What backslashes say: letters of control characters, octal and hexadecimal digits of a byte, and
/// anything else itself.
fn unescaped(raw: &str) -> Result<String> {
    if !raw.contains('\\') {
        return Ok(raw.into());
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        if let Some(octal) = digits(&mut bytes, 8, 3) {
            out.push(octal);
            continue;
        }
        out.push(match bytes.next() {
            Some(b'x') => digits(&mut bytes, 16, 2).unwrap_or(b'x'),
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'r') => b'\r',
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'v') => 11,
            Some(other) => other,
            None => b'\\',
        });
    }
    match String::from_utf8(out) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(no_text()),
    }
}

/// The byte that up to so many digits give, if one is there.
fn digits(bytes: &mut Peekable<Bytes<'_>>, radix: u32, most: usize) -> Option<u8> {
    let mut value = None;
    for _ in 0..most {
        let Some(digit) = bytes.peek().and_then(|b| char::from(*b).to_digit(radix)) else {
            break;
        };
        bytes.next();
        value = Some((value.unwrap_or(0) * radix + digit) & 0xff);
    }
    value.map(|value| value as u8)
}

/// `22P04`.
pub fn bad_format(message: impl Into<String>) -> Error {
    Error::user(SqlState("22P04"), message)
}

#[cfg(test)]
mod tests;
