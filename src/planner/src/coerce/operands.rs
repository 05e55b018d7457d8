//! Operands of operators, `IN` and `BETWEEN`: quoted constants get the type that the operator asks
//! for, and operands that it does not take are refused (`typed`).

use super::calls::Calls;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::Transformed;
use datafusion_common::{DFSchema, Result, ScalarValue};
use datafusion_expr::expr::{Between, InList, InSubquery};
use datafusion_expr::{BinaryExpr, Expr, LogicalPlan, Operator, cast, lit};
use datafusion_optimizer::AnalyzerRule;

/// The rule.
#[derive(Debug)]
pub(super) struct Operands(pub Calls);

impl AnalyzerRule for Operands {
    fn name(&self) -> &str {
        "operands"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        super::rewrite_expressions(plan, |e, schema| self.0.operands(e, schema))
    }
}

impl Calls {
    fn operands(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let (expr, changed) = match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let (left, right, changed) = self.typed(*left, op, *right, schema, true)?;
                let binary = BinaryExpr::new(Box::new(left), op, Box::new(right));
                (Expr::BinaryExpr(binary), changed)
            }
            Expr::InList(InList {
                expr,
                list,
                negated,
            }) => {
                let (mut expr, mut changed) = (*expr, false);
                let mut items = Vec::with_capacity(list.len());
                for item in list {
                    let (left, item, c) = self.typed(expr, Operator::Eq, item, schema, true)?;
                    expr = left;
                    changed |= c;
                    items.push(item);
                }
                let list = InList::new(Box::new(expr), items, negated);
                (Expr::InList(list), changed)
            }
            Expr::Between(Between {
                expr,
                negated,
                low,
                high,
            }) => {
                let (expr, low, a) = self.typed(*expr, Operator::GtEq, *low, schema, true)?;
                let (expr, high, b) = self.typed(expr, Operator::LtEq, *high, schema, true)?;
                let between = Between::new(Box::new(expr), negated, Box::new(low), Box::new(high));
                (Expr::Between(between), a || b)
            }
            Expr::InSubquery(i) => {
                let columns = i.subquery.subquery.schema().fields();
                let Some(column) = columns.first() else {
                    return Ok(Transformed::no(Expr::InSubquery(i)));
                };
                // Something that has the column's type.
                let item = cast(lit(ScalarValue::Null), column.data_type().clone());
                let (expr, _, changed) = self.typed(*i.expr, Operator::Eq, item, schema, true)?;
                let list = InSubquery::new(Box::new(expr), i.subquery, i.negated);
                (Expr::InSubquery(list), changed)
            }
            other => return Ok(Transformed::no(other)),
        };
        Ok(Transformed::new_transformed(expr, changed))
    }
}

pub(super) fn is_compared(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}
