//! `SELECT .. FROM (SELECT .. ORDER BY x) q LIMIT 3`: the rows come in the order of the subquery,
//! as in PostgreSQL. DataFusion leaves out the order of a subquery that is not limited itself: so
//! it is, by `OFFSET 0`.

use crate::names::fold;
use datafusion_sql::sqlparser::ast::{
    Expr, LimitClause, Offset, OffsetRows, Query, SetExpr, TableFactor, Value, With,
};

/// Keeps the order of what a limited query reads and nothing else.
pub(super) fn keep(query: &mut Query) {
    let is_limited = query.limit_clause.is_some() || query.fetch.is_some();
    if is_limited && query.order_by.is_none() {
        let Query { with, body, .. } = query;
        below(body, with.as_mut());
    }
}

fn below(body: &mut SetExpr, with: Option<&mut With>) {
    let SetExpr::Select(select) = body else {
        return;
    };
    let [table] = select.from.as_mut_slice() else {
        return;
    };
    if !table.joins.is_empty() {
        return;
    }
    match &mut table.relation {
        TableFactor::Derived {
            lateral: false,
            subquery,
            ..
        } => limited(subquery),
        TableFactor::Table {
            name, args: None, ..
        } => {
            let [part] = name.0.as_slice() else {
                return;
            };
            let Some(name) = part.as_ident().cloned().map(fold) else {
                return;
            };
            let tables = with.into_iter().flat_map(|with| &mut with.cte_tables);
            let mut found = tables.filter(|table| fold(table.alias.name.clone()) == name);
            if let Some(table) = found.next() {
                limited(&mut table.query);
            }
        }
        _ => {}
    }
}

fn limited(query: &mut Query) {
    if query.limit_clause.is_some() || query.fetch.is_some() {
        return;
    }
    if query.order_by.is_none() {
        let Query { with, body, .. } = query;
        return below(body, with.as_mut());
    }
    query.limit_clause = Some(LimitClause::LimitOffset {
        limit: None,
        offset: Some(Offset {
            value: Expr::Value(Value::Number("0".into(), false).into()),
            rows: OffsetRows::None,
        }),
        limit_by: Vec::new(),
    });
}
