//! Any correlated subquery as a join: the fallback for what no rule before has a better plan for.
//!
//! A subquery is computed once for all different values of the columns outside that it refers to,
//! its domain, and then joined with the query outside by these values, NULL being equal to NULL.
//! Everything in the subquery is told apart by them: an aggregate groups by them, a window and a
//! LIMIT are one for each, a set operation has them on both sides (the unnesting of arbitrary
//! queries after Neumann and Kemper, 2015).
//!
//! ```text
//! SELECT t.a, u.x FROM t, LATERAL (SELECT s.x FROM s WHERE s.b < t.b ORDER BY s.x LIMIT 3) AS u
//!
//! d := SELECT DISTINCT b FROM t
//! n := SELECT s.x, d.b, row_number() OVER (PARTITION BY d.b ORDER BY s.x) AS place
//!      FROM s, d WHERE s.b < d.b
//! SELECT t.a, n.x FROM t JOIN n ON t.b IS NOT DISTINCT FROM n.b WHERE n.place <= 3
//! ```
//!
//! Of subqueries in expressions:
//!
//! ```text
//! (SELECT x ..)           a left join with it; where it may be several rows, they are collected
//!                         into an array, and only_element takes its one
//! EXISTS (S)              a semi join, NOT EXISTS an anti join; where it is no condition of WHERE,
//!                         a left join that marks matches
//! x op ANY (SELECT y ..)  CASE WHEN EXISTS (S WHERE x op y) THEN true
//!                              WHEN EXISTS (S WHERE y IS NULL) THEN NULL
//!                              WHEN x IS NULL AND EXISTS (S) THEN NULL ELSE false END
//! x op ALL (S)            NOT (x negated-op ANY (S))
//! ```
//!
//! A subquery in the ON of an outer join is one in a LATERAL table, which has the rows that meet
//! it.
//!
//! The query outside is read twice, so it must have the same rows both times. What a subquery
//! refers to may be several queries further out: from the outermost one inwards, each takes the
//! references to it over into the columns of its domain.

mod asked;
mod domain;
mod flat;
mod names;
pub(super) mod references;
mod sets;

use super::calls::Calls;
use super::{conditions, wanted};
use datafusion_common::Result;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_expr::{LogicalPlan, LogicalPlanBuilder};
use names::Names;

/// A plan without correlated subqueries, and with none in a place where joins would answer
/// differently.
///
/// Errors: `0A000` for the few that cannot be joined.
pub(super) fn decorrelated(
    plan: LogicalPlan,
    calls: &Calls,
    maintained: bool,
) -> Result<LogicalPlan> {
    let mut decorrelation = Decorrelation {
        calls,
        maintained,
        names: Names::default(),
        joined: 0,
    };
    decorrelation.plan(plan)
}

struct Decorrelation<'a> {
    calls: &'a Calls,
    /// Whether a value that is the same for all rows has to be one for certain.
    maintained: bool,
    names: Names,
    /// Subqueries that have become joins.
    joined: usize,
}

impl Decorrelation<'_> {
    /// From the outermost query inwards.
    fn plan(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        wanted()?;
        let plan = match plan {
            LogicalPlan::Join(join) if references::lateral(&join.right).is_some() => {
                flat::beside(join, &mut self.names)?
            }
            LogicalPlan::Join(join) if flat::is_asking(&join)? => {
                let plan = flat::with_condition_beside(join)?;
                return self.plan(plan);
            }
            LogicalPlan::Join(join) => flat::with_conditions_above(join)?,
            LogicalPlan::Aggregate(_) => conditions::computed_below(plan, &mut self.names.0)?.data,
            LogicalPlan::Window(_) => {
                let columns = asked::columns_of(plan.schema());
                let below = conditions::computed_below(plan, &mut self.names.0)?;
                match below.transformed {
                    true => LogicalPlanBuilder::from(below.data)
                        .project(columns)?
                        .build()?,
                    false => below.data,
                }
            }
            plan => plan,
        };
        let plan = match plan {
            LogicalPlan::Filter(filter) => self.filter(filter)?,
            LogicalPlan::Projection(projection) => self.projection(projection)?,
            plan => plan,
        };
        let plan = plan.map_subqueries(|inner| self.plan(inner).map(Transformed::yes))?;
        let plan = plan
            .data
            .map_children(|child| self.plan(child).map(Transformed::yes))?;
        plan.data.recompute_schema()
    }
}
