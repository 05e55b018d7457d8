//! Numerics: arithmetic, casts and PostgreSQL's functions of them. A numeric is bytes to Arrow
//! (`tidemark_values::numeric`); the functions take integers and `Decimal128`s as they are beside
//! them.
//!
//! Functions that PostgreSQL has for numerics and for floats (`sqrt`, `ln`, `round`, ..) are
//! [`aware`]: of numerics they are computed here, of anything else by the function that was there.

use super::definition::*;
use super::float;
use arrow::array::*;
use arrow::datatypes::*;
use datafusion_common::{Result, ScalarValue, plan_err};
use datafusion_expr::type_coercion::functions::fields_with_udf;
use datafusion_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use tidemark_common::SqlState;
use tidemark_values::numeric::{Numeric, key_of};

/// The type of numerics with scales of their own.
const NUMERIC: DataType = DataType::LargeBinary;

/// Whether a value of this type is exact and may stand for a numeric.
fn is_exact(data_type: &DataType) -> bool {
    *data_type == NUMERIC
        || data_type.is_integer()
        || matches!(
            data_type,
            DataType::Decimal128(_, _) | DataType::Decimal256(_, _) | DataType::Null
        )
}

/// The functions of this file that have no other form.
pub(super) fn definitions() -> Vec<Definition> {
    let exact = |types: &[DataType]| types.iter().all(is_exact).then(|| types.to_vec());
    let binary = |name, evaluate| Definition {
        name,
        aliases: &[],
        takes: exact,
        returns: |_| NUMERIC,
        evaluate,
    };
    vec![
        binary("numeric_add", |a| two(a, Numeric::add)),
        binary("numeric_subtract", |a| two(a, Numeric::sub)),
        binary("numeric_multiply", |a| two(a, Numeric::mul)),
        binary("numeric_divide", |a| two(a, Numeric::div)),
        binary("numeric_modulo", |a| two(a, Numeric::modulo)),
        binary("numeric_negate", |a| one(a, |n| Ok(n.negated()))),
        binary("trim_scale", |a| one(a, |n| Ok(n.trim_scale()))),
        Definition {
            name: "scale",
            aliases: &[],
            takes: exact,
            returns: |_| DataType::Int32,
            evaluate: |a| integer(a, Numeric::scale),
        },
        Definition {
            name: "min_scale",
            aliases: &[],
            takes: exact,
            returns: |_| DataType::Int32,
            evaluate: |a| integer(a, Numeric::min_scale),
        },
        Definition {
            name: "width_bucket",
            aliases: &[],
            takes: |types| {
                let exact = types.len() == 4 && types.iter().all(is_exact);
                exact
                    .then(|| types.to_vec())
                    .or_else(|| float::takes_width_bucket(types))
            },
            returns: |_| DataType::Int32,
            evaluate: |a| match a.args[0].data_type() {
                DataType::Float64 => float::width_bucket(a),
                _ => bucket(a),
            },
        },
        Definition {
            name: "factorial",
            aliases: &[],
            takes: |types| match types {
                [t] if is_int(t) => Some(vec![DataType::Int64]),
                _ => None,
            },
            returns: |_| NUMERIC,
            evaluate: |a| one(a, |n| n.to_i64().and_then(Numeric::factorial)),
        },
    ]
}

/// The forms of numerics of functions that are there for other numbers, by name.
const AWARE: [(&str, Kernel); 16] = [
    ("abs", |a| one(a, |n| Ok(n.abs()))),
    ("sign", |a| one(a, |n| Ok(n.sign()))),
    ("ceil", |a| one(a, Numeric::ceil)),
    ("floor", |a| one(a, Numeric::floor)),
    ("round", |a| places(a, Numeric::round)),
    ("trunc", |a| places(a, Numeric::trunc)),
    ("sqrt", |a| one(a, Numeric::sqrt)),
    ("exp", |a| one(a, Numeric::exp)),
    ("ln", |a| one(a, Numeric::ln)),
    ("log10", |a| one(a, Numeric::log10)),
    ("log", |a| {
        if a.args.len() == 1 {
            one(a, Numeric::log10)
        } else {
            two(a, |base, n| n.log(base))
        }
    }),
    ("power", |a| two(a, Numeric::power)),
    ("mod", |a| two(a, Numeric::modulo)),
    ("div", |a| two(a, Numeric::div_trunc)),
    ("gcd", |a| two(a, |l, r| Ok(l.gcd(r)))),
    ("lcm", |a| two(a, Numeric::lcm)),
];

