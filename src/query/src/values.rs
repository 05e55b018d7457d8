//! Texts to columns, by PostgreSQL's input rules: what INSERT's literals, COPY's fields and text
//! parameters go through without planning anything.
//!
//! Errors: `22P02` for a text that is not of the type, `22003` for a number out of range, `22001`
//! for a text that is too long.

use crate::types;
use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::*;
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};
use tidemark_operator::functions;
use tidemark_plan::Column;
use tidemark_values::array;
use tidemark_values::moment::{IntervalFields, Zone, read_interval};

/// The array of a column from one text per row, `None` for NULL, as they are meant in a time zone.
pub fn parse_column(texts: &[Option<&str>], column: &Column, zone: &Zone) -> Result<ArrayRef> {
    parse_texts(&texts.iter().copied().collect(), column, zone)
}

/// The same of a column of texts.
pub fn parse_texts(texts: &StringArray, column: &Column, zone: &Zone) -> Result<ArrayRef> {
    let modifier = types::modifier(&column.sql_type);
    if matches!(column.data_type, DataType::Interval(_)) && modifier >= 0 {
        return intervals(texts, modifier);
    }
    conform(parse(texts, &column.data_type, zone)?, column)
}

/// Texts of intervals of certain fields: `5` is five hours to an `interval hour`.
fn intervals(texts: &StringArray, modifier: i32) -> Result<ArrayRef> {
    let (fields, digits) = types::interval_parts(modifier);
    let mut spans = IntervalMonthDayNanoBuilder::with_capacity(texts.len());
    let out_of_range = || Error::user(SqlState("22008"), "interval out of range");
    for text in texts {
        let Some(text) = text else {
            spans.append_null();
            continue;
        };
        let span = read_interval(text, fields, digits as u8)?;
        let nanoseconds = span.micros.checked_mul(1000).ok_or_else(out_of_range)?;
        spans.append_value(IntervalMonthDayNano::new(
            span.months,
            span.days,
            nanoseconds,
        ));
    }
    Ok(Arc::new(spans.finish()))
}

/// An array as its column keeps it: `varchar(n)` has at most n characters, `char(n)` is padded,
/// `timestamp(p)` is rounded, `interval year to month` has no days; and so are elements of arrays.
///
/// Errors: `22001` for a text that is too long, `22008` for an interval that rounds out of range.
pub fn conform(array: ArrayRef, column: &Column) -> Result<ArrayRef> {
    match types::modifier(&column.sql_type) {
        modifier if modifier < 0 => Ok(array),
        modifier => restricted(array, modifier),
    }
}

fn restricted(array: ArrayRef, modifier: i32) -> Result<ArrayRef> {
    let length = || usize::try_from(modifier - 4).unwrap_or(0);
    let restricted = match array.data_type() {
        DataType::Utf8 => functions::limited(&array, length()),
        DataType::LargeUtf8 => functions::padded(&array, length()),
        DataType::Timestamp(..) | DataType::Time64(_) => {
            functions::rounded_to(&array, IntervalFields::All, modifier as u8)
        }
        DataType::Interval(_) => {
            let (fields, digits) = types::interval_parts(modifier);
            functions::rounded_to(&array, fields, digits as u8)
        }
        DataType::List(element) => {
            // Without what a slice leaves out.
            let lists = array.as_list::<i32>();
            let offsets = lists.value_offsets();
            let (first, last) = (offsets[0] as usize, offsets[lists.len()] as usize);
            let values = lists.values().slice(first, last - first);
            return Ok(Arc::new(ListArray::new(
                element.clone(),
                OffsetBuffer::from_lengths(lists.offsets().lengths()),
                restricted(values, modifier)?,
                lists.nulls().cloned(),
            )));
        }
        _ => return Ok(array),
    };
    restricted.map_err(crate::error::from_datafusion)
}

fn parse(texts: &StringArray, data_type: &DataType, zone: &Zone) -> Result<ArrayRef> {
    match data_type {
        DataType::Boolean
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal128(..)
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_)
        | DataType::Date32
        | DataType::Time64(_)
        | DataType::Timestamp(..)
        | DataType::Interval(_) => {
            let texts: ArrayRef = Arc::new(texts.clone());
            let now = chrono::Utc::now().timestamp_micros();
            functions::read_texts(&texts, data_type, now, zone)
                .map_err(crate::error::from_datafusion)
        }
        DataType::Utf8 => Ok(Arc::new(texts.clone())),
        DataType::LargeUtf8 => Ok(Arc::new(LargeStringArray::from_iter(texts.iter()))),
        DataType::List(element) => parse_lists(texts, element, zone),
        DataType::Struct(fields) => parse_records(texts, fields, zone),
        DataType::Map(..) => functions::read_maps(texts, data_type, |part, field| {
            parse(part.as_string(), field.data_type(), zone)
        }),
        other => Err(Error::unsupported(format!(
            "literals of type {other} are not supported"
        ))),
    }
}

fn parse_lists(texts: &StringArray, element: &FieldRef, zone: &Zone) -> Result<ArrayRef> {
    let mut elements = StringBuilder::new();
    let (mut lengths, mut valid) = (Vec::new(), Vec::new());
    for text in texts {
        let mut length = 0;
        if let Some(text) = text {
            array::read(text, |element| {
                length += 1;
                elements.append_option(element);
            })?;
        }
        lengths.push(length);
        valid.push(text.is_some());
    }
    let inner = parse(&elements.finish(), element.data_type(), zone)?;
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::new(
        element.clone(),
        offsets,
        inner,
        Some(valid.into()),
    )))
}

