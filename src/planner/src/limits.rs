//! How large a statement may be, and when planning it stops.
//!
//! Planning walks trees by recursion, ours and DataFusion's. Every thread that parses, plans or
//! drops them has a stack of [`STACK_BYTES`](tidemark_common::STACK_BYTES) (reserved, used only as
//! far as a statement needs), and no tree is deeper than the limits here: a statement beyond them
//! ends in `54001` before anything walks it. Long chains of AND and OR count once, they are
//! balanced first: both are associative, also with NULL, and what is evaluated first stays first.
//!
//! There are three places, in this order: [`check_tokens`] before a statement is parsed, [`settle`]
//! right after that, and [`check`] when its views are expanded. The parser itself is held to a
//! number of steps ([`within`]).
//!
//! Sizes are bounded where something multiplies: views and common table expressions that are named
//! twice are expanded twice, so a few lines may stand for more than any memory holds.
//!
//! A planning that nobody waits for any more is told by a flag of its thread ([`check_interrupt`]):
//! the rules, what visits nodes, and the functions whose type is asked for look at it.

mod meter;
mod steps;
mod tokens;
mod width;

use datafusion_sql::sqlparser::ast::{
    self, BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, Query,
    Select, SetExpr, TableFactor, UnaryOperator, Visit, VisitMut, VisitorMut,
};
use meter::Meter;
use std::ops::ControlFlow;
use tidemark_common::{Error, Result, SqlState};
use width::Widths;

pub(crate) use steps::{step, within};
pub(crate) use tokens::check_tokens;

/// Expressions in expressions.
pub(crate) const EXPRESSION_DEPTH_MAX: usize = 1_000;
/// Queries in queries, views and common table expressions expanded.
pub(crate) const QUERY_DEPTH_MAX: usize = 500;
/// UNION, INTERSECT and EXCEPT behind each other, and relations in one FROM.
pub(crate) const CHAIN_MAX: usize = 3_000;
/// Statements in statements.
pub(crate) const STATEMENT_DEPTH_MAX: usize = 20;
/// How deep the parser goes, in its own steps: several for each level of a statement.
pub(crate) const PARSER_DEPTH_MAX: usize = 4 * EXPRESSION_DEPTH_MAX;
/// Expressions and relations that views and common table expressions stand for, in one statement.
pub(crate) const MULTIPLIED_MAX: usize = 100_000;
/// Chains of AND or OR from this length on are balanced.
const BALANCED_FROM: usize = 32;

/// `54001`.
pub(crate) fn too_deep(what: &str, limit: usize) -> Error {
    Error::user(
        SqlState::STATEMENT_TOO_COMPLEX,
        format!("stack depth limit exceeded: {what} are nested deeper than {limit} levels"),
    )
    .with_hint("Split the statement, for example into views.")
}

fn too_long(what: &str, limit: usize) -> Error {
    Error::user(
        SqlState::STATEMENT_TOO_COMPLEX,
        format!("statement too complex: more than {limit} {what}"),
    )
    .with_hint("Split the statement, for example into materialized views.")
}

/// Balances the chains of a parsed statement, query or expression and holds it against the limits.
/// The parser follows a chain by a loop, however long it is: this comes before all that recurses.
pub(crate) fn settle(tree: &mut (impl Visit + VisitMut)) -> Result<()> {
    end(VisitMut::visit(tree, &mut Balance::default()))?;
    end(Visit::visit(tree, &mut Meter::default()))
}

/// Holds a query against the limits, of which everything but common table expressions is expanded.
/// `columns` tells how many a relation has.
pub fn check(query: &Query, columns: &dyn Fn(&ObjectName) -> usize) -> Result<()> {
    end(Visit::visit(query, &mut Meter::default()))?;
    end(Visit::visit(query, &mut Widths::new(columns)))
}

fn end(flow: ControlFlow<Error>) -> Result<()> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(e) => Err(e),
    }
}

/// Balances AND and OR from the outside in, so that it never walks down a chain itself.
#[derive(Default)]
struct Balance {
    depth: usize,
    queries: usize,
    factors: usize,
}

