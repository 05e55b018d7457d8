//! Statements that SQL prepares: `PREPARE`, `EXECUTE`, `DEALLOCATE`.
//!
//! As in PostgreSQL the types of the parameters are known from PREPARE on, declared or inferred,
//! and EXECUTE assigns its values to them: what fits is converted, what does not is `42804`.

use super::Session;
use super::cursors::folded;
use crate::prepared::check_trees;
use pgwire::api::Type;
use std::ops::ControlFlow;
use tidemark_common::{Error, Result, SqlState};
use tidemark_planner::sqlparser::ast;
use tidemark_planner::statement::{Statement, StatementKind};
use tidemark_query::outcome::Outcome;
use tidemark_query::parameters;
use tidemark_query::types;

/// A statement that SQL prepared.
#[derive(Clone)]
pub struct PreparedBySql {
    statement: Statement,
    /// Of its parameters.
    types: Vec<Type>,
}

impl Session {
    pub(super) async fn prepare(
        &mut self,
        name: &ast::Ident,
        declared: &[ast::DataType],
        inner: &ast::Statement,
        written: &Statement,
    ) -> Result<Outcome> {
        let name = folded(name);
        if self.prepared.contains_key(&name) {
            return Err(Error::user(
                SqlState("42P05"),
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        let text = inner.to_string();
        let held = self.prepared.values().map(|p| p.statement.text.as_str());
        check_trees(held.chain([text.as_str()]))?;
        let nulls = declared.iter().map(|data_type| ast::Expr::Cast {
            kind: ast::CastKind::Cast,
            expr: Box::new(parameters::null(None)),
            data_type: data_type.clone(),
            array: false,
            format: None,
        });
        let types = self.types_of(nulls.collect(), written).await?;
        let types: Vec<Option<Type>> = types.into_iter().map(Some).collect();
        let kind = StatementKind::Sql(Box::new(inner.clone()));
        let as_written = Statement {
            kind,
            ..written.clone()
        };
        let types = self.describe(&as_written, &types).await?.parameters;
        // It is run by what it says, whatever statement it was prepared in.
        let statement = Statement {
            text,
            start: 0,
            positions: Default::default(),
            ..as_written
        };
        let prepared = PreparedBySql { statement, types };
        self.prepared.insert(name, prepared);
        Ok(Outcome::Command("PREPARE".into()))
    }

    pub(super) async fn execute_prepared(
        &mut self,
        name: &ast::ObjectName,
        values: &Vec<ast::Expr>,
        written: &Statement,
    ) -> Result<Outcome> {
        // A value has no parameters of its own.
        let undefined = parameters::count(values);
        if undefined > 0 {
            return Err(parameters::undefined(undefined));
        }
        let last = name.0.last().and_then(|part| part.as_ident());
        let name = last.map_or_else(|| name.to_string(), folded);
        let found = self.prepared.get(&name).cloned();
        let PreparedBySql { statement, types } = found.ok_or_else(|| no_prepared(&name))?;
        if types.len() != values.len() {
            let text = format!("wrong number of parameters for prepared statement \"{name}\"");
            return Err(
                Error::user(SqlState::SYNTAX_ERROR, text).with_detail(format!(
                    "Expected {} parameters but got {}.",
                    types.len(),
                    values.len()
                )),
            );
        }
        let values = self.assigned(values, &types, written).await?;
        Box::pin(self.execute(&statement, &values)).await
    }

    pub(super) fn deallocate(&mut self, name: &ast::Ident) -> Result<Outcome> {
        let name = folded(name);
        if name == "all" {
            self.prepared.clear();
            return Ok(Outcome::Command("DEALLOCATE ALL".into()));
        }
        self.prepared
            .remove(&name)
            .ok_or_else(|| no_prepared(&name))?;
        Ok(Outcome::Command("DEALLOCATE".into()))
    }

    /// The values as ones of the types of the parameters.
    async fn assigned(
        &mut self,
        values: &[ast::Expr],
        types: &[Type],
        written: &Statement,
    ) -> Result<Vec<ast::Expr>> {
        if values.iter().any(has_query) {
            return Err(Error::unsupported(
                "cannot use subquery in EXECUTE parameter",
            ));
        }
        // A quoted literal is of the type that is wanted.
        let is_typed = |value: &ast::Expr| !parameters::is_untyped(value);
        let typed: Vec<ast::Expr> = values.iter().filter(|v| is_typed(v)).cloned().collect();
        let mut given = self.types_of(typed, written).await?.into_iter();
        let assign = |(i, (value, wanted)): (usize, (&ast::Expr, &Type))| {
            let given = is_typed(value).then(|| given.next()).flatten();
            match given {
                Some(given) if given == *wanted => Ok(value.clone()),
                Some(given) if !types::is_assignable(&given, wanted) => Err(Error::user(
                    SqlState::DATATYPE_MISMATCH,
                    format!(
                        "parameter ${} of type {} cannot be coerced to the expected type {}",
                        i + 1,
                        types::display_name(&given),
                        types::display_name(wanted)
                    ),
                )
                .with_hint("You will need to rewrite or cast the expression.")),
                _ => Ok(parameters::cast(value.clone(), wanted)),
            }
        };
        values.iter().zip(types).enumerate().map(assign).collect()
    }

    /// The types of expressions.
    async fn types_of(&mut self, exprs: Vec<ast::Expr>, written: &Statement) -> Result<Vec<Type>> {
        if exprs.is_empty() {
            return Ok(Vec::new());
        }
        let kind = StatementKind::Sql(Box::new(parameters::select(exprs)?));
        let select = Statement {
            kind,
            ..written.clone()
        };
        let columns = self.describe(&select, &[]).await?.columns;
        let columns = columns.ok_or_else(|| Error::internal("a SELECT has no columns"))?;
        Ok(columns.fields().iter().map(|f| types::pg_type(f)).collect())
    }
}

fn has_query(expr: &ast::Expr) -> bool {
    struct Finder;
    impl ast::Visitor for Finder {
        type Break = ();
        fn pre_visit_query(&mut self, _: &ast::Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    ast::Visit::visit(expr, &mut Finder).is_break()
}

fn no_prepared(name: &str) -> Error {
    Error::user(
        SqlState("26000"),
        format!("prepared statement \"{name}\" does not exist"),
    )
}
