//! Arithmetic with numerics that may be none. When names are bound every integer constant is a
//! `bigint`, so `sum(1)` is a numeric there and `sum(1) / 2` a division of numerics; it is one of
//! integers once the constant is an `integer` ([`super::literals`]). So binding writes a call
//! that keeps the operator and its operands, with the type that it has so far
//! ([`NumericPlanner`](super::numerics::NumericPlanner)), and [`resolve`] makes of it what it is
//! by the types that have become final.

use super::calls::Calls;
use super::numerics::is_exact;
use super::typing::Typed;
use arrow_schema::DataType;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DFSchema, Result, not_impl_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{
    BinaryExpr, ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};

/// The function of the key by which numerics are compared.
const KEY: &str = "sort_key";

/// An operator that is bound and not resolved; with one operand it is a sign.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Late {
    op: Operator,
    returns: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for Late {
    fn name(&self) -> &str {
        match self.op {
            Operator::Plus => "+",
            Operator::Minus => "-",
            Operator::Multiply => "*",
            Operator::Divide => "/",
            _ => "%",
        }
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let names = args.iter().map(|arg| arg.schema_name().to_string());
        let names: Vec<String> = names.collect();
        Ok(match names.as_slice() {
            [one] => format!("({} {one})", self.name()),
            several => several.join(&format!(" {} ", self.name())),
        })
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        self.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        not_impl_err!("operator {} was not resolved", self.op)
    }
}

/// Whether an operator of these operands may be another one when their types are final: if numerics
/// that are no constants are among them, and none has digits behind the point.
pub(super) fn may_change(op: Operator, operands: &[&Expr], schema: &DFSchema) -> bool {
    if !op.is_numerical_operators() {
        return false;
    }
    let mut may = false;
    for operand in operands {
        match operand.get_type(schema) {
            Ok(DataType::Decimal128(_, scale)) if scale != 0 => return false,
            Ok(t) => may |= is_exact(&t) && !matches!(operand, Expr::Literal(..)),
            Err(_) => return false,
        }
    }
    may
}

/// The call for an operator that may change, with the type that it has so far.
pub(super) fn bound(op: Operator, operands: Vec<Expr>, returns: DataType) -> Expr {
    let late = Late {
        op,
        returns,
        signature: Signature::any(operands.len(), Volatility::Immutable),
    };
    let function = ScalarUDF::from(late).into();
    Expr::ScalarFunction(ScalarFunction::new_udf(function, operands))
}

/// An expression with all operators in it resolved, and comparisons by key of what is no numeric.
pub(super) fn resolve(expr: Expr, schema: &DFSchema, calls: &Calls) -> Result<Transformed<Expr>> {
    expr.transform_up(|e| match e {
        Expr::ScalarFunction(call) => {
            let Some(late) = call.func.inner().downcast_ref::<Late>() else {
                return Ok(Transformed::no(Expr::ScalarFunction(call)));
            };
            let op = late.op;
            let mut operands = call.args.into_iter();
            let resolved = match (operands.next(), operands.next()) {
                (Some(left), Some(right)) => {
                    let binary = BinaryExpr::new(Box::new(left), op, Box::new(right));
                    calls.operator(binary, schema)?.data
                }
                (Some(operand), None) => calls.negated(operand, schema)?,
                _ => return not_impl_err!("operator {op} without operands"),
            };
            Ok(Transformed::yes(resolved))
        }
        Expr::BinaryExpr(binary) => {
            let key = |e: &Expr| key_of(e, schema).cloned();
            let (Some(left), Some(right)) = (key(&binary.left), key(&binary.right)) else {
                return Ok(Transformed::no(Expr::BinaryExpr(binary)));
            };
            if !is_fixed(&left, schema) && !is_fixed(&right, schema) {
                return Ok(Transformed::no(Expr::BinaryExpr(binary)));
            }
            let plain = BinaryExpr::new(Box::new(left), binary.op, Box::new(right));
            Ok(Transformed::yes(calls.operator(plain, schema)?.data))
        }
        other => Ok(Transformed::no(other)),
    })
}

/// What a key is of, without the cast to a numeric that the key has asked for.
fn key_of<'a>(expr: &'a Expr, schema: &DFSchema) -> Option<&'a Expr> {
    let value = argument_of(expr, KEY)?;
    let plain = argument_of(value, "cast_as").filter(|plain| is_fixed(plain, schema));
    Some(plain.unwrap_or(value))
}

/// Whether a value is an integer, or a numeric of one scale: it compares without a key.
fn is_fixed(expr: &Expr, schema: &DFSchema) -> bool {
    let fixed = |t: DataType| t.is_integer() || matches!(t, DataType::Decimal128(..));
    expr.get_type(schema).is_ok_and(fixed)
}

/// The first argument of a call of this function.
fn argument_of<'a>(expr: &'a Expr, function: &str) -> Option<&'a Expr> {
    match expr {
        Expr::ScalarFunction(call) if call.func.name() == function => call.args.first(),
        _ => None,
    }
}
