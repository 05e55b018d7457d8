//! Functions that give another value for each row, of nothing: `gen_random_uuid()` and
//! `clock_timestamp()`. Views refuse them.

use super::uuids;
use arrow::array::{ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimeUnit};
use datafusion_common::Result;
use datafusion_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

#[derive(Debug)]
struct Function {
    name: &'static str,
    returns: DataType,
    evaluate: fn(ScalarFunctionArgs) -> Result<ArrayRef>,
    signature: Signature,
}

impl PartialEq for Function {
    fn eq(&self, other: &Function) -> bool {
        self.name == other.name
    }
}
impl Eq for Function {}
impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        (self.evaluate)(args).map(ColumnarValue::Array)
    }
}

/// The functions of this file.
pub(super) fn functions() -> impl Iterator<Item = Arc<ScalarUDF>> {
    let function = |name, returns, evaluate| {
        Arc::new(ScalarUDF::new_from_impl(Function {
            name,
            returns,
            evaluate,
            signature: Signature::nullary(Volatility::Volatile),
        }))
    };
    let moment = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    [
        function("gen_random_uuid", uuids::UUID, random_uuids),
        function("clock_timestamp", moment, clock),
    ]
    .into_iter()
}

/// UUIDs of version 4.
fn random_uuids(args: ScalarFunctionArgs) -> Result<ArrayRef> {
    let rows = args.number_rows;
    let texts = datafusion_functions::string::uuid().invoke_with_args(args)?;
    uuids::read(texts.into_array(rows)?.as_string())
}

/// The time of day at which the rows are evaluated.
fn clock(args: ScalarFunctionArgs) -> Result<ArrayRef> {
    let now = chrono::Utc::now().timestamp_micros();
    let moments = TimestampMicrosecondArray::from_value(now, args.number_rows);
    Ok(Arc::new(moments.with_timezone("UTC")))
}
