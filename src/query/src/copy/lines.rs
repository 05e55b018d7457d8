//! COPY's two formats: a value as a field, and the client's bytes as lines of fields.
//!
//! Text: tab between columns, `\N` for NULL, backslash escapes. CSV: quotes doubled, an unquoted
//! empty field is NULL.

use super::options::{CopyOptions, Header};
use bytes::{BufMut, BytesMut};
use std::iter::Peekable;
use std::str::Bytes;
use tidemark_common::{Error, Result, SqlState};
use tidemark_node::check_write_bytes;

/// Bytes that are split into lines at a time.
const PART_BYTES: usize = 1 << 20;

/// Appends a value as a field; `forced`: in CSV within quotes, whatever it is.
pub fn put_field(value: &[u8], options: &CopyOptions, forced: bool, out: &mut BytesMut) {
    if options.csv {
        // A line of `\.` alone would be the end.
        let quoted = forced
            || value == options.null.as_bytes()
            || value == b"\\."
            || value.iter().any(|b| {
                *b == options.delimiter || *b == options.quote || matches!(b, b'\n' | b'\r')
            });
        if !quoted {
            out.put_slice(value);
            return;
        }
        out.put_u8(options.quote);
        for b in value {
            if *b == options.quote || *b == options.escape {
                out.put_u8(options.escape);
            }
            out.put_u8(*b);
        }
        out.put_u8(options.quote);
        return;
    }
    for b in value {
        match b {
            b'\\' => out.put_slice(b"\\\\"),
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            8 => out.put_slice(b"\\b"),
            11 => out.put_slice(b"\\v"),
            12 => out.put_slice(b"\\f"),
            b if *b == options.delimiter => {
                out.put_u8(b'\\');
                out.put_u8(*b);
            }
            b => out.put_u8(*b),
        }
    }
}

/// One line: its fields; `None` is NULL.
pub type Fields = Vec<Option<String>>;

/// Splits the client's bytes into lines of fields, part by part: a line's fields are many times as
/// large as its text, so only the lines of one part are held like that.
pub struct Splitter {
    options: CopyOptions,
    /// Not split yet.
    data: BytesMut,
    /// How much of it is waited for: at least a part, and more after a part without a line's end.
    wanted: usize,
    /// What is still to be done with the first line.
    header: Header,
    /// The end was marked: what follows is not looked at.
    ended: bool,
}

impl Splitter {
    /// Nothing has come yet.
    pub fn new(options: CopyOptions) -> Splitter {
        Splitter {
            header: options.header,
            options,
            data: BytesMut::new(),
            wanted: PART_BYTES,
            ended: false,
        }
    }

    /// Bytes came: the lines that are complete, when there are enough of them. `54000` for a line
    /// that is longer than all that may be written.
    pub fn add(&mut self, bytes: &[u8]) -> Result<Vec<Fields>> {
        check_write_bytes(self.data.len() + bytes.len())?;
        if !self.ended {
            self.data.extend_from_slice(bytes);
        }
        if self.data.len() < self.wanted {
            return Ok(Vec::new());
        }
        let complete = complete_bytes(&self.data, &self.options);
        let part = self.data.split_to(complete);
        self.wanted = (2 * self.data.len()).max(PART_BYTES);
        self.split(&part)
    }

    /// Nothing more will come: the rest.
    pub fn finish(mut self) -> Result<Vec<Fields>> {
        let rest = self.data.split();
        self.split(&rest)
    }

    fn split(&mut self, data: &[u8]) -> Result<Vec<Fields>> {
        if self.ended {
            return Ok(Vec::new());
        }
        let text = std::str::from_utf8(data).map_err(|_| no_text())?;
        let (mut rows, ended) = if self.options.csv {
            split_csv(text, &self.options)?
        } else {
            split_text(text, &self.options)?
        };
        self.ended |= ended;
        if self.header != Header::No && !rows.is_empty() {
            let names = rows.remove(0);
            if std::mem::replace(&mut self.header, Header::No) == Header::Match {
                self.options.check_header(&names)?;
            }
        }
        Ok(rows)
    }
}

