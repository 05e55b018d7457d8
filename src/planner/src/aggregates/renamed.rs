//! Aggregates that other systems have, and that are others here: they are bound by these names, and
//! written in terms of what there is before anything is evaluated (`coerce::renamed`). Those that
//! approximate elsewhere are exact.

use super::ordered_sets::continuous_type;
use crate::types::is_numeric_bytes;
use arrow_schema::{DataType, FieldRef};
use datafusion_common::{Result, not_impl_err, plan_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use std::sync::Arc;

/// All of them.
pub(super) fn all() -> Vec<Arc<AggregateUDF>> {
    let renamed = |(name, aliases): (&'static str, &[&str])| {
        Arc::new(AggregateUDF::from(Renamed {
            name,
            aliases: aliases.iter().map(ToString::to_string).collect(),
            signature: Signature::user_defined(Volatility::Immutable),
        }))
    };
    let names: [(&'static str, &[&str]); 7] = [
        ("any_value", &[]),
        ("approx_count_distinct", &["approx_distinct"]),
        ("approx_median", &["median"]),
        ("approx_percentile", &["approx_percentile_cont"]),
        ("arg_max", &["max_by"]),
        ("arg_min", &["min_by"]),
        ("count_if", &[]),
    ];
    names.into_iter().map(renamed).collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Renamed {
    name: &'static str,
    aliases: Vec<String>,
    signature: Signature,
}

impl AggregateUDFImpl for Renamed {
    fn name(&self) -> &str {
        self.name
    }
    fn aliases(&self) -> &[String] {
        &self.aliases
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let Some(value) = types.first() else {
            return plan_err!("function {} does not exist", self.name);
        };
        Ok(match self.name {
            "approx_count_distinct" | "count_if" => DataType::Int64,
            "approx_median" | "approx_percentile" => continuous_type(value),
            _ => value.clone(),
        })
    }
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let is_number = |t: &DataType| t.is_numeric() || is_numeric_bytes(t);
        let has_middle = |t: &DataType| is_number(t) || matches!(t, DataType::Interval(_));
        let takes = match (self.name, types) {
            ("any_value" | "approx_count_distinct", [_]) => true,
            ("count_if", [condition]) => *condition == DataType::Boolean,
            ("arg_min" | "arg_max", [_, _]) => true,
            ("approx_median", [value]) => has_middle(value),
            ("approx_percentile", [value, part]) => has_middle(value) && is_number(part),
            // A third argument says how far off the answer may be.
            ("approx_percentile", [value, part, error]) => {
                has_middle(value) && is_number(part) && is_number(error)
            }
            _ => false,
        };
        match takes {
            true => Ok(types.to_vec()),
            false => plan_err!("function {} does not exist", self.name),
        }
    }
    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        not_impl_err!("{} is not supported here", self.name)
    }
    fn state_fields(&self, _: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        not_impl_err!("{} is not supported here", self.name)
    }
    fn supports_within_group_clause(&self) -> bool {
        self.name == "approx_percentile"
    }
}
