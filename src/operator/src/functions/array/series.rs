//! Lists that functions of rows unnest: `generate_series`, `generate_subscripts`, and the numbers
//! of WITH ORDINALITY. The planner writes `generate_series(..)` as `unnest(series_list(..))`.

use super::super::bounded::check_bytes;
use super::super::cast_array;
use super::super::definition::*;
use super::super::moment::zone_of;
use super::{Ints, Lists, Operand, element_of, is_numeric, list_like, list_of};
use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::*;
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;
use tidemark_common::SqlState;
use tidemark_values::moment::{self, Interval};
use tidemark_values::numeric::Numeric;

/// Bytes of one step of a series.
const STEP_BYTES: u64 = 8;

/// Steps after which a series is held against the limit again.
const STEPS_UNCHECKED: usize = 1024;

pub(super) fn definitions() -> Vec<Definition> {
    vec![
        Definition {
            name: "series_list",
            aliases: &[],
            takes: of_series,
            returns: |types| list_of(types[0].clone()),
            evaluate: series,
        },
        Definition {
            name: "subscripts_list",
            aliases: &[],
            takes: |types| match types {
                [list, n] if is_int(n) => {
                    Some(vec![list_like(list, &element_of(list)?), DataType::Int64])
                }
                [list, n, DataType::Boolean | DataType::Null] if is_int(n) => Some(vec![
                    list_like(list, &element_of(list)?),
                    DataType::Int64,
                    DataType::Boolean,
                ]),
                _ => None,
            },
            returns: |_| list_of(DataType::Int32),
            evaluate: subscripts,
        },
        Definition {
            name: "ordinals_list",
            aliases: &[],
            takes: |types| {
                let lists = types.iter().all(|t| matches!(t, DataType::List(_)));
                lists.then(|| types.to_vec())
            },
            returns: |_| list_of(DataType::Int64),
            evaluate: ordinals,
        },
    ]
}

fn interval() -> DataType {
    DataType::Interval(IntervalUnit::MonthDayNano)
}

/// Start, stop, step, and the zone whose days moments count; quoted constants take the type of the
/// others.
pub(super) fn of_series(types: &[DataType]) -> Option<Vec<DataType>> {
    let (bounds, step) = match types {
        [_, _] => (types, None),
        [_, _, step] => (&types[..2], Some(step)),
        [DataType::Timestamp(_, Some(_)), _, _, _] => {
            let mut known = of_series(&types[..3])?;
            known.push(DataType::Utf8);
            return Some(known);
        }
        _ => return None,
    };
    let is_moment = |t: &DataType| matches!(t, DataType::Date32 | DataType::Timestamp(..));
    if let Some(moment) = bounds.iter().find(|t| is_moment(t)) {
        if !bounds.iter().all(|t| is_moment(t) || is_text(t)) {
            return None;
        }
        if !matches!(step?, DataType::Interval(_)) && !is_text(step?) {
            return None;
        }
        // Dates become moments of the preferred type, which has a zone.
        let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let plain = DataType::Timestamp(TimeUnit::Microsecond, None);
        let is_date = |t: &DataType| *t == DataType::Date32 || is_text(t);
        let has_zone = bounds
            .iter()
            .any(|t| matches!(t, DataType::Timestamp(_, Some(_))));
        let dates = *moment == DataType::Date32 && bounds.iter().all(is_date);
        let bound = if has_zone || dates { zoned } else { plain };
        return Some(vec![bound.clone(), bound, interval()]);
    }
    let known = |t: &DataType| is_int(t) || is_numeric(t) || is_text(t);
    if !types.iter().all(known) || types.iter().all(is_text) {
        return None;
    }
    let one = if types.iter().any(is_numeric) {
        DataType::LargeBinary
    } else if types.contains(&DataType::Int64) {
        DataType::Int64
    } else {
        DataType::Int32
    };
    Some(vec![one; types.len()])
}

fn series(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    match args.arg_fields[0].data_type() {
        DataType::Int32 => integers::<Int32Type>(args),
        DataType::Int64 => integers::<Int64Type>(args),
        t if is_numeric(t) => numerics(args),
        DataType::Timestamp(..) => moments(args),
        other => exec_err!("there is no series of {other}"),
    }
}

fn zero_step() -> datafusion_common::DataFusionError {
    failure(SqlState::INVALID_PARAMETER, "step size cannot equal zero")
}

