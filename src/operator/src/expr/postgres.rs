//! Where PostgreSQL's answer differs from the evaluator's own: one rule per node, applied to
//! streaming expressions when they are compiled and to ad-hoc plans by [`with_postgres_semantics`].
//!
//! * `+`, `-`, `*` and unary minus of integers are checked (`22003`) instead of wrapping.
//! * Arithmetic of floats whose result is too large or too small is an error (`22003`), and so is
//!   division by zero (`22012`), instead of infinity or zero.
//! * A float becomes an integer by rounding half to even, a numeric by rounding half away from
//!   zero, instead of truncation.
//! * Timestamps, floats and intervals turn into text as PostgreSQL prints them.
//! * The right side of AND and OR counts where the left one leaves the answer open
//!   ([`super::guarded`]).
//! * A timestamp and an interval give PostgreSQL's sum: infinities stay.
//!
//! The rules are idempotent: applying them again changes nothing in the answers.

use super::floats;
use super::guarded::Guarded;
use crate::functions::text;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::kernels::arity::try_binary;
use arrow::compute::kernels::numeric;
use arrow::datatypes::*;
use arrow::error::ArrowError;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::{ColumnarValue, Operator};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{self as physical, BinaryExpr, CastExpr, NegativeExpr};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use tidemark_values::moment;

type Physical = Arc<dyn PhysicalExpr>;

/// Rewrites a whole expression over the columns of `input`.
pub fn with_postgres_semantics(expr: Physical, input: &Schema) -> Result<Physical> {
    expr.transform_up(|node| postgres_node(node, input))
        .map(|t| t.data)
}

/// Rewrites one node whose children are done.
pub(super) fn postgres_node(expr: Physical, input: &Schema) -> Result<Transformed<Physical>> {
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        return binary_node(binary, input).map(|new| replaced(expr.clone(), new));
    }
    if let Some(negative) = expr.downcast_ref::<NegativeExpr>() {
        let output = negative.arg().data_type(input)?;
        let new = output.is_integer().then(|| {
            Kernel::over("-", [negative.arg().clone()], output, |args, _| {
                Ok(numeric::neg(&args[0])?)
            })
        });
        return Ok(replaced(expr.clone(), new));
    }
    if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        let from = cast.expr().data_type(input)?;
        let new = cast_node(cast, &from, input)?;
        return Ok(replaced(expr.clone(), new));
    }
    Ok(Transformed::no(expr))
}

fn replaced(old: Physical, new: Option<Physical>) -> Transformed<Physical> {
    new.map_or_else(|| Transformed::no(old), Transformed::yes)
}

fn binary_node(binary: &BinaryExpr, input: &Schema) -> Result<Option<Physical>> {
    let (left, right) = (binary.left(), binary.right());
    Ok(match binary.op() {
        Operator::And | Operator::Or => Guarded::of(binary)?,
        op if of_floats(op) && is_float(left, input)? && is_float(right, input)? => {
            let output = left.data_type(input)?;
            let (name, kernel): (_, KernelFn) = match op {
                Operator::Plus => ("+", floats::add),
                Operator::Minus => ("-", floats::subtract),
                Operator::Multiply => ("*", floats::multiply),
                Operator::Divide => ("/", floats::divide),
                _ => ("%", floats::modulo),
            };
            (right.data_type(input)? == output)
                .then(|| Kernel::over(name, [left.clone(), right.clone()], output, kernel))
        }
        op @ (Operator::Plus | Operator::Minus)
            if is_micros(left, input)? && is_span(right, input)? =>
        {
            let (name, kernel): (_, KernelFn) = match op {
                Operator::Plus => ("timestamp + interval", |args, _| shifted(args, false)),
                _ => ("timestamp - interval", |args, _| shifted(args, true)),
            };
            let output = left.data_type(input)?;
            Some(Kernel::over(
                name,
                [left.clone(), right.clone()],
                output,
                kernel,
            ))
        }
        Operator::Plus if is_span(left, input)? && is_micros(right, input)? => {
            let output = right.data_type(input)?;
            let args = [right.clone(), left.clone()];
            let kernel: KernelFn = |args, _| shifted(args, false);
            Some(Kernel::over("timestamp + interval", args, output, kernel))
        }
        Operator::Plus | Operator::Minus | Operator::Multiply => {
            let checked = BinaryExpr::new(left.clone(), *binary.op(), right.clone())
                .with_fail_on_overflow(true);
            (&checked != binary).then(|| Arc::new(checked) as Physical)
        }
        _ => None,
    })
}

