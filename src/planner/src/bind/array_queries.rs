//! `ARRAY(SELECT ...)`: the rows of a subquery of one column, collected in their order; without
//! rows an array without elements.
//!
//! ```text
//! ARRAY(SELECT x FROM t WHERE p ORDER BY y)
//!     COALESCE((SELECT array_agg(x ORDER BY y) FROM t WHERE p), '{}')
//! ARRAY(SELECT x FROM t ORDER BY y LIMIT n)
//!     COALESCE((SELECT array_agg(r.x ORDER BY r.y)
//!               FROM (SELECT x, y FROM t ORDER BY y LIMIT n) r), '{}')
//! ```
//!
//! The first form is for a subquery that neither groups nor cuts off its rows; it may refer to the
//! queries around it.

use super::Provider;
use super::moments::function;
use super::names::column_name;
use crate::names::fold;
use crate::parse::parse_query;
use datafusion_sql::sqlparser::ast::{
    self, Expr, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments,
    GroupByExpr, Ident, OrderBy, OrderByExpr, OrderByKind, Query, Select, SelectItem, SetExpr,
    TableAlias, TableAliasColumnDef, TableFactor, TableWithJoins, Value, Visit, Visitor,
};
use std::ops::ControlFlow;
use tidemark_common::{Error, Result, SqlState};

/// The rows of a subquery that are collected.
const ROWS: &str = "__rows";

impl Provider<'_> {
    /// Rewrites a call.
    ///
    /// Errors: `42601` for a subquery of several columns, `0A000` for an order by what is no column
    /// of a DISTINCT subquery or a set operation.
    pub(super) fn array_query(&self, expr: &mut Expr) -> Result<()> {
        let Expr::Function(call) = expr else {
            return Ok(());
        };
        let FunctionArguments::Subquery(query) = &mut call.args else {
            return Ok(());
        };
        if !call.name.to_string().eq_ignore_ascii_case("array") {
            return Ok(());
        }
        let query = std::mem::replace(query, parse_query("SELECT 1")?);
        let collected = match self.in_place(*query)? {
            Ok(collected) => collected,
            Err(query) => around(query)?,
        };
        let empty = Expr::Value(Value::SingleQuotedString("{}".into()).into());
        let args = [
            argument(Expr::Subquery(Box::new(collected))),
            argument(empty),
        ];
        *expr = Expr::Function(function("coalesce", &args));
        Ok(())
    }

    /// The subquery with its column collected where it is computed, or as it was.
    fn in_place(&self, mut query: Query) -> Result<std::result::Result<Query, Query>> {
        let plain = query.with.is_none() && query.limit_clause.is_none() && query.fetch.is_none();
        let SetExpr::Select(select) = query.body.as_mut() else {
            return Ok(Err(query));
        };
        check_width(select)?;
        if !plain || !self.is_plain(select, query.order_by.as_ref()) {
            return Ok(Err(query));
        }
        let (value, alias) = match select.projection.pop() {
            Some(SelectItem::UnnamedExpr(value)) => (value, None),
            Some(SelectItem::ExprWithAlias { expr, alias }) => (expr, Some(fold(alias))),
            other => {
                select.projection.extend(other);
                return Ok(Err(query));
            }
        };
        let name = alias.or_else(|| column_name(&value));
        let mut order = sorts(query.order_by.take());
        for sort in &mut order {
            if is_output(&sort.expr, name.as_deref()) {
                sort.expr = value.clone();
            }
        }
        select.projection = vec![SelectItem::UnnamedExpr(collect(value, order))];
        Ok(Ok(query))
    }

    /// Whether a SELECT gives a row for each of FROM that WHERE lets pass.
    fn is_plain(&self, select: &Select, order_by: Option<&OrderBy>) -> bool {
        let groups = match &select.group_by {
            GroupByExpr::Expressions(exprs, modifiers) => {
                !exprs.is_empty() || !modifiers.is_empty()
            }
            GroupByExpr::All(_) => true,
        };
        let mut calls = Calls(self);
        let is_column = |item: &SelectItem| {
            matches!(
                item,
                SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }
            )
        };
        !groups
            && select.having.is_none()
            && select.distinct.is_none()
            && !select.from.is_empty()
            && select.projection.iter().all(is_column)
            && select.projection.visit(&mut calls).is_continue()
            && order_by.is_none_or(|o| o.visit(&mut calls).is_continue())
    }
}

