//! Numerics: PostgreSQL's, in which each value has a scale of its own, are bytes to Arrow and
//! DataFusion ([`NUMERIC`]); what is known to have one scale and to fit 38 digits, a constant or a
//! `numeric(10, 2)`, is a `Decimal128` and stays on Arrow's kernels.
//!
//! * Sums, differences and products of `Decimal128`s stay what they are as long as their digits
//!   provably fit; otherwise, and for every quotient, the operands go on as numerics.
//! * What meets (the branches of a CASE, the arguments of `coalesce`, the inputs of a UNION) has
//!   one type. Fixed scales that differ become numerics, so that each value prints as it would
//!   alone.
//! * Numerics compare by their keys (`sort_key`), since equal ones may differ in scale.
//! * A numeric beside a float becomes a `double precision`.
//! * Casts from and to numerics are calls of `cast_as`, which Arrow's casts know nothing of; so are
//!   those between texts and moments, and operators of moments are calls of their functions
//!   ([`moments::operator`]).
//!
//! The same resolution of an operator is used twice: by [`NumericPlanner`] when names are bound, as
//! DataFusion asks for the types of all expressions there, and by the rule [`Numerics`], when the
//! types of subqueries, unions and constants have become final. It is idempotent.

use super::calls::Calls;
use super::casts;
use super::late;
use super::moments;
use super::named;
use super::operands::is_compared;
use super::resolve::argument;
use super::typing::Typed;
use crate::error::external;
use crate::signatures;
use crate::types::{BPCHAR, JSONB, NUMERIC, is_numeric_bytes};
use arrow_schema::DataType;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::Transformed;
use datafusion_common::{DFSchema, Result, ScalarValue};
use datafusion_expr::expr::{Between, InList, Placeholder, ScalarFunction};
use datafusion_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion_expr::{BinaryExpr, Cast, Expr, LogicalPlan, Operator, cast, lit};
use datafusion_optimizer::AnalyzerRule;
use datafusion_sql::sqlparser::ast::BinaryOperator;
use tidemark_common::{Error, SqlState};
use tidemark_plan::SQL_TYPE;

/// The operator that `-x` is bound by, with NULL on its left.
pub(crate) const NEGATE: &str = "-";
/// The same of `+x`.
pub(crate) const KEEP: &str = "+";
/// The operator that makes a double of a real, and leaves what is none, with NULL on its left.
pub(crate) const DOUBLE: &str = "as double";
/// The `=` of a column that a join merges, where its types are not known yet.
pub(crate) const MERGED: &str = "using";
/// The operators that `IS DISTINCT FROM` and `IS NOT DISTINCT FROM` are bound as.
pub(crate) const DISTINCT: &str = "is distinct from";
pub(crate) const NOT_DISTINCT: &str = "is not distinct from";

/// Digits of a `Decimal128`.
const FIXED_DIGITS: i16 = 38;

/// Binds operators over numerics.
#[derive(Debug)]
pub(crate) struct NumericPlanner(pub Calls);

