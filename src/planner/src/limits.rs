//! How large a statement may be, and when planning it stops.
//!
//! Planning walks trees by recursion, ours and DataFusion's. Every thread that parses, plans or
//! drops them has a stack of [`STACK_BYTES`](tidemark_common::STACK_BYTES) (reserved, used only as
//! far as a statement needs), and no tree is deeper than the limits here: a statement beyond them
//! ends in `54001` before anything walks it. Long chains of AND and OR count once, they are
//! balanced first: both are associative, also with NULL, and what is evaluated first stays first.
//!
//! Sizes are bounded where something multiplies: views and common table expressions that are named
//! twice are expanded twice, so a few lines may stand for more than any memory holds.
//!
//! A planning that nobody waits for any more is told by a flag of its thread ([`interruptible`]);
//! the rules and what visits nodes look at it.

use crate::parse::fold;
use datafusion_sql::sqlparser::ast::{
    self, BinaryOperator, Expr, ObjectName, Query, SetExpr, Visit, VisitMut, Visitor, VisitorMut,
};
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidemark_common::{Error, Result, SqlState};

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
/// Parameters of a statement, as in PostgreSQL.
const PARAMETERS_MAX: usize = 65_535;
/// Chains of AND or OR from this length on are balanced.
const BALANCED_FROM: usize = 32;

