//! ORDER BY of expressions whose names are also those of columns of the result. Only a name that
//! stands alone means the result; in an expression it is a column of FROM. DataFusion looks at the
//! result first, so such a query becomes one in FROM, with what it is ordered by as columns:
//!
//! ```text
//! SELECT -id AS id FROM t ORDER BY id + 0
//! SELECT __1 AS id FROM (SELECT -id, id + 0 FROM t) AS __sorted (__1, __2) ORDER BY __2
//! ```
//!
//! What DISTINCT queries are ordered by has to be shown, and becomes its position.

use super::items::position_of;
use super::sets::derived;
use super::{Output, quoted, unique};
use crate::names::fold;
use crate::parse::parse_query;
use datafusion_sql::sqlparser::ast::{
    Distinct, Expr, Ident, OrderByKind, Query, Select, SelectItem, SetExpr, Value, Visit, Visitor,
};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use tidemark_common::Result;

/// Whether a query, as it is written, is such.
pub(super) fn is_wanted(query: &Query) -> bool {
    let (SetExpr::Select(select), Some(order_by)) = (query.body.as_ref(), &query.order_by) else {
        return false;
    };
    let OrderByKind::Expressions(keys) = &order_by.kind else {
        return false;
    };
    if matches!(select.distinct, Some(Distinct::On(_))) {
        return false;
    }
    let aliases = aliases(select);
    keys.iter().any(|key| match &key.expr {
        Expr::Identifier(_) | Expr::Value(_) => false,
        expr => is_distinct(select) || names_one_of(expr, &aliases),
    })
}

fn is_distinct(select: &Select) -> bool {
    matches!(select.distinct, Some(Distinct::Distinct))
}

/// The names of columns of the result that are something else than the columns of these names.
fn aliases(select: &Select) -> BTreeSet<String> {
    let items = select.projection.iter();
    let named = items.filter_map(|item| match item {
        SelectItem::ExprWithAlias { expr, alias } => {
            let alias = fold(alias.clone());
            let same = last_name(expr).is_some_and(|name| fold(name.clone()) == alias);
            (!same).then_some(alias)
        }
        _ => None,
    });
    named.collect()
}

fn last_name(expr: &Expr) -> Option<&Ident> {
    match expr {
        Expr::Identifier(name) => Some(name),
        Expr::CompoundIdentifier(parts) => parts.last(),
        _ => None,
    }
}

fn names_one_of(expr: &Expr, names: &BTreeSet<String>) -> bool {
    struct Finder<'a>(&'a BTreeSet<String>);
    impl Visitor for Finder<'_> {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match last_name(expr) {
                Some(name) if self.0.contains(&fold(name.clone())) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    !names.is_empty() && expr.visit(&mut Finder(names)).is_break()
}

/// Rewrites such a query, given its columns, when the names in it are resolved.
pub(super) fn rewrite(query: &mut Query, columns: &[Output]) -> Result<()> {
    let Some(order_by) = &mut query.order_by else {
        return Ok(());
    };
    let OrderByKind::Expressions(keys) = &order_by.kind else {
        return Ok(());
    };
    let SetExpr::Select(select) = query.body.as_ref() else {
        return Ok(());
    };
    let mut hidden: Vec<Expr> = Vec::new();
    let mut places = Vec::with_capacity(keys.len());
    for key in keys {
        let place = position_of(&key.expr, columns, &query.body);
        places.push(place.unwrap_or_else(|| {
            hidden.push(key.expr.clone());
            columns.len() + hidden.len()
        }));
    }
    if is_distinct(select) {
        if hidden.is_empty()
            && let OrderByKind::Expressions(keys) = &mut order_by.kind
        {
            for (key, place) in keys.iter_mut().zip(places) {
                key.expr = Expr::Value(Value::Number(place.to_string(), false).into());
            }
        }
        return Ok(());
    }
    let width = columns.len() + hidden.len();
    let names: Vec<String> = (1..=width).map(|i| format!("__{i}")).collect();
    let items = unique(columns).into_iter().enumerate();
    let items = items.map(|(i, name)| format!("__{} AS {}", i + 1, quoted(&name)));
    let items: Vec<String> = items.collect();
    let mut outer = parse_query(&format!(
        "SELECT {} FROM (SELECT 1) AS __sorted ({})",
        items.join(", "),
        names.join(", ")
    ))?;
    let empty = SetExpr::Query(parse_query("SELECT 1")?);
    let mut body = std::mem::replace(query.body.as_mut(), empty);
    if let SetExpr::Select(select) = &mut body {
        let items = hidden.into_iter().enumerate();
        let items = items.map(|(i, expr)| SelectItem::ExprWithAlias {
            expr,
            alias: quoted(&format!("__key_{i}")),
        });
        select.projection.extend(items);
    }
    *derived(&mut outer.body)? = body;
    query.body = outer.body;
    if let OrderByKind::Expressions(keys) = &mut order_by.kind {
        for (key, place) in keys.iter_mut().zip(places) {
            key.expr = Expr::Identifier(Ident::new(format!("__{place}")));
        }
    }
    Ok(())
}
