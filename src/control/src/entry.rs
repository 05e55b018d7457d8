//! The entries of the decision log. Their serialised form is what will be replicated: a JSON
//! header, so that an old log can always be read, and behind it the written rows as Arrow IPC and
//! the errors as Parquet.

use arrow::array::{Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_changelog::connector::SplitPosition;
use tidemark_common::{Epoch, Error, RelationId, Result};
use tidemark_plan::{Relation, Stopped};
use tidemark_state::errors::{KeptError, decode_errors, encode_errors};

/// One decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    /// This node opened the log; whatever carries an older generation and was not decided is void.
    Opened {
        /// The new generation.
        generation: u64,
    },
    /// An epoch is decided.
    Cut(Cut),
    /// A relation exists, from epoch `relation.created_at` on if it has one. A job counts only once
    /// a committed checkpoint contains it: recovery forgets one that none does.
    Create {
        /// The relation.
        relation: Box<Relation>,
        /// Where its own connector starts, resolved once.
        start: Vec<SplitPosition>,
        /// Where its job began to read sources that had lost records from their start on.
        #[serde(default)]
        begins: BTreeMap<RelationId, Vec<SplitPosition>>,
    },
    /// A source has more splits from here on.
    AddSplits {
        /// The source.
        relation: RelationId,
        /// Where they start.
        start: Vec<SplitPosition>,
    },
    /// The broker may take records of this source away from now on: the cuts of epochs after this
    /// one hold the rows that were read.
    LogRows {
        /// The source.
        relation: RelationId,
        /// The last epoch without them.
        after: Epoch,
    },
    /// These relations are gone.
    Drop {
        /// Their ids.
        relations: Vec<RelationId>,
    },
    /// A change of names.
    Change(CatalogChange),
    /// A job stopped after its last complete epoch.
    Stop {
        /// The job.
        relation: RelationId,
        /// When and why.
        stopped: Stopped,
    },
    /// A checkpoint counts from here on.
    Checkpoint {
        /// Its epoch.
        epoch: Epoch,
        /// The manifest's path in the object store.
        manifest: String,
    },
}

/// What fixes an epoch's input.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cut {
    /// The epoch.
    pub epoch: Epoch,
    /// Its clock, microseconds since 1970; never decreases.
    pub clock: i64,
    /// End positions of the splits of each source, for the sources that moved.
    pub positions: BTreeMap<RelationId, Vec<SplitPosition>>,
    /// Rows written by DML, and rows of sources whose records may be taken away, in the order of
    /// reading.
    #[serde(skip)]
    pub writes: Vec<TableWrites>,
    /// Errors of records of those sources.
    #[serde(skip)]
    pub errors: Vec<KeptError>,
    /// Lengths of the encoded writes behind the header, with their tables.
    #[serde(default)]
    write_lengths: Vec<(RelationId, usize)>,
    /// Length of the encoded errors behind the writes.
    #[serde(default)]
    error_bytes: usize,
}

/// The rows that one epoch writes to a table.
#[derive(Clone, Debug)]
pub struct TableWrites {
    /// The table.
    pub table: RelationId,
    /// -old +new, resolved against all earlier writes.
    pub changes: ChangeBatch,
}

impl PartialEq for TableWrites {
    fn eq(&self, other: &TableWrites) -> bool {
        self.table == other.table
            && self.changes.rows() == other.changes.rows()
            && self.changes.weight_column() == other.changes.weight_column()
            && self.changes.faulty() == other.changes.faulty()
    }
}

/// Changes of the catalog that touch no job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CatalogChange {
    /// `ALTER ... RENAME TO`.
    Rename {
        /// Which.
        relation: RelationId,
        /// Its new name.
        name: String,
    },
    /// `ALTER ... SET SCHEMA`.
    SetSchema {
        /// Which.
        relation: RelationId,
        /// Its new schema.
        schema_name: String,
    },
    /// `COMMENT ON`.
    Comment {
        /// Which.
        relation: RelationId,
        /// The text; none removes it.
        comment: Option<String>,
    },
    /// `CREATE SCHEMA`.
    CreateSchema {
        /// Its name.
        name: String,
    },
    /// `DROP SCHEMA` of an empty schema.
    DropSchema {
        /// Its name.
        name: String,
    },
}

impl Cut {
    /// A cut of `epoch`, without errors.
    pub fn new(
        epoch: Epoch,
        clock: i64,
        positions: BTreeMap<RelationId, Vec<SplitPosition>>,
        writes: Vec<TableWrites>,
    ) -> Cut {
        Cut {
            epoch,
            clock,
            positions,
            writes,
            ..Cut::default()
        }
    }
}

impl Entry {
    /// Header length (u32, little-endian), JSON header, written rows, errors.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut blobs = Vec::new();
        let header = match self {
            Entry::Cut(cut) if !cut.writes.is_empty() || !cut.errors.is_empty() => {
                let mut cut = cut.clone();
                for write in &cut.writes {
                    let before = blobs.len();
                    encode_changes(&write.changes, &mut blobs)?;
                    cut.write_lengths.push((write.table, blobs.len() - before));
                }
                if !cut.errors.is_empty() {
                    let errors = encode_errors(&cut.errors)?;
                    cut.error_bytes = errors.len();
                    blobs.extend_from_slice(&errors);
                }
                serde_json::to_vec(&Entry::Cut(cut))
            }
            other => serde_json::to_vec(other),
        }
        .map_err(|e| Error::internal(format!("log entry cannot be encoded: {e}")))?;
        let mut bytes = Vec::with_capacity(4 + header.len() + blobs.len());
        bytes.extend_from_slice(&(header.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&blobs);
        Ok(bytes)
    }

