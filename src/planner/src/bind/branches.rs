//! `CASE WHEN .. THEN '5' ELSE v END`: a quoted constant has no type of its own in a CASE either,
//! but DataFusion takes the type of the first branch for that of all while it binds what is around.
//! So an arm that is never taken is written before the others, with a value that has a type:
//! `CASE WHEN false THEN v WHEN .. THEN '5' ELSE v END`, and `CASE x WHEN NULL THEN v ..`. It is
//! dropped once all branches are brought to one type. The value is written twice by this, so one
//! that has a CASE of its own is left as it is: what is nested would double at each level.

use datafusion_sql::sqlparser::ast::{CaseWhen, Expr, Query, Value, Visit, Visitor};
use std::ops::ControlFlow;

/// Rewrites one expression whose parts are done.
pub(super) fn rewrite(expr: &mut Expr) {
    let Some(typed) = typed_branch(expr).cloned() else {
        return;
    };
    let Expr::Case {
        operand,
        conditions,
        else_result,
        ..
    } = expr
    else {
        return;
    };
    let all = conditions.iter().map(|arm| &arm.result);
    let mut all = all.chain(else_result.as_deref());
    // NULL does not count: it has any type.
    let first = all.find(|branch| !is_null(branch));
    if !first.is_some_and(is_untyped) || multiplies(&typed) {
        return;
    }
    let never = match operand {
        Some(_) => Value::Null,
        None => Value::Boolean(false),
    };
    conditions.insert(
        0,
        CaseWhen {
            condition: Expr::Value(never.into()),
            result: typed,
        },
    );
}

/// The first branch that has a type; of a CASE in it, that of its own.
fn typed_branch(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::Nested(inner) => typed_branch(inner),
        Expr::Case {
            conditions,
            else_result,
            ..
        } => {
            let all = conditions.iter().map(|arm| &arm.result);
            all.chain(else_result.as_deref()).find_map(typed_branch)
        }
        value => (!is_untyped(value)).then_some(value),
    }
}

fn is_untyped(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_untyped(inner),
        Expr::Value(v) => matches!(v.value, Value::SingleQuotedString(_) | Value::Null),
        _ => false,
    }
}

pub(super) fn is_null(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_null(inner),
        Expr::Value(v) => matches!(v.value, Value::Null),
        _ => false,
    }
}

/// Whether there is something in it that must not be planned twice: a query, or a CASE.
fn multiplies(expr: &Expr) -> bool {
    struct Parts;
    impl Visitor for Parts {
        type Break = ();
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Case { .. } => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    Visit::visit(expr, &mut Parts).is_break()
}
