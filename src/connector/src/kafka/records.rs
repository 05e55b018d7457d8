//! From an epoch's changes to records.
//!
//! | format | change | record |
//! | --- | --- | --- |
//! | PLAIN | +n | n records of the row; the key columns as record key if there are any |
//! | PLAIN | -n | none if they are left out on purpose, else an error: there should be none |
//! | UPSERT | -1 then +1 of one key | the new row under its key |
//! | UPSERT | +1 | the row under its key |
//! | UPSERT | -1 | no value under its key |
//! | DEBEZIUM | the same | `u` with before and after, `c` with after, `d` with before |
//!
//! With `schemas.enable` keys and values stand in Kafka Connect's envelope
//! ([`crate::format::connect_encode`]).
//!
//! A retraction waits for the change after it, also across the batches of an epoch. Texts are
//! written into two buffers that are used again for each record.

use crate::format::json_encode::Style;
use crate::format::key::topic_of;
use crate::format::{JsonEncoder, KeyEncoder, connect_encode, debezium_envelope, form};
use arrow::array::RecordBatch;
use tidemark_changelog::connector::SinkEpoch;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{Column, ConnectorSpec, Encode, Format};

/// Receives a record's key and value.
pub type Emit<'a> = dyn FnMut(Option<&[u8]>, Option<&[u8]>) -> Result<()> + 'a;

/// Makes the records of one sink.
pub struct RecordWriter {
    format: Format,
    keys: Option<KeyEncoder>,
    rows: JsonEncoder,
    /// What stands before a value with a schema; empty for others.
    opening: Vec<u8>,
    force_append_only: bool,
    key: Vec<u8>,
    value: Vec<u8>,
    envelope: Vec<u8>,
    waiting: Waiting,
}

/// A retraction that waits for the change after it.
#[derive(Default)]
struct Waiting {
    is_set: bool,
    key: Vec<u8>,
    row: Vec<u8>,
}

impl RecordWriter {
    /// Refuses formats, encodings and keys that cannot be written: `0A000`, `22023`.
    pub fn new(
        spec: &ConnectorSpec,
        columns: &[Column],
        force_append_only: bool,
    ) -> Result<RecordWriter> {
        if spec.encode != Encode::Json {
            return Err(Error::unsupported("a sink writes JSON only")
                .with_hint("Use FORMAT PLAIN, UPSERT or DEBEZIUM ENCODE JSON."));
        }
        if spec.format != Format::Plain && spec.key.is_empty() {
            return Err(Error::user(
                SqlState::INVALID_PARAMETER,
                "a sink with FORMAT UPSERT or DEBEZIUM needs a key",
            )
            .with_hint("Name its columns, as in primary_key = 'id'."));
        }
        let all: Vec<usize> = (0..columns.len()).collect();
        let (style, opening) = match form::sink_schemas(spec)? {
            None if spec.format == Format::Debezium => (Style::Event, Vec::new()),
            None => (Style::Plain, Vec::new()),
            Some(unit) => {
                let topic = topic_of(spec);
                let opening = match spec.format {
                    Format::Debezium => connect_encode::event_opening(columns, unit, topic),
                    _ => connect_encode::opening(columns, &all, unit, &format!("{topic}.Value")),
                };
                (Style::Connect(unit), opening)
            }
        };
        Ok(RecordWriter {
            format: spec.format,
            keys: if spec.key.is_empty() {
                None
            } else {
                Some(KeyEncoder::new(spec, columns)?)
            },
            rows: JsonEncoder::with_style(columns, &all, style)?,
            opening,
            force_append_only,
            key: Vec::new(),
            value: Vec::new(),
            envelope: Vec::new(),
            waiting: Waiting::default(),
        })
    }

    /// Emits the records of an epoch, in order. `now_ms` is what Debezium records name as their
    /// time, in milliseconds since 1970.
    pub fn write(&mut self, epoch: &SinkEpoch, now_ms: i64, emit: &mut Emit<'_>) -> Result<()> {
        self.waiting.is_set = false;
        for batch in &epoch.changes {
            match self.format {
                Format::Plain => self.plain(batch.rows(), &|i| batch.weight(i), emit)?,
                Format::Upsert | Format::Debezium => {
                    self.keyed(batch.rows(), &|i| batch.weight(i), now_ms, emit)?
                }
            }
        }
        self.end_waiting(now_ms, emit)
    }

    fn plain(
        &mut self,
        rows: &RecordBatch,
        weight: &dyn Fn(usize) -> i64,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        let bound = self.rows.bind(rows)?;
        let keys = self.keys.as_ref().map(|k| k.bind(rows)).transpose()?;
        for row in 0..rows.num_rows() {
            let weight = weight(row);
            if weight < 0 {
                if self.force_append_only {
                    continue;
                }
                return Err(Error::internal("a plain sink received a retraction"));
            }
            self.value.clear();
            wrap(&self.opening, &mut self.value, |out| bound.write(row, out));
            let key = keys.as_ref().map(|keys| {
                self.key.clear();
                keys.write(row, &mut self.key);
                self.key.as_slice()
            });
            for _ in 0..weight {
                emit(key, Some(&self.value))?;
            }
        }
        Ok(())
    }

