//! `tidemark.errors`, `tidemark.jobs`, `tidemark.checkpoints`, `tidemark.relations`,
//! `tidemark.clients`, `tidemark.settings`.

use crate::definition;
use crate::privileges::{UNSEEN, may_watch};
use crate::snapshot::Snapshot;
use arrow::array::*;
use arrow::datatypes::{Field, Schema};
use datafusion::catalog::{MemTable, TableProvider};
use std::sync::Arc;
use tidemark_common::Result;
use tidemark_plan::Relation;

/// A table from named columns.
pub fn memory(columns: Vec<(&str, ArrayRef)>) -> Result<Arc<dyn TableProvider>> {
    let schema = Arc::new(Schema::new(
        columns
            .iter()
            .map(|(n, a)| Field::new(*n, a.data_type().clone(), true))
            .collect::<Vec<_>>(),
    ));
    let batch = RecordBatch::try_new(
        schema.clone(),
        columns.into_iter().map(|(_, a)| a).collect(),
    )
    .map_err(crate::error::from_arrow)?;
    Ok(Arc::new(
        MemTable::try_new(schema, vec![vec![batch]]).map_err(crate::error::from_datafusion)?,
    ))
}

/// A column of text.
pub fn texts<T: Into<String>>(values: impl IntoIterator<Item = T>) -> ArrayRef {
    Arc::new(
        values
            .into_iter()
            .map(|v| Some(v.into()))
            .collect::<StringArray>(),
    )
}

