//! Debezium change events, read and written.
//!
//! `{"before": row|null, "after": row|null, "op": "c"|"r"|"u"|"d", ...}`, bare or inside Kafka
//! Connect's `{"schema": ..., "payload": event}`, whose schema then says how the rows are to be
//! read ([`super::connect`]). As changes of a keyed relation: c, r and u write `after` (+1); d
//! deletes the key of `before`, or of the record key where `before` is null (-1, other columns
//! NULL). Tombstones (no value, or `null`) and messages (`m`) change nothing.
//!
//! `after` stands before `op` in an event, so it is read at once, in the belief that it counts;
//! only a deletion looks at `before`.

use super::connect::{PlanId, Plans};
use super::form::Form;
use super::json_decode::{ObjectReader, Rows, Wanted};
use super::key::KeyReader;
use super::scan::{Fault, Scanner};
use std::sync::Arc;
use tidemark_common::SqlState;

/// What PostgreSQL's connector writes for a large value that an update did not change, and that the
/// database did not tell it therefore.
const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// Reads events into the current row.
#[derive(Debug)]
pub(super) struct EventReader {
    plans: Plans<Images>,
    key: KeyReader,
    key_columns: Vec<usize>,
}

/// Readers of the two images of a row.
#[derive(Debug)]
struct Images {
    after: ObjectReader,
    /// The key's columns only.
    before: ObjectReader,
}

impl Images {
    /// Readers for events that `schema` describes.
    fn new(after: Arc<[Wanted]>, before: Arc<[Wanted]>, schema: &Form) -> Images {
        let image = |name: &str| match schema {
            Form::Struct(fields) => fields.iter().find(|(n, _)| n == name).map(|(_, form)| form),
            _ => None,
        };
        Images {
            after: ObjectReader::new(after, image("after").unwrap_or(&Form::Declared)),
            before: ObjectReader::new(before, image("before").unwrap_or(&Form::Declared)),
        }
    }
}

/// What an event holds besides the row that was read from `after`.
#[derive(Default)]
struct Event<'a> {
    op: &'a str,
    has_after: bool,
    /// At the row image before the change, and how deep that stands.
    before: Option<(Scanner<'a>, u32)>,
    plan: PlanId,
    is_event: bool,
}

impl EventReader {
    /// `after` are all wanted columns, `before` those of the key; `key` reads the record key.
    pub fn new(after: Arc<[Wanted]>, before: Arc<[Wanted]>, key: KeyReader) -> EventReader {
        EventReader {
            key_columns: before.iter().map(|wanted| wanted.at).collect(),
            plans: Plans::new(Images::new(after, before, &Form::Declared)),
            key,
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
        let event = self.event(&mut scanner, rows, None, 0)?;
        scanner.end()?;
        match event.op {
            _ if !event.is_event => Ok(None),
            "c" | "r" | "u" if event.has_after => {
                if event.op == "u" {
                    rows.refuse(UNAVAILABLE, "did not change, and the event leaves it out")?;
                }
                Ok(Some(1))
            }
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

    /// Walks over the event at the cursor, whose rows are read as `plan` says, or over the envelope
    /// there (`depth` 0) and the event in it.
    fn event<'a>(
        &mut self,
        scanner: &mut Scanner<'a>,
        rows: &mut Rows,
        mut plan: PlanId,
        depth: u32,
    ) -> Result<Event<'a>, Fault> {
        let mut event = Event {
            is_event: true,
            ..Event::default()
        };
        let mut waiting = None;
        let mut first = true;
        while let Some(name) = scanner.next_member(first)? {
            first = false;
            match (name.raw, scanner.peek()) {
                ("after", b'{') => {
                    rows.undo();
                    let images = self.plans.get(plan);
                    images.after.read(scanner, rows, depth + 1)?;
                    event.has_after = true;
                }
                ("before", b'{') => {
                    event.before = Some((scanner.copy(), depth + 1));
                    scanner.skip(depth + 1)?;
                }
                ("op", b'"') => event.op = scanner.string()?.raw,
                ("payload", b'{') if depth == 0 && plan.is_some() => {
                    event = self.event(scanner, rows, plan, 1)?;
                }
                // How to read the event is known when its schema is.
                ("payload", b'{') if depth == 0 => {
                    waiting = Some(scanner.copy());
                    scanner.skip(1)?;
                }
                ("payload", b'n') if depth == 0 => {
                    scanner.literal("null")?;
                    event.is_event = false;
                }
                ("schema", b'{') if depth == 0 => plan = self.schema(scanner)?,
                _ => scanner.skip(depth + 1)?,
            }
        }
        match waiting {
            Some(mut payload) => self.event(&mut payload, rows, plan, 1),
            None => {
                event.plan = event.plan.or(plan);
                Ok(event)
            }
        }
    }

    /// Passes the schema at the cursor.
    fn schema(&mut self, scanner: &mut Scanner<'_>) -> Result<PlanId, Fault> {
        let bare = self.plans.get(None);
        let (after, before) = (bare.after.targets(), bare.before.targets());
        let images = |form: &Form| Images::new(after, before, form);
        self.plans.pass(scanner, images)
    }

    /// Reads the key of the deleted row, from the image before or from the record key.
    fn deletion(
        &mut self,
        event: Event<'_>,
        key: Option<&[u8]>,
        rows: &mut Rows,
    ) -> Result<(), Fault> {
        if let Some((mut before, depth)) = event.before {
            let images = self.plans.get(event.plan);
            images.before.read(&mut before, rows, depth)?;
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
