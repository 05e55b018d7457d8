//! The scalar functions that rules write into plans, by name.

use crate::Functions;
use crate::error::external;
use crate::signatures::bound;
use crate::types::NUMERIC;
use arrow_schema::{DataType, Field};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{DataFusionError, Result, ScalarValue};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, lit};
use std::collections::HashMap;
use std::sync::Arc;
use tidemark_common::Error;

/// Functions by name and alias; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Calls(Arc<HashMap<String, Arc<ScalarUDF>>>);

impl Calls {
    pub(crate) fn new(functions: &Functions) -> Calls {
        let named = functions.scalar.iter().flat_map(|function| {
            let names = function.aliases().iter().map(String::as_str);
            names
                .chain([function.name()])
                .map(|name| (name.to_string(), function.clone()))
                .collect::<Vec<_>>()
        });
        Calls(Arc::new(named.collect()))
    }

    /// `name(args)`.
    pub(crate) fn call(&self, name: &str, args: Vec<Expr>) -> Result<Expr> {
        let function = self
            .0
            .get(name)
            .ok_or_else(|| external(Error::internal(format!("function {name} is not there"))))?;
        Ok(Expr::ScalarFunction(ScalarFunction::new_udf(
            function.clone(),
            args,
        )))
    }

    /// The function of this name.
    pub(super) fn get(&self, name: &str) -> Option<&Arc<ScalarUDF>> {
        self.0.get(name)
    }

    /// `name(args)` as a statement calls it: by PostgreSQL's signatures.
    pub(super) fn overloaded(&self, name: &str, args: Vec<Expr>) -> Result<Expr> {
        match self.0.get(name) {
            Some(function) => Ok(Expr::ScalarFunction(ScalarFunction::new_udf(
                bound(name, function),
                args,
            ))),
            None => self.call(name, args),
        }
    }

    /// The value as another type, by PostgreSQL's casts: `cast_as(value, NULL::type)`. A quoted
    /// constant is read at once, so that a wrong one is an error wherever it stands.
    ///
    /// Errors: those of the constant.
    pub(crate) fn cast(&self, value: Expr, to: &DataType) -> Result<Expr> {
        let is_quoted = matches!(value, Expr::Literal(ScalarValue::Utf8(Some(_)), _));
        // A moment depends on the time zone, which is not known here.
        let settled = !matches!(
            to,
            DataType::Timestamp(_, Some(_))
                | DataType::List(_)
                | DataType::Struct(_)
                | DataType::Map(..)
        );
        let null = lit(ScalarValue::try_from(to)?);
        let call = self.call("cast_as", vec![value, null])?;
        match call {
            // A constant that is a `bigint` would be narrowed.
            Expr::ScalarFunction(call) if is_quoted && *to == DataType::Int64 => {
                constant(call.clone())?;
                Ok(Expr::ScalarFunction(call))
            }
            // Only that it is a number is told at once: it is rounded when it is asked for.
            Expr::ScalarFunction(call) if is_quoted && to.is_decimal() => {
                let mut number = call.clone();
                number.args[1] = lit(ScalarValue::try_from(&NUMERIC)?);
                constant(number)?;
                Ok(Expr::ScalarFunction(call))
            }
            Expr::ScalarFunction(call) if is_quoted && settled => constant(call),
            call => Ok(call),
        }
    }

    /// The value of `name(constant)`.
    pub(super) fn constant_call(&self, name: &str, value: ScalarValue) -> Result<ScalarValue> {
        let Expr::ScalarFunction(call) = self.call(name, vec![lit(value)])? else {
            return Ok(ScalarValue::Null);
        };
        match constant(call)? {
            Expr::Literal(value, _) => Ok(value),
            other => Err(external(Error::internal(format!("{other} has no value")))),
        }
    }

    /// What equal values have in common: bytes that are equal where the values are, and sort as
    /// the values do.
    pub(crate) fn sort_key(&self, value: Expr) -> Result<Expr> {
        self.call("sort_key", vec![value])
    }
}

/// The value of a call of constants, or the call where nothing evaluates it here.
fn constant(call: ScalarFunction) -> Result<Expr> {
    let constants = call.args.iter().map(|arg| match arg {
        Expr::Literal(value, _) => Some(value.clone()),
        _ => None,
    });
    let Some(values) = constants.collect::<Option<Vec<_>>>() else {
        return Ok(Expr::ScalarFunction(call));
    };
    let field = |value: &ScalarValue| Arc::new(Field::new("", value.data_type(), true));
    let arg_fields = values.iter().map(field).collect::<Vec<_>>();
    let references = values.iter().map(Some).collect::<Vec<_>>();
    let return_field = call.func.return_field_from_args(ReturnFieldArgs {
        arg_fields: &arg_fields,
        scalar_arguments: &references,
    })?;
    let evaluated = call.func.invoke_with_args(ScalarFunctionArgs {
        args: values.into_iter().map(ColumnarValue::Scalar).collect(),
        arg_fields,
        number_rows: 1,
        return_field,
        config_options: Arc::new(ConfigOptions::new()),
    });
    match evaluated {
        Ok(ColumnarValue::Scalar(value)) => Ok(lit(value)),
        Ok(_) | Err(DataFusionError::NotImplemented(_)) => Ok(Expr::ScalarFunction(call)),
        Err(error) => Err(error),
    }
}
