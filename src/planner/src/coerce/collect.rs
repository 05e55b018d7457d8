//! Aggregates that collect the values of rows, in terms of `array_agg` and of functions over what
//! it collects:
//!
//! ```text
//! jsonb_agg(x)              to_jsonb(array_agg(x))
//! jsonb_object_agg(k, v)    jsonb_of_lists(array_agg(k::text), array_agg(to_jsonb(v)))
//! string_agg(x, ',')        joined_list(array_agg(x), ',')
//! string_agg(x, y)          joined_list(array_agg(x), array_agg(y))
//! array_agg(x)              array_of_arrays(array_agg(x)), where x is an array
//! ```
//!
//! The parts keep the order, the filter and the DISTINCT of the whole. DISTINCT sorts what it
//! leaves, as in PostgreSQL; of values that are equal and still differ it would leave too many, and
//! is refused.

use super::arrays::{is_list, is_untyped};
use super::calls::Calls;
use crate::aggregates::array_agg;
use crate::error::external;
use crate::types::{BPCHAR, JSONB, is_numeric_bytes};
use arrow_schema::DataType;
use datafusion_common::tree_node::Transformed;
use datafusion_common::{DFSchema, Result};
use datafusion_expr::expr::{AggregateFunction, Sort};
use datafusion_expr::{Expr, ExprSchemable};
use tidemark_common::{Error, SqlState};

/// What an aggregate becomes.
pub(super) enum Collected {
    /// It stays what it is, but for an order that DISTINCT may have given it.
    Whole(Transformed<AggregateFunction>),
    /// A function of aggregates, and of constants behind them.
    Of(&'static str, Vec<AggregateFunction>, Vec<Expr>),
}

impl Calls {
    pub(super) fn collected(
        &self,
        mut call: AggregateFunction,
        schema: &DFSchema,
    ) -> Result<Collected> {
        let name = call.func.name().to_string();
        if !matches!(
            name.as_str(),
            "array_agg" | "jsonb_agg" | "jsonb_object_agg" | "string_agg"
        ) {
            return Ok(Collected::Whole(Transformed::no(call)));
        }
        let types = call
            .params
            .args
            .iter()
            .map(|a| a.get_type(schema))
            .collect::<Result<Vec<_>>>()?;
        let ordered = distinct(&mut call, &types)?;
        Ok(match (name.as_str(), types.as_slice()) {
            ("array_agg", [list]) if is_list(list) => {
                Collected::Of("array_of_arrays", vec![call], Vec::new())
            }
            ("jsonb_agg", [t]) => {
                if is_untyped(&call.params.args[0], t) {
                    return Err(external(Error::user(
                        SqlState::DATATYPE_MISMATCH,
                        "could not determine polymorphic type because input has type unknown",
                    )));
                }
                call.func = array_agg();
                Collected::Of("to_jsonb", vec![call], Vec::new())
            }
            ("jsonb_object_agg", [key, _]) => self.object(call, key)?,
            ("string_agg", [value, delimiter]) => self.joined(call, value, delimiter)?,
            _ => Collected::Whole(Transformed::new_transformed(call, ordered)),
        })
    }

    fn joined(
        &self,
        call: AggregateFunction,
        value: &DataType,
        delimiter: &DataType,
    ) -> Result<Collected> {
        let to = match value {
            DataType::Binary => DataType::Binary,
            _ => DataType::Utf8,
        };
        let (mut values, mut between) = (part(&call, 0), part(&call, 1));
        for (part, from) in [(&mut values, value), (&mut between, delimiter)] {
            if *from != to {
                let argument = std::mem::take(&mut part.params.args[0]);
                let cast = self.cast(argument.clone(), &to)?;
                // What DISTINCT is ordered by are the values as they are joined.
                let order = part.params.order_by.iter_mut();
                for sort in order.filter(|s| part.params.distinct && s.expr == argument) {
                    sort.expr = cast.clone();
                }
                part.params.args[0] = cast;
            }
        }
        if matches!(call.params.args[1], Expr::Literal(..)) {
            let delimiter = between.params.args.remove(0);
            return Ok(Collected::Of("joined_list", vec![values], vec![delimiter]));
        }
        if call.params.distinct {
            let message = "string_agg(DISTINCT ..) with a delimiter that varies is not supported";
            return Err(external(Error::unsupported(message)));
        }
        Ok(Collected::Of(
            "joined_list",
            vec![values, between],
            Vec::new(),
        ))
    }

    fn object(&self, call: AggregateFunction, key: &DataType) -> Result<Collected> {
        if call.params.distinct {
            let message = "jsonb_object_agg(DISTINCT ..) is not supported";
            return Err(external(Error::unsupported(message)));
        }
        if is_list(key) || *key == JSONB || matches!(key, DataType::Struct(_) | DataType::Map(..)) {
            return Err(external(Error::user(
                SqlState::INVALID_PARAMETER,
                "key value must be scalar, not array, composite, or json",
            )));
        }
        let (mut keys, mut values) = (part(&call, 0), part(&call, 1));
        if *key == BPCHAR {
            // As a value has it, with its blanks.
            let argument = std::mem::take(&mut keys.params.args[0]);
            let value = self.call("to_jsonb", vec![argument])?;
            keys.params.args[0] = self.call("jsonb_extract_path_text", vec![value])?;
        } else if *key != DataType::Utf8 {
            let argument = std::mem::take(&mut keys.params.args[0]);
            keys.params.args[0] = self.cast(argument, &DataType::Utf8)?;
        }
        let argument = std::mem::take(&mut values.params.args[0]);
        values.params.args[0] = self.call("to_jsonb", vec![argument])?;
        Ok(Collected::Of(
            "jsonb_of_lists",
            vec![keys, values],
            Vec::new(),
        ))
    }
}

/// `array_agg` of one of the arguments.
fn part(call: &AggregateFunction, argument: usize) -> AggregateFunction {
    let mut params = call.params.clone();
    params.args = vec![params.args.swap_remove(argument)];
    AggregateFunction {
        func: array_agg(),
        params,
    }
}

/// The order of DISTINCT; tells whether it was given one.
fn distinct(call: &mut AggregateFunction, types: &[DataType]) -> Result<bool> {
    if !call.params.distinct {
        return Ok(false);
    }
    let keyed = |t: &DataType| {
        is_numeric_bytes(t) || *t == JSONB || is_list(t) || matches!(t, DataType::Interval(_))
    };
    if types.iter().any(keyed) {
        let message = format!(
            "{}(DISTINCT ..) of numerics, jsonb, intervals or arrays is not supported",
            call.func.name()
        );
        return Err(external(Error::unsupported(message)));
    }
    let params = &mut call.params;
    if params.order_by.is_empty() {
        let first = params.args.first().cloned();
        params
            .order_by
            .extend(first.map(|value| Sort::new(value, true, false)));
        return Ok(true);
    }
    if params
        .order_by
        .iter()
        .all(|o| params.args.contains(&o.expr))
    {
        return Ok(false);
    }
    Err(external(Error::user(
        SqlState("42P10"),
        "in an aggregate with DISTINCT, ORDER BY expressions must appear in argument list",
    )))
}