impl ExprPlanner for NumericPlanner {
    fn plan_binary_op(
        &self,
        mut raw: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        super::wanted()?;
        if matches!(&raw.op, BinaryOperator::Custom(op) if op == MERGED) {
            let args = [argument(&raw.left, schema)?, argument(&raw.right, schema)?];
            if signatures::common_of(&args).is_none() {
                return Err(signatures::unmatched("JOIN/USING", &args));
            }
            raw.op = BinaryOperator::Eq;
        }
        let op = match raw.op.clone() {
            BinaryOperator::Plus => Operator::Plus,
            BinaryOperator::Minus => Operator::Minus,
            BinaryOperator::Multiply => Operator::Multiply,
            BinaryOperator::Divide => Operator::Divide,
            BinaryOperator::Modulo => Operator::Modulo,
            BinaryOperator::Eq => Operator::Eq,
            BinaryOperator::NotEq => Operator::NotEq,
            BinaryOperator::Lt => Operator::Lt,
            BinaryOperator::LtEq => Operator::LtEq,
            BinaryOperator::Gt => Operator::Gt,
            BinaryOperator::GtEq => Operator::GtEq,
            BinaryOperator::StringConcat => Operator::StringConcat,
            BinaryOperator::BitwiseAnd => Operator::BitwiseAnd,
            BinaryOperator::BitwiseOr => Operator::BitwiseOr,
            BinaryOperator::PGBitwiseXor => Operator::BitwiseXor,
            ref op if let Some(name) = super::json::operator(op) => {
                return self.0.json(name, raw, schema);
            }
            ref op if let Some(name) = super::text_calls::operator(op) => {
                return super::text_calls::call(&self.0, name, raw, schema);
            }
            BinaryOperator::Custom(sign) if sign == NEGATE || sign == KEEP => {
                return Ok(PlannerResult::Planned(
                    self.0.signed(&sign, raw.right, schema)?,
                ));
            }
            BinaryOperator::Custom(op) if op == DOUBLE => {
                let real = raw.right.get_type(schema).ok() == Some(DataType::Float32);
                return Ok(PlannerResult::Planned(match real {
                    true => cast(raw.right, DataType::Float64),
                    false => raw.right,
                }));
            }
            BinaryOperator::Custom(op) if op == DISTINCT || op == NOT_DISTINCT => {
                let op = if op == DISTINCT {
                    Operator::IsDistinctFrom
                } else {
                    Operator::IsNotDistinctFrom
                };
                let binary = BinaryExpr::new(Box::new(raw.left), op, Box::new(raw.right));
                return Ok(PlannerResult::Planned(
                    self.0.operator(binary, schema)?.data,
                ));
            }
            BinaryOperator::Custom(symbol) => {
                let args = [argument(&raw.left, schema)?, argument(&raw.right, schema)?];
                let args = [&args[0], &args[1]];
                return Err(signatures::no_operator(
                    &symbol,
                    args,
                    signatures::Mismatch::None,
                ));
            }
            _ => return Ok(PlannerResult::Original(raw)),
        };
        let raw = moments::shifted_constant(raw, op, schema);
        let operands = late::may_change(op, &[&raw.left, &raw.right], schema)
            .then(|| vec![raw.left.clone(), raw.right.clone()]);
        let binary = BinaryExpr::new(Box::new(raw.left), op, Box::new(raw.right));
        let bound = self.0.operator(binary, schema)?;
        if bound.transformed {
            return Ok(PlannerResult::Planned(match operands {
                Some(operands) => match bound.data.get_type(schema) {
                    Ok(returns) if is_exact(&returns) => late::bound(op, operands, returns),
                    _ => bound.data,
                },
                None => bound.data,
            }));
        }
        match bound.data {
            Expr::BinaryExpr(BinaryExpr { left, right, .. }) => {
                Ok(PlannerResult::Original(RawBinaryExpr {
                    op: raw.op,
                    left: *left,
                    right: *right,
                }))
            }
            other => Ok(PlannerResult::Planned(other)),
        }
    }

    fn plan_substring(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(
            self.0.overloaded("substring", args)?,
        ))
    }

    fn plan_position(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(self.0.overloaded("position", args)?))
    }

    fn plan_overlay(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(self.0.overloaded("overlay", args)?))
    }
}

/// The rule; it comes before type coercion.
#[derive(Debug)]
pub(super) struct Numerics(pub Calls);

impl AnalyzerRule for Numerics {
    fn name(&self) -> &str {
        "numerics"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        super::rewrite_expressions(plan, |e, schema| self.0.expression(e, schema))
    }
}

/// What an operand is to arithmetic.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Number {
    /// A numeric with a scale of its own.
    Numeric,
    /// Digits before the point, and after it.
    Fixed {
        whole: i16,
        scale: i16,
    },
    /// An integer of at most so many digits.
    Integer {
        digits: i16,
    },
    Float,
    /// NULL, or a quoted constant.
    Untyped,
}

impl Number {
    fn of(expr: &Expr, data_type: &DataType) -> Option<Number> {
        Some(match data_type {
            t if is_numeric_bytes(t) => Number::Numeric,
            DataType::Decimal256(_, _) => Number::Numeric,
            DataType::Decimal128(precision, scale) => Number::Fixed {
                whole: i16::from(*precision) - i16::from(*scale),
                scale: i16::from(*scale),
            },
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
                Number::Integer {
                    digits: integer(expr).map_or_else(|| digits_of(data_type), digits),
                }
            }
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
                Number::Integer { digits: 20 }
            }
            DataType::Float16 | DataType::Float32 | DataType::Float64 => Number::Float,
            DataType::Null => Number::Untyped,
            DataType::Utf8 if is_quoted(expr) => Number::Untyped,
            _ => return None,
        })
    }

    fn is_exact(self) -> bool {
        matches!(self, Number::Numeric | Number::Fixed { .. })
    }

    /// Digits before and after the point; `None` where they are not known.
    fn digits(self) -> Option<(i16, i16)> {
        match self {
            Number::Fixed { whole, scale } => Some((whole, scale)),
            Number::Integer { digits } => Some((digits, 0)),
            _ => None,
        }
    }
}

