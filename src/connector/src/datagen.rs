//! Rows made to order, one rule a column: `fields.c.kind = 'random'` (the default; `fields.c.min`,
//! `.max`, `.length`) or `'sequence'` (`.start`, `.end`).
//!
//! Row k of split s is row `k * splits + s` of the source; a random value is a function of (seed,
//! row, column), the sequence of a column is start + row. A sequence with an end ends the source.
//! So an offset means the same row for ever.

use crate::generator::{Generate, GeneratorSource};
use crate::metrics::SourceMetrics;
use crate::options::{Options, invalid};
use crate::random::{Field, letters, scale};
use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field as ArrowField, Schema, TimeUnit};
use std::sync::Arc;
use tidemark_common::{Error, Result, SplitId, SqlState};
use tidemark_plan::{Column, ConnectorSpec};

const BASE_MICROS: i64 = 1_735_689_600_000_000;

/// How a column is filled.
#[derive(Clone, Debug, PartialEq)]
enum Rule {
    /// start + row.
    Sequence(i64),
    /// Any integer from the first to the second, both included.
    Integer(i64, i64),
    /// Any double in between.
    Float(f64, f64),
    /// Letters, that many.
    Text(usize),
    /// True or false.
    Boolean,
}

struct Wanted {
    rule: Rule,
    random: Field,
    arrow: ArrowField,
}

/// Makes the rows.
pub struct Datagen {
    columns: Vec<Wanted>,
    splits: u32,
    total: Option<u64>,
}

/// Opens a datagen source with these columns.
pub fn open(spec: &ConnectorSpec, columns: &[Column]) -> Result<GeneratorSource> {
    let options = Options::of(spec);
    options.refuse_unknown(
        &[
            "rows.per.second",
            "datagen.rows.per.second",
            "datagen.rows.total",
            "datagen.split.num",
            "datagen.seed",
        ],
        &["fields."],
    )?;
    let rate_option = if options.get("datagen.rows.per.second").is_some() {
        "datagen.rows.per.second"
    } else {
        "rows.per.second"
    };
    let rate = options.number(rate_option, 0, 0..=1_000_000_000u64)?;
    let datagen = Datagen::new(&options, spec, columns)?;
    Ok(GeneratorSource::new(
        Arc::new(datagen),
        columns.len(),
        rate,
        SourceMetrics::new("datagen", "rows"),
    ))
}

impl Datagen {
    fn new(options: &Options<'_>, spec: &ConnectorSpec, columns: &[Column]) -> Result<Datagen> {
        refuse_unknown_fields(spec, columns)?;
        let seed = options.number("datagen.seed", 0, 0..=u64::MAX)?;
        let mut total = options
            .get("datagen.rows.total")
            .is_some()
            .then(|| options.number("datagen.rows.total", 0, 0..=i64::MAX as u64))
            .transpose()?;
        let mut wanted = Vec::with_capacity(columns.len());
        for (i, column) in columns.iter().enumerate() {
            let (rule, rows) = rule(options, column)?;
            total = [total, rows].into_iter().flatten().min();
            wanted.push(Wanted {
                rule,
                random: Field::new(seed, i as u64),
                arrow: ArrowField::new(&column.name, column.data_type.clone(), column.nullable),
            });
        }
        Ok(Datagen {
            columns: wanted,
            splits: options.number("datagen.split.num", 4, 1..=1024)?,
            total,
        })
    }

    fn column(&self, wanted: &Wanted, split: SplitId, from: i64, rows: usize) -> Result<ArrayRef> {
        let first = self.number(split, from);
        let numbers = (0..rows as u64).map(|i| first + i * u64::from(self.splits));
        let random = wanted.random;
        let array: ArrayRef = match wanted.rule {
            Rule::Sequence(start) => Arc::new(Int64Array::from_iter_values(
                numbers.map(|n| start.wrapping_add(n as i64)),
            )),
            Rule::Integer(min, max) => {
                let width = (i128::from(max) - i128::from(min) + 1) as u128;
                Arc::new(Int64Array::from_iter_values(numbers.map(|n| {
                    (i128::from(min) + ((u128::from(random.bits(n)) * width) >> 64) as i128) as i64
                })))
            }
            Rule::Float(min, max) => Arc::new(Float64Array::from_iter_values(numbers.map(|n| {
                min + (max - min) * ((random.bits(n) >> 11) as f64 / (1u64 << 53) as f64)
            }))),
            Rule::Boolean => Arc::new(
                numbers
                    .map(|n| Some(scale(random.bits(n), 2) == 1))
                    .collect::<BooleanArray>(),
            ),
            Rule::Text(length) => {
                let mut bytes = Vec::with_capacity(rows * length + 8);
                numbers.for_each(|n| letters(&mut bytes, random.bits(n), length));
                let offsets: Vec<i32> = (0..=rows).map(|i| (i * length) as i32).collect();
                Arc::new(
                    StringArray::try_new(
                        OffsetBuffer::new(ScalarBuffer::from(offsets)),
                        Buffer::from_vec(bytes),
                        None,
                    )
                    .map_err(|e| Error::internal(e.to_string()))?,
                )
            }
        };
        to_type(array, wanted.arrow.data_type())
    }
}

