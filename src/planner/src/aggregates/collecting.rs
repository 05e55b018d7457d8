//! Aggregates that DataFusion does not know: `jsonb_agg` and `jsonb_object_agg`; and `string_agg`,
//! whose own takes no byte strings, and no delimiter that varies. They are bound by these names,
//! and written in terms of `array_agg` before anything is evaluated (`coerce::collect`).

use crate::types::JSONB;
use arrow_schema::{DataType, FieldRef};
use datafusion_common::{Result, not_impl_err, plan_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use std::sync::Arc;

/// All of them; they come after DataFusion's of the same name.
pub(super) fn all() -> Vec<Arc<AggregateUDF>> {
    let collecting = |name, alias: &[&str], arguments| {
        Arc::new(AggregateUDF::from(Collecting {
            name,
            aliases: alias.iter().map(ToString::to_string).collect(),
            arguments,
            signature: Signature::user_defined(Volatility::Immutable),
        }))
    };
    vec![
        collecting("jsonb_agg", &["json_agg"], 1),
        collecting("jsonb_object_agg", &["json_object_agg"], 2),
        collecting("string_agg", &[], 2),
    ]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Collecting {
    name: &'static str,
    aliases: Vec<String>,
    arguments: usize,
    signature: Signature,
}

impl AggregateUDFImpl for Collecting {
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
        match types {
            _ if types.len() != self.arguments => {
                plan_err!(
                    "Function '{}' takes {} arguments",
                    self.name,
                    self.arguments
                )
            }
            [DataType::Binary, ..] if self.name == "string_agg" => Ok(DataType::Binary),
            _ if self.name == "string_agg" => Ok(DataType::Utf8),
            _ => Ok(JSONB),
        }
    }
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let text =
            |t: &DataType| matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Null);
        let known = |t: &DataType| text(t) || *t == DataType::Binary;
        match types {
            _ if self.name != "string_agg" && types.len() == self.arguments => Ok(types.to_vec()),
            [DataType::Binary, d] if known(d) => Ok(vec![DataType::Binary; 2]),
            [value, d] if text(value) && known(d) => Ok(vec![DataType::Utf8; 2]),
            _ => plan_err!(
                "Function '{}' does not accept these argument types",
                self.name
            ),
        }
    }
    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        not_impl_err!("{} is not supported here", self.name)
    }
    fn state_fields(&self, _: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        not_impl_err!("{} is not supported here", self.name)
    }
}
