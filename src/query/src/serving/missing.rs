//! Scalar subqueries that may find no row: their value is NULL then, whatever their column says.
//! DataFusion takes a subquery over a NOT NULL column for one that is never NULL, and `IS NULL` of
//! it for false; what may be NULL now, a call, is a constant once it is folded. The rule
//! [`MissingRows`] makes the column one that may be NULL and stays so.

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result, internal_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::logical_plan::Subquery;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use std::sync::Arc;

/// The rule; it comes before anything that looks at what may be NULL.
#[derive(Debug)]
pub struct MissingRows;

impl AnalyzerRule for MissingRows {
    fn name(&self) -> &str {
        "missing_rows"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let done = plan.transform_up_with_subqueries(|node| {
            let names = NamePreserver::new(&node);
            let changed = node.map_expressions(|expr| {
                let name = names.save(&expr);
                let changed = expr.transform_up(|e| match e {
                    Expr::ScalarSubquery(subquery) => nullable(subquery),
                    other => Ok(Transformed::no(other)),
                })?;
                Ok(match changed.transformed {
                    true => changed.update_data(|e| name.restore(e)),
                    false => changed,
                })
            })?;
            match changed.transformed {
                true => changed.map_data(LogicalPlan::recompute_schema),
                false => Ok(changed),
            }
        })?;
        Ok(done.data)
    }
}

fn nullable(subquery: Subquery) -> Result<Transformed<Expr>> {
    let schema = subquery.subquery.schema();
    if schema.fields().len() != 1 || has_one_row(&subquery.subquery) {
        return Ok(Transformed::no(Expr::ScalarSubquery(subquery)));
    }
    let column = Expr::Column(Column::from(schema.qualified_field(0)));
    let function = Arc::new(ScalarUDF::from(Found::default()));
    let value = Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![column]));
    let value = value.alias(schema.field(0).name());
    let plan = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone());
    let plan = plan.project([value])?.build()?;
    Ok(Transformed::yes(Expr::ScalarSubquery(Subquery {
        subquery: Arc::new(plan),
        ..subquery
    })))
}

/// Whether there is a row always: an aggregate without GROUP BY.
fn has_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => has_one_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => has_one_row(&alias.input),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        _ => false,
    }
}

/// A value as it is, which may be NULL. It is never computed before there is a row, as a constant
/// would be.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Found {
    signature: Signature,
}

impl Default for Found {
    fn default() -> Found {
        Found {
            signature: Signature::any(1, Volatility::Volatile),
        }
    }
}

impl ScalarUDFImpl for Found {
    fn name(&self) -> &str {
        "found"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        match args {
            [value] => Ok(value.clone()),
            _ => internal_err!("a value that is not there"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        match args.arg_fields {
            [value] => Ok(Arc::new(value.as_ref().clone().with_nullable(true))),
            _ => internal_err!("a value that is not there"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.into_iter().next() {
            Some(value) => Ok(value),
            None => internal_err!("a value that is not there"),
        }
    }
}
