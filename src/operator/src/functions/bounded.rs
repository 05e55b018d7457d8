//! Functions whose result is as long as an argument says, or many times as long as their arguments:
//! `repeat`, `replace`, `generate_series` and their like. DataFusion's evaluate; before, the size
//! of the result is held against a limit, so that no number that a person writes asks for more
//! memory than a value may have.
//!
//! A size is first told from the whole batch, which costs nothing per row; only where that is near
//! the limit the rows are looked at one by one. It is never told too small.

use super::definition::{array, failure, rows};
use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, FieldRef, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use std::sync::Arc;
use tidemark_common::SqlState;

/// Bytes that one value, and the values that are computed together, may have; PostgreSQL's limit.
pub const BYTES_MAX: u64 = 1 << 30;

/// What a value that is not text has at most as text.
const PLAIN_BYTES: u64 = 64;

const MICROS_OF_DAY: i128 = 86_400_000_000;

/// A step of a month and back some days: it may stand still.
const UNSURE: i128 = i128::MAX;

type Size = fn(&ScalarFunctionArgs) -> Result<u64>;

/// The function with a limit, if it needs one.
pub fn bounded(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    let size: Size = match function.name() {
        "repeat" => repeated,
        "replace" => replaced,
        "generate_series" | "range" => series,
        "array_repeat" | "array_resize" => filled,
        "array_to_string" => elements_joined,
        _ => return function,
    };
    Arc::new(ScalarUDF::from(Bounded {
        inner: function,
        size,
    }))
}

/// `54000` for a size beyond the limit.
pub fn check_bytes(bytes: u64) -> Result<()> {
    if bytes > BYTES_MAX {
        return Err(failure(SqlState("54000"), "requested length too large"));
    }
    Ok(())
}

/// A function that looks at the size of its result first.
#[derive(Debug)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    size: Size,
}

impl PartialEq for Bounded {
    fn eq(&self, other: &Bounded) -> bool {
        self.inner == other.inner
    }
}
impl Eq for Bounded {}
impl std::hash::Hash for Bounded {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }
    fn signature(&self) -> &Signature {
        self.inner.signature()
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        check_bytes((self.size)(&args)?)?;
        self.inner.invoke_with_args(args)
    }
}

/// Bytes of all texts of an argument; a constant counts in every row, which it is copied into.
fn text_bytes(args: &ScalarFunctionArgs, i: usize) -> u64 {
    column_bytes(&args.args[i], rows(args))
}

/// Bytes of all texts of a column; a constant counts in every row.
pub fn column_bytes(column: &ColumnarValue, rows: usize) -> u64 {
    match column {
        ColumnarValue::Scalar(value) => scalar_bytes(value).saturating_mul(rows as u64),
        ColumnarValue::Array(array) => match array.data_type() {
            DataType::Utf8 => {
                let offsets = array.as_string::<i32>().value_offsets();
                let ends = offsets.first().zip(offsets.last());
                ends.map_or(0, |(from, to)| (to - from) as u64)
            }
            DataType::Utf8View => {
                let views = array.as_string_view().views();
                views.iter().map(|v| u64::from(*v as u32)).sum()
            }
            DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary => {
                array.get_array_memory_size() as u64
            }
            _ => array.len() as u64 * PLAIN_BYTES,
        },
    }
}

fn scalar_bytes(value: &ScalarValue) -> u64 {
    match value.try_as_str() {
        Some(text) => text.map_or(0, |t| t.len() as u64),
        None => value.size() as u64,
    }
}

/// An argument's text, row by row.
enum Texts {
    One(Option<String>),
    Many(ArrayRef),
}

impl Texts {
    fn of(args: &ScalarFunctionArgs, i: usize) -> Result<Texts> {
        Ok(match &args.args[i] {
            ColumnarValue::Scalar(value) => {
                Texts::One(value.try_as_str().flatten().map(str::to_string))
            }
            ColumnarValue::Array(array) => Texts::Many(cast(array, &DataType::Utf8)?),
        })
    }

    fn get(&self, row: usize) -> Option<&str> {
        match self {
            Texts::One(text) => text.as_deref(),
            Texts::Many(array) => {
                let texts: &StringArray = array.as_string();
                texts.is_valid(row).then(|| texts.value(row))
            }
        }
    }

    fn longest(&self) -> u64 {
        match self {
            Texts::One(text) => text.as_ref().map_or(0, |t| t.len() as u64),
            Texts::Many(array) => {
                let lengths = array.as_string::<i32>().offsets().lengths();
                lengths.max().unwrap_or(0) as u64
            }
        }
    }
}

/// An argument's numbers, one per row; NULL and what is below zero is none.
fn numbers(args: &ScalarFunctionArgs, i: usize) -> Result<Vec<u64>> {
    let numbers = cast(&array(args, i)?, &DataType::Int64)?;
    let numbers = numbers.as_primitive::<Int64Type>().iter();
    Ok(numbers
        .map(|n| u64::try_from(n.unwrap_or(0)).unwrap_or(0))
        .collect())
}

