//! What is tested for truth is a boolean: a quoted constant, a parameter or NULL gets that type, in
//! conditions (`WHERE 't'`, `ON 'yes'`, `CASE WHEN 'off'`), and as an operand of AND, OR, NOT and
//! IS TRUE.

use super::constants::as_type;
use datafusion_sql::sqlparser::ast::{
    self, BinaryOperator, Expr, JoinConstraint, JoinOperator, Select, TableFactor, TableWithJoins,
    UnaryOperator, Value,
};

/// Types an expression that has no type of its own.
pub(super) fn typed(value: &mut Expr) {
    let mut inner = &*value;
    while let Expr::Nested(nested) = inner {
        inner = nested;
    }
    let untyped = matches!(inner, Expr::Value(v) if matches!(
        v.value,
        Value::SingleQuotedString(_)
            | Value::EscapedStringLiteral(_)
            | Value::UnicodeStringLiteral(_)
            | Value::Placeholder(_)
            | Value::Null
    ));
    if untyped {
        *value = as_type(value, ast::DataType::Boolean);
    }
}

/// The conditions of a SELECT.
pub(super) fn conditions(select: &mut Select) {
    select.from.iter_mut().for_each(joined);
    let (selection, having) = (&mut select.selection, &mut select.having);
    selection.iter_mut().chain(having).for_each(typed);
}

/// Those of joins, in parentheses too.
fn joined(tables: &mut TableWithJoins) {
    for join in &mut tables.joins {
        if let Some(JoinConstraint::On(condition)) = constraint(&mut join.join_operator) {
            typed(condition);
        }
    }
    let joins = tables.joins.iter_mut().map(|join| &mut join.relation);
    for relation in std::iter::once(&mut tables.relation).chain(joins) {
        if let TableFactor::NestedJoin {
            table_with_joins, ..
        } = relation
        {
            joined(table_with_joins);
        }
    }
}

fn constraint(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint) => Some(constraint),
        _ => None,
    }
}

/// The conditions and operands in an expression.
pub(super) fn rewrite(expr: &mut Expr) {
    match expr {
        Expr::IsTrue(value)
        | Expr::IsNotTrue(value)
        | Expr::IsFalse(value)
        | Expr::IsNotFalse(value)
        | Expr::IsUnknown(value)
        | Expr::IsNotUnknown(value)
        | Expr::UnaryOp {
            op: UnaryOperator::Not,
            expr: value,
        } => typed(value),
        Expr::BinaryOp {
            left,
            op: BinaryOperator::And | BinaryOperator::Or,
            right,
        } => {
            typed(left);
            typed(right);
        }
        Expr::Case {
            operand: None,
            conditions,
            ..
        } => conditions
            .iter_mut()
            .for_each(|when| typed(&mut when.condition)),
        Expr::Function(function) => {
            if let Some(filter) = function.filter.as_deref_mut() {
                typed(filter);
            }
        }
        _ => {}
    }
}
