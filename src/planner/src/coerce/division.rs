//! Quotients of numerics. DataFusion gives `numeric / numeric` four digits more than the dividend
//! has, so 10 / 3 in `numeric(10, 2)` has six; PostgreSQL has at least sixteen significant ones.
//! The dividend is widened to twelve digits after the point, which makes sixteen, unless that would
//! leave fewer than eighteen before it.
//!
//! What a quotient is compared and united with is brought to its type, so the rule comes before
//! type coercion and treats integers beside a numeric as what they will become.

use arrow_schema::DataType;
use datafusion_common::Result;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::Transformed;
use datafusion_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, cast};
use datafusion_optimizer::AnalyzerRule;

/// Digits after the point of a widened dividend; the quotient has four more.
const SCALE: i8 = 12;

/// The rule; it comes before type coercion.
#[derive(Debug)]
pub(super) struct Division;

impl AnalyzerRule for Division {
    fn name(&self) -> &str {
        "division"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        super::rewrite_expressions(plan, |e, schema| {
            let Expr::BinaryExpr(BinaryExpr {
                left,
                op: Operator::Divide,
                right,
            }) = e
            else {
                return Ok(Transformed::no(e));
            };
            let wide = match (left.get_type(schema), right.get_type(schema)) {
                (Ok(dividend), Ok(divisor)) => widened(&left, &dividend, &divisor),
                _ => None,
            };
            let changed = wide.is_some();
            let left = if let Some(wide) = wide {
                Box::new(cast(*left, wide))
            } else {
                left
            };
            Ok(Transformed::new_transformed(
                Expr::BinaryExpr(BinaryExpr::new(left, Operator::Divide, right)),
                changed,
            ))
        })
    }
}

/// The type that a dividend is widened to; `None` where the quotient is not numeric or has digits
/// enough. What `extract` gives counts as numeric.
fn widened(expr: &Expr, dividend: &DataType, divisor: &DataType) -> Option<DataType> {
    let extracted = matches!(expr, Expr::ScalarFunction(call) if call.func.name() == "date_part");
    if !extracted
        && !matches!(dividend, DataType::Decimal128(_, _))
        && !matches!(divisor, DataType::Decimal128(_, _))
    {
        return None;
    }
    let (precision, scale) = digits(dividend)?;
    let (_, divisor) = digits(divisor)?;
    if !(0..SCALE).contains(&scale) || 38 - SCALE - 4 - divisor < 18 {
        return None;
    }
    // The branches of a CASE have not met yet, and its type is that of the first.
    let precision = if matches!(expr, Expr::Case(_)) {
        38
    } else {
        precision
    };
    Some(DataType::Decimal128(
        (precision + (SCALE - scale) as u8).min(38),
        SCALE,
    ))
}

/// Precision and scale of a numeric, or of the numeric that an integer becomes beside one.
fn digits(data_type: &DataType) -> Option<(u8, i8)> {
    match data_type {
        DataType::Decimal128(precision, scale) => Some((*precision, *scale)),
        DataType::Int8 => Some((3, 0)),
        DataType::Int16 => Some((5, 0)),
        DataType::Int32 => Some((10, 0)),
        DataType::Int64 => Some((20, 0)),
        _ => None,
    }
}
