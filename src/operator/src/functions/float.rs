//! Functions of `double precision`, on [`tidemark_values::float`]. Of numerics they are computed
//! elsewhere (`aware`); integers become floats.

use super::arguments::{Takes, Values, taken};
use super::definition::*;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int32Array, Int32Builder, Int64Array,
    PrimitiveArray,
};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float32Type, Float64Type, Int32Type};
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};
use std::sync::Arc;
use tidemark_values::float;

use Takes::{Float8, Int4};

/// The functions of this file.
pub(super) fn definitions() -> Vec<Definition> {
    let mut all: Vec<Definition> = ONE.iter().map(|(n, e)| of_floats(n, 1, *e)).collect();
    all.extend(TWO.iter().map(|(n, e)| of_floats(n, 2, *e)));
    for definition in &mut all {
        definition.aliases = match definition.name {
            "ceil" => &["ceiling"],
            "power" => &["pow"],
            _ => &[],
        };
    }
    let extreme = |name, evaluate| Definition {
        name,
        aliases: &[],
        takes: |t| matches!(t, [f, DataType::Int64] if f.is_floating()).then(|| t.to_vec()),
        returns: |t| t[0].clone(),
        evaluate,
    };
    all.push(Definition {
        name: "is_nan",
        aliases: &[],
        takes: |t| matches!(t, [f] if f.is_floating()).then(|| t.to_vec()),
        returns: |_| DataType::Boolean,
        evaluate: |a| {
            let values = column(a, 0)?;
            let nan: BooleanArray = match values.as_primitive_opt::<Float32Type>() {
                Some(values) => values.iter().map(|v| v.map(f32::is_nan)).collect(),
                None => {
                    let values = values.as_primitive::<Float64Type>();
                    values.iter().map(|v| v.map(f64::is_nan)).collect()
                }
            };
            result(a, Arc::new(nan))
        },
    });
    // What arithmetic makes of infinities has a sign, and with it would be another value.
    all.push(Definition {
        name: "one_nan",
        aliases: &[],
        takes: |t| matches!(t, [f] if f.is_floating()).then(|| t.to_vec()),
        returns: |t| t[0].clone(),
        evaluate: |a| {
            let values = column(a, 0)?;
            let same: ArrayRef = match values.as_primitive_opt::<Float32Type>() {
                Some(values) => {
                    let same = |v: f32| if v.is_nan() { f32::NAN } else { v };
                    Arc::new(values.unary::<_, Float32Type>(same))
                }
                None => {
                    let same = |v: f64| if v.is_nan() { f64::NAN } else { v };
                    let values = values.as_primitive::<Float64Type>();
                    Arc::new(values.unary::<_, Float64Type>(same))
                }
            };
            result(a, same)
        },
    });
    all.push(extreme("float_max", |a| with_nan(a, |_, nans| nans > 0)));
    all.push(extreme("float_min", |a| {
        with_nan(a, |number, nans| !number && nans > 0)
    }));
    all
}

/// The extreme of numbers beside the count of those values that are none: NaN where it is the
/// extreme of all.
fn with_nan(args: &ScalarFunctionArgs, is_nan: fn(bool, i64) -> bool) -> Result<ColumnarValue> {
    fn of<T: ArrowPrimitiveType>(
        numbers: &PrimitiveArray<T>,
        nans: &Int64Array,
        nan: T::Native,
        is_nan: fn(bool, i64) -> bool,
    ) -> ArrayRef {
        let rows = numbers.iter().zip(nans);
        let extremes = rows.map(|(number, nans)| {
            let other = is_nan(number.is_some(), nans.unwrap_or(0));
            if other { Some(nan) } else { number }
        });
        Arc::new(extremes.collect::<PrimitiveArray<T>>())
    }
    let (numbers, nans) = (column(args, 0)?, column(args, 1)?);
    let nans = nans.as_primitive();
    let extremes = match numbers.as_primitive_opt::<Float32Type>() {
        Some(numbers) => of(numbers, nans, f32::NAN, is_nan),
        None => of(
            numbers.as_primitive::<Float64Type>(),
            nans,
            f64::NAN,
            is_nan,
        ),
    };
    result(args, extremes)
}

type Kernel = fn(&ScalarFunctionArgs) -> Result<ColumnarValue>;

fn of_floats(name: &'static str, arguments: usize, evaluate: Kernel) -> Definition {
    Definition {
        name,
        aliases: &[],
        takes: if arguments == 1 {
            |t| taken(t, 1, &[Float8])
        } else {
            |t| taken(t, 2, &[Float8, Float8])
        },
        returns: |_| DataType::Float64,
        evaluate,
    }
}