fn parse_records(texts: &StringArray, fields: &Fields, zone: &Zone) -> Result<ArrayRef> {
    let parts = functions::parts_of_text(texts, fields.len())?;
    let columns = parts.iter().zip(fields);
    let columns = columns.map(|(part, field)| parse(part.as_string(), field.data_type(), zone));
    let records = StructArray::try_new_with_length(
        fields.clone(),
        columns.collect::<Result<_>>()?,
        texts.nulls().cloned(),
        texts.len(),
    );
    records
        .map(|records| Arc::new(records) as ArrayRef)
        .map_err(|e| Error::internal(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[Option<&str>], column: &Column) -> Result<ArrayRef> {
        parse_column(texts, column, &Zone::UTC)
    }

    fn column(data_type: DataType, sql_type: &str) -> Column {
        Column {
            name: "c".into(),
            data_type,
            nullable: true,
            default: None,
            sql_type: sql_type.into(),
        }
    }

    #[test]
    fn decimals_round_and_overflow() {
        let column = column(DataType::Decimal128(10, 2), "");
        let parse = |t: &str| {
            let parsed = read(&[Some(t)], &column)?;
            Ok::<_, Error>(parsed.as_primitive::<Decimal128Type>().value(0))
        };
        assert_eq!(parse("1.005").unwrap(), 101);
        assert_eq!(parse("-1.005").unwrap(), -101);
        assert_eq!(parse("1e3").unwrap(), 100_000);
        assert_eq!(parse("12.3e-1").unwrap(), 123);
        assert_eq!(parse("0.004").unwrap(), 0);
        assert_eq!(parse("1e-9").unwrap(), 0);
        assert_eq!(parse("99999999.99").unwrap(), 9_999_999_999);
        assert_eq!(
            parse("99999999.995").unwrap_err().state(),
            SqlState::NUMERIC_OUT_OF_RANGE
        );
        assert_eq!(
            parse("1e40").unwrap_err().state(),
            SqlState::NUMERIC_OUT_OF_RANGE
        );
        assert_eq!(parse("abc").unwrap_err().state(), SqlState::INVALID_TEXT);
    }

    #[test]
    fn texts_become_columns() {
        let texts = [Some("{1,2,NULL}"), None, Some("{}")];
        let list = DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true)));
        let array = read(&texts, &column(list, "")).unwrap();
        assert_eq!(
            array
                .as_list::<i32>()
                .value(0)
                .as_primitive::<Int32Type>()
                .len(),
            3
        );
        assert!(array.is_null(1));
        let ts = column(
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            "",
        );
        let array = read(&[Some("2024-01-01 00:00:00.5+01"), Some("2024-01-01")], &ts).unwrap();
        assert_eq!(
            array.as_primitive::<TimestampMicrosecondType>().value(0),
            1_704_063_600_500_000
        );
        assert_eq!(
            read(&[Some("abcd")], &column(DataType::Utf8, "varchar(3)"))
                .unwrap_err()
                .state()
                .0,
            "22001"
        );
        assert_eq!(
            read(&[Some("70000")], &column(DataType::Int16, ""))
                .unwrap_err()
                .state()
                .0,
            "22003"
        );
        assert_eq!(
            read(&[Some("{bad")], &column(DataType::BinaryView, "jsonb"))
                .unwrap_err()
                .state()
                .0,
            "22P02"
        );
        assert_eq!(
            read(&[Some("1e309")], &column(DataType::Float64, ""))
                .unwrap_err()
                .state()
                .0,
            "22003"
        );
        assert_eq!(
            read(&[Some("-Infinity")], &column(DataType::Float64, ""))
                .unwrap()
                .as_primitive::<Float64Type>()
                .value(0),
            f64::NEG_INFINITY
        );
    }

    #[test]
    fn computed_texts_are_checked_like_inputs() {
        let texts = |t: &str| -> ArrayRef { Arc::new(StringArray::from(vec![Some(t), None])) };
        let kept = conform(
            Arc::new(LargeStringArray::from(vec![Some("ab  "), None])),
            &column(DataType::LargeUtf8, "char(3)"),
        )
        .unwrap();
        assert_eq!(kept.as_string::<i64>().value(0), "ab ");
        assert!(kept.is_null(1));
        let cut = conform(texts("abc  "), &column(DataType::Utf8, "varchar(3)")).unwrap();
        assert_eq!(cut.as_string::<i32>().value(0), "abc");
        assert_eq!(
            conform(texts("abcd"), &column(DataType::Utf8, "varchar(3)"))
                .unwrap_err()
                .state()
                .0,
            "22001"
        );
    }

    #[test]
    fn moments_are_rounded_and_cut_as_declared() {
        let timestamp = DataType::Timestamp(TimeUnit::Microsecond, None);
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        for (data_type, sql_type, text, kept) in [
            (
                timestamp,
                "timestamp(0)",
                "2024-12-31 23:59:59.5",
                "2025-01-01",
            ),
            (interval.clone(), "interval(1)", "00:00:01.25", "00:00:01.3"),
            (
                interval.clone(),
                "interval day to hour",
                "1 day 02:03",
                "1 day 02:00",
            ),
            (interval, "interval second(0)", "1 mon 1.5", "1 mon 2"),
        ] {
            let declared = read(&[Some(text), None], &column(data_type.clone(), sql_type)).unwrap();
            let expected = read(&[Some(kept), None], &column(data_type, "")).unwrap();
            assert_eq!(&declared, &expected, "{sql_type}");
        }
    }
}
