//! Aggregate functions with PostgreSQL's result types: `count(..) = bigint`, `sum(int) = bigint`,
//! `sum(bigint) = numeric`, `avg`, `variance` and `stddev` of integers and numerics are numeric;
//! the sum of a `real` is a `real`, that of times an interval.
//!
//! There are forms of the same function. For planning, the argument keeps its type, because the
//! stream operators add integers natively. For ad-hoc queries ([`aggregates`]) sums that provably
//! fit are left to DataFusion's accumulators by a simplification, which casts the argument; all
//! others, and all window functions, are evaluated by [`Sums`], by the exact sums of doubles that
//! are handed in, and by those of their squares ([`variances`]).

mod collecting;
mod evaluated;
mod ordered_sets;
mod regressions;
mod renamed;
mod sums;
mod variances;

use crate::types::{NUMERIC, is_numeric_bytes, sql_type_name};
use arrow_schema::{DataType, FieldRef, IntervalUnit};
use datafusion_common::arrow::array::ArrayRef;
use datafusion_common::arrow::compute;
use datafusion_common::{Result, ScalarValue, not_impl_err, plan_err};
use datafusion_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion_expr::function::{
    AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs,
};
use datafusion_expr::utils::AggregateOrderSensitivity;
use datafusion_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr, Signature, Volatility, cast,
};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use sums::{IntervalSums, Statistic, Sums};
use tidemark_values::exact::Spread;

pub(crate) use evaluated::array_agg;
pub(crate) use ordered_sets::percentile_cont;

/// Digits of a `Decimal128` of which 2^63 can be added up in one.
const ADDED_DIGITS: u8 = 19;

/// All aggregate functions that DataFusion knows, with PostgreSQL's types: to be registered where
/// ad-hoc queries run. Sums of doubles are left to the functions handed in, which answer as the
/// stream operators do.
pub fn aggregates(
    double_sum: Arc<AggregateUDF>,
    double_avg: Arc<AggregateUDF>,
) -> Vec<Arc<AggregateUDF>> {
    with_postgres_types(Some([double_sum, double_avg]))
}

/// The same functions for planning; these are never evaluated.
pub(crate) fn for_planning() -> Vec<Arc<AggregateUDF>> {
    with_postgres_types(None)
}

fn with_postgres_types(doubles: Option<[Arc<AggregateUDF>; 2]>) -> Vec<Arc<AggregateUDF>> {
    let [sum, avg] = doubles.map_or([None, None], |d| d.map(Some));
    let exact = |statistic, spread| (statistic, Some(variances::function(spread)));
    let replaced = |f: Arc<AggregateUDF>| {
        let (statistic, doubles) = match f.name() {
            "sum" => (Statistic::Sum, sum.clone()),
            "avg" => (Statistic::Average, avg.clone()),
            "var" | "var_samp" => exact(Statistic::SampleVariance, Spread::VarSamp),
            "var_pop" => exact(Statistic::PopulationVariance, Spread::VarPop),
            "stddev" => exact(Statistic::SampleDeviation, Spread::StddevSamp),
            "stddev_pop" => exact(Statistic::PopulationDeviation, Spread::StddevPop),
            _ => return evaluated::evaluated(&f).unwrap_or(f),
        };
        let mut aliases = f.aliases().to_vec();
        if statistic == Statistic::SampleVariance {
            aliases.push("variance".into());
        }
        Arc::new(AggregateUDF::from(PostgresAggregate {
            inner: f,
            aliases,
            doubles,
            statistic,
            signature: Signature::user_defined(Volatility::Immutable),
        }))
    };
    let mut own = ordered_sets::functions();
    own.extend(regressions::functions());
    own.extend(collecting::all());
    own.extend(renamed::all());
    let is_named = |f: &AggregateUDF, name: &str| {
        let mut names = f.aliases().iter().map(String::as_str);
        f.name() == name || names.any(|n| n == name)
    };
    datafusion_functions_aggregate::all_default_aggregate_functions()
        .into_iter()
        .filter(|f| !own.iter().any(|o| is_named(o, f.name())))
        .map(replaced)
        .chain(own.clone())
        .collect()
}

#[derive(Debug)]
struct PostgresAggregate {
    inner: Arc<AggregateUDF>,
    aliases: Vec<String>,
    /// The function of doubles; none where nothing is evaluated.
    doubles: Option<Arc<AggregateUDF>>,
    statistic: Statistic,
    signature: Signature,
}

impl PartialEq for PostgresAggregate {
    fn eq(&self, other: &Self) -> bool {
        self.statistic == other.statistic && self.doubles.is_some() == other.doubles.is_some()
    }
}
impl Eq for PostgresAggregate {}
impl Hash for PostgresAggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.statistic.hash(state);
    }
}

/// The type of the result over an argument type; `None` if the function does not take it.
fn result_type(statistic: Statistic, arg: &DataType) -> Option<DataType> {
    Some(match (statistic, arg) {
        (Statistic::Sum, DataType::Float32) => DataType::Float32,
        (_, DataType::Float32 | DataType::Float64) => DataType::Float64,
        (Statistic::Sum | Statistic::Average, DataType::Interval(unit)) => {
            DataType::Interval(*unit)
        }
        // Made an interval before it is added.
        (Statistic::Sum | Statistic::Average, DataType::Time64(_)) => {
            DataType::Interval(IntervalUnit::MonthDayNano)
        }
        (Statistic::Sum, DataType::Int64 | DataType::UInt32 | DataType::UInt64) => {
            DataType::Decimal128(38, 0)
        }
        (Statistic::Sum, t) if t.is_integer() => DataType::Int64,
        (Statistic::Sum, DataType::Decimal128(precision, scale)) if *precision <= ADDED_DIGITS => {
            DataType::Decimal128(38, *scale)
        }
        (_, DataType::Decimal128(_, _)) => NUMERIC,
        (_, t) if t.is_integer() || is_numeric_bytes(t) => NUMERIC,
        _ => return None,
    })
}

