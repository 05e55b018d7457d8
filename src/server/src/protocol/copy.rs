//! COPY over the wire: `COPY t FROM STDIN` splits the client's bytes into lines as they come, of
//! which the session makes columns; `COPY .. TO STDOUT` sends rows as text or CSV.
//!
//! Text: tab between columns, `\N` for NULL, backslash escapes. CSV: quotes doubled, an unquoted
//! empty field is NULL.

use super::{Connection, Failure, encode, error};
use crate::dml::CopyRows;
use crate::session::Rows;
use arrow::array::RecordBatch;
use bytes::{BufMut, BytesMut};
use futures::StreamExt;
use pgwire::messages::copy::{CopyData, CopyDone, CopyInResponse, CopyOutResponse};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::Relation;
use tidemark_runtime::check_write_bytes;
use tidemark_values::moment::Zone;

/// Bytes that are split into lines at a time.
const PART_BYTES: usize = 1 << 20;

/// Options of COPY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOptions {
    /// CSV instead of text.
    pub csv: bool,
    /// Between columns.
    pub delimiter: u8,
    /// What stands for NULL.
    pub null: String,
    /// A line of names first.
    pub header: bool,
    /// CSV's quote.
    pub quote: u8,
}

impl Default for CopyOptions {
    fn default() -> CopyOptions {
        CopyOptions {
            csv: false,
            delimiter: b'\t',
            null: "\\N".into(),
            header: false,
            quote: b'"',
        }
    }
}

/// `COPY .. TO STDOUT`.
pub struct CopyOut {
    /// What to send.
    pub rows: Rows,
    /// How.
    pub options: CopyOptions,
}

/// `COPY t FROM STDIN`, checked: what the session needs to write the rows.
pub struct CopyIn {
    /// The table.
    pub relation: Arc<Relation>,
    /// The columns that each line has, by position.
    pub columns: Vec<usize>,
    /// How lines are read.
    pub options: CopyOptions,
    /// Where their moments are meant.
    pub zone: Zone,
}

impl Connection {
    pub(super) async fn copy_out(&mut self, mut out: CopyOut) -> Result<(), Failure> {
        let columns = out.rows.schema.fields().len();
        self.line
            .feed(PgWireBackendMessage::CopyOutResponse(CopyOutResponse::new(
                0,
                columns as i16,
                vec![0; columns],
            )))
            .await?;
        if out.options.header {
            let mut line = BytesMut::new();
            for (i, field) in out.rows.schema.fields().iter().enumerate() {
                if i > 0 {
                    line.put_u8(out.options.delimiter);
                }
                put_field(field.name().as_bytes(), &out.options, &mut line);
            }
            line.put_u8(b'\n');
            self.line
                .feed(PgWireBackendMessage::CopyData(CopyData::new(line.freeze())))
                .await?;
        }
        let mut sent = 0;
        let zone = self.session.zone();
        let stream = &mut out.rows.stream;
        while let Some(batch) = self
            .line
            .drive(async {
                stream
                    .next()
                    .await
                    .transpose()
                    .map_err(error::from_datafusion)
            })
            .await?
        {
            for line in lines(&batch, &out.options, &zone)? {
                self.line
                    .feed(PgWireBackendMessage::CopyData(CopyData::new(line)))
                    .await?;
            }
            sent += batch.num_rows();
        }
        self.line
            .feed(PgWireBackendMessage::CopyDone(CopyDone::new()))
            .await?;
        self.line.complete(format!("COPY {sent}")).await
    }

    pub(super) async fn copy_in(&mut self, target: CopyIn) -> Result<(), Failure> {
        let columns = target.columns.len();
        let response = CopyInResponse::new(0, columns as i16, vec![0; columns]);
        self.line
            .send(PgWireBackendMessage::CopyInResponse(response))
            .await?;
        let mut splitter = Splitter::new(target.options.clone());
        let mut rows = CopyRows::default();
        loop {
            match self.line.next().await? {
                PgWireFrontendMessage::CopyData(part) => {
                    rows.add(&target, splitter.add(&part.data)?)?;
                }
                PgWireFrontendMessage::CopyDone(_) => break,
                PgWireFrontendMessage::CopyFail(fail) => {
                    return Err(Error::user(
                        SqlState::QUERY_CANCELED,
                        format!("COPY from stdin failed: {}", fail.message),
                    )
                    .into());
                }
                PgWireFrontendMessage::Flush(_) | PgWireFrontendMessage::Sync(_) => {}
                _ => {
                    return Err(Error::user(
                        SqlState("08P01"),
                        "unexpected message type during COPY from stdin",
                    )
                    .into());
                }
            }
        }
        rows.add(&target, splitter.finish()?)?;
        let rows = self
            .line
            .drive(self.session.copy_from(&target, rows))
            .await?;
        self.line.complete(format!("COPY {rows}")).await
    }
}

