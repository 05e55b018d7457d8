//! `LATERAL (VALUES (t.a, 1), (t.b, 2)) v(x, y)`: rows of the columns of what stands before. They
//! are the rows of a table of numbers, of which each chooses its values:
//!
//! ```text
//! LATERAL (SELECT CASE __row WHEN 1 THEN t.a ELSE t.b END AS x, .. FROM (VALUES (1), (2)) ..) v
//! ```

use super::unnest::reads_columns;
use crate::parse::parse_query;
use datafusion_sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion_sql::sqlparser::ast::{
    CaseWhen, Expr, FunctionArg, FunctionArgExpr, Ident, Query, SelectItem, SetExpr, TableFactor,
    Value,
};
use tidemark_common::Result;

/// The number of a row.
const ROW: &str = "__row";

/// Rewrites one table of FROM.
pub(super) fn rewrite(factor: &mut TableFactor) -> Result<()> {
    let TableFactor::Derived {
        lateral: true,
        subquery,
        alias: Some(alias),
        ..
    } = factor
    else {
        return Ok(());
    };
    let Some(rows) = rows_of_columns(subquery) else {
        return Ok(());
    };
    let numbers: Vec<String> = (1..=rows.len()).map(|n| format!("({n})")).collect();
    let numbers = numbers.join(", ");
    let mut query = parse_query(&format!(
        "SELECT 1 FROM (VALUES {numbers}) AS __rows({ROW})"
    ))?;
    let width = rows.first().map_or(0, Vec::len);
    let names = alias.columns.iter().map(|c| c.name.clone());
    let names: Vec<Ident> = names
        .chain((alias.columns.len()..width).map(|i| Ident::new(format!("column{}", i + 1))))
        .collect();
    if let SetExpr::Select(select) = query.body.as_mut()
        && names.len() == width
    {
        let column = |(i, alias): (usize, Ident)| SelectItem::ExprWithAlias {
            expr: chosen(rows.iter().map(|row| row[i].clone()).collect()),
            alias,
        };
        select.projection = names.into_iter().enumerate().map(column).collect();
        if rows.len() == 1 {
            select.from.clear();
        }
        *subquery = query;
    }
    Ok(())
}

/// The rows of VALUES that read columns; `None` of what is anything else.
fn rows_of_columns(query: &Query) -> Option<Vec<Vec<Expr>>> {
    let plain = query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none();
    let SetExpr::Values(values) = query.body.as_ref() else {
        return None;
    };
    let rows: Vec<Vec<Expr>> = values.rows.iter().map(|row| row.to_vec()).collect();
    let width = rows.first()?.len();
    let argument = |e: &Expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(e.clone()));
    let outward = rows.iter().flatten().any(|e| reads_columns(&argument(e)));
    (plain && outward && rows.iter().all(|row| row.len() == width)).then_some(rows)
}

/// The value of the row that it is.
fn chosen(mut values: Vec<Expr>) -> Expr {
    let number = |n: usize| Expr::Value(Value::Number(n.to_string(), false).into());
    let Some(last) = values.pop() else {
        return Expr::Value(Value::Null.into());
    };
    if values.is_empty() {
        return last;
    }
    let arms = values.into_iter().enumerate();
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: Some(Box::new(Expr::Identifier(Ident::new(ROW)))),
        conditions: arms
            .map(|(i, result)| CaseWhen {
                condition: number(i + 1),
                result,
            })
            .collect(),
        else_result: Some(Box::new(last)),
    }
}