fn no_text() -> Error {
    Error::user(
        SqlState("22021"),
        "invalid byte sequence for encoding \"UTF8\"",
    )
}

/// How much of the data is complete lines: up to the last line feed that neither quotes enclose nor
/// a backslash escapes.
fn complete_bytes(data: &[u8], options: &CopyOptions) -> usize {
    let (mut inside, mut complete, mut at) = (false, 0, 0);
    while let Some(byte) = data.get(at) {
        let escapes = match options.csv {
            true => inside && *byte == options.escape && options.escape != options.quote,
            false => *byte == b'\\',
        };
        if escapes {
            at += 1;
        } else if options.csv && *byte == options.quote {
            inside = !inside;
        } else if *byte == b'\n' && !inside {
            complete = at + 1;
        }
        at += 1;
    }
    complete.min(data.len())
}

/// The lines, and whether they are the last ones.
fn split_text(text: &str, options: &CopyOptions) -> Result<(Vec<Fields>, bool)> {
    let bytes = text.as_bytes();
    let (mut rows, mut fields) = (Vec::new(), Vec::new());
    let (mut line, mut start, mut at) = (0, 0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'\n' => {
                let end = match at > start && bytes[at - 1] == b'\r' {
                    true => at - 1,
                    false => at,
                };
                if &text[line..end] == "\\." {
                    return Ok((rows, true));
                }
                fields.push(text_field(&text[start..end], options)?);
                rows.push(std::mem::take(&mut fields));
                (line, start) = (at + 1, at + 1);
            }
            b if b == options.delimiter => {
                fields.push(text_field(&text[start..at], options)?);
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    let rest = &text[line..];
    if rest.trim_end_matches('\r') == "\\." {
        return Ok((rows, true));
    }
    if !rest.is_empty() {
        fields.push(text_field(text[start..].trim_end_matches('\r'), options)?);
        rows.push(fields);
    }
    Ok((rows, false))
}

fn text_field(raw: &str, options: &CopyOptions) -> Result<Option<String>> {
    Ok(match raw == options.null {
        true => None,
        false => Some(unescaped(raw)?),
    })
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

/// The lines, and whether they are the last ones.
fn split_csv(text: &str, options: &CopyOptions) -> Result<(Vec<Fields>, bool)> {
    let [delimiter, quote, escape] =
        [options.delimiter, options.quote, options.escape].map(char::from);
    let (mut rows, mut fields) = (Vec::new(), Vec::new());
    let (mut field, mut quoted, mut inside) = (String::new(), false, false);
    let mut characters = text.chars().peekable();
    let end_field = |field: &mut String, quoted: &mut bool, fields: &mut Fields| {
        let value = std::mem::take(field);
        let at = fields.len();
        let may_be = match *quoted {
            true => options.force_null.has(at),
            false => !options.force_not_null.has(at),
        };
        fields.push((!may_be || value != options.null).then_some(value));
        *quoted = false;
    };
    while let Some(c) = characters.next() {
        if inside {
            let next = characters.peek().copied();
            match next.filter(|next| c == escape && (*next == escape || *next == quote)) {
                Some(next) => {
                    field.push(next);
                    characters.next();
                }
                None if c == quote => inside = false,
                None => field.push(c),
            }
        } else if c == quote {
            (inside, quoted) = (true, true);
        } else if c == delimiter {
            end_field(&mut field, &mut quoted, &mut fields);
        } else if c == '\n' {
            if field == "\\." && fields.is_empty() && !quoted {
                return Ok((rows, true));
            }
            end_field(&mut field, &mut quoted, &mut fields);
            rows.push(std::mem::take(&mut fields));
        } else if c != '\r' {
            field.push(c);
        } else if characters.peek().is_some_and(|next| *next != '\n') {
            return Err(bad_format("unquoted carriage return found in data"));
        }
    }
    if inside {
        return Err(bad_format("unterminated CSV quoted field"));
    }
    if field == "\\." && fields.is_empty() && !quoted {
        return Ok((rows, true));
    }
    if !field.is_empty() || quoted || !fields.is_empty() {
        end_field(&mut field, &mut quoted, &mut fields);
        rows.push(fields);
    }
    Ok((rows, false))
}

/// `22P04`.
pub fn bad_format(message: impl Into<String>) -> Error {
    Error::user(SqlState("22P04"), message)
}

#[cfg(test)]
mod tests {
    use super::super::options::Forced;
    use super::*;

    fn some(s: &str) -> Option<String> {
        Some(s.to_string())
    }

    fn csv() -> CopyOptions {
        CopyOptions {
            csv: true,
            delimiter: b',',
            null: String::new(),
            header: Header::Yes,
            ..CopyOptions::default()
        }
    }

    /// The lines of data that comes in parts of some bytes, with no more than a few held.
    fn split(data: &[u8], options: &CopyOptions, bytes: usize) -> Vec<Fields> {
        let mut splitter = Splitter::new(options.clone());
        splitter.wanted = 0;
        let mut rows = Vec::new();
        for part in data.chunks(bytes) {
            rows.extend(splitter.add(part).unwrap());
            splitter.wanted = 0;
        }
        rows.extend(splitter.finish().unwrap());
        rows
    }

    #[test]
    fn text_and_csv_lines_split_wherever_their_parts_end() {
        for bytes in 1..30 {
            assert_eq!(
                split(
                    b"1\ta\\tb\n2\t\\N\n\\.\n3\tx\n",
                    &CopyOptions::default(),
                    bytes
                ),
                [vec![some("1"), some("a\tb")], vec![some("2"), None]]
            );
            let text = "a,b\n1,\"x,\"\"y\n\"\r\n2,\n3,\"\"\n4,\u{e4}";
            assert_eq!(
                split(text.as_bytes(), &csv(), bytes),
                [
                    vec![some("1"), some("x,\"y\n")],
                    vec![some("2"), None],
                    vec![some("3"), some("")],
                    vec![some("4"), some("\u{e4}")]
                ]
            );
        }
    }

    #[test]
    fn escapes_and_forced_columns_are_read_wherever_their_parts_end() {
        for bytes in 1..12 {
            let text = "a\\\nb\tc\\x41\\101\\xc3\\xa4\\q\r\n\\\\\t\\\\N\n";
            assert_eq!(
                split(text.as_bytes(), &CopyOptions::default(), bytes),
                [
                    vec![some("a\nb"), some("cAA\u{e4}q")],
                    vec![some("\\"), some("\\N")]
                ]
            );
            let options = CopyOptions {
                escape: b'\\',
                header: Header::No,
                force_null: Forced::columns([true, false]),
                force_not_null: Forced::columns([false, true]),
                ..csv()
            };
            assert_eq!(
                split(b"\"\",\n\"a\\\"\nb\",\"\\\\\"\n", &options, bytes),
                [vec![None, some("")], vec![some("a\"\nb"), some("\\")]]
            );
        }
        let error = |text: &str| {
            let mut splitter = Splitter::new(CopyOptions::default());
            splitter.add(text.as_bytes()).unwrap();
            splitter.finish().unwrap_err()
        };
        assert_eq!(error("\\xff\n").state(), SqlState("22021"));
        assert_eq!(error("\\0\n").state(), SqlState("22021"));
    }

    #[test]
    fn no_more_than_a_part_is_held_as_fields_and_no_line_is_endless() {
        let mut splitter = Splitter::new(CopyOptions::default());
        let lines = "1\n".repeat(PART_BYTES / 4);
        assert_eq!(splitter.add(lines.as_bytes()).unwrap().len(), 0);
        assert_eq!(
            splitter.add(lines.as_bytes()).unwrap().len(),
            PART_BYTES / 2
        );
        assert!(splitter.data.is_empty());
        splitter.data = BytesMut::zeroed(tidemark_control::entry::WRITE_BYTES_MAX);
        let error = splitter.add(b"x").unwrap_err();
        assert_eq!(error.state(), SqlState("54000"));
    }
}
