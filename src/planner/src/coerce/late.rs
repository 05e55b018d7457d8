//! Arithmetic with numerics that may be none, and with integers that may be numerics. When names
//! are bound every integer constant is a `bigint`, so `sum(1)` is a numeric there and `sum(1) / 2`
//! a division of numerics; it is one of integers once the constant is an `integer`
//! ([`super::literals`]). And a CASE has the type of its first branch there, a column of a UNION
//! that of its first query: `n * CASE WHEN x THEN 1 ELSE 0.5 END` is no product with an integer. So
//! binding writes a call that keeps the operator and its operands, with the type that it has so far
//! ([`NumericPlanner`](super::numerics::NumericPlanner)), and [`resolve`] makes of it what it is
//! by the types that have become final, those of CASE among them.

use super::calls::Calls;
use super::numerics::is_exact;
use super::operands::is_compared;
use super::typing::Typed;
use crate::types::is_numeric_bytes;
use arrow_schema::DataType;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DFSchema, Result, not_impl_err};
use datafusion_expr::expr::{Case, ScalarFunction};
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

/// Whether an operator of these operands may be another one when their types are final: if an
/// integer that is no constant stands beside a numeric, or if numerics that are no constants are
/// among them, and none has digits behind the point.
pub(super) fn may_change(op: Operator, operands: &[&Expr], schema: &DFSchema) -> bool {
    if !op.is_numerical_operators() {
        return false;
    }
    let types = operands.iter().map(|e| e.get_type(schema).ok());
    let Some(types) = types.collect::<Option<Vec<DataType>>>() else {
        return false;
    };
    let constant = |e: &Expr| matches!(e, Expr::Literal(..));
    let mut open = operands.iter().zip(&types).filter(|(e, _)| !constant(e));
    if types.iter().any(is_exact) && open.clone().any(|(_, t)| t.is_integer()) {
        return true;
    }
    let has_fraction = |t: &DataType| matches!(t, DataType::Decimal128(_, scale) if *scale != 0);
    !types.iter().any(has_fraction) && open.any(|(_, t)| is_exact(t))
}

/// A CASE whose branches are numbers of several types, with all of one type.
fn case_of_numbers(case: Case, schema: &DFSchema, calls: &Calls) -> Result<Transformed<Expr>> {
    let thens = case.when_then_expr.iter().map(|(_, then)| then.as_ref());
    let branches = thens.chain(case.else_expr.as_deref());
    let types = branches.map(|branch| branch.get_type(schema).ok());
    let Some(mut types) = types.collect::<Option<Vec<DataType>>>() else {
        return Ok(Transformed::no(Expr::Case(case)));
    };
    types.retain(|t| *t != DataType::Null);
    let number = |t: &DataType| t.is_numeric() || is_exact(t);
    let differ = types.windows(2).any(|two| two[0] != two[1]);
    if !differ || !types.iter().all(number) || types.iter().all(DataType::is_integer) {
        return Ok(Transformed::no(Expr::Case(case)));
    }
    calls.case(case, schema)
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
/// What was bound as arithmetic of integers may be one of numerics, too: over a CASE, and over a
/// column of a UNION.
pub(super) fn resolve(expr: Expr, schema: &DFSchema, calls: &Calls) -> Result<Transformed<Expr>> {
    let is_case = |e: &Expr| Ok(matches!(e, Expr::Case(_)));
    let mut fields = schema.fields().iter();
    let turned = fields.any(|f| is_numeric_bytes(f.data_type())) || expr.exists(is_case)?;
    let is_numeric = |e: &Expr| e.get_type(schema).is_ok_and(|t| is_numeric_bytes(&t));
    expr.transform_up(|e| match e {
        Expr::BinaryExpr(b)
            if turned
                && (b.op.is_numerical_operators() || is_compared(b.op))
                && (is_numeric(&b.left) || is_numeric(&b.right)) =>
        {
            calls.operator(b, schema)
        }
        Expr::Case(case) => case_of_numbers(case, schema, calls),
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

/// Whether a value is an integer, a float, or a numeric of one scale: it compares without a key.
fn is_fixed(expr: &Expr, schema: &DFSchema) -> bool {
    let fixed = |t: DataType| t.is_numeric();
    expr.get_type(schema).is_ok_and(fixed)
}

/// The first argument of a call of this function.
fn argument_of<'a>(expr: &'a Expr, function: &str) -> Option<&'a Expr> {
    match expr {
        Expr::ScalarFunction(call) if call.func.name() == function => call.args.first(),
        _ => None,
    }
}
