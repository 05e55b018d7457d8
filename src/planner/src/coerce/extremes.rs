//! `min` and `max` take what PostgreSQL's do: no booleans, uuids, byte strings, jsonb and rows. The
//! rule is the first, before others write extremes of their own; a plan that is analyzed again has
//! those too, and they are let be.

use super::typing::Typed;
use crate::error::external;
use crate::types::{JSONB, UUID, sql_type_name};
use arrow_schema::DataType;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, Result};
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{Expr, LogicalPlan, WindowFunctionDefinition};
use datafusion_optimizer::AnalyzerRule;
use tidemark_common::{Error, SqlState};

/// The rule.
#[derive(Debug)]
pub(super) struct Extremes;

impl AnalyzerRule for Extremes {
    fn name(&self) -> &str {
        "extremes"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.apply_with_subqueries(|node| {
            if matches!(node, LogicalPlan::Aggregate(_) | LogicalPlan::Window(_)) {
                let schema = merge_schema(&node.inputs());
                node.apply_expressions(|expr| expr.apply(|e| checked(e, &schema)))?;
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(plan)
    }
}

fn checked(expr: &Expr, schema: &DFSchema) -> Result<TreeNodeRecursion> {
    let (name, args) = match expr {
        // An extreme of ours.
        Expr::Alias(alias) if alias.name.starts_with("__") => return Ok(TreeNodeRecursion::Jump),
        Expr::AggregateFunction(call) => (call.func.name(), &call.params.args),
        Expr::WindowFunction(call) => match &call.fun {
            WindowFunctionDefinition::AggregateUDF(func) => (func.name(), &call.params.args),
            WindowFunctionDefinition::WindowUDF(_) => return Ok(TreeNodeRecursion::Continue),
        },
        _ => return Ok(TreeNodeRecursion::Continue),
    };
    let ([value], "min" | "max") = (args.as_slice(), name) else {
        return Ok(TreeNodeRecursion::Continue);
    };
    let of_ours =
        matches!(value, Expr::ScalarFunction(call) if call.func.name().ends_with("_bytes"));
    let data_type = value.get_type(schema)?;
    let unordered = matches!(
        data_type,
        DataType::Boolean | DataType::Binary | DataType::Struct(_) | DataType::Map(..)
    ) || data_type == UUID
        || data_type == JSONB;
    if !unordered || of_ours {
        return Ok(TreeNodeRecursion::Continue);
    }
    let type_name = sql_type_name(&data_type);
    Err(external(
        Error::user(
            SqlState::UNDEFINED_FUNCTION,
            format!("function {name}({type_name}) does not exist"),
        )
        .with_hint(
            "No function matches the given name and argument types. You might need to add \
             explicit type casts.",
        ),
    ))
}
