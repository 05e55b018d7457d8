//! What a call keeps for each group: typed vectors under the groups' ids, updated in one pass per
//! batch.
//!
//! Every accumulator is linear (or, for extremes, order-free): its state is a function of the sum
//! of its input, so a retraction takes back exactly what its row had added, and transient negative
//! counts between two batches of an epoch do no harm. The lane's count beside it tells whether
//! there is a value at all.

use super::bits::Bits;
use super::firsts::Firsts;
use super::float_sum::ExactSums;
use super::intervals::Intervals;
use super::lane::Input;
use super::minmax;
use super::numeric_sum::{NumericSum, numerics};
use super::statistics;
use arrow::array::*;
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::*;
use hashbrown::HashMap;
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{AggregateCall, AggregateFunction};
use tidemark_state::chunked::Chunked;
use tidemark_values::exact::{DOUBLE, Format, SINGLE, quotient};
use tidemark_values::numeric::Numeric;

/// Digits of a numeric from which on 2^63 of them may be more than 128 bits hold.
const ADDED_DIGITS: u8 = 20;

/// State of one call over all groups.
pub(super) trait Accumulator: Send {
    /// Makes room for the groups below `capacity`.
    fn grow(&mut self, capacity: usize);
    /// Takes the selected rows of a batch; `values` is the argument column, without NULLs among
    /// them.
    fn update(&mut self, input: &Input, values: &ArrayRef) -> Result<()>;
    /// The call's result for these groups; `counts` are the lane's.
    fn output(&self, ids: &[u32], counts: &Chunked<i64>) -> Result<ArrayRef>;
    /// Forgets the group.
    fn reset(&mut self, id: u32);
    /// The type of the column that stores the state in the groups' table; none if the lane's count
    /// or a table of its own says it all.
    fn stored_type(&self) -> Option<DataType>;
    /// The state of these groups, of that type.
    fn save(&self, ids: &[u32]) -> ArrayRef;
    /// Takes stored states back.
    fn load(&mut self, ids: &[u32], stored: &ArrayRef);
    /// The part that is kept in a table of its own.
    fn multiset(&mut self) -> Option<&mut dyn Multiset> {
        None
    }
    /// Bytes of memory held.
    fn memory_bytes(&self) -> usize;
}

/// Values with counts per group, stored in a table of their own: group columns, value, count.
pub(super) trait Multiset {
    /// The values' type.
    fn value_type(&self) -> DataType;
    /// Entries that changed, of `entries_max` at most: groups, values and counts of those present,
    /// groups and values of those gone. Each is told of once; none at the end.
    fn take_changes(&mut self, entries_max: usize) -> Option<MultisetChanges>;
    /// How many values there are.
    fn len(&self) -> usize;
    /// Forgets the values of a group.
    fn forget(&mut self, id: u32);
    /// Takes stored entries back.
    fn load_entries(&mut self, ids: &[u32], values: &ArrayRef, counts: &Int64Array);
}

/// What changed in a [`Multiset`].
pub(super) struct MultisetChanges {
    pub ids: Vec<u32>,
    pub values: ArrayRef,
    pub counts: Vec<i64>,
    pub gone_ids: Vec<u32>,
    pub gone_values: ArrayRef,
}