/// Functions of floats alone, to which a numeric becomes a `double precision`.
const OF_FLOATS: [&str; 30] = [
    "dsqrt",
    "sind",
    "cosd",
    "tand",
    "cotd",
    "atan2d",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cbrt",
    "cos",
    "cosh",
    "cot",
    "degrees",
    "isnan",
    "log2",
    "radians",
    "sin",
    "sinh",
    "tan",
    "tanh",
    "to_timestamp",
    "acosd",
    "asind",
    "atand",
    "pi",
];

type Kernel = fn(&ScalarFunctionArgs) -> Result<ColumnarValue>;

/// The function, aware of numerics if it has to be.
pub(super) fn aware(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    let name = function.name();
    let kernel = AWARE.iter().find(|(n, _)| *n == name).map(|(_, k)| *k);
    if kernel.is_none() && !OF_FLOATS.contains(&name) {
        return function;
    }
    Arc::new(ScalarUDF::from(Aware {
        signature: Signature::user_defined(Volatility::Immutable),
        inner: function,
        kernel,
    }))
}

/// A function with a form of its own for numerics.
#[derive(Debug)]
struct Aware {
    inner: Arc<ScalarUDF>,
    /// None: numerics become floats.
    kernel: Option<Kernel>,
    signature: Signature,
}

impl PartialEq for Aware {
    fn eq(&self, other: &Aware) -> bool {
        self.inner == other.inner
    }
}
impl Eq for Aware {}
impl Hash for Aware {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl Aware {
    /// Whether arguments of these types go to the kernel.
    fn is_numeric(&self, types: &[DataType]) -> bool {
        self.kernel.is_some()
            && types.iter().all(is_exact)
            && types
                .iter()
                .any(|t| !t.is_integer() && *t != DataType::Null)
    }

    /// What the other function gets for its arguments' types.
    fn plain(types: &[DataType]) -> Vec<DataType> {
        let plain = |t: &DataType| {
            if *t == NUMERIC {
                DataType::Float64
            } else {
                t.clone()
            }
        };
        types.iter().map(plain).collect()
    }

    /// The type of a rounded `Decimal128`, which stays one where the digits are a constant.
    fn rounded(&self, types: &[DataType], constants: &[Option<&ScalarValue>]) -> Option<DataType> {
        let [DataType::Decimal128(precision, scale), ..] = types else {
            return None;
        };
        let digits = match (self.inner.name(), constants) {
            ("abs", _) => return Some(types[0].clone()),
            ("ceil" | "floor", _) | ("round" | "trunc", [_]) => 0,
            ("round" | "trunc", [_, Some(ScalarValue::Int32(Some(d)))]) => i64::from(*d),
            ("round" | "trunc", [_, Some(ScalarValue::Int64(Some(d)))]) => *d,
            _ => return None,
        };
        let scale = i64::from(*scale);
        let whole = i64::from(*precision) - scale + 1;
        ((0..=scale).contains(&digits) && whole + digits <= 38)
            .then(|| DataType::Decimal128((whole + digits).max(1) as u8, digits as i8))
    }
}

impl ScalarUDFImpl for Aware {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(call_name(self.name(), args))
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        if self.is_numeric(types) {
            Ok(NUMERIC)
        } else {
            self.inner.return_type(&Aware::plain(types))
        }
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        super::definition::wanted()?;
        let types: Vec<DataType> = args
            .arg_fields
            .iter()
            .map(|f| f.data_type().clone())
            .collect();
        if self.is_numeric(&types) {
            let returned = self
                .rounded(&types, args.scalar_arguments)
                .unwrap_or(NUMERIC);
            return Ok(Arc::new(Field::new(self.name(), returned, true)));
        }
        let plain: Vec<FieldRef> = args
            .arg_fields
            .iter()
            .zip(Aware::plain(&types))
            .map(|(f, t)| Arc::new(f.as_ref().clone().with_data_type(t)) as FieldRef)
            .collect();
        self.inner.return_field_from_args(ReturnFieldArgs {
            arg_fields: &plain,
            scalar_arguments: args.scalar_arguments,
        })
    }
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if self.is_numeric(types) {
            return Ok(types.to_vec());
        }
        let fields: Vec<FieldRef> = Aware::plain(types)
            .into_iter()
            .map(|t| Arc::new(Field::new("", t, true)) as FieldRef)
            .collect();
        let coerced = fields_with_udf(&fields, self.inner.as_ref())?;
        // A numeric is not cast here, which Arrow cannot do, but when the function is called.
        let kept = coerced.iter().zip(types).map(|(field, t)| {
            if *t == NUMERIC {
                NUMERIC
            } else {
                field.data_type().clone()
            }
        });
        Ok(kept.collect())
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let types: Vec<DataType> = args
            .arg_fields
            .iter()
            .map(|f| f.data_type().clone())
            .collect();
        if self.is_numeric(&types)
            && let Some(kernel) = self.kernel
        {
            let values = kernel(&args)?;
            return fitted(&args, values);
        }
        let mut args = args;
        for (value, field) in args.args.iter_mut().zip(&mut args.arg_fields) {
            if *field.data_type() == NUMERIC {
                *value = converted(value, args.number_rows, &DataType::Float64)?;
                *field = Arc::new(field.as_ref().clone().with_data_type(DataType::Float64));
            }
        }
        self.inner.invoke_with_args(args)
    }
    fn simplify(
        &self,
        args: Vec<datafusion_expr::Expr>,
        info: &datafusion_expr::simplify::SimplifyContext,
    ) -> Result<datafusion_expr::simplify::ExprSimplifyResult> {
        let numeric = args.iter().any(|a| {
            info.get_data_type(a)
                .is_ok_and(|t| t == NUMERIC || is_decimal(&t))
        });
        if numeric {
            Ok(datafusion_expr::simplify::ExprSimplifyResult::Original(
                args,
            ))
        } else {
            self.inner.inner().simplify(args, info)
        }
    }
}

