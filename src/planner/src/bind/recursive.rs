//! The two terms of a recursive query, whose working table has the types of the first one.
//!
//! The integers that it begins with are `integer`s, and other numbers are `numeric`s of any scale:
//! a constant is a `bigint`, or has a scale of its own, until all names are bound. A NULL without a
//! type is a `text`. What the second term computes is marked, so that a cast which DataFusion puts
//! around it can be told from one that was written (`coerce::recursive`).

use super::constants::as_type;
use super::moments::function;
use super::names::{UNNAMED, column_name};
use crate::coerce::MARK;
use datafusion_sql::sqlparser::ast::{
    DataType, ExactNumberInfo, Expr, FunctionArg, FunctionArgExpr, Ident, Query, Select,
    SelectItem, SetExpr, Value, Values,
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
            let nulls = outputs(select).filter(|(expr, _)| is_null(expr));
            nulls.for_each(|(expr, _)| *expr = as_type(expr, DataType::Text));
        }
        SetExpr::Values(values) => {
            null_columns(values);
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

/// Types the columns that have nothing but NULLs.
fn null_columns(values: &mut Values) {
    let width = values.rows.first().map_or(0, |row| row.content.len());
    for column in 0..width {
        let cells = || values.rows.iter().filter_map(|row| row.content.get(column));
        if cells().all(is_null) {
            let cells = values.rows.iter_mut();
            let cells = cells.filter_map(|row| row.content.get_mut(column));
            cells.for_each(|cell| *cell = as_type(cell, DataType::Text));
        }
    }
}

fn cast_number(expr: &mut Expr) {
    let data_type = match is_integer(expr) {
        true => DataType::Integer(None),
        false => DataType::Numeric(ExactNumberInfo::None),
    };
    *expr = as_type(expr, data_type);
}

/// The expressions of a select list, each with a name.
fn outputs(select: &mut Select) -> impl Iterator<Item = (&mut Expr, &mut Ident)> {
    select.projection.iter_mut().filter_map(|item| {
        if let SelectItem::UnnamedExpr(expr) = item
            && (is_number(expr) || is_null(expr) || is_computed(expr))
        {
            let name = column_name(expr).unwrap_or_else(|| UNNAMED.into());
            *item = SelectItem::ExprWithAlias {
                expr: expr.clone(),
                alias: Ident::with_quote('"', name),
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

/// Whether it is a NULL of no type.
fn is_null(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => matches!(value.value, Value::Null),
        Expr::Nested(inner) => is_null(inner),
        Expr::Case {
            conditions,
            else_result,
            ..
        } => {
            let mut results = conditions.iter().map(|when| &when.result);
            results.all(is_null) && else_result.as_deref().is_none_or(is_null)
        }
        _ => false,
    }
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
