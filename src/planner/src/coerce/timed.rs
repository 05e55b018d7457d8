//! ASOF joins of queries that are only read, as a running last value: the rows of both sides stand
//! in one order by time, and each left row has the last right row before it.
//!
//! ```text
//! a ASOF JOIN b ON a.k = b.k AND a.t >= b.t
//!   = SELECT a.*, found.* FROM
//!       (SELECT *, last_value(b) IGNORE NULLS OVER (PARTITION BY k ORDER BY t, side, b.* DESC
//!                                                   ROWS UNBOUNDED PRECEDING) AS found
//!        FROM (SELECT k, t, 1 AS side, a, NULL AS b FROM a UNION ALL
//!              SELECT k, t, 0, NULL, b FROM b WHERE k IS NOT NULL AND t IS NOT NULL))
//!     WHERE side = 1
//! ```
//!
//! For `<=` and `<` the order is the other way round; for `>` and `<` the left rows of a time come
//! before the right ones. Of right rows at one time the last one counts, which is the first by
//! their columns, as in a view.
//!
//! The rule comes when all types are known.

use super::calls::Calls;
use super::keyed::Keyed;
use crate::timed::TimedJoin;
use arrow_schema::Field;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, Result, ScalarValue};
use datafusion_expr::expr::{
    FieldMetadata, NullTreatment, ScalarFunction, Sort, WindowFunction, WindowFunctionParams,
};
use datafusion_expr::logical_plan::{Union, Window};
use datafusion_expr::utils::conjunction;
use datafusion_expr::{
    Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, WindowFrame, WindowFrameBound,
    WindowFrameUnits, WindowFunctionDefinition, lit,
};
use datafusion_functions::core::expr_fn::get_field;
use datafusion_functions::core::named_struct;
use datafusion_functions_aggregate::first_last::last_value_udaf;
use datafusion_optimizer::AnalyzerRule;
use std::sync::Arc;
use tidemark_plan::Nearest;

/// The rule.
#[derive(Debug)]
pub(super) struct Timed(pub Calls);

