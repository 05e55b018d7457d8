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
use crate::names::fold;
use arrow_schema::SchemaRef;
use datafusion_expr::TableSource;
use datafusion_sql::sqlparser::ast::{
    Cte, DataType, ExactNumberInfo, Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, Query,
    Select, SelectItem, SetExpr, SetOperator, Value, Values, Visit, With, visit_relations,
};
use std::ops::ControlFlow;
use tidemark_common::{Error, Result, SqlState};

/// What stands for the rows of an iteration in the second term.
pub(crate) struct WorkingTable {
    /// The name of the recursive query.
    pub query: String,
    schema: SchemaRef,
}

impl WorkingTable {
    pub(super) fn new(query: &str, schema: SchemaRef) -> WorkingTable {
        WorkingTable {
            query: query.to_string(),
            schema,
        }
    }
}

impl TableSource for WorkingTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

/// Holds the queries of a `WITH RECURSIVE` against what the binder takes them for: it looks for a
/// name that it does not know yet among relations, and passes over what stands behind the terms.
///
/// Errors: `0A000` for queries that read later ones and for clauses around the terms, `42P19` for
/// what is no first term and second term.
pub(super) fn check(with: &mut With) -> Result<()> {
    if !with.recursive {
        return Ok(());
    }
    let named = |cte: &Cte| fold(cte.alias.name.clone());
    let names: Vec<String> = with.cte_tables.iter().map(named).collect();
    for (at, cte) in with.cte_tables.iter_mut().enumerate() {
        let mut later = names[at + 1..].iter();
        if let Some(later) = later.find(|name| reads(&cte.query, name)) {
            let message = format!("a WITH query that reads \"{later}\" before it is defined");
            return Err(
                Error::unsupported(format!("{message} is not supported")).with_hint(
                    "Write it behind what it reads. Queries that read each other are none.",
                ),
            );
        }
        match reads(&cte.query, &names[at]) {
            true => check_terms(&mut cte.query, &names[at])?,
            false => keep_clauses(&mut cte.query),
        }
    }
    Ok(())
}

/// Whether something reads a relation by this name alone.
fn reads(ast: &impl Visit, name: &str) -> bool {
    let found = visit_relations(ast, |relation: &ObjectName| {
        let is_it = match relation.0.as_slice() {
            [only] => only.as_ident().is_some_and(|i| fold(i.clone()) == name),
            _ => false,
        };
        match is_it {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    found.is_break()
}

/// A query that reads itself.
fn check_terms(query: &mut Query, name: &str) -> Result<()> {
    let not_implemented = |what: &str| {
        let message = format!("{what} in a recursive query is not supported");
        Err(Error::unsupported(message)
            .with_hint("Write it in the query around it, which reads the recursive one."))
    };
    loop {
        match query {
            Query { with: Some(_), .. } => return not_implemented("WITH"),
            query if query.order_by.is_some() => return not_implemented("ORDER BY"),
            query if query.limit_clause.is_some() || query.fetch.is_some() => {
                return not_implemented("LIMIT or OFFSET");
            }
            query if !query.locks.is_empty() => return not_implemented("FOR UPDATE"),
            _ => {}
        }
        // Parentheses around both terms are none.
        match query.body.as_mut() {
            SetExpr::Query(inner) => *query = inner.as_ref().clone(),
            _ => break,
        }
    }
    let wrong = |message: String| Err(Error::user(SqlState("42P19"), message));
    match query.body.as_ref() {
        SetExpr::SetOperation {
            op: SetOperator::Union,
            left,
            ..
        } if reads(left, name) => wrong(format!(
            "recursive reference to query \"{name}\" must not appear within its non-recursive term"
        )),
        SetExpr::SetOperation {
            op: SetOperator::Union,
            ..
        } => Ok(()),
        _ => wrong(format!(
            "recursive query \"{name}\" does not have the form non-recursive-term UNION [ALL] \
             recursive-term"
        )),
    }
}

/// Puts a query that does not read itself into parentheses, if it has more than its terms.
fn keep_clauses(query: &mut Query) {
    let bare = query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none();
    if bare || !matches!(*query.body, SetExpr::SetOperation { .. }) {
        return;
    }
    let whole = query.clone();
    (query.with, query.order_by) = (None, None);
    (query.limit_clause, query.fetch) = (None, None);
    query.body = Box::new(SetExpr::Query(Box::new(whole)));
}

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
