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
    /// Whether no key determines anything.
    static WITHOUT_KEYS: Cell<bool> = const { Cell::new(false) };
    /// Whether the relation that is planned next is one that this planner asks for.
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

/// Plans something in which no key of a table determines its other columns: a temporal join finds
/// the rows of one key as they were at several times.
pub(crate) fn without_keys<T>(plan: impl FnOnce() -> T) -> T {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            WITHOUT_KEYS.set(self.0);
        }
    }
    let _reset = Reset(WITHOUT_KEYS.replace(true));
    plan()
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
                if WITHOUT_KEYS.get() || !matches!(*alias.input, LogicalPlan::TableScan(_)) =>
            {
                let schema = alias.schema.as_ref().clone();
                let nothing = FunctionalDependencies::empty();
                alias.schema = Arc::new(schema.with_functional_dependencies(nothing)?);
                LogicalPlan::SubqueryAlias(alias)
            }
            LogicalPlan::TableScan(mut scan) if WITHOUT_KEYS.get() => {
                let schema = scan.projected_schema.as_ref().clone();
                let nothing = FunctionalDependencies::empty();
                scan.projected_schema = Arc::new(schema.with_functional_dependencies(nothing)?);
                LogicalPlan::TableScan(scan)
            }
            other => other,
        };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(
            plan, None,
        ))))
    }
}
