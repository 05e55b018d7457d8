//! `ORDER BY k FETCH FIRST n ROWS WITH TIES`: the rows of rank n at most, counted by k.
//!
//! ```text
//! SELECT .. FROM (SELECT *, rank() OVER (ORDER BY k) r, row_number() OVER (ORDER BY k) p FROM q)
//! WHERE p > offset AND r <= offset + n ORDER BY p
//! ```
//!
//! What rows are ordered by and the query does not show becomes a column of it that is not shown.

use super::items::position_of;
use super::sets::derived;
use super::{Output, quoted, unique};
use crate::parse::parse_query;
use datafusion_sql::sqlparser::ast::{
    Expr, Ident, LimitClause, OrderByKind, Query, SelectItem, SetExpr,
};
use tidemark_common::{Error, Result, SqlState};

/// Rewrites a query that is so limited, given its columns. The rows of a maintained one have no
/// order.
pub(super) fn rewrite(
    query: &mut Query,
    columns: Option<&[Output]>,
    maintained: bool,
) -> Result<()> {
    let Some(fetch) = query.fetch.take_if(|f| f.with_ties && !f.percent) else {
        return Ok(());
    };
    let Some(order_by) = query.order_by.take() else {
        return Err(Error::user(
            SqlState::SYNTAX_ERROR,
            "WITH TIES cannot be specified without ORDER BY clause",
        ));
    };
    let refused = || Error::unsupported("FETCH FIRST with WITH TIES is not supported here");
    let (Some(columns), OrderByKind::Expressions(mut keys)) = (columns, order_by.kind) else {
        return Err(refused());
    };
    let offset = match query.limit_clause.take() {
        None => None,
        Some(LimitClause::LimitOffset {
            limit: None,
            offset,
            ..
        }) => offset.map(|o| o.value),
        Some(_) => return Err(refused()),
    };
    let mut hidden = Vec::new();
    for key in &mut keys {
        let place = match position_of(&key.expr, columns, &query.body) {
            Some(place) => place,
            None => {
                hidden.push(key.expr.clone());
                columns.len() + hidden.len()
            }
        };
        key.expr = Expr::Identifier(Ident::new(format!("__{place}")));
    }
    let width = columns.len() + hidden.len();
    if !hidden.is_empty() {
        let SetExpr::Select(select) = query.body.as_mut() else {
            return Err(refused());
        };
        if select.distinct.is_some() {
            return Err(refused());
        }
        let items = hidden.into_iter().enumerate();
        let items = items.map(|(i, expr)| SelectItem::ExprWithAlias {
            expr,
            alias: quoted(&format!("__key_{i}")),
        });
        select.projection.extend(items);
    }
    let names: Vec<String> = (1..=width).map(|i| format!("__{i}")).collect();
    let names = names.join(", ");
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    let keys = keys.join(", ");
    let items = unique(columns).into_iter().enumerate();
    let items = items.map(|(i, name)| format!("__{} AS {}", i + 1, quoted(&name)));
    let items: Vec<String> = items.collect();
    let offset = offset.map_or_else(|| "0".to_string(), |o| o.to_string());
    let count = fetch.quantity.map_or_else(|| "1".into(), |q| q.to_string());
    let ranked = format!(
        "SELECT {names}, rank() OVER (ORDER BY {keys}) AS __rank, \
         row_number() OVER (ORDER BY {keys}) AS __place FROM (SELECT 1) AS __all({names})"
    );
    let mut outer = parse_query(&format!(
        "SELECT {} FROM ({ranked}) AS __ties WHERE __place > ({offset}) \
         AND __rank <= ({offset}) + ({count}) ORDER BY __place",
        items.join(", ")
    ))?;
    let empty = SetExpr::Query(parse_query("SELECT 1")?);
    let body = std::mem::replace(query.body.as_mut(), empty);
    *derived(derived(&mut outer.body)?)? = body;
    query.body = outer.body;
    query.order_by = outer.order_by.filter(|_| !maintained);
    Ok(())
}