thread_local! {
    static STOP: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// Runs `f`; [`check_interrupt`] fails in it on this thread once `stop` is set.
pub fn interruptible<T>(stop: Arc<AtomicBool>, f: impl FnOnce() -> T) -> T {
    struct Reset(Option<Arc<AtomicBool>>);
    impl Drop for Reset {
        fn drop(&mut self) {
            STOP.set(self.0.take());
        }
    }
    let _reset = Reset(STOP.replace(Some(stop)));
    f()
}

/// `57014` when nobody waits any more for what this thread plans.
pub fn check_interrupt() -> Result<()> {
    let stop = STOP.with_borrow(|stop| stop.as_ref().is_some_and(|s| s.load(Ordering::Relaxed)));
    if stop {
        return Err(Error::user(
            SqlState::QUERY_CANCELED,
            "canceling statement due to user request",
        ));
    }
    Ok(())
}

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

/// Refuses parameters that no client can send.
pub(crate) fn check_parameters(tokens: &[TokenWithSpan]) -> Result<()> {
    for token in tokens {
        let Token::Placeholder(name) = &token.token else {
            continue;
        };
        let Some(number) = name.strip_prefix('$') else {
            continue;
        };
        let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        if digits && !matches!(number.parse::<usize>(), Ok(1..=PARAMETERS_MAX)) {
            return Err(Error::user(
                SqlState("42P02"),
                format!("there is no parameter ${number}"),
            )
            .with_hint(format!(
                "Parameters are numbered from $1 to ${PARAMETERS_MAX}."
            )));
        }
    }
    Ok(())
}

/// Balances the chains of a parsed statement, query or expression and holds it against the limits.
/// The parser follows a chain by a loop, however long it is: this comes before all that recurses.
pub(crate) fn settle(tree: &mut impl VisitMut) -> Result<()> {
    end(VisitMut::visit(tree, &mut Balance::default()))
}

/// Holds a query, of which everything but common table expressions is expanded, against the limits.
pub(crate) fn check(query: &Query) -> Result<()> {
    let mut meter = Meter::default();
    end(Visit::visit(query, &mut meter))
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
}

impl VisitorMut for Balance {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        self.queries += 1;
        match query_limits(query, self.queries) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => {
                take_apart_operations(&mut query.body);
                ControlFlow::Break(e)
            }
        }
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Error> {
        self.queries -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        balance(expr);
        self.depth += 1;
        if self.depth + chain_length(expr) > EXPRESSION_DEPTH_MAX {
            take_apart(expr);
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
fn left_of(expr: &mut Expr) -> Option<&mut Box<Expr>> {
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
        | Expr::Like { expr, .. }
        | Expr::ILike { expr, .. }
        | Expr::SimilarTo { expr, .. }
        | Expr::InList { expr, .. }
        | Expr::InSubquery { expr, .. }
        | Expr::Between { expr, .. }
        | Expr::Collate { expr, .. }
        | Expr::AnyOp { left: expr, .. }
        | Expr::AllOp { left: expr, .. }
        | Expr::CompoundFieldAccess { root: expr, .. } => Some(expr),
        Expr::IsDistinctFrom(left, _) | Expr::IsNotDistinctFrom(left, _) => Some(left),
        Expr::AtTimeZone { timestamp, .. } => Some(timestamp),
        _ => None,
    }
}

fn chain_length(expr: &mut Expr) -> usize {
    let (mut length, mut rest) = (0, expr);
    while let Some(left) = left_of(rest) {
        (length, rest) = (length + 1, left);
    }
    length
}

/// Drops a chain without recursion.
fn take_apart(expr: &mut Expr) {
    let nothing = || Expr::Value(ast::Value::Null.into());
    let mut rest = std::mem::replace(expr, nothing());
    while let Some(left) = left_of(&mut rest) {
        rest = std::mem::replace(&mut **left, nothing());
    }
}

/// The same for set operations.
fn take_apart_operations(body: &mut SetExpr) {
    let nothing = || {
        SetExpr::Values(ast::Values {
            explicit_row: false,
            value_keyword: false,
            rows: Vec::new(),
        })
    };
    let mut rest = std::mem::replace(body, nothing());
    while let SetExpr::SetOperation { left, .. } = &mut rest {
        rest = std::mem::replace(&mut **left, nothing());
    }
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
    if let SetExpr::Select(select) = body {
        let relations: usize = select.from.iter().map(|f| 1 + f.joins.len()).sum();
        if relations > CHAIN_MAX {
            return Err(too_long("relations in one FROM clause", CHAIN_MAX));
        }
    }
    Ok(())
}

/// Sizes of an expanded query. What common table expressions stand for counts wherever they are
/// named: planning expands them there.
#[derive(Default)]
struct Meter {
    depth: usize,
    /// What common table expressions multiply.
    multiplied: usize,
    /// Nodes so far, those included.
    nodes: usize,
    /// The deepest place of the innermost open query so far, in queries.
    deepest: usize,
    open: Vec<OpenQuery>,
    /// Nodes and levels of the common table expressions so far.
    tables: HashMap<String, (usize, usize)>,
}

/// A query that is being measured.
struct OpenQuery {
    nodes_before: usize,
    multiplied_before: usize,
    deepest_outside: usize,
    /// Where its common table expressions stand, with their names.
    tables: Vec<(*const Query, String)>,
}

impl Meter {
    fn reach(&mut self, queries: usize) -> ControlFlow<Error> {
        self.deepest = self.deepest.max(queries);
        if queries > QUERY_DEPTH_MAX {
            return ControlFlow::Break(too_deep("queries", QUERY_DEPTH_MAX));
        }
        ControlFlow::Continue(())
    }
}

impl Visitor for Meter {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        if let Err(e) = check_interrupt().and_then(|()| query_limits(query, 0)) {
            return ControlFlow::Break(e);
        }
        let tables = query.with.iter().flat_map(|w| &w.cte_tables);
        self.open.push(OpenQuery {
            nodes_before: self.nodes,
            multiplied_before: self.multiplied,
            deepest_outside: self.deepest,
            tables: tables
                .map(|t| (&raw const *t.query, fold(t.alias.name.clone())))
                .collect(),
        });
        self.nodes += 1;
        self.deepest = 0;
        self.reach(self.open.len())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        let Some(closed) = self.open.pop() else {
            return ControlFlow::Continue(());
        };
        let around = self.open.last();
        let name = around.and_then(|o| o.tables.iter().find(|(at, _)| std::ptr::eq(*at, query)));
        if let Some((_, name)) = name {
            let levels = self.deepest.saturating_sub(self.open.len());
            let nodes = self.nodes - closed.nodes_before;
            self.tables.insert(name.clone(), (nodes, levels));
            // It costs something where it is named.
            self.nodes = closed.nodes_before;
            self.multiplied = closed.multiplied_before;
        }
        self.deepest = self.deepest.max(closed.deepest_outside);
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<Error> {
        self.nodes += 1;
        let [part] = relation.0.as_slice() else {
            return ControlFlow::Continue(());
        };
        let name = part.as_ident().map(|i| fold(i.clone()));
        let Some((nodes, levels)) = name.and_then(|n| self.tables.get(&n).copied()) else {
            return ControlFlow::Continue(());
        };
        self.nodes = self.nodes.saturating_add(nodes);
        self.multiplied = self.multiplied.saturating_add(nodes);
        if self.multiplied > MULTIPLIED_MAX {
            return ControlFlow::Break(too_large());
        }
        self.reach(self.open.len() + levels)
    }

    fn pre_visit_expr(&mut self, _expr: &Expr) -> ControlFlow<Error> {
        self.nodes += 1;
        self.depth += 1;
        if self.depth > EXPRESSION_DEPTH_MAX {
            return ControlFlow::Break(too_deep("expressions", EXPRESSION_DEPTH_MAX));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _expr: &Expr) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
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
