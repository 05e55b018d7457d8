//! Set operations. A quoted constant takes the type of the other side's column.
//!
//! INTERSECT and EXCEPT of columns whose types may differ are groups of both sides' rows, whose
//! union has PostgreSQL's common types:
//!
//! ```text
//! SELECT x FROM (SELECT x, 0 side FROM l UNION ALL SELECT x, 1 FROM r) GROUP BY x
//! HAVING count(*) FILTER (WHERE side = 0) > 0 AND count(*) FILTER (WHERE side = 1) = 0
//! ```
//!
//! INTERSECT ALL and EXCEPT ALL pair equal rows one by one, which DataFusion does not. So equal
//! rows are numbered on each side; numbered rows are all different, and the operation without ALL
//! is the same over them.

use super::join::{as_type, sql_type};
use super::{Output, quoted, unique};
use crate::parse::parse_query;
use crate::types::NUMERIC;
use arrow_schema::DataType;
use datafusion_sql::sqlparser::ast::{
    self, Expr, Query, SelectItem, SetExpr, SetOperator, SetQuantifier, TableFactor, Value,
};
use tidemark_common::{Error, Result, SqlState};

/// Casts the quoted constants in the select lists of one side to the types of the other's columns.
pub(super) fn take_types(side: &mut SetExpr, columns: &mut [Output], others: &[Output]) {
    for (i, (column, other)) in columns.iter_mut().zip(others).enumerate() {
        if column.data_type.is_none()
            && let Some(data_type) = &other.data_type
            && let Some(sql_type) = sql_type(data_type)
            && cast_constants(side, i, others.len(), &sql_type)
        {
            column.data_type = Some(data_type.clone());
        }
    }
}

/// Casts the constants of one column; whether it has nothing else.
fn cast_constants(body: &mut SetExpr, column: usize, width: usize, to: &ast::DataType) -> bool {
    match body {
        SetExpr::Query(query) => cast_constants(&mut query.body, column, width, to),
        SetExpr::SetOperation { left, right, .. } => {
            let left = cast_constants(left, column, width, to);
            cast_constants(right, column, width, to) && left
        }
        SetExpr::Select(select) if select.projection.len() == width => {
            let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) =
                &mut select.projection[column]
            else {
                return false;
            };
            let untyped = matches!(&*expr, Expr::Value(v)
                if matches!(v.value, Value::SingleQuotedString(_) | Value::Null));
            if untyped {
                *expr = as_type(expr.clone(), to.clone());
            }
            untyped
        }
        _ => false,
    }
}

/// Rewrites a set operation, given the columns of its sides as far as they are known.
pub(super) fn rewrite(
    body: &mut SetExpr,
    left_columns: Option<&[Output]>,
    right_columns: Option<&[Output]>,
) -> Result<()> {
    let SetExpr::SetOperation {
        op,
        set_quantifier,
        left,
        right,
    } = body
    else {
        return Ok(());
    };
    if let (Some(l), Some(r)) = (left_columns, right_columns)
        && *op != SetOperator::Union
        && l.len() != r.len()
    {
        return Err(Error::user(
            SqlState::SYNTAX_ERROR,
            format!("each {op} query must have the same number of columns"),
        ));
    }
    let all = matches!(
        set_quantifier,
        SetQuantifier::All | SetQuantifier::AllByName
    );
    let same_types = match (left_columns, right_columns) {
        (Some(l), Some(r)) => l
            .iter()
            .zip(r)
            .all(|(l, r)| l.data_type.is_some() && l.data_type == r.data_type),
        _ => false,
    };
    if *op == SetOperator::Union || !all && same_types {
        return Ok(());
    }
    let known = left_columns.filter(|c| !c.is_empty());
    let Some(columns) = known else {
        return if all {
            Err(Error::unsupported(format!("{op} ALL is not supported"))
                .with_hint(format!("{op} without ALL is supported.")))
        } else {
            Ok(())
        };
    };
    let names: Vec<String> = (1..=columns.len()).map(|i| format!("__{i}")).collect();
    let names = names.join(", ");
    let grouped = if all {
        format!("{names}, __n")
    } else {
        names.clone()
    };
    let items = unique(columns).into_iter().enumerate();
    let items: Vec<String> = items
        .map(|(i, name)| {
            let numeric = |c: Option<&Output>| {
                let data_type = c.and_then(|c| c.data_type.as_ref());
                data_type.is_some_and(|t| *t == NUMERIC || matches!(t, DataType::Decimal128(..)))
            };
            let (column, name) = (format!("__{}", i + 1), quoted(&name));
            let right = right_columns.and_then(|r| r.get(i));
            // Equal numerics may have different scales: the left side's are shown.
            if numeric(columns.get(i)) || numeric(right) {
                format!("min({column}) FILTER (WHERE __side = 0) AS {name}")
            } else {
                format!("{column} AS {name}")
            }
        })
        .collect();
    let other = if *op == SetOperator::Intersect {
        "> 0"
    } else {
        "= 0"
    };
    let mut query = parse_query(&format!(
        "SELECT {} FROM (SELECT 1) AS __sets({grouped}, __side) GROUP BY {grouped} \
         HAVING count(*) FILTER (WHERE __side = 0) > 0 \
         AND count(*) FILTER (WHERE __side = 1) {other}",
        items.join(", ")
    ))?;
    let both = SetExpr::SetOperation {
        op: SetOperator::Union,
        set_quantifier: SetQuantifier::All,
        left: Box::new(SetExpr::Query(marked(left, &names, all, 0)?)),
        right: Box::new(SetExpr::Query(marked(right, &names, all, 1)?)),
    };
    *derived(&mut query.body)? = both;
    *body = *query.body;
    Ok(())
}

/// One side with its mark, and with its equal rows numbered.
fn marked(body: &mut SetExpr, names: &str, numbered: bool, side: u8) -> Result<Box<Query>> {
    let number = if numbered {
        format!(", row_number() OVER (PARTITION BY {names}) AS __n")
    } else {
        String::new()
    };
    let mut query = parse_query(&format!(
        "SELECT {names}{number}, {side} AS __side FROM (SELECT 1) AS __rows({names})"
    ))?;
    let empty = SetExpr::Query(parse_query("SELECT 1")?);
    *derived(&mut query.body)? = std::mem::replace(body, empty);
    Ok(query)
}

/// The body of the one query that FROM of a SELECT has.
pub(super) fn derived(body: &mut SetExpr) -> Result<&mut SetExpr> {
    if let SetExpr::Select(select) = body
        && let Some(TableFactor::Derived { subquery, .. }) =
            select.from.first_mut().map(|t| &mut t.relation)
    {
        return Ok(&mut subquery.body);
    }
    Err(Error::internal("no subquery in FROM"))
}
