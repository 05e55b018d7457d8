//! COPY over the wire: `COPY t FROM STDIN` collects the client's bytes and hands them to the
//! session, `COPY .. TO STDOUT` sends rows as text or CSV.
//!
//! Text: tab between columns, `\N` for NULL, backslash escapes. CSV: quotes doubled, an unquoted
//! empty field is NULL.

use super::{Connection, Failure, encode, error};
use crate::session::Rows;
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use bytes::{BufMut, BytesMut};
use futures::StreamExt;
use pgwire::messages::copy::{CopyData, CopyDone, CopyInResponse, CopyOutResponse};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use tidemark_common::{Error, Result, SqlState};

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
    /// Number of columns that each line has.
    pub columns: usize,
    /// How lines are read.
    pub options: CopyOptions,
    /// The table and its columns, by position.
    pub target: (tidemark_common::RelationId, Vec<usize>),
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
            for line in lines(&batch, &out.rows.schema, &out.options)? {
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
        let response = CopyInResponse::new(0, target.columns as i16, vec![0; target.columns]);
        self.line
            .send(PgWireBackendMessage::CopyInResponse(response))
            .await?;
        let mut data = BytesMut::new();
        loop {
            match self.line.next().await? {
                PgWireFrontendMessage::CopyData(part) => data.extend_from_slice(&part.data),
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
        let rows = self
            .line
            .drive(self.session.copy_from(&target, &data))
            .await?;
        self.line.complete(format!("COPY {rows}")).await
    }
}

/// The lines of a batch.
fn lines(batch: &RecordBatch, schema: &Schema, options: &CopyOptions) -> Result<Vec<bytes::Bytes>> {
    let _ = schema;
    let cells = encode::cells(batch)?;
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
        let quoted = value == options.null.as_bytes()
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

/// Splits the client's bytes into rows of fields; `None` is NULL.
pub fn split(data: &[u8], options: &CopyOptions) -> Result<Vec<Vec<Option<String>>>> {
    let text = std::str::from_utf8(data).map_err(|_| {
        Error::user(
            SqlState("22021"),
            "invalid byte sequence for encoding \"UTF8\"",
        )
    })?;
    let mut rows = if options.csv {
        split_csv(text, options)?
    } else {
        split_text(text, options)
    };
    if options.header && !rows.is_empty() {
        rows.remove(0);
    }
    Ok(rows)
}

fn split_text(text: &str, options: &CopyOptions) -> Vec<Vec<Option<String>>> {
    let mut rows = Vec::new();
    for line in text.lines() {
        if line == "\\." {
            break;
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
    rows
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

fn split_csv(text: &str, options: &CopyOptions) -> Result<Vec<Vec<Option<String>>>> {
    let (delimiter, quote) = (options.delimiter as char, options.quote as char);
    let (mut rows, mut fields) = (Vec::new(), Vec::new());
    let (mut field, mut quoted, mut inside) = (String::new(), false, false);
    let mut characters = text.chars().peekable();
    let end_field = |field: &mut String, quoted: &mut bool, fields: &mut Vec<Option<String>>| {
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
                return Ok(rows);
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
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_csv_lines_split() {
        let some = |s: &str| Some(s.to_string());
        assert_eq!(
            split(b"1\ta\\tb\n2\t\\N\n", &CopyOptions::default()).unwrap(),
            [vec![some("1"), some("a\tb")], vec![some("2"), None]]
        );
        let csv = CopyOptions {
            csv: true,
            delimiter: b',',
            null: String::new(),
            header: true,
            quote: b'"',
        };
        assert_eq!(
            split(b"a,b\n1,\"x,\"\"y\"\n2,\n3,\"\"", &csv).unwrap(),
            [
                vec![some("1"), some("x,\"y")],
                vec![some("2"), None],
                vec![some("3"), some("")]
            ]
        );
    }
}