/// Integers become dates and timestamps by their units, everything else by a cast.
fn to_type(array: ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    let cast = |array: &ArrayRef, to: &DataType| {
        arrow::compute::cast(array, to)
            .map_err(|e| Error::user(SqlState::NUMERIC_OUT_OF_RANGE, e.to_string()))
    };
    match data_type {
        same if array.data_type() == same => Ok(array),
        DataType::Date32 => cast(&cast(&array, &DataType::Int32)?, data_type),
        other => cast(&array, other),
    }
}

/// The rule of a column and, for a sequence with an end, its number of rows.
fn rule(options: &Options<'_>, column: &Column) -> Result<(Rule, Option<u64>)> {
    let option = |part: &str| format!("fields.{}.{part}", column.name.to_lowercase());
    let integer =
        |part: &str, default: i64| options.number(&option(part), default, i64::MIN..=i64::MAX);
    let (least, most) = match &column.data_type {
        DataType::Int16 => (i64::from(i16::MIN), i64::from(i16::MAX)),
        DataType::Int32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        DataType::Date32 => (0, 36_525),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            (BASE_MICROS, BASE_MICROS + 365 * 86_400_000_000)
        }
        _ => (i64::MIN, i64::MAX),
    };
    let is_integer = matches!(
        column.data_type,
        DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Date32
            | DataType::Timestamp(TimeUnit::Microsecond, _)
    );
    if options.choice(&option("kind"), &["random", "sequence"])? == 1 {
        if !is_integer {
            return Err(
                invalid(format!("column \"{}\" cannot be a sequence", column.name))
                    .with_hint("A sequence is of an integer, date or timestamp type."),
            );
        }
        let start = integer(
            "start",
            if matches!(column.data_type, DataType::Timestamp(..)) {
                BASE_MICROS
            } else {
                0
            },
        )?;
        let end = integer("end", most)?;
        if end < start || start < least.min(0) || end > most.max(start) {
            return Err(invalid(format!(
                "the sequence of column \"{}\" from {start} to {end} is not within its type",
                column.name
            )));
        }
        let rows = (i128::from(end) - i128::from(start) + 1).min(i128::from(i64::MAX)) as u64;
        let bounded = options.get(&option("end")).is_some() || rows < u64::from(u32::MAX);
        return Ok((Rule::Sequence(start), bounded.then_some(rows)));
    }
    let ordered = |min: bool| {
        if min {
            Ok(())
        } else {
            Err(invalid(format!(
                "option \"{}\" is above \"{}\"",
                option("min"),
                option("max")
            )))
        }
    };
    let rule = match &column.data_type {
        _ if is_integer => {
            let default_max = if matches!(column.data_type, DataType::Int64) {
                1_000_000
            } else {
                most.min(BASE_MICROS + 365 * 86_400_000_000)
            };
            let (min, max) = (integer("min", least.max(0))?, integer("max", default_max)?);
            ordered(min <= max)?;
            Rule::Integer(min, max)
        }
        DataType::Float32
        | DataType::Float64
        | DataType::Decimal128(..)
        | DataType::LargeBinary => {
            let (min, max) = (
                options.number(&option("min"), 0.0, f64::MIN..=f64::MAX)?,
                options.number(&option("max"), 1.0, f64::MIN..=f64::MAX)?,
            );
            ordered(min <= max)?;
            Rule::Float(min, max)
        }
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => {
            Rule::Text(options.number(&option("length"), 10, 0..=65_536)?)
        }
        DataType::Boolean => Rule::Boolean,
        other => {
            return Err(Error::unsupported(format!(
                "datagen makes no values of type {other} (column \"{}\")",
                column.name
            )));
        }
    };
    Ok((rule, None))
}

/// Every `fields.<column>.<part>` must name a column and a part.
fn refuse_unknown_fields(spec: &ConnectorSpec, columns: &[Column]) -> Result<()> {
    for key in spec.options.keys() {
        let Some((column, part)) = key.strip_prefix("fields.").and_then(|k| k.rsplit_once('.'))
        else {
            continue;
        };
        if !columns.iter().any(|c| c.name.to_lowercase() == column) {
            return Err(invalid(format!(
                "option \"{key}\" names no column of the source"
            )));
        }
        if !["kind", "start", "end", "min", "max", "length"].contains(&part) {
            return Err(
                invalid(format!("unknown option \"{key}\"")).with_hint(format!(
                    "Options of a column are: fields.{column}.kind, start, end, min, max, length."
                )),
            );
        }
    }
    Ok(())
}