/// The lines of a batch.
fn lines(batch: &RecordBatch, options: &CopyOptions, zone: &Zone) -> Result<Vec<bytes::Bytes>> {
    let cells = encode::cells(batch, zone)?;
    let mut out = Vec::with_capacity(batch.num_rows());
    let mut value = BytesMut::new();
    for row in 0..batch.num_rows() {
        let mut line = BytesMut::new();
        for (i, cell) in cells.iter().enumerate() {
            if i > 0 {
                line.put_u8(options.delimiter);
            }
            if cell.is_null(row) {
                line.put_slice(options.null.as_bytes());
                continue;
            }
            value.clear();
            cell.text(row, &mut value);
            put_field(&value, options, &mut line);
        }
        line.put_u8(b'\n');
        out.push(line.freeze());
    }
    Ok(out)
}

fn put_field(value: &[u8], options: &CopyOptions, out: &mut BytesMut) {
    if options.csv {
        // A line of `\.` alone would be the end.
        let quoted = value == options.null.as_bytes()
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
            if *b == options.quote {
                out.put_u8(options.quote);
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
    /// The first line is still to be skipped.
    header: bool,
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
        let text = std::str::from_utf8(data).map_err(|_| {
            Error::user(
                SqlState("22021"),
                "invalid byte sequence for encoding \"UTF8\"",
            )
        })?;
        let (mut rows, ended) = if self.options.csv {
            split_csv(text, &self.options)?
        } else {
            split_text(text, &self.options)
        };
        self.ended |= ended;
        if self.header && !rows.is_empty() {
            self.header = false;
            rows.remove(0);
        }
        Ok(rows)
    }
}

/// How much of the data is complete lines: up to the last line feed that no quotes enclose.
fn complete_bytes(data: &[u8], options: &CopyOptions) -> usize {
    let mut inside = false;
    let mut complete = 0;
    for (i, byte) in data.iter().enumerate() {
        if options.csv && *byte == options.quote {
            inside = !inside;
        } else if *byte == b'\n' && !inside {
            complete = i + 1;
        }
    }
    complete
}

/// The lines, and whether they are the last ones.
fn split_text(text: &str, options: &CopyOptions) -> (Vec<Fields>, bool) {
    let mut rows = Vec::new();
    for line in text.lines() {
        if line == "\\." {
            return (rows, true);
        }
        let mut fields = Vec::new();
        let mut rest = line;
        loop {
            let (raw, more) = take_field(rest, options.delimiter);
            fields.push(if raw == options.null {
                None
            } else {
                Some(unescape(raw))
            });
            match more {
                Some(next) => rest = next,
                None => break,
            }
        }
        rows.push(fields);
    }
    (rows, false)
}

/// The field up to the next unescaped delimiter, and what follows it.
fn take_field(line: &str, delimiter: u8) -> (&str, Option<&str>) {
    let bytes = line.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        if bytes[i] == b'\\' {
            i += 2;
        } else if bytes[i] == delimiter {
            return (&line[..i], Some(&line[i + 1..]));
        } else {
            i += 1;
        }
    }
    (line, None)
}

fn unescape(raw: &str) -> String {
    if !raw.contains('\\') {
        return raw.into();
    }
    let mut out = String::with_capacity(raw.len());
    let mut characters = raw.chars();
    while let Some(c) = characters.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match characters.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('v') => out.push('\u{b}'),
            Some(other) => out.push(other),
            None => out.push('\\'),
        }
    }
    out
}

/// The lines, and whether they are the last ones.
fn split_csv(text: &str, options: &CopyOptions) -> Result<(Vec<Fields>, bool)> {
    let (delimiter, quote) = (options.delimiter as char, options.quote as char);
    let (mut rows, mut fields) = (Vec::new(), Vec::new());
    let (mut field, mut quoted, mut inside) = (String::new(), false, false);
    let mut characters = text.chars().peekable();
    let end_field = |field: &mut String, quoted: &mut bool, fields: &mut Fields| {
        let value = std::mem::take(field);
        fields.push(if !*quoted && value == options.null {
            None
        } else {
            Some(value)
        });
        *quoted = false;
    };
    while let Some(c) = characters.next() {
        if inside {
            if c == quote && characters.peek() == Some(&quote) {
                field.push(quote);
                characters.next();
            } else if c == quote {
                inside = false;
            } else {
                field.push(c);
            }
        } else if c == quote {
            (inside, quoted) = (true, true);
        } else if c == delimiter {
            end_field(&mut field, &mut quoted, &mut fields);
        } else if c == '\n' {
            if field == "\\." && fields.is_empty() {
                return Ok((rows, true));
            }
            end_field(&mut field, &mut quoted, &mut fields);
            rows.push(std::mem::take(&mut fields));
        } else if c != '\r' {
            field.push(c);
        }
    }
    if inside {
        return Err(Error::user(
            SqlState("22P04"),
            "unterminated CSV quoted field",
        ));
    }
    if !field.is_empty() || quoted || !fields.is_empty() {
        end_field(&mut field, &mut quoted, &mut fields);
        rows.push(fields);
    }
    Ok((rows, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(s: &str) -> Option<String> {
        Some(s.to_string())
    }

    fn csv() -> CopyOptions {
        CopyOptions {
            csv: true,
            delimiter: b',',
            null: String::new(),
            header: true,
            quote: b'"',
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
