//! `WITH .. INSERT`, `UPDATE` and `DELETE`, which sqlparser reads as queries: they become the
//! write itself. An INSERT's query gets the WITH clause; in the others each table that the clause
//! defines is written where it is read.

use super::fold;
use datafusion_sql::sqlparser::ast::{
    Cte, Ident, Query, SetExpr, Statement, TableAlias, TableFactor, VisitMut, VisitorMut, With,
};
use std::ops::ControlFlow;
use tidemark_common::{Error, Result};

/// The write that a query is, if it is one.
///
/// Errors: `0A000` for a recursive WITH clause.
pub(super) fn write(statement: Statement) -> Result<Statement> {
    let Statement::Query(query) = statement else {
        return Ok(statement);
    };
    let query = *query;
    match (*query.body, query.with) {
        (SetExpr::Insert(mut write), Some(with)) => {
            if let Statement::Insert(insert) = &mut write
                && let Some(source) = &mut insert.source
            {
                prepend(source, with);
            }
            Ok(write)
        }
        (SetExpr::Update(mut write) | SetExpr::Delete(mut write), Some(with)) => {
            if with.recursive {
                return Err(unsupported("WITH RECURSIVE before UPDATE and DELETE"));
            }
            let mut tables: Vec<(String, Cte)> = Vec::new();
            for mut cte in with.cte_tables {
                inline(&mut cte.query, &tables)?;
                tables.push((fold(cte.alias.name.clone()), cte));
            }
            inline(&mut write, &tables)?;
            Ok(write)
        }
        (SetExpr::Insert(write) | SetExpr::Update(write) | SetExpr::Delete(write), None) => {
            Ok(write)
        }
        (body, with) => Ok(Statement::Query(Box::new(Query {
            body: Box::new(body),
            with,
            ..query
        }))),
    }
}

fn unsupported(what: &str) -> Error {
    Error::unsupported(format!("{what} is not supported"))
}

/// Puts a clause before that of a query.
fn prepend(query: &mut Query, with: With) {
    query.with = Some(match query.with.take() {
        None => with,
        Some(own) => With {
            recursive: with.recursive || own.recursive,
            cte_tables: [with.cte_tables, own.cte_tables].concat(),
            ..with
        },
    });
}

/// Writes the tables of a clause where they are read.
fn inline(part: &mut impl VisitMut, tables: &[(String, Cte)]) -> Result<()> {
    match VisitMut::visit(part, &mut Inline { tables }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Inline<'a> {
    tables: &'a [(String, Cte)],
}

impl VisitorMut for Inline<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        let hides = |cte: &Cte| {
            let name = fold(cte.alias.name.clone());
            self.tables.iter().any(|(table, _)| *table == name)
        };
        let own = query.with.iter().flat_map(|with| &with.cte_tables);
        match own.into_iter().any(hides) {
            true => ControlFlow::Break(unsupported(
                "one name in the WITH clauses of a write and of its subquery",
            )),
            false => ControlFlow::Continue(()),
        }
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        let TableFactor::Table { name, alias, .. } = factor else {
            return ControlFlow::Continue(());
        };
        let [part] = name.0.as_slice() else {
            return ControlFlow::Continue(());
        };
        let Some(table) = part.as_ident().cloned().map(fold) else {
            return ControlFlow::Continue(());
        };
        if let Some((_, cte)) = self.tables.iter().rfind(|(name, _)| *name == table) {
            let columns = |alias: &TableAlias| match alias.columns.is_empty() {
                true => cte.alias.columns.clone(),
                false => alias.columns.clone(),
            };
            let alias = match alias.take() {
                Some(alias) => TableAlias {
                    columns: columns(&alias),
                    ..alias
                },
                None => TableAlias {
                    name: Ident::with_quote('"', table),
                    ..cte.alias.clone()
                },
            };
            *factor = TableFactor::Derived {
                lateral: false,
                subquery: cte.query.clone(),
                alias: Some(alias),
                sample: None,
            };
        }
        ControlFlow::Continue(())
    }
}
