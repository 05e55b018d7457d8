//! Aggregates with PostgreSQL's result types: `sum(bigint)` and `avg` of integers are numeric. They
//! are the planner's, so that an ad-hoc query and a view have one type and one answer; sums and
//! averages of doubles are the stream operators' exact ones, free of order and rounded once.

use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_datafusion_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};
use std::collections::HashSet;
use std::sync::Arc;
use tidemark_operator::aggregate::ExactSum;
use tidemark_values::float;

/// The aggregates that take the place of DataFusion's.
pub fn all() -> Vec<Arc<AggregateUDF>> {
    let doubles = |name, mean| {
        Arc::new(AggregateUDF::from(Doubles {
            name,
            mean,
            signature: Signature::exact(vec![DataType::Float64], Volatility::Immutable),
        }))
    };
    tidemark_planner::aggregates(doubles("sum", false), doubles("avg", true))
}

/// `sum` or `avg` of doubles.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Doubles {
    name: &'static str,
    mean: bool,
    signature: Signature,
}

impl AggregateUDFImpl for Doubles {
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }
    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(DoubleSum {
            mean: self.mean,
            count: 0,
            sum: ExactSum::new(),
            distinct: args.is_distinct.then(HashSet::new),
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
        Ok(vec![
            Arc::new(Field::new(
                format!("{}[count]", args.name),
                DataType::Int64,
                true,
            )),
            Arc::new(Field::new(
                format!("{}[sum]", args.name),
                DataType::Binary,
                true,
            )),
        ])
    }
}

/// Count and exact sum; with DISTINCT the values seen, as bits (-0 is 0).
struct DoubleSum {
    mean: bool,
    count: i64,
    sum: ExactSum,
    distinct: Option<HashSet<u64>>,
}

impl std::fmt::Debug for DoubleSum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sum of {} doubles", self.count)
    }
}

impl DoubleSum {
    fn add(&mut self, value: f64, weight: i64) {
        if let Some(seen) = &mut self.distinct {
            seen.insert(if value == 0.0 { 0 } else { value.to_bits() });
            return;
        }
        self.count += weight;
        self.sum.add(value, weight);
    }

    fn add_all(&mut self, values: &ArrayRef, weight: i64) {
        values
            .as_primitive::<Float64Type>()
            .iter()
            .flatten()
            .for_each(|v| self.add(v, weight));
    }
}

impl Accumulator for DoubleSum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add_all(&values[0], 1);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        self.distinct.is_none()
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add_all(&values[0], -1);
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        if self.distinct.is_some() {
            states[0]
                .as_list::<i32>()
                .iter()
                .flatten()
                .for_each(|list| self.add_all(&list, 1));
            return Ok(());
        }
        let sums = states[1].as_binary::<i32>();
        for (count, sum) in states[0]
            .as_primitive::<Int64Type>()
            .iter()
            .zip(sums.iter())
        {
            self.count += count.unwrap_or(0);
            if let Some(sum) = sum {
                self.sum
                    .merge(sum)
                    .ok_or_else(|| exec_datafusion_err!("a partial sum is damaged"))?;
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        if let Some(seen) = &self.distinct {
            let values: Vec<ScalarValue> = seen
                .iter()
                .map(|bits| ScalarValue::Float64(Some(f64::from_bits(*bits))))
                .collect();
            return Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(
                &values,
                &DataType::Float64,
            ))]);
        }
        Ok(vec![
            ScalarValue::Int64(Some(self.count)),
            ScalarValue::Binary(Some(self.sum.to_bytes())),
        ])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut distinct = ExactSum::new();
        let (count, sum) = match &self.distinct {
            Some(seen) => {
                seen.iter()
                    .for_each(|bits| distinct.add(f64::from_bits(*bits), 1));
                (seen.len() as i64, &distinct)
            }
            None => (self.count, &self.sum),
        };
        let divisor = if self.mean { count.unsigned_abs() } else { 1 };
        let value = (count > 0).then(|| sum.value(divisor));
        if value.is_some_and(f64::is_infinite) && !sum.has_infinite() {
            return Err(DataFusionError::External(Box::new(float::overflow())));
        }
        Ok(ScalarValue::Float64(value))
    }

    fn size(&self) -> usize {
        // An exact sum keeps sixteen slots of a word and an anchor.
        size_of_val(self) + 16 * 18 + self.distinct.as_ref().map_or(0, |seen| seen.capacity() * 9)
    }
}
