//! Columns that follow from what is grouped by: where GROUP BY has the primary key of a table, the
//! table's other columns may stand beside aggregates. Those that do are grouped by as well.

use super::{Scope, Scopes, qualified};
use crate::names::fold;
use datafusion_sql::sqlparser::ast::{
    Expr, FunctionArguments, GroupByExpr, ObjectName, ObjectNamePart, OrderBy, Query, Select,
    SelectItem, SelectItemQualifiedWildcardKind as Kind, VisitMut, VisitorMut,
};
use std::ops::ControlFlow;

/// A table and a column, by their positions.
pub(super) type Place = (usize, usize);

impl Scopes<'_> {
    /// Adds the columns that SELECT, HAVING and ORDER BY name to GROUP BY, if they follow from it.
    pub(super) fn dependent_columns(&self, select: &mut Select, order_by: Option<&mut OrderBy>) {
        let (GroupByExpr::Expressions(grouped, modifiers), Some(scope)) =
            (&select.group_by, self.scopes.last())
        else {
            return;
        };
        if grouped.is_empty() || !modifiers.is_empty() {
            return;
        }
        let grouped: Vec<Place> = grouped.iter().filter_map(|e| place(e, scope)).collect();
        let follows = |table: usize| {
            let columns = scope.tables[table].1.iter().flatten().enumerate();
            let mut key = columns.filter(|(_, c)| c.key).peekable();
            key.peek().is_some() && key.all(|(column, _)| grouped.contains(&(table, column)))
        };
        let tables: Vec<usize> = (0..scope.tables.len()).filter(|t| follows(*t)).collect();
        if tables.is_empty() {
            return;
        }
        let mut named = Named {
            scopes: self,
            scope,
            tables,
            grouped,
            found: Vec::new(),
            inside: Vec::new(),
            queries: Vec::new(),
        };
        for item in &mut select.projection {
            if let SelectItem::QualifiedWildcard(Kind::ObjectName(name), _) = &item {
                named.all_of(name);
            }
            let _ = VisitMut::visit(item, &mut named);
        }
        let _ = VisitMut::visit(&mut select.having, &mut named);
        if let Some(order_by) = order_by {
            let _ = VisitMut::visit(order_by, &mut named);
        }
        let found = named.found;
        if let GroupByExpr::Expressions(exprs, _) = &mut select.group_by {
            exprs.extend(found);
        }
    }
}

/// The column that an expression is.
pub(super) fn place(expr: &Expr, scope: &Scope) -> Option<Place> {
    let (table, column) = match expr {
        Expr::Identifier(column) => (None, column),
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [table, column] => (Some(fold(table.clone())), column),
            _ => return None,
        },
        _ => return None,
    };
    let column = fold(column.clone());
    let mut found = scope
        .tables
        .iter()
        .enumerate()
        .filter(|(_, (name, _))| table.as_ref().is_none_or(|table| table == name))
        .filter_map(|(i, (_, columns))| {
            let columns = columns.as_ref()?;
            Some((i, columns.iter().position(|c| c.name == column)?))
        });
    found.next().filter(|_| found.next().is_none())
}

/// Collects columns of tables whose key is grouped by, outside of aggregates and subqueries.
struct Named<'a, 'b> {
    scopes: &'a Scopes<'b>,
    scope: &'a Scope,
    tables: Vec<usize>,
    grouped: Vec<Place>,
    found: Vec<Expr>,
    /// The arguments of the aggregates, and the queries, that are being visited, taken out of the
    /// way.
    inside: Vec<FunctionArguments>,
    queries: Vec<Query>,
}

impl Named<'_, '_> {
    /// `t.*`.
    fn all_of(&mut self, name: &ObjectName) {
        let [ObjectNamePart::Identifier(name)] = name.0.as_slice() else {
            return;
        };
        let name = fold(name.clone());
        let Some(table) = self.scope.tables.iter().position(|(n, _)| *n == name) else {
            return;
        };
        for (column, output) in self.scope.tables[table].1.iter().flatten().enumerate() {
            if self.tables.contains(&table) && !self.grouped.contains(&(table, column)) {
                self.grouped.push((table, column));
                self.found.push(qualified(&name, &output.name));
            }
        }
    }

    fn is_aggregate(&self, expr: &Expr) -> bool {
        matches!(expr, Expr::Function(f) if f.over.is_none()
            && self.scopes.provider.registry.is_aggregate(&f.name.to_string().to_lowercase()))
    }
}

impl VisitorMut for Named<'_, '_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.queries
            .push(std::mem::replace(query, super::no_query()));
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let Some(taken) = self.queries.pop() {
            *query = taken;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.is_aggregate(expr) {
            if let Expr::Function(function) = expr {
                let args = std::mem::replace(&mut function.args, FunctionArguments::None);
                self.inside.push(args);
            }
        } else if let Some(place) = place(expr, self.scope)
            && self.tables.contains(&place.0)
            && !self.grouped.contains(&place)
        {
            self.grouped.push(place);
            self.found.push(expr.clone());
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.is_aggregate(expr)
            && let Expr::Function(function) = expr
            && let Some(args) = self.inside.pop()
        {
            function.args = args;
        }
        ControlFlow::Continue(())
    }
}