fn is_decimal(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Decimal128(_, _) | DataType::Decimal256(_, _)
    )
}

/// A kernel's numerics as what the call returns.
fn fitted(args: &ScalarFunctionArgs, values: ColumnarValue) -> Result<ColumnarValue> {
    let wanted = args.return_field.data_type();
    if values.data_type() == *wanted {
        Ok(values)
    } else {
        converted(&values, args.number_rows, wanted)
    }
}

/// One argument, read as numerics.
pub(super) enum Numbers {
    Constant(Option<Numeric>),
    Integers(Int64Array),
    Fixed(Decimal128Array, u16),
    Wide(Decimal256Array, u16),
    Own(LargeBinaryArray),
    Nulls,
}

impl Numbers {
    pub(super) fn of(value: &ColumnarValue) -> Result<Numbers> {
        match value {
            ColumnarValue::Array(array) => Numbers::of_array(array),
            ColumnarValue::Scalar(value) => {
                let array = value.to_array()?;
                Ok(Numbers::Constant(Numbers::of_array(&array)?.get(0)?))
            }
        }
    }

    fn of_array(array: &ArrayRef) -> Result<Numbers> {
        Ok(match array.data_type() {
            DataType::Null => Numbers::Nulls,
            DataType::Decimal128(_, scale) => Numbers::Fixed(
                array.as_primitive::<Decimal128Type>().clone(),
                u16::from(scale.unsigned_abs()),
            ),
            DataType::Decimal256(_, scale) => Numbers::Wide(
                array.as_primitive::<Decimal256Type>().clone(),
                u16::from(scale.unsigned_abs()),
            ),
            DataType::LargeBinary => Numbers::Own(array.as_binary::<i64>().clone()),
            DataType::UInt64 => {
                let wide = arrow::compute::cast(array, &DataType::Decimal128(20, 0))?;
                Numbers::Fixed(wide.as_primitive::<Decimal128Type>().clone(), 0)
            }
            t if t.is_integer() => {
                let wide = arrow::compute::cast(array, &DataType::Int64)?;
                Numbers::Integers(wide.as_primitive::<Int64Type>().clone())
            }
            other => return plan_err!("{other} is no numeric"),
        })
    }

    pub(super) fn get(&self, row: usize) -> Result<Option<Numeric>> {
        Ok(match self {
            Numbers::Constant(value) => value.clone(),
            Numbers::Nulls => None,
            Numbers::Integers(a) => a.is_valid(row).then(|| Numeric::from(a.value(row))),
            Numbers::Fixed(a, scale) => a
                .is_valid(row)
                .then(|| Numeric::from_unscaled(a.value(row), *scale)),
            Numbers::Wide(a, scale) => {
                if a.is_null(row) {
                    return Ok(None);
                }
                let text = a.value(row).to_string();
                let number = Numeric::parse(&format!("{text}e-{scale}")).map_err(external)?;
                Some(number)
            }
            Numbers::Own(a) => {
                if a.is_null(row) {
                    return Ok(None);
                }
                Some(Numeric::decode(a.value(row)).map_err(external)?)
            }
        })
    }
}

