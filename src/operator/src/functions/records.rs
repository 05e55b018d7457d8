//! Rows as values: Arrow's structs, whose fields are by position.
//!
//! * `ROW(a, b)` has fields `f1`, `f2`, .. as PostgreSQL names them; `named_record(a, b, names)`
//!   has those of a NULL of a struct type, which is how a table's row keeps its columns' names;
//! * `record_field(row, of, name)` is a field, told by a NULL of a struct type that has this field
//!   alone, and named for who reads plans; that of a row that is NULL is NULL;
//! * `record_is_null(row)` and `record_is_not_null(row)` are PostgreSQL's `IS [NOT] NULL`: whether
//!   all fields are NULL, or none is. A field that is a row itself counts by being there;
//! * casts go field by field, in order. Texts are read by `tidemark_values::record`.
//!
//! Rows compare by the keys of their fields one after the other (`array::row_keys`), where NULL
//! equals NULL and is above everything.

use super::casts::cast_elements;
use super::definition::{Definition, column, external, failure, result, rows};
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, StringArray, StringBuilder, StructArray,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{DataType, FieldRef, Fields};
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;
use tidemark_common::SqlState;
use tidemark_values::moment::Zone;
use tidemark_values::record;

/// The functions of this file.
pub(super) fn definitions() -> Vec<Definition> {
    let of_row = |types: &[DataType]| match types {
        [DataType::Struct(_)] => Some(types.to_vec()),
        _ => None,
    };
    let comparison = |name| Definition {
        name,
        aliases: &[],
        takes: |types| (types.len() == 2).then(|| types.to_vec()),
        returns: |_| DataType::Boolean,
        // The planner puts the operator in its place.
        evaluate: |_| exec_err!("rows of different types are not compared"),
    };
    let comparisons = [
        "record_eq",
        "record_ne",
        "record_lt",
        "record_le",
        "record_gt",
        "record_ge",
    ];
    let mut all: Vec<Definition> = comparisons.map(comparison).into();
    all.extend([
        Definition {
            name: "struct",
            aliases: &["row"],
            takes: |types| Some(types.to_vec()),
            returns: record_of,
            evaluate: |args| made(args, args.args.len()),
        },
        Definition {
            name: "named_record",
            aliases: &[],
            takes: |types| match types.split_last() {
                Some((DataType::Struct(names), values)) if names.len() == values.len() => {
                    Some(types.to_vec())
                }
                _ => None,
            },
            returns: named_record_of,
            evaluate: |args| made(args, args.args.len() - 1),
        },
        Definition {
            name: "record_field",
            aliases: &[],
            takes: |types| match types {
                [
                    DataType::Struct(fields),
                    DataType::Struct(name),
                    DataType::Utf8,
                ] if place(fields, name).is_some() => Some(types.to_vec()),
                _ => None,
            },
            returns: field_type,
            evaluate: field_of,
        },
        Definition {
            name: "record_is_null",
            aliases: &[],
            takes: of_row,
            returns: |_| DataType::Boolean,
            evaluate: |args| every_field(args, true),
        },
        Definition {
            name: "record_is_not_null",
            aliases: &[],
            takes: of_row,
            returns: |_| DataType::Boolean,
            evaluate: |args| every_field(args, false),
        },
    ]);
    all
}

fn record_of(types: &[DataType]) -> DataType {
    let field = |(i, t): (usize, &DataType)| {
        let name = format!("f{}", i + 1);
        Arc::new(arrow::datatypes::Field::new(name, t.clone(), true))
    };
    DataType::Struct(types.iter().enumerate().map(field).collect())
}

fn named_record_of(types: &[DataType]) -> DataType {
    let Some((DataType::Struct(names), values)) = types.split_last() else {
        return DataType::Null;
    };
    let fields = names.iter().zip(values).map(|(name, t)| {
        let field = arrow::datatypes::Field::new(name.name(), t.clone(), true);
        Arc::new(field)
    });
    DataType::Struct(fields.collect())
}

/// A row of the first so many arguments.
fn made(args: &ScalarFunctionArgs, width: usize) -> Result<ColumnarValue> {
    let values = (0..width).map(|i| column(args, i));
    let values = values.collect::<Result<Vec<_>>>()?;
    let DataType::Struct(fields) = args.return_field.data_type() else {
        return exec_err!("a row as {}", args.return_field.data_type());
    };
    let record = if values.is_empty() {
        StructArray::new_empty_fields(rows(args), None)
    } else {
        StructArray::try_new(Fields::clone(fields), values, None)?
    };
    result(args, Arc::new(record))
}

