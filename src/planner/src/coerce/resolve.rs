//! Calls, resolved: in place of a function as it was bound ([`Overloaded`]), the function that
//! evaluates it, of arguments that have the types its signature declares, and brought to the type
//! of result that it declares.

use super::calls::Calls;
use super::typing::Typed;
use crate::signatures::{Arg, Overloaded, Type, is_argument, type_text};
use crate::types::NUMERIC;
use arrow_schema::DataType;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::Transformed;
use datafusion_common::{DFSchema, Result, ScalarValue};
use datafusion_expr::expr::{Case, Placeholder, ScalarFunction};
use datafusion_expr::{BinaryExpr, Expr, LogicalPlan, Operator, lit};
use datafusion_optimizer::AnalyzerRule;
use std::sync::Arc;

/// The rule; it comes when the types of operators are final.
#[derive(Debug)]
pub(super) struct Resolve(pub Calls);

impl AnalyzerRule for Resolve {
    fn name(&self) -> &str {
        "resolve"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        super::rewrite_expressions(plan, |e, schema| self.0.resolved(e, schema))
    }
}

impl Calls {
    fn resolved(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else {
            return Ok(Transformed::no(expr));
        };
        let Some(overloaded) = func.inner().downcast_ref::<Overloaded>() else {
            return Ok(Transformed::no(Expr::ScalarFunction(
                ScalarFunction::new_udf(func, args),
            )));
        };
        let types = args
            .iter()
            .map(|a| argument(a, schema))
            .collect::<Result<Vec<_>>>()?;
        let call = overloaded.resolve(&types)?;
        if func.name() == "pg_typeof" {
            return Ok(Transformed::yes(lit(type_text(&types[0]))));
        }
        let args = args
            .into_iter()
            .zip(types.iter().zip(&call.args))
            .map(|(arg, (is, wanted))| match arg {
                Expr::Placeholder(Placeholder { id, field: None }) => {
                    let field = arrow_schema::Field::new("", wanted.clone(), true);
                    let field = Some(Arc::new(field));
                    Ok(Expr::Placeholder(Placeholder { id, field }))
                }
                arg => self.convert(arg, &is.data_type, wanted),
            })
            .collect::<Result<Vec<_>>>()?;
        if is_argument(func.name())
            && let [value] = args.as_slice()
        {
            return Ok(Transformed::yes(value.clone()));
        }
        let args = match func.name() {
            "overlaps" => self.ends(args, schema)?,
            path if path.starts_with("jsonb_path_") => self.path_read(path, args)?,
            name => self.of_any_scale(name, args, schema)?,
        };
        if func.name() == "nullif"
            && let Some(case) = self.null_if(&args, schema)?
        {
            return Ok(Transformed::yes(case));
        }
        let inner = ScalarFunction::new_udf(overloaded.inner.clone(), args);
        let inner = Expr::ScalarFunction(inner);
        let gives = inner.get_type(schema)?;
        // Numerics of one scale stay what they are.
        if Type::of(&gives) == Type::of(&call.result) {
            return Ok(Transformed::yes(inner));
        }
        Ok(Transformed::yes(self.convert(
            inner,
            &gives,
            &call.result,
        )?))
    }
}

impl Calls {
    /// `nullif` of moments of which one depends on the time zone: they are compared as what both
    /// are.
    fn null_if(&self, args: &[Expr], schema: &DFSchema) -> Result<Option<Expr>> {
        let [value, other] = args else {
            return Ok(None);
        };
        let types = [value.get_type(schema)?, other.get_type(schema)?];
        let zoned = |t: &DataType| matches!(t, DataType::Timestamp(_, Some(_)));
        let Some(common) = types.iter().find(|t| zoned(t)) else {
            return Ok(None);
        };
        if types[0] == types[1] {
            return Ok(None);
        }
        let equal = Expr::BinaryExpr(BinaryExpr::new(
            Box::new(self.convert(value.clone(), &types[0], common)?),
            Operator::Eq,
            Box::new(self.convert(other.clone(), &types[1], common)?),
        ));
        let null = lit(ScalarValue::try_from(&types[0])?);
        Ok(Some(Expr::Case(Case::new(
            None,
            vec![(Box::new(equal), Box::new(null))],
            Some(Box::new(value.clone())),
        ))))
    }

    /// The four ends of two periods, of which the second of each may be given by its length.
    fn ends(&self, mut args: Vec<Expr>, schema: &DFSchema) -> Result<Vec<Expr>> {
        for i in [1, 3] {
            if !matches!(args[i].get_type(schema)?, DataType::Interval(_)) {
                continue;
            }
            let (start, length) = (args[i - 1].clone(), args[i].clone());
            args[i] = match start.get_type(schema)? {
                DataType::Time64(_) => self.call("time_plus_interval", vec![start, length])?,
                _ => start + length,
            };
        }
        Ok(args)
    }

    /// What is rounded to a scale that is computed has no type of one scale: once the scale has
    /// become a constant, the type would be another.
    fn of_any_scale(&self, name: &str, args: Vec<Expr>, schema: &DFSchema) -> Result<Vec<Expr>> {
        let computed = |e: &Expr| !matches!(e, Expr::Literal(_, _));
        if !matches!(name, "round" | "trunc") || !args.get(1).is_some_and(computed) {
            return Ok(args);
        }
        let mut args = args.into_iter();
        let Some(value) = args.next() else {
            return Ok(Vec::new());
        };
        let is = value.get_type(schema)?;
        let value = self.convert(value, &is, &NUMERIC)?;
        Ok(std::iter::once(value).chain(args).collect())
    }
}

/// An argument as signatures see it.
pub(super) fn argument(arg: &Expr, schema: &DFSchema) -> Result<Arg> {
    let constant = match arg {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    };
    Ok(Arg::new(&arg.get_type(schema)?, constant))
}
