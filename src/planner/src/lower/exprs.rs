//! Small surgery on our expressions.

use tidemark_plan::Expr;

/// Rebuilds an expression with every column replaced.
pub(crate) fn replace(expr: Expr, column: &dyn Fn(usize) -> Expr) -> Expr {
    let one = |e: Box<Expr>| Box::new(replace(*e, column));
    let many = |es: Vec<Expr>| es.into_iter().map(|e| replace(e, column)).collect();
    match expr {
        Expr::Column(i) => column(i),
        Expr::Literal(l) => Expr::Literal(l),
        Expr::Binary { op, left, right } => Expr::Binary {
            op,
            left: one(left),
            right: one(right),
        },
        Expr::Not(e) => Expr::Not(one(e)),
        Expr::Negative(e) => Expr::Negative(one(e)),
        Expr::IsNull(e) => Expr::IsNull(one(e)),
        Expr::IsNotNull(e) => Expr::IsNotNull(one(e)),
        Expr::IsTrue(e) => Expr::IsTrue(one(e)),
        Expr::IsFalse(e) => Expr::IsFalse(one(e)),
        Expr::Like {
            negated,
            case_insensitive,
            expr,
            pattern,
        } => Expr::Like {
            negated,
            case_insensitive,
            expr: one(expr),
            pattern: one(pattern),
        },
        Expr::InList {
            negated,
            expr,
            list,
        } => Expr::InList {
            negated,
            expr: one(expr),
            list: many(list),
        },
        Expr::Case {
            operand,
            when_then,
            otherwise,
        } => Expr::Case {
            operand: operand.map(one),
            when_then: when_then
                .into_iter()
                .map(|(w, t)| (replace(w, column), replace(t, column)))
                .collect(),
            otherwise: otherwise.map(one),
        },
        Expr::Cast { expr, to, safe } => Expr::Cast {
            expr: one(expr),
            to,
            safe,
        },
        Expr::Call { function, args } => Expr::Call {
            function,
            args: many(args),
        },
    }
}

/// Puts the expressions of the projection below in place of its columns.
pub(crate) fn substitute(expr: Expr, below: &[Expr]) -> Expr {
    replace(expr, &|i| below[i].clone())
}

/// Renumbers columns.
pub(crate) fn remap(expr: Expr, to: &dyn Fn(usize) -> usize) -> Expr {
    replace(expr, &|i| Expr::Column(to(i)))
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
