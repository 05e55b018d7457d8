//! `text SIMILAR TO 'pattern'`, SQL's own patterns. The pattern becomes a regular expression when it
//! is known: `text ~ similar_to_escape(pattern [, escape])`, as PostgreSQL does it. `LIKE pattern
//! ESCAPE escape` is `LIKE like_escape(pattern, escape)` there, and here.

use datafusion_sql::sqlparser::ast::{BinaryOperator, Expr, FunctionArg, FunctionArgExpr, Value};

/// Rewrites SIMILAR TO into `~` or `!~`, and LIKE with ESCAPE.
pub(super) fn rewrite(expr: &mut Expr) {
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
        .map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e)));
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
    let argument = |e: Expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(e));
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
