//! From plan expressions to DataFusion's physical ones. The planner has made every type explicit;
//! where an operand's type still differs from what a kernel takes (a caller that builds plans by
//! hand), the evaluator's own coercion rules add the cast.

use super::coalesce::{self, Coalesce};
use super::postgres::postgres_node;
use crate::functions;
use arrow::datatypes::{DataType, IntervalMonthDayNano, Schema, SchemaRef};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{DataFusionError, ScalarValue};
use datafusion_expr::Operator;
use datafusion_expr::binary::BinaryTypeCoercer;
use datafusion_expr::type_coercion::functions::fields_with_udf;
use datafusion_physical_expr::expressions as physical;
use datafusion_physical_expr::utils::collect_columns;
use datafusion_physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use std::sync::{Arc, OnceLock};
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{BinaryOp, Expr, Literal};

type Physical = Arc<dyn PhysicalExpr>;

/// Compiles `expr` over the columns of `input`; the type is what the expression's own operators
/// give.
pub fn compile(expr: &Expr, input: &SchemaRef) -> Result<Physical> {
    build(expr, input)
}

/// Like [`compile`], with a cast to `output` where the types differ.
pub(super) fn compile_to(expr: &Expr, input: &SchemaRef, output: &DataType) -> Result<Physical> {
    cast_to(build(expr, input)?, output, input)
}

fn wrong(error: DataFusionError) -> Error {
    let message = tidemark_plan::messages::plain(&error.strip_backtrace());
    match error.find_root() {
        DataFusionError::External(inner) if inner.is::<Error>() => inner
            .downcast_ref::<Error>()
            .cloned()
            .unwrap_or_else(|| Error::internal(message)),
        DataFusionError::NotImplemented(_) => Error::unsupported(message),
        DataFusionError::Internal(_) => Error::internal(message),
        _ => Error::user(SqlState::DATATYPE_MISMATCH, message),
    }
}

fn finish(expr: Physical, input: &Schema) -> Result<Physical> {
    postgres_node(expr, input).map(|t| t.data).map_err(wrong)
}

fn type_of(expr: &Physical, input: &Schema) -> Result<DataType> {
    expr.data_type(input).map_err(wrong)
}

fn cast_to(expr: Physical, to: &DataType, input: &Schema) -> Result<Physical> {
    if &type_of(&expr, input)? == to {
        Ok(expr)
    } else {
        finish(
            physical::cast(expr, input, to.clone()).map_err(wrong)?,
            input,
        )
    }
}

fn build(expr: &Expr, input: &SchemaRef) -> Result<Physical> {
    let built: Physical = match expr {
        Expr::Column(i) => {
            let field = input.fields().get(*i).ok_or_else(|| {
                Error::internal(format!("column {i} of {}", input.fields().len()))
            })?;
            return Ok(Arc::new(physical::Column::new(field.name(), *i)));
        }
        Expr::Literal(value) => return Ok(physical::lit(literal(value)?)),
        Expr::Binary { op, left, right } => binary(
            operator(*op),
            build(left, input)?,
            build(right, input)?,
            input,
        )?,
        Expr::Not(e) => {
            physical::not(cast_to(build(e, input)?, &DataType::Boolean, input)?).map_err(wrong)?
        }
        Expr::Negative(e) => physical::negative(build(e, input)?, input).map_err(wrong)?,
        Expr::IsNull(e) => physical::is_null(build(e, input)?).map_err(wrong)?,
        Expr::IsNotNull(e) => physical::is_not_null(build(e, input)?).map_err(wrong)?,
        Expr::IsTrue(e) => binary(
            Operator::IsNotDistinctFrom,
            build(e, input)?,
            physical::lit(true),
            input,
        )?,
        Expr::IsFalse(e) => binary(
            Operator::IsNotDistinctFrom,
            build(e, input)?,
            physical::lit(false),
            input,
        )?,
        Expr::Like {
            negated,
            case_insensitive,
            expr,
            pattern,
        } => {
            let expr = build(expr, input)?;
            let pattern = cast_to(build(pattern, input)?, &type_of(&expr, input)?, input)?;
            physical::like(*negated, *case_insensitive, expr, pattern, input).map_err(wrong)?
        }
        Expr::InList {
            negated,
            expr,
            list,
        } => {
            let expr = build(expr, input)?;
            let to = type_of(&expr, input)?;
            let list = list
                .iter()
                .map(|e| cast_to(build(e, input)?, &to, input))
                .collect::<Result<Vec<_>>>()?;
            let reads_row = |e: &Physical| !collect_columns(e).is_empty();
            if to.is_floating() || list.iter().any(reads_row) {
                equals_any(&expr, list, *negated, input)?
            } else {
                physical::in_list(expr, list, negated, input).map_err(wrong)?
            }
        }
        Expr::Case {
            operand,
            when_then,
            otherwise,
        } => case(operand.as_deref(), when_then, otherwise.as_deref(), input)?,
        Expr::Cast {
            expr,
            to,
            safe: false,
        } => return cast_to(build(expr, input)?, to, input),
        Expr::Cast {
            expr,
            to,
            safe: true,
        } => physical::try_cast(build(expr, input)?, input, to.clone()).map_err(wrong)?,
        Expr::Call { function, args } => return call(function, args, input),
    };
    finish(built, input)
}

