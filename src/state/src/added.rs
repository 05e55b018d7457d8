//! The values that rows have in columns which were added after them.
//!
//! Such a column's field carries its value as a text (see `tidemark_plan::MISSING`): the
//! hexadecimal digits of an Arrow IPC stream of one row and one column, so that it is of any type.
//! Rows without the column get it where they are met: those of an older checkpoint file where it is
//! read, those of the log and those on their way at the operator that keeps them.

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Error, Result};
use tidemark_plan::{MISSING, Relation};

/// The text for the only value of an array.
///
/// Errors: `XX000` for an array of another length, or one that cannot be written.
pub fn encode(value: &ArrayRef) -> Result<String> {
    if value.len() != 1 {
        return Err(Error::internal("a missing value is one value"));
    }
    let field = Field::new("value", value.data_type().clone(), true);
    let schema = Arc::new(Schema::new(vec![field]));
    let failed = |e: arrow::error::ArrowError| Error::internal(e.to_string());
    let rows = RecordBatch::try_new(schema.clone(), vec![value.clone()]).map_err(failed)?;
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, &schema).map_err(failed)?;
    writer.write(&rows).map_err(failed)?;
    writer.finish().map_err(failed)?;
    drop(writer);
    let digits = |byte: &u8| [byte >> 4, byte & 15].map(|d| char::from_digit(d.into(), 16));
    Ok(bytes.iter().flat_map(digits).flatten().collect())
}

/// The inverse of [`encode`]; `None` for a text that is none, or of another type.
pub fn decode(text: &str, data_type: &DataType) -> Option<ArrayRef> {
    let byte = |pair: &[u8]| {
        let digit = |d: u8| char::from(d).to_digit(16);
        let &[high, low] = pair else {
            return None;
        };
        u8::try_from(digit(high)? << 4 | digit(low)?).ok()
    };
    let pairs = text.as_bytes().chunks(2);
    let bytes: Vec<u8> = pairs.map(byte).collect::<Option<_>>()?;
    let mut rows = StreamReader::try_new(bytes.as_slice(), None).ok()?;
    let rows = rows.next()?.ok()?;
    let value = rows.columns().first().filter(|c| c.len() == 1)?.clone();
    (value.data_type() == data_type).then_some(value)
}

/// What rows without the column have in it: one value. `None` for a column that was there from the
/// beginning.
pub fn missing(field: &Field) -> Option<ArrayRef> {
    decode(field.metadata().get(MISSING)?, field.data_type())
}

/// The same of the column at this position of a table.
pub fn missing_at(table: &Relation, column: usize) -> Option<ArrayRef> {
    let fragments = table.job.iter().flat_map(|job| &job.fragments);
    let root = fragments.last().map(|fragment| &fragment.root)?;
    missing(root.schema.fields().get(column)?)
}

/// How many columns of a table were there from its beginning: by their hash rows are where they
/// are, if they have no key.
pub fn first_columns(schema: &Schema) -> usize {
    let fields = schema.fields().iter();
    fields
        .take_while(|f| !f.metadata().contains_key(MISSING))
        .count()
}

/// A value so many times.
pub fn repeated(value: &ArrayRef, rows: usize) -> ArrayRef {
    let first = UInt32Array::from(vec![0; rows]);
    arrow::compute::take(value, &first, None).expect("the first value is there")
}

/// Columns with those of `schema` that they lack, which come behind them.
pub fn widened_columns(mut columns: Vec<ArrayRef>, rows: usize, schema: &Schema) -> Vec<ArrayRef> {
    for field in schema.fields().iter().skip(columns.len()) {
        let value = missing(field).expect("a column that rows may lack has a value for them");
        columns.push(repeated(&value, rows));
    }
    columns
}

/// Rows with all columns of `schema`.
pub fn widened_rows(rows: &RecordBatch, schema: &SchemaRef) -> RecordBatch {
    let count = rows.num_rows();
    let columns = widened_columns(rows.columns().to_vec(), count, schema);
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .expect("what is there has the types of the first columns")
}

/// Changes of a table with all columns of `schema`; cheap if they have them.
pub fn widened(changes: ChangeBatch, schema: &SchemaRef) -> ChangeBatch {
    if changes.rows().num_columns() >= schema.fields().len() {
        return changes;
    }
    let rows = widened_rows(changes.rows(), schema);
    ChangeBatch::with_weights(rows, changes.weights().cloned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, ListArray, StringArray, new_null_array};
    use arrow::datatypes::Int64Type;
    use std::collections::HashMap;

    fn added(name: &str, value: &ArrayRef) -> Field {
        let field = Field::new(name, value.data_type().clone(), true);
        let text = encode(value).unwrap();
        field.with_metadata(HashMap::from([(MISSING.to_string(), text)]))
    }

    #[test]
    fn a_value_of_any_type_comes_back_and_damage_does_not() {
        let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some([
            Some(1),
            None,
        ])]));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["it's \u{e9}"]));
        let null = new_null_array(&DataType::Decimal128(10, 2), 1);
        for value in [list, text, null] {
            assert_eq!(
                missing(&added("c", &value)).unwrap().as_ref(),
                value.as_ref()
            );
            let field = added("c", &value);
            let other = field.clone().with_data_type(DataType::Boolean);
            assert!(missing(&other).is_none(), "of another type");
            let cut = &field.metadata()[MISSING];
            for end in [0, 1, 7, cut.len() / 2 + 1] {
                assert!(decode(&cut[..end], value.data_type()).is_none());
            }
        }
        assert!(encode(&new_null_array(&DataType::Int64, 2)).is_err());
        assert!(missing(&Field::new("c", DataType::Int64, true)).is_none());
    }

    #[test]
    fn rows_get_what_they_lack_and_nothing_else() {
        let seven: ArrayRef = Arc::new(Int64Array::from(vec![7]));
        let fields = vec![Field::new("k", DataType::Int64, true), added("c", &seven)];
        let schema = Arc::new(Schema::new(fields));
        assert_eq!(first_columns(&schema), 1);
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let narrow = RecordBatch::try_from_iter([("k", keys)]).unwrap();
        let wide = widened(ChangeBatch::new(narrow, vec![1, -1]), &schema);
        assert_eq!(wide.column(1).as_ref(), &Int64Array::from(vec![7, 7]));
        assert_eq!((wide.weight(0), wide.weight(1)), (1, -1));
        let again = widened(wide.clone(), &schema);
        assert_eq!(again.rows(), wide.rows());
    }
}
