//! DataFusion's aggregates, where what they evaluate is not PostgreSQL's:
//!
//! * `array_agg` over a window whose rows come sorted the other way is evaluated from the end, and
//!   collects in that order: it takes rows in the order of its window only;
//! * `bool_and`, `bool_or`, `bit_and`, `bit_or` have nothing for a frame that moves, and `bit_xor`
//!   is 0 where nothing is left in it: here values are counted, by truth or bit by bit;
//! * the extremes of groups of doubles begin at the largest finite one, and not at infinity.

use arrow_schema::{DataType, FieldRef};
use datafusion_common::arrow::array::{ArrayRef, AsArray};
use datafusion_common::arrow::compute::cast;
use datafusion_common::arrow::datatypes::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int64Type,
};
use datafusion_common::{Result, ScalarValue, not_impl_err};
use datafusion_expr::expr::{AggregateFunctionParams, WindowFunctionParams};
use datafusion_expr::function::{
    AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs,
};
use datafusion_expr::utils::AggregateOrderSensitivity;
use datafusion_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, SetMonotonicity,
    Signature,
};
use datafusion_functions_aggregate::array_agg::array_agg_udaf;
use datafusion_functions_aggregate_common::aggregate::groups_accumulator;
use groups_accumulator::prim_op::PrimitiveGroupsAccumulator;
use std::cmp::Ordering;
use std::sync::{Arc, LazyLock};

/// What is told of the values of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Of {
    Collected,
    Truths { all: bool },
    Bits(Bits),
    Extreme(Ordering),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Bits {
    And,
    Or,
    Xor,
}

/// `array_agg`, which other aggregates are written in terms of.
pub(crate) fn array_agg() -> Arc<AggregateUDF> {
    static ARRAY_AGG: LazyLock<Arc<AggregateUDF>> =
        LazyLock::new(|| evaluated(&array_agg_udaf()).unwrap_or_else(array_agg_udaf));
    ARRAY_AGG.clone()
}

/// What takes the place of a function of DataFusion's, if anything does.
pub(super) fn evaluated(function: &Arc<AggregateUDF>) -> Option<Arc<AggregateUDF>> {
    let of = match function.name() {
        "array_agg" => Of::Collected,
        "bool_and" => Of::Truths { all: true },
        "bool_or" => Of::Truths { all: false },
        "bit_and" => Of::Bits(Bits::And),
        "bit_or" => Of::Bits(Bits::Or),
        "bit_xor" => Of::Bits(Bits::Xor),
        "min" => Of::Extreme(Ordering::Less),
        "max" => Of::Extreme(Ordering::Greater),
        _ => return None,
    };
    let mut aliases = function.aliases().to_vec();
    if of == (Of::Truths { all: true }) {
        aliases.push("every".into());
    }
    Some(Arc::new(AggregateUDF::from(Evaluated {
        inner: function.clone(),
        aliases,
        of,
    })))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Evaluated {
    inner: Arc<AggregateUDF>,
    aliases: Vec<String>,
    of: Of,
}

impl AggregateUDFImpl for Evaluated {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn aliases(&self) -> &[String] {
        &self.aliases
    }
    fn signature(&self) -> &Signature {
        self.inner.signature()
    }
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }
    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        self.inner.return_field(fields)
    }
    fn is_nullable(&self) -> bool {
        self.inner.is_nullable()
    }
    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.inner.default_value(data_type)
    }
    fn schema_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.inner.schema_name(params)
    }
    fn window_function_schema_name(&self, params: &WindowFunctionParams) -> Result<String> {
        self.inner.inner().window_function_schema_name(params)
    }
    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        self.inner.simplify()
    }
    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }
    fn with_beneficial_ordering(
        self: Arc<Self>,
        beneficial: bool,
    ) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        let inner = self.inner.inner().clone();
        let inner = inner.with_beneficial_ordering(beneficial)?;
        Ok(inner.map(|inner| {
            Arc::new(Evaluated {
                inner: Arc::new(AggregateUDF::new_from_shared_impl(inner)),
                aliases: self.aliases.clone(),
                of: self.of,
            }) as Arc<dyn AggregateUDFImpl>
        }))
    }
    fn supports_null_handling_clause(&self) -> bool {
        self.inner.supports_null_handling_clause()
    }
    fn is_descending(&self) -> Option<bool> {
        self.inner.is_descending()
    }
    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(data_type)
    }
    fn reverse_expr(&self) -> ReversedUDAF {
        match self.of {
            Of::Collected => ReversedUDAF::NotSupported,
            _ => ReversedUDAF::Identical,
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.inner.accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(match self.of {
            Of::Truths { all } => Box::new(Truths {
                all,
                counts: [0; 2],
            }),
            Of::Bits(of) if !args.is_distinct => Box::new(BitCounts {
                of,
                rows: 0,
                ones: [0; 64],
                output: args.return_field.data_type().clone(),
            }),
            _ => return self.inner.inner().create_sliding_accumulator(args),
        })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let data_type = args.return_field.data_type();
        match (self.of, data_type) {
            (Of::Extreme(beyond), DataType::Float64) => {
                let from = match beyond {
                    Ordering::Less => f64::INFINITY,
                    _ => f64::NEG_INFINITY,
                };
                Ok(extremes::<Float64Type>(data_type, beyond, from))
            }
            (Of::Extreme(beyond), DataType::Float32) => {
                let from = match beyond {
                    Ordering::Less => f32::INFINITY,
                    _ => f32::NEG_INFINITY,
                };
                Ok(extremes::<Float32Type>(data_type, beyond, from))
            }
            _ => self.inner.create_groups_accumulator(args),
        }
    }
}

