//! `t.x`: a column of the innermost table `t` around, whatever else is called `t`.
//!
//! DataFusion looks through the queries from the innermost one outwards, and in each takes `t.x`
//! for a column of a table, or else for a part of a column `t`. PostgreSQL knows no such parts: a
//! table of a query further out is meant. Where a query inside has a column of its name, that table
//! gets a name that no column has, with all references to it; it takes a second rewriting of the
//! statement to know in time, as its FROM comes before what is inside.
//!
//! A column that the innermost `t` does not have is no column of another `t` further out.
//!
//! Elements of `ARRAY[..]` are planned by DataFusion without the queries around; arguments of a
//! function are not.

use super::{Output, Scope, Scopes, ambiguous, quoted};
use crate::bind::moments::function;
use crate::bind::names::hidden;
use crate::names::fold;
use datafusion_sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, TableAlias, TableAliasColumnDef, TableFactor, Visit,
    Visitor,
};
use std::ops::ControlFlow;
use tidemark_common::{Error, Result, SqlState};

impl Scopes<'_> {
    /// Rewrites a qualified name.
    ///
    /// Errors: `42P01` for a table that no FROM around has, `42702` for a column of which it has
    /// two, `42703` for one that it does not have.
    pub(super) fn reference(&mut self, parts: &mut Vec<Ident>) -> Result<()> {
        let [.., table, column] = parts.as_slice() else {
            return Ok(());
        };
        let (name, column_name) = (fold(table.clone()), fold(column.clone()));
        let mut inside = false;
        for (i, scope) in self.scopes.iter().enumerate().rev() {
            let inner = i + 1 < self.scopes.len();
            if let Some((_, outputs)) = scope.tables.iter().find(|(table, _)| *table == name) {
                let count = |outputs: &Vec<Output>| {
                    outputs.iter().filter(|o| o.name == column_name).count()
                };
                match outputs.as_ref().map(count) {
                    Some(2..) => return Err(self.at(ambiguous(&column_name), table)),
                    // DataFusion would go on to look further out, or miss the table.
                    Some(0) if inner || self.scopes[..i].iter().any(|s| s.shows(&name)) => {
                        return Err(self.at(unknown(&name, &column_name), table));
                    }
                    _ => {}
                }
                if scope.renamed.contains(&name) {
                    *parts = vec![quoted(&hidden(&name, 0)), column.clone()];
                } else if inside {
                    self.shadowed.insert(name);
                }
                return Ok(());
            }
            match &scope.columns {
                Some(columns) => inside |= columns.iter().any(|c| c.name == name),
                None => return Ok(()),
            }
        }
        let error = Error::user(
            SqlState::UNDEFINED_TABLE,
            format!("missing FROM-clause entry for table \"{name}\""),
        );
        Err(self.at(error, table))
    }

    /// The name that a table has for DataFusion, if it is another one.
    pub(super) fn other_name(&self, table: &str) -> Option<Ident> {
        let mut scopes = self.scopes.iter().rev();
        let scope = scopes.find(|s| s.tables.iter().any(|(t, _)| t == table))?;
        let renamed = scope.renamed.contains(table);
        renamed.then(|| quoted(&hidden(table, 0)))
    }

    /// Gives a table another name if columns inside are named like it.
    pub(super) fn rename(&self, factor: &mut TableFactor, scope: &mut Scope) {
        let [(name, _)] = scope.tables.as_slice() else {
            return;
        };
        let is_function = matches!(
            factor,
            TableFactor::Table { args: Some(_), .. } | TableFactor::Function { .. }
        );
        let (TableFactor::Table { alias, .. }
        | TableFactor::Derived { alias, .. }
        | TableFactor::Function { alias, .. }
        | TableFactor::UNNEST { alias, .. }) = factor
        else {
            return;
        };
        if !self.shadowed.contains(name) || scope.renamed.contains(name) {
            return;
        }
        let other = quoted(&hidden(name, 0));
        let alias = alias.get_or_insert_with(|| TableAlias {
            explicit: true,
            name: other.clone(),
            columns: Vec::new(),
            at: None,
        });
        alias.name = other.clone();
        // The column of a function is named like it.
        if is_function && alias.columns.is_empty() {
            alias.columns.push(TableAliasColumnDef {
                name: quoted(name),
                data_type: None,
            });
        }
        for column in scope.columns.iter_mut().flatten() {
            if let Expr::CompoundIdentifier(parts) = &mut column.value
                && let Some(table) = parts.first_mut()
            {
                *table = other.clone();
            }
        }
        scope.renamed.insert(name.clone());
    }
}

impl Scope {
    /// Whether it has a table of this name.
    fn shows(&self, table: &str) -> bool {
        self.tables.iter().any(|(name, _)| name == table)
    }
}

fn unknown(table: &str, column: &str) -> Error {
    let message = format!("column {table}.{column} does not exist");
    Error::user(SqlState::UNDEFINED_COLUMN, message)
}

/// `ARRAY[a, b]` of columns becomes a call.
pub(super) fn array(expr: &mut Expr) {
    struct Names;
    impl Visitor for Names {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Subquery(_) => {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    let Expr::Array(array) = expr else {
        return;
    };
    let is_array = |e: &Expr| matches!(e, Expr::Array(_));
    if array.elem.iter().any(is_array) || array.elem.visit(&mut Names).is_continue() {
        return;
    }
    let argument = |e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e));
    let args: Vec<FunctionArg> = array.elem.drain(..).map(argument).collect();
    *expr = Expr::Function(function("make_array", &args));
}