/// The type in which DataFusion's accumulator adds without running over; `None` where it has none.
fn added_type(statistic: Statistic, arg: &DataType) -> Option<DataType> {
    match (statistic, arg) {
        (Statistic::Sum, DataType::Float32) => None,
        (_, DataType::Float32 | DataType::Float64) => Some(DataType::Float64),
        (_, DataType::Interval(_) | DataType::Time64(_)) => None,
        (Statistic::Sum, _) => result_type(statistic, arg).filter(|t| !is_numeric_bytes(t)),
        _ => None,
    }
}

impl AggregateUDFImpl for PostgresAggregate {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn aliases(&self) -> &[String] {
        &self.aliases
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [t] => result_type(self.statistic, t).map_or_else(
                || {
                    let name = sql_type_name(t);
                    plan_err!("Function '{}' does not accept {name}", self.name())
                },
                Ok,
            ),
            _ => plan_err!("Function '{}' takes one argument", self.name()),
        }
    }
    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types {
            [DataType::Null] => Ok(vec![DataType::Float64]),
            [t] if result_type(self.statistic, t).is_some() => Ok(vec![t.clone()]),
            _ => plan_err!(
                "Function '{}' does not accept these argument types",
                self.name()
            ),
        }
    }
    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        let doubles = self.doubles.clone()?;
        let (inner, statistic) = (self.inner.clone(), self.statistic);
        Some(Box::new(move |call, info| {
            let types = call
                .params
                .args
                .iter()
                .map(|a| info.get_data_type(a))
                .collect::<Result<Vec<_>>>()?;
            let [arg_type] = types.as_slice() else {
                return plan_err!("one argument expected");
            };
            let Some(added) = added_type(statistic, arg_type) else {
                return Ok(Expr::AggregateFunction(call));
            };
            let AggregateFunctionParams {
                args,
                distinct,
                filter,
                order_by,
                null_treatment,
            } = call.params;
            let function = if added == DataType::Float64 {
                doubles.clone()
            } else {
                inner.clone()
            };
            let args = args.into_iter().map(|a| cast(a, added.clone())).collect();
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
        let (Some(doubles), [field]) = (&self.doubles, args.expr_fields) else {
            return not_impl_err!("{} is evaluated by the stream operators", self.name());
        };
        match field.data_type() {
            DataType::Float64 => doubles.accumulator(args),
            DataType::Float32 => Ok(Box::new(Widened {
                narrows: self.statistic == Statistic::Sum,
                inner: doubles.accumulator(args)?,
            })),
            DataType::Interval(_) => Ok(Box::new(IntervalSums::new(
                self.statistic == Statistic::Average,
                args.is_distinct,
            ))),
            _ => Ok(Box::new(Sums::new(
                self.statistic,
                args.return_field.data_type().clone(),
                args.is_distinct,
            ))),
        }
    }
    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match (&self.doubles, args.expr_fields) {
            (Some(doubles), [field]) if *field.data_type() == DataType::Float64 => {
                doubles.create_sliding_accumulator(args)
            }
            (Some(doubles), [field]) if *field.data_type() == DataType::Float32 => {
                Ok(Box::new(Widened {
                    narrows: self.statistic == Statistic::Sum,
                    inner: doubles.create_sliding_accumulator(args)?,
                }))
            }
            _ => self.accumulator(args),
        }
    }
    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        match (&self.doubles, args.input_fields) {
            (Some(doubles), [field]) if field.data_type().is_floating() => {
                doubles.state_fields(args)
            }
            (Some(_), [field]) if matches!(field.data_type(), DataType::Interval(_)) => {
                Ok(sums::interval_state_fields(args.name, args.is_distinct))
            }
            _ => Ok(sums::state_fields(args.name, args.is_distinct)),
        }
    }
}

/// An accumulator of doubles over `real`s.
#[derive(Debug)]
struct Widened {
    inner: Box<dyn Accumulator>,
    /// Whether the result is a `real` again.
    narrows: bool,
}

impl Widened {
    fn wide(values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        Ok(vec![compute::cast(&values[0], &DataType::Float64)?])
    }
}

impl Accumulator for Widened {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(&Widened::wide(values)?)
    }
    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }
    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(&Widened::wide(values)?)
    }
    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }
    fn evaluate(&mut self) -> Result<ScalarValue> {
        match self.inner.evaluate()? {
            ScalarValue::Float64(Some(sum)) if self.narrows => {
                let real = sum as f32;
                if real.is_infinite() && sum.is_finite() {
                    return variances::overflow();
                }
                Ok(ScalarValue::Float32(Some(real)))
            }
            ScalarValue::Float64(None) if self.narrows => Ok(ScalarValue::Float32(None)),
            result => Ok(result),
        }
    }
    fn size(&self) -> usize {
        self.inner.size()
    }
}
