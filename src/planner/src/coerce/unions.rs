//! The types of UNION's columns, by PostgreSQL's rules: what has a type decides, quoted constants
//! follow. DataFusion's coercion starts from the types at binding, when integer constants still
//! were `bigint`, knows nothing of numerics, and makes nanoseconds of a date and a timestamp.

use super::literals::with_types;
use crate::signatures::{Arg, common_of, unmatched};
use datafusion_common::Result;
use datafusion_expr::{Expr, LogicalPlan, Union};
use datafusion_optimizer::analyzer::type_coercion::coerce_union_schema;
use std::sync::Arc;

/// The union with its columns brought to the types that its inputs have by now.
///
/// Errors: `42804` for columns whose types do not go together.
pub(super) fn typed(union: Union) -> Result<LogicalPlan> {
    let Union { mut inputs, schema } = union;
    let width = schema.fields().len();
    if inputs.iter().any(|i| i.schema().fields().len() != width) {
        return Ok(LogicalPlan::Union(Union { inputs, schema }));
    }
    let common = (0..width)
        .map(|column| {
            let args: Vec<Arg> = inputs.iter().map(|i| argument(i, column)).collect();
            match common_of(&args) {
                Some(common) => Ok(Some(common)),
                None => Err(unmatched("UNION", &args)),
            }
        })
        .collect::<Result<Vec<_>>>()?;
    inputs = inputs
        .iter()
        .map(|input| {
            let fields = input.schema().fields().iter();
            let differ = fields
                .zip(&common)
                .any(|(f, c)| c.as_ref() != Some(f.data_type()));
            if differ {
                with_types(input, &common).map(Arc::new)
            } else {
                Ok(input.clone())
            }
        })
        .collect::<Result<_>>()?;
    let schema = coerce_union_schema(&inputs).map_or(schema, Arc::new);
    Ok(LogicalPlan::Union(Union { inputs, schema }))
}

/// A column of an input: untyped, if it is a quoted constant.
fn argument(input: &LogicalPlan, column: usize) -> Arg {
    let constant = match input {
        LogicalPlan::Projection(projection) => projection.expr.get(column),
        _ => None,
    };
    let data_type = input.schema().field(column).data_type();
    match constant.map(|e| e.clone().unalias()) {
        Some(Expr::Literal(value, _)) => Arg::new(data_type, Some(&value)),
        _ => Arg::new(data_type, None),
    }
}
