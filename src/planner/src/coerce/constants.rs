//! Quoted constants that are cast: whether the text is a value of the type is told when a statement
//! is planned, wherever the constant stands, as PostgreSQL reads it while it parses: `'x'::int` is
//! an error in a branch that is never taken, and under `WHERE false`.
//!
//! Most have been read when their casts were written into the plan ([`Calls::cast`]); these are
//! those of which that makes no value: arrays, rows, and moments in a time zone. The rule changes
//! nothing.

use super::calls::Calls;
use crate::types::NUMERIC;
use arrow_schema::{DataType, Field};
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::{Cast, ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs};
use datafusion_optimizer::AnalyzerRule;
use std::sync::Arc;

/// The rule.
#[derive(Debug)]
pub(super) struct Constants(pub Calls);

impl AnalyzerRule for Constants {
    fn name(&self) -> &str {
        "constants"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let config = &Arc::new(config.clone());
        plan.apply_with_subqueries(|node| {
            node.apply_expressions(|expr| {
                expr.apply(|e| {
                    if let Some((text, to)) = quoted_cast(e) {
                        self.0.read(text, to, config)?;
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        Ok(plan)
    }
}

/// A quoted constant and the type that it is cast to.
fn quoted_cast(expr: &Expr) -> Option<(&ScalarValue, DataType)> {
    let quoted = |e: &Expr| matches!(e, Expr::Literal(ScalarValue::Utf8(Some(_)), _));
    let (value, to) = match expr {
        Expr::Cast(Cast { expr, field }) if quoted(expr) => {
            (expr.as_ref(), field.data_type().clone())
        }
        Expr::ScalarFunction(call) if call.func.name() == "cast_as" => match call.args.as_slice() {
            [value, Expr::Literal(to, _), ..] if quoted(value) => (value, to.data_type()),
            _ => return None,
        },
        _ => return None,
    };
    let Expr::Literal(text, _) = value else {
        return None;
    };
    // How many digits it may have is checked when it is evaluated.
    let to = match to {
        DataType::Decimal128(_, _) => NUMERIC,
        other => other,
    };
    let is_text = matches!(
        to,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    );
    (!is_text).then_some((text, to))
}

impl Calls {
    /// Reads a constant as a value of a type.
    ///
    /// Errors: `22P02` and its like for a text that is none.
    fn read(&self, text: &ScalarValue, to: DataType, config: &Arc<ConfigOptions>) -> Result<()> {
        let Some(cast) = self.get("cast_as") else {
            return Ok(());
        };
        let field = |data_type: DataType| Arc::new(Field::new("", data_type, true));
        let null = ScalarValue::try_from(&to)?;
        cast.invoke_with_args(ScalarFunctionArgs {
            args: vec![
                ColumnarValue::Scalar(text.clone()),
                ColumnarValue::Scalar(null),
            ],
            arg_fields: vec![field(DataType::Utf8), field(to.clone())],
            number_rows: 1,
            return_field: field(to),
            config_options: config.clone(),
        })?;
        Ok(())
    }
}