    fn keyed(
        &mut self,
        rows: &RecordBatch,
        weight: &dyn Fn(usize) -> i64,
        now_ms: i64,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        // Taken out while they are borrowed, so that the buffers beside them can be written.
        let keys = self
            .keys
            .take()
            .ok_or_else(|| Error::internal("a keyed sink has no key"))?;
        let encoder = std::mem::replace(&mut self.rows, JsonEncoder::new(&[], &[])?);
        let result = self.keyed_rows(rows, &keys, &encoder, weight, now_ms, emit);
        (self.keys, self.rows) = (Some(keys), encoder);
        result
    }

    fn keyed_rows(
        &mut self,
        rows: &RecordBatch,
        keys: &KeyEncoder,
        encoder: &JsonEncoder,
        weight: &dyn Fn(usize) -> i64,
        now_ms: i64,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        let (keys, bound, debezium) = (
            keys.bind(rows)?,
            encoder.bind(rows)?,
            self.format == Format::Debezium,
        );
        for row in 0..rows.num_rows() {
            self.key.clear();
            keys.write(row, &mut self.key);
            self.value.clear();
            let retracts = weight(row) < 0;
            if debezium {
                bound.write(row, &mut self.value);
            } else if !retracts {
                wrap(&self.opening, &mut self.value, |out| bound.write(row, out));
            }
            let replaces = self.waiting.is_set && self.waiting.key == self.key;
            if !replaces {
                self.end_waiting(now_ms, emit)?;
            }
            if retracts {
                std::mem::swap(&mut self.waiting.key, &mut self.key);
                std::mem::swap(&mut self.waiting.row, &mut self.value);
                self.waiting.is_set = true;
                continue;
            }
            self.waiting.is_set = false;
            if debezium {
                let before = replaces.then_some(self.waiting.row.as_slice());
                let (after, op) = (Some(&*self.value), if replaces { 'u' } else { 'c' });
                self.envelope.clear();
                wrap(&self.opening, &mut self.envelope, |out| {
                    debezium_envelope(before, after, op, now_ms, now_ms, out)
                });
                emit(Some(&self.key), Some(&self.envelope))?;
            } else {
                emit(Some(&self.key), Some(&self.value))?;
            }
        }
        Ok(())
    }

    /// The retraction that waits is not followed by a new row of its key: a deletion.
    fn end_waiting(&mut self, now_ms: i64, emit: &mut Emit<'_>) -> Result<()> {
        if !std::mem::take(&mut self.waiting.is_set) {
            return Ok(());
        }
        if self.format != Format::Debezium {
            return emit(Some(&self.waiting.key), None);
        }
        let before = Some(self.waiting.row.as_slice());
        self.envelope.clear();
        wrap(&self.opening, &mut self.envelope, |out| {
            debezium_envelope(before, None, 'd', now_ms, now_ms, out)
        });
        emit(Some(&self.waiting.key), Some(&self.envelope))
    }
}

