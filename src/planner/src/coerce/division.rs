//! Quotients of numerics. DataFusion gives `numeric / numeric` four digits more than the dividend has, so 10 / 3 in `numeric(10, 2)` has six; PostgreSQL has at least
//! sixteen significant ones. The dividend is widened to twelve digits after the point, which makes sixteen, unless that would leave fewer than eighteen before it.

use arrow_schema::DataType;
use datafusion_common::Result;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, cast};
use datafusion_optimizer::AnalyzerRule;

/// Digits after the point of a widened dividend; the quotient has four more.
const SCALE: i8 = 12;

/// The rule; it comes after type coercion.
#[derive(Debug)]
pub(super) struct Division;

impl AnalyzerRule for Division {
    fn name(&self) -> &str {
        "division"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let done = plan.transform_up_with_subqueries(|plan| {
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            let rewritten = plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let rewritten = expr.transform_up(|e| {
                    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Divide, right }) = e else { return Ok(Transformed::no(e)) };
                    let types = (left.get_type(&schema), right.get_type(&schema));
                    let (Ok(DataType::Decimal128(precision, scale)), Ok(DataType::Decimal128(_, divisor))) = types else {
                        return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr::new(left, Operator::Divide, right))));
                    };
                    if !(0..SCALE).contains(&scale) || 38 - SCALE - 4 - divisor < 18 {
                        return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr::new(left, Operator::Divide, right))));
                    }
                    let wide = DataType::Decimal128((precision + (SCALE - scale) as u8).min(38), SCALE);
                    Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(Box::new(cast(*left, wide)), Operator::Divide, right))))
                })?;
                Ok(rewritten.update_data(|e| name.restore(e)))
            })?;
            if rewritten.transformed { Ok(Transformed::yes(rewritten.data.recompute_schema()?)) } else { Ok(rewritten) }
        })?;
        Ok(done.data)
    }
}