fn digits_of(integer: &DataType) -> i16 {
    match integer {
        DataType::Int8 => 3,
        DataType::Int16 => 5,
        DataType::Int32 => 10,
        _ => 19,
    }
}

fn digits(value: i64) -> i16 {
    value
        .unsigned_abs()
        .checked_ilog10()
        .map_or(1, |d| d as i16 + 1)
}

/// The value of an integer constant.
fn integer(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::Int16(v), _) => v.map(i64::from),
        Expr::Literal(ScalarValue::Int32(v), _) => v.map(i64::from),
        Expr::Literal(ScalarValue::Int64(v), _) => *v,
        _ => None,
    }
}

pub(super) fn is_quoted(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Utf8(Some(_)), _))
}

/// A numeric, whose digits are all there.
pub(super) fn is_exact(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Decimal128(_, _) | DataType::Decimal256(_, _)
    ) || is_numeric_bytes(data_type)
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric() || is_numeric_bytes(data_type)
}

fn as_double(expr: Expr, data_type: &DataType) -> Expr {
    if *data_type == DataType::Float64 {
        expr
    } else {
        cast(expr, DataType::Float64)
    }
}

impl Calls {
    /// The value as a numeric.
    fn numeric(&self, value: Expr, data_type: &DataType) -> Result<Expr> {
        if is_numeric_bytes(data_type) {
            Ok(value)
        } else {
            self.cast(value, &NUMERIC)
        }
    }

