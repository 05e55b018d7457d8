//! Operators that are calls, as statements write them.
//!
//! `text SIMILAR TO 'pattern'`, SQL's own patterns, is `text ~ similar_to_escape(pattern [,
//! escape])`, and `LIKE pattern ESCAPE escape` is `LIKE like_escape(pattern, escape)`, as in
//! PostgreSQL. `~ x` inverts bits, `@ x` is `abs(x)`, `|/ x` and `||/ x` are roots.

use datafusion_sql::sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, UnaryOperator, Value,
};

fn argument(expr: Expr) -> FunctionArg {
    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
}

/// Rewrites an operator that is a call; SIMILAR TO into `~` or `!~`.
pub(super) fn rewrite(expr: &mut Expr) {
    if let Expr::UnaryOp { op, expr: operand } = expr {
        let name = match op {
            UnaryOperator::BitwiseNot => "bit_not",
            UnaryOperator::PGAbs => "abs",
            UnaryOperator::PGSquareRoot => "dsqrt",
            UnaryOperator::PGCubeRoot => "cbrt",
            _ => return,
        };
        let arguments = [argument(operand.as_ref().clone())];
        *expr = Expr::Function(super::moments::function(name, &arguments));
        return;
    }
    if let Expr::Like {
        pattern,
        escape_char,
        ..
    }
    | Expr::ILike {
        pattern,
        escape_char,
        ..
    } = expr
        && let Some(escape) = escape_char.take()
    {
        let null = Expr::Value(Value::Null.into());
        let arguments = [
            std::mem::replace(pattern.as_mut(), null),
            Expr::Value(escape),
        ]
        .map(argument);
        **pattern = Expr::Function(super::moments::function("like_escape", &arguments));
        return;
    }
    let Expr::SimilarTo {
        negated,
        expr: text,
        pattern,
        escape_char,
    } = expr
    else {
        return;
    };
    let mut arguments = vec![argument(pattern.as_ref().clone())];
    arguments.extend(
        escape_char
            .take()
            .map(|escape| argument(Expr::Value(escape))),
    );
    let op = if *negated {
        BinaryOperator::PGRegexNotMatch
    } else {
        BinaryOperator::PGRegexMatch
    };
    let regex = Expr::Function(super::moments::function("similar_to_escape", &arguments));
    *expr = Expr::Nested(Box::new(Expr::BinaryOp {
        left: Box::new(Expr::Nested(text.clone())),
        op,
        right: Box::new(regex),
    }));
}