    /// The inverse of [`Entry::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Entry> {
        let damaged = |what: &str| Error::corrupt(format!("log entry: {what}"));
        let length = bytes.get(..4).ok_or_else(|| damaged("no header"))?;
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let header = bytes
            .get(4..4 + length)
            .ok_or_else(|| damaged("header is cut off"))?;
        let mut entry: Entry =
            serde_json::from_slice(header).map_err(|e| damaged(&e.to_string()))?;
        if let Entry::Cut(cut) = &mut entry {
            let mut rest = &bytes[4 + length..];
            for (table, length) in std::mem::take(&mut cut.write_lengths) {
                let blob = rest
                    .get(..length)
                    .ok_or_else(|| damaged("written rows are cut off"))?;
                cut.writes.push(TableWrites {
                    table,
                    changes: decode_changes(blob)?,
                });
                rest = &rest[length..];
            }
            let length = std::mem::take(&mut cut.error_bytes);
            if length > 0 {
                let blob = rest
                    .get(..length)
                    .ok_or_else(|| damaged("errors are cut off"))?;
                cut.errors = decode_errors(blob.to_vec()).map_err(|e| e.context("log entry"))?;
            }
        }
        Ok(entry)
    }
}

const WEIGHT: &str = "_weight";
/// In the rows' metadata: where a value stands that could not be read.
const FAULTY: &str = "tidemark.faulty";

fn encode_changes(changes: &ChangeBatch, into: &mut Vec<u8>) -> Result<()> {
    let failed = |e: arrow::error::ArrowError| {
        Error::internal(format!("written rows cannot be encoded: {e}"))
    };
    let mut fields: Vec<_> = changes.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(WEIGHT, DataType::Int64, false)));
    let mut columns = changes.rows().columns().to_vec();
    columns.push(Arc::new(changes.weight_column()));
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(failed)?;
    let schema = match changes.faulty() {
        None => batch.schema(),
        Some(faulty) => {
            let text = serde_json::to_string(&faulty[..])
                .map_err(|e| Error::internal(format!("written rows cannot be encoded: {e}")))?;
            let fields = batch.schema().fields().clone();
            Arc::new(Schema::new_with_metadata(
                fields,
                [(FAULTY.into(), text)].into(),
            ))
        }
    };
    let batch = batch.with_schema(schema).map_err(failed)?;
    let mut writer = StreamWriter::try_new(into, &batch.schema()).map_err(failed)?;
    writer.write(&batch).map_err(failed)?;
    writer.finish().map_err(failed)
}

fn decode_changes(bytes: &[u8]) -> Result<ChangeBatch> {
    let damaged =
        |e: arrow::error::ArrowError| Error::corrupt(format!("log entry: written rows: {e}"));
    let batch = StreamReader::try_new(bytes, None)
        .map_err(damaged)?
        .next()
        .ok_or_else(|| Error::corrupt("log entry: written rows are missing"))?
        .map_err(damaged)?;
    let columns = batch.num_columns() - 1;
    let weights = batch
        .column(columns)
        .as_any()
        .downcast_ref::<Int64Array>()
        .ok_or_else(|| Error::corrupt("log entry: written rows have no weights"))?
        .values()
        .to_vec();
    let faulty = match batch.schema().metadata().get(FAULTY) {
        None => Vec::new(),
        Some(text) => serde_json::from_str(text)
            .map_err(|e| Error::corrupt(format!("log entry: written rows: {e}")))?,
    };
    // The rows' own schema has no metadata.
    let fields = batch.schema().fields()[..columns].to_vec();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let rows = RecordBatch::try_new_with_options(
        Arc::new(Schema::new(fields)),
        batch.columns()[..columns].to_vec(),
        &options,
    )
    .map_err(damaged)?;
    Ok(ChangeBatch::new(rows, weights).with_faulty(faulty))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::StringArray;

    #[test]
    fn cut_with_written_rows_survives_the_round_trip() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("name", DataType::Utf8, true),
        ]));
        let rows = RecordBatch::try_new(
            schema,
            vec![
                Arc::new(Int64Array::from(vec![1, 1])),
                Arc::new(StringArray::from(vec!["old", "new"])),
            ],
        )
        .unwrap();
        let writes = vec![TableWrites {
            table: RelationId(7),
            changes: ChangeBatch::new(rows, vec![-1, 1]).with_faulty(vec![(1, 0), (0, 1)]),
        }];
        let position = SplitPosition {
            split: 2,
            topic_id: "t".into(),
            leader_epoch: 4,
            next_offset: 99,
            records: 98,
            time_ms: 97,
            event_time_micros: Some(-5),
        };
        let mut cut = Cut::new(
            Epoch(5),
            1234,
            BTreeMap::from([(RelationId(3), vec![position])]),
            writes,
        );
        assert_eq!(
            Entry::decode(&Entry::Cut(cut.clone()).encode().unwrap()).unwrap(),
            Entry::Cut(cut.clone())
        );
        cut.errors.push(KeptError {
            relation: RelationId(3),
            row: Arc::default(),
            weight: 1,
        });
        let entry = Entry::Cut(cut);
        assert_eq!(Entry::decode(&entry.encode().unwrap()).unwrap(), entry);
    }

    #[test]
    fn damage_is_an_error() {
        let bytes = Entry::Opened { generation: 3 }.encode().unwrap();
        for cut in 0..bytes.len() {
            assert!(Entry::decode(&bytes[..cut]).is_err());
        }
    }
}