/// The lists' bounds among their values, one after the other.
struct Bounds {
    lengths: Vec<usize>,
    valid: NullBufferBuilder,
    total: usize,
}

impl Bounds {
    fn new(rows: usize) -> Bounds {
        Bounds {
            lengths: Vec::with_capacity(rows),
            valid: NullBufferBuilder::new(rows),
            total: 0,
        }
    }

    fn null(&mut self) {
        self.lengths.push(0);
        self.valid.append_null();
    }

    /// A row's list has ended; `total` values are there by now.
    fn end(&mut self, total: usize) {
        self.lengths.push(total - self.total);
        self.valid.append_non_null();
        self.total = total;
    }

    fn finish(mut self, args: &ScalarFunctionArgs, values: ArrayRef) -> Result<ColumnarValue> {
        let DataType::List(field) = args.return_field.data_type() else {
            return exec_err!("the result is no list");
        };
        let offsets = OffsetBuffer::from_lengths(self.lengths);
        let nulls = self.valid.finish();
        let list = ListArray::try_new(field.clone(), offsets, values, nulls)?;
        result(args, Arc::new(list))
    }
}

/// `54000` for a series without end.
fn check_steps(steps: usize) -> Result<()> {
    check_bytes(steps as u64 * STEP_BYTES)
}

fn integers<T>(args: &ScalarFunctionArgs) -> Result<ColumnarValue>
where
    T: ArrowPrimitiveType,
    T::Native: TryFrom<i64>,
{
    let (starts, stops) = (Ints::of(args, 0)?, Ints::of(args, 1)?);
    let steps = match args.args.len() {
        3.. => Some(Ints::of(args, 2)?),
        _ => None,
    };
    let rows = rows(args);
    let mut bounds = Bounds::new(rows);
    let mut values: Vec<T::Native> = Vec::new();
    for row in 0..rows {
        let step = steps.as_ref().map_or(Some(1), |s| s.get(row));
        let (Some(start), Some(stop), Some(step)) = (starts.get(row), stops.get(row), step) else {
            bounds.null();
            continue;
        };
        if step == 0 {
            return Err(zero_step());
        }
        let mut next = Some(start);
        while let Some(at) = next.filter(|at| if step > 0 { *at <= stop } else { *at >= stop }) {
            if values.len() % STEPS_UNCHECKED == 0 {
                check_steps(values.len())?;
            }
            // Between two values of the type there are only values of the type.
            values.extend(T::Native::try_from(at).ok());
            next = at.checked_add(step);
        }
        bounds.end(values.len());
    }
    let values = PrimitiveArray::<T>::from_iter_values(values);
    bounds.finish(args, Arc::new(values))
}

fn numerics(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let operands = (0..args.args.len())
        .map(|i| {
            let Operand { array, one } = Operand::of(args, i)?;
            let array = cast_array(&array, &DataType::LargeBinary)?;
            Ok(Operand { array, one })
        })
        .collect::<Result<Vec<_>>>()?;
    let get = |operand: &Operand, row: usize| {
        let forms = operand.array.as_binary::<i64>();
        let at = operand.at(row);
        let form = forms.is_valid(at).then(|| forms.value(at));
        form.map(Numeric::decode).transpose().map_err(external)
    };
    let usable = |value: Numeric, what: &str| {
        let state = SqlState::INVALID_PARAMETER;
        if value.is_nan() {
            Err(failure(state, format!("{what} cannot be NaN")))
        } else if value.is_infinite() {
            Err(failure(state, format!("{what} cannot be infinity")))
        } else {
            Ok(value)
        }
    };
    let rows = rows(args);
    let mut bounds = Bounds::new(rows);
    let mut values = LargeBinaryBuilder::new();
    let (mut form, mut count, mut bytes) = (Vec::new(), 0, 0);
    for row in 0..rows {
        let step = match operands.get(2) {
            Some(steps) => get(steps, row)?,
            None => Some(Numeric::from(1)),
        };
        let (start, stop) = (get(&operands[0], row)?, get(&operands[1], row)?);
        let (Some(start), Some(stop), Some(step)) = (start, stop, step) else {
            bounds.null();
            continue;
        };
        let start = usable(start, "start value")?;
        let stop = usable(stop, "stop value")?;
        let step = usable(step, "step size")?;
        if step.is_zero() {
            return Err(zero_step());
        }
        let up = step.signum() > 0;
        let mut at = start;
        while if up { at <= stop } else { at >= stop } {
            form.clear();
            at.encode(&mut form);
            bytes += form.len() as u64;
            check_bytes(bytes)?;
            values.append_value(&form);
            count += 1;
            at = at.add(&step).map_err(external)?;
        }
        bounds.end(count);
    }
    bounds.finish(args, Arc::new(values.finish()))
}

