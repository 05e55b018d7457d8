//! The type of an expression, as DataFusion tells it, without the names and arrays that DataFusion
//! makes on the way: for each call in an expression it writes out all that is inside of it, and for
//! each sum it adds up empty arrays, while rules ask for the type of each part.

use arrow_schema::{DataType, Field, FieldRef};
use datafusion_common::{DFSchema, Result, ScalarValue};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion_expr::type_coercion::functions::fields_with_udf;
use datafusion_expr::{BinaryExpr, Expr, ExprSchemable, Operator, ReturnFieldArgs};
use std::sync::Arc;

/// What has a type.
pub(super) trait Typed {
    /// The type, over the columns of a schema.
    fn get_type(&self, schema: &DFSchema) -> Result<DataType>;
}

impl Typed for Expr {
    fn get_type(&self, schema: &DFSchema) -> Result<DataType> {
        match self {
            // What has no type is an error in DataFusion's words.
            Expr::ScalarFunction(call) => {
                result(call, schema).or_else(|_| ExprSchemable::get_type(self, schema))
            }
            Expr::Alias(alias) if !matches!(*alias.expr, Expr::Placeholder(_)) => {
                Typed::get_type(alias.expr.as_ref(), schema)
            }
            Expr::Negative(inner) => Typed::get_type(inner.as_ref(), schema),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let left = Typed::get_type(left.as_ref(), schema)?;
                let right = Typed::get_type(right.as_ref(), schema)?;
                let is_number = left.is_integer() || left.is_floating();
                if is_number && left == right && is_arithmetic(*op) {
                    return Ok(left);
                }
                BinaryTypeCoercer::new(&left, op, &right).get_result_type()
            }
            other => ExprSchemable::get_type(other, schema),
        }
    }
}

/// Whether an operator gives numbers of the type that both of its operands have.
fn is_arithmetic(op: Operator) -> bool {
    use Operator::{Divide, Minus, Modulo, Multiply, Plus};
    matches!(op, Plus | Minus | Multiply | Divide | Modulo)
}

/// The type of an expression over the columns of a schema.
pub fn type_of(expr: &Expr, schema: &DFSchema) -> Result<DataType> {
    Typed::get_type(expr, schema)
}

/// The type of a call's result.
fn result(call: &ScalarFunction, schema: &DFSchema) -> Result<DataType> {
    let fields = call
        .args
        .iter()
        .map(|arg| {
            let data_type = Typed::get_type(arg, schema)?;
            Ok(Arc::new(Field::new("", data_type, true)))
        })
        .collect::<Result<Vec<FieldRef>>>()?;
    let fields = fields_with_udf(&fields, call.func.as_ref())?;
    let constants: Vec<Option<&ScalarValue>> = call
        .args
        .iter()
        .map(|arg| match arg {
            Expr::Literal(value, _) => Some(value),
            _ => None,
        })
        .collect();
    let field = call.func.return_field_from_args(ReturnFieldArgs {
        arg_fields: &fields,
        scalar_arguments: &constants,
    })?;
    Ok(field.data_type().clone())
}