fn sum(sizes: impl Iterator<Item = u64>) -> u64 {
    sizes.fold(0, u64::saturating_add)
}

fn repeated(args: &ScalarFunctionArgs) -> Result<u64> {
    if args.args.len() < 2 {
        return Ok(0);
    }
    let numbers = numbers(args, 1)?;
    let most = numbers.iter().copied().max().unwrap_or(0);
    let quick = text_bytes(args, 0).saturating_mul(most.max(1));
    if quick <= BYTES_MAX {
        return Ok(quick);
    }
    let texts = Texts::of(args, 0)?;
    // A constant text is copied into every row before it is repeated.
    let copied = text_bytes(args, 0);
    let bytes = |(row, n): (usize, &u64)| {
        let text = texts.get(row).map_or(0, |t| t.len() as u64);
        text.saturating_mul(*n)
    };
    Ok(copied.max(sum(numbers.iter().enumerate().map(bytes))))
}

/// `replace(text, from, to)`.
fn replaced(args: &ScalarFunctionArgs) -> Result<u64> {
    if args.args.len() < 3 {
        return Ok(0);
    }
    let rows = rows(args);
    let to = Texts::of(args, 2)?;
    // Between all characters.
    let text = text_bytes(args, 0);
    let places = text.saturating_add(rows as u64);
    let quick = text.saturating_add(places.saturating_mul(2 * to.longest()));
    if quick <= BYTES_MAX {
        return Ok(quick);
    }
    let (texts, from) = (Texts::of(args, 0)?, Texts::of(args, 1)?);
    let mut total = 0u64;
    for row in 0..rows {
        let (Some(text), Some(from), Some(to)) = (texts.get(row), from.get(row), to.get(row))
        else {
            continue;
        };
        let bytes = text.len() as u64;
        let matches = if from.is_empty() {
            bytes + 1
        } else {
            text.matches(from).count() as u64
        };
        total = total
            .saturating_add(bytes)
            .saturating_add(matches.saturating_mul(to.len() as u64));
        if total > BYTES_MAX {
            break;
        }
    }
    Ok(total)
}

/// `generate_series([start,] stop [, step])`, `range` as well.
fn series(args: &ScalarFunctionArgs) -> Result<u64> {
    let values = |i: usize| -> Result<Vec<Option<i128>>> {
        let array = args.args[i].to_array(rows(args))?;
        if array.data_type().is_null() {
            return Ok(vec![None; array.len()]);
        }
        if *array.data_type() == DataType::Interval(IntervalUnit::MonthDayNano) {
            let steps = array.as_primitive::<IntervalMonthDayNanoType>().iter();
            return Ok(steps
                .map(|s| s.map(|s| micros(s.months, s.days, s.nanoseconds)))
                .collect());
        }
        let plain = if array.data_type().is_temporal() {
            let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
            cast(&cast(&array, &micros)?, &DataType::Int64)?
        } else {
            cast(&array, &DataType::Int64)?
        };
        let plain = plain.as_primitive::<Int64Type>().iter();
        Ok(plain.map(|n| n.map(i128::from)).collect())
    };
    let (starts, stops) = match args.args.len() {
        0 => return Ok(0),
        1 => (vec![Some(0); rows(args)], values(0)?),
        _ => (values(0)?, values(1)?),
    };
    let steps = match args.args.len() {
        3.. => values(2)?,
        _ => vec![Some(1); rows(args)],
    };
    let bytes = starts.iter().zip(&stops).zip(&steps).map(|((a, b), step)| {
        let (Some(a), Some(b), Some(step)) = (a, b, step) else {
            return 0;
        };
        let step = if *step == UNSURE {
            (b - a).signum()
        } else {
            *step
        };
        // Towards the other side, or not at all: nothing.
        if step == 0 || (b - a).signum() * step.signum() < 0 {
            return 0;
        }
        let count = (b - a).unsigned_abs() / step.unsigned_abs() + 1;
        u64::try_from(count).unwrap_or(u64::MAX).saturating_mul(8)
    });
    Ok(sum(bytes))
}

/// An interval's microseconds, with the shortest months; [`UNSURE`] where its parts work against
/// each other.
fn micros(months: i32, days: i32, nanoseconds: i64) -> i128 {
    let parts = [
        i128::from(months) * 28 * MICROS_OF_DAY,
        i128::from(days) * MICROS_OF_DAY,
        i128::from(nanoseconds) / 1000,
    ];
    let (some_up, some_down) = (parts.iter().any(|p| *p > 0), parts.iter().any(|p| *p < 0));
    if some_up && some_down {
        UNSURE
    } else {
        parts.iter().sum()
    }
}

/// `array_repeat(element, n)`, `array_resize(array, n [, element])`.
fn filled(args: &ScalarFunctionArgs) -> Result<u64> {
    if args.args.len() < 2 {
        return Ok(0);
    }
    let element = |i: usize| match &args.args[i] {
        ColumnarValue::Scalar(value) => value.size() as u64,
        ColumnarValue::Array(array) => array.get_array_memory_size() as u64,
    };
    let largest = if args.args.len() > 2 {
        element(2)
    } else {
        element(0)
    };
    let numbers = sum(numbers(args, 1)?.into_iter());
    let quick = numbers.saturating_mul(largest.max(8));
    if quick <= BYTES_MAX || matches!(args.args[0], ColumnarValue::Scalar(_)) {
        return Ok(quick);
    }
    let average = largest / rows(args).max(1) as u64;
    Ok(numbers.saturating_mul(average.max(8)))
}

