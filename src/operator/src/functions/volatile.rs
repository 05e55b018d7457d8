//! Functions of nothing: `gen_random_uuid()` and `clock_timestamp()`, which give another value for
//! each row, and `now()`, which has one in each statement. Views refuse them.

use super::uuids;
use arrow::array::{ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion_common::{Result, ScalarValue, internal_err};
use datafusion_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
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

/// `now()`: the time at which the statement began, which planning writes in its place. DataFusion's
/// own is one of nanoseconds, which end in 2262: beside them there is no infinity.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Now {
    signature: Signature,
    aliases: Vec<String>,
}

impl ScalarUDFImpl for Now {
    fn name(&self) -> &str {
        "now"
    }
    fn aliases(&self) -> &[String] {
        &self.aliases
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(moment())
    }
    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), moment(), false)))
    }
    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("now() is a constant before anything is evaluated")
    }
    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let Some(start) = info.query_execution_start_time() else {
            return Ok(ExprSimplifyResult::Original(args));
        };
        let now = ScalarValue::from(start.timestamp_micros()).cast_to(&moment())?;
        Ok(ExprSimplifyResult::Simplified(Expr::Literal(now, None)))
    }
}

fn moment() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
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
    let now = ScalarUDF::new_from_impl(Now {
        signature: Signature::nullary(Volatility::Stable),
        aliases: vec!["current_timestamp".into()],
    });
    [
        function("gen_random_uuid", uuids::UUID, random_uuids),
        function("clock_timestamp", moment(), clock),
        Arc::new(now),
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
