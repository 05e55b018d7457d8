//! Relations without what DataFusion knows of their keys. Where a subquery groups, it takes the
//! groups for a key, also above a join with something else, and adds to a GROUP BY around it all
//! that it believes to depend on them: rows of one group would be told apart.

use datafusion_common::{FunctionalDependencies, Result};
use datafusion_expr::LogicalPlan;
use datafusion_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion_sql::sqlparser::ast::TableFactor;
use std::cell::Cell;
use std::sync::Arc;

thread_local! {
    /// Whether the relation that is planned next is one that this planner asks for.
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

/// Plans what stands in FROM under a name.
#[derive(Debug)]
pub(crate) struct Unkeyed;

impl RelationPlanner for Unkeyed {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let named = matches!(
            relation,
            TableFactor::Table { .. } | TableFactor::Derived { .. }
        );
        if ASKED.replace(false) || !named {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        ASKED.set(true);
        let plan = context.plan(relation)?;
        let plan = match plan {
            // The key of a table determines its columns, whatever it is joined with.
            LogicalPlan::SubqueryAlias(mut alias)
                if !matches!(*alias.input, LogicalPlan::TableScan(_)) =>
            {
                let schema = alias.schema.as_ref().clone();
                let nothing = FunctionalDependencies::empty();
                alias.schema = Arc::new(schema.with_functional_dependencies(nothing)?);
                LogicalPlan::SubqueryAlias(alias)
            }
            other => other,
        };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(
            plan, None,
        ))))
    }
}