/// The extremes of groups of floats, NaN aside.
fn extremes<T>(
    data_type: &DataType,
    beyond: Ordering,
    from: T::Native,
) -> Box<dyn GroupsAccumulator>
where
    T: ArrowPrimitiveType + Send,
    T::Native: PartialOrd,
{
    let further = move |known: &mut T::Native, new: T::Native| {
        if new.partial_cmp(known) == Some(beyond) {
            *known = new;
        }
    };
    Box::new(PrimitiveGroupsAccumulator::<T, _>::new(data_type, further).with_starting_value(from))
}

/// How many values of a frame are false, and how many true.
#[derive(Debug)]
struct Truths {
    all: bool,
    counts: [i64; 2],
}

impl Truths {
    fn count(&mut self, values: &ArrayRef, weight: i64) {
        let truths = values.as_boolean().iter().flatten();
        truths.for_each(|truth| self.counts[usize::from(truth)] += weight);
    }
}

impl Accumulator for Truths {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count(&values[0], 1);
        Ok(())
    }
    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count(&values[0], -1);
        Ok(())
    }
    fn supports_retract_batch(&self) -> bool {
        true
    }
    fn evaluate(&mut self) -> Result<ScalarValue> {
        let [falses, trues] = self.counts;
        Ok(ScalarValue::Boolean(
            (falses + trues > 0).then(|| if self.all { falses == 0 } else { trues > 0 }),
        ))
    }
    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        not_impl_err!("a frame has no parts")
    }
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        not_impl_err!("a frame has no parts")
    }
    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// In how many values of a frame each bit is set.
#[derive(Debug)]
struct BitCounts {
    of: Bits,
    rows: i64,
    ones: [i64; 64],
    output: DataType,
}

impl BitCounts {
    fn count(&mut self, values: &ArrayRef, weight: i64) -> Result<()> {
        let values = cast(values, &DataType::Int64)?;
        for value in values.as_primitive::<Int64Type>().iter().flatten() {
            self.rows += weight;
            for (bit, ones) in self.ones.iter_mut().enumerate() {
                *ones += (value >> bit & 1) * weight;
            }
        }
        Ok(())
    }
}

impl Accumulator for BitCounts {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count(&values[0], 1)
    }
    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count(&values[0], -1)
    }
    fn supports_retract_batch(&self) -> bool {
        true
    }
    fn evaluate(&mut self) -> Result<ScalarValue> {
        let is_set = |ones: i64| match self.of {
            Bits::And => ones == self.rows,
            Bits::Or => ones > 0,
            Bits::Xor => ones % 2 == 1,
        };
        let bits = self.ones.iter().enumerate();
        let value = bits.fold(0, |value, (bit, ones)| {
            value | i64::from(is_set(*ones)) << bit
        });
        ScalarValue::Int64((self.rows > 0).then_some(value)).cast_to(&self.output)
    }
    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        not_impl_err!("a frame has no parts")
    }
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        not_impl_err!("a frame has no parts")
    }
    fn size(&self) -> usize {
        size_of_val(self)
    }
}