const ONE: [(&str, Kernel); 32] = [
    ("acos", |a| checked(a, float::acos)),
    ("acosd", |a| checked(a, float::acosd)),
    ("acosh", |a| checked(a, float::acosh)),
    ("asin", |a| checked(a, float::asin)),
    ("asind", |a| checked(a, float::asind)),
    ("asinh", |a| plain(a, float::asinh)),
    ("atan", |a| plain(a, f64::atan)),
    ("atand", |a| plain(a, float::atand)),
    ("atanh", |a| checked(a, float::atanh)),
    ("cbrt", |a| plain(a, float::cbrt)),
    ("ceil", |a| plain(a, f64::ceil)),
    ("cos", |a| checked(a, float::cos)),
    ("cosd", |a| checked(a, float::cosd)),
    ("cosh", |a| plain(a, f64::cosh)),
    ("cot", |a| checked(a, float::cot)),
    ("cotd", |a| checked(a, float::cotd)),
    ("degrees", |a| checked(a, float::degrees)),
    // The operator |/, which there is of floats only.
    ("dsqrt", |a| checked(a, float::sqrt)),
    ("exp", |a| checked(a, float::exp)),
    ("floor", |a| plain(a, f64::floor)),
    ("ln", |a| checked(a, float::ln)),
    ("log", |a| checked(a, float::log10)),
    ("log10", |a| checked(a, float::log10)),
    ("radians", |a| checked(a, float::radians)),
    ("sin", |a| checked(a, float::sin)),
    ("sind", |a| checked(a, float::sind)),
    ("sinh", |a| plain(a, f64::sinh)),
    ("sqrt", |a| checked(a, float::sqrt)),
    ("tan", |a| checked(a, float::tan)),
    ("tand", |a| checked(a, float::tand)),
    ("tanh", |a| plain(a, f64::tanh)),
    ("trunc", |a| plain(a, f64::trunc)),
];

const TWO: [(&str, Kernel); 3] = [
    ("atan2", |a| both(a, |y, x| Ok(y.atan2(x)))),
    ("atan2d", |a| both(a, |y, x| Ok(float::atan2d(y, x)))),
    ("power", |a| both(a, float::power)),
];

/// A function that has an answer to everything.
fn plain(args: &ScalarFunctionArgs, f: fn(f64) -> f64) -> Result<ColumnarValue> {
    let values = column(args, 0)?;
    let values: Float64Array = values.as_primitive::<Float64Type>().unary(f);
    result(args, Arc::new(values))
}

/// A function with errors.
fn checked(
    args: &ScalarFunctionArgs,
    f: fn(f64) -> tidemark_common::Result<f64>,
) -> Result<ColumnarValue> {
    let values = column(args, 0)?;
    let values = values
        .as_primitive::<Float64Type>()
        .try_unary::<_, Float64Type, _>(f)
        .map_err(external)?;
    result(args, Arc::new(values))
}

fn both(
    args: &ScalarFunctionArgs,
    f: fn(f64, f64) -> tidemark_common::Result<f64>,
) -> Result<ColumnarValue> {
    let (left, right) = (column(args, 0)?, column(args, 1)?);
    result(args, pairs(&left, &right, f)?)
}

/// `f` of each pair of values; NULL where one is.
fn pairs(
    left: &ArrayRef,
    right: &ArrayRef,
    f: fn(f64, f64) -> tidemark_common::Result<f64>,
) -> Result<ArrayRef> {
    let (left, right) = (
        left.as_primitive::<Float64Type>(),
        right.as_primitive::<Float64Type>(),
    );
    let nulls = arrow::buffer::NullBuffer::union(left.nulls(), right.nulls());
    let mut values = vec![0.0; left.len()];
    for (row, value) in values.iter_mut().enumerate() {
        if nulls.as_ref().is_none_or(|n| n.is_valid(row)) {
            *value = f(left.value(row), right.value(row)).map_err(external)?;
        }
    }
    Ok(Arc::new(Float64Array::new(values.into(), nulls)))
}

/// `width_bucket(operand, low, high, count)` of floats.
pub(super) fn width_bucket(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let value = |i| Values::<Float64Type>::of(args, i);
    let (operand, low, high) = (value(0)?, value(1)?, value(2)?);
    let count = Values::<Int32Type>::of(args, 3)?;
    let mut buckets = Int32Builder::with_capacity(rows(args));
    for row in 0..rows(args) {
        match (
            operand.get(row),
            low.get(row),
            high.get(row),
            count.get(row),
        ) {
            (Some(operand), Some(low), Some(high), Some(count)) => buckets
                .append_value(float::width_bucket(operand, low, high, count).map_err(external)?),
            _ => buckets.append_null(),
        }
    }
    let buckets: Int32Array = buckets.finish();
    result(args, Arc::new(buckets))
}

/// The types of `width_bucket` of floats.
pub(super) fn takes_width_bucket(types: &[DataType]) -> Option<Vec<DataType>> {
    let floats = types.iter().take(3).any(DataType::is_floating);
    taken(types, 4, &[Float8, Float8, Float8, Int4]).filter(|_| floats)
}
