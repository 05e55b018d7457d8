//! What an aggregate with a FILTER adds up is computed for the rows that the filter keeps, as in
//! PostgreSQL: `sum(s::int) FILTER (WHERE kind = 'number')` fails for no row of another kind. Both
//! DataFusion's aggregates and the stream operators compute arguments before they look at the
//! filter, so an argument that may fail becomes `CASE WHEN filter THEN argument END`.

use super::typing::Typed;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::Transformed;
use datafusion_common::{DFSchema, Result};
use datafusion_expr::{Case, Cast, Expr, LogicalPlan};
use datafusion_optimizer::AnalyzerRule;

/// The rule; it comes when types are final.
#[derive(Debug)]
pub(super) struct Filtered;

impl AnalyzerRule for Filtered {
    fn name(&self) -> &str {
        "filtered"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        super::rewrite_expressions(plan, |expr, schema| match expr {
            Expr::AggregateFunction(mut call) => {
                let params = &mut call.params;
                let sorted = params.order_by.iter_mut().map(|sort| &mut sort.expr);
                let computed = params.args.iter_mut().chain(sorted);
                let changed = guard(computed, params.filter.as_deref(), schema)?;
                let expr = Expr::AggregateFunction(call);
                Ok(Transformed::new_transformed(expr, changed))
            }
            Expr::WindowFunction(mut call) => {
                let params = &mut call.params;
                let changed = guard(params.args.iter_mut(), params.filter.as_deref(), schema)?;
                let expr = Expr::WindowFunction(call);
                Ok(Transformed::new_transformed(expr, changed))
            }
            other => Ok(Transformed::no(other)),
        })
    }
}

/// Whether an expression became one that asks the filter first.
fn guard<'a>(
    computed: impl Iterator<Item = &'a mut Expr>,
    filter: Option<&Expr>,
    schema: &DFSchema,
) -> Result<bool> {
    let Some(filter) = filter else {
        return Ok(false);
    };
    let mut changed = false;
    for arg in computed {
        if !is_certain(arg, schema)? && !is_guarded(arg, filter) {
            let kept = Box::new(std::mem::take(arg));
            let arm = (Box::new(filter.clone()), kept);
            *arg = Expr::Case(Case::new(None, vec![arm], None));
            changed = true;
        }
    }
    Ok(changed)
}

/// Whether nothing can fail for a row: a column, a wider integer, or a constant, which PostgreSQL
/// computes when it plans.
fn is_certain(expr: &Expr, schema: &DFSchema) -> Result<bool> {
    Ok(match expr {
        constant
            if constant.column_refs().is_empty()
                && !constant.contains_outer()
                && !constant.is_volatile() =>
        {
            true
        }
        Expr::Column(_) | Expr::OuterReferenceColumn(..) => true,
        Expr::Alias(alias) => is_certain(&alias.expr, schema)?,
        Expr::Cast(Cast { expr, field }) => {
            let (from, to) = (expr.get_type(schema)?, field.data_type());
            let integers = from.is_integer() && to.is_integer();
            integers && from.primitive_width() <= to.primitive_width() && is_certain(expr, schema)?
        }
        _ => false,
    })
}

/// Whether this was done before.
fn is_guarded(arg: &Expr, filter: &Expr) -> bool {
    matches!(arg, Expr::Case(case) if case.expr.is_none()
        && case.else_expr.is_none()
        && matches!(case.when_then_expr.as_slice(), [(when, _)] if when.as_ref() == filter))
}