/// The accumulator of `call`, whose argument has type `argument`. A retractable extreme keeps all
/// its values.
pub(super) fn accumulator(
    call: &AggregateCall,
    argument: Option<&DataType>,
    append_only: bool,
) -> Result<Box<dyn Accumulator>> {
    use DataType as D;
    let unsupported = |t: &DataType| {
        Error::unsupported(format!(
            "aggregate {:?} of type {t} with result type {}",
            call.function, call.output
        ))
    };
    let argument = match (call.function, argument) {
        (AggregateFunction::Count, _) => return Ok(Box::new(Count)),
        (_, Some(argument)) => argument,
        (_, None) => return Err(Error::internal("an aggregate without argument")),
    };
    let mean = call.function == AggregateFunction::Avg;
    Ok(match call.function {
        AggregateFunction::Count => Box::new(Count),
        AggregateFunction::Sum | AggregateFunction::Avg => match argument {
            D::LargeBinary | D::Decimal128(ADDED_DIGITS.., _) if call.output == D::LargeBinary => {
                Box::new(NumericSum::new(call.function))
            }
            D::Int8 | D::Int16 | D::Int32 if !mean && call.output == D::Int64 => {
                Box::new(NarrowSum::default())
            }
            D::Int8
            | D::Int16
            | D::Int32
            | D::Int64
            | D::UInt8
            | D::UInt16
            | D::UInt32
            | D::UInt64
            | D::Decimal128(_, _)
                if !mean && matches!(call.output, D::Int64 | D::Decimal128(_, _))
                    || matches!(call.output, D::Float64 | D::LargeBinary) =>
            {
                let scale = if let D::Decimal128(_, scale) = argument {
                    *scale
                } else {
                    0
                };
                Box::new(WideSum {
                    mean,
                    scale,
                    output: call.output.clone(),
                    sums: Chunked::new(),
                    carries: HashMap::new(),
                })
            }
            D::Float32 | D::Float64 if call.output.is_floating() => Box::new(FloatSum {
                mean,
                format: if call.output == D::Float32 {
                    SINGLE
                } else {
                    DOUBLE
                },
                output: call.output.clone(),
                sums: ExactSums::default(),
            }),
            D::Interval(IntervalUnit::MonthDayNano) if call.output == *argument => {
                Box::new(Intervals::new(mean))
            }
            other => return Err(unsupported(other)),
        },
        AggregateFunction::Min | AggregateFunction::Max => {
            let greatest = call.function == AggregateFunction::Max;
            minmax::extreme(argument, greatest, append_only).ok_or_else(|| unsupported(argument))?
        }
        AggregateFunction::BoolAnd | AggregateFunction::BoolOr if *argument == D::Boolean => {
            Box::new(Truth {
                all: call.function == AggregateFunction::BoolAnd,
                trues: Chunked::new(),
            })
        }
        AggregateFunction::BoolAnd | AggregateFunction::BoolOr => {
            return Err(unsupported(argument));
        }
        AggregateFunction::VarPop
        | AggregateFunction::VarSamp
        | AggregateFunction::StddevPop
        | AggregateFunction::StddevSamp => match argument {
            D::Int16 | D::Int32 | D::Int64 | D::Decimal128(_, _) | D::LargeBinary
                if call.output == D::LargeBinary =>
            {
                Box::new(NumericSum::new(call.function))
            }
            D::Float32 | D::Float64 if call.output == D::Float64 => {
                statistics::of_floats(call.function).ok_or_else(|| unsupported(argument))?
            }
            other => return Err(unsupported(other)),
        },
        AggregateFunction::BitAnd | AggregateFunction::BitOr | AggregateFunction::BitXor => {
            let bits = Bits::new(call.function, argument).filter(|_| call.output == *argument);
            Box::new(bits.ok_or_else(|| unsupported(argument))?)
        }
        AggregateFunction::First | AggregateFunction::Last => match argument {
            D::Struct(fields) if append_only => {
                let last = call.function == AggregateFunction::Last;
                Box::new(Firsts::new(last, fields, &call.order))
            }
            other => return Err(unsupported(other)),
        },
        _ => statistics::of_pairs(call.function).ok_or_else(|| unsupported(argument))?,
    })
}

fn out_of_range(what: &DataType) -> Error {
    let name = match what {
        DataType::Int64 => "bigint",
        DataType::Decimal128(_, _) => "numeric",
        _ => "number",
    };
    Error::user(
        SqlState::NUMERIC_OUT_OF_RANGE,
        format!("{name} out of range"),
    )
}

/// `count`: the lane's count.
struct Count;

impl Accumulator for Count {
    fn grow(&mut self, _: usize) {}
    fn update(&mut self, _: &Input, _: &ArrayRef) -> Result<()> {
        Ok(())
    }
    fn output(&self, ids: &[u32], counts: &Chunked<i64>) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from_iter_values(
            ids.iter().map(|id| counts.get(*id)),
        )))
    }
    fn reset(&mut self, _: u32) {}
    fn stored_type(&self) -> Option<DataType> {
        None
    }
    fn save(&self, ids: &[u32]) -> ArrayRef {
        new_null_array(&DataType::Null, ids.len())
    }
    fn load(&mut self, _: &[u32], _: &ArrayRef) {}
    fn memory_bytes(&self) -> usize {
        0
    }
}

/// `sum` of integers of up to 32 bits: 64 bits hold four billion of them.
#[derive(Default)]
struct NarrowSum {
    sums: Chunked<i64>,
}

impl Accumulator for NarrowSum {
    fn grow(&mut self, capacity: usize) {
        self.sums.grow(capacity);
    }

