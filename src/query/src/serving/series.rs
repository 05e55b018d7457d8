//! Functions in FROM. `generate_series` has PostgreSQL's types: a series of `integer`s is one of
//! `integer`s, of dates one of timestamps. Integers between constants come as they are asked for,
//! other series are lists that are unnested. A function that gives one value is a row of it.

use super::functions::{fold_argument, no_function};
use arrow::datatypes::DataType;
use datafusion::catalog::TableFunctionArgs;
use datafusion::catalog::view::ViewTable;
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue, UnnestOptions};
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, ScalarUDF, TableSource, cast, col, lit,
};
use std::sync::Arc;
use tidemark_common::{Error, SqlState};

const NAME: &str = "generate_series";
/// The function that gives the list of a series.
const LIST: &str = "series_list";
/// The column, before its table's alias names it.
const COLUMN: &str = "value";

/// The rows of a call.
///
/// Errors: `42883` for types that have no series, `22023` for a step of zero.
pub fn source(state: &SessionState, args: Vec<Expr>) -> Result<Arc<dyn TableSource>> {
    let types = args.iter().map(type_of).collect::<Result<Vec<_>>>()?;
    let list = state.scalar_functions().get(LIST);
    let list = list.ok_or_else(|| DataFusionError::Internal(format!("{LIST} is not there")))?;
    if types.iter().all(|t| *t == DataType::Utf8) {
        let unknown = vec!["unknown"; types.len()].join(", ");
        let message = format!("function {NAME}({unknown}) is not unique");
        let error = Error::user(SqlState("42725"), message);
        return Err(DataFusionError::External(Box::new(error.with_hint(
            "Could not choose a best candidate function. You might need to add explicit type \
             casts.",
        ))));
    }
    let taken = list.coerce_types(&types);
    let taken = taken.map_err(|_| no_function(NAME, &types))?;
    let constants = match &taken[0] {
        DataType::Int32 | DataType::Int64 => constants(state, &args)?,
        _ => None,
    };
    let plan = if let Some(constants) = constants {
        integers(state, constants, &taken[0])?
    } else {
        let typed = |(arg, to): (Expr, &DataType)| cast(arg, to.clone());
        let args = args.into_iter().zip(&taken).map(typed).collect();
        // A list that is NULL has no rows.
        let options = UnnestOptions::new().with_preserve_nulls(false);
        one_row(list.clone(), args)?
            .unnest_column_with_options(COLUMN, options)?
            .build()?
    };
    Ok(provider_as_source(Arc::new(ViewTable::new(plan, None))))
}

/// The row of a function that gives one value.
pub fn value(function: Arc<ScalarUDF>, args: Vec<Expr>) -> Result<Arc<dyn TableSource>> {
    let plan = one_row(function, args)?.build()?;
    Ok(provider_as_source(Arc::new(ViewTable::new(plan, None))))
}

fn one_row(function: Arc<ScalarUDF>, args: Vec<Expr>) -> Result<LogicalPlanBuilder> {
    let call = ScalarFunction::new_udf(function, args);
    LogicalPlanBuilder::empty(true).project([Expr::ScalarFunction(call).alias(COLUMN)])
}

/// The arguments as numbers, if all of them are known before the query runs.
fn constants(state: &SessionState, args: &[Expr]) -> Result<Option<Vec<Expr>>> {
    let number = |arg: &Expr| {
        let number = cast(arg.clone(), DataType::Int64);
        Ok(match fold_argument(state, number)? {
            Expr::Literal(value, _) if value.is_null() => Some(lit(ScalarValue::Null)),
            constant @ Expr::Literal(..) => Some(constant),
            _ => None,
        })
    };
    args.iter().map(number).collect()
}

/// An argument's type: an integer constant is an `integer` if it fits.
fn type_of(arg: &Expr) -> Result<DataType> {
    let constant = match arg {
        Expr::Negative(inner) => inner,
        other => other,
    };
    if let Expr::Literal(ScalarValue::Int64(Some(n)), _) = constant
        && i32::try_from(*n).is_ok()
    {
        return Ok(DataType::Int32);
    }
    arg.get_type(&DFSchema::empty())
}

fn integers(state: &SessionState, args: Vec<Expr>, to: &DataType) -> Result<LogicalPlan> {
    if matches!(
        args.get(2),
        Some(Expr::Literal(ScalarValue::Int64(Some(0)), _))
    ) {
        let message = "step size cannot equal zero";
        return Err(DataFusionError::External(Box::new(Error::user(
            SqlState::INVALID_PARAMETER,
            message,
        ))));
    }
    let function = state.table_functions().get(NAME);
    let function = function.ok_or_else(|| no_function(NAME, &[]))?;
    let rows = function.create_table_provider_with_args(TableFunctionArgs::new(&args, state))?;
    let scan = LogicalPlanBuilder::scan(NAME, provider_as_source(rows), None)?;
    let value = cast(col(COLUMN), to.clone()).alias(COLUMN);
    scan.project([value])?.build()
}
