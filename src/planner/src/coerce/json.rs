//! Operators of JSONB, which are calls: found by PostgreSQL's signatures where they are JSONB's
//! only, and by the types of their operands where others have them.

use super::calls::Calls;
use super::numerics::is_quoted;
use super::operands::is_compared;
use super::resolve::argument;
use super::typed::refused;
use crate::signatures::Mismatch;
use crate::types::{BPCHAR, JSONB};
use arrow_schema::{DataType, Field};
use datafusion_common::tree_node::Transformed;
use datafusion_common::{DFSchema, Result, ScalarValue};
use datafusion_expr::planner::{PlannerResult, RawBinaryExpr};
use datafusion_expr::{BinaryExpr, Expr, Operator};
use datafusion_sql::sqlparser::ast::BinaryOperator;
use std::sync::Arc;

/// The function that an operator of JSONB is.
pub(super) fn operator(op: &BinaryOperator) -> Option<&'static str> {
    Some(match op {
        BinaryOperator::Arrow => "jsonb_get",
        BinaryOperator::LongArrow => "jsonb_get_text",
        BinaryOperator::HashArrow => "jsonb_extract_path",
        BinaryOperator::HashLongArrow => "jsonb_extract_path_text",
        BinaryOperator::AtArrow => "jsonb_contains",
        BinaryOperator::ArrowAt => "jsonb_contained",
        BinaryOperator::Question => "jsonb_exists",
        BinaryOperator::QuestionPipe => "jsonb_exists_any",
        BinaryOperator::QuestionAnd => "jsonb_exists_all",
        BinaryOperator::HashMinus => "jsonb_delete_path",
        BinaryOperator::AtQuestion => "jsonb_path_exists_opr",
        BinaryOperator::AtAt => "jsonb_path_match_opr",
        _ => return None,
    })
}

impl Calls {
    /// An operator of JSONB; anything but `->` and its like is found by its type.
    pub(super) fn json(
        &self,
        name: &str,
        raw: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let (Ok(left), Ok(right)) = (argument(&raw.left, schema), argument(&raw.right, schema))
        else {
            return Ok(PlannerResult::Original(raw));
        };
        // PostgreSQL has these for `json` too.
        let both = matches!(
            name,
            "jsonb_get" | "jsonb_get_text" | "jsonb_extract_path" | "jsonb_extract_path_text"
        );
        if both && left.is_unknown() {
            return Err(refused(
                &raw.op.to_string(),
                &[left, right],
                Mismatch::Several,
            ));
        }
        let wanted = self.operands_of(&raw.op.to_string(), [&left, &right])?;
        let (left, _) = self.operand(raw.left, &left, &wanted[0])?;
        let padded =
            matches!(&right.data_type, DataType::List(item) if *item.data_type() == BPCHAR);
        let (right, _) = self.operand(raw.right, &right, &wanted[1])?;
        // Names in a path are texts, without the blanks of a `char(n)`.
        let right = if padded {
            let texts = Field::new_list_field(DataType::Utf8, true);
            self.cast(right, &DataType::List(Arc::new(texts)))?
        } else {
            right
        };
        let args = self.path_read(name, vec![left, right])?;
        Ok(PlannerResult::Planned(self.call(name, args)?))
    }

    /// A path that is a constant is read while a statement is planned, whether rows come or not.
    pub(super) fn path_read(&self, function: &str, mut args: Vec<Expr>) -> Result<Vec<Expr>> {
        if function.starts_with("jsonb_path_")
            && let [_, path, ..] = args.as_mut_slice()
            && matches!(path, Expr::Literal(ScalarValue::Utf8(Some(_)), _))
        {
            *path = self.call("jsonpath", vec![path.clone()])?;
        }
        Ok(args)
    }

    /// Comparisons by key, `||` and `-` of JSONB.
    pub(super) fn of_json(
        &self,
        binary: BinaryExpr,
        left: &DataType,
        right: &DataType,
    ) -> Result<Transformed<Expr>> {
        let json = |e: Expr, t: &DataType| {
            if *t == DataType::Utf8 {
                self.cast(e, &JSONB)
            } else {
                Ok(e)
            }
        };
        let BinaryExpr {
            left: l,
            op,
            right: r,
        } = binary;
        Ok(Transformed::yes(match op {
            op if is_compared(op) => Expr::BinaryExpr(BinaryExpr::new(
                Box::new(self.sort_key(json(*l, left)?)?),
                op,
                Box::new(self.sort_key(json(*r, right)?)?),
            )),
            Operator::StringConcat if is_quoted(&l) || is_quoted(&r) || left == right => {
                self.call("jsonb_concat", vec![json(*l, left)?, json(*r, right)?])?
            }
            Operator::StringConcat => {
                let text = |e: Expr, t: &DataType| {
                    if *t == JSONB {
                        self.cast(e, &DataType::Utf8)
                    } else {
                        Ok(e)
                    }
                };
                Expr::BinaryExpr(BinaryExpr::new(
                    Box::new(text(*l, left)?),
                    op,
                    Box::new(text(*r, right)?),
                ))
            }
            Operator::Minus => self.call("jsonb_delete", vec![*l, *r])?,
            op => {
                return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr::new(l, op, r))));
            }
        }))
    }
}
