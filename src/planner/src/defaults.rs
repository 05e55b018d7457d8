//! The defaults of columns: what they may hold is known when the table is created.

use crate::bind::{Provider, Registry};
use crate::names::{fold, name_of};
use crate::types::sql_type_to_arrow;
use arrow_schema::DataType;
use datafusion_sql::sqlparser::ast::{self, Visit, Visitor};
use std::ops::ControlFlow;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::Column;
use tidemark_values::moment::{Session, Zone, read_timestamptz, timestamptz_text};

/// Whether a default is an expression of no rows.
///
/// Errors: `0A000` for columns and subqueries in it, `42803` for aggregates, `42P20` for window
/// functions.
pub(crate) fn check(text: &str, registry: &Registry) -> Result<()> {
    let parsed = crate::parse::parse_expression(text);
    let Ok(expr) = parsed else {
        return Ok(());
    };
    match expr.visit(&mut OfNoRows { registry }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Whether a default calls none of the functions that statements made: a table would have to depend
/// on them.
///
/// Errors: `0A000`.
pub(crate) fn check_calls(text: &str, provider: &Provider<'_>) -> Result<()> {
    struct Calls<'a>(&'a Provider<'a>);
    impl Visitor for Calls<'_> {
        type Break = Error;
        fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<Error> {
            let ast::Expr::Function(call) = expr else {
                return ControlFlow::Continue(());
            };
            let Ok(name) = name_of(&call.name, 0) else {
                return ControlFlow::Continue(());
            };
            let schemas = name.schema.as_ref();
            let schemas = schemas.map_or(self.0.search_path, std::slice::from_ref);
            let catalog = self.0.catalog;
            let mut named = schemas
                .iter()
                .flat_map(|s| catalog.functions(s, &name.name));
            if self.0.registry.knows(&name.name) || named.next().is_none() {
                return ControlFlow::Continue(());
            }
            let message = format!("function {} in a DEFAULT is not supported", name.name);
            ControlFlow::Break(
                Error::unsupported(message).with_hint("Write what the function computes."),
            )
        }
    }
    let parsed = crate::parse::parse_expression(text);
    match parsed.map(|expr| expr.visit(&mut Calls(provider))) {
        Ok(ControlFlow::Break(error)) => Err(error),
        _ => Ok(()),
    }
}

/// Breaks off at what needs rows.
struct OfNoRows<'a> {
    registry: &'a Registry,
}

impl Visitor for OfNoRows<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, _query: &ast::Query) -> ControlFlow<Error> {
        ControlFlow::Break(Error::unsupported(
            "cannot use subquery in DEFAULT expression",
        ))
    }

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<Error> {
        match expr {
            ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_) => ControlFlow::Break(
                Error::unsupported("cannot use column reference in DEFAULT expression"),
            ),
            ast::Expr::Function(call) if call.over.is_some() => {
                let message = "window functions are not allowed in DEFAULT expressions";
                ControlFlow::Break(Error::user(SqlState("42P20"), message))
            }
            ast::Expr::Function(call)
                if self
                    .registry
                    .is_aggregate(&call.name.to_string().to_lowercase()) =>
            {
                let message = "aggregate functions are not allowed in DEFAULT expressions";
                ControlFlow::Break(Error::user(SqlState("42803"), message))
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Whether the expressions of generated columns are such of one row.
///
/// Errors: `42P17` for what refers to generated columns, `0A000` for subqueries, `42803` for
/// aggregates, `42P20` for window functions.
pub(crate) fn check_generated(
    generated: &[(usize, ast::Expr)],
    columns: &[Column],
    registry: &Registry,
) -> Result<()> {
    let names = generated.iter().map(|(at, _)| columns[*at].name.as_str());
    let mut visitor = OfOneRow {
        registry,
        generated: names.collect(),
    };
    for (_, expr) in generated {
        if let ControlFlow::Break(error) = expr.visit(&mut visitor) {
            return Err(error);
        }
    }
    Ok(())
}

/// Breaks off at what needs more than a row.
struct OfOneRow<'a> {
    registry: &'a Registry,
    generated: Vec<&'a str>,
}

impl Visitor for OfOneRow<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, _query: &ast::Query) -> ControlFlow<Error> {
        let message = "cannot use subquery in column generation expression";
        ControlFlow::Break(Error::unsupported(message))
    }

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<Error> {
        let refused = |state, message: &str| ControlFlow::Break(Error::user(state, message));
        match expr {
            ast::Expr::Identifier(ident) => {
                let name = fold(ident.clone());
                if !self.generated.contains(&name.as_str()) {
                    return ControlFlow::Continue(());
                }
                let message = format!(
                    "cannot use generated column \"{name}\" in column generation expression"
                );
                ControlFlow::Break(
                    Error::user(SqlState("42P17"), message).with_detail(
                        "A generated column cannot reference another generated column.",
                    ),
                )
            }
            ast::Expr::Function(call) if call.over.is_some() => refused(
                SqlState("42P20"),
                "window functions are not allowed in column generation expressions",
            ),
            ast::Expr::Function(call)
                if self
                    .registry
                    .is_aggregate(&call.name.to_string().to_lowercase()) =>
            {
                refused(
                    SqlState("42803"),
                    "aggregate functions are not allowed in column generation expressions",
                )
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// A column's default that is a constant moment, with its offset: it means the moment that it is in
/// the zone of who creates the table. Other expressions stay as they are.
///
/// Errors: `22007` and `22008` for a text that is none.
pub(crate) fn moment(text: &str, zone: &str) -> Result<String> {
    let parsed = crate::parse::parse_expression(text);
    let constant = match &parsed {
        Ok(ast::Expr::Cast {
            expr, data_type, ..
        }) if is_timestamptz(data_type) => quoted(expr),
        Ok(ast::Expr::TypedString(typed)) if is_timestamptz(&typed.data_type) => {
            quoted(&ast::Expr::Value(typed.value.clone()))
        }
        Ok(other) => quoted(other),
        Err(_) => None,
    };
    let words = ["now", "today", "tomorrow", "yesterday"];
    let Some(constant) = constant.filter(|c| {
        let lower = c.to_ascii_lowercase();
        !words.iter().any(|word| lower.contains(word))
    }) else {
        return Ok(text.to_string());
    };
    let session = Session {
        now: 0,
        zone: Zone::of_session(zone)?,
    };
    let at = read_timestamptz(&constant, 6, &session)?;
    let text = timestamptz_text(at, &Zone::UTC);
    Ok(format!("'{text}'"))
}

fn is_timestamptz(data_type: &ast::DataType) -> bool {
    sql_type_to_arrow(data_type)
        .is_ok_and(|(arrow, _)| matches!(arrow, DataType::Timestamp(_, Some(_))))
}

/// The text of a quoted constant.
fn quoted(expr: &ast::Expr) -> Option<String> {
    match expr {
        ast::Expr::Value(value) => value.value.clone().into_string(),
        ast::Expr::Nested(inner) => quoted(inner),
        _ => None,
    }
}
