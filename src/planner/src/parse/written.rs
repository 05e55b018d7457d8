//! `WITH .. INSERT`, `UPDATE` and `DELETE`, which sqlparser reads as queries: they become the
//! write itself. An INSERT's query gets the WITH clause; elsewhere each table that the clause
//! defines is written where it is read.

use crate::names::fold;
use datafusion_sql::sqlparser::ast::{
    Cte, Expr, Ident, Query, SetExpr, Statement, TableAlias, TableFactor, Visit, VisitMut, Visitor,
    VisitorMut, With,
};
use std::ops::ControlFlow;
use tidemark_common::{Error, Result};

/// The write that a query is, if it is one.
///
/// Errors: `0A000` for a WITH clause that is recursive, or gives other rows when it is read twice.
pub(super) fn write(statement: Statement) -> Result<Statement> {
    let Statement::Query(query) = statement else {
        return Ok(statement);
    };
    let query = *query;
    match (*query.body, query.with) {
        (SetExpr::Insert(mut write), Some(with)) => {
            if let Statement::Insert(insert) = &mut write {
                let tables = tables(&with)?;
                inline(&mut insert.on, &tables)?;
                inline(&mut insert.returning, &tables)?;
                match &mut insert.source {
                    Some(source) if !matches!(source.body.as_ref(), SetExpr::Values(_)) => {
                        prepend(source, with)?;
                    }
                    source => inline(source, &tables)?,
                }
            }
            Ok(write)
        }
        (SetExpr::Update(mut write) | SetExpr::Delete(mut write), Some(with)) => {
            // What is written is no table of the clause.
            let written = write.clone();
            inline(&mut write, &tables(&with)?)?;
            match (&mut write, written) {
                (Statement::Update(update), Statement::Update(written)) => {
                    update.table.relation = written.table.relation;
                }
                (Statement::Delete(delete), Statement::Delete(written)) => {
                    delete.from = written.from;
                }
                _ => {}
            }
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

/// The tables of a clause, each with those before it written where it reads them.
///
/// Errors: `0A000` for what gives other rows when it is read twice, or reads itself.
fn tables(with: &With) -> Result<Vec<(String, Cte)>> {
    if with.recursive {
        return Err(unsupported("WITH RECURSIVE before UPDATE and DELETE"));
    }
    let mut tables: Vec<(String, Cte)> = Vec::new();
    for cte in &with.cte_tables {
        let mut cte = cte.clone();
        if Visit::visit(&cte.query, &mut Volatile).is_break() {
            return Err(unsupported(
                "WITH of what gives another value each time, before UPDATE and DELETE,",
            ));
        }
        inline(&mut cte.query, &tables)?;
        tables.push((fold(cte.alias.name.clone()), cte));
    }
    Ok(tables)
}

/// Breaks off at a function that gives another value each time.
struct Volatile;

impl Visitor for Volatile {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        const NAMES: [&str; 6] = [
            "random",
            "gen_random_uuid",
            "uuid",
            "clock_timestamp",
            "timeofday",
            "pg_sleep",
        ];
        match expr {
            Expr::Function(call) => {
                let name = call.name.0.last().and_then(|part| part.as_ident());
                let name = name.map(|name| name.value.to_lowercase());
                match name.is_some_and(|name| NAMES.contains(&name.as_str())) {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

fn unsupported(what: &str) -> Error {
    Error::unsupported(format!("{what} is not supported"))
}

/// Puts a clause before that of a query.
///
/// Errors: `0A000` where both define one name.
fn prepend(query: &mut Query, with: With) -> Result<()> {
    let Some(own) = query.with.take() else {
        query.with = Some(with);
        return Ok(());
    };
    let name = |cte: &Cte| fold(cte.alias.name.clone());
    let twice = |cte: &Cte| own.cte_tables.iter().any(|other| name(other) == name(cte));
    if with.cte_tables.iter().any(twice) {
        return Err(unsupported("one name in two WITH clauses of an INSERT"));
    }
    query.with = Some(With {
        recursive: with.recursive || own.recursive,
        cte_tables: [with.cte_tables, own.cte_tables].concat(),
        ..with
    });
    Ok(())
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
            let columns = |alias: &TableAlias| {
                let others = cte.alias.columns.iter().skip(alias.columns.len());
                alias.columns.iter().chain(others).cloned().collect()
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
