//! Aggregates over pairs of doubles, for ad-hoc queries: `corr`, `covar_pop`, `covar_samp` and
//! `regr_..(y, x)`, by the exact sums of [`Pairs`], as in views, so that the order of the rows
//! plays no part, and what leaves a frame is taken off again.

use super::ordered_sets::doubles;
use crate::error::external;
use crate::types::is_numeric_bytes;
use arrow_schema::{DataType, Field, FieldRef};
use datafusion_common::arrow::array::{ArrayRef, AsArray};
use datafusion_common::arrow::datatypes::Float64Type;
use datafusion_common::{Result, ScalarValue, exec_datafusion_err, not_impl_err, plan_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use std::sync::Arc;
use tidemark_values::exact::{Pairs, Regression};

/// The functions.
pub(super) fn functions() -> Vec<Arc<AggregateUDF>> {
    let function = |(name, statistic)| {
        Arc::new(AggregateUDF::from(Regressing {
            name,
            statistic,
            signature: Signature::user_defined(Volatility::Immutable),
        }))
    };
    Regression::NAMED.map(function).into()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Regressing {
    name: &'static str,
    statistic: Regression,
    signature: Signature,
}

impl AggregateUDFImpl for Regressing {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let double = |t: &DataType| match t {
            t if is_numeric_bytes(t) => Some(t.clone()),
            DataType::Null => Some(DataType::Float64),
            t => t.is_numeric().then_some(DataType::Float64),
        };
        let doubles: Option<Vec<DataType>> = types.iter().map(double).collect();
        match doubles {
            Some(doubles) if doubles.len() == 2 => Ok(doubles),
            _ => plan_err!("function {} does not exist", self.name),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.statistic {
            Regression::Count => DataType::Int64,
            _ => DataType::Float64,
        })
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        match self.statistic {
            Regression::Count => Ok(ScalarValue::Int64(Some(0))),
            _ => ScalarValue::try_from(data_type),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return not_impl_err!("{}(DISTINCT ..) is not supported", self.name);
        }
        Ok(Box::new(Regressed {
            statistic: self.statistic,
            pairs: Pairs::default(),
        }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let name = format!("{}[pairs]", args.name);
        Ok(vec![Arc::new(Field::new(name, DataType::Binary, true))])
    }
}

/// The pairs so far.
#[derive(Debug)]
struct Regressed {
    statistic: Regression,
    pairs: Pairs,
}

impl Regressed {
    /// Adds each pair without NULL.
    fn change(&mut self, values: &[ArrayRef], weight: i64) -> Result<()> {
        let (y, x) = (doubles(&values[0])?, doubles(&values[1])?);
        let x = x.as_primitive::<Float64Type>();
        for (y, x) in y.as_primitive::<Float64Type>().iter().zip(x) {
            if let (Some(y), Some(x)) = (y, x) {
                self.pairs.add(self.statistic, y, x, weight);
            }
        }
        Ok(())
    }
}

impl Accumulator for Regressed {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.change(values, 1)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.change(values, -1)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for state in states[0].as_binary::<i32>().iter().flatten() {
            let part = Pairs::decode(state);
            let part = part.ok_or_else(|| exec_datafusion_err!("partial sums are damaged"))?;
            self.pairs.merge(&part);
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut state = Vec::new();
        self.pairs.encode(&mut state);
        Ok(vec![ScalarValue::Binary(Some(state))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.statistic == Regression::Count {
            return Ok(ScalarValue::Int64(Some(self.pairs.rows())));
        }
        let result = self.pairs.result(self.statistic).map_err(external)?;
        Ok(ScalarValue::Float64(result))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.pairs.heap_bytes()
    }
}
