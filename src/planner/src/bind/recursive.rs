//! The two terms of a recursive query, whose working table has the types of the first one.
//!
//! The integers that it begins with are `integer`s, and other numbers are `numeric`s of any scale:
//! a constant is a `bigint`, or has a scale of its own, until all names are bound. What the second
//! term computes is marked, so that a cast which DataFusion puts around it can be told from one
//! that was written (`coerce::recursive`).

use super::moments::function;
use super::names::UNNAMED;
use crate::coerce::MARK;
use datafusion_sql::sqlparser::ast::{
    CastKind, DataType, ExactNumberInfo, Expr, FunctionArg, FunctionArgExpr, Ident, Query, Select,
    SelectItem, SetExpr, Value,
};

/// Rewrites the terms of a query that may be recursive.
pub(super) fn terms(query: &mut Query) {
    let SetExpr::SetOperation { left, right, .. } = query.body.as_mut() else {
        return;
    };
    first_term(left);
    if let SetExpr::Select(select) = right.as_mut() {
        for (expr, _) in outputs(select).filter(|(expr, _)| is_computed(expr)) {
            let arguments = [expr.clone(), Expr::Value(Value::Null.into())];
            let arguments = arguments.map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e)));
            *expr = Expr::Function(function(MARK, &arguments));
        }
    }
}

/// Gives the numbers that a query begins with the types that they have in PostgreSQL.
fn first_term(term: &mut SetExpr) {
    match term {
        SetExpr::Select(select) => {
            let numbers = outputs(select).filter(|(expr, _)| is_number(expr));
            numbers.for_each(|(expr, _)| cast_number(expr));
        }
        SetExpr::Values(values) => {
            let exprs = values.rows.iter_mut().flat_map(|row| &mut row.content);
            exprs.filter(|e| is_number(e)).for_each(cast_number);
        }
        SetExpr::SetOperation { left, right, .. } => {
            first_term(left);
            first_term(right);
        }
        SetExpr::Query(query) => first_term(&mut query.body),
        _ => {}
    }
}

fn cast_number(expr: &mut Expr) {
    *expr = Expr::Cast {
        kind: CastKind::DoubleColon,
        data_type: match is_integer(expr) {
            true => DataType::Integer(None),
            false => DataType::Numeric(ExactNumberInfo::None),
        },
        expr: Box::new(expr.clone()),
        array: false,
        format: None,
    };
}

/// The expressions of a select list, each with a name.
fn outputs(select: &mut Select) -> impl Iterator<Item = (&mut Expr, &mut Ident)> {
    select.projection.iter_mut().filter_map(|item| {
        if let SelectItem::UnnamedExpr(expr) = item
            && (is_number(expr) || is_computed(expr))
        {
            *item = SelectItem::ExprWithAlias {
                expr: expr.clone(),
                alias: Ident::with_quote('"', UNNAMED),
            };
        }
        match item {
            SelectItem::ExprWithAlias { expr, alias } => Some((expr, alias)),
            _ => None,
        }
    })
}

fn is_number(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value)
        if matches!(&value.value, Value::Number(n, _)
            if is_integer(expr) || n.contains(['.', 'e', 'E'])))
}

fn is_integer(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value)
        if matches!(&value.value, Value::Number(n, _) if n.parse::<i32>().is_ok()))
}

/// Whether something is computed whose type is not said.
fn is_computed(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryOp { .. }
        | Expr::UnaryOp { .. }
        | Expr::Case { .. }
        | Expr::Function(_)
        | Expr::Floor { .. }
        | Expr::Ceil { .. } => true,
        Expr::Nested(inner) => is_computed(inner),
        _ => false,
    }
}