    fn update(&mut self, input: &Input, values: &ArrayRef) -> Result<()> {
        fn add<T: ArrowPrimitiveType<Native: Into<i64>>>(
            sums: &mut Chunked<i64>,
            input: &Input,
            values: &ArrayRef,
        ) {
            let values = values.as_primitive::<T>().values();
            input.each(|row, id, weight| {
                let sum = sums.get_mut(id);
                *sum = sum.wrapping_add(values[row].into().wrapping_mul(weight));
            });
        }
        match values.data_type() {
            DataType::Int8 => add::<Int8Type>(&mut self.sums, input, values),
            DataType::Int16 => add::<Int16Type>(&mut self.sums, input, values),
            _ => add::<Int32Type>(&mut self.sums, input, values),
        }
        Ok(())
    }

    fn output(&self, ids: &[u32], counts: &Chunked<i64>) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from_iter(ids.iter().map(|id| {
            (counts.get(*id) != 0).then(|| self.sums.get(*id))
        }))))
    }

    fn reset(&mut self, id: u32) {
        self.sums.set(id, 0);
    }
    fn stored_type(&self) -> Option<DataType> {
        Some(DataType::Int64)
    }
    fn save(&self, ids: &[u32]) -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(
            ids.iter().map(|id| self.sums.get(*id)),
        ))
    }
    fn load(&mut self, ids: &[u32], stored: &ArrayRef) {
        ids.iter()
            .zip(stored.as_primitive::<Int64Type>().values())
            .for_each(|(id, v)| self.sums.set(*id, *v));
    }
    fn memory_bytes(&self) -> usize {
        self.sums.memory_bytes()
    }
}

/// `sum` and `avg` of 64-bit integers and numerics, in 128 bits and a carry beyond, so that what
/// overflows and comes back is right.
struct WideSum {
    mean: bool,
    /// Of the argument.
    scale: i8,
    output: DataType,
    sums: Chunked<i128>,
    /// How often each sum has passed the end of its range, in multiples of 2^128.
    carries: HashMap<u32, i64>,
}

impl WideSum {
    #[inline(always)]
    fn add(&mut self, id: u32, amount: i128) {
        let sum = self.sums.get_mut(id);
        let (total, overflow) = sum.overflowing_add(amount);
        *sum = total;
        if overflow {
            self.carry(id, if amount > 0 { 1 } else { -1 });
        }
    }

    #[cold]
    fn carry(&mut self, id: u32, by: i64) {
        let carry = self.carries.entry(id).or_default();
        *carry += by;
        if *carry == 0 {
            self.carries.remove(&id);
        }
    }

    fn update_numerics(&mut self, input: &Input, values: &[i128]) -> Result<()> {
        let mut fits = true;
        input.each(|row, id, weight| match weight {
            1 => self.add(id, values[row]),
            -1 => self.add(id, -values[row]),
            _ => match values[row].checked_mul(i128::from(weight)) {
                Some(amount) => self.add(id, amount),
                None => fits = false,
            },
        });
        if fits {
            Ok(())
        } else {
            Err(out_of_range(&self.output))
        }
    }

    /// The sum of a group, unscaled if it is a numeric.
    fn exact(&self, id: u32) -> Result<i128> {
        if self.carries.contains_key(&id) {
            return Err(out_of_range(&self.output));
        }
        Ok(self.sums.get(id))
    }

    /// The sums as they are: loads that do not wait for each other.
    fn plain_sums(
        &self,
        ids: &[u32],
        counts: &Chunked<i64>,
        precision: u8,
        limit: u128,
    ) -> Result<ArrayRef> {
        let sums: Vec<i128> = ids.iter().map(|id| self.sums.get(*id)).collect();
        let present: BooleanBuffer = ids.iter().map(|id| counts.get(*id) != 0).collect();
        if sums.iter().any(|s| s.unsigned_abs() >= limit) {
            return Err(out_of_range(&self.output));
        }
        let sums = Decimal128Array::new(sums.into(), Some(NullBuffer::new(present)));
        Ok(Arc::new(
            sums.with_precision_and_scale(precision, self.scale)
                .map_err(|e| Error::internal(e.to_string()))?,
        ))
    }

    /// The result as a numeric.
    fn numeric(&self, id: u32, count: i64) -> Result<Numeric> {
        if self.carries.contains_key(&id) {
            return Err(out_of_range(&self.output));
        }
        let scale = u16::from(self.scale.unsigned_abs());
        let sum = Numeric::from_unscaled(self.sums.get(id), scale);
        if self.mean {
            sum.div(&Numeric::from(count))
        } else {
            Ok(sum)
        }
    }