    /// An operator whose operands are numerics, in a form that can be evaluated.
    pub(super) fn operator(
        &self,
        binary: BinaryExpr,
        schema: &DFSchema,
    ) -> Result<Transformed<Expr>> {
        let BinaryExpr { left, op, right } = binary;
        let (left, right, typed) = self.typed(*left, op, *right, schema, false)?;
        let binary = BinaryExpr::new(Box::new(left), op, Box::new(right));
        let unchanged = |b| Ok(Transformed::new_transformed(Expr::BinaryExpr(b), typed));
        let (Ok(left), Ok(right)) = (binary.left.get_type(schema), binary.right.get_type(schema))
        else {
            return unchanged(binary);
        };
        if left == JSONB || right == JSONB {
            return self.of_json(binary, &left, &right);
        }
        if op == Operator::StringConcat {
            return self.concatenation(binary, &left, &right);
        }
        if matches!(op, Operator::Multiply | Operator::Divide)
            && (moments::is_time(&left) || moments::is_time(&right))
        {
            let span = DataType::Interval(arrow_schema::IntervalUnit::MonthDayNano);
            let spans = |e: Box<Expr>, t: &DataType| match moments::is_time(t) {
                true => self.cast(*e, &span).map(Box::new),
                false => Ok(e),
            };
            let (l, r) = (spans(binary.left, &left)?, spans(binary.right, &right)?);
            return self.operator(BinaryExpr::new(l, op, r), schema);
        }
        if let Some(name) = moments::operator(op, &left, &right) {
            // The function takes the moment or interval first.
            let is_second =
                is_number(&left) || moments::is_time(&left) && right == DataType::Date32;
            let ((left, _), (by, by_type)) = if is_second {
                ((binary.right, right), (binary.left, left))
            } else {
                ((binary.left, left), (binary.right, right))
            };
            let by = match is_number(&by_type) && moments::scales(name) {
                true => self.double(*by, &by_type)?,
                false => *by,
            };
            return Ok(Transformed::yes(self.call(name, vec![*left, by])?));
        }
        // The optimiser takes `x # x` for 0, which it is not where x is NULL.
        if op == Operator::BitwiseXor && left.is_integer() && right.is_integer() {
            let args = vec![*binary.left, *binary.right];
            return Ok(Transformed::yes(self.call("int_xor", args)?));
        }
        let numbers = (
            Number::of(&binary.left, &left),
            Number::of(&binary.right, &right),
        );
        let (Some(l), Some(r)) = numbers else {
            return unchanged(binary);
        };
        if !l.is_exact() && !r.is_exact() {
            return unchanged(binary);
        }
        if l == Number::Float || r == Number::Float {
            if left == right || (left == DataType::Float64 && right == DataType::Float64) {
                return unchanged(binary);
            }
            return Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(
                Box::new(self.double(*binary.left, &left)?),
                op,
                Box::new(self.double(*binary.right, &right)?),
            ))));
        }
        if is_compared(op) {
            return self.comparison(binary, (l, &left), (r, &right));
        }
        let Some(name) = arithmetic(op) else {
            return unchanged(binary);
        };
        if let (Some(a), Some(b)) = (l.digits(), r.digits())
            && fits(op, a, b)
        {
            return fixed(binary, (l, a), (r, b));
        }
        let operand = |e: Expr, n: Number| match n {
            Number::Untyped => self.cast(e, &NUMERIC),
            _ => Ok(e),
        };
        let args = vec![operand(*binary.left, l)?, operand(*binary.right, r)?];
        Ok(Transformed::yes(self.call(name, args)?))
    }

    /// `-x` and `+x`.
    fn signed(&self, sign: &str, operand: Expr, schema: &DFSchema) -> Result<Expr> {
        let mut operand = operand;
        let mut data_type = operand.get_type(schema)?;
        if moments::is_time(&data_type) {
            data_type = DataType::Interval(arrow_schema::IntervalUnit::MonthDayNano);
            operand = self.cast(operand, &data_type)?;
        }
        if let Expr::Literal(ScalarValue::Utf8(_) | ScalarValue::Null, _) = &operand {
            if sign == KEEP {
                return self.cast(operand, &DataType::Float64);
            }
            let message = format!("operator is not unique: {sign} unknown");
            let error = Error::user(SqlState("42725"), message);
            return Err(external(error.with_hint(
                "Could not choose a best candidate operator. You might need to add explicit type \
                 casts.",
            )));
        }
        let takes = data_type.is_numeric()
            || is_numeric_bytes(&data_type)
            || matches!(data_type, DataType::Interval(_) | DataType::Null);
        if !takes {
            let message = format!(
                "operator does not exist: {sign} {}",
                crate::types::sql_type_name(&data_type)
            );
            return Err(external(
                Error::user(SqlState::UNDEFINED_FUNCTION, message)
                    .with_hint("You might need to add explicit type casts."),
            ));
        }
        if sign == KEEP {
            return Ok(operand);
        }
        if late::may_change(Operator::Minus, &[&operand], schema) {
            return Ok(late::bound(Operator::Minus, vec![operand], data_type));
        }
        self.negated(operand, schema)
    }

    /// `-x` of what has its final type.
    pub(super) fn negated(&self, operand: Expr, schema: &DFSchema) -> Result<Expr> {
        if has_bytes(&operand, schema) {
            self.call("numeric_negate", vec![operand])
        } else {
            Ok(Expr::Negative(Box::new(operand)))
        }
    }

    fn double(&self, expr: Expr, data_type: &DataType) -> Result<Expr> {
        if is_numeric_bytes(data_type) {
            self.cast(expr, &DataType::Float64)
        } else {
            Ok(as_double(expr, data_type))
        }
    }

    /// Numerics compare by their keys, and bring what they are compared with to numerics.
    fn comparison(
        &self,
        binary: BinaryExpr,
        (l, left): (Number, &DataType),
        (r, right): (Number, &DataType),
    ) -> Result<Transformed<Expr>> {
        if l != Number::Numeric && r != Number::Numeric {
            return Ok(Transformed::no(Expr::BinaryExpr(binary)));
        }
        let key = |e: Expr, t: &DataType| self.sort_key(self.numeric(e, t)?);
        Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(
            Box::new(key(*binary.left, left)?),
            binary.op,
            Box::new(key(*binary.right, right)?),
        ))))
    }

    /// `'n = ' || n`.
    fn concatenation(
        &self,
        binary: BinaryExpr,
        left: &DataType,
        right: &DataType,
    ) -> Result<Transformed<Expr>> {
        let other = |t: &DataType| {
            matches!(
                t,
                DataType::List(_)
                    | DataType::Binary
                    | DataType::Struct(_)
                    | DataType::Map(..)
                    | DataType::Null
            )
        };
        let record =
            |a: &DataType, b: &DataType| matches!((a, b), (DataType::Struct(_), DataType::Utf8));
        // A byte string beside a text is written as one; a quoted constant is none any more.
        let written = |a: &DataType, b: &DataType| {
            *a == DataType::Binary && matches!(b, DataType::Utf8 | DataType::LargeUtf8)
        };
        let records = record(left, right) || record(right, left);
        let texts = written(left, right) || written(right, left);
        if !records && !texts && (left == right || other(left) || other(right)) {
            return Ok(Transformed::no(Expr::BinaryExpr(binary)));
        }
        let text = |e: Expr, t: &DataType| self.convert(e, t, &DataType::Utf8);
        Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(
            Box::new(text(*binary.left, left)?),
            Operator::StringConcat,
            Box::new(text(*binary.right, right)?),
        ))))
    }

    /// Any expression, given that those below are done.
    pub(super) fn expression(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        match expr {
            Expr::BinaryExpr(binary) => self.operator(binary, schema),
            Expr::Negative(inner) if has_bytes(&inner, schema) => {
                Ok(Transformed::yes(self.call("numeric_negate", vec![*inner])?))
            }
            Expr::Between(between) => self.between(between, schema),
            Expr::InList(list) => self.in_list(list, schema),
            Expr::Case(case) => self.case(case, schema),
            Expr::Like(like) if super::text_calls::is_of_bytes(&like, schema)? => {
                super::text_calls::like(self, like, schema).map(Transformed::yes)
            }
            Expr::Like(mut like) if like.pattern.get_type(schema)? == BPCHAR => {
                // What is matched keeps its blanks.
                *like.pattern = self.cast(*like.pattern, &DataType::Utf8)?;
                Ok(Transformed::yes(Expr::Like(like)))
            }
            Expr::Like(like)
                if super::text_calls::may_end_in_escape(&like)
                    && like.expr.get_type(schema)? == DataType::Utf8
                    && like.pattern.get_type(schema)? == DataType::Utf8 =>
            {
                super::text_calls::checked_like(self, like).map(Transformed::yes)
            }
            Expr::Like(like) => {
                for operand in [&like.expr, &like.pattern] {
                    if let Some(name) = bytes_name(operand, schema) {
                        let message = format!("operator does not exist: {name} ~~ text");
                        return Err(undefined(message));
                    }
                }
                Ok(Transformed::no(Expr::Like(like)))
            }
            Expr::ScalarFunction(call) => self.function(call, schema),
            Expr::Cast(Cast { expr, field }) if is_untyped_parameter(&expr) => {
                let Expr::Placeholder(Placeholder { id, .. }) = *expr else {
                    return Ok(Transformed::no(Expr::Cast(Cast { expr, field })));
                };
                let field = Some(field);
                let typed = Expr::Placeholder(Placeholder { id, field });
                Ok(Transformed::yes(typed))
            }
            Expr::Cast(Cast { expr, field }) => {
                let Ok(from) = expr.get_type(schema) else {
                    return Ok(Transformed::no(Expr::Cast(Cast { expr, field })));
                };
                let to = field.data_type();
                if field.metadata().contains_key(SQL_TYPE) && named::is_named(&from, to) {
                    return self.named_cast(*expr, &from, field);
                }
                let renamed = from == *to
                    && matches!(to, DataType::List(_))
                    && named::has_name(&expr, schema)
                    && !field.metadata().contains_key(SQL_TYPE);
                if !casts::exists(&from, to) {
                    let name = crate::types::sql_type_name;
                    let message = format!("cannot cast type {} to {}", name(&from), name(to));
                    return Err(external(Error::user(SqlState("42846"), message)));
                }
                if casts::is_ours(&from, to) || renamed {
                    return Ok(Transformed::yes(self.cast(*expr, to)?));
                }
                Ok(Transformed::no(Expr::Cast(Cast { expr, field })))
            }
            other => Ok(Transformed::no(other)),
        }
    }

    fn between(&self, between: Between, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let Between {
            expr,
            negated,
            low,
            high,
        } = between;
        let mut operands = vec![*expr, *low, *high];
        let changed = self.compared(&mut operands, schema)?;
        let (high, low) = (operands.remove(2), operands.remove(1));
        Ok(Transformed::new_transformed(
            Expr::Between(Between::new(
                Box::new(operands.remove(0)),
                negated,
                Box::new(low),
                Box::new(high),
            )),
            changed,
        ))
    }

    fn in_list(&self, list: InList, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let InList {
            expr,
            list,
            negated,
        } = list;
        let mut operands: Vec<Expr> = std::iter::once(*expr).chain(list).collect();
        let changed = self.compared(&mut operands, schema)?;
        let expr = Box::new(operands.remove(0));
        Ok(Transformed::new_transformed(
            Expr::InList(InList::new(expr, operands, negated)),
            changed,
        ))
    }

    /// Operands that are compared with each other: keys, if one of them is a numeric.
    pub(super) fn compared(&self, operands: &mut [Expr], schema: &DFSchema) -> Result<bool> {
        let types = types_of(operands, schema);
        let any = |is: fn(&DataType) -> bool| types.iter().flatten().any(is);
        let floats = any(|t| t.is_floating());
        let exact = any(|t| matches!(t, DataType::Decimal128(_, _)));
        if !any(is_numeric_bytes) && !(floats && exact) {
            return Ok(false);
        }
        for (operand, data_type) in operands.iter_mut().zip(&types) {
            let (Some(data_type), value) = (data_type, std::mem::take(operand)) else {
                continue;
            };
            *operand = if floats {
                self.double(value, data_type)?
            } else {
                self.sort_key(self.numeric(value, data_type)?)?
            };
        }
        Ok(true)
    }

    /// Brings values that become one column, or one result, to one type; answers whether anything
    /// changed.
    ///
    /// Errors: `42804` for values of which `name` makes no one type.
    pub(super) fn united(
        &self,
        name: &str,
        values: &mut [&mut Expr],
        schema: &DFSchema,
    ) -> Result<bool> {
        let args = values
            .iter()
            .map(|value| argument(value, schema))
            .collect::<Result<Vec<_>>>();
        // What has no type yet (a parameter) leaves the rest as it is.
        let Ok(args) = args else {
            return Ok(false);
        };
        let Some(common) = signatures::common_of(&args) else {
            return Err(signatures::unmatched(name, &args));
        };
        let mut changed = false;
        for (value, arg) in values.iter_mut().zip(&args) {
            if arg.data_type != common {
                let old = std::mem::take(*value);
                **value = self.convert(old, &arg.data_type, &common)?;
                changed = true;
            }
        }
        Ok(changed)
    }

    fn function(&self, call: ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
        if OF_TEXT_OR_BYTES.contains(&call.func.name())
            && let Some(name) = call.args.iter().find_map(|a| bytes_name(a, schema))
        {
            let message = format!("function {}({name}) does not exist", call.func.name());
            return Err(undefined(message));
        }
        let ScalarFunction { func, mut args } = call;
        let changed = match func.name() {
            "ifnull" | "nvl" | "make_array" => {
                self.united("ARRAY", &mut args.iter_mut().collect::<Vec<_>>(), schema)?
            }
            "concat" | "concat_ws" => self.texts(&mut args, schema)?,
            _ => false,
        };
        Ok(Transformed::new_transformed(
            Expr::ScalarFunction(ScalarFunction::new_udf(func, args)),
            changed,
        ))
    }

    /// Numerics, JSONB and arrays among arguments that are put together become text.
    fn texts(&self, args: &mut [Expr], schema: &DFSchema) -> Result<bool> {
        let mut changed = false;
        for arg in args {
            let own = |t: DataType| t == JSONB || matches!(t, DataType::List(_));
            if has_bytes(arg, schema) || arg.get_type(schema).is_ok_and(own) {
                *arg = self.cast(std::mem::take(arg), &DataType::Utf8)?;
                changed = true;
            }
        }
        Ok(changed)
    }
}

