//! Small surgery on our expressions.

use tidemark_plan::Expr;

/// Puts the expressions of the projection below in place of its columns.
pub(crate) fn substitute(expr: Expr, below: &[Expr]) -> Expr {
    expr.replace_columns(&|i| below[i].clone())
}

/// Renumbers columns.
pub(crate) fn remap(expr: Expr, to: &dyn Fn(usize) -> usize) -> Expr {
    expr.replace_columns(&|i| Expr::Column(to(i)))
}

/// Adds up how often each column is read.
pub(crate) fn count_columns(expr: &Expr, uses: &mut [usize]) {
    expr.visit_columns(&mut |c| uses[c] += 1);
}

/// Costs nothing to compute again.
pub(crate) fn is_trivial(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(_) | Expr::Literal(_))
}

/// The number of expressions in an expression.
pub(crate) fn size(expr: &Expr) -> usize {
    let (mut open, mut size) = (vec![expr], 0);
    while let Some(expr) = open.pop() {
        size += 1;
        expr.visit_children(&mut |child| open.push(child));
    }
    size
}