/// Writes numerics into a column.
struct Writer {
    builder: LargeBinaryBuilder,
    bytes: Vec<u8>,
}

impl Writer {
    fn new(rows: usize) -> Writer {
        Writer {
            builder: LargeBinaryBuilder::with_capacity(rows, rows * 12),
            bytes: Vec::new(),
        }
    }

    fn put(&mut self, value: Option<&Numeric>) {
        match value {
            Some(value) => {
                self.bytes.clear();
                value.encode(&mut self.bytes);
                self.builder.append_value(&self.bytes);
            }
            None => self.builder.append_null(),
        }
    }

    fn finish(mut self) -> ArrayRef {
        Arc::new(self.builder.finish())
    }
}

fn one(
    args: &ScalarFunctionArgs,
    f: impl Fn(&Numeric) -> tidemark_common::Result<Numeric>,
) -> Result<ColumnarValue> {
    let values = Numbers::of(&args.args[0])?;
    let rows = rows(args);
    let mut out = Writer::new(rows);
    for row in 0..rows {
        let value = values.get(row)?.map(|v| f(&v)).transpose();
        out.put(value.map_err(external)?.as_ref());
    }
    result(args, out.finish())
}

fn two(
    args: &ScalarFunctionArgs,
    f: impl Fn(&Numeric, &Numeric) -> tidemark_common::Result<Numeric>,
) -> Result<ColumnarValue> {
    let (left, right) = (Numbers::of(&args.args[0])?, Numbers::of(&args.args[1])?);
    let rows = rows(args);
    let mut out = Writer::new(rows);
    for row in 0..rows {
        let value = match (left.get(row)?, right.get(row)?) {
            (Some(l), Some(r)) => Some(f(&l, &r).map_err(external)?),
            _ => None,
        };
        out.put(value.as_ref());
    }
    result(args, out.finish())
}

/// A number and how many digits it keeps, 0 if that is not said.
fn places(
    args: &ScalarFunctionArgs,
    f: impl Fn(&Numeric, i32) -> tidemark_common::Result<Numeric>,
) -> Result<ColumnarValue> {
    let values = Numbers::of(&args.args[0])?;
    let digits = args.args.get(1).map(Numbers::of).transpose()?;
    let rows = rows(args);
    let mut out = Writer::new(rows);
    for row in 0..rows {
        let digits = match &digits {
            None => Some(0),
            Some(digits) => digits
                .get(row)?
                .map(|d| d.to_i64())
                .transpose()
                .map_err(external)?,
        };
        let value = match (values.get(row)?, digits) {
            (Some(value), Some(digits)) => {
                let digits = digits.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
                Some(f(&value, digits).map_err(external)?)
            }
            _ => None,
        };
        out.put(value.as_ref());
    }
    result(args, out.finish())
}

fn integer(
    args: &ScalarFunctionArgs,
    f: impl Fn(&Numeric) -> Option<u16>,
) -> Result<ColumnarValue> {
    let values = Numbers::of(&args.args[0])?;
    let values = (0..rows(args))
        .map(|row| Ok(values.get(row)?.and_then(|v| f(&v)).map(i32::from)))
        .collect::<Result<Int32Array>>()?;
    result(args, Arc::new(values))
}

/// `width_bucket(operand, low, high, count)`.
fn bucket(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let numbers = args
        .args
        .iter()
        .map(Numbers::of)
        .collect::<Result<Vec<_>>>()?;
    let [operand, low, high, count] = numbers.as_slice() else {
        return plan_err!("width_bucket takes four arguments");
    };
    let values = (0..rows(args))
        .map(|row| {
            let (Some(operand), Some(low), Some(high), Some(count)) = (
                operand.get(row)?,
                low.get(row)?,
                high.get(row)?,
                count.get(row)?,
            ) else {
                return Ok(None);
            };
            let count = i32::try_from(count.to_i64().map_err(external)?)
                .map_err(|_| failure(SqlState::NUMERIC_OUT_OF_RANGE, "integer out of range"))?;
            operand
                .width_bucket(&low, &high, count)
                .map(Some)
                .map_err(external)
        })
        .collect::<Result<Int32Array>>()?;
    result(args, Arc::new(values))
}

