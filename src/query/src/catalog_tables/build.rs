//! System tables by description: a table is a text of `column type [= default]`, a row names only
//! the columns that differ from their defaults.
//!
//! Types are PostgreSQL's: `oid int2 int4 int8 bool text name char float4 timestamptz int2[] oid[]
//! text[]`. Without a default a column is NULL.

use crate::types::SQL_TYPE;
use arrow::array::*;
use arrow::datatypes::{DataType, Field, Int16Type, Int32Type, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::{MemTable, TableProvider};
use std::collections::HashMap;
use std::sync::Arc;
use tidemark_common::{Error, Result};

/// A value of a system table.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Null,
    Int(i64),
    Bool(bool),
    Text(String),
    Ints(Vec<i64>),
    Texts(Vec<String>),
}

impl From<i32> for Cell {
    fn from(v: i32) -> Cell {
        Cell::Int(v.into())
    }
}
impl From<i64> for Cell {
    fn from(v: i64) -> Cell {
        Cell::Int(v)
    }
}
impl From<usize> for Cell {
    fn from(v: usize) -> Cell {
        Cell::Int(v as i64)
    }
}
impl From<bool> for Cell {
    fn from(v: bool) -> Cell {
        Cell::Bool(v)
    }
}
impl From<&str> for Cell {
    fn from(v: &str) -> Cell {
        Cell::Text(v.into())
    }
}
impl From<String> for Cell {
    fn from(v: String) -> Cell {
        Cell::Text(v)
    }
}
impl From<&String> for Cell {
    fn from(v: &String) -> Cell {
        Cell::Text(v.clone())
    }
}
impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(v: Option<T>) -> Cell {
        v.map_or(Cell::Null, Into::into)
    }
}

/// A row: the columns that differ from their defaults.
pub type Row = Vec<(&'static str, Cell)>;

struct Column {
    name: &'static str,
    kind: &'static str,
    default: Cell,
}

fn columns(description: &'static str) -> Vec<Column> {
    let column = |text: &'static str| {
        let (left, default) = text
            .split_once('=')
            .map_or((text, None), |(l, d)| (l, Some(d.trim())));
        let mut words = left.split_whitespace();
        let (name, kind) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or("text"),
        );
        let default = match default {
            None => Cell::Null,
            Some(d) if kind == "bool" => Cell::Bool(d == "true"),
            Some(d) => d
                .parse()
                .map_or_else(|_| Cell::Text(d.trim_matches('\'').into()), Cell::Int),
        };
        let default = if matches!(kind, "text" | "name" | "char")
            && let Cell::Int(n) = default
        {
            Cell::Text(n.to_string())
        } else {
            default
        };
        Column {
            name,
            kind,
            default,
        }
    };
    description
        .split(',')
        .map(str::trim)
        .filter(|c| !c.is_empty())
        .map(column)
        .collect()
}

fn arrow_type(kind: &str) -> (DataType, &'static str) {
    let list = |t: DataType| DataType::List(Arc::new(Field::new_list_field(t, true)));
    match kind {
        "oid" => (DataType::Int32, "oid"),
        "int2" => (DataType::Int16, ""),
        "int4" => (DataType::Int32, ""),
        "int8" => (DataType::Int64, ""),
        "float4" => (DataType::Float32, ""),
        "bool" => (DataType::Boolean, ""),
        "name" => (DataType::Utf8, "name"),
        "char" => (DataType::Utf8, "\"char\""),
        "timestamptz" => (
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            "",
        ),
        "int2[]" => (list(DataType::Int16), ""),
        "int2vector" => (list(DataType::Int16), "int2vector"),
        "oidvector" => (list(DataType::Int32), "oidvector"),
        "oid[]" => (list(DataType::Int32), "oid[]"),
        "text[]" => (list(DataType::Utf8), "text[]"),
        _ => (DataType::Utf8, "text"),
    }
}

/// The columns of a description: their names and kinds.
pub fn names_and_kinds(description: &'static str) -> Vec<(&'static str, &'static str)> {
    let columns = columns(description);
    columns.iter().map(|c| (c.name, c.kind)).collect()
}