/// Where the one field of `name` is among the fields.
fn place(fields: &Fields, name: &Fields) -> Option<usize> {
    let [name] = name.as_ref() else {
        return None;
    };
    fields.iter().position(|field| field.name() == name.name())
}

fn field_type(types: &[DataType]) -> DataType {
    match types {
        [DataType::Struct(fields), DataType::Struct(name), ..] => {
            place(fields, name).map_or(DataType::Null, |at| fields[at].data_type().clone())
        }
        _ => DataType::Null,
    }
}

fn field_of(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let records = column(args, 0)?;
    let name = args.args[1].data_type();
    let (DataType::Struct(fields), DataType::Struct(name)) = (records.data_type(), &name) else {
        return exec_err!("a field of {}", records.data_type());
    };
    let Some(at) = place(fields, name) else {
        return exec_err!("a row without this field");
    };
    let records = records.as_struct();
    result(args, there(records.column(at), records.nulls())?)
}

/// Values, NULL where the rows that they are of are.
fn there(values: &ArrayRef, nulls: Option<&NullBuffer>) -> Result<ArrayRef> {
    let Some(nulls) = nulls.filter(|nulls| nulls.null_count() > 0) else {
        return Ok(values.clone());
    };
    if *values.data_type() == DataType::Null {
        return Ok(values.clone());
    }
    let absent = BooleanArray::new(!nulls.inner(), None);
    Ok(arrow::compute::nullif(values, &absent)?)
}

/// Whether every field is NULL, or is not.
fn every_field(args: &ScalarFunctionArgs, null: bool) -> Result<ColumnarValue> {
    let records = column(args, 0)?;
    let records = records.as_struct();
    let mut all = BooleanBuffer::new_set(records.len());
    for values in records.columns() {
        let valid = match values.logical_nulls() {
            Some(nulls) => nulls.into_inner(),
            None => BooleanBuffer::new_set(records.len()),
        };
        all = &all & &(if null { !&valid } else { valid });
    }
    if let Some(nulls) = records.nulls() {
        let absent = !nulls.inner();
        all = if null {
            &all | &absent
        } else {
            &all & nulls.inner()
        };
    }
    result(args, Arc::new(BooleanArray::new(all, None)))
}

/// Rows as rows of other fields, in order.
///
/// Errors: `42846` for rows of another width, and those of the casts of the fields.
pub(super) fn cast_records(
    records: &StructArray,
    fields: &Fields,
    zone: &Zone,
) -> Result<ArrayRef> {
    if records.num_columns() != fields.len() {
        return Err(failure(
            SqlState("42846"),
            "cannot cast a row to one of another width",
        ));
    }
    let nulls = records.nulls();
    let columns = records.columns().iter().zip(fields);
    let columns = columns
        .map(|(values, field)| cast_elements(&there(values, nulls)?, field, zone))
        .collect::<Result<Vec<_>>>()?;
    put_together(fields, columns, nulls.cloned(), records.len())
}

/// Rows of their texts.
///
/// Errors: `22P02` for a text that is none, and those of reading the fields.
pub(super) fn records_of_text(
    texts: &StringArray,
    fields: &Fields,
    zone: &Zone,
) -> Result<ArrayRef> {
    let read = |texts: &ArrayRef, field: &FieldRef| cast_elements(texts, field, zone);
    let parts = parts_of_text(texts, fields.len()).map_err(external)?;
    let columns = parts
        .iter()
        .zip(fields)
        .map(|(part, field)| read(part, field));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    put_together(fields, columns, texts.nulls().cloned(), texts.len())
}

/// The texts of the fields of rows that are texts.
///
/// Errors: `22P02` for a text that is no row of so many fields.
pub fn parts_of_text(texts: &StringArray, fields: usize) -> tidemark_common::Result<Vec<ArrayRef>> {
    let mut parts: Vec<StringBuilder> = (0..fields).map(|_| StringBuilder::new()).collect();
    for text in texts {
        match text {
            Some(text) => record::read(text, fields, |at, part| parts[at].append_option(part))?,
            None => parts.iter_mut().for_each(StringBuilder::append_null),
        }
    }
    let arrays = parts
        .iter_mut()
        .map(|part| Arc::new(part.finish()) as ArrayRef);
    Ok(arrays.collect())
}

fn put_together(
    fields: &Fields,
    columns: Vec<ArrayRef>,
    nulls: Option<NullBuffer>,
    rows: usize,
) -> Result<ArrayRef> {
    let fields = Fields::clone(fields);
    let records = StructArray::try_new_with_length(fields, columns, nulls, rows)?;
    Ok(Arc::new(records))
}