/// Appends what `write` does, inside the envelope that `opening` begins, if any.
#[inline]
fn wrap(opening: &[u8], out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(opening);
    write(out);
    if !opening.is_empty() {
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::tests::spec;
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::DataType;
    use std::sync::Arc;
    use tidemark_changelog::ChangeBatch;
    use tidemark_common::Epoch;

    fn columns() -> Vec<Column> {
        let column = |name: &str, data_type| Column {
            name: name.into(),
            data_type,
            nullable: true,
            default: None,
            sql_type: String::new(),
        };
        vec![
            column("id", DataType::Int64),
            column("name", DataType::Utf8),
        ]
    }

    /// Batches of `(weight, id, name)` as one epoch; the records as `key value` lines.
    fn records(
        format: Format,
        key: &[usize],
        force: bool,
        batches: &[&[(i64, i64, &str)]],
    ) -> Result<Vec<String>> {
        let mut spec = spec("kafka", &[]);
        (spec.format, spec.key) = (format, key.to_vec());
        records_of(&spec, force, batches)
    }

    fn records_of(
        spec: &ConnectorSpec,
        force: bool,
        batches: &[&[(i64, i64, &str)]],
    ) -> Result<Vec<String>> {
        let mut writer = RecordWriter::new(spec, &columns(), force)?;
        let changes = batches.iter().map(|rows| {
            let ids = Arc::new(rows.iter().map(|r| r.1).collect::<Int64Array>());
            let names = Arc::new(rows.iter().map(|r| Some(r.2)).collect::<StringArray>());
            let batch =
                RecordBatch::try_from_iter([("id", ids as _), ("name", names as _)]).unwrap();
            ChangeBatch::new(batch, rows.iter().map(|r| r.0).collect())
        });
        let epoch = SinkEpoch {
            epoch: Epoch(7),
            changes: changes.collect(),
            hash: 0,
        };
        let mut out = Vec::new();
        let text = |bytes: Option<&[u8]>| {
            bytes.map_or("-".to_string(), |b| String::from_utf8(b.to_vec()).unwrap())
        };
        writer.write(&epoch, 5, &mut |key, value| {
            out.push(format!("{} {}", text(key), text(value)));
            Ok(())
        })?;
        Ok(out)
    }

    #[test]
    fn plain_repeats_rows_and_refuses_retractions() {
        assert_eq!(
            records(Format::Plain, &[], false, &[&[(1, 1, "a"), (2, 2, "b")]]).unwrap(),
            [
                "- {\"id\":1,\"name\":\"a\"}",
                "- {\"id\":2,\"name\":\"b\"}",
                "- {\"id\":2,\"name\":\"b\"}"
            ]
        );
        assert_eq!(
            records(Format::Plain, &[0], true, &[&[(-1, 1, "a"), (1, 2, "b")]]).unwrap(),
            ["{\"id\":2} {\"id\":2,\"name\":\"b\"}"]
        );
        assert_eq!(
            records(Format::Plain, &[], false, &[&[(-1, 1, "a")]])
                .unwrap_err()
                .message(),
            "a plain sink received a retraction"
        );
    }

    #[test]
    fn schemas_stand_around_keys_and_values() {
        let mut spec = spec("kafka", &[("topic", "t")]);
        (spec.format, spec.key) = (Format::Upsert, vec![0]);
        spec.encode_options
            .insert("schemas.enable".into(), "true".into());
        let batches: &[&[_]] = &[&[(1, 1, "a"), (-1, 2, "b")]];
        let key = |id: i64| {
            format!(
                r#"{{"schema":{{"fields":[{{"field":"id","optional":true,"type":"int64"}}],"name":"t.Key","optional":false,"type":"struct"}},"payload":{{"id":{id}}}}}"#
            )
        };
        let value = r#"{"schema":{"fields":[{"field":"id","optional":true,"type":"int64"},{"field":"name","optional":true,"type":"string"}],"name":"t.Value","optional":false,"type":"struct"},"payload":{"id":1,"name":"a"}}"#;
        assert_eq!(
            records_of(&spec, false, batches).unwrap(),
            [format!("{} {value}", key(1)), format!("{} -", key(2))]
        );
        spec.format = Format::Debezium;
        let events = records_of(&spec, false, batches).unwrap();
        assert!(events[1].contains(r#""name":"t.Envelope""#));
        assert!(events[1].ends_with(
            r#""payload":{"before":{"id":2,"name":"b"},"after":null,"source":{"connector":"tidemark","ts_ms":5},"op":"d","ts_ms":5}}"#
        ));
    }

    #[test]
    fn upsert_writes_new_rows_and_tombstones() {
        // an update, a deletion, an insertion; then a deletion and an update that cross batches
        let batches: &[&[_]] = &[
            &[
                (-1, 1, "a"),
                (1, 1, "b"),
                (-1, 2, "c"),
                (1, 3, "d"),
                (-1, 4, "e"),
            ],
            &[(1, 4, "f"), (-1, 5, "g")],
            &[],
        ];
        let expected = [
            "{\"id\":1} {\"id\":1,\"name\":\"b\"}",
            "{\"id\":2} -",
            "{\"id\":3} {\"id\":3,\"name\":\"d\"}",
            "{\"id\":4} {\"id\":4,\"name\":\"f\"}",
            "{\"id\":5} -",
        ];
        assert_eq!(
            records(Format::Upsert, &[0], false, batches).unwrap(),
            expected
        );
        assert_eq!(
            records(Format::Upsert, &[], false, batches)
                .unwrap_err()
                .message(),
            "a sink with FORMAT UPSERT or DEBEZIUM needs a key"
        );
    }

    #[test]
    fn debezium_tells_creation_update_and_deletion() {
        let batches: &[&[_]] = &[&[(-1, 1, "a")], &[(1, 1, "b"), (-1, 2, "c"), (1, 3, "d")]];
        let tail = "\"source\":{\"connector\":\"tidemark\",\"ts_ms\":5}";
        let expected = [
            format!(
                "{{\"id\":1}} {{\"before\":{{\"id\":1,\"name\":\"a\"}},\
                 \"after\":{{\"id\":1,\"name\":\"b\"}},{tail},\"op\":\"u\",\"ts_ms\":5}}"
            ),
            format!(
                "{{\"id\":2}} {{\"before\":{{\"id\":2,\"name\":\"c\"}},\
                 \"after\":null,{tail},\"op\":\"d\",\"ts_ms\":5}}"
            ),
            format!(
                "{{\"id\":3}} {{\"before\":null,\
                 \"after\":{{\"id\":3,\"name\":\"d\"}},{tail},\"op\":\"c\",\"ts_ms\":5}}"
            ),
        ];
        assert_eq!(
            records(Format::Debezium, &[0], false, batches).unwrap(),
            expected
        );
    }
}