impl Generate for Datagen {
    fn splits(&self) -> u32 {
        self.splits
    }

    fn end(&self, split: SplitId) -> i64 {
        let splits = u64::from(self.splits);
        self.total.map_or(i64::MAX, |total| {
            ((total + splits - 1 - u64::from(split)) / splits) as i64
        })
    }

    fn number(&self, split: SplitId, offset: i64) -> u64 {
        (offset as u64)
            .wrapping_mul(u64::from(self.splits))
            .wrapping_add(u64::from(split))
    }

    fn rows(
        &self,
        split: SplitId,
        from: i64,
        to: i64,
        rows_max: usize,
        columns: &[usize],
    ) -> Result<(RecordBatch, i64)> {
        let rows = rows_max.min((to - from) as usize);
        let (mut fields, mut arrays) = (
            Vec::with_capacity(columns.len()),
            Vec::with_capacity(columns.len()),
        );
        for i in columns {
            let wanted = self
                .columns
                .get(*i)
                .ok_or_else(|| Error::internal(format!("a datagen source has no column {i}")))?;
            fields.push(wanted.arrow.clone());
            arrays.push(self.column(wanted, split, from, rows)?);
        }
        let size = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &size)
            .map_err(|e| Error::internal(e.to_string()))?;
        Ok((batch, from + rows as i64))
    }

    fn numbers(&self, split: SplitId, from: i64, to: i64, rows_max: usize) -> Vec<u64> {
        (from..from + rows_max.min((to - from) as usize) as i64)
            .map(|offset| self.number(split, offset))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::tests::spec;
    use arrow::array::AsArray;
    use arrow::datatypes::Int32Type;
    use tidemark_changelog::connector::SourceConnector;

    fn column(name: &str, data_type: DataType) -> Column {
        Column {
            name: name.into(),
            data_type,
            nullable: true,
            default: None,
            sql_type: String::new(),
        }
    }

    #[test]
    fn a_sequence_is_complete_and_ends_the_source() {
        let spec = spec(
            "datagen",
            &[
                ("fields.id.kind", "sequence"),
                ("fields.id.start", "5"),
                ("fields.id.end", "104"),
                ("fields.name.length", "3"),
                ("datagen.split.num", "3"),
            ],
        );
        let columns = [
            column("id", DataType::Int32),
            column("name", DataType::Utf8),
            column("x", DataType::Float64),
            column("at", DataType::Timestamp(TimeUnit::Microsecond, None)),
        ];
        let source = open(&spec, &columns).unwrap();
        let mut reader = source
            .open(&source.start().unwrap(), Arc::new(|| {}))
            .unwrap();
        reader.set_times(true);
        let (mut ids, mut times) = (Vec::new(), Vec::new());
        while let Some(batch) = reader.poll(7).unwrap() {
            assert_eq!(batch.times_ms.len(), batch.changes.num_rows());
            times.extend(batch.times_ms);
            ids.extend(
                batch
                    .changes
                    .column(0)
                    .as_primitive::<Int32Type>()
                    .values()
                    .iter()
                    .copied(),
            );
            assert!(
                batch
                    .changes
                    .column(1)
                    .as_string::<i32>()
                    .iter()
                    .all(|t| t.unwrap().len() == 3)
            );
        }
        ids.sort_unstable();
        assert_eq!(ids, (5..=104).collect::<Vec<_>>());
        times.sort_unstable();
        assert_eq!(times, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn mistakes_are_named() {
        let message = |options: &[(&str, &str)], data_type| {
            open(&spec("datagen", options), &[column("c", data_type)])
                .err()
                .unwrap()
                .message()
                .to_string()
        };
        assert_eq!(
            message(&[("fields.d.kind", "sequence")], DataType::Int32),
            "option \"fields.d.kind\" names no column of the source"
        );
        assert_eq!(
            message(&[("fields.c.kin", "sequence")], DataType::Int32),
            "unknown option \"fields.c.kin\""
        );
        assert_eq!(
            message(&[("fields.c.kind", "sequence")], DataType::Utf8),
            "column \"c\" cannot be a sequence"
        );
        assert_eq!(
            message(
                &[("fields.c.min", "3"), ("fields.c.max", "2")],
                DataType::Int32
            ),
            "option \"fields.c.min\" is above \"fields.c.max\""
        );
        assert_eq!(
            message(&[], DataType::Binary),
            "datagen makes no values of type Binary (column \"c\")"
        );
    }
}
