//! Aggregates that collect the values of rows, in terms of `array_agg` and of functions over what
//! it collects:
//!
//! ```text
//! jsonb_agg(x)              to_jsonb(array_agg(x))
//! jsonb_object_agg(k, v)    jsonb_of_lists(array_agg(k::text), array_agg(to_jsonb(v)))
//! string_agg(x, ',')        joined_list(array_agg(x), ',')
//! string_agg(x, y)          joined_list(array_agg(x), array_agg(y))
//! array_agg(x)              array_of_arrays(array_agg(x)), where x is an array
//! array_agg(DISTINCT x)     distinct_list(array_agg(x ORDER BY x)), where equal values may differ
//! jsonb_agg(DISTINCT x)     distinct_jsonb(array_agg(x ORDER BY x)), likewise
//! ```
//!
//! The parts keep the order, the filter and the DISTINCT of the whole. DISTINCT sorts what it
//! leaves, as in PostgreSQL. Of values that are equal and still differ, such as 1.0 and 1.00, all
//! are collected, and the first of those that are equal is left of each in the end. In a document
//! of keys and values the last value of a key is what is left, with DISTINCT or without.

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
        let ordered = distinct(&mut call)?;
        if let ("array_agg" | "jsonb_agg", [t], true) =
            (name.as_str(), &types[..], may_differ(&call, &types))
        {
            return self.distinct_later(call, t, &name, schema);
        }
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

    /// DISTINCT of values that may be equal and differ: in the end, of what is sorted.
    fn distinct_later(
        &self,
        mut call: AggregateFunction,
        value: &DataType,
        name: &str,
        schema: &DFSchema,
    ) -> Result<Collected> {
        call.params.distinct = false;
        // Which of equal values is shown: the same in a view and ad hoc.
        if let Some(looks) = self.looks(&call.params.args[0], schema)? {
            call.params.order_by.push(Sort::new(looks, true, false));
        }
        if name == "array_agg" {
            if is_list(value) {
                let message = "array_agg(DISTINCT ..) of arrays is not supported";
                return Err(external(Error::unsupported(message)));
            }
            return Ok(Collected::Of("distinct_list", vec![call], Vec::new()));
        }
        call.func = array_agg();
        if is_list(value) {
            let argument = std::mem::take(&mut call.params.args[0]);
            call.params.args[0] = self.call("to_jsonb", vec![argument])?;
        }
        Ok(Collected::Of("distinct_jsonb", vec![call], Vec::new()))
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

    fn object(&self, mut call: AggregateFunction, key: &DataType) -> Result<Collected> {
        call.params.distinct = false;
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

/// Whether DISTINCT is of values some of which are equal and differ.
fn may_differ(call: &AggregateFunction, types: &[DataType]) -> bool {
    let keyed = |t: &DataType| {
        is_numeric_bytes(t) || *t == JSONB || is_list(t) || matches!(t, DataType::Interval(_))
    };
    call.params.distinct && types.iter().any(keyed)
}

/// The order of DISTINCT; tells whether it was given one.
fn distinct(call: &mut AggregateFunction) -> Result<bool> {
    if !call.params.distinct {
        return Ok(false);
    }
    let params = &mut call.params;
    let sorts_all = call.func.name() == "jsonb_object_agg";
    let given = params.order_by.len();
    if given == 0 || sorts_all {
        let own = params.args.iter().take(if sorts_all { 2 } else { 1 });
        for value in own.cloned().collect::<Vec<_>>() {
            if params.order_by.iter().all(|sort| sort.expr != value) {
                params.order_by.push(Sort::new(value, true, false));
            }
        }
    }
    if given == 0 {
        return Ok(true);
    }
    if params
        .order_by
        .iter()
        .all(|o| params.args.contains(&o.expr))
    {
        return Ok(params.order_by.len() > given);
    }
    Err(external(Error::user(
        SqlState("42P10"),
        "in an aggregate with DISTINCT, ORDER BY expressions must appear in argument list",
    )))
}
