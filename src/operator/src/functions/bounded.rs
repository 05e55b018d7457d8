//! Functions whose result is as long as a number says: `repeat`, `lpad`, `rpad`. DataFusion's
//! evaluate; before, the length is held against a limit, so that no number that a person writes
//! asks for more memory than a value may have.

use super::definition::{array, failure};
use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use std::sync::Arc;
use tidemark_common::SqlState;

/// Bytes that one value, and the values that are computed together, may have; PostgreSQL's limit.
const BYTES_MAX: u64 = 1 << 30;
/// Up to this length nothing is counted: no batch of such values comes near the limit.
const SHORT: i64 = 1_000;

/// The function with a limit, if it needs one.
pub(super) fn bounded(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    match function.name() {
        "repeat" | "lpad" | "rpad" => Arc::new(ScalarUDF::from(Bounded { inner: function })),
        _ => function,
    }
}

/// A function that looks at its second argument first.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
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
        self.check(&args)?;
        self.inner.invoke_with_args(args)
    }
}

impl Bounded {
    fn check(&self, args: &ScalarFunctionArgs) -> Result<()> {
        if let Some(ColumnarValue::Scalar(ScalarValue::Int64(n))) = args.args.get(1)
            && n.is_none_or(|n| n <= SHORT)
        {
            return Ok(());
        }
        if args.args.len() < 2 {
            return Ok(());
        }
        let texts = cast(&array(args, 0)?, &DataType::Utf8)?;
        let numbers = cast(&array(args, 1)?, &DataType::Int64)?;
        let repeats = self.name() == "repeat";
        let mut total = 0u64;
        for (text, number) in texts
            .as_string::<i32>()
            .iter()
            .zip(numbers.as_primitive::<Int64Type>())
        {
            let (Some(text), Some(number)) = (text, number) else {
                continue;
            };
            let number = u64::try_from(number).unwrap_or(0);
            let bytes = if repeats {
                number.saturating_mul(text.len() as u64)
            } else {
                number
            };
            total = total.saturating_add(bytes);
            if total > BYTES_MAX {
                return Err(failure(SqlState("54000"), "requested length too large"));
            }
        }
        Ok(())
    }
}