/// `array_to_string(array, delimiter [, null])`.
fn elements_joined(args: &ScalarFunctionArgs) -> Result<u64> {
    if args.args.len() < 2 {
        return Ok(0);
    }
    let (list, copies) = match &args.args[0] {
        ColumnarValue::Scalar(ScalarValue::List(list)) => {
            (list.clone() as ArrayRef, rows(args) as u64)
        }
        ColumnarValue::Array(array) => (array.clone(), 1),
        ColumnarValue::Scalar(_) => return Ok(0),
    };
    let (mut elements, mut values) = (0, list);
    while let Some(list) = values.as_list_opt::<i32>() {
        values = list.values().clone();
        elements = values.len() as u64;
    }
    let between = (1..args.args.len())
        .map(|i| Ok(Texts::of(args, i)?.longest()))
        .sum::<Result<u64>>()?;
    let texts = match values.data_type() {
        DataType::Utf8 => values.get_array_memory_size() as u64,
        _ => elements * PLAIN_BYTES,
    };
    let all = texts.saturating_add(elements.saturating_mul(between));
    Ok(all.saturating_mul(copies))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, ListArray};
    use arrow::datatypes::{Field, IntervalMonthDayNano};
    use datafusion_common::config::ConfigOptions;

    fn text(bytes: usize) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::Utf8(Some("x".repeat(bytes))))
    }

    fn number(n: i64) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::Int64(Some(n)))
    }

    fn size(size: Size, args: Vec<ColumnarValue>) -> u64 {
        let lengths = args.iter().filter_map(|a| match a {
            ColumnarValue::Array(array) => Some(array.len()),
            ColumnarValue::Scalar(_) => None,
        });
        let number_rows = lengths.max().unwrap_or(1);
        let arg_fields = args
            .iter()
            .map(|a| Arc::new(Field::new("a", a.data_type(), true)))
            .collect();
        size(&ScalarFunctionArgs {
            args,
            arg_fields,
            number_rows,
            return_field: Arc::new(Field::new("r", DataType::Utf8, true)),
            config_options: Arc::new(ConfigOptions::new()),
        })
        .unwrap()
    }

    #[test]
    fn sizes_are_told_before_anything_is_computed() {
        let huge = 1 << 20;
        let thousand = ColumnarValue::Array(Arc::new(Int64Array::from(vec![1; 1000])));
        assert_eq!(size(repeated, vec![text(3), number(5)]), 15);
        assert_eq!(size(repeated, vec![text(huge), number(1000)]), 1000 << 20);
        assert_eq!(size(repeated, vec![text(huge), number(i64::MAX)]), u64::MAX);
        assert_eq!(size(repeated, vec![text(3), number(-1)]), 3);
        assert_eq!(
            size(repeated, vec![text(huge), thousand.clone()]),
            1000 << 20,
            "a constant is copied into every row"
        );
        let all = |f: &str| ColumnarValue::Scalar(ScalarValue::Utf8(Some(f.into())));
        assert!(size(replaced, vec![text(huge), all("x"), text(huge)]) > BYTES_MAX);
        assert!(size(replaced, vec![text(huge), all("y"), text(huge)]) <= BYTES_MAX);
    }

    #[test]
    fn series_are_counted() {
        let at =
            |micros| ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(Some(micros), None));
        let step = |months, days| {
            let step = IntervalMonthDayNano::new(months, days, 0);
            ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(Some(step)))
        };
        let day = MICROS_OF_DAY as i64;
        assert_eq!(size(series, vec![number(9)]), 80);
        assert_eq!(size(series, vec![number(1), number(10)]), 80);
        assert_eq!(size(series, vec![number(10), number(1), number(-3)]), 32);
        assert_eq!(size(series, vec![number(10), number(1)]), 0);
        assert_eq!(
            size(series, vec![number(i64::MIN), number(i64::MAX)]),
            u64::MAX
        );
        assert_eq!(size(series, vec![at(0), at(9 * day), step(0, 1)]), 80);
        assert!(size(series, vec![at(0), at(9000 * day), step(1, -30)]) > BYTES_MAX);
    }

    #[test]
    fn elements_are_counted() {
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1); 1000])]);
        let list = ColumnarValue::Scalar(ScalarValue::List(Arc::new(lists)));
        assert!(size(elements_joined, vec![list.clone(), text(1 << 21)]) > BYTES_MAX);
        assert!(size(elements_joined, vec![list, text(2)]) < 100_000);
        assert!(size(filled, vec![number(7), number(1 << 40)]) > BYTES_MAX);
        assert!(size(filled, vec![number(7), number(1000)]) < 1 << 20);
    }
}
