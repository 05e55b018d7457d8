//! Operands of operators, `IN` and `BETWEEN`: quoted constants get the type that the operator asks
//! for, and operands that it does not take are refused (`typed`).

use super::calls::Calls;
use super::moments::is_time;
use super::resolve::argument;
use super::typing::Typed;
use crate::error::external;
use crate::signatures::{common_type, type_text};
use arrow_schema::{DataType, IntervalUnit};
use datafusion_common::tree_node::Transformed;
use datafusion_common::{DFSchema, Result, ScalarValue};
use datafusion_expr::expr::{Between, Case, InList, InSubquery};
use datafusion_expr::{BinaryExpr, Expr, Operator, WindowFunctionDefinition, cast, lit};
use tidemark_common::{Error, SqlState};

impl Calls {
    /// An expression, given that those below are done.
    pub(super) fn operands(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let (expr, changed) = match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let (left, right, changed) = self.typed(*left, op, *right, schema, true)?;
                let binary = BinaryExpr::new(Box::new(left), op, Box::new(right));
                (Expr::BinaryExpr(binary), changed)
            }
            Expr::InList(list) => return self.list_operands(list, schema),
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
            Expr::AggregateFunction(mut call) => {
                if let Some(filter) = &call.params.filter {
                    condition(filter, "FILTER", schema)?;
                }
                let name = call.func.name();
                let changed = self.spans_of_times(name, &mut call.params.args, schema)?;
                (Expr::AggregateFunction(call), changed)
            }
            Expr::WindowFunction(mut call) => {
                let name = match &call.fun {
                    WindowFunctionDefinition::AggregateUDF(f) => f.name(),
                    WindowFunctionDefinition::WindowUDF(_) => "",
                };
                let changed = self.spans_of_times(name, &mut call.params.args, schema)?;
                (Expr::WindowFunction(call), changed)
            }
            other => return Ok(Transformed::no(other)),
        };
        Ok(Transformed::new_transformed(expr, changed))
    }

    /// What is held against a list. Constants are an array to PostgreSQL, if there are several: of
    /// reals beside a real, where each by itself would be a double.
    fn list_operands(&self, list: InList, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let InList {
            expr: value,
            list,
            negated,
        } = list;
        let real = value.get_type(schema).ok() == Some(DataType::Float32);
        let (together, apart) = match real {
            true => list.into_iter().partition(|item| !item.any_column_refs()),
            false => (list, Vec::new()),
        };
        // Of a parameter nothing is known yet.
        let args = together.iter().map(|item| argument(item, schema).ok());
        let args = args.collect::<Option<Vec<_>>>().unwrap_or_default();
        let known = args.iter().filter(|a| !a.is_unknown());
        let known = known.map(|a| a.data_type.clone());
        let types: Vec<DataType> = std::iter::once(DataType::Float32).chain(known).collect();
        if !real || args.len() < 2 || common_type(&types) != Some(DataType::Float32) {
            let all = together.into_iter().chain(apart).collect();
            return self.each_operand(*value, all, negated, schema);
        }
        let reals = together.into_iter().zip(&args);
        let reals = reals.map(|(item, arg)| self.convert(item, &arg.data_type, &DataType::Float32));
        let reals = InList::new(value.clone(), reals.collect::<Result<_>>()?, negated);
        let (op, joined) = match negated {
            true => (Operator::NotEq, Operator::And),
            false => (Operator::Eq, Operator::Or),
        };
        let mut whole = Expr::InList(reals);
        for item in apart {
            let (left, item, _) = self.typed(value.as_ref().clone(), op, item, schema, true)?;
            let one = Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(item)));
            whole = Expr::BinaryExpr(BinaryExpr::new(Box::new(whole), joined, Box::new(one)));
        }
        Ok(Transformed::yes(whole))
    }

    /// A list whose items are compared one by one.
    fn each_operand(
        &self,
        mut value: Expr,
        list: Vec<Expr>,
        negated: bool,
        schema: &DFSchema,
    ) -> Result<Transformed<Expr>> {
        let (mut changed, mut items) = (false, Vec::with_capacity(list.len()));
        for item in list {
            let (left, item, c) = self.typed(value, Operator::Eq, item, schema, true)?;
            value = left;
            changed |= c;
            items.push(item);
        }
        let list = InList::new(Box::new(value), items, negated);
        Ok(Transformed::new_transformed(Expr::InList(list), changed))
    }

    /// Times that are added up are intervals.
    fn spans_of_times(&self, function: &str, args: &mut [Expr], schema: &DFSchema) -> Result<bool> {
        let [value] = args else {
            return Ok(false);
        };
        if !matches!(function, "sum" | "avg") || !is_time(&value.get_type(schema)?) {
            return Ok(false);
        }
        let span = DataType::Interval(IntervalUnit::MonthDayNano);
        *value = self.cast(std::mem::take(value), &span)?;
        Ok(true)
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