impl VisitorMut for Balance {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        self.queries += 1;
        match query_limits(query, self.queries) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => ControlFlow::Break(e),
        }
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Error> {
        self.queries -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        match check_relations(select) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => ControlFlow::Break(e),
        }
    }

    fn pre_visit_table_factor(&mut self, _factor: &mut TableFactor) -> ControlFlow<Error> {
        self.factors += 1;
        if self.factors > EXPRESSION_DEPTH_MAX {
            return ControlFlow::Break(too_deep("relations", EXPRESSION_DEPTH_MAX));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, _factor: &mut TableFactor) -> ControlFlow<Error> {
        self.factors -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        balance(expr);
        self.depth += 1;
        if self.depth + chain_length(expr) > EXPRESSION_DEPTH_MAX {
            return ControlFlow::Break(too_deep("expressions", EXPRESSION_DEPTH_MAX));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _expr: &mut Expr) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}

/// `((a op b) op c) op d` becomes `(a op b) op (c op d)`, for AND and OR.
fn balance(expr: &mut Expr) {
    let Expr::BinaryOp { op, .. } = &*expr else {
        return;
    };
    let chain = op.clone();
    if !matches!(chain, BinaryOperator::And | BinaryOperator::Or) {
        return;
    }
    let (mut length, mut left) = (1, &*expr);
    while let Expr::BinaryOp { op, left: next, .. } = left
        && *op == chain
    {
        (length, left) = (length + 1, next);
    }
    if length < BALANCED_FROM {
        return;
    }
    let nothing = || Expr::Value(ast::Value::Null.into());
    let mut operands = Vec::with_capacity(length);
    let mut rest = std::mem::replace(expr, nothing());
    loop {
        match rest {
            Expr::BinaryOp { op, left, right } if op == chain => {
                operands.push(*right);
                rest = *left;
            }
            first => {
                operands.push(first);
                break;
            }
        }
    }
    operands.reverse();
    while operands.len() > 1 {
        let mut pairs = Vec::with_capacity(operands.len().div_ceil(2));
        let mut operands_left = operands.into_iter();
        while let Some(left) = operands_left.next() {
            pairs.push(match operands_left.next() {
                Some(right) => Expr::BinaryOp {
                    left: Box::new(left),
                    op: chain.clone(),
                    right: Box::new(right),
                },
                None => left,
            });
        }
        operands = pairs;
    }
    *expr = operands.pop().unwrap_or_else(nothing);
}

/// What stands at the left of an operator: the parser nests chains there without recursion.
fn left_of(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::BinaryOp { left, .. } => Some(left),
        Expr::Cast { expr, .. }
        | Expr::IsNull(expr)
        | Expr::IsNotNull(expr)
        | Expr::IsTrue(expr)
        | Expr::IsNotTrue(expr)
        | Expr::IsFalse(expr)
        | Expr::IsNotFalse(expr)
        | Expr::IsUnknown(expr)
        | Expr::IsNotUnknown(expr)
        | Expr::IsNormalized { expr, .. }
        | Expr::Like { expr, .. }
        | Expr::ILike { expr, .. }
        | Expr::RLike { expr, .. }
        | Expr::SimilarTo { expr, .. }
        | Expr::InList { expr, .. }
        | Expr::InSubquery { expr, .. }
        | Expr::InUnnest { expr, .. }
        | Expr::Between { expr, .. }
        | Expr::Collate { expr, .. }
        | Expr::UnaryOp {
            op: UnaryOperator::PGPostfixFactorial,
            expr,
        }
        | Expr::AnyOp { left: expr, .. }
        | Expr::AllOp { left: expr, .. }
        | Expr::CompoundFieldAccess { root: expr, .. } => Some(expr),
        Expr::IsDistinctFrom(left, _) | Expr::IsNotDistinctFrom(left, _) => Some(left),
        // `moment AT TIME ZONE zone`.
        Expr::Function(function) => match &function.args {
            FunctionArguments::List(list) => match list.args.as_slice() {
                [_, FunctionArg::Unnamed(FunctionArgExpr::Expr(moment))]
                    if function.name.to_string() == "timezone" =>
                {
                    Some(moment)
                }
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// Operators behind each other, of which the expression is the last; counted up to the limit.
pub(crate) fn chain_length(expr: &Expr) -> usize {
    let chain = std::iter::successors(left_of(expr), |expr| left_of(expr));
    chain.take(EXPRESSION_DEPTH_MAX).count()
}

fn query_limits(query: &Query, depth: usize) -> Result<()> {
    if depth > QUERY_DEPTH_MAX {
        return Err(too_deep("queries", QUERY_DEPTH_MAX));
    }
    let (mut body, mut operations) = (&*query.body, 0);
    while let SetExpr::SetOperation { left, .. } = body {
        (body, operations) = (left, operations + 1);
    }
    if operations > CHAIN_MAX {
        return Err(too_long("set operations in one query", CHAIN_MAX));
    }
    Ok(())
}

fn check_relations(select: &Select) -> Result<()> {
    let relations: usize = select.from.iter().map(|f| 1 + f.joins.len()).sum();
    if relations > CHAIN_MAX {
        return Err(too_long("relations in one FROM clause", CHAIN_MAX));
    }
    Ok(())
}

/// `54001`: what views and common table expressions stand for is too much.
pub(crate) fn too_large() -> Error {
    too_long(
        "expressions and relations when all views and common table expressions are expanded",
        MULTIPLIED_MAX,
    )
}

#[cfg(test)]
mod tests;
