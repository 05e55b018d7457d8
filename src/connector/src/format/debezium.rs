//! Debezium change events, read and written.
//!
//! `{"before": row|null, "after": row|null, "op": "c"|"r"|"u"|"d", ...}`, bare or inside Kafka
//! Connect's `{"schema": ..., "payload": event}`. As changes of a keyed relation: c, r and u write
//! `after` (+1); d deletes the key of `before`, or of the record key where `before` is null (-1,
//! other columns NULL). Tombstones (no value, or `null`) and messages (`m`) change nothing.
//!
//! `after` stands before `op` in an event, so it is read at once, in the belief that it counts;
//! only a deletion looks at `before`.

use super::json_decode::{ObjectReader, Rows};
use super::key::KeyReader;
use super::scan::{Fault, Scanner};
use tidemark_common::SqlState;

/// Reads events into the current row.
#[derive(Debug)]
pub(super) struct EventReader {
    after: ObjectReader,
    /// Of a row image, the key's columns only.
    before: ObjectReader,
    key: KeyReader,
    key_columns: Vec<usize>,
}

/// What an event holds besides the row that was read from `after`.
#[derive(Default)]
struct Event<'a> {
    op: &'a str,
    has_after: bool,
    /// At the row image before the change, and how deep that stands.
    before: Option<(Scanner<'a>, u32)>,
    is_event: bool,
}

impl EventReader {
    /// `after` fills every wanted column, `before` those of the key; `key` reads the record key.
    pub fn new(
        after: ObjectReader,
        before: ObjectReader,
        key: KeyReader,
        key_columns: Vec<usize>,
    ) -> EventReader {
        EventReader {
            after,
            before,
            key,
            key_columns,
        }
    }

    /// Reads the event `value` into the current row and returns its weight; `None` when it changes
    /// nothing.
    pub fn read(
        &mut self,
        value: &str,
        key: Option<&[u8]>,
        rows: &mut Rows,
    ) -> Result<Option<i64>, Fault> {
        let mut scanner = Scanner::new(value);
        scanner.blanks();
        if scanner.peek() == b'n' {
            scanner.literal("null")?;
            return scanner.end().map(|()| None);
        }
        let event = self.event(&mut scanner, rows, 0)?;
        scanner.end()?;
        match event.op {
            _ if !event.is_event => Ok(None),
            "c" | "r" | "u" if event.has_after => Ok(Some(1)),
            "c" | "r" | "u" => Err(Fault::value(format!(
                "a change event with op \"{}\" has no row in \"after\"",
                event.op
            ))),
            "d" => {
                rows.undo();
                self.deletion(event, key, rows)?;
                Ok(Some(-1))
            }
            "m" => {
                rows.undo();
                Ok(None)
            }
            "t" => Err(Fault::value("a truncation cannot be followed")
                .with_state(SqlState::FEATURE_NOT_SUPPORTED)),
            "" => Err(Fault::value(
                "the record is no change event: it has no \"op\"",
            )),
            other => Err(Fault::value(format!(
                "unknown op \"{other}\" in a change event"
            ))),
        }
    }

    /// Walks over the event, or the envelope, at the cursor.
    fn event<'a>(
        &mut self,
        scanner: &mut Scanner<'a>,
        rows: &mut Rows,
        depth: u32,
    ) -> Result<Event<'a>, Fault> {
        let mut event = Event {
            is_event: true,
            ..Event::default()
        };
        let mut first = true;
        while let Some(name) = scanner.next_member(first)? {
            first = false;
            match (name.raw, scanner.peek()) {
                ("after", b'{') => {
                    rows.undo();
                    self.after.read(scanner, rows, depth + 1)?;
                    event.has_after = true;
                }
                ("before", b'{') => {
                    event.before = Some((scanner.copy(), depth + 1));
                    scanner.skip(depth + 1)?;
                }
                ("op", b'"') => event.op = scanner.string()?.raw,
                ("payload", b'{') if depth == 0 => event = self.event(scanner, rows, 1)?,
                ("payload", b'n') if depth == 0 => {
                    scanner.literal("null")?;
                    event.is_event = false;
                }
                _ => scanner.skip(depth + 1)?,
            }
        }
        Ok(event)
    }

    /// Reads the key of the deleted row, from the image before or from the record key.
    fn deletion(
        &mut self,
        event: Event<'_>,
        key: Option<&[u8]>,
        rows: &mut Rows,
    ) -> Result<(), Fault> {
        if let Some((mut before, depth)) = event.before {
            self.before.read(&mut before, rows, depth)?;
            if self.key_columns.iter().all(|column| rows.has(*column)) {
                return Ok(());
            }
            rows.undo();
        }
        if key.is_none() {
            return Err(Fault::value(
                "a deletion holds the key neither in \"before\" nor as the record key",
            ));
        }
        self.key.read(key, rows)
    }
}

/// Appends a change event: `before` and `after` are rows in JSON, `op` is `c`, `r`, `u` or `d`,
/// `source_ms` the time of the change and `now_ms` that of sending, in epoch milliseconds.
pub fn debezium_envelope(
    before: Option<&[u8]>,
    after: Option<&[u8]>,
    op: char,
    source_ms: i64,
    now_ms: i64,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"before\":");
    out.extend_from_slice(before.unwrap_or(b"null"));
    out.extend_from_slice(b",\"after\":");
    out.extend_from_slice(after.unwrap_or(b"null"));
    out.extend_from_slice(b",\"source\":{\"connector\":\"tidemark\",\"ts_ms\":");
    out.extend_from_slice(itoa::Buffer::new().format(source_ms).as_bytes());
    out.extend_from_slice(b"},\"op\":\"");
    out.extend_from_slice(op.encode_utf8(&mut [0; 4]).as_bytes());
    out.extend_from_slice(b"\",\"ts_ms\":");
    out.extend_from_slice(itoa::Buffer::new().format(now_ms).as_bytes());
    out.push(b'}');
}
