//! Sizes of a statement as it will be planned, before it is.
//!
//! What common table expressions stand for counts wherever they are named: planning expands them
//! there. And some expressions are written out with copies of their operands, or ask for them
//! twice, so that those within each other multiply:
//!
//! | expression | planned as |
//! | --- | --- |
//! | `a BETWEEN b AND c` | `a >= b AND a <= c` |
//! | `a IN (b, c)` of columns | `a = b OR a = c` |
//! | `CASE WHEN a THEN b ELSE c END` | `a AND b OR NOT a AND c`, of booleans |
//! | `CASE WHEN a THEN f(b) END` | its type, and whether it may be NULL: `f(b)` is asked twice |
//!
//! An expression counts as often as it is copied, from [`COPIES_FROM`] copies on: fewer are of the
//! order of the text.

use super::{
    EXPRESSION_DEPTH_MAX, MULTIPLIED_MAX, QUERY_DEPTH_MAX, check_relations, query_limits, too_deep,
    too_large, too_long,
};
use crate::names::fold;
use datafusion_sql::sqlparser::ast::{BinaryOperator, Expr, ObjectName, Query, Select, Visitor};
use std::collections::HashMap;
use std::ops::ControlFlow;
use tidemark_common::{Error, check_interrupt};

/// Copies of an expression from which on they are counted.
const COPIES_FROM: usize = 16;

/// The visitor.
#[derive(Default)]
pub(super) struct Meter {
    /// The open expressions, each with what was so around it.
    around: Vec<Around>,
    now: Around,
    /// How often expressions that are still to come are copied, by where they stand.
    copied: HashMap<*const Expr, usize>,
    /// Copies so far.
    copies: usize,
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

/// What is so for everything within an expression.
#[derive(Clone, Copy)]
struct Around {
    copies: usize,
    /// Of CASE and calls, CASE is further in.
    case: bool,
}

impl Default for Around {
    fn default() -> Around {
        Around {
            copies: 1,
            case: false,
        }
    }
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

    /// Counts something that stands here, as often as what is around it is copied.
    fn count(&mut self) -> ControlFlow<Error> {
        let copies = self.now.copies;
        self.nodes = self.nodes.saturating_add(copies);
        if copies >= COPIES_FROM {
            self.copies = self.copies.saturating_add(copies);
            if self.copies > MULTIPLIED_MAX {
                return ControlFlow::Break(too_long(
                    "expressions when BETWEEN, IN and CASE are written out",
                    MULTIPLIED_MAX,
                ));
            }
        }
        ControlFlow::Continue(())
    }

    /// Notes what an expression copies of those right below it.
    fn copies(&mut self, expr: &Expr) {
        match expr {
            Expr::Between { expr, .. } => {
                self.copied.insert(&raw const **expr, 2);
            }
            Expr::InList { expr, list, .. } if list.iter().any(|e| !is_constant(e)) => {
                self.copied.insert(&raw const **expr, list.len());
            }
            Expr::Case {
                operand: None,
                conditions,
                ..
            } => {
                for when in conditions {
                    self.copied.insert(&raw const when.condition, 2);
                }
            }
            _ => {}
        }
    }
}

fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Value(_) | Expr::TypedString(_) => true,
        Expr::Cast { expr, .. } | Expr::UnaryOp { expr, .. } | Expr::Nested(expr) => {
            is_constant(expr)
        }
        _ => false,
    }
}

/// Expressions that are planned as calls of functions, operators with a result of their own among
/// them.
fn is_call(expr: &Expr) -> bool {
    use BinaryOperator::{Divide, Minus, Modulo, Multiply, Plus, StringConcat};
    if let Expr::BinaryOp { op, .. } = expr {
        return matches!(op, Plus | Minus | Multiply | Divide | Modulo | StringConcat);
    }
    matches!(
        expr,
        Expr::Function(_)
            | Expr::Cast { .. }
            | Expr::UnaryOp { .. }
            | Expr::Substring { .. }
            | Expr::Trim { .. }
            | Expr::Extract { .. }
            | Expr::Position { .. }
            | Expr::Overlay { .. }
            | Expr::Floor { .. }
            | Expr::Ceil { .. }
            | Expr::AtTimeZone { .. }
            | Expr::Array(_)
            | Expr::Tuple(_)
            | Expr::CompoundFieldAccess { .. }
    )
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
        self.count()?;
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

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Error> {
        match check_relations(select) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => ControlFlow::Break(e),
        }
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<Error> {
        self.count()?;
        let [part] = relation.0.as_slice() else {
            return ControlFlow::Continue(());
        };
        let name = part.as_ident().map(|i| fold(i.clone()));
        let Some((nodes, levels)) = name.and_then(|n| self.tables.get(&n).copied()) else {
            return ControlFlow::Continue(());
        };
        let nodes = nodes.saturating_mul(self.now.copies);
        self.nodes = self.nodes.saturating_add(nodes);
        self.multiplied = self.multiplied.saturating_add(nodes);
        if self.multiplied > MULTIPLIED_MAX {
            return ControlFlow::Break(too_large());
        }
        self.reach(self.open.len() + levels)
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        self.around.push(self.now);
        if self.around.len() > EXPRESSION_DEPTH_MAX {
            return ControlFlow::Break(too_deep("expressions", EXPRESSION_DEPTH_MAX));
        }
        let copied = self.copied.remove(&(&raw const *expr)).unwrap_or(1);
        self.now.copies = self.now.copies.saturating_mul(copied);
        if is_call(expr) {
            if self.now.case {
                self.now.copies = self.now.copies.saturating_mul(2);
            }
            self.now.case = false;
        } else if matches!(expr, Expr::Case { .. }) {
            self.now.case = true;
        }
        self.copies(expr);
        self.count()
    }

    fn post_visit_expr(&mut self, _expr: &Expr) -> ControlFlow<Error> {
        self.now = self.around.pop().unwrap_or_default();
        ControlFlow::Continue(())
    }
}
