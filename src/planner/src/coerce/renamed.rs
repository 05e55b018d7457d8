//! Aggregates of other systems in terms of those that there are ([`crate::aggregates`] has their
//! names):
//!
//! ```text
//! count_if(c)                 count(*) FILTER (WHERE c)
//! approx_count_distinct(x)    count(DISTINCT x)
//! approx_percentile(x, p)     percentile_cont(p) WITHIN GROUP (ORDER BY x)
//! approx_median(x)            percentile_cont(0.5) WITHIN GROUP (ORDER BY x)
//! arg_min(x, k)               first_value(x ORDER BY k, x) FILTER (WHERE k IS NOT NULL)
//! arg_max(x, k)               first_value(x ORDER BY k DESC, x) FILTER (WHERE k IS NOT NULL)
//! any_value(x)                min(x); of what has no min its first value
//! ```

use super::calls::Calls;
use crate::aggregates::percentile_cont;
use crate::error::external;
use crate::types::UUID;
use arrow_schema::DataType;
use datafusion_common::tree_node::Transformed;
use datafusion_common::{DFSchema, Result};
use datafusion_expr::expr::{AggregateFunction, Sort};
use datafusion_expr::{Expr, ExprSchemable, lit};
use datafusion_functions_aggregate::bool_and_or::bool_and_udaf;
use datafusion_functions_aggregate::count::count_udaf;
use datafusion_functions_aggregate::first_last::first_value_udaf;
use datafusion_functions_aggregate::min_max::min_udaf;
use tidemark_common::Error;

impl Calls {
    /// What such a call stands for; others as they are.
    ///
    /// Errors: `0A000` with DISTINCT or an order, where those mean nothing.
    pub(super) fn renamed(
        &self,
        mut call: AggregateFunction,
        schema: &DFSchema,
    ) -> Result<Transformed<AggregateFunction>> {
        let name = call.func.name().to_string();
        let params = &mut call.params;
        match (name.as_str(), params.args.as_slice()) {
            ("count_if", [condition]) => {
                plain(params.distinct, &params.order_by, &name)?;
                let condition = condition.clone();
                also(&mut params.filter, condition);
                params.args = vec![lit(1i64)];
                call.func = count_udaf();
            }
            ("approx_count_distinct", [_]) => {
                params.distinct = true;
                call.func = count_udaf();
            }
            ("approx_median" | "approx_percentile", [value, part @ ..]) => {
                let part = part.first().cloned().unwrap_or_else(|| lit(0.5f64));
                // Of numbers the function knows the order itself.
                let is_interval = matches!(value.get_type(schema)?, DataType::Interval(_));
                let value = value.clone();
                if params.order_by.is_empty() && is_interval {
                    params.order_by = vec![Sort::new(value.clone(), true, false)];
                }
                if params.distinct {
                    plain(true, &[], &name)?;
                }
                params.args = vec![value, part];
                call.func = percentile_cont();
            }
            ("arg_min" | "arg_max", [value, key]) => {
                plain(params.distinct, &params.order_by, &name)?;
                let (value, key) = (value.clone(), key.clone());
                also(&mut params.filter, key.clone().is_not_null());
                params.order_by = vec![
                    Sort::new(key, name == "arg_min", false),
                    Sort::new(value.clone(), true, false),
                ];
                if let Some(looks) = self.looks(&value, schema)? {
                    params.order_by.push(Sort::new(looks, true, false));
                }
                params.args = vec![value];
                call.func = first_value_udaf();
            }
            ("any_value", [value]) => {
                plain(false, &params.order_by, &name)?;
                params.distinct = false;
                let value = value.clone();
                match value.get_type(schema)? {
                    DataType::Boolean => call.func = bool_and_udaf(),
                    t if t == UUID => {
                        params.order_by = vec![Sort::new(value, true, false)];
                        call.func = first_value_udaf();
                    }
                    DataType::Struct(_) | DataType::Map(..) => {
                        let key = self.sort_key(value)?;
                        also(&mut params.filter, key.is_not_null());
                        call.func = first_value_udaf();
                    }
                    _ => call.func = min_udaf(),
                }
            }
            _ => return Ok(Transformed::no(call)),
        }
        Ok(Transformed::yes(call))
    }

    /// What tells values apart that are equal and differ, as something that sorts; nothing for
    /// types without such values.
    pub(super) fn looks(&self, value: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
        let data_type = value.get_type(schema)?;
        Ok(match &data_type {
            DataType::Interval(_) => Some(self.call("interval_bytes", vec![value.clone()])?),
            DataType::List(_) | DataType::Struct(_) | DataType::Map(..) => {
                Some(self.call("array_bytes", vec![value.clone()])?)
            }
            t if super::keyed::is_keyed(t) => Some(self.cast(value.clone(), &DataType::Utf8)?),
            _ => None,
        })
    }
}

/// A condition more.
fn also(filter: &mut Option<Box<Expr>>, condition: Expr) {
    let both = match filter.take() {
        Some(filter) => filter.and(condition),
        None => condition,
    };
    *filter = Some(Box::new(both));
}

fn plain(distinct: bool, order: &[Sort], name: &str) -> Result<()> {
    let what = match (distinct, order) {
        (false, []) => return Ok(()),
        (true, _) => "DISTINCT",
        _ => "ORDER BY",
    };
    let message = format!("{name}() with {what} is not supported");
    Err(external(Error::unsupported(message)))
}
