//! Columns that follow from others. `window_end` is `window_start` plus a constant: grouping by
//! both is grouping by one, and joining on both is joining on one, with less to hash, to keep and
//! to send.
//!
//! Sound, because an expression of equal values has equal values. Floats and intervals are left
//! alone: there are equal ones that are not the same (0 and -0, a day and 24 hours). A join may
//! drop a condition only if the expression is NULL for no other reason than a NULL column, since
//! NULL = NULL is not true.

use arrow_schema::{DataType, Schema};
use tidemark_plan::{BinaryOp, Expr, Literal};

/// Writes `expr` as an expression over `targets`, each of which stands for the column beside it;
/// `None` if it reads anything else.
pub(super) fn express(expr: &Expr, targets: &[(&Expr, usize)]) -> Option<Expr> {
    if let Some((_, column)) = targets.iter().find(|(target, _)| *target == expr) {
        return Some(Expr::Column(*column));
    }
    let one = |e: &Expr| express(e, targets).map(Box::new);
    let many = |es: &[Expr]| {
        es.iter()
            .map(|e| express(e, targets))
            .collect::<Option<Vec<_>>>()
    };
    Some(match expr {
        Expr::Literal(l) => Expr::Literal(l.clone()),
        Expr::Binary { op, left, right } => Expr::Binary {
            op: *op,
            left: one(left)?,
            right: one(right)?,
        },
        Expr::Cast { expr, to, safe } => Expr::Cast {
            expr: one(expr)?,
            to: to.clone(),
            safe: *safe,
        },
        Expr::Call { function, args } => Expr::Call {
            function: function.clone(),
            args: many(args)?,
        },
        _ => return None,
    })
}

/// Of the first `width` expressions those that follow from earlier ones: position and expression
/// over the positions of those that are kept.
pub(super) fn dependents(exprs: &[Expr], schema: &Schema, width: usize) -> Vec<(usize, Expr)> {
    let mut found: Vec<(usize, Expr)> = Vec::new();
    for g in 1..width.min(exprs.len()) {
        let kept = (0..g).filter(|h| {
            found.iter().all(|(f, _)| f != h)
                && !has_equal_but_different(schema.field(*h).data_type())
        });
        let targets: Vec<(&Expr, usize)> = kept.map(|h| (&exprs[h], h)).collect();
        if !matches!(exprs[g], Expr::Column(_) | Expr::Literal(_))
            && let Some(expr) = express(&exprs[g], &targets)
        {
            found.push((g, expr));
        }
    }
    found
}

fn has_equal_but_different(data_type: &DataType) -> bool {
    data_type.is_floating() || matches!(data_type, DataType::Interval(_)) || data_type.is_nested()
}

/// Pairs of join keys that follow from the other pairs: both sides compute them in the same way.
pub(super) fn implied_pairs(
    left: &[Expr],
    right: &[Expr],
    schema: &Schema,
    left_keys: &[usize],
    right_keys: &[usize],
) -> Vec<usize> {
    let mut implied: Vec<usize> = Vec::new();
    for pair in 0..left_keys.len() {
        let others: Vec<usize> = (0..left_keys.len())
            .filter(|p| {
                *p != pair
                    && !implied.contains(p)
                    && !has_equal_but_different(schema.field(left_keys[*p]).data_type())
            })
            .collect();
        let side = |exprs: &[Expr], keys: &[usize]| {
            let targets: Vec<(&Expr, usize)> =
                others.iter().map(|p| (&exprs[keys[*p]], *p)).collect();
            express(&exprs[keys[pair]], &targets).filter(|e| {
                is_null_only_with_columns(e) && !matches!(e, Expr::Literal(_) | Expr::Column(_))
            })
        };
        if let (Some(l), Some(r)) = (side(left, left_keys), side(right, right_keys))
            && l == r
        {
            implied.push(pair);
        }
    }
    implied
}

/// Not NULL as long as its columns are not.
fn is_null_only_with_columns(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) => true,
        Expr::Literal(l) => !matches!(l, Literal::Null(_)),
        Expr::Binary {
            op: BinaryOp::Plus | BinaryOp::Minus | BinaryOp::Multiply,
            left,
            right,
        } => is_null_only_with_columns(left) && is_null_only_with_columns(right),
        Expr::Call { function, args } => {
            matches!(function.as_str(), "add_micros" | "tumble_start")
                && args.iter().all(is_null_only_with_columns)
        }
        _ => false,
    }
}
