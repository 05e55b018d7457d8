//! `variance`, `stddev` and their like of doubles, for ad-hoc queries: by the exact sums of
//! [`Moments`], as in views, so that the order of the rows plays no part, and what leaves a frame
//! is taken off again. With DISTINCT the values seen are kept.

use crate::error::external;
use arrow_schema::{DataType, Field, FieldRef};
use datafusion_common::arrow::array::{ArrayRef, AsArray};
use datafusion_common::arrow::datatypes::Float64Type;
use datafusion_common::{Result, ScalarValue, exec_datafusion_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use std::collections::BTreeSet;
use std::sync::Arc;
use tidemark_values::exact::{Moments, Spread};

/// The function of doubles that tells this.
pub(super) fn function(spread: Spread) -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(Variance {
        spread,
        signature: Signature::exact(vec![DataType::Float64], Volatility::Immutable),
    }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Variance {
    spread: Spread,
    signature: Signature,
}

impl AggregateUDFImpl for Variance {
    fn name(&self) -> &str {
        match self.spread {
            Spread::VarPop => "var_pop",
            Spread::VarSamp => "var_samp",
            Spread::StddevPop => "stddev_pop",
            Spread::StddevSamp => "stddev_samp",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Values {
            spread: self.spread,
            moments: Moments::default(),
            distinct: args.is_distinct.then(BTreeSet::new),
        }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if args.is_distinct {
            return Ok(vec![Arc::new(Field::new_list(
                format!("{}[distinct]", args.name),
                Field::new_list_field(DataType::Float64, true),
                true,
            ))]);
        }
        let name = format!("{}[moments]", args.name);
        Ok(vec![Arc::new(Field::new(name, DataType::Binary, true))])
    }
}

pub(super) fn overflow<T>() -> Result<T> {
    Err(external(tidemark_values::float::overflow()))
}

/// A number that sorts as the double does; zeros are one, and so are NaNs, above all others.
fn rank(value: f64) -> u64 {
    let bits = match value {
        v if v.is_nan() => f64::NAN.to_bits(),
        0.0 => 0,
        v => v.to_bits(),
    };
    if bits >> 63 == 1 {
        !bits
    } else {
        bits | 1 << 63
    }
}

fn of_rank(rank: u64) -> f64 {
    f64::from_bits(if rank >> 63 == 1 {
        rank & !(1 << 63)
    } else {
        !rank
    })
}

/// The values so far.
#[derive(Debug)]
struct Values {
    spread: Spread,
    moments: Moments,
    /// The ranks of the values seen, with DISTINCT.
    distinct: Option<BTreeSet<u64>>,
}

impl Accumulator for Values {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = values[0].as_primitive::<Float64Type>().iter().flatten();
        match &mut self.distinct {
            Some(seen) => seen.extend(values.map(rank)),
            None => values.for_each(|value| self.moments.add(value, 1)),
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        self.distinct.is_none()
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = values[0].as_primitive::<Float64Type>().iter().flatten();
        values.for_each(|value| self.moments.add(value, -1));
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        if self.distinct.is_some() {
            let lists = states[0].as_list::<i32>();
            return lists
                .iter()
                .flatten()
                .try_for_each(|list| self.update_batch(&[list]));
        }
        for state in states[0].as_binary::<i32>().iter().flatten() {
            let part = Moments::decode(state);
            let part = part.ok_or_else(|| exec_datafusion_err!("a partial variance is damaged"))?;
            self.moments.merge(&part);
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let double = |v| ScalarValue::Float64(Some(v));
        if let Some(seen) = &self.distinct {
            let values: Vec<_> = seen.iter().map(|r| double(of_rank(*r))).collect();
            return Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(
                &values,
                &DataType::Float64,
            ))]);
        }
        let mut state = Vec::new();
        self.moments.encode(&mut state);
        Ok(vec![ScalarValue::Binary(Some(state))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let distinct = self.distinct.as_ref().map(|seen| {
            let mut moments = Moments::default();
            seen.iter().for_each(|rank| moments.add(of_rank(*rank), 1));
            moments
        });
        let moments = distinct.as_ref().unwrap_or(&self.moments);
        let result = moments.result(self.spread).map_err(external)?;
        Ok(ScalarValue::Float64(result))
    }

    fn size(&self) -> usize {
        const ENTRY_BYTES: usize = 16;
        let kept = self.distinct.as_ref().map_or(0, BTreeSet::len);
        size_of_val(self) + self.moments.heap_bytes() + kept * ENTRY_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_sort_as_the_values_do() {
        let values = [f64::NEG_INFINITY, -1.5, 0.0, 1e-300, 2.0, f64::INFINITY];
        let ranks = values.map(rank);
        assert!(ranks.is_sorted());
        assert_eq!(ranks.map(of_rank), values);
        assert_eq!(rank(-0.0), rank(0.0));
        assert!(rank(-f64::NAN) > rank(f64::INFINITY));
    }
}
