//! `concat` and `concat_ws` write a boolean as `t` or `f`, as PostgreSQL does.

use super::typing::Typed;
use arrow_schema::DataType;
use datafusion_common::DFSchema;
use datafusion_common::Result;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::Transformed;
use datafusion_expr::expr::{Case, ScalarFunction};
use datafusion_expr::{Expr, LogicalPlan, lit};
use datafusion_optimizer::AnalyzerRule;

/// The rule; it comes before type coercion.
#[derive(Debug)]
pub(super) struct Texts;

impl AnalyzerRule for Texts {
    fn name(&self) -> &str {
        "texts"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        super::rewrite_expressions(plan, |e, schema| Ok(written(e, schema)))
    }
}

fn written(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let is_boolean = |e: &Expr| e.get_type(schema).is_ok_and(|t| t == DataType::Boolean);
    match expr {
        Expr::ScalarFunction(call)
            if matches!(call.func.name(), "concat" | "concat_ws")
                && call.args.iter().any(is_boolean) =>
        {
            let args = call
                .args
                .into_iter()
                .map(|e| if is_boolean(&e) { letter(e) } else { e });
            Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(
                call.func.clone(),
                args.collect(),
            )))
        }
        other => Transformed::no(other),
    }
}

/// `t`, `f` or NULL; the boolean is written once, so that calls within calls do not multiply.
fn letter(e: Expr) -> Expr {
    let when_then = vec![
        (Box::new(lit(true)), Box::new(lit("t"))),
        (Box::new(lit(false)), Box::new(lit("f"))),
    ];
    Expr::Case(Case::new(Some(Box::new(e)), when_then, None))
}