/// Numbers and texts as another kind of number, and numerics as text.
fn converted(value: &ColumnarValue, rows: usize, to: &DataType) -> Result<ColumnarValue> {
    match value {
        ColumnarValue::Scalar(scalar) => {
            let array = cast_array(&scalar.to_array()?, to)?;
            Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                &array, 0,
            )?))
        }
        ColumnarValue::Array(array) => {
            debug_assert_eq!(array.len(), rows);
            Ok(ColumnarValue::Array(cast_array(array, to)?))
        }
    }
}

/// Whether [`cast_array`] casts between these types.
pub(super) fn casts(from: &DataType, to: &DataType) -> bool {
    let number = |t: &DataType| t.is_numeric() || *t == NUMERIC;
    let decimal = |t: &DataType| *t == NUMERIC || is_decimal(t);
    (decimal(from) && (number(to) || *to == DataType::Utf8))
        || (decimal(to) && (number(from) || is_text(from)))
}

/// A column of numbers or texts as a column of numerics, numbers or texts, by PostgreSQL's casts.
///
/// Errors: `22P02` for text that is no number, `22003` where a number does not fit.
pub(super) fn cast_array(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    match array.data_type() {
        from if from == to => Ok(array.clone()),
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>().iter();
            write(values.map(|v| Ok(v.map(Numeric::from))), array.len(), to)
        }
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>().iter();
            write(values.map(|v| Ok(v.map(Numeric::from))), array.len(), to)
        }
        DataType::Utf8 => {
            let values = array.as_string::<i32>().iter();
            let parsed = values.map(|v| v.map(Numeric::parse).transpose().map_err(external));
            write(parsed, array.len(), to)
        }
        DataType::LargeUtf8 | DataType::Utf8View => {
            cast_array(&arrow::compute::cast(array, &DataType::Utf8)?, to)
        }
        _ => {
            let numbers = Numbers::of_array(array)?;
            let values = (0..array.len()).map(|row| numbers.get(row));
            write(values, array.len(), to)
        }
    }
}

/// Numerics as a column of another type.
pub(super) fn write(
    values: impl Iterator<Item = Result<Option<Numeric>>>,
    rows: usize,
    to: &DataType,
) -> Result<ArrayRef> {
    fn each<T>(
        values: impl Iterator<Item = Result<Option<Numeric>>>,
        f: impl Fn(Numeric) -> tidemark_common::Result<T>,
    ) -> impl Iterator<Item = Result<Option<T>>> {
        values.map(move |v| v?.map(|v| f(v).map_err(external)).transpose())
    }
    Ok(match to {
        DataType::LargeBinary => {
            let mut out = Writer::new(rows);
            for value in values {
                out.put(value?.as_ref());
            }
            out.finish()
        }
        DataType::Decimal128(precision, scale) => {
            let (p, s) = (i32::from(*precision), i32::from(*scale));
            let fitted = each(values, |v| {
                let fitted = v.fit(p, s)?;
                // What fits and is no integer is NaN, which these have none of.
                fitted.to_i128(s).ok_or_else(|| {
                    let message = format!("NaN as numeric({p},{s}) is not supported");
                    tidemark_common::Error::unsupported(message)
                        .with_hint("NUMERIC without precision has it.")
                })
            });
            let fitted = fitted.collect::<Result<Decimal128Array>>()?;
            Arc::new(fitted.with_precision_and_scale(*precision, *scale)?)
        }
        DataType::Int16 => Arc::new(each(values, |v| v.to_i16()).collect::<Result<Int16Array>>()?),
        DataType::Int32 => Arc::new(each(values, |v| v.to_i32()).collect::<Result<Int32Array>>()?),
        DataType::Int64 => Arc::new(each(values, |v| v.to_i64()).collect::<Result<Int64Array>>()?),
        DataType::Float32 => {
            Arc::new(each(values, |v| v.to_f32()).collect::<Result<Float32Array>>()?)
        }
        DataType::Float64 => {
            Arc::new(each(values, |v| v.to_f64()).collect::<Result<Float64Array>>()?)
        }
        DataType::Utf8 => {
            Arc::new(each(values, |v| Ok(v.to_string())).collect::<Result<StringArray>>()?)
        }
        other => return plan_err!("a numeric does not become {other}"),
    })
}

/// The keys of a column of numerics.
pub(super) fn keys(array: &LargeBinaryArray) -> ArrayRef {
    let mut builder = BinaryBuilder::with_capacity(array.len(), array.values().len());
    for form in array {
        match form {
            Some(form) => builder.append_value(key_of(form)),
            None => builder.append_null(),
        }
    }
    Arc::new(builder.finish())
}