/// Functions of texts or byte strings, to which DataFusion would hand the bytes of our types.
const OF_TEXT_OR_BYTES: [&str; 47] = [
    "ascii",
    "bit_length",
    "btrim",
    "char_length",
    "character_length",
    "contains",
    "decode",
    "digest",
    "encode",
    "ends_with",
    "find_in_set",
    "initcap",
    "left",
    "length",
    "levenshtein",
    "lower",
    "lpad",
    "ltrim",
    "md5",
    "octet_length",
    "overlay",
    "position",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "regexp_match",
    "regexp_replace",
    "repeat",
    "replace",
    "reverse",
    "right",
    "rpad",
    "rtrim",
    "sha224",
    "sha256",
    "sha384",
    "sha512",
    "split_part",
    "starts_with",
    "strpos",
    "substr",
    "substr_index",
    "substring",
    "to_hex",
    "translate",
    "trim",
    "upper",
];

fn is_untyped_parameter(expr: &Expr) -> bool {
    matches!(expr, Expr::Placeholder(Placeholder { field: None, .. }))
}

fn undefined(message: String) -> datafusion_common::DataFusionError {
    external(
        Error::user(SqlState::UNDEFINED_FUNCTION, message)
            .with_hint("You might need to add explicit type casts."),
    )
}

