//! Operators that are functions of ours: `~` and its like of texts, LIKE of byte strings, shifts of
//! integers. Operands of other types stay with the operator, whose error tells that there is none.

use super::Calls;
use super::typing::Typed;
use crate::types::BPCHAR;
use arrow_schema::DataType;
use datafusion_common::{DFSchema, Result, ScalarValue};
use datafusion_expr::planner::{PlannerResult, RawBinaryExpr};
use datafusion_expr::{Expr, Like, Operator};
use datafusion_sql::sqlparser::ast::BinaryOperator;

/// The function that an operator is.
pub(super) fn operator(op: &BinaryOperator) -> Option<&'static str> {
    Some(match op {
        BinaryOperator::PGRegexMatch => "textregexeq",
        BinaryOperator::PGRegexIMatch => "texticregexeq",
        BinaryOperator::PGRegexNotMatch => "textregexne",
        BinaryOperator::PGRegexNotIMatch => "texticregexne",
        BinaryOperator::PGBitwiseShiftLeft => "shift_left",
        BinaryOperator::PGBitwiseShiftRight => "shift_right",
        _ => return None,
    })
}

/// The call that an operator is for its operands' types.
pub(super) fn call(
    calls: &Calls,
    name: &str,
    raw: RawBinaryExpr,
    schema: &DFSchema,
) -> Result<PlannerResult<RawBinaryExpr>> {
    let mut raw = raw;
    let shift = match name {
        "shift_left" => Some(Operator::BitwiseShiftLeft),
        "shift_right" => Some(Operator::BitwiseShiftRight),
        _ => None,
    };
    if let Some(op) = shift {
        (raw.left, raw.right, _) = calls.typed(raw.left, op, raw.right, schema, false)?;
    }
    let (left, right) = (raw.left.get_type(schema)?, raw.right.get_type(schema)?);
    let null = |t: &DataType| *t == DataType::Null;
    let fits: fn(&DataType) -> bool = if name.starts_with("shift") {
        DataType::is_integer
    } else {
        |t| matches!(t, DataType::Utf8 | DataType::LargeUtf8)
    };
    let both = (fits(&left) || null(&left)) && (fits(&right) || null(&right));
    if !both || (null(&left) && null(&right)) {
        return Ok(PlannerResult::Original(raw));
    }
    // What is matched keeps its blanks, a pattern has none at its end.
    if right == BPCHAR {
        raw.right = calls.cast(raw.right, &DataType::Utf8)?;
    }
    Ok(PlannerResult::Planned(
        calls.call(name, vec![raw.left, raw.right])?,
    ))
}

/// Whether a cast writes byte strings as text or reads them.
pub(super) fn casts_bytes(from: &DataType, to: &DataType) -> bool {
    matches!(
        (from, to),
        (DataType::Binary, DataType::Utf8) | (DataType::Utf8, DataType::Binary)
    )
}

/// Whether a LIKE compares byte strings, with the escape that there is for them.
pub(super) fn is_of_bytes(like: &Like, schema: &DFSchema) -> Result<bool> {
    let types = (like.expr.get_type(schema)?, like.pattern.get_type(schema)?);
    let of_bytes = types.0 == DataType::Binary || types.1 == DataType::Binary;
    Ok(of_bytes && !like.case_insensitive && like.escape_char.is_none_or(|c| c == '\\'))
}

/// Whether a LIKE may have a pattern that ends with its escape, which is an error once a text is
/// compared that far: any but a constant that does not.
pub(super) fn may_end_in_escape(like: &Like) -> bool {
    let escape = like.escape_char.unwrap_or('\\');
    escape == '\\'
        && match like.pattern.as_ref() {
            Expr::Literal(ScalarValue::Utf8(Some(pattern)), _) => {
                let kept = pattern.trim_end_matches('\\').len();
                (pattern.len() - kept) % 2 == 1
            }
            Expr::Literal(_, _) => false,
            _ => true,
        }
}

/// `text LIKE pattern` as a call that minds an escape at the end.
pub(super) fn checked_like(calls: &Calls, like: Like) -> Result<Expr> {
    let name = match (like.case_insensitive, like.negated) {
        (false, false) => "like",
        (false, true) => "notlike",
        (true, false) => "texticlike",
        (true, true) => "texticnlike",
    };
    calls.call(name, vec![*like.expr, *like.pattern])
}

/// `bytes LIKE pattern` as a call; a quoted constant is a byte string.
pub(super) fn like(calls: &Calls, like: Like, schema: &DFSchema) -> Result<Expr> {
    let bytes = |value: Expr| match value.get_type(schema)? {
        DataType::Utf8 if matches!(value, Expr::Literal(..)) => {
            calls.cast(value, &DataType::Binary)
        }
        _ => Ok(value),
    };
    let name = if like.negated {
        "byteanlike"
    } else {
        "bytealike"
    };
    calls.call(name, vec![bytes(*like.expr)?, bytes(*like.pattern)?])
}
