//! Aggregates over values in order, for ad-hoc queries: `mode()`, `percentile_disc(p)` and
//! `percentile_cont(p) WITHIN GROUP (ORDER BY x)`.
//!
//! Of N values that are not NULL, in the order that is asked for, from 0:
//!
//! * `mode` is the first of those that are there most often;
//! * `percentile_disc` is value `ceil(p * N) - 1`, the first one for p = 0;
//! * `percentile_cont` is what lies at `p * (N - 1)`, on the line between its neighbours. It is a
//!   double, or an interval of intervals.
//!
//! Of an array of percentiles the result is an array. Values that are equal and look different are
//! in the order of their looks ([`looks`]). State: all values, and the percentile.

use super::sums::{arrow_interval, interval, looks as interval_looks};
use crate::error::external;
use crate::types::{BPCHAR, JSONB, is_numeric_bytes};
use arrow_schema::{DataType, Field, FieldRef};
use datafusion_common::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Decimal128Array, Float64Array, ListArray, RecordBatch,
    StringArray, new_empty_array,
};
use datafusion_common::arrow::buffer::OffsetBuffer;
use datafusion_common::arrow::compute::{self, SortColumn, SortOptions};
use datafusion_common::arrow::datatypes::{
    Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType,
};
use datafusion_common::{Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::utils::AggregateOrderSensitivity;
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use std::sync::{Arc, LazyLock};
use tidemark_common::{Error, SqlState};
use tidemark_values::float::towards;
use tidemark_values::jsonb;
use tidemark_values::moment::interval_key;
use tidemark_values::numeric::{self, Numeric};

/// What is told of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Mode,
    Discrete,
    Continuous,
}

/// The functions.
pub(super) fn functions() -> Vec<Arc<AggregateUDF>> {
    vec![
        function("mode", Kind::Mode),
        function("percentile_disc", Kind::Discrete),
        percentile_cont(),
    ]
}

/// `percentile_cont`, which other aggregates are written in terms of.
pub(crate) fn percentile_cont() -> Arc<AggregateUDF> {
    static PERCENTILE_CONT: LazyLock<Arc<AggregateUDF>> =
        LazyLock::new(|| function("percentile_cont", Kind::Continuous));
    PERCENTILE_CONT.clone()
}

fn function(name: &'static str, kind: Kind) -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(OrderedSet {
        name,
        kind,
        signature: Signature::user_defined(Volatility::Immutable),
    }))
}

/// The type of `percentile_cont` of values of this type.
pub(super) fn continuous_type(value: &DataType) -> DataType {
    element_type(Kind::Continuous, value)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OrderedSet {
    name: &'static str,
    kind: Kind,
    signature: Signature,
}

/// What a percentile of values of this type is.
fn element_type(kind: Kind, value: &DataType) -> DataType {
    match (kind, value) {
        (Kind::Continuous, DataType::Interval(_)) => value.clone(),
        (Kind::Continuous, _) => DataType::Float64,
        (_, DataType::Null) => DataType::Utf8,
        _ => value.clone(),
    }
}

fn list_of(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(element, true)))
}

