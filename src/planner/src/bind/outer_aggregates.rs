//! `(SELECT min(t.x))`, a subquery that reads nothing: an aggregate of columns is one of the query
//! around it, where the columns are, and the subquery is its one expression.
//!
//! `(VALUES (x))` as a value is `(x)`. `SELECT 1 FROM t HAVING c` makes one group of all rows
//! without any aggregate: one that is always true tells DataFusion so.

use super::Registry;
use crate::parse::parse_query;
use datafusion_sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Query, Select,
    SelectItem, SetExpr, Visit, Visitor,
};
use std::ops::ControlFlow;
use tidemark_common::Result;

/// Rewrites one expression whose parts are done.
pub(super) fn rewrite(expr: &mut Expr, registry: &Registry) {
    let Expr::Subquery(query) = &*expr else {
        return;
    };
    let Some(value) = only_value(query) else {
        return;
    };
    let mut aggregates = Aggregates {
        registry,
        found: false,
    };
    if Visit::visit(value, &mut aggregates).is_continue() && aggregates.found {
        *expr = Expr::Nested(Box::new(value.clone()));
    }
}

/// `(VALUES (x))` as `(x)`: it is read as a call, of a name that no function can have.
pub(super) fn one_value(expr: &mut Expr) {
    let Expr::Nested(inner) = expr else {
        return;
    };
    if let Expr::Function(function) = inner.as_ref()
        && function.name.to_string().eq_ignore_ascii_case("values")
        && let FunctionArguments::List(list) = &function.args
        && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(value))] = list.args.as_slice()
    {
        **inner = value.clone();
    }
}

/// Makes a group of what has HAVING, and neither GROUP BY nor an aggregate.
pub(super) fn one_group(select: &mut Select, registry: &Registry) -> Result<()> {
    let grouped = !matches!(&select.group_by,
        GroupByExpr::Expressions(groups, modifiers) if groups.is_empty() && modifiers.is_empty());
    let Some(condition) = select.having.take_if(|_| !grouped) else {
        return Ok(());
    };
    let mut any = AnyAggregate(registry);
    let found = Visit::visit(&select.projection, &mut any).is_break()
        || Visit::visit(&condition, &mut any).is_break();
    if found {
        select.having = Some(condition);
        return Ok(());
    }
    let mut query = parse_query("SELECT 1 HAVING count(*) >= 0 AND true")?;
    if let SetExpr::Select(written) = query.body.as_mut()
        && let Some(Expr::BinaryOp { left, op, .. }) = written.having.take()
    {
        let right = Box::new(Expr::Nested(Box::new(condition)));
        select.having = Some(Expr::BinaryOp { left, op, right });
    }
    Ok(())
}

/// Looks for aggregates of any kind.
struct AnyAggregate<'a>(&'a Registry);

impl Visitor for AnyAggregate<'_> {
    type Break = ();
    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(function)
                if function.over.is_none()
                    && self
                        .0
                        .is_aggregate(&function.name.to_string().to_lowercase()) =>
            {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// The one expression of a query that is nothing else.
fn only_value(query: &Query) -> Option<&Expr> {
    let bare = query.with.is_none() && query.order_by.is_none() && query.limit_clause.is_none();
    let SetExpr::Select(select) = query.body.as_ref() else {
        return None;
    };
    let Select {
        distinct: None,
        selection: None,
        having: None,
        qualify: None,
        from,
        projection,
        group_by: GroupByExpr::Expressions(groups, modifiers),
        ..
    } = select.as_ref()
    else {
        return None;
    };
    let [SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. }] =
        projection.as_slice()
    else {
        return None;
    };
    let plain =
        from.is_empty() && groups.is_empty() && modifiers.is_empty() && query.fetch.is_none();
    (bare && plain).then_some(value)
}

/// Looks for aggregates of columns; breaks off at one of something else, and at a subquery.
struct Aggregates<'a> {
    registry: &'a Registry,
    found: bool,
}

impl Visitor for Aggregates<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        ControlFlow::Break(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let Expr::Function(function) = expr else {
            return ControlFlow::Continue(());
        };
        let name = function.name.to_string().to_lowercase();
        if function.over.is_some() || !self.registry.is_aggregate(&name) {
            return ControlFlow::Continue(());
        }
        if !reads_columns(function) {
            return ControlFlow::Break(());
        }
        self.found = true;
        ControlFlow::Continue(())
    }
}

fn reads_columns(function: &Function) -> bool {
    struct Columns;
    impl Visitor for Columns {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    match &function.args {
        FunctionArguments::List(list) => Visit::visit(list, &mut Columns).is_break(),
        _ => false,
    }
}