/// `IN` as comparisons: over floats, because the list's own search goes by bits, to which -0 is not
/// 0; and over what reads the row, because DataFusion takes for a constant what has one value over
/// no rows at all, as a CASE has.
fn equals_any(
    expr: &Physical,
    list: Vec<Physical>,
    negated: bool,
    input: &Schema,
) -> Result<Physical> {
    let mut any = list
        .into_iter()
        .map(|item| binary(Operator::Eq, expr.clone(), item, input))
        .collect::<Result<Vec<_>>>()?;
    // In pairs, so that a long list does not become a deep tree.
    while any.len() > 1 {
        let mut pairs = Vec::with_capacity(any.len().div_ceil(2));
        let mut rest = any.into_iter();
        while let Some(left) = rest.next() {
            pairs.push(match rest.next() {
                Some(right) => binary(Operator::Or, left, right, input)?,
                None => left,
            });
        }
        any = pairs;
    }
    let any = any.pop().unwrap_or_else(|| physical::lit(false));
    if negated {
        physical::not(any).map_err(wrong)
    } else {
        Ok(any)
    }
}

fn binary(op: Operator, left: Physical, right: Physical, input: &Schema) -> Result<Physical> {
    let (left_type, right_type) = (type_of(&left, input)?, type_of(&right, input)?);
    let (left_to, right_to) = BinaryTypeCoercer::new(&left_type, &op, &right_type)
        .get_input_types()
        .map_err(wrong)?;
    physical::binary(
        cast_to(left, &left_to, input)?,
        op,
        cast_to(right, &right_to, input)?,
        input,
    )
    .map_err(wrong)
}

fn case(
    operand: Option<&Expr>,
    when_then: &[(Expr, Expr)],
    otherwise: Option<&Expr>,
    input: &SchemaRef,
) -> Result<Physical> {
    let operand = operand.map(|e| build(e, input)).transpose()?;
    let otherwise = otherwise.map(|e| build(e, input)).transpose()?;
    let mut branches = when_then
        .iter()
        .map(|(when, then)| Ok((build(when, input)?, build(then, input)?)))
        .collect::<Result<Vec<_>>>()?;
    let mut result = DataType::Null;
    for then in branches.iter().map(|b| &b.1).chain(&otherwise) {
        result = type_of(then, input)?;
        if result != DataType::Null {
            break;
        }
    }
    for (_, then) in &mut branches {
        *then = cast_to(then.clone(), &result, input)?;
    }
    let otherwise = otherwise.map(|e| cast_to(e, &result, input)).transpose()?;
    physical::case(operand, branches, otherwise).map_err(wrong)
}

/// A scalar function. COALESCE evaluates its later arguments for the rows that need them only, and
/// so does NVL2, which is CASE.
fn call(name: &str, args: &[Expr], input: &SchemaRef) -> Result<Physical> {
    match (name, args) {
        (name, [_, ..]) if coalesce::NAMES.contains(&name) => {
            let args = args.iter().map(|a| build(a, input));
            return Coalesce::over(args.collect::<Result<_>>()?, input).map_err(wrong);
        }
        ("nvl2", [tested, not_null, null]) => {
            let branches = [(Expr::IsNotNull(Box::new(tested.clone())), not_null.clone())];
            return finish(case(None, &branches, Some(null), input)?, input);
        }
        _ => {}
    }
    let function = functions::lookup(name).ok_or_else(|| {
        Error::user(
            SqlState::UNDEFINED_FUNCTION,
            format!("function {name} does not exist"),
        )
    })?;
    let args = args
        .iter()
        .map(|a| build(a, input))
        .collect::<Result<Vec<_>>>()?;
    let fields = args
        .iter()
        .map(|a| a.return_field(input))
        .collect::<Result<Vec<_>, _>>()
        .map_err(wrong)?;
    let coerced = fields_with_udf(&fields, function.as_ref()).map_err(wrong)?;
    let args = args
        .into_iter()
        .zip(&coerced)
        .map(|(a, field)| cast_to(a, field.data_type(), input))
        .collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(
        ScalarFunctionExpr::try_new(function, args, input, config()).map_err(wrong)?,
    ))
}

