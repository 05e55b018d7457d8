//! The columns that the joins of a query carry.
//!
//! A FROM clause of n relations is planned as n - 1 joins in each other, every one with a schema of
//! all columns so far: the memory that planning takes grows with the sum of those widths, which may
//! be the square of what is written. Widths are known before anything is planned: of relations
//! from the catalog, of queries from their select lists. A common table expression counts wherever
//! it is named.

use super::too_long;
use crate::names::fold;
use datafusion_sql::sqlparser::ast::{
    Ident, ObjectName, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr,
    TableAlias, TableFactor, TableWithJoins, Visitor,
};
use std::collections::HashMap;
use std::ops::ControlFlow;
use tidemark_common::Error;

/// Columns of all joins and select lists of a statement: about a gigabyte while it is planned.
const COLUMNS_MAX: usize = 20_000_000;
/// Columns of what is not looked into: calls in FROM.
const CALL_COLUMNS: usize = 4;

/// The visitor; `of` tells the number of columns of a relation.
pub(super) struct Widths<'a> {
    of: &'a dyn Fn(&ObjectName) -> usize,
    /// Columns so far.
    total: usize,
    selects: HashMap<*const Select, usize>,
    queries: HashMap<*const Query, usize>,
    open: Vec<OpenQuery>,
    /// Columns and cost of the common table expressions so far.
    tables: HashMap<String, (usize, usize)>,
}

struct OpenQuery {
    total_before: usize,
    /// Where its common table expressions stand, with their names.
    tables: Vec<(*const Query, String)>,
}

/// One relation of a FROM clause.
struct Factor {
    name: Option<String>,
    columns: usize,
}

impl<'a> Widths<'a> {
    pub(super) fn new(of: &'a dyn Fn(&ObjectName) -> usize) -> Widths<'a> {
        Widths {
            of,
            total: 0,
            selects: HashMap::new(),
            queries: HashMap::new(),
            open: Vec::new(),
            tables: HashMap::new(),
        }
    }

    fn add(&mut self, columns: usize) {
        self.total = self.total.saturating_add(columns);
    }

    fn within(&self) -> ControlFlow<Error> {
        if self.total > COLUMNS_MAX {
            return ControlFlow::Break(too_long("columns in all joins together", COLUMNS_MAX));
        }
        ControlFlow::Continue(())
    }

    /// The relations of a FROM clause or of joins in parentheses; adds up what their joins carry.
    fn joined(&mut self, from: &[TableWithJoins]) -> Vec<Factor> {
        let mut factors = Vec::new();
        let mut carried: usize = 0;
        for table in from {
            let joins = table.joins.iter().map(|j| &j.relation);
            for relation in std::iter::once(&table.relation).chain(joins) {
                let first = factors.is_empty();
                let columns = self.factor(relation, &mut factors);
                carried = carried.saturating_add(columns);
                if !first {
                    self.add(carried);
                }
            }
        }
        factors
    }

    fn factor(&mut self, factor: &TableFactor, factors: &mut Vec<Factor>) -> usize {
        let named = |alias: &Option<TableAlias>| alias.as_ref().map(|a| fold(a.name.clone()));
        let (name, columns) = match factor {
            TableFactor::Table {
                name,
                alias,
                args: None,
                ..
            } => {
                let last = name.0.last().and_then(|p| p.as_ident()).cloned().map(fold);
                let table = match (name.0.len(), &last) {
                    (1, Some(last)) => self.tables.get(last).copied(),
                    _ => None,
                };
                let columns = match table {
                    Some((columns, cost)) => {
                        self.add(cost);
                        columns
                    }
                    None => (self.of)(name),
                };
                (named(alias).or(last), columns)
            }
            TableFactor::Derived {
                subquery, alias, ..
            } => {
                let columns = self.queries.get(&(&raw const **subquery)).copied();
                (named(alias), columns.unwrap_or(CALL_COLUMNS))
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias,
            } => {
                let inner = self.joined(std::slice::from_ref(&**table_with_joins));
                let columns = sum(&inner);
                if alias.is_none() {
                    factors.extend(inner);
                    return columns;
                }
                (named(alias), columns)
            }
            _ => (None, CALL_COLUMNS),
        };
        factors.push(Factor { name, columns });
        columns
    }
}

fn sum(factors: &[Factor]) -> usize {
    factors
        .iter()
        .fold(0, |sum: usize, f| sum.saturating_add(f.columns))
}

/// The columns of `name.*`.
fn qualified(kind: &SelectItemQualifiedWildcardKind, factors: &[Factor]) -> usize {
    let SelectItemQualifiedWildcardKind::ObjectName(name) = kind else {
        return CALL_COLUMNS;
    };
    let name = name.0.last().and_then(|p| p.as_ident());
    let name = name.cloned().map(|name: Ident| fold(name));
    let found = factors.iter().find(|f| f.name == name);
    found.map_or(CALL_COLUMNS, |f| f.columns)
}

impl Visitor for Widths<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        let tables = query.with.iter().flat_map(|w| &w.cte_tables);
        self.open.push(OpenQuery {
            total_before: self.total,
            tables: tables
                .map(|t| (&raw const *t.query, fold(t.alias.name.clone())))
                .collect(),
        });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        let mut body = &*query.body;
        let columns = loop {
            match body {
                SetExpr::SetOperation { left, .. } => body = left,
                SetExpr::Select(select) => {
                    break self.selects.get(&(&raw const **select)).copied();
                }
                SetExpr::Query(query) => break self.queries.get(&(&raw const **query)).copied(),
                SetExpr::Values(values) => break values.rows.first().map(|row| row.content.len()),
                _ => break None,
            }
        };
        let columns = columns.unwrap_or(CALL_COLUMNS);
        self.queries.insert(&raw const *query, columns);
        let closed = self.open.pop();
        let table = self
            .open
            .last()
            .and_then(|o| o.tables.iter().find(|(at, _)| std::ptr::eq(*at, query)));
        if let (Some(closed), Some((_, name))) = (closed, table) {
            let cost = self.total - closed.total_before;
            self.tables.insert(name.clone(), (columns, cost));
            // It costs something where it is named.
            self.total = closed.total_before;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &Select) -> ControlFlow<Error> {
        let factors = self.joined(&select.from);
        let mut columns: usize = 0;
        for item in &select.projection {
            columns = columns.saturating_add(match item {
                SelectItem::Wildcard(_) => sum(&factors),
                SelectItem::QualifiedWildcard(kind, _) => qualified(kind, &factors),
                _ => 1,
            });
        }
        self.selects.insert(&raw const *select, columns);
        self.add(columns);
        self.within()
    }
}
