//! Operands of operators, `IN` and `BETWEEN`: quoted constants get the type that the operator asks
//! for, and operands that it does not take are refused (`typed`).

use super::calls::Calls;
use super::resolve::argument;
use crate::bind::external;
use crate::signatures::type_text;
use arrow_schema::DataType;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::Transformed;
use datafusion_common::{DFSchema, Result, ScalarValue};
use datafusion_expr::expr::{Between, Case, InList, InSubquery};
use datafusion_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, cast, lit};
use datafusion_optimizer::AnalyzerRule;
use tidemark_common::{Error, SqlState};

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
            Expr::Case(case) => return self.case_operands(case, schema),
            Expr::AggregateFunction(call) => {
                if let Some(filter) = &call.params.filter {
                    condition(filter, "FILTER", schema)?;
                }
                if call.params.distinct && matches!(call.func.name(), "sum" | "avg") {
                    distinct_intervals(&call.params.args, call.func.name(), schema)?;
                }
                return Ok(Transformed::no(Expr::AggregateFunction(call)));
            }
            other => return Ok(Transformed::no(other)),
        };
        Ok(Transformed::new_transformed(expr, changed))
    }

    /// What CASE compares, or its conditions.
    fn case_operands(&self, case: Case, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let Some(mut value) = case.expr else {
            for (when, _) in &case.when_then_expr {
                condition(when, "CASE/WHEN", schema)?;
            }
            return Ok(Transformed::no(Expr::Case(case)));
        };
        let (mut changed, mut arms) = (false, Vec::with_capacity(case.when_then_expr.len()));
        for (when, then) in case.when_then_expr {
            let (left, when, c) = self.typed(*value, Operator::Eq, *when, schema, true)?;
            *value = left;
            changed |= c;
            arms.push((Box::new(when), then));
        }
        let case = Case::new(Some(value), arms, case.else_expr);
        Ok(Transformed::new_transformed(Expr::Case(case), changed))
    }
}

/// `0A000` for sums of distinct intervals: which of equal ones counts (1 day, 24 hours) is open.
fn distinct_intervals(args: &[Expr], function: &str, schema: &DFSchema) -> Result<()> {
    let is = args.first().map(|arg| arg.get_type(schema));
    if !matches!(is, Some(Ok(DataType::Interval(_)))) {
        return Ok(());
    }
    let message = format!("{function}(DISTINCT interval) is not supported");
    Err(external(Error::unsupported(message)))
}

/// `42804` for a condition that is none.
fn condition(expr: &Expr, clause: &str, schema: &DFSchema) -> Result<()> {
    // What has no type yet is an operator's, and a boolean if it is right.
    let Ok(is) = argument(expr, schema) else {
        return Ok(());
    };
    if is.is_unknown() || matches!(is.data_type, DataType::Boolean | DataType::Null) {
        return Ok(());
    }
    let message = format!(
        "argument of {clause} must be type boolean, not type {}",
        type_text(&is)
    );
    Err(external(Error::user(SqlState::DATATYPE_MISMATCH, message)))
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
