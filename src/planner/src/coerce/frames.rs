//! RANGE frames with offsets: the sort key becomes one on which distances are measured
//! (`range_key`), the offsets the same of their values; so numerics, floats, intervals and moments
//! are as far apart as PostgreSQL has them, and no sum runs over. Only where months are added to
//! moments are these what is sorted by (`range_moment`), because no month is as long as the next;
//! and days, where a moment has a time zone: [`super::zones`] minds them.

use super::calls::Calls;
use crate::error::external;
use crate::types::{NUMERIC, is_numeric_bytes, sql_type_name};
use arrow_schema::DataType;
use datafusion_common::{DFSchema, Result, ScalarValue};
use datafusion_expr::expr::WindowFunctionParams;
use datafusion_expr::{Expr, ExprSchemable, WindowFrame, WindowFrameBound, WindowFrameUnits, lit};
use tidemark_common::{Error, SqlState};
use tidemark_values::moment::{IntervalFields, read_interval};

/// Months that a frame may reach.
const MONTHS_MAX: u32 = 12 * 10_000;

/// What an offset is, by how [`crate::bind`] has written it.
enum Offset<'a> {
    Integer(&'a str),
    Numeric(&'a str),
    Float(&'a str),
    Interval(&'a str),
}

impl Offset<'_> {
    fn of(text: &str) -> Offset<'_> {
        if let Some(float) = text.strip_prefix('+') {
            Offset::Float(float)
        } else if !text.bytes().all(|b| b"0123456789.".contains(&b)) {
            Offset::Interval(text)
        } else if text.contains('.') {
            Offset::Numeric(text)
        } else {
            Offset::Integer(text)
        }
    }

    fn type_name(&self) -> &'static str {
        match self {
            Offset::Integer(_) => "integer",
            Offset::Numeric(_) => "numeric",
            Offset::Float(_) => "double precision",
            Offset::Interval(_) => "interval",
        }
    }
}

/// `42883` for a number of a window function that is no integer.
pub(super) fn check_counts(name: &str, args: &[Expr], schema: &DFSchema) -> Result<()> {
    let at = match name {
        "ntile" => 0,
        "lag" | "lead" | "nth_value" => 1,
        _ => return Ok(()),
    };
    let Some(number) = args.get(at) else {
        return Ok(());
    };
    let number = number.get_type(schema)?;
    if number.is_integer() || number.is_null() {
        return Ok(());
    }
    let types = args.iter().map(|arg| arg.get_type(schema));
    let types = types.collect::<Result<Vec<_>>>()?;
    let types: Vec<String> = types.iter().map(sql_type_name).collect();
    Err(external(Error::user(
        SqlState::UNDEFINED_FUNCTION,
        format!("function {name}({}) does not exist", types.join(", ")),
    )))
}

impl Calls {
    /// Rewrites the frame of a window that has offsets of RANGE, and its order.
    ///
    /// Errors: `0A000` for an offset that is not of the key's kind.
    pub(super) fn range_frame(
        &self,
        params: &mut WindowFunctionParams,
        schema: &DFSchema,
    ) -> Result<bool> {
        let frame = &params.window_frame;
        if frame.units != WindowFrameUnits::Range {
            return Ok(false);
        }
        let bounds = [&frame.start_bound, &frame.end_bound];
        let texts = bounds.map(offset_text);
        let (true, [sort]) = (texts.iter().any(Option::is_some), &mut params.order_by[..]) else {
            return Ok(false);
        };
        let key = sort.expr.get_type(schema)?;
        let mut offsets = Vec::with_capacity(2);
        for text in texts.iter().flatten() {
            offsets.push(self.offset(&key, &Offset::of(text))?);
        }
        let stepped = offsets.iter().any(|o| !is_length(&key, o));
        // An infinite value is as far from itself as from any: it is in every frame that holds its
        // own row, and the distances tell of no other.
        let apart = matches!(frame.start_bound, WindowFrameBound::Following(_))
            || matches!(frame.end_bound, WindowFrameBound::Preceding(_));
        let function = match (stepped, apart) {
            (false, false) => "range_key",
            (false, true) => "range_key_finite",
            (true, false) => "range_moment",
            (true, true) => "range_moment_finite",
        };
        sort.expr = self.call(function, vec![std::mem::take(&mut sort.expr)])?;
        let mut offsets = offsets.into_iter();
        let mut moved = |bound: &WindowFrameBound| -> Result<WindowFrameBound> {
            let Some(offset) = offset_text(bound).and_then(|_| offsets.next()) else {
                return Ok(bound.clone());
            };
            let offset = if stepped {
                offset
            } else {
                self.constant_call("range_key", offset)?
            };
            Ok(match bound {
                WindowFrameBound::Preceding(_) => WindowFrameBound::Preceding(offset),
                _ => WindowFrameBound::Following(offset),
            })
        };
        let (start, end) = (moved(&frame.start_bound)?, moved(&frame.end_bound)?);
        params.window_frame = WindowFrame::new_bounds(WindowFrameUnits::Range, start, end);
        Ok(true)
    }

