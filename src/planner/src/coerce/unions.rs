//! The types of UNION's columns. Where inputs differ, DataFusion's coercion finds a type that holds
//! both; but it starts from the types at binding, when integer constants still were `bigint`, it
//! knows nothing of numerics, and makes nanoseconds of a date and a timestamp.
//!
//! The inputs are left to DataFusion's coercion, apart from numerics and dates beside timestamps;
//! the union's schema tells already now what it will come to, so that subqueries which
//! refer to its columns from inside see the right types.

use super::literals::with_types;
use super::numerics::common_type;
use arrow_schema::{DataType, TimeUnit};
use datafusion_common::Result;
use datafusion_expr::{LogicalPlan, Union};
use datafusion_optimizer::analyzer::type_coercion::coerce_union_schema;
use std::sync::Arc;

/// The union with the types that its inputs have by now. What cannot be united is left as it is,
/// for type coercion to say so.
pub(super) fn typed(union: Union) -> Result<LogicalPlan> {
    let Union { mut inputs, schema } = union;
    let width = schema.fields().len();
    if inputs.iter().any(|i| i.schema().fields().len() != width) {
        return Ok(LogicalPlan::Union(Union { inputs, schema }));
    }
    let common: Vec<Option<DataType>> = (0..width)
        .map(|column| number(&inputs, column).or_else(|| timestamp(&inputs, column)))
        .collect();
    if common.iter().any(Option::is_some) {
        inputs = inputs
            .iter()
            .map(|input| with_types(input, &common).map(Arc::new))
            .collect::<Result<_>>()?;
    }
    let schema = coerce_union_schema(&inputs).map_or(schema, Arc::new);
    Ok(LogicalPlan::Union(Union { inputs, schema }))
}

fn types(inputs: &[Arc<LogicalPlan>], column: usize) -> impl Iterator<Item = &DataType> {
    inputs
        .iter()
        .map(move |i| i.schema().field(column).data_type())
}

/// The type of a column's numbers, where some are numerics.
fn number(inputs: &[Arc<LogicalPlan>], column: usize) -> Option<DataType> {
    common_type(&types(inputs, column).collect::<Vec<_>>())
}

/// The timestamp that the dates of a column become, if it has both.
fn timestamp(inputs: &[Arc<LogicalPlan>], column: usize) -> Option<DataType> {
    let zone = types(inputs, column).find_map(|t| {
        if let DataType::Timestamp(_, zone) = t {
            Some(zone.clone())
        } else {
            None
        }
    })?;
    types(inputs, column)
        .any(|t| *t == DataType::Date32)
        .then(|| DataType::Timestamp(TimeUnit::Microsecond, zone))
}
