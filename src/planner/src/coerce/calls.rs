//! The scalar functions that rules write into plans, by name.

use crate::Functions;
use crate::bind::external;
use arrow_schema::DataType;
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{Expr, ScalarUDF, lit};
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

    /// The value as another type, by PostgreSQL's casts: `cast_as(value, NULL::type)`.
    pub(crate) fn cast(&self, value: Expr, to: &DataType) -> Result<Expr> {
        let to = lit(ScalarValue::try_from(to)?);
        self.call("cast_as", vec![value, to])
    }

    /// What equal values have in common: bytes that are equal where the values are, and sort as
    /// the values do.
    pub(crate) fn sort_key(&self, value: Expr) -> Result<Expr> {
        self.call("sort_key", vec![value])
    }
}