fn moments(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let zoned = matches!(
        args.arg_fields[0].data_type(),
        DataType::Timestamp(_, Some(_))
    );
    let (starts, stops) = (Operand::of(args, 0)?, Operand::of(args, 1)?);
    let (steps, zone) = (Operand::of(args, 2)?, zone_of(args, 3)?);
    let get = |operand: &Operand, row: usize| {
        let moments = operand.array.as_primitive::<TimestampMicrosecondType>();
        let at = operand.at(row);
        moments.is_valid(at).then(|| moments.value(at))
    };
    let step_at = |row: usize| {
        let spans = steps.array.as_primitive::<IntervalMonthDayNanoType>();
        let at = steps.at(row);
        let span = spans.is_valid(at).then(|| spans.value(at))?;
        Some(Interval::new(
            span.months,
            span.days,
            span.nanoseconds / 1000,
        ))
    };
    let rows = rows(args);
    let mut bounds = Bounds::new(rows);
    let mut values = Vec::new();
    for row in 0..rows {
        let (Some(start), Some(stop), Some(step)) =
            (get(&starts, row), get(&stops, row), step_at(row))
        else {
            bounds.null();
            continue;
        };
        let up = match moment::interval_key(step) {
            0 => return Err(zero_step()),
            key => key > 0,
        };
        let mut at = start;
        while if up { at <= stop } else { at >= stop } {
            if values.len() % STEPS_UNCHECKED == 0 {
                check_steps(values.len())?;
            }
            values.push(at);
            at = if zoned {
                moment::timestamptz_plus(at, step, &zone)
            } else {
                moment::timestamp_plus(at, step)
            }
            .map_err(external)?;
        }
        bounds.end(values.len());
    }
    let values = TimestampMicrosecondArray::from(values);
    let element = args.arg_fields[0].data_type().clone();
    bounds.finish(args, Arc::new(values.with_data_type(element)))
}

/// `generate_subscripts(array, dimension [, reverse])`.
fn subscripts(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let (lists, dimensions) = (Lists::of(args, 0)?, Ints::of(args, 1)?);
    let reverses = match args.args.len() {
        3.. => Some(Operand::of(args, 2)?),
        _ => None,
    };
    let rows = rows(args);
    let mut bounds = Bounds::new(rows);
    let mut values: Vec<i32> = Vec::new();
    for row in 0..rows {
        let reverse = match &reverses {
            None => Some(false),
            Some(r) => (!r.is_null(row)).then(|| r.array.as_boolean().value(r.at(row))),
        };
        let (Some(range), Some(dimension), Some(reverse)) =
            (lists.get(row), dimensions.get(row), reverse)
        else {
            bounds.null();
            continue;
        };
        let length = if dimension == 1 {
            range.len() as i32
        } else {
            0
        };
        check_steps(values.len() + range.len())?;
        if reverse {
            values.extend((1..=length).rev());
        } else {
            values.extend(1..=length);
        }
        bounds.end(values.len());
    }
    bounds.finish(args, Arc::new(Int32Array::from(values)))
}

/// 1, 2, 3 for the rows that lists come to when they are unnested together.
fn ordinals(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let lists = (0..args.args.len())
        .map(|i| Lists::of(args, i))
        .collect::<Result<Vec<_>>>()?;
    let rows = rows(args);
    let mut bounds = Bounds::new(rows);
    let mut values: Vec<i64> = Vec::new();
    for row in 0..rows {
        let lengths = lists.iter().filter_map(|l| l.get(row)).map(|r| r.len());
        let length = lengths.max().unwrap_or(0);
        check_steps(values.len() + length)?;
        values.extend(1..=length as i64);
        bounds.end(values.len());
    }
    bounds.finish(args, Arc::new(Int64Array::from(values)))
}
