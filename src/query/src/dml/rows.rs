//! Batches of a table's rows: their schema, checks of NULL, their keys.

use super::*;

/// The batch under another schema of the same types (names, metadata, nullability differ). A NULL
/// where none is allowed is for the engine to report.
pub(super) fn redress(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let relaxed = Arc::new(Schema::new(
        schema
            .fields()
            .iter()
            .zip(batch.columns())
            .map(|(f, c)| {
                f.as_ref()
                    .clone()
                    .with_nullable(f.is_nullable() || c.null_count() > 0)
            })
            .collect::<Vec<Field>>(),
    ));
    RecordBatch::try_new(relaxed, batch.columns().to_vec()).map_err(crate::error::from_arrow)
}

/// A batch of the table's columns, those that are generated computed; a NULL in a NOT NULL column
/// is an error that names it.
pub(super) fn nullable_batch(relation: &Relation, arrays: Vec<ArrayRef>) -> Result<RecordBatch> {
    let plain = |(array, column): (ArrayRef, &tidemark_plan::Column)| {
        // What a function of DataFusion's gives as a view.
        if matches!(array.data_type(), DataType::Utf8View) {
            arrow::compute::cast(&array, &column.data_type).map_err(crate::error::from_arrow)
        } else {
            Ok(array)
        }
    };
    let arrays = arrays.into_iter().zip(&relation.columns);
    let mut arrays = arrays.map(plain).collect::<Result<Vec<_>>>()?;
    super::generated::compute(relation, &mut arrays)?;
    for (array, column) in arrays.iter().zip(&relation.columns) {
        if !column.nullable && array.null_count() > 0 {
            return Err(Error::user(
                SqlState::NOT_NULL_VIOLATION,
                format!(
                    "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                    column.name, relation.name
                ),
            ));
        }
    }
    RecordBatch::try_new(relation.arrow_schema(), arrays).map_err(crate::error::from_arrow)
}

pub(super) fn one_batch(batches: Vec<RecordBatch>, relation: &Relation) -> Result<RecordBatch> {
    let Some(first) = batches.first() else {
        return Ok(RecordBatch::new_empty(relation.arrow_schema()));
    };
    let batch = concat_batches(&first.schema(), &batches).map_err(crate::error::from_arrow)?;
    computed_batch(relation, batch.columns().to_vec())
}

/// A batch of computed values, checked as inputs are.
pub fn computed_batch(relation: &Relation, arrays: Vec<ArrayRef>) -> Result<RecordBatch> {
    let arrays = arrays
        .into_iter()
        .zip(&relation.columns)
        .map(|(array, column)| values::conform(array, column))
        .collect::<Result<_>>()?;
    nullable_batch(relation, arrays)
}

/// One text per row that stands for its values of some columns.
pub(super) fn texts_of(batch: &RecordBatch, columns: &[usize]) -> Vec<Vec<u8>> {
    let columns: Vec<ArrayRef> = columns.iter().map(|c| batch.column(*c).clone()).collect();
    let mut rows = vec![Vec::new(); batch.num_rows()];
    tidemark_changelog::key::encode_columns(&columns, &mut rows);
    rows
}

/// Of rows that a join repeats, the first of each key.
pub(super) fn first_of_each_key(
    batch: &RecordBatch,
    relation: &Relation,
    seen: &mut HashSet<Vec<u8>>,
) -> Result<RecordBatch> {
    let keep: BooleanArray = texts_of(batch, &relation.key)
        .into_iter()
        .map(|key| Some(seen.insert(key)))
        .collect();
    filter_record_batch(batch, &keep).map_err(crate::error::from_arrow)
}
