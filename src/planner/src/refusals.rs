//! All that is refused in a query, at once. Planning ends at the first thing that is not
//! supported; so that thing is taken out of the query, which is planned again, until nothing is
//! refused any more, or nothing that can be taken out. The first refusal is the error, with its
//! place; the others are listed in its detail.

use crate::statement::Positions;
use datafusion_sql::sqlparser::ast::{
    Expr, Function, LimitClause, Query, Spanned, Value, VisitMut, VisitorMut,
};
use datafusion_sql::sqlparser::tokenizer::Span;
use std::ops::ControlFlow;
use tidemark_common::{Error, Result, SqlState};

/// Things that are taken out at most.
const ROUNDS: usize = 12;

/// The error with all that `plan` refuses in the query; `first` is what it refused first.
pub(crate) fn all(
    first: Error,
    query: &Query,
    positions: &Positions,
    plan: impl Fn(&Query) -> Result<()>,
) -> Error {
    let mut query = query.clone();
    let mut found: Vec<(Error, Option<usize>)> = Vec::new();
    let mut refused = first;
    while refused.state() == SqlState::FEATURE_NOT_SUPPORTED && found.len() < ROUNDS {
        let place = take_out(&mut query, refused.message());
        let position = place.and_then(|span| positions.of(span.start));
        found.push((refused, position));
        if place.is_none() {
            break;
        }
        match plan(&query) {
            Ok(()) => break,
            // What is left of the query is not what was written.
            Err(e) if e.state() != SqlState::FEATURE_NOT_SUPPORTED => break,
            Err(e) => refused = e,
        }
    }
    let mut found = found.into_iter();
    let Some((error, position)) = found.next() else {
        return Error::internal("nothing is refused");
    };
    let error = match position {
        Some(position) if error.position().is_none() => error.at(position),
        _ => error,
    };
    let others: Vec<String> = found
        .map(|(e, position)| match position.or(e.position()) {
            Some(position) => format!("{} (at character {position})", e.message()),
            None => e.message().to_string(),
        })
        .collect();
    if others.is_empty() {
        return error;
    }
    let others = format!("Also refused: {}.", others.join("; "));
    let detail = match error.detail() {
        Some(detail) => format!("{detail}\n{others}"),
        None => others,
    };
    error.with_detail(detail)
}

/// Takes what a message is about out of the query. Returns where the first of it was.
fn take_out(query: &mut Query, message: &str) -> Option<Span> {
    let name = message
        .split_once("function ")
        .and_then(|(_, rest)| rest.split_once('('))
        .or_else(|| message.split_once('('))
        .map(|(name, _)| name.to_string());
    let what = match () {
        () if message.starts_with("LIMIT") => What::Limit,
        () if message.starts_with("window function") => What::Window(name?),
        () => What::Call(name?),
    };
    let mut taking = Taking { what, first: None };
    let _ = VisitMut::visit(query, &mut taking);
    taking.first
}

enum What {
    Limit,
    /// A function with OVER.
    Window(String),
    /// Any other.
    Call(String),
}

struct Taking {
    what: What,
    first: Option<Span>,
}

impl Taking {
    fn taken(&mut self, span: Span) {
        self.first.get_or_insert(span);
    }

    fn is(&self, function: &Function) -> bool {
        let (name, over) = match &self.what {
            What::Window(name) => (name, true),
            What::Call(name) => (name, false),
            _ => return false,
        };
        let last = function.name.0.last().and_then(|part| part.as_ident());
        last.is_some_and(|ident| ident.value.eq_ignore_ascii_case(name))
            && function.over.is_some() == over
    }
}

impl VisitorMut for Taking {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if matches!(self.what, What::Limit) {
            if let Some(limit) = query.limit_clause.take() {
                let expr = match &limit {
                    LimitClause::LimitOffset {
                        limit: Some(limit), ..
                    } => Some(limit),
                    LimitClause::LimitOffset {
                        offset: Some(offset),
                        ..
                    } => Some(&offset.value),
                    LimitClause::OffsetCommaLimit { limit, .. } => Some(limit),
                    LimitClause::LimitOffset { .. } => None,
                };
                self.taken(expr.map_or_else(Span::empty, Spanned::span));
            }
            if query.fetch.take().is_some() {
                self.taken(Span::empty());
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && self.is(function)
        {
            let span = function.name.span();
            self.taken(span);
            *expr = Expr::Value(Value::Null.into());
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse_query;

    /// Refuses the first of these words that the query's text has.
    fn plan(query: &Query) -> Result<()> {
        let text = query.to_string();
        for (part, message) in [
            ("RANK()", "window function rank() OVER is not supported"),
            (
                "LIMIT",
                "LIMIT that is no constant is not supported in a streaming query",
            ),
            (
                "median",
                "aggregate function median() is not supported in a streaming query",
            ),
            ("SESSION", "function session() is not supported"),
        ] {
            if text.contains(part) {
                return Err(Error::unsupported(message));
            }
        }
        Ok(())
    }

    #[test]
    fn everything_that_is_refused_is_told_with_its_place() {
        let sql = "SELECT SESSION(a), median(a), RANK() OVER () FROM t LIMIT 5";
        let query = parse_query(sql).unwrap();
        let first = plan(&query).unwrap_err();
        let error = all(first, &query, &Positions::new(sql), plan);
        assert_eq!(
            error.message(),
            "window function rank() OVER is not supported"
        );
        assert_eq!(error.position(), Some(31));
        assert_eq!(
            error.detail(),
            Some(
                "Also refused: LIMIT that is no constant is not supported in a streaming query \
                 (at character 59); aggregate function median() is not supported in a streaming \
                 query (at character 20); function session() is not supported (at character 8)."
            )
        );
    }
}
