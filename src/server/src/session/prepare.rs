//! Statements that are prepared and run later: `PREPARE`, `EXECUTE`, `DEALLOCATE`, and what Parse
//! leaves ([`crate::prepared`]).
//!
//! As in PostgreSQL the types of the parameters of PREPARE are known from then on, declared or
//! inferred, and EXECUTE assigns its values to them: what fits is converted, what does not is
//! `42804`.

use super::Session;
use super::cursors::folded;
use crate::prepared::{Described, Prepared, missing};
use pgwire::api::Type;
use std::ops::ControlFlow;
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};
use tidemark_planner::sqlparser::ast;
use tidemark_planner::statement::{Statement, StatementKind};
use tidemark_query::outcome::Outcome;
use tidemark_query::parameters::{self, Parameter};
use tidemark_query::statement::Description;
use tidemark_query::types;

impl Session {
    pub(super) async fn prepare(
        &mut self,
        name: &ast::Ident,
        declared: &[ast::DataType],
        inner: &ast::Statement,
        written: &Statement,
    ) -> Result<Outcome> {
        use ast::Statement as S;
        if !matches!(
            inner,
            S::Query(_) | S::Insert(_) | S::Update(_) | S::Delete(_)
        ) {
            let words = written.text.split_whitespace();
            let mut from_as = words.skip_while(|word| !word.eq_ignore_ascii_case("as"));
            let first = from_as.nth(1).unwrap_or("AS");
            let text = format!("syntax error at or near \"{first}\"");
            return Err(Error::user(SqlState::SYNTAX_ERROR, text));
        }
        let name = folded(name);
        self.prepared.lock().check_free(&name)?;
        let nulls = declared.iter().map(|data_type| ast::Expr::Cast {
            kind: ast::CastKind::Cast,
            expr: Box::new(parameters::null(None)),
            data_type: data_type.clone(),
            array: false,
            format: None,
        });
        let types = self.types_of(nulls.collect(), written).await?;
        let types: Vec<Option<Type>> = types.into_iter().map(Some).collect();
        let as_written = Statement {
            kind: StatementKind::Sql(Box::new(inner.clone())),
            ..written.clone()
        };
        let types = self.describe(&as_written, &types).await?.parameters;
        let types = types.iter().map(Type::oid).collect();
        let statement = standing_alone(inner);
        let prepared = Prepared::new(written.text.clone(), Some(statement), types).by_sql();
        self.prepared.lock().insert(name, prepared)?;
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
        let prepared = self.prepared.lock().get(&name)?;
        if prepared.count != values.len() {
            let text = format!("wrong number of parameters for prepared statement \"{name}\"");
            return Err(
                Error::user(SqlState::SYNTAX_ERROR, text).with_detail(format!(
                    "Expected {} parameters but got {}.",
                    prepared.count,
                    values.len()
                )),
            );
        }
        let named: Option<Vec<Type>> = prepared.named_types().collect();
        let types = match named {
            Some(types) => types,
            None => {
                let described = self.describe_prepared(&prepared).await?;
                described.description.parameters.clone()
            }
        };
        let values = self.assigned(values, &types, written).await?;
        // One that executes another, or itself, would have no end.
        let tree = self.tree_of(&prepared).await?;
        let tree = tree.filter(|tree| matches!(tree.kind, StatementKind::Sql(_)));
        let tree = tree.ok_or_else(|| {
            Error::unsupported("EXECUTE runs SELECT, INSERT, UPDATE and DELETE only")
        })?;
        Box::pin(self.execute(&tree, &values)).await
    }

    pub(super) fn deallocate(&mut self, name: &ast::Ident) -> Result<Outcome> {
        let name = folded(name);
        if name == "all" {
            self.prepared.lock().clear();
            return Ok(Outcome::Command("DEALLOCATE ALL".into()));
        }
        match self.prepared.lock().remove(&name) {
            true => Ok(Outcome::Command("DEALLOCATE".into())),
            false => Err(missing(&name)),
        }
    }

    /// What a prepared statement says; none of an empty text.
    async fn tree_of(&mut self, prepared: &Arc<Prepared>) -> Result<Option<Arc<Statement>>> {
        let kept = prepared.tree();
        if kept.is_some() || prepared.is_empty {
            return Ok(kept);
        }
        let parsed = self.parse(&prepared.text).await?.pop();
        let tree = parsed.map(|statement| match inner_of(&statement) {
            Some(inner) if prepared.from_sql => standing_alone(inner),
            _ => statement,
        });
        let tree = tree.map(Arc::new);
        if let Some(tree) = &tree {
            self.prepared.lock().keep(prepared, tree.clone());
        }
        Ok(tree)
    }

    /// What Describe tells about a prepared statement.
    pub async fn describe_prepared(&mut self, prepared: &Arc<Prepared>) -> Result<Arc<Described>> {
        if let Some(known) = prepared.described(&self.server.engine) {
            return Ok(known);
        }
        let catalog = self.catalog();
        let Some(statement) = self.tree_of(prepared).await? else {
            return Ok(Described::new(Description {
                parameters: Vec::new(),
                columns: None,
            }));
        };
        let named: Vec<Option<Type>> = prepared.named_types().collect();
        let described = Described::new(self.describe(&statement, &named).await?);
        prepared.describe(&catalog, described.clone());
        Ok(described)
    }

    /// Runs a prepared statement that is to be planned.
    pub async fn run_prepared(
        &mut self,
        prepared: &Arc<Prepared>,
        values: &[Parameter],
    ) -> Result<Outcome> {
        let tree = self.tree_of(prepared).await?;
        let tree = tree.ok_or_else(|| Error::internal("a text that had a statement has none"))?;
        self.execute(&tree, &parameters::written(values)).await
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

    /// The types of expressions; planned if one of them does not show.
    async fn types_of(&mut self, exprs: Vec<ast::Expr>, written: &Statement) -> Result<Vec<Type>> {
        let evident: Option<Vec<Type>> = exprs.iter().map(parameters::evident_type).collect();
        if let Some(types) = evident {
            return Ok(types);
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

/// What a PREPARE prepares.
fn inner_of(statement: &Statement) -> Option<&ast::Statement> {
    match &statement.kind {
        StatementKind::Other(other) => match other.as_ref() {
            ast::Statement::Prepare { statement, .. } => Some(statement),
            _ => None,
        },
        _ => None,
    }
}

/// A statement that is run by what it says, whatever statement it was prepared in.
fn standing_alone(inner: &ast::Statement) -> Statement {
    Statement {
        text: inner.to_string(),
        start: 0,
        positions: Default::default(),
        kind: StatementKind::Sql(Box::new(inner.clone())),
    }
}
