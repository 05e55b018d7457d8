//! Arrays in queries over the system catalogs, in forms that DataFusion plans.
//!
//! | PostgreSQL | here |
//! | --- | --- |
//! | `x = ANY (a)` | `array_contains(a, x)` |
//! | `x <> ALL (a)` | `NOT array_contains(a, x)` |
//! | `'{a,b}'` as such an `a` | `ARRAY['a', 'b']` |
//! | `'{a,b}'::text[]`, `'{1,2}'::int2[]` | `ARRAY['a', 'b']::text[]`, `ARRAY[1, 2]::int2[]` |
//!
//! `x <> ANY` and `x = ALL` are not memberships and stay as they are. Elements of literals are cut
//! at commas: what clients send are letters, names and numbers.

use super::rewrite::call_with;
use datafusion::sql::sqlparser::ast::{
    Array, ArrayElemTypeDef, BinaryOperator, CastKind, DataType, Expr, UnaryOperator, Value,
    VisitorMut,
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
            } => *expr = contains(right, left),
            Expr::AllOp {
                left,
                compare_op: BinaryOperator::NotEq,
                right,
            } => {
                *expr = Expr::UnaryOp {
                    op: UnaryOperator::Not,
                    expr: Box::new(contains(right, left)),
                }
            }
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

/// Whether `element` is in `list`.
fn contains(list: &Expr, element: &Expr) -> Expr {
    let is_array_text = matches!(list, Expr::Value(v)
        if matches!(&v.value, Value::SingleQuotedString(t) if t.trim().starts_with('{')));
    let list = match elements(list).filter(|_| is_array_text) {
        Some(elements) => array(elements, true),
        None => list.clone(),
    };
    call_with("array_contains", vec![list, element.clone()])
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
