//! Operators that are calls, as statements write them.
//!
//! `text SIMILAR TO 'pattern'`, SQL's own patterns, is `text ~ similar_to_escape(pattern [,
//! escape])`, and `LIKE pattern ESCAPE escape` is `LIKE like_escape(pattern, escape)`, as in
//! PostgreSQL. `~ x` inverts bits, `@ x` is `abs(x)`, `|/ x` and `||/ x` are roots. `~~` and its
//! like are LIKE and its like, `a ^@ b` is `starts_with(a, b)`, and `IS NORMALIZED` is a call.

use datafusion_sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Expr, FunctionArg, FunctionArgExpr, UnaryOperator, Value,
};

fn argument(expr: Expr) -> FunctionArg {
    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
}

/// Operators that are LIKE or a call by another spelling.
fn matched(expr: &mut Expr) {
    let taken = |e: &mut Box<Expr>| std::mem::replace(e.as_mut(), Expr::Value(Value::Null.into()));
    match expr {
        Expr::BinaryOp { left, op, right } => {
            let (negated, any_case) = match op {
                BinaryOperator::PGLikeMatch => (false, false),
                BinaryOperator::PGNotLikeMatch => (true, false),
                BinaryOperator::PGILikeMatch => (false, true),
                BinaryOperator::PGNotILikeMatch => (true, true),
                BinaryOperator::PGStartsWith => {
                    let arguments = [argument(taken(left)), argument(taken(right))];
                    *expr = Expr::Function(super::moments::function("starts_with", &arguments));
                    return;
                }
                _ => return,
            };
            let (text, pattern) = (Box::new(taken(left)), Box::new(taken(right)));
            *expr = if any_case {
                Expr::ILike {
                    negated,
                    any: false,
                    expr: text,
                    pattern,
                    escape_char: None,
                }
            } else {
                Expr::Like {
                    negated,
                    any: false,
                    expr: text,
                    pattern,
                    escape_char: None,
                }
            };
        }
        // `substr` knows no patterns.
        Expr::Substring {
            expr: text,
            substring_from: Some(from),
            substring_for,
            shorthand: true,
            ..
        } => {
            let mut arguments = vec![argument(taken(text)), argument(taken(from))];
            arguments.extend(substring_for.as_mut().map(|length| argument(taken(length))));
            *expr = Expr::Function(super::moments::function("substr", &arguments));
        }
        Expr::IsNormalized {
            expr: text,
            form,
            negated,
        } => {
            let form = form.map_or("NFC".into(), |f| f.to_string().to_uppercase());
            let form = Expr::Value(Value::SingleQuotedString(form).into());
            let arguments = [argument(taken(text)), argument(form)];
            let call = Expr::Function(super::moments::function("is_normalized", &arguments));
            *expr = if *negated {
                Expr::UnaryOp {
                    op: UnaryOperator::Not,
                    expr: Box::new(call),
                }
            } else {
                call
            };
        }
        _ => {}
    }
}

/// A quoted constant as what roots are taken of.
fn double_precision(quoted: Expr) -> Expr {
    Expr::Cast {
        kind: CastKind::DoubleColon,
        expr: Box::new(quoted),
        data_type: DataType::DoublePrecision,
        array: false,
        format: None,
    }
}

/// Rewrites an operator that is a call; SIMILAR TO into `~` or `!~`.
pub(super) fn rewrite(expr: &mut Expr) {
    matched(expr);
    if let Expr::UnaryOp { op, expr: operand } = expr {
        let name = match op {
            UnaryOperator::BitwiseNot => "bit_not",
            UnaryOperator::PGAbs => "abs",
            UnaryOperator::PGSquareRoot => "dsqrt",
            UnaryOperator::PGCubeRoot => "cbrt",
            _ => return,
        };
        let mut operand = operand.as_ref().clone();
        let root = matches!(op, UnaryOperator::PGSquareRoot | UnaryOperator::PGCubeRoot);
        if root
            && matches!(&operand, Expr::Value(v) if matches!(v.value, Value::SingleQuotedString(_)))
        {
            operand = double_precision(operand);
        }
        let arguments = [argument(operand)];
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
