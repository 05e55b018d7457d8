//! What functions show of their arguments, as in PostgreSQL:
//!
//! * `round(numeric, 2)` and `trunc(numeric, 2)` have two digits after the point, `ceil` and
//!   `floor` none; DataFusion keeps the argument's scale. The value has no further digits anyway,
//!   so the cast loses nothing;
//! * `concat` writes a boolean as `t` or `f`.

use arrow_schema::DataType;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::Transformed;
use datafusion_common::{DFSchema, Result, ScalarValue};
use datafusion_expr::expr::{Case, ScalarFunction};
use datafusion_expr::{Expr, ExprSchemable, LogicalPlan, cast, lit};
use datafusion_optimizer::AnalyzerRule;

/// The rule; it comes before type coercion.
#[derive(Debug)]
pub(super) struct Digits;

impl AnalyzerRule for Digits {
    fn name(&self) -> &str {
        "digits"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        super::rewrite_expressions(plan, |e, schema| Ok(shown(e, schema)))
    }
}

fn shown(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let Expr::ScalarFunction(call) = &expr else {
        return Transformed::no(expr);
    };
    match call.func.name() {
        "round" | "trunc" | "ceil" | "floor" => match (expr.get_type(schema), digits(call)) {
            (Ok(DataType::Decimal128(precision, scale)), Some(digits))
                if (0..scale).contains(&digits) =>
            {
                let whole = i16::from(precision) - i16::from(scale) + 1;
                let precision = (whole + i16::from(digits)).clamp(1, 38) as u8;
                Transformed::yes(cast(expr, DataType::Decimal128(precision, digits)))
            }
            _ => Transformed::no(expr),
        },
        "concat" | "concat_ws" => {
            let is_boolean = |e: &Expr| e.get_type(schema).is_ok_and(|t| t == DataType::Boolean);
            if !call.args.iter().any(is_boolean) {
                return Transformed::no(expr);
            }
            let args = call
                .args
                .iter()
                .map(|e| {
                    if is_boolean(e) {
                        letter(e.clone())
                    } else {
                        e.clone()
                    }
                })
                .collect();
            Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(
                call.func.clone(),
                args,
            )))
        }
        _ => Transformed::no(expr),
    }
}

/// The digits after the point that a rounding function leaves; `None` if that depends on the row.
fn digits(call: &ScalarFunction) -> Option<i8> {
    match call.args.as_slice() {
        [_] => Some(0),
        [_, Expr::Literal(ScalarValue::Int32(Some(digits)), _)] => i8::try_from(*digits).ok(),
        [_, Expr::Literal(ScalarValue::Int64(Some(digits)), _)] => i8::try_from(*digits).ok(),
        _ => None,
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
