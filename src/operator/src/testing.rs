//! Tables of changes for tests: a schema as `name type, ...`, and one change per line as `weight
//! value ...`, `-` for NULL.

use crate::functions::cast_array;
use crate::{Barrier, Operator, Out, RowError};
use arrow::array::*;
use arrow::compute::cast;
use arrow::datatypes::*;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Epoch, Result};

/// `k i64, v text` and the like.
pub fn schema(columns: &str) -> SchemaRef {
    let field = |column: &str| {
        let (name, data_type) = column.trim().split_once(' ').expect("name and type");
        let data_type = match data_type {
            "bool" => DataType::Boolean,
            "i16" => DataType::Int16,
            "i32" => DataType::Int32,
            "i64" => DataType::Int64,
            "f32" => DataType::Float32,
            "f64" => DataType::Float64,
            "text" => DataType::Utf8,
            "date" => DataType::Date32,
            "ts" => DataType::Timestamp(TimeUnit::Microsecond, None),
            "tstz" => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
            "dec" => DataType::Decimal128(20, 2),
            "span" => DataType::Interval(IntervalUnit::MonthDayNano),
            other => panic!("type {other}"),
        };
        Field::new(name, data_type, true)
    };
    Arc::new(Schema::new(
        columns
            .split(',')
            .filter(|c| !c.trim().is_empty())
            .map(field)
            .collect::<Vec<_>>(),
    ))
}

/// Changes with the columns of [`schema`].
pub fn changes(columns: &str, lines: &str) -> ChangeBatch {
    let schema = schema(columns);
    let rows: Vec<Vec<&str>> = lines
        .lines()
        .map(|l| l.split_whitespace().collect::<Vec<_>>())
        .filter(|l| !l.is_empty())
        .collect();
    let column = |(i, field): (usize, &FieldRef)| {
        let text: ArrayRef = Arc::new(StringArray::from_iter(
            rows.iter().map(|r| (r[i + 1] != "-").then_some(r[i + 1])),
        ));
        cast(&text, field.data_type()).expect("values parse")
    };
    let columns: Vec<ArrayRef> = schema.fields().iter().enumerate().map(column).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let batch = RecordBatch::try_new_with_options(schema, columns, &options).expect("columns fit");
    ChangeBatch::new(
        batch,
        rows.iter()
            .map(|r| r[0].parse().expect("a weight"))
            .collect(),
    )
}

/// Changes as lines.
pub fn table(changes: &ChangeBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("-");
    let printed: Vec<ArrayRef> = changes
        .rows()
        .columns()
        .iter()
        .map(|c| match c.data_type() {
            DataType::LargeBinary => cast_array(c, &DataType::Utf8).expect("numerics"),
            _ => c.clone(),
        })
        .collect();
    let columns: Vec<_> = printed
        .iter()
        .map(|c| ArrayFormatter::try_new(c.as_ref(), &options).expect("printable"))
        .collect();
    (0..changes.num_rows())
        .map(|row| {
            std::iter::once(format!("{:+}", changes.weight(row)))
                .chain(columns.iter().map(|c| c.value(row).to_string()))
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}

/// The barrier of an epoch.
pub fn barrier(epoch: u64) -> Barrier {
    Barrier {
        epoch: Epoch(epoch),
        clock: 0,
        checkpoint: true,
        horizon_ms: -1,
        watermarks: Default::default(),
    }
}

/// Remembers what an operator sends.
#[derive(Default)]
pub struct Recorder {
    pub batches: Vec<ChangeBatch>,
    pub errors: Vec<RowError>,
}

impl Recorder {
    /// What was sent since the last call, as lines.
    pub fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.batches)
            .iter()
            .flat_map(table)
            .collect()
    }
}

impl Out for Recorder {
    fn send(&mut self, batch: ChangeBatch) -> Result<()> {
        assert!(!batch.is_empty(), "an empty batch is never sent");
        self.batches.push(batch);
        Ok(())
    }

    fn row_error(&mut self, error: RowError) -> Result<()> {
        self.errors.push(error);
        Ok(())
    }
}

/// Feeds batches of lines, then a barrier; what was sent, as lines.
pub fn epoch(
    operator: &mut dyn Operator,
    number: u64,
    columns: &str,
    batches: &[&str],
) -> Vec<String> {
    let mut out = Recorder::default();
    for lines in batches {
        operator
            .on_changes(0, changes(columns, lines), &mut out)
            .expect("no failure");
    }
    operator
        .on_barrier(&barrier(number), &mut out)
        .expect("no failure");
    out.take()
}
