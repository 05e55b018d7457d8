//! What is tested for truth is a boolean: a quoted constant, a parameter or NULL gets that type, in
//! conditions (`WHERE 't'`, `ON 'yes'`, `CASE WHEN 'off'`), and as an operand of AND, OR, NOT and
//! IS TRUE.

use super::constants::as_type;
use datafusion_sql::sqlparser::ast::{
    self, BinaryOperator, Expr, JoinConstraint, JoinOperator, Select, UnaryOperator, Value,
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
    let joins = select.from.iter_mut().flat_map(|from| &mut from.joins);
    let on = joins.filter_map(|join| match constraint(&mut join.join_operator) {
        Some(JoinConstraint::On(condition)) => Some(condition),
        _ => None,
    });
    on.chain(&mut select.selection)
        .chain(&mut select.having)
        .for_each(typed);
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