impl AggregateUDFImpl for OrderedSet {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let undefined = || plan_err!("function {} does not exist", self.name);
        match (self.kind, types) {
            (Kind::Mode, [value]) if !value.is_nested() => Ok(vec![value.clone()]),
            (Kind::Discrete | Kind::Continuous, [value, percentile]) if !value.is_nested() => {
                let number = value.is_numeric()
                    || is_numeric_bytes(value)
                    || matches!(value, DataType::Interval(_) | DataType::Null);
                if self.kind == Kind::Continuous && !number {
                    return undefined();
                }
                let percentile = match percentile {
                    DataType::List(item) if is_numeric_bytes(item.data_type()) => {
                        list_of(item.data_type().clone())
                    }
                    DataType::List(_) => list_of(DataType::Float64),
                    t if is_numeric_bytes(t) => t.clone(),
                    _ => DataType::Float64,
                };
                Ok(vec![value.clone(), percentile])
            }
            _ => undefined(),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let Some(value) = types.first() else {
            return plan_err!("{} needs WITHIN GROUP (ORDER BY ..)", self.name);
        };
        let element = element_type(self.kind, value);
        Ok(match types.get(1) {
            Some(DataType::List(_)) => list_of(element),
            _ => element,
        })
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let value = args.expr_fields[0].data_type().clone();
        let descending = args.order_bys.first().is_some_and(|o| o.options.descending);
        let constant = match args.exprs.get(1) {
            Some(expr) => {
                let nothing = RecordBatch::new_empty(Arc::new(args.schema.clone()));
                match expr.evaluate(&nothing)? {
                    datafusion_expr::ColumnarValue::Scalar(percentile) => Some(percentile),
                    datafusion_expr::ColumnarValue::Array(_) => None,
                }
            }
            None => None,
        };
        Ok(Box::new(Values {
            kind: self.kind,
            descending,
            element: element_type(self.kind, &value),
            output: args.return_field.data_type().clone(),
            value,
            parts: Vec::new(),
            percentile: constant,
        }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let value = args.input_fields[0].data_type().clone();
        let percentile = args.input_fields.get(1);
        let percentile = percentile.map_or(DataType::Float64, |f| f.data_type().clone());
        Ok(vec![
            Arc::new(Field::new(
                format!("{}[values]", args.name),
                list_of(value),
                true,
            )),
            Arc::new(Field::new(
                format!("{}[percentile]", args.name),
                percentile,
                true,
            )),
        ])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn supports_within_group_clause(&self) -> bool {
        true
    }
}

/// The values of one group.
#[derive(Debug)]
struct Values {
    kind: Kind,
    descending: bool,
    /// The type of the values, of one result and of the whole result.
    value: DataType,
    element: DataType,
    output: DataType,
    parts: Vec<ArrayRef>,
    percentile: Option<ScalarValue>,
}

impl Values {
    fn add(&mut self, values: &ArrayRef) -> Result<()> {
        let values = if values.null_count() > 0 {
            compute::filter(values, &compute::is_not_null(values)?)?
        } else {
            values.clone()
        };
        if !values.is_empty() {
            self.parts.push(values);
        }
        Ok(())
    }

    /// All values in order, with the keys that they are ordered by.
    fn sorted(&self) -> Result<(ArrayRef, ArrayRef)> {
        let parts: Vec<&dyn Array> = self.parts.iter().map(AsRef::as_ref).collect();
        let mut values = if parts.is_empty() {
            new_empty_array(&self.value)
        } else {
            compute::concat(&parts)?
        };
        if self.element == DataType::Float64 {
            values = doubles(&values)?;
        }
        let keys = keys(&values)?;
        let column = |values: ArrayRef, descending| SortColumn {
            values,
            options: Some(SortOptions {
                descending,
                nulls_first: false,
            }),
        };
        let mut columns = vec![column(keys.clone(), self.descending)];
        columns.extend(looks(&values)?.map(|looks| column(looks, false)));
        let order = compute::lexsort_to_indices(&columns, None)?;
        Ok((
            compute::take(&values, &order, None)?,
            compute::take(&keys, &order, None)?,
        ))
    }

    /// The percentiles that are asked for; `None` stands for NULL.
    fn percentiles(&self) -> Result<Option<Vec<Option<f64>>>> {
        let percentiles: Vec<Option<f64>> = match &self.percentile {
            Some(ScalarValue::Float64(p)) => vec![*p],
            Some(ScalarValue::LargeBinary(Some(form))) => {
                let value = Numeric::decode(form).and_then(|n| n.to_f64());
                vec![Some(value.map_err(external)?)]
            }
            Some(ScalarValue::List(list)) if list.is_valid(0) => {
                let values = doubles(&list.value(0))?;
                values.as_primitive::<Float64Type>().iter().collect()
            }
            _ => return Ok(None),
        };
        for p in percentiles.iter().flatten() {
            if !(0.0..=1.0).contains(p) {
                return Err(external(Error::user(
                    SqlState("22003"),
                    format!("percentile value {p} is not between 0 and 1"),
                )));
            }
        }
        Ok(Some(percentiles))
    }

    fn percentile(&self, values: &ArrayRef, p: Option<f64>) -> Result<ScalarValue> {
        let rows = values.len();
        let Some(p) = p.filter(|_| rows > 0) else {
            return ScalarValue::try_from(&self.element);
        };
        if self.kind == Kind::Discrete {
            let place = (p * rows as f64).ceil() as usize;
            return ScalarValue::try_from_array(values, place.max(1).min(rows) - 1);
        }
        let place = p * (rows - 1) as f64;
        let (low, part) = (place.floor(), place - place.floor());
        let (low, high) = (low as usize, place.ceil() as usize);
        match &self.element {
            DataType::Float64 => {
                let values = values.as_primitive::<Float64Type>();
                let (low, high) = (values.value(low), values.value(high));
                Ok(ScalarValue::Float64(Some(towards(low, high, part))))
            }
            _ => {
                let values = values.as_primitive::<IntervalMonthDayNanoType>();
                let between = on_line(values.value(low), values.value(high), part);
                Ok(ScalarValue::IntervalMonthDayNano(Some(between?)))
            }
        }
    }
}

/// The value between two intervals.
fn on_line(
    low: IntervalMonthDayNano,
    high: IntervalMonthDayNano,
    part: f64,
) -> Result<IntervalMonthDayNano> {
    let value = interval(low).towards(interval(high), part);
    arrow_interval(value.map_err(external)?)
}

/// Numbers as doubles.
pub(super) fn doubles(values: &ArrayRef) -> Result<ArrayRef> {
    if !is_numeric_bytes(values.data_type()) {
        return Ok(compute::cast(values, &DataType::Float64)?);
    }
    let double = |form| {
        let value = Numeric::decode(form).and_then(|n| n.to_f64());
        value.map_err(external)
    };
    let forms = values.as_binary::<i64>();
    let doubles: Result<Float64Array> = forms.iter().map(|f| f.map(double).transpose()).collect();
    Ok(Arc::new(doubles?))
}

/// What the values are equal and sorted by.
fn keys(values: &ArrayRef) -> Result<ArrayRef> {
    Ok(match values.data_type() {
        t if is_numeric_bytes(t) => {
            let forms = values.as_binary::<i64>();
            let keys: BinaryArray = forms.iter().map(|f| f.map(numeric::key_of)).collect();
            Arc::new(keys)
        }
        t if *t == JSONB => {
            let forms = values.as_binary_view();
            let keys: BinaryArray = forms.iter().map(|f| f.map(jsonb::key_of)).collect();
            Arc::new(keys)
        }
        DataType::Interval(_) => {
            let values = values.as_primitive::<IntervalMonthDayNanoType>();
            let key = |v| interval_key(interval(v));
            let keys: Decimal128Array = values.iter().map(|v| v.map(key)).collect();
            Arc::new(keys)
        }
        DataType::Float64 => {
            let values = values.as_primitive::<Float64Type>();
            Arc::new(values.unary::<_, Float64Type>(|v| v + 0.0))
        }
        t if *t == BPCHAR => {
            let texts = values.as_string::<i64>().iter();
            let keys: BinaryArray = texts
                .map(|t| t.map(|t| t.trim_end_matches(' ').as_bytes()))
                .collect();
            Arc::new(keys)
        }
        _ => values.clone(),
    })
}

/// What tells values of equal keys apart, as views tell them apart: numerics and jsonb their texts,
/// intervals their parts; nothing where equal values are the same.
fn looks(values: &ArrayRef) -> Result<Option<ArrayRef>> {
    Ok(Some(match values.data_type() {
        t if is_numeric_bytes(t) => {
            let text = |form| Numeric::decode(form).map(|n| n.to_string());
            let forms = values.as_binary::<i64>().iter();
            let texts = forms.map(|f| f.map(text).transpose().map_err(external));
            Arc::new(texts.collect::<Result<StringArray>>()?)
        }
        t if *t == JSONB => {
            let text = |form| {
                let mut text = String::new();
                jsonb::Value::new(form).print(&mut text).map(|()| text)
            };
            let forms = values.as_binary_view().iter();
            let texts = forms.map(|f| f.map(text).transpose().map_err(external));
            Arc::new(texts.collect::<Result<StringArray>>()?)
        }
        DataType::Interval(_) => {
            let values = values.as_primitive::<IntervalMonthDayNanoType>();
            let parts: BinaryArray = values.iter().map(|v| v.map(interval_looks)).collect();
            Arc::new(parts)
        }
        _ => return Ok(None),
    }))
}

/// The first of the values that are there most often.
fn mode(values: &ArrayRef, keys: &ArrayRef) -> Result<ScalarValue> {
    let runs = compute::partition(std::slice::from_ref(keys))?.ranges();
    let mut best: Option<std::ops::Range<usize>> = None;
    for run in runs {
        if best.as_ref().is_none_or(|b| run.len() > b.len()) {
            best = Some(run);
        }
    }
    match best {
        Some(run) => ScalarValue::try_from_array(values, run.start),
        None => exec_err!("no values"),
    }
}

impl Accumulator for Values {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if self.percentile.is_none()
            && let Some(percentiles) = values.get(1).filter(|p| !p.is_empty())
        {
            self.percentile = Some(ScalarValue::try_from_array(percentiles, 0)?);
        }
        self.add(&values[0])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let lists = states[0].as_list::<i32>();
        for row in 0..lists.len() {
            self.add(&lists.value(row))?;
            if self.percentile.as_ref().is_none_or(ScalarValue::is_null)
                && let Some(percentiles) = states.get(1)
            {
                self.percentile = Some(ScalarValue::try_from_array(percentiles, row)?);
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let parts: Vec<&dyn Array> = self.parts.iter().map(AsRef::as_ref).collect();
        let values = if parts.is_empty() {
            new_empty_array(&self.value)
        } else {
            compute::concat(&parts)?
        };
        let list = ListArray::new(
            Arc::new(Field::new_list_field(self.value.clone(), true)),
            OffsetBuffer::from_lengths([values.len()]),
            values,
            None,
        );
        let percentile = self.percentile.clone();
        Ok(vec![
            ScalarValue::List(Arc::new(list)),
            percentile.unwrap_or(ScalarValue::Float64(None)),
        ])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.kind == Kind::Mode {
            let (values, keys) = self.sorted()?;
            return if values.is_empty() {
                ScalarValue::try_from(&self.output)
            } else {
                mode(&values, &keys)
            };
        }
        let Some(percentiles) = self.percentiles()? else {
            return ScalarValue::try_from(&self.output);
        };
        let (values, _) = self.sorted()?;
        if values.is_empty() {
            return ScalarValue::try_from(&self.output);
        }
        let results = percentiles
            .into_iter()
            .map(|p| self.percentile(&values, p))
            .collect::<Result<Vec<_>>>()?;
        match (&self.output, results.as_slice()) {
            (DataType::List(_), results) => Ok(ScalarValue::List(ScalarValue::new_list_nullable(
                results,
                &self.element,
            ))),
            (_, [result]) => Ok(result.clone()),
            _ => exec_err!("one percentile expected"),
        }
    }

    fn size(&self) -> usize {
        let values: usize = self.parts.iter().map(|p| p.get_array_memory_size()).sum();
        size_of_val(self) + values
    }
}
