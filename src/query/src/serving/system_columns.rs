//! Columns beside a wildcard in queries over the system catalogs, as DataFusion wants them.
//!
//! | PostgreSQL | here |
//! | --- | --- |
//! | `SELECT n.oid, n.*`, `SELECT oid, *` | `n.oid AS __alias_oid`: each name once |
//! | `SELECT n.* .. WHERE oid = 1 ORDER BY nspname` | `n.oid`, `n.nspname`: the only wildcard's |

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, OrderByKind, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, TableFactor,
};
use std::collections::HashSet;

/// Rewrites the outermost SELECT of a query.
pub fn rewrite(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else {
        return;
    };
    alias_beside_wildcards(select);
    let wildcards: Vec<ObjectName> = qualified_wildcards(select).cloned().collect();
    let [wildcard] = wildcards.as_slice() else {
        return;
    };
    let names = Names {
        wildcard: Ident::new(wildcard.to_string()),
        tables: table_aliases(select),
        columns: select.projection.iter().filter_map(column_name).collect(),
    };
    if names.tables.is_empty() {
        return;
    }
    if let Some(selection) = &mut select.selection {
        names.qualify(selection);
    }
    if let Some(OrderByKind::Expressions(order)) = query.order_by.as_mut().map(|o| &mut o.kind) {
        for item in order {
            names.qualify(&mut item.expr);
        }
    }
}

/// The tables whose columns the select list takes with `table.*`.
fn qualified_wildcards(select: &Select) -> impl Iterator<Item = &ObjectName> {
    select.projection.iter().filter_map(|item| match item {
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
            Some(name)
        }
        _ => None,
    })
}

/// Names the columns that a wildcard of the same list names again.
fn alias_beside_wildcards(select: &mut Select) {
    let tables: HashSet<String> = qualified_wildcards(select).map(plain).collect();
    let is_wildcard = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_));
    if tables.is_empty() && !select.projection.iter().any(is_wildcard) {
        return;
    }
    for item in &mut select.projection {
        let SelectItem::UnnamedExpr(expr) = item else {
            continue;
        };
        let name = match expr {
            Expr::Identifier(name) => name.clone(),
            Expr::CompoundIdentifier(parts) => match parts.split_last() {
                Some((name, table)) if tables.contains(&joined(table)) => name.clone(),
                _ => continue,
            },
            _ => continue,
        };
        *item = SelectItem::ExprWithAlias {
            expr: expr.clone(),
            alias: Ident::new(format!("__alias_{name}")),
        };
    }
}

fn plain(name: &ObjectName) -> String {
    let parts: Vec<Ident> = name
        .0
        .iter()
        .filter_map(|p| p.as_ident().cloned())
        .collect();
    joined(&parts)
}

fn joined(parts: &[Ident]) -> String {
    let values: Vec<&str> = parts.iter().map(|p| p.value.as_str()).collect();
    values.join(".")
}

fn table_aliases(select: &Select) -> HashSet<String> {
    let from = select.from.iter();
    let factors = from.flat_map(|t| {
        let joined = t.joins.iter().map(|j| &j.relation);
        std::iter::once(&t.relation).chain(joined)
    });
    let alias = |factor: &TableFactor| match factor {
        TableFactor::Table {
            alias: Some(alias), ..
        } => Some(alias.name.value.clone()),
        _ => None,
    };
    factors.filter_map(alias).collect()
}

/// The name that the item gives to its column, if it is a plain one.
fn column_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(name.value.clone()),
        _ => None,
    }
}

struct Names {
    /// The table of the only `table.*`.
    wildcard: Ident,
    tables: HashSet<String>,
    columns: HashSet<String>,
}

impl Names {
    /// Makes `wildcard.name` of plain names that stand for no table and no other column.
    fn qualify(&self, expr: &mut Expr) {
        match expr {
            Expr::Identifier(name)
                if !self.tables.contains(&name.value) && !self.columns.contains(&name.value) =>
            {
                *expr = Expr::CompoundIdentifier(vec![self.wildcard.clone(), name.clone()]);
            }
            Expr::BinaryOp { left, right, .. } => {
                self.qualify(left);
                self.qualify(right);
            }
            _ => {}
        }
    }
}