fn cast_node(cast: &CastExpr, from: &DataType, input: &Schema) -> Result<Option<Physical>> {
    let to = cast.cast_type();
    let child = cast.expr().clone();
    Ok(match (from, to) {
        (DataType::Float32 | DataType::Float64, to) if to.is_integer() => {
            if child
                .downcast_ref::<Kernel>()
                .is_some_and(|k| k.name == "round_half_even")
            {
                return Ok(None);
            }
            let rounded = Kernel::over("round_half_even", [child], from.clone(), round_half_even);
            Some(Arc::new(CastExpr::new(rounded, to.clone(), None)))
        }
        (DataType::Decimal128(precision, scale), to) if to.is_integer() && *scale > 0 => {
            let whole = (*precision as i16 - i16::from(*scale) + 1).clamp(1, 38) as u8;
            let rounded = physical::cast(child, input, DataType::Decimal128(whole, 0))?;
            Some(Arc::new(CastExpr::new(rounded, to.clone(), None)))
        }
        (
            DataType::Timestamp(TimeUnit::Microsecond, _)
            | DataType::Float32
            | DataType::Float64
            | DataType::Interval(IntervalUnit::MonthDayNano),
            DataType::Utf8,
        ) => Some(Kernel::over("text", [child], DataType::Utf8, |args, _| {
            Ok(text::to_text(&args[0])?)
        })),
        _ => None,
    })
}

fn is_micros(expr: &Physical, input: &Schema) -> Result<bool> {
    let data_type = expr.data_type(input)?;
    Ok(matches!(
        data_type,
        DataType::Timestamp(TimeUnit::Microsecond, _)
    ))
}

fn is_span(expr: &Physical, input: &Schema) -> Result<bool> {
    Ok(expr.data_type(input)? == DataType::Interval(IntervalUnit::MonthDayNano))
}

/// Timestamps moved by intervals; infinities stay.
fn shifted(args: &[ArrayRef], back: bool) -> Result<ArrayRef> {
    let moments = args[0].as_primitive::<TimestampMicrosecondType>();
    let spans = args[1].as_primitive::<IntervalMonthDayNanoType>();
    let shift = |at: i64, by: IntervalMonthDayNano| {
        let by = moment::Interval::new(by.months, by.days, by.nanoseconds / 1000);
        let moved = if back {
            moment::timestamp_minus_interval(at, by)
        } else {
            moment::timestamp_plus(at, by)
        };
        moved.map_err(|e| ArrowError::ExternalError(Box::new(e)))
    };
    let moved: TimestampMicrosecondArray = try_binary(moments, spans, shift)?;
    Ok(Arc::new(moved.with_data_type(args[0].data_type().clone())))
}

fn of_floats(op: &Operator) -> bool {
    use Operator::{Divide, Minus, Modulo, Multiply, Plus};
    matches!(op, Plus | Minus | Multiply | Divide | Modulo)
}

fn is_float(expr: &Physical, input: &Schema) -> Result<bool> {
    Ok(expr.data_type(input)?.is_floating())
}

fn round_half_even(args: &[ArrayRef], _: &DataType) -> Result<ArrayRef> {
    Ok(match args[0].data_type() {
        DataType::Float32 => Arc::new(
            args[0]
                .as_primitive::<Float32Type>()
                .unary::<_, Float32Type>(f32::round_ties_even),
        ),
        _ => Arc::new(
            args[0]
                .as_primitive::<Float64Type>()
                .unary::<_, Float64Type>(f64::round_ties_even),
        ),
    })
}

type KernelFn = fn(&[ArrayRef], &DataType) -> Result<ArrayRef>;

/// A physical expression around one vectorised kernel. Its name and output type identify it.
#[derive(Clone)]
struct Kernel {
    name: &'static str,
    args: Vec<Physical>,
    output: DataType,
    kernel: KernelFn,
}

impl Kernel {
    fn over<const N: usize>(
        name: &'static str,
        args: [Physical; N],
        output: DataType,
        kernel: KernelFn,
    ) -> Physical {
        Arc::new(Kernel {
            name,
            args: args.into(),
            output,
            kernel,
        })
    }
}

impl PartialEq for Kernel {
    fn eq(&self, other: &Kernel) -> bool {
        self.name == other.name
            && self.output == other.output
            && self.args.len() == other.args.len()
            && self.args.iter().zip(&other.args).all(|(a, b)| a.eq(b))
    }
}
impl Eq for Kernel {}

impl Hash for Kernel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.output.hash(state);
        self.args.hash(state);
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel")
            .field("name", &self.name)
            .field("args", &self.args)
            .field("output", &self.output)
            .finish()
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.args.as_slice() {
            [left, right] => write!(f, "{left} {} {right}", self.name),
            args => write!(
                f,
                "{}({})",
                self.name,
                args.iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        }
    }
}

impl PhysicalExpr for Kernel {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(self.output.clone())
    }

    fn nullable(&self, input: &Schema) -> Result<bool> {
        for arg in &self.args {
            if arg.nullable(input)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let args = self
            .args
            .iter()
            .map(|a| a.evaluate(batch)?.into_array(batch.num_rows()))
            .collect::<Result<Vec<_>>>()?;
        Ok(ColumnarValue::Array((self.kernel)(&args, &self.output)?))
    }

    fn children(&self) -> Vec<&Physical> {
        self.args.iter().collect()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Physical>) -> Result<Physical> {
        if children.len() != self.args.len() {
            return Err(DataFusionError::Internal(format!(
                "{} takes {} arguments",
                self.name,
                self.args.len()
            )));
        }
        Ok(Arc::new(Kernel {
            args: children,
            ..self.as_ref().clone()
        }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
