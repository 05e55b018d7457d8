//! Arrays in queries over the system catalogs, in forms that DataFusion plans.
//!
//! | PostgreSQL | here |
//! | --- | --- |
//! | `x = ANY (a)` | `any_eq(x, a)` |
//! | `x <> ALL (a)` | `all_ne(x, a)` |
//! | `x = ANY ('{a,b}')`, `x <> ALL ('{a,b}')` | `x IN ('a', 'b')`, `x NOT IN ('a', 'b')` |
//! | `'{a,b}'::text[]`, `'{1,2}'::int2[]` | `ARRAY['a', 'b']::text[]`, `ARRAY[1, 2]::int2[]` |
//!
//! `x <> ANY` and `x = ALL` are not memberships and stay as they are. Elements of literals are cut
//! at commas: what clients send are letters, names and numbers.

use super::rewrite::call_with;
use datafusion::sql::sqlparser::ast::{
    Array, ArrayElemTypeDef, BinaryOperator, CastKind, DataType, Expr, Value, VisitorMut,
};
use std::ops::ControlFlow;

/// The rewriting, for `VisitMut::visit`.
pub struct Arrays;

impl VisitorMut for Arrays {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::AnyOp {
                left,
                compare_op: BinaryOperator::Eq,
                right,
                ..
            } => *expr = compared("any_eq", left, right),
            Expr::AllOp {
                left,
                compare_op: BinaryOperator::NotEq,
                right,
            } => *expr = compared("all_ne", left, right),
            Expr::Cast {
                kind: CastKind::DoubleColon,
                expr,
                data_type: DataType::Array(element),
                ..
            } => {
                if let Some(elements) = elements(expr) {
                    **expr = array(elements, is_text(element));
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// How `element` compares with those of `list`.
fn compared(how: &str, element: &Expr, list: &Expr) -> Expr {
    let is_array_text = matches!(list, Expr::Value(v)
        if matches!(&v.value, Value::SingleQuotedString(t) if t.trim().starts_with('{')));
    let negated = how == "all_ne";
    match elements(list).filter(|_| is_array_text) {
        Some(elements) if elements.is_empty() => Expr::Value(Value::Boolean(negated).into()),
        // Constants of no type yet.
        Some(elements) => Expr::InList {
            expr: Box::new(element.clone()),
            list: elements.into_iter().map(quoted).collect(),
            negated,
        },
        None => call_with(how, vec![element.clone(), list.clone()]),
    }
}

fn quoted(text: String) -> Expr {
    Expr::Value(Value::SingleQuotedString(text).into())
}

/// The elements of an array that is written as a text, `{a, b}`.
fn elements(expr: &Expr) -> Option<Vec<String>> {
    let Expr::Value(value) = expr else {
        return None;
    };
    let Value::SingleQuotedString(text) = &value.value else {
        return None;
    };
    let inside = text.trim().trim_start_matches('{').trim_end_matches('}');
    let elements = inside.split(',').map(str::trim).filter(|e| !e.is_empty());
    Some(elements.map(String::from).collect())
}

fn array(elements: Vec<String>, of_texts: bool) -> Expr {
    let value = |element: String| {
        let value = if of_texts {
            Value::SingleQuotedString(element)
        } else {
            Value::Number(element, false)
        };
        Expr::Value(value.into())
    };
    Expr::Array(Array {
        elem: elements.into_iter().map(value).collect(),
        named: true,
    })
}

fn is_text(element: &ArrayElemTypeDef) -> bool {
    let data_type = match element {
        ArrayElemTypeDef::AngleBracket(t)
        | ArrayElemTypeDef::SquareBracket(t, _)
        | ArrayElemTypeDef::Parenthesis(t) => t.as_ref(),
        ArrayElemTypeDef::None => return false,
    };
    matches!(
        data_type,
        DataType::Text | DataType::Varchar(_) | DataType::Char(_) | DataType::String(_)
    )
}
