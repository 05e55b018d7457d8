//! The size of what functions make: `repeat`, `replace` and their like, whose result is as long as
//! an argument says, or many times as long as their arguments. They tell it before they make it,
//! and it is held against a limit, so that no number that a person writes asks for more memory than
//! a value may have; and room for it is taken from the query's memory ([`super::room`]).
//!
//! The limit is that of one value. Who evaluates many rows at once can ask for a lower one, by
//! [`within`], and take fewer rows where [`is_too_large`] says so: then what is computed together
//! stays small, whatever the values are.

use super::definition::{external, wanted};
use super::room;
use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use datafusion_common::{DataFusionError, Result, ScalarValue};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::cell::Cell;
use tidemark_common::{Error, SqlState, check_interrupt};

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

/// `54000` for a size beyond the limit, `53200` for one that the query has no room for; and the end
/// of what nobody waits for any more.
pub fn check_bytes(bytes: u64) -> Result<()> {
    check_size(bytes).map_err(external)
}

pub(super) fn check_size(bytes: u64) -> tidemark_common::Result<()> {
    check_interrupt()?;
    if bytes > limit() {
        return Err(Error::user(SqlState("54000"), TOO_LARGE));
    }
    room::hold(bytes)
}

/// A call begins: what it is given is copied where it stands for every row, and is what its result
/// is as large as, unless it tells more. Of one row, that is: what of many rows is given together
/// is a batch, which is there already.
pub fn begin_call(args: &ScalarFunctionArgs) -> Result<()> {
    wanted()?;
    room::begin();
    if args.number_rows != 1 {
        return Ok(());
    }
    let bytes = args.args.iter().map(|a| match a {
        ColumnarValue::Scalar(value) => scalar_bytes(value),
        ColumnarValue::Array(array) if array.data_type().is_nested() => {
            array.get_array_memory_size() as u64
        }
        column => column_bytes(column, 1),
    });
    room::hold(bytes.fold(0, u64::saturating_add)).map_err(external)
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

#[cfg(test)]
mod tests {
    use super::super::definition::failure;
    use super::*;

    #[test]
    fn a_lower_limit_ends_with_what_asked_for_it() {
        let refused = within(1000, || check_bytes(1001)).unwrap_err();
        assert!(is_too_large(&refused.context("of a call")));
        assert!(check_bytes(1001).is_ok());
        let other = failure(SqlState("54000"), "array size exceeds the maximum allowed");
        assert!(!is_too_large(&other));
    }
}