    fn double(&self, id: u32, count: i64) -> f64 {
        let sum = self.sums.get(id);
        let magnitude = sum.unsigned_abs();
        let divisor = if self.mean { count.unsigned_abs() } else { 1 };
        let value = quotient(
            &[magnitude as u64, (magnitude >> 64) as u64],
            0,
            &[divisor],
            DOUBLE,
        ) / 10f64.powi(i32::from(self.scale));
        if (sum < 0) != (self.mean && count < 0) {
            -value
        } else {
            value
        }
    }
}

impl Accumulator for WideSum {
    fn grow(&mut self, capacity: usize) {
        self.sums.grow(capacity);
    }

    fn update(&mut self, input: &Input, values: &ArrayRef) -> Result<()> {
        fn add<T: ArrowPrimitiveType<Native: Into<i128>>>(
            sums: &mut WideSum,
            input: &Input,
            values: &ArrayRef,
        ) {
            let values = values.as_primitive::<T>().values();
            input.each(|row, id, weight| sums.add(id, values[row].into() * i128::from(weight)));
        }
        match values.data_type() {
            DataType::Int8 => add::<Int8Type>(self, input, values),
            DataType::Int16 => add::<Int16Type>(self, input, values),
            DataType::Int32 => add::<Int32Type>(self, input, values),
            DataType::Int64 => add::<Int64Type>(self, input, values),
            DataType::UInt8 => add::<UInt8Type>(self, input, values),
            DataType::UInt16 => add::<UInt16Type>(self, input, values),
            DataType::UInt32 => add::<UInt32Type>(self, input, values),
            DataType::UInt64 => add::<UInt64Type>(self, input, values),
            _ => self.update_numerics(input, values.as_primitive::<Decimal128Type>().values())?,
        }
        Ok(())
    }

    fn output(&self, ids: &[u32], counts: &Chunked<i64>) -> Result<ArrayRef> {
        let value = |id: &u32| {
            Some(counts.get(*id))
                .filter(|c| *c != 0)
                .map(|_| self.exact(*id))
                .transpose()
        };
        match &self.output {
            DataType::Float64 => Ok(Arc::new(Float64Array::from_iter(ids.iter().map(|id| {
                Some(counts.get(*id))
                    .filter(|c| *c != 0)
                    .map(|c| self.double(*id, c))
            })))),
            DataType::Int64 => {
                let narrow = |v: Option<i128>| {
                    v.map(i64::try_from)
                        .transpose()
                        .map_err(|_| out_of_range(&self.output))
                };
                let values = ids
                    .iter()
                    .map(|id| value(id).and_then(narrow))
                    .collect::<Result<Vec<Option<i64>>>>()?;
                Ok(Arc::new(Int64Array::from(values)))
            }
            DataType::LargeBinary => numerics(ids.iter().map(|id| {
                Some(counts.get(*id))
                    .filter(|c| *c != 0)
                    .map(|count| self.numeric(*id, count))
                    .transpose()
            })),
            output => {
                let DataType::Decimal128(precision, scale) = output else {
                    return Err(Error::internal(format!("a sum of type {output}")));
                };
                let limit = 10u128.pow(u32::from(*precision));
                if self.carries.is_empty() {
                    return self.plain_sums(ids, counts, *precision, limit);
                }
                let checked = |v: Option<i128>| {
                    if v.is_some_and(|v| v.unsigned_abs() >= limit) {
                        Err(out_of_range(output))
                    } else {
                        Ok(v)
                    }
                };
                let values = ids
                    .iter()
                    .map(|id| value(id).and_then(checked))
                    .collect::<Result<Vec<_>>>()?;
                Ok(Arc::new(
                    Decimal128Array::from(values)
                        .with_precision_and_scale(*precision, *scale)
                        .map_err(|e| Error::internal(e.to_string()))?,
                ))
            }
        }
    }