impl AnalyzerRule for Timed {
    fn name(&self) -> &str {
        "timed"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let mut found = false;
        plan.apply_with_subqueries(|node| {
            found |= matches!(node, LogicalPlan::Extension(_));
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !found {
            return Ok(plan);
        }
        let done = super::rewrite_up(plan, &mut |node, below| {
            let join = match &node {
                LogicalPlan::Extension(extension) => TimedJoin::of(extension),
                _ => None,
            };
            match join {
                Some(join) => self.running(join).map(Transformed::yes),
                None if below => node.recompute_schema().map(Transformed::no),
                None => Ok(Transformed::no(node)),
            }
        })?;
        Ok(done.data)
    }
}

/// The columns of the rows of both sides.
#[derive(Default)]
struct Both {
    lefts: Vec<Expr>,
    rights: Vec<Expr>,
}

impl Both {
    /// Adds a column, and answers its reference.
    fn push(&mut self, name: &str, left: Expr, right: Expr) -> Expr {
        self.lefts.push(left.alias(name));
        self.rights.push(right.alias(name));
        Expr::Column(Column::from_name(name))
    }
}

impl Timed {
    fn key(&self, value: &Expr, schema: &DFSchema) -> Result<Expr> {
        Ok(Keyed(self.0.clone(), true).key(value.clone(), schema)?.data)
    }

    fn running(&self, join: &TimedJoin) -> Result<LogicalPlan> {
        let asof = join.asof()?;
        let (left, right) = (join.left.schema(), join.right.schema());
        let backwards = matches!(asof.comparison, Nearest::AtOrAfter | Nearest::After);
        let strict = matches!(asof.comparison, Nearest::Before | Nearest::After);
        let mut both = Both::default();
        let mut keys = Vec::new();
        for (i, (l, r)) in asof.keys.iter().enumerate() {
            let (l, r) = (self.key(l, left)?, self.key(r, right)?);
            keys.push(both.push(&format!("__key_{i}"), l, r));
        }
        let (l, r) = (
            self.key(&asof.times.0, left)?,
            self.key(&asof.times.1, right)?,
        );
        let time = both.push("__time", l, r);
        // What is first at one time.
        let left_side = i32::from(!strict);
        let side = both.push("__side", lit(left_side), lit(1 - left_side));
        let mut order = vec![
            Sort::new(time.clone(), !backwards, true),
            Sort::new(side.clone(), true, true),
        ];
        let mut fields = Vec::new();
        for (i, column) in right.columns().into_iter().enumerate() {
            let value = Expr::Column(column);
            // Where a view has no keys either, bytes decide.
            let tie = match value.get_type(right)?.is_floating() {
                true => self.key(&value, right)?,
                false => value.clone(),
            };
            let nothing = null_of(&tie, right)?;
            let tie = both.push(&format!("__tie_{i}"), nothing, tie);
            order.push(Sort::new(tie, false, true));
            fields.extend([lit(field_name(i)), value]);
        }
        let row = Expr::ScalarFunction(ScalarFunction::new_udf(named_struct(), fields));
        let nothing = null_of(&row, right)?;
        let row = both.push("__row", nothing, row);
        let mut kept = Vec::new();
        for (i, column) in left.columns().into_iter().enumerate() {
            let value = Expr::Column(column);
            let nothing = null_of(&value, left)?;
            kept.push(both.push(&format!("__left_{i}"), value, nothing));
        }
        let known = keys.iter().chain([&time]).map(|e| e.clone().is_not_null());
        let lefts = LogicalPlanBuilder::from(join.left.clone()).project(both.lefts)?;
        let rights = LogicalPlanBuilder::from(join.right.clone()).project(both.rights)?;
        let rights = rights.filter(conjunction(known).unwrap_or_else(|| lit(true)))?;
        let inputs = vec![Arc::new(lefts.build()?), Arc::new(rights.build()?)];
        let union = LogicalPlan::Union(Union::try_new(inputs)?);
        let window = Window::try_new(vec![last_of(row, keys, order)], Arc::new(union))?;
        let found = window.schema.columns().pop().map(Expr::Column);
        let found = found.unwrap_or_else(|| lit(ScalarValue::Null));
        let wanted = side.eq(lit(left_side));
        let wanted = match join.is_outer() {
            true => wanted,
            false => wanted.and(found.clone().is_not_null()),
        };
        let columns = kept.into_iter().zip(left.iter()).map(|(e, f)| named(e, f));
        let others = right.iter().enumerate().map(|(i, field)| {
            let value = get_field(found.clone(), field_name(i));
            named(value, field)
        });
        LogicalPlanBuilder::from(LogicalPlan::Window(window))
            .filter(wanted)?
            .project(columns.chain(others))?
            .build()
    }
}

fn field_name(i: usize) -> String {
    format!("c{i}")
}

/// NULL of the type of a value.
fn null_of(value: &Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(lit(ScalarValue::try_from(&value.get_type(schema)?)?))
}

/// The value under the name of a column, with what else is known of it.
fn named(
    value: Expr,
    (relation, field): (Option<&datafusion_common::TableReference>, &Arc<Field>),
) -> Expr {
    let metadata = FieldMetadata::from(field.as_ref());
    value.alias_qualified_with_metadata(relation.cloned(), field.name(), Some(metadata))
}

/// The last of these values that is there, up to each row.
fn last_of(value: Expr, partition_by: Vec<Expr>, order_by: Vec<Sort>) -> Expr {
    let window_frame = WindowFrame::new_bounds(
        WindowFrameUnits::Rows,
        WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
        WindowFrameBound::CurrentRow,
    );
    Expr::WindowFunction(Box::new(WindowFunction {
        fun: WindowFunctionDefinition::AggregateUDF(last_value_udaf()),
        params: WindowFunctionParams {
            args: vec![value],
            partition_by,
            order_by,
            window_frame,
            filter: None,
            null_treatment: Some(NullTreatment::IgnoreNulls),
            distinct: false,
        },
    }))
}