fn longs(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn moments(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
}

/// The table of that name.
pub fn table(snapshot: &Snapshot, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
    let engine = snapshot.engine();
    let columns = match name {
        "errors" => {
            let mut rows = engine.errors();
            // Raw records are rows of the relation that could not be read: they are for who may
            // read those. Of a relation that is gone nobody can be asked.
            rows.retain(|((schema, name), _)| {
                let schema = schema.as_deref().unwrap_or("public");
                match snapshot.catalog.find(schema, name) {
                    Some(relation) => snapshot.check_read(relation).is_ok(),
                    None => snapshot.catalog.is_superuser(&snapshot.user),
                }
            });
            vec![
                (
                    "schema",
                    Arc::new(
                        rows.iter()
                            .map(|((schema, _), _)| schema.as_deref())
                            .collect::<StringArray>(),
                    ) as ArrayRef,
                ),
                (
                    "relation",
                    texts(rows.iter().map(|((_, name), _)| name.as_str())),
                ),
                ("epoch", longs(rows.iter().map(|(_, r)| r.epoch.0 as i64))),
                ("topic", texts(rows.iter().map(|(_, r)| r.topic.as_str()))),
                (
                    "partition",
                    Arc::new(Int32Array::from_iter_values(
                        rows.iter().map(|(_, r)| r.split as i32),
                    )) as ArrayRef,
                ),
                ("offset", longs(rows.iter().map(|(_, r)| r.offset))),
                ("column", texts(rows.iter().map(|(_, r)| r.column.as_str()))),
                (
                    "sqlstate",
                    texts(rows.iter().map(|(_, r)| r.state.as_str())),
                ),
                (
                    "message",
                    texts(rows.iter().map(|(_, r)| r.message.as_str())),
                ),
                (
                    "raw",
                    Arc::new(BinaryArray::from_iter_values(
                        rows.iter().map(|(_, r)| r.raw.as_slice()),
                    )) as ArrayRef,
                ),
            ]
        }
        "jobs" => {
            let rows: Vec<_> = engine
                .jobs()
                .into_iter()
                .filter(|j| !matches!(j.kind, "view" | "index"))
                .collect();
            vec![
                (
                    "id",
                    Arc::new(Int32Array::from_iter_values(
                        rows.iter().map(|r| r.relation.0 as i32),
                    )) as ArrayRef,
                ),
                ("name", texts(rows.iter().map(|r| r.name.as_str()))),
                ("kind", texts(rows.iter().map(|r| r.kind))),
                ("state", texts(rows.iter().map(|r| r.state))),
                (
                    "progress",
                    Arc::new(Float64Array::from_iter_values(
                        rows.iter().map(|r| r.progress),
                    )) as ArrayRef,
                ),
                ("rows", longs(rows.iter().map(|r| r.rows as i64))),
                (
                    "rows_per_second",
                    Arc::new(Float64Array::from_iter_values(
                        rows.iter().map(|r| r.rows_per_second),
                    )) as ArrayRef,
                ),
                ("epoch", longs(rows.iter().map(|r| r.epoch.0 as i64))),
                (
                    "epochs_behind",
                    longs(rows.iter().map(|r| r.epochs_behind as i64)),
                ),
                (
                    "memory_bytes",
                    longs(rows.iter().map(|r| r.memory_bytes as i64)),
                ),
                ("late_rows", longs(rows.iter().map(|r| r.late_rows as i64))),
                (
                    "watermark",
                    Arc::new(TimestampMicrosecondArray::from_iter(
                        rows.iter().map(|r| r.watermark.as_ref()?.micros),
                    )),
                ),
                (
                    "held_back_by",
                    Arc::new(StringArray::from_iter(
                        rows.iter()
                            .map(|r| r.watermark.as_ref()?.held_back_by.clone()),
                    )),
                ),
                (
                    "shares_rows_of",
                    Arc::new(
                        rows.iter()
                            .map(|r| r.shares_rows_of.clone())
                            .collect::<StringArray>(),
                    ),
                ),
                (
                    "undelivered_epochs",
                    longs(rows.iter().map(|r| r.undelivered_epochs as i64)),
                ),
                (
                    "error",
                    Arc::new(
                        rows.iter()
                            .map(|r| r.error.clone())
                            .collect::<StringArray>(),
                    ) as ArrayRef,
                ),
            ]
        }
        "checkpoints" => {
            let rows = engine.checkpoints();
            vec![
                ("epoch", longs(rows.iter().map(|r| r.epoch.0 as i64))),
                ("committed_at", moments(rows.iter().map(|r| r.committed_at))),
                (
                    "duration_ms",
                    longs(rows.iter().map(|r| r.duration_ms as i64)),
                ),
                ("bytes", longs(rows.iter().map(|r| r.bytes as i64))),
                ("files", longs(rows.iter().map(|r| r.files as i64))),
            ]
        }
        "relations" => {
            let rows: Vec<_> = snapshot.catalog.relations.values().collect();
            let sql = &snapshot.commons.sql;
            let planner = sql.planner(snapshot.catalog.clone(), &snapshot.search_path);
            // Options of connectors may have passwords: those are the owner's to read.
            let definition = |r: &&Arc<Relation>| {
                let shown = r.connector.is_none() || snapshot.catalog.owns(&snapshot.user, r);
                if shown {
                    definition::definition(&planner, r)
                } else {
                    String::new()
                }
            };
            let definitions: Vec<String> = rows.iter().map(definition).collect();
            vec![
                (
                    "id",
                    Arc::new(Int32Array::from_iter_values(
                        rows.iter().map(|r| r.id.0 as i32),
                    )) as ArrayRef,
                ),
                (
                    "schema_name",
                    texts(rows.iter().map(|r| r.schema_name.as_str())),
                ),
                ("name", texts(rows.iter().map(|r| r.name.as_str()))),
                ("kind", texts(rows.iter().map(|r| r.kind.name()))),
                ("owner", texts(rows.iter().map(|r| r.owner.as_str()))),
                (
                    "append_only",
                    Arc::new(
                        rows.iter()
                            .map(|r| Some(r.append_only))
                            .collect::<BooleanArray>(),
                    ) as ArrayRef,
                ),
                ("definition", texts(definitions.iter().map(String::as_str))),
            ]
        }
        "clients" => {
            let rows = snapshot.commons.clients.list();
            vec![
                (
                    "pid",
                    Arc::new(Int32Array::from_iter_values(rows.iter().map(|r| r.0))) as ArrayRef,
                ),
                ("user", texts(rows.iter().map(|r| r.1.user.as_str()))),
                ("address", texts(rows.iter().map(|r| r.1.address.as_str()))),
                ("since", moments(rows.iter().map(|r| r.1.since))),
                (
                    "running",
                    texts(rows.iter().map(|r| {
                        let doing = r.1.activity.look();
                        match may_watch(&snapshot.catalog, &snapshot.user, &r.1.user) {
                            true => doing.running().unwrap_or_default().to_string(),
                            false => UNSEEN.into(),
                        }
                    })),
                ),
            ]
        }
        "settings" => {
            let rows = snapshot.settings.all();
            vec![
                ("name", texts(rows.iter().map(|r| r.0))),
                ("setting", texts(rows.iter().map(|r| r.1))),
                ("description", texts(rows.iter().map(|r| r.2))),
            ]
        }
        _ => return Ok(None),
    };
    memory(columns).map(Some)
}