/// The SQL name of an expression's type, where it is bytes of ours.
fn bytes_name(expr: &Expr, schema: &DFSchema) -> Option<String> {
    let data_type = expr.get_type(schema).ok()?;
    (is_numeric_bytes(&data_type) || data_type == JSONB)
        .then(|| crate::types::sql_type_name(&data_type))
}

fn has_bytes(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|t| is_numeric_bytes(&t))
}

fn types_of(exprs: &[Expr], schema: &DFSchema) -> Vec<Option<DataType>> {
    exprs.iter().map(|e| e.get_type(schema).ok()).collect()
}

fn arithmetic(op: Operator) -> Option<&'static str> {
    Some(match op {
        Operator::Plus => "numeric_add",
        Operator::Minus => "numeric_subtract",
        Operator::Multiply => "numeric_multiply",
        Operator::Divide => "numeric_divide",
        Operator::Modulo => "numeric_modulo",
        _ => return None,
    })
}

/// Whether the digits of the result fit a `Decimal128` whatever the operands are.
fn fits(op: Operator, (l_whole, l_scale): (i16, i16), (r_whole, r_scale): (i16, i16)) -> bool {
    if l_scale < 0 || r_scale < 0 {
        return false;
    }
    let scale = l_scale.max(r_scale);
    let digits = match op {
        Operator::Plus | Operator::Minus => l_whole.max(r_whole) + scale + 1,
        Operator::Multiply => l_whole + l_scale + r_whole + r_scale,
        // The dividend is brought to the common scale first.
        Operator::Modulo => l_whole.max(r_whole) + scale,
        _ => return false,
    };
    digits <= FIXED_DIGITS
}