/// The settings that functions see: the defaults, time zone UTC.
pub(crate) fn config() -> Arc<ConfigOptions> {
    static CONFIG: OnceLock<Arc<ConfigOptions>> = OnceLock::new();
    CONFIG
        .get_or_init(|| Arc::new(ConfigOptions::default()))
        .clone()
}

fn operator(op: BinaryOp) -> Operator {
    match op {
        BinaryOp::Eq => Operator::Eq,
        BinaryOp::NotEq => Operator::NotEq,
        BinaryOp::Lt => Operator::Lt,
        BinaryOp::LtEq => Operator::LtEq,
        BinaryOp::Gt => Operator::Gt,
        BinaryOp::GtEq => Operator::GtEq,
        BinaryOp::Plus => Operator::Plus,
        BinaryOp::Minus => Operator::Minus,
        BinaryOp::Multiply => Operator::Multiply,
        BinaryOp::Divide => Operator::Divide,
        BinaryOp::Modulo => Operator::Modulo,
        BinaryOp::And => Operator::And,
        BinaryOp::Or => Operator::Or,
        BinaryOp::IsDistinctFrom => Operator::IsDistinctFrom,
        BinaryOp::IsNotDistinctFrom => Operator::IsNotDistinctFrom,
        BinaryOp::RegexMatch => Operator::RegexMatch,
        BinaryOp::RegexIMatch => Operator::RegexIMatch,
        BinaryOp::RegexNotMatch => Operator::RegexNotMatch,
        BinaryOp::RegexNotIMatch => Operator::RegexNotIMatch,
        BinaryOp::BitwiseAnd => Operator::BitwiseAnd,
        BinaryOp::BitwiseOr => Operator::BitwiseOr,
        BinaryOp::BitwiseXor => Operator::BitwiseXor,
        BinaryOp::ShiftLeft => Operator::BitwiseShiftLeft,
        BinaryOp::ShiftRight => Operator::BitwiseShiftRight,
        BinaryOp::StringConcat => Operator::StringConcat,
    }
}

/// A plan's constant as the evaluator's.
pub fn literal(value: &Literal) -> Result<ScalarValue> {
    Ok(match value {
        Literal::Null(data_type) => ScalarValue::try_from(data_type).map_err(wrong)?,
        Literal::Boolean(v) => ScalarValue::Boolean(Some(*v)),
        Literal::Int8(v) => ScalarValue::Int8(Some(*v)),
        Literal::Int16(v) => ScalarValue::Int16(Some(*v)),
        Literal::Int32(v) => ScalarValue::Int32(Some(*v)),
        Literal::Int64(v) => ScalarValue::Int64(Some(*v)),
        Literal::UInt8(v) => ScalarValue::UInt8(Some(*v)),
        Literal::UInt16(v) => ScalarValue::UInt16(Some(*v)),
        Literal::UInt32(v) => ScalarValue::UInt32(Some(*v)),
        Literal::UInt64(v) => ScalarValue::UInt64(Some(*v)),
        Literal::Float32(v) => ScalarValue::Float32(Some(*v)),
        Literal::Float64(v) => ScalarValue::Float64(Some(*v)),
        Literal::Decimal128(text, precision, scale) => {
            let unscaled = text
                .parse()
                .map_err(|_| Error::internal(format!("decimal literal '{text}'")))?;
            ScalarValue::Decimal128(Some(unscaled), *precision, *scale)
        }
        Literal::Utf8(v) => ScalarValue::Utf8(Some(v.clone())),
        Literal::Binary(v) => ScalarValue::Binary(Some(v.clone())),
        Literal::Date32(v) => ScalarValue::Date32(Some(*v)),
        Literal::Time64Micros(v) => ScalarValue::Time64Microsecond(Some(*v)),
        Literal::TimestampMicros(v, zone) => {
            ScalarValue::TimestampMicrosecond(Some(*v), zone.as_deref().map(Into::into))
        }
        Literal::IntervalMonthDayNano(months, days, nanos) => ScalarValue::IntervalMonthDayNano(
            Some(IntervalMonthDayNano::new(*months, *days, *nanos)),
        ),
    })
}
