//! `x op ANY (..)` and `x op ALL (..)`. Of a subquery, `= ANY` is IN and `<> ALL` is NOT IN, the
//! others are bound as they are. Of an array that is written out, `= ANY` and `<> ALL` are IN and
//! NOT IN too, which are looked up by key. Of any other array they are calls that the operators
//! evaluate: `any_lt(x, array)`.

use crate::bind::moments;
use crate::coerce::DOUBLE;
use datafusion_sql::sqlparser::ast::{
    self, ArrayElemTypeDef, BinaryOperator, DataType, Expr, FunctionArg, FunctionArgExpr, Value,
};

/// Rewrites an expression.
pub(super) fn rewrite(expr: &mut Expr) {
    let (left, op, right, any) = match expr {
        Expr::AnyOp {
            left,
            compare_op,
            right,
            ..
        } => (left, compare_op, right, true),
        Expr::AllOp {
            left,
            compare_op,
            right,
        } => (left, compare_op, right, false),
        _ => return,
    };
    let equal = match (&*op, any) {
        (BinaryOperator::Eq, true) => Some(false),
        (BinaryOperator::NotEq, false) => Some(true),
        _ => None,
    };
    unwrap_query(right);
    let taken = |e: &mut Expr| std::mem::replace(e, Expr::Value(Value::Null.into()));
    if let Expr::Subquery(subquery) = right.as_ref() {
        if let Some(negated) = equal {
            *expr = Expr::InSubquery {
                subquery: subquery.clone(),
                expr: Box::new(taken(left)),
                negated,
            };
        }
        return;
    }
    if let Some(negated) = equal
        && let Some(list) = elements(right)
    {
        *expr = if list.is_empty() {
            Expr::Value(Value::Boolean(negated).into())
        } else {
            // A real beside numbers in an array is a double, beside those in a list it is none.
            let numbers = list.iter().any(|e| {
                matches!(e, Expr::Value(v)
                if matches!(v.value, Value::Number(..)))
            });
            let value = Box::new(taken(left));
            Expr::InList {
                expr: match numbers && !matches!(*value, Expr::Tuple(_)) {
                    true => Box::new(held(value)),
                    false => value,
                },
                list,
                negated,
            }
        };
        return;
    }
    let name = match op {
        BinaryOperator::Eq => "eq",
        BinaryOperator::NotEq => "ne",
        BinaryOperator::Lt => "lt",
        BinaryOperator::LtEq => "le",
        BinaryOperator::Gt => "gt",
        BinaryOperator::GtEq => "ge",
        BinaryOperator::PGLikeMatch => "like",
        BinaryOperator::PGNotLikeMatch => "nlike",
        BinaryOperator::PGILikeMatch => "ilike",
        BinaryOperator::PGNotILikeMatch => "nilike",
        _ => return,
    };
    let name = format!("{}_{name}", if any { "any" } else { "all" });
    let argument = |e: &mut Expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(taken(e)));
    let args = [argument(left), argument(right)];
    *expr = Expr::Function(moments::function(&name, &args));
}

/// A value as the numbers of an array are compared with it.
fn held(value: Box<Expr>) -> Expr {
    Expr::Nested(Box::new(Expr::BinaryOp {
        left: Box::new(Expr::Value(Value::Null.into())),
        op: BinaryOperator::Custom(DOUBLE.into()),
        right: Box::new(Expr::Nested(value)),
    }))
}

/// A subquery in parentheses of its own is one.
fn unwrap_query(expr: &mut Expr) {
    while let Expr::Nested(inner) = expr
        && matches!(inner.as_ref(), Expr::Nested(_) | Expr::Subquery(_))
    {
        let inner = std::mem::replace(inner.as_mut(), Expr::Value(Value::Null.into()));
        *expr = inner;
    }
}

/// The elements of an array that is written out: `ARRAY[1, 2]`, with or without a cast, or a plain
/// `'{1,2}'`, whose elements take the type of what they are compared with.
fn elements(array: &Expr) -> Option<Vec<Expr>> {
    match array {
        Expr::Nested(inner) => elements(inner),
        Expr::Array(array) => {
            let flat = !array.elem.iter().any(|e| matches!(e, Expr::Array(_)));
            flat.then(|| array.elem.clone())
        }
        Expr::Cast {
            expr,
            data_type: DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)),
            kind,
            ..
        } if !matches!(element.as_ref(), DataType::Array(_)) => {
            let Expr::Array(array) = expr.as_ref() else {
                return None;
            };
            let cast = |e: &Expr| Expr::Cast {
                kind: kind.clone(),
                expr: Box::new(e.clone()),
                data_type: element.as_ref().clone(),
                array: false,
                format: None,
            };
            Some(array.elem.iter().map(cast).collect())
        }
        Expr::Value(v) => match &v.value {
            Value::SingleQuotedString(text) => plain_elements(text),
            _ => None,
        },
        _ => None,
    }
}

/// The elements of an array in its text form, if nothing in it is quoted or nested.
fn plain_elements(text: &str) -> Option<Vec<Expr>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    if inner.contains(['"', '\\', '{', '}']) {
        return None;
    }
    if inner.trim().is_empty() {
        return Some(Vec::new());
    }
    let element = |text: &str| {
        let text = text.trim();
        let value = if text.eq_ignore_ascii_case("null") {
            Value::Null
        } else {
            Value::SingleQuotedString(text.to_string())
        };
        (!text.is_empty()).then(|| Expr::Value(ast::ValueWithSpan::from(value)))
    };
    inner.split(',').map(element).collect()
}
