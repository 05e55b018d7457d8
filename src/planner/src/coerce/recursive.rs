//! The terms of a recursive query have one type in each column, that of the first term. DataFusion
//! casts the second one to it, which would round numbers; PostgreSQL says `42804`.

use crate::bind::{MARK, external};
use crate::types::{is_numeric_bytes, sql_type_name};
use arrow_schema::DataType;
use datafusion_common::Result;
use datafusion_expr::logical_plan::RecursiveQuery;
use datafusion_expr::{Cast, Expr, ExprSchemable, LogicalPlan};
use tidemark_common::{Error, SqlState};

/// Holds the types of the second term against those of the first.
///
/// Errors: `42804` where values would be rounded.
pub(super) fn check(query: &RecursiveQuery) -> Result<()> {
    let LogicalPlan::Projection(next) = query.recursive_term.as_ref() else {
        return Ok(());
    };
    let first = query.static_term.schema();
    for (at, (field, next_one)) in first.fields().iter().zip(&next.expr).enumerate() {
        let Expr::Cast(Cast { expr, .. }) = next_one.clone().unalias_nested().data else {
            continue;
        };
        let marked = expr.clone().unalias_nested().data;
        if !matches!(&marked, Expr::ScalarFunction(call) if call.func.name() == MARK) {
            continue;
        }
        let (first, next) = (field.data_type(), marked.get_type(next.input.schema())?);
        let exact = is_numeric_bytes(&next) || next.is_decimal();
        if first.is_integer() && (exact || next.is_floating()) || first.is_decimal() && exact {
            return Err(external(unlike(&query.name, at + 1, first, &next)));
        }
    }
    Ok(())
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
