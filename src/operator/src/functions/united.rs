//! Functions whose arguments have one type, which is that of the result: `coalesce`, `greatest`.
//! DataFusion finds the common type of all types but that of numerics, JSONB and arrays, which are
//! ours; the planner has brought the arguments to it by the time that the function is called.
//!
//! `nullif` is among them, whose result has the type of its first argument.

use arrow::array::Array;
use arrow::compute::{is_not_null, kernels::zip::zip};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, exec_err};
use datafusion_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion_expr::type_coercion::functions::fields_with_udf;
use datafusion_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::definition::call_name;
use super::extremes::{extreme, null_if};
use super::json::JSONB;

const NUMERIC: DataType = DataType::LargeBinary;

/// The function, with numerics among what it takes, if it is one of these.
pub(super) fn united(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    match function.name() {
        "coalesce" | "greatest" | "least" | "nullif" | "nvl" => Arc::new(ScalarUDF::from(United {
            inner: function,
            signature: Signature::user_defined(Volatility::Immutable),
        })),
        _ => function,
    }
}

#[derive(Debug)]
struct United {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

impl PartialEq for United {
    fn eq(&self, other: &United) -> bool {
        self.inner == other.inner
    }
}
impl Eq for United {}
impl Hash for United {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

/// The type that all of them will have, where DataFusion does not know it: numerics, JSONB or
/// arrays, if one of them is; beside quoted constants, what the others are.
fn common_type(types: &[DataType]) -> Option<&DataType> {
    let ours = types
        .iter()
        .find(|t| **t == NUMERIC || **t == JSONB || matches!(t, DataType::List(_)));
    ours.or_else(|| {
        let typed = |t: &&DataType| t.is_temporal() || t.is_numeric() || **t == DataType::Boolean;
        types
            .iter()
            .find(typed)
            .filter(|_| types.contains(&DataType::Utf8))
    })
}

/// The types as they will be.
fn common(types: Vec<DataType>) -> Vec<DataType> {
    let Some(common) = common_type(&types).cloned() else {
        return types;
    };
    let one = |t: DataType| {
        if t == DataType::Null {
            t
        } else {
            common.clone()
        }
    };
    types.into_iter().map(one).collect()
}

impl ScalarUDFImpl for United {
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
        &self.signature
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match (self.inner.name(), types) {
            ("nullif", [first, _]) => Ok(first.clone()),
            _ => self.inner.return_type(&common(types.to_vec())),
        }
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        super::definition::wanted()?;
        if let ("nullif", [first, _]) = (self.inner.name(), args.arg_fields) {
            let field = Field::new("nullif", first.data_type().clone(), true);
            return Ok(Arc::new(field));
        }
        let types = args.arg_fields.iter().map(|f| f.data_type().clone());
        let fields: Vec<FieldRef> = args
            .arg_fields
            .iter()
            .zip(common(types.collect()))
            .map(|(f, t)| Arc::new(f.as_ref().clone().with_data_type(t)) as FieldRef)
            .collect();
        self.inner.return_field_from_args(ReturnFieldArgs {
            arg_fields: &fields,
            scalar_arguments: args.scalar_arguments,
        })
    }
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if self.inner.name() == "nullif" || common_type(types).is_some() {
            return Ok(types.to_vec());
        }
        let field = |t: &DataType| Arc::new(Field::new("", t.clone(), true)) as FieldRef;
        let fields: Vec<FieldRef> = types.iter().map(field).collect();
        let coerced = fields_with_udf(&fields, self.inner.as_ref())?;
        Ok(coerced.iter().map(|f| f.data_type().clone()).collect())
    }
    /// `coalesce` stays what it is: as CASE it would name each argument twice.
    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        match self.inner.name() {
            "coalesce" | "nvl" => Ok(first_not_null(self, args)),
            _ => self.inner.simplify(args, info),
        }
    }
    fn conditional_arguments<'a>(
        &self,
        args: &'a [Expr],
    ) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.conditional_arguments(args)
    }
    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match self.inner.name() {
            name @ ("greatest" | "least") if !args.return_field.data_type().is_nested() => {
                extreme(&args, name == "greatest")
            }
            "nullif" => null_if(&args),
            "coalesce" | "nvl" => first_values(args),
            _ => self.inner.invoke_with_args(args),
        }
    }
}

/// `coalesce` without the arguments that are NULL or never reached.
fn first_not_null(function: &United, mut args: Vec<Expr>) -> ExprSimplifyResult {
    let constant = |e: &Expr, null: bool| matches!(e, Expr::Literal(v, _) if v.is_null() == null);
    let before = args.len();
    if let Some(certain) = args.iter().position(|e| constant(e, false)) {
        args.truncate(certain + 1);
    }
    // Of NULLs alone, the last is left, with its type.
    let mut later = args.len();
    args.retain(|e| {
        later -= 1;
        later == 0 || !constant(e, true)
    });
    if let [first, last] = args.as_slice()
        && constant(last, true)
        && !constant(first, true)
    {
        args.truncate(1);
    }
    if args.len() == 1 {
        return ExprSimplifyResult::Simplified(args.remove(0));
    }
    if args.len() == before {
        return ExprSimplifyResult::Original(args);
    }
    let same = ScalarUDF::from(United {
        inner: function.inner.clone(),
        signature: function.signature.clone(),
    });
    ExprSimplifyResult::Simplified(same.call(args))
}

/// The first values of each row that are not NULL, where all arguments are evaluated already.
fn first_values(args: ScalarFunctionArgs) -> Result<ColumnarValue> {
    let mut values = args.args.into_iter();
    let Some(mut found) = values.next() else {
        return exec_err!("coalesce must have at least one argument");
    };
    for next in values {
        found = match (found, next) {
            (ColumnarValue::Scalar(first), next) if first.is_null() => next,
            (ColumnarValue::Scalar(first), _) => return Ok(ColumnarValue::Scalar(first)),
            (ColumnarValue::Array(first), next) => {
                if first.logical_null_count() == 0 {
                    return Ok(ColumnarValue::Array(first));
                }
                let next = next.into_array(first.len())?;
                ColumnarValue::Array(zip(&is_not_null(&first)?, &first, &next)?)
            }
        };
    }
    Ok(found)
}