/// Finds calls that make other rows than those of FROM.
struct Calls<'a>(&'a Provider<'a>);

impl Visitor for Calls<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let Expr::Function(call) = expr else {
            return ControlFlow::Continue(());
        };
        let name = call.name.0.last().and_then(|p| p.as_ident()).cloned();
        let name = name.map(fold).unwrap_or_default();
        let scalar = self.0.registry.scalar.contains_key(&name) && name != "unnest";
        if scalar && call.over.is_none() || name == "coalesce" {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }
}

fn check_width(select: &Select) -> Result<()> {
    if select.projection.len() > 1 {
        return Err(Error::user(
            SqlState::SYNTAX_ERROR,
            "subquery must return only one column",
        ));
    }
    Ok(())
}

/// The rows of a subquery collected by a query around it, which gets what they are in order of.
fn around(mut query: Query) -> Result<Query> {
    let mut order = sorts(query.order_by.clone());
    if let SetExpr::Select(select) = query.body.as_mut()
        && select.distinct.is_none()
    {
        let name = match select.projection.first() {
            Some(SelectItem::UnnamedExpr(value)) => column_name(value),
            Some(SelectItem::ExprWithAlias { alias, .. }) => Some(fold(alias.clone())),
            _ => None,
        };
        for sort in &mut order {
            if is_output(&sort.expr, name.as_deref()) {
                sort.expr = column(0);
                continue;
            }
            let place = select.projection.len();
            let expr = std::mem::replace(&mut sort.expr, column(place));
            select.projection.push(SelectItem::ExprWithAlias {
                expr,
                alias: label(place),
            });
        }
    } else {
        let name = super::names::select_list(&query.body).and_then(|items| match items {
            [SelectItem::UnnamedExpr(value)] => column_name(value),
            [SelectItem::ExprWithAlias { alias, .. }] => Some(fold(alias.clone())),
            _ => None,
        });
        for sort in &mut order {
            if !is_output(&sort.expr, name.as_deref()) {
                let message =
                    "ARRAY of a subquery ordered by what is not its column is not supported";
                return Err(Error::unsupported(message));
            }
            sort.expr = column(0);
        }
    }
    let width = match query.body.as_ref() {
        SetExpr::Select(select) => select.projection.len(),
        _ => 1,
    };
    let mut collected = parse_query("SELECT 1")?;
    if let SetExpr::Select(select) = collected.body.as_mut() {
        select.projection = vec![SelectItem::UnnamedExpr(collect(column(0), order))];
        select.from = vec![TableWithJoins {
            relation: TableFactor::Derived {
                lateral: false,
                subquery: Box::new(query),
                alias: Some(TableAlias {
                    explicit: true,
                    name: Ident::new(ROWS),
                    columns: (0..width)
                        .map(|place| TableAliasColumnDef {
                            name: label(place),
                            data_type: None,
                        })
                        .collect(),
                    at: None,
                }),
                sample: None,
            },
            joins: Vec::new(),
        }];
    }
    Ok(*collected)
}

fn label(place: usize) -> Ident {
    Ident::new(format!("__{}", place + 1))
}

fn column(place: usize) -> Expr {
    Expr::CompoundIdentifier(vec![Ident::new(ROWS), label(place)])
}

fn sorts(order_by: Option<OrderBy>) -> Vec<OrderByExpr> {
    match order_by.map(|o| o.kind) {
        Some(OrderByKind::Expressions(sorts)) => sorts,
        _ => Vec::new(),
    }
}

/// Whether an expression of ORDER BY is the one column of the result.
fn is_output(expr: &Expr, name: Option<&str>) -> bool {
    match expr {
        Expr::Identifier(ident) => name.is_some_and(|name| fold(ident.clone()) == name),
        Expr::Value(v) => matches!(&v.value, Value::Number(n, _) if n == "1"),
        _ => false,
    }
}

fn argument(expr: Expr) -> FunctionArg {
    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
}

/// `array_agg(value ORDER BY ...)`.
fn collect(value: Expr, order: Vec<OrderByExpr>) -> Expr {
    let mut call: ast::Function = function("array_agg", &[argument(value)]);
    if let FunctionArguments::List(list) = &mut call.args
        && !order.is_empty()
    {
        list.clauses.push(FunctionArgumentClause::OrderBy(order));
    }
    Expr::Function(call)
}
