//! Operands of an operator, by PostgreSQL's signatures of it: a quoted constant, which has no type
//! of its own, takes the one that the operator asks for (`i < '10'` compares integers, `ok =
//! 'true'` booleans), and operands that no operator takes are refused: a text *column* beside an
//! integer is an error, while DataFusion would cast every text to a number and fail, or not, row by
//! row.
//!
//! Operands that have types keep them, but for a `char(n)` beside a text, a `real` beside what is
//! no float, and a time beside an interval: what integers, numerics and floats come to beside each
//! other is the business of the rules after this one.

use super::calls::Calls;
use super::resolve::argument;
use crate::signatures::{Arg, Call, Mismatch, choose_operator, no_operator, signatures};
use crate::types::BPCHAR;
use arrow_schema::{DataType, Field};
use datafusion_common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion_expr::expr::Placeholder;
use datafusion_expr::{Expr, ExprSchemable, Operator};
use std::sync::Arc;
use tidemark_plan::SQL_TYPE;

/// The operator as SQL writes it; `None` of those whose operands are typed elsewhere.
pub(super) fn symbol(op: Operator) -> Option<&'static str> {
    Some(match op {
        Operator::Eq | Operator::IsDistinctFrom | Operator::IsNotDistinctFrom => "=",
        Operator::NotEq => "<>",
        Operator::Lt => "<",
        Operator::LtEq => "<=",
        Operator::Gt => ">",
        Operator::GtEq => ">=",
        Operator::Plus => "+",
        Operator::Minus => "-",
        Operator::Multiply => "*",
        Operator::Divide => "/",
        Operator::Modulo => "%",
        Operator::StringConcat => "||",
        Operator::BitwiseAnd => "&",
        Operator::BitwiseOr => "|",
        Operator::BitwiseXor => "#",
        Operator::BitwiseShiftLeft => "<<",
        Operator::BitwiseShiftRight => ">>",
        _ => return None,
    })
}

/// The operators that `char(n)` has for itself.
const COMPARISONS: &[&str] = &["=", "<>", "<", "<=", ">", ">="];

/// Whether a `char(n)` meets a `varchar`, which has no operators of its own: beside a text it would
/// be a text, beside a `varchar` it stays what it is.
fn is_char_beside(arg: &Arg, other: &Expr, schema: &DFSchema) -> bool {
    let varchar = |field: &Field| {
        let name = field.metadata().get(SQL_TYPE).map(String::as_str);
        *field.data_type() == DataType::Utf8 && name.is_some_and(|name| name.starts_with("varchar"))
    };
    arg.data_type == BPCHAR
        && other
            .to_field(schema)
            .is_ok_and(|(_, field)| varchar(&field))
}

impl Calls {
    /// The operands with the types that the operator takes them as, and whether anything changed.
    ///
    /// Errors: `42883` for types that it does not take, `42725` where nothing tells them. While
    /// names are bound (`settled` is false) integers are wider than they will be.
    pub(super) fn typed(
        &self,
        left: Expr,
        op: Operator,
        right: Expr,
        schema: &DFSchema,
        settled: bool,
    ) -> Result<(Expr, Expr, bool)> {
        let Some(symbol) = symbol(op) else {
            return Ok((left, right, false));
        };
        let (Ok(l), Ok(r)) = (argument(&left, schema), argument(&right, schema)) else {
            return Ok((left, right, false));
        };
        if l.is_record() || r.is_record() {
            return Ok((left, right, false));
        }
        let args = [l, r];
        if COMPARISONS.contains(&symbol) {
            match (
                is_char_beside(&args[0], &right, schema),
                is_char_beside(&args[1], &left, schema),
            ) {
                (true, _) => {
                    return Ok((
                        left,
                        self.convert(right, &args[1].data_type, &BPCHAR)?,
                        true,
                    ));
                }
                (_, true) => {
                    return Ok((
                        self.convert(left, &args[0].data_type, &BPCHAR)?,
                        right,
                        true,
                    ));
                }
                _ => {}
            }
        }
        let call = match choose_operator(signatures(symbol), &args) {
            Ok(call) => call,
            Err(_) if !settled && may_narrow(symbol, &args) => {
                return Ok((left, right, false));
            }
            Err(mismatch) => return Err(refused(symbol, &args, mismatch)),
        };
        let Call { args: wanted, .. } = call;
        // A real beside an integer: both are doubles. Beside an interval it is one by itself.
        let real = args.iter().any(|a| a.data_type == DataType::Float32);
        let spans = wanted.iter().any(|t| matches!(t, DataType::Interval(_)));
        if real && !spans && wanted.contains(&DataType::Float64) {
            let double = |expr, arg: &Arg| match arg.is_unknown() {
                true => self.operand(expr, arg, &DataType::Float64),
                false => Ok((
                    self.convert(expr, &arg.data_type, &DataType::Float64)?,
                    true,
                )),
            };
            let (left, a) = double(left, &args[0])?;
            let (right, b) = double(right, &args[1])?;
            return Ok((left, right, a || b));
        }
        let (left, a) = self.operand(left, &args[0], &wanted[0])?;
        let (right, b) = self.operand(right, &args[1], &wanted[1])?;
        Ok((left, right, a || b))
    }

    /// The types that an operator takes its operands as, while integers are not settled.
    ///
    /// Errors: as [`Calls::typed`].
    pub(super) fn operands_of(&self, symbol: &str, args: [&Arg; 2]) -> Result<Vec<DataType>> {
        let args = args.map(Arg::clone);
        let call = choose_operator(signatures(symbol), &args).or_else(|mismatch| {
            let narrowed = args.each_ref().map(Arg::narrowed);
            choose_operator(signatures(symbol), &narrowed).map_err(|_| mismatch)
        });
        match call {
            Ok(call) => Ok(call.args),
            Err(mismatch) => Err(refused(symbol, &args, mismatch)),
        }
    }

    /// An operand as `wanted`, if it has no type of its own.
    pub(super) fn operand(&self, expr: Expr, arg: &Arg, wanted: &DataType) -> Result<(Expr, bool)> {
        if !arg.is_unknown() && !becomes(&arg.data_type, wanted) || arg.data_type == *wanted {
            return Ok((expr, false));
        }
        Ok(match expr {
            Expr::Placeholder(Placeholder { id, field: None }) => {
                let field = Some(Arc::new(Field::new("", wanted.clone(), true)));
                (Expr::Placeholder(Placeholder { id, field }), true)
            }
            // What is NULL by its type needs none.
            expr if arg.data_type == DataType::Null && !is_null(&expr) => (expr, false),
            expr => (self.convert(expr, &arg.data_type, wanted)?, true),
        })
    }
}

/// Whether an operand that has a type is cast to the one that the operator takes.
fn becomes(is: &DataType, wanted: &DataType) -> bool {
    match (is, wanted) {
        (DataType::LargeUtf8, DataType::Utf8) => true,
        (DataType::Time64(_), DataType::Interval(_)) => true,
        _ => false,
    }
}

/// Whether the operator takes operands that are `bigint`s now as integers.
fn may_narrow(symbol: &str, args: &[Arg; 2]) -> bool {
    let narrowed = args.each_ref().map(Arg::narrowed);
    choose_operator(signatures(symbol), &narrowed).is_ok()
}

fn is_null(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Null, _))
}

pub(super) fn refused(symbol: &str, args: &[Arg; 2], mismatch: Mismatch) -> DataFusionError {
    no_operator(symbol, args.each_ref(), mismatch)
}
