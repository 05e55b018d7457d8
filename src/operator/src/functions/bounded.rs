//! Functions whose result is as long as an argument says, or many times as long as their arguments:
//! `repeat`, `replace` and their like. DataFusion's evaluate; before, the size of the result is
//! held against a limit, so that no number that a person writes asks for more memory than a value
//! may have.
//!
//! The limit is that of one value. Who evaluates many rows at once can ask for a lower one, by
//! [`within`], and take fewer rows where [`is_too_large`] says so: then what is computed together
//! stays small, whatever the values are.
//!
//! A size is first told from the whole batch, which costs nothing per row; only where that is near
//! the limit the rows are looked at one by one. It is never told too small.

use super::definition::{array, call_name, failure, rows};
use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion_common::{DataFusionError, Result, ScalarValue};
use datafusion_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use std::cell::Cell;
use std::sync::Arc;
use tidemark_common::{Error, SqlState};

/// Bytes that one value may have, and what is computed together at most; PostgreSQL's limit.
pub const BYTES_MAX: u64 = 1 << 30;

/// What is said of more.
const TOO_LARGE: &str = "requested length too large";

thread_local! {
    static LIMIT: Cell<u64> = const { Cell::new(BYTES_MAX) };
}

/// Runs `f`, in which values that are computed together on this thread may have `bytes` at most.
pub fn within<T>(bytes: u64, f: impl FnOnce() -> T) -> T {
    struct Reset(u64);
    impl Drop for Reset {
        fn drop(&mut self) {
            LIMIT.set(self.0);
        }
    }
    let _reset = Reset(LIMIT.replace(bytes));
    f()
}

/// Bytes that values that are computed together may have.
pub(super) fn limit() -> u64 {
    LIMIT.get()
}

/// Whether values that were to be computed together are too large for that: fewer may fit.
pub fn is_too_large(error: &DataFusionError) -> bool {
    let DataFusionError::External(inner) = error.find_root() else {
        return false;
    };
    inner
        .downcast_ref::<Error>()
        .is_some_and(|e| e.state() == SqlState("54000") && e.message() == TOO_LARGE)
}

/// What a value that is not text has at most as text.
const PLAIN_BYTES: u64 = 64;

type Size = fn(&ScalarFunctionArgs) -> Result<u64>;

/// The function with a limit, if it needs one.
pub(super) fn bounded(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    let size: Size = match function.name() {
        "repeat" => repeated,
        "replace" => replaced,
        "concat" | "concat_ws" => joined,
        _ => return function,
    };
    Arc::new(ScalarUDF::from(Bounded {
        inner: function,
        size,
    }))
}

/// `54000` for a size beyond the limit; and the end of what nobody waits for any more.
pub fn check_bytes(bytes: u64) -> Result<()> {
    super::wanted()?;
    if bytes > limit() {
        return Err(too_large());
    }
    Ok(())
}

fn too_large() -> DataFusionError {
    failure(SqlState("54000"), TOO_LARGE)
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
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(call_name(self.name(), args))
    }
    fn signature(&self) -> &Signature {
        self.inner.signature()
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        super::definition::wanted()?;
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
    if quick <= limit() {
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

/// All arguments behind one another, and the first between them.
fn joined(args: &ScalarFunctionArgs) -> Result<u64> {
    let all = (0..args.args.len()).map(|i| text_bytes(args, i));
    let between = text_bytes(args, 0).saturating_mul(args.args.len() as u64);
    Ok(match args.args.len() {
        0 => 0,
        _ => sum(all).saturating_add(between),
    })
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
    if quick <= limit() {
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
        if total > limit() {
            break;
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;
    use arrow::datatypes::Field;
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
    fn a_lower_limit_ends_with_what_asked_for_it() {
        let refused = within(1000, || check_bytes(1001)).unwrap_err();
        assert!(is_too_large(&refused.context("of a call")));
        assert!(check_bytes(1001).is_ok());
        let other = failure(SqlState("54000"), "array size exceeds the maximum allowed");
        assert!(!is_too_large(&other));
    }
}
