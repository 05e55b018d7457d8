//! What is called with a constant NULL and gives NULL for it is NULL, whatever its other arguments
//! are: `NULL + 1 / x` fails for no x, as in PostgreSQL, which calls such functions *strict*.

use super::typing::Typed;
use crate::signatures::signatures;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::Transformed;
use datafusion_common::{DFSchema, Result, ScalarValue};
use datafusion_expr::expr::Cast;
use datafusion_expr::{Expr, LogicalPlan, Operator, lit};
use datafusion_optimizer::AnalyzerRule;

/// Functions with signatures that give something for a NULL; those that begin with `any_` and
/// `all_` do too.
const NOT_STRICT: [&str; 26] = [
    "array_append",
    "array_cat",
    "array_fill",
    "array_position",
    "array_positions",
    "array_prepend",
    "array_remove",
    "array_replace",
    "array_to_string",
    "coalesce",
    "concat",
    "concat_ws",
    "format",
    "greatest",
    "json_build_array",
    "json_build_object",
    "jsonb_build_array",
    "jsonb_build_object",
    "jsonb_set_lax",
    "least",
    "nullif",
    "num_nonnulls",
    "num_nulls",
    "overlaps",
    "quote_nullable",
    "string_to_array",
];

/// The functions of operators, those that are not resolved yet, and the key by which values are
/// compared.
const OPERATORS: [&str; 17] = [
    "%",
    "*",
    "+",
    "-",
    "/",
    "date_minus",
    "date_minus_days",
    "date_plus_days",
    "date_plus_time",
    "int_xor",
    "interval_divide",
    "interval_times",
    "numeric_add",
    "numeric_divide",
    "numeric_multiply",
    "numeric_subtract",
    "sort_key",
];

/// The rule; it comes when types are final.
#[derive(Debug)]
pub(super) struct Nulls;

impl AnalyzerRule for Nulls {
    fn name(&self) -> &str {
        "nulls"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        super::rewrite_expressions(plan, folded)
    }
}

fn folded(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let is_null = match &expr {
        Expr::ScalarFunction(call) => match call.func.name() {
            "cast_as" => call.args.first().is_some_and(is_null),
            "coalesce" | "greatest" | "least" => call.args.iter().all(is_null),
            name => is_strict(name) && call.args.iter().any(is_null),
        },
        Expr::BinaryExpr(b) if gives_null(b.op) => is_null(&b.left) || is_null(&b.right),
        Expr::Like(like) => is_null(&like.expr) || is_null(&like.pattern),
        Expr::InList(list) => is_null(&list.expr) && !list.list.is_empty(),
        Expr::Between(b) => is_null(&b.expr) || is_null(&b.low) && is_null(&b.high),
        _ => false,
    };
    if !is_null {
        return Ok(Transformed::no(expr));
    }
    let null = ScalarValue::try_from(&expr.get_type(schema)?)?;
    Ok(Transformed::yes(lit(null)))
}

fn is_null(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => value.is_null(),
        Expr::Cast(Cast { expr, .. }) => is_null(expr),
        Expr::Alias(alias) => is_null(&alias.expr),
        _ => false,
    }
}

/// Whether a function gives NULL for a NULL.
pub(super) fn is_strict(name: &str) -> bool {
    let quantified = name.starts_with("any_") || name.starts_with("all_");
    OPERATORS.contains(&name)
        || !quantified && !NOT_STRICT.contains(&name) && !signatures(name).is_empty()
}

/// Whether an operator gives NULL for a NULL.
pub(super) fn gives_null(op: Operator) -> bool {
    !matches!(
        op,
        Operator::And | Operator::Or | Operator::IsDistinctFrom | Operator::IsNotDistinctFrom
    )
}
