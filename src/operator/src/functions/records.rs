//! Rows as values: `ROW(a, b)`, whose fields are `f1`, `f2`, .. as PostgreSQL names them.

use super::definition::{Definition, column, result, rows};
use arrow::array::StructArray;
use arrow::datatypes::{DataType, Fields};
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;

/// The functions of this file.
pub(super) fn definitions() -> Vec<Definition> {
    vec![Definition {
        name: "struct",
        aliases: &["row"],
        takes: |types| Some(types.to_vec()),
        returns: record_of,
        evaluate: record,
    }]
}

fn record_of(types: &[DataType]) -> DataType {
    let field = |(i, t): (usize, &DataType)| {
        let name = format!("f{}", i + 1);
        Arc::new(arrow::datatypes::Field::new(name, t.clone(), true))
    };
    DataType::Struct(types.iter().enumerate().map(field).collect())
}

fn record(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let values = (0..args.args.len()).map(|i| column(args, i));
    let values = values.collect::<Result<Vec<_>>>()?;
    let DataType::Struct(fields) = args.return_field.data_type() else {
        return datafusion_common::exec_err!("a row as {}", args.return_field.data_type());
    };
    let record = if values.is_empty() {
        StructArray::new_empty_fields(rows(args), None)
    } else {
        StructArray::try_new(Fields::clone(fields), values, None)?
    };
    result(args, Arc::new(record))
}
