//! `sum` and `avg` with PostgreSQL's result types, over DataFusion's: `sum(int) = bigint`,
//! `sum(bigint) = numeric`, `avg` of integers is numeric; the sum of a `real` is a `double
//! precision`, which loses nothing.
//!
//! There are forms of the same function. For planning, the argument keeps its type, because the
//! stream operators add integers natively. For ad-hoc queries ([`aggregates`]) a simplification
//! casts the argument and leaves the work to DataFusion's accumulator, or, for averages of
//! numerics, to [`average`].

use super::average::{self, Average};
use crate::types::NUMERIC;
use arrow_schema::{DataType, Field, FieldRef};
use datafusion_common::{Result, not_impl_err, plan_err};
use datafusion_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion_expr::function::{
    AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs,
};
use datafusion_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr, Signature, Volatility, cast,
};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// All aggregate functions that DataFusion knows, with `sum` and `avg` in PostgreSQL's types: to be
/// registered where ad-hoc queries run. Those of doubles are left to the functions handed in, which
/// answer as the stream operators do.
pub fn aggregates(
    double_sum: Arc<AggregateUDF>,
    double_avg: Arc<AggregateUDF>,
) -> Vec<Arc<AggregateUDF>> {
    with_postgres_types(Form::AdHoc, Some([double_sum, double_avg]))
}

/// The same functions for planning; these are never evaluated.
pub(super) fn for_planning() -> Vec<Arc<AggregateUDF>> {
    with_postgres_types(Form::Planned, None)
}

fn with_postgres_types(
    form: Form,
    doubles: Option<[Arc<AggregateUDF>; 2]>,
) -> Vec<Arc<AggregateUDF>> {
    let [double_sum, double_avg] = doubles.map_or([None, None], |d| d.map(Some));
    let replaced = |f: Arc<AggregateUDF>| {
        let (which, doubles) = match f.name() {
            "sum" => (Which::Sum, double_sum.clone()),
            "avg" => (Which::Avg, double_avg.clone()),
            _ => return f,
        };
        Arc::new(AggregateUDF::from(PostgresAggregate {
            doubles,
            ..PostgresAggregate::new(f, which, form)
        }))
    };
    datafusion_functions_aggregate::all_default_aggregate_functions()
        .into_iter()
        .map(replaced)
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Which {
    Sum,
    Avg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    /// Never evaluated.
    Planned,
    /// Simplified into what is evaluated.
    AdHoc,
    /// The average of a numeric, evaluated here.
    Exact,
}

#[derive(Debug)]
struct PostgresAggregate {
    inner: Arc<AggregateUDF>,
    /// The function of doubles, where it is evaluated.
    doubles: Option<Arc<AggregateUDF>>,
    which: Which,
    form: Form,
    signature: Signature,
}

impl PartialEq for PostgresAggregate {
    fn eq(&self, other: &Self) -> bool {
        self.which == other.which && self.form == other.form
    }
}
impl Eq for PostgresAggregate {}
impl Hash for PostgresAggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.which, self.form).hash(state);
    }
}

impl PostgresAggregate {
    fn new(inner: Arc<AggregateUDF>, which: Which, form: Form) -> PostgresAggregate {
        PostgresAggregate {
            inner,
            doubles: None,
            which,
            form,
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

/// The type of the result over an argument type; `None` if the function does not take it.
fn result_type(which: Which, arg: &DataType) -> Option<DataType> {
    Some(match (which, arg) {
        (
            Which::Sum,
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16,
        ) => DataType::Int64,
        (Which::Sum, DataType::Int64 | DataType::UInt32 | DataType::UInt64) => {
            DataType::Decimal128(38, 0)
        }
        (_, DataType::Float32 | DataType::Float64) => DataType::Float64,
        (Which::Sum, DataType::Decimal128(_, scale)) => DataType::Decimal128(38, *scale),
        (Which::Sum, DataType::Interval(unit)) => DataType::Interval(*unit),
        (Which::Avg, DataType::Decimal128(_, scale)) => {
            DataType::Decimal128(38, average_scale(*scale))
        }
        (Which::Avg, t) if t.is_integer() => NUMERIC,
        _ => return None,
    })
}

/// Digits after the point of an average: four more than its argument has, at least ten.
fn average_scale(scale: i8) -> i8 {
    (scale + 4).clamp(10, 38)
}

/// The type that the accumulator has to work in so that nothing overflows early and its result has
/// our type.
fn evaluated_type(which: Which, arg: &DataType) -> DataType {
    match (which, arg) {
        (Which::Sum, DataType::Int64 | DataType::UInt32 | DataType::UInt64) => {
            DataType::Decimal128(38, 0)
        }
        (Which::Sum, DataType::Decimal128(_, scale)) => DataType::Decimal128(38, *scale),
        (Which::Sum, t) if t.is_integer() => DataType::Int64,
        (Which::Avg, t) if t.is_integer() => DataType::Decimal128(38, 0),
        (_, DataType::Float32) => DataType::Float64,
        (_, t) => t.clone(),
    }
}

impl AggregateUDFImpl for PostgresAggregate {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [t] => result_type(self.which, t).map_or_else(
                || plan_err!("Function '{}' does not accept {t}", self.name()),
                Ok,
            ),
            _ => plan_err!("Function '{}' takes one argument", self.name()),
        }
    }
    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types {
            [DataType::Null] => Ok(vec![DataType::Float64]),
            [t] if result_type(self.which, t).is_some() => Ok(vec![t.clone()]),
            _ => plan_err!(
                "Function '{}' does not accept these argument types",
                self.name()
            ),
        }
    }
    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        if self.form != Form::AdHoc {
            return None;
        }
        let (inner, which) = (self.inner.clone(), self.which);
        let doubles = self.doubles.clone();
        Some(Box::new(move |call, info| {
            let AggregateFunctionParams {
                args,
                distinct,
                filter,
                order_by,
                null_treatment,
            } = call.params;
            let types = args
                .iter()
                .map(|a| info.get_data_type(a))
                .collect::<Result<Vec<_>>>()?;
            let [arg_type] = types.as_slice() else {
                return plan_err!("one argument expected");
            };
            let evaluated = evaluated_type(which, arg_type);
            let function = match (&evaluated, &doubles) {
                (DataType::Float64, Some(doubles)) => doubles.clone(),
                (DataType::Decimal128(_, _), _) if which == Which::Avg => Arc::new(
                    AggregateUDF::from(PostgresAggregate::new(inner.clone(), which, Form::Exact)),
                ),
                _ => inner.clone(),
            };
            let args = args
                .into_iter()
                .map(|a| cast(a, evaluated.clone()))
                .collect();
            Ok(Expr::AggregateFunction(AggregateFunction::new_udf(
                function,
                args,
                distinct,
                filter,
                order_by,
                null_treatment,
            )))
        }))
    }
    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match (self.form, args.expr_fields) {
            (Form::Exact, [field]) => Ok(Box::new(Average::new(
                field.data_type().clone(),
                args.return_field.data_type().clone(),
                args.is_distinct,
            ))),
            _ => not_impl_err!("{} is evaluated by its simplified form", self.name()),
        }
    }
    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        match (self.form, args.input_fields) {
            (Form::Exact, [field]) => Ok(average::state_fields(
                args.name,
                field.data_type(),
                args.is_distinct,
            )),
            _ => Ok(vec![Arc::new(Field::new(
                self.name(),
                DataType::Null,
                true,
            ))]),
        }
    }
}