    /// An offset as a value that goes with the key.
    fn offset(&self, key: &DataType, offset: &Offset) -> Result<ScalarValue> {
        use DataType as D;
        let value = match (key, offset) {
            (D::Int16 | D::Int32 | D::Int64, Offset::Integer(n)) => {
                ScalarValue::Int64(n.parse().ok())
            }
            (
                D::Float32 | D::Float64,
                Offset::Integer(x) | Offset::Numeric(x) | Offset::Float(x),
            ) => ScalarValue::Float64(x.parse().ok()),
            (t, Offset::Integer(n) | Offset::Numeric(n))
                if is_numeric_bytes(t) || matches!(t, D::Decimal128(_, _)) =>
            {
                match self.cast(lit(*n), &NUMERIC)? {
                    Expr::Literal(value, _) => value,
                    _ => ScalarValue::Null,
                }
            }
            (
                D::Date32 | D::Timestamp(_, _) | D::Time64(_) | D::Interval(_),
                Offset::Interval(text),
            ) => interval(key, text)?,
            _ => return Err(unsupported(key, offset)),
        };
        if value.is_null() {
            return Err(unsupported(key, offset));
        }
        Ok(value)
    }
}

/// The text of an offset that is as it was bound.
fn offset_text(bound: &WindowFrameBound) -> Option<String> {
    match bound {
        WindowFrameBound::Preceding(ScalarValue::Utf8(text))
        | WindowFrameBound::Following(ScalarValue::Utf8(text)) => text.clone(),
        _ => None,
    }
}

/// An interval; a time of day moves by its hours alone.
fn interval(key: &DataType, text: &str) -> Result<ScalarValue> {
    let mut span = read_interval(text, IntervalFields::All, 6).map_err(external)?;
    if matches!(key, DataType::Time64(_)) {
        (span.months, span.days) = (0, 0);
    }
    let far = span.months.unsigned_abs() > MONTHS_MAX;
    let nanos = span
        .micros
        .checked_mul(1000)
        .filter(|_| !far)
        .ok_or_else(|| {
            external(Error::unsupported(format!(
                "an offset of {text} is not supported"
            )))
        })?;
    Ok(ScalarValue::new_interval_mdn(span.months, span.days, nanos))
}

/// Whether an offset is as long wherever it is added.
fn is_length(key: &DataType, offset: &ScalarValue) -> bool {
    match (key, offset) {
        (DataType::Timestamp(_, zone), ScalarValue::IntervalMonthDayNano(Some(span))) => {
            span.months == 0 && (span.days == 0 || zone.is_none())
        }
        (DataType::Date32, ScalarValue::IntervalMonthDayNano(Some(span))) => span.months == 0,
        _ => true,
    }
}

fn unsupported(key: &DataType, offset: &Offset) -> datafusion_common::DataFusionError {
    let has_distances = key.is_numeric()
        || is_numeric_bytes(key)
        || key.is_temporal()
        || matches!(key, DataType::Interval(_));
    let name = sql_type_name(key);
    let message = "RANGE with offset PRECEDING/FOLLOWING is not supported for column type";
    external(if has_distances {
        Error::unsupported(format!(
            "{message} {name} and offset type {}",
            offset.type_name()
        ))
        .with_hint("Cast the offset value to an appropriate type.")
    } else {
        Error::unsupported(format!("{message} {name}"))
    })
}
