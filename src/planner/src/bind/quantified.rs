//! `x op ANY (..)` and `x op ALL (..)`. Of a subquery, `= ANY` is IN and `<> ALL` is NOT IN, what
//! matches patterns is that of the array `ARRAY(SELECT ..)`, the others are bound as they are. Of
//! an array that is written out or given as a text, `= ANY` and `<> ALL` are IN and NOT IN too,
//! which are looked up by key. Of any other array they are calls that the operators evaluate:
//! `any_lt(x, array)`.

use super::Provider;
use super::constants::as_type;
use crate::bind::moments;
use crate::coerce::DOUBLE;
use crate::parse::parse_query;
use datafusion_sql::sqlparser::ast::{
    self, ArrayElemTypeDef, BinaryOperator, DataType, Expr, FunctionArg, FunctionArgExpr,
    FunctionArguments, Query, Value,
};
use tidemark_common::Result;

/// Rewrites an expression.
///
/// Errors: those of `ARRAY(SELECT ..)`.
pub(super) fn rewrite(expr: &mut Expr, provider: &Provider) -> Result<()> {
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
        _ => return Ok(()),
    };
    let equal = match (&*op, any) {
        (BinaryOperator::Eq, true) => Some(false),
        (BinaryOperator::NotEq, false) => Some(true),
        _ => None,
    };
    unwrap_query(right);
    let taken = |e: &mut Expr| std::mem::replace(e, Expr::Value(Value::Null.into()));
    if let Expr::Subquery(subquery) = right.as_mut() {
        if is_match(op) {
            let query = std::mem::replace(subquery, parse_query("SELECT 1")?);
            **right = array_of(query, provider)?;
        } else if let Some(negated) = equal {
            *expr = Expr::InSubquery {
                subquery: subquery.clone(),
                expr: Box::new(taken(left)),
                negated,
            };
            return Ok(());
        } else {
            return Ok(());
        }
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
        return Ok(());
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
        BinaryOperator::PGRegexMatch => "regex",
        BinaryOperator::PGRegexNotMatch => "nregex",
        BinaryOperator::PGRegexIMatch => "iregex",
        BinaryOperator::PGRegexNotIMatch => "niregex",
        _ => return Ok(()),
    };
    let name = format!("{}_{name}", if any { "any" } else { "all" });
    let argument = |e: &mut Expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(taken(e)));
    let args = [argument(left), argument(right)];
    *expr = Expr::Function(moments::function(&name, &args));
    Ok(())
}

/// Whether an operator matches a text with a pattern.
fn is_match(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::PGLikeMatch
            | BinaryOperator::PGNotLikeMatch
            | BinaryOperator::PGILikeMatch
            | BinaryOperator::PGNotILikeMatch
            | BinaryOperator::PGRegexMatch
            | BinaryOperator::PGRegexNotMatch
            | BinaryOperator::PGRegexIMatch
            | BinaryOperator::PGRegexNotIMatch
    )
}

/// `ARRAY(query)`.
fn array_of(query: Box<Query>, provider: &Provider) -> Result<Expr> {
    let mut call = moments::function("array", &[]);
    call.args = FunctionArguments::Subquery(query);
    let mut array = Expr::Function(call);
    provider.array_query(&mut array)?;
    Ok(array)
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

/// Elements of an array in its text form that become a list; a list of more takes long to plan.
const ELEMENTS_MAX: usize = 1000;

/// The elements of an array that is written out: `ARRAY[1, 2]` or `'{1,2}'` with a cast, as which
/// drivers' parameters come, and both without: then those of a text take the type of what they are
/// compared with.
fn elements(array: &Expr) -> Option<Vec<Expr>> {
    match array {
        Expr::Nested(inner) => elements(inner),
        Expr::Array(array) => {
            let flat = !array.elem.iter().any(|e| matches!(e, Expr::Array(_)));
            flat.then(|| typed(&array.elem))
        }
        Expr::Cast {
            expr,
            data_type: DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)),
            kind,
            ..
        } if !matches!(element.as_ref(), DataType::Array(_)) => {
            let elements = match expr.as_ref() {
                Expr::Array(array) => array.elem.clone(),
                Expr::Value(v) => match &v.value {
                    Value::SingleQuotedString(text) => read(text)?,
                    _ => return None,
                },
                _ => return None,
            };
            let cast = |e: &Expr| Expr::Cast {
                kind: kind.clone(),
                expr: Box::new(e.clone()),
                data_type: element.as_ref().clone(),
                array: false,
                format: None,
            };
            Some(elements.iter().map(cast).collect())
        }
        Expr::Value(v) => match &v.value {
            Value::SingleQuotedString(text) => plain_elements(text),
            _ => None,
        },
        _ => None,
    }
}

/// The elements of `ARRAY[..]`: texts, where all are quoted.
fn typed(elements: &[Expr]) -> Vec<Expr> {
    let is_quoted = |e: &Expr| {
        matches!(e, Expr::Value(v)
        if matches!(v.value, Value::SingleQuotedString(_)))
    };
    let is_null = |e: &Expr| matches!(e, Expr::Value(v) if v.value == Value::Null);
    let texts =
        elements.iter().any(is_quoted) && elements.iter().all(|e| is_quoted(e) || is_null(e));
    let element = |e: &Expr| match texts {
        true => as_type(e, DataType::Text),
        false => e.clone(),
    };
    elements.iter().map(element).collect()
}

/// The elements of an array in its text form; `None` for a text that is none, which the cast
/// refuses, and for an empty one, whose type would be lost.
fn read(text: &str) -> Option<Vec<Expr>> {
    let mut elements = Vec::new();
    let put = |element: Option<&str>| {
        let value = element.map(|text| Value::SingleQuotedString(text.to_string()));
        elements.push(Expr::Value(value.unwrap_or(Value::Null).into()));
    };
    tidemark_values::array::read(text, put).ok()?;
    (1..=ELEMENTS_MAX)
        .contains(&elements.len())
        .then_some(elements)
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