/// An operator over `Decimal128`s; integers beside them get no more digits than they need.
fn fixed(
    binary: BinaryExpr,
    (l, l_digits): (Number, (i16, i16)),
    (r, r_digits): (Number, (i16, i16)),
) -> Result<Transformed<Expr>> {
    let mut changed = false;
    let mut operand = |e: Expr, n: Number, (whole, _): (i16, i16)| {
        if !matches!(n, Number::Integer { .. }) {
            return e;
        }
        changed = true;
        match integer(&e) {
            Some(v) => lit(ScalarValue::Decimal128(Some(v.into()), whole as u8, 0)),
            None => cast(e, DataType::Decimal128(whole as u8, 0)),
        }
    };
    let left = operand(*binary.left, l, l_digits);
    let right = operand(*binary.right, r, r_digits);
    Ok(Transformed::new_transformed(
        Expr::BinaryExpr(BinaryExpr::new(Box::new(left), binary.op, Box::new(right))),
        changed,
    ))
}

/// The type of values that become one: `None` where DataFusion finds it.
pub(super) fn common_type(types: &[&DataType]) -> Option<DataType> {
    let json = |t: &DataType| *t == JSONB || *t == DataType::Utf8 || *t == DataType::Null;
    if types.iter().any(|t| **t == JSONB) && types.iter().all(|t| json(t)) {
        return Some(JSONB);
    }
    if !types.iter().any(|t| is_exact(t)) {
        return None;
    }
    let typed = types.iter().filter(|t| **t != &DataType::Null);
    if typed
        .clone()
        .any(|t| !is_number(t) && *t != &DataType::Utf8)
    {
        return None;
    }
    if let Some(float) = typed
        .clone()
        .filter(|t| t.is_floating())
        .max_by_key(|t| t.primitive_width())
    {
        return Some((*float).clone());
    }
    if typed
        .clone()
        .any(|t| is_numeric_bytes(t) || *t == &DataType::Utf8)
    {
        return Some(NUMERIC);
    }
    let scale = |t: &DataType| match t {
        DataType::Decimal128(_, scale) => Some(*scale),
        t if t.is_integer() => Some(0),
        _ => None,
    };
    let mut scales = typed.map(|t| scale(t));
    let first = scales.next().flatten()?;
    if scales.all(|s| s == Some(first)) {
        None
    } else {
        Some(NUMERIC)
    }
}