/// A field with the text of its SQL type.
pub fn field(name: &str, data_type: DataType, sql: &str) -> Field {
    let field = Field::new(name, data_type, true);
    if sql.is_empty() {
        field
    } else {
        field.with_metadata([(SQL_TYPE.to_string(), sql.to_string())].into())
    }
}

/// Builds the table.
pub fn table(description: &'static str, rows: Vec<Row>) -> Result<Arc<dyn TableProvider>> {
    let columns = columns(description);
    let schema: SchemaRef = Arc::new(Schema::new(
        columns
            .iter()
            .map(|c| {
                let (t, sql) = arrow_type(c.kind);
                field(c.name, t, sql)
            })
            .collect::<Vec<_>>(),
    ));
    let rows: Vec<HashMap<&str, Cell>> =
        rows.into_iter().map(|r| r.into_iter().collect()).collect();
    if let Some(unknown) = rows
        .first()
        .and_then(|r| r.keys().find(|k| !columns.iter().any(|c| c.name == **k)))
    {
        return Err(Error::internal(format!(
            "a system table has no column {unknown}"
        )));
    }
    let cells = |c: &Column| {
        rows.iter()
            .map(|r| r.get(c.name).unwrap_or(&c.default).clone())
            .collect::<Vec<_>>()
    };
    let arrays: Vec<ArrayRef> = columns
        .iter()
        .zip(schema.fields())
        .map(|(c, f)| array(&cells(c), f.data_type()))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let batch = RecordBatch::try_new_with_options(schema.clone(), arrays, &options)
        .map_err(crate::error::from_arrow)?;
    Ok(Arc::new(
        MemTable::try_new(schema, vec![vec![batch]]).map_err(crate::error::from_datafusion)?,
    ))
}

fn int(cell: &Cell) -> Option<i64> {
    if let Cell::Int(v) = cell {
        Some(*v)
    } else {
        None
    }
}

fn array(cells: &[Cell], data_type: &DataType) -> ArrayRef {
    let ints = |c: &Cell| {
        if let Cell::Ints(v) = c {
            Some(v.clone())
        } else {
            None
        }
    };
    match data_type {
        DataType::Int16 => Arc::new(
            cells
                .iter()
                .map(|c| int(c).map(|v| v as i16))
                .collect::<Int16Array>(),
        ),
        DataType::Int32 => Arc::new(
            cells
                .iter()
                .map(|c| int(c).map(|v| v as i32))
                .collect::<Int32Array>(),
        ),
        DataType::Int64 => Arc::new(cells.iter().map(int).collect::<Int64Array>()),
        DataType::Float32 => Arc::new(
            cells
                .iter()
                .map(|c| int(c).map(|v| v as f32))
                .collect::<Float32Array>(),
        ),
        DataType::Boolean => Arc::new(
            cells
                .iter()
                .map(|c| {
                    if let Cell::Bool(b) = c {
                        Some(*b)
                    } else {
                        None
                    }
                })
                .collect::<BooleanArray>(),
        ),
        DataType::Timestamp(..) => Arc::new(
            cells
                .iter()
                .map(int)
                .collect::<TimestampMicrosecondArray>()
                .with_timezone("UTC"),
        ),
        DataType::List(f) if *f.data_type() == DataType::Int16 => {
            Arc::new(ListArray::from_iter_primitive::<Int16Type, _, _>(
                cells
                    .iter()
                    .map(|c| ints(c).map(|v| v.into_iter().map(|i| Some(i as i16)))),
            ))
        }
        DataType::List(f) if *f.data_type() == DataType::Int32 => {
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(
                cells
                    .iter()
                    .map(|c| ints(c).map(|v| v.into_iter().map(|i| Some(i as i32)))),
            ))
        }
        DataType::List(_) => {
            let mut builder = ListBuilder::new(StringBuilder::new());
            for cell in cells {
                if let Cell::Texts(values) = cell {
                    values.iter().for_each(|v| builder.values().append_value(v));
                }
                builder.append(matches!(cell, Cell::Texts(_)));
            }
            Arc::new(builder.finish())
        }
        _ => Arc::new(
            cells
                .iter()
                .map(|c| match c {
                    Cell::Text(t) => Some(t.clone()),
                    Cell::Int(n) => Some(n.to_string()),
                    _ => None,
                })
                .collect::<StringArray>(),
        ),
    }
}