    fn reset(&mut self, id: u32) {
        self.sums.set(id, 0);
        self.carries.remove(&id);
    }
    fn stored_type(&self) -> Option<DataType> {
        Some(DataType::Decimal128(38, self.scale))
    }
    fn save(&self, ids: &[u32]) -> ArrayRef {
        // A carry has stopped the job before anything could be stored.
        let sums = Decimal128Array::from_iter_values(ids.iter().map(|id| self.sums.get(*id)));
        Arc::new(sums.with_data_type(DataType::Decimal128(38, self.scale)))
    }
    fn load(&mut self, ids: &[u32], stored: &ArrayRef) {
        ids.iter()
            .zip(stored.as_primitive::<Decimal128Type>().values())
            .for_each(|(id, v)| self.sums.set(*id, *v));
    }
    fn memory_bytes(&self) -> usize {
        self.sums.memory_bytes() + self.carries.capacity() * 16
    }
}

/// `sum` and `avg` of floats.
struct FloatSum {
    mean: bool,
    format: Format,
    output: DataType,
    sums: ExactSums,
}

impl Accumulator for FloatSum {
    fn grow(&mut self, capacity: usize) {
        self.sums.grow(capacity);
    }

    fn update(&mut self, input: &Input, values: &ArrayRef) -> Result<()> {
        if *values.data_type() == DataType::Float64 {
            let values = values.as_primitive::<Float64Type>().values();
            input.each(|row, id, weight| self.sums.add(id, values[row], weight));
        } else {
            let values = values.as_primitive::<Float32Type>().values();
            input.each(|row, id, weight| self.sums.add(id, f64::from(values[row]), weight));
        }
        Ok(())
    }

    fn output(&self, ids: &[u32], counts: &Chunked<i64>) -> Result<ArrayRef> {
        let value = |id: &u32| {
            let count = counts.get(*id);
            let divisor = if self.mean { count.unsigned_abs() } else { 1 };
            (count != 0).then(|| self.sums.value(*id, divisor, self.format))
        };
        Ok(if self.output == DataType::Float32 {
            Arc::new(Float32Array::from_iter(
                ids.iter().map(|id| value(id).map(|v| v as f32)),
            ))
        } else {
            Arc::new(Float64Array::from_iter(ids.iter().map(value)))
        })
    }

    fn reset(&mut self, id: u32) {
        self.sums.reset(id);
    }
    fn stored_type(&self) -> Option<DataType> {
        Some(DataType::Binary)
    }
    fn save(&self, ids: &[u32]) -> ArrayRef {
        let mut builder = BinaryBuilder::with_capacity(ids.len(), ids.len() * 24);
        let mut bytes = Vec::new();
        for id in ids {
            bytes.clear();
            self.sums.save(*id, &mut bytes);
            builder.append_value(&bytes);
        }
        Arc::new(builder.finish())
    }
    fn load(&mut self, ids: &[u32], stored: &ArrayRef) {
        let stored = stored.as_binary::<i32>();
        for (row, id) in ids.iter().enumerate() {
            self.sums
                .load(*id, stored.value(row))
                .expect("a sum in its stored form");
        }
    }
    fn memory_bytes(&self) -> usize {
        self.sums.memory_bytes()
    }
}

/// `bool_and` and `bool_or`: how many of the lane's values are true.
struct Truth {
    all: bool,
    trues: Chunked<i64>,
}

impl Accumulator for Truth {
    fn grow(&mut self, capacity: usize) {
        self.trues.grow(capacity);
    }
    fn update(&mut self, input: &Input, values: &ArrayRef) -> Result<()> {
        let values = values.as_boolean();
        input.each(|row, id, weight| {
            *self.trues.get_mut(id) += weight * i64::from(values.value(row))
        });
        Ok(())
    }
    fn output(&self, ids: &[u32], counts: &Chunked<i64>) -> Result<ArrayRef> {
        let value = |id: &u32| {
            let (count, trues) = (counts.get(*id), self.trues.get(*id));
            (count != 0).then(|| if self.all { trues == count } else { trues != 0 })
        };
        Ok(Arc::new(BooleanArray::from_iter(ids.iter().map(value))))
    }
    fn reset(&mut self, id: u32) {
        self.trues.set(id, 0);
    }
    fn stored_type(&self) -> Option<DataType> {
        Some(DataType::Int64)
    }
    fn save(&self, ids: &[u32]) -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(
            ids.iter().map(|id| self.trues.get(*id)),
        ))
    }
    fn load(&mut self, ids: &[u32], stored: &ArrayRef) {
        ids.iter()
            .zip(stored.as_primitive::<Int64Type>().values())
            .for_each(|(id, v)| self.trues.set(*id, *v));
    }
    fn memory_bytes(&self) -> usize {
        self.trues.memory_bytes()
    }
}
