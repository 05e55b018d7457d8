//! The terms of a recursive query have one type in each column, that of the first term. DataFusion
//! casts the second one to it, which would round numbers; PostgreSQL says `42804`.

use crate::error::external;
use crate::types::{is_numeric_bytes, sql_type_name};
use arrow_schema::{DataType, TimeUnit};
use datafusion_common::tree_node::TreeNode;
use datafusion_common::{DFSchema, Result};
use datafusion_expr::logical_plan::RecursiveQuery;
use datafusion_expr::{Cast, Expr, ExprSchemable, LogicalPlan};
use tidemark_common::{Error, SqlState};

/// The function that by which `bind` marks what the second term computes.
pub(crate) const MARK: &str = "as_is";

/// Holds the types of the second term against those of the first.
///
/// Errors: `42804` where values would be rounded, `42P19` for aggregates of the rows before.
pub(super) fn check(query: &RecursiveQuery) -> Result<()> {
    if aggregates_itself(query)? {
        let message = "aggregate functions are not allowed in a recursive query's recursive term";
        return Err(external(Error::user(SqlState("42P19"), message)));
    }
    let LogicalPlan::Projection(next) = query.recursive_term.as_ref() else {
        return Ok(());
    };
    let first = query.static_term.schema();
    for (at, (field, next_one)) in first.fields().iter().zip(&next.expr).enumerate() {
        let marked = match next_one.clone().unalias_nested().data {
            Expr::Cast(Cast { expr, .. }) => expr.unalias_nested().data,
            other => other,
        };
        let Expr::ScalarFunction(call) = marked else {
            continue;
        };
        let [value, ..] = call.args.as_slice() else {
            continue;
        };
        if call.func.name() != MARK {
            continue;
        }
        let (first, next) = (field.data_type(), type_of(value, next.input.schema())?);
        let kinds = [kind(first), kind(&next)];
        if kinds.iter().all(Option::is_some) && kinds[0] != kinds[1] {
            return Err(external(unlike(&query.name, at + 1, first, &next)));
        }
    }
    Ok(())
}

/// Whether the second term aggregates the rows that it began with.
fn aggregates_itself(query: &RecursiveQuery) -> Result<bool> {
    let reads = |plan: &LogicalPlan| {
        plan.exists(|node| {
            Ok(matches!(node, LogicalPlan::TableScan(scan)
                if scan.table_name.table() == query.name))
        })
    };
    query.recursive_term.exists(|node| match node {
        LogicalPlan::Aggregate(aggregate) => reads(&aggregate.input),
        _ => Ok(false),
    })
}

/// The type that a value will have: a date that an interval moves is a timestamp, which comes after
/// the names are bound.
fn type_of(value: &Expr, schema: &DFSchema) -> Result<DataType> {
    let is = value.get_type(schema)?;
    if is != DataType::Date32 {
        return Ok(is);
    }
    let moved = value.exists(|e| Ok(matches!(e.get_type(schema), Ok(DataType::Interval(_)))))?;
    Ok(match moved && matches!(value, Expr::BinaryExpr(_)) {
        true => DataType::Timestamp(TimeUnit::Microsecond, None),
        false => is,
    })
}

/// What values of a type become when they are cast to another kind is not what they were. Integers
/// of all sizes are of one: beyond its range a value is an error.
fn kind(data_type: &DataType) -> Option<&'static str> {
    Some(match data_type {
        t if t.is_integer() => "integer",
        t if t.is_floating() => "float",
        t if is_numeric_bytes(t) => "numeric",
        DataType::Decimal128(..) | DataType::Decimal256(..) => "numeric(p, s)",
        DataType::Date32 => "date",
        DataType::Timestamp(_, None) => "timestamp",
        DataType::Timestamp(_, Some(_)) => "timestamptz",
        DataType::Utf8 => "text",
        _ => return None,
    })
}

fn unlike(query: &str, column: usize, first: &DataType, next: &DataType) -> Error {
    let message = format!(
        "recursive query \"{query}\" column {column} has type {} in non-recursive term but type {} \
         overall",
        sql_type_name(first),
        sql_type_name(next),
    );
    Error::user(SqlState::DATATYPE_MISMATCH, message)
        .with_hint("Cast the output of the non-recursive term to the correct type.")
}
