//! PostgreSQL's rules of types around DataFusion's coercion, as analyzer rules in the order of
//! [`analyzer_rules`]:
//!
//! 1. [`records`]: whether a row is NULL; [`extremes`]: `min` and `max` of what has no order are
//!    refused; [`ordered`] and [`derived`]:
//!    subqueries in ORDER BY, and queries in the FROM of subqueries, that refer to the outside
//!    stand where they can be decorrelated; [`separable`]: correlated subqueries that joins would
//!    answer differently are refused; [`quantified`]: `IN`, `ANY`
//!    and `ALL` of subqueries become counts and extremes where their NULL matters; [`lateral`]:
//!    lists of the columns before them are unnested beside these;
//!    [`in_subquery`]: `IN (subquery)` becomes EXISTS where DataFusion's join for it would answer
//!    differently; [`decorrelate`]: what these refuse is joined by the values that it refers to;
//! 2. [`literals`]: integer constants are `integer` when they fit, numeric ones have no negative
//!    scale; with it [`unions`]: floats and numerics unite as floats; [`late`]: arithmetic with
//!    what was a numeric while all integers were `bigint` is resolved;
//! 3. [`Operators`], from the inside of each expression out, so that what an operator is applied to
//!    has its final type: [`moments`]: dates become timestamps beside timestamps and intervals;
//!    [`operands`]: a quoted constant takes the type of the other operand; text and numbers do not
//!    compare; [`numerics`]: arithmetic and casts of numerics; [`cases`]: the common type of the
//!    branches of a CASE;
//! 4. [`texts`]: booleans that are put together with text;
//! 5. [`resolve`]: calls by PostgreSQL's signatures;
//! 6. [`literals`] again: references from subqueries to columns outside of them know the types that
//!    these have got; and [`numerics`] for what unions have come to;
//! 7. [`arrays`]: what meets in an array, or beside one, gets one type;
//!    [`constants`]: a quoted constant is a value of the type that it is cast to;
//! 8. [`keyed`]: values that are equal and still differ compare, group and sort by keys;
//!    [`frames`]: RANGE frames with offsets go by distances;
//! 9. DataFusion's coercion. It casts what meets to a common type, so no type may change after it;
//!     [`records`]: no cast of rows is by names; [`nulls`]: strict functions of a constant NULL are
//!     NULL; [`filtered`]: aggregates compute
//!     their arguments for the rows that their FILTER keeps;
//! 10. [`zones`]: what depends on the session's time zone gets its name;
//! 11. [`correlated`]: what subqueries compare with columns outside of them becomes columns;
//!     [`timed`]: ASOF joins of ad-hoc queries become what DataFusion can run.
//!
//! Ad-hoc queries use the same list, so that an expression has one type everywhere.

mod apart;
mod arrays;
mod calls;
mod cases;
mod casts;
mod collect;
mod conditions;
mod constants;
mod correlated;
mod decorrelate;
mod derived;
mod extremes;
mod filtered;
mod frames;
mod in_subquery;
mod json;
mod keyed;
mod late;
mod lateral;
mod literals;
mod looked_up;
mod moments;
mod named;
mod nulls;
mod numerics;
mod operands;
mod ordered;
mod quantified;
mod records;
mod recursive;
mod renamed;
mod resolve;
mod separable;
mod sideways;
mod single_row;
mod subqueries;
mod text_calls;
mod texts;
mod timed;
mod typed;
mod typing;
mod unions;
mod zones;

pub(crate) use calls::Calls;
pub use looked_up::KeyOf;
pub(crate) use numerics::{DISTINCT, DOUBLE, KEEP, MERGED, NEGATE, NOT_DISTINCT};
pub(crate) use recursive::MARK;
pub use subqueries::Decorrelated;
pub(crate) use subqueries::{Context, embedded_in};
pub use typing::type_of;
pub use zones::SessionZone;

use crate::error::external;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DFSchema, Result};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::planner::ExprPlanner;
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{Expr, LogicalPlan};
use datafusion_optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion_optimizer::{AnalyzerRule, OptimizerConfig, OptimizerRule};
use std::sync::Arc;
use subqueries::{Fallback, Subqueries};

/// An error when nobody waits for the plan any more: a rule may take long for one expression, and
/// may pass over the error of a type that cannot be told.
fn wanted() -> Result<()> {
    tidemark_common::check_interrupt().map_err(external)
}

/// Rewrites every expression of a plan and of its subqueries from the inside out, given the columns
/// that it reads. Columns keep their names; the types of everything above are computed anew, also
/// where only something below has another type now.
fn rewrite_expressions(
    plan: LogicalPlan,
    rewrite: impl Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<LogicalPlan> {
    Ok(rewrite_up(plan, &mut |node, below| rewrite_node(node, below, &rewrite))?.data)
}

/// Rewrites every node of a plan and of its subqueries from the inside out; each is told whether
/// anything below it was changed. Where nothing was, its types are what they were, and need not be
/// computed anew: DataFusion writes out the name of every part of an expression for that.
pub fn rewrite_up(
    plan: LogicalPlan,
    rewrite: &mut impl FnMut(LogicalPlan, bool) -> Result<Transformed<LogicalPlan>>,
) -> Result<Transformed<LogicalPlan>> {
    let inside = plan.map_subqueries(|inner| rewrite_up(inner, rewrite))?;
    let below = inside.transform_sibling(|node| node.map_children(|c| rewrite_up(c, rewrite)))?;
    let changed = below.transformed;
    let node = rewrite(below.data, changed)?;
    Ok(Transformed::new_transformed(
        node.data,
        changed || node.transformed,
    ))
}

/// The same for the expressions of one node; `below`: whether anything below it was changed.
fn rewrite_node(
    node: LogicalPlan,
    below: bool,
    rewrite: impl Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    let schema = merge_schema(&node.inputs());
    let names = NamePreserver::new(&node);
    let rewritten = node.map_expressions(|expr| {
        let name = names.save(&expr);
        let rewritten = expr.transform_up(|e| {
            wanted()?;
            rewrite(e, &schema)
        })?;
        Ok(match rewritten.transformed {
            true => rewritten.update_data(|e| name.restore(e)),
            false => rewritten,
        })
    })?;
    match below || rewritten.transformed {
        true => rewritten.map_data(LogicalPlan::recompute_schema),
        false => Ok(rewritten),
    }
}

/// What binds operators over our own types.
pub(crate) fn expr_planners(calls: &Calls) -> Vec<Arc<dyn ExprPlanner>> {
    vec![
        Arc::new(arrays::ArrayPlanner(calls.clone())),
        Arc::new(numerics::NumericPlanner(calls.clone())),
    ]
}

type Rules = Vec<Arc<dyn AnalyzerRule + Send + Sync>>;

/// The analyzer rules of a bound query, DataFusion's type coercion included; `key_of` tells tables'
/// keys; `read_once`: the query is not maintained.
pub(crate) fn analyzer_rules(calls: &Calls, key_of: KeyOf, read_once: bool) -> Rules {
    let literals = |first| {
        let calls = calls.clone();
        Arc::new(literals::Literals { calls, first })
    };
    let subqueries: Rules = vec![
        Arc::new(ordered::Ordered),
        Arc::new(apart::Apart),
        Arc::new(derived::Derived),
        Arc::new(looked_up::LookedUp(key_of)),
        Arc::new(conditions::Conditions),
        Arc::new(single_row::SingleRows(calls.clone(), read_once, key_of)),
        Arc::new(separable::Separable),
        Arc::new(lateral::Laterals),
        Arc::new(quantified::Quantified),
        Arc::new(in_subquery::InSubqueries),
    ];
    let mut rules: Rules = vec![
        Arc::new(records::Nulls(calls.clone())),
        Arc::new(extremes::Extremes),
        Arc::new(Subqueries {
            rules: stopped(subqueries),
            fallback: Some(Fallback {
                calls: calls.clone(),
                maintained: !read_once,
            }),
        }),
        literals(true),
        Arc::new(Operators(calls.clone())),
        Arc::new(texts::Texts),
        Arc::new(resolve::Resolve(calls.clone())),
        literals(false),
        Arc::new(numerics::Numerics(calls.clone())),
        Arc::new(arrays::Arrays(calls.clone())),
        Arc::new(constants::Constants(calls.clone())),
        Arc::new(keyed::Keyed(calls.clone(), read_once)),
        Arc::new(TypeCoercion::new()),
        Arc::new(records::Casts),
        Arc::new(nulls::Nulls),
        Arc::new(filtered::Filtered),
        Arc::new(zones::Zones(calls.clone())),
        Arc::new(Subqueries {
            rules: stopped(vec![Arc::new(correlated::Correlated)]),
            fallback: None,
        }),
    ];
    if read_once {
        rules.push(Arc::new(timed::Timed(calls.clone())));
    }
    stopped(rules)
}

/// Rules, with a [`Stop`] before each.
fn stopped(rules: Rules) -> Rules {
    let stop = |rule| [Arc::new(Stop) as Arc<dyn AnalyzerRule + Send + Sync>, rule];
    rules.into_iter().flat_map(stop).collect()
}

/// The types of operands, and what operators, casts and CASE are with these.
#[derive(Debug)]
struct Operators(Calls);

impl AnalyzerRule for Operators {
    fn name(&self) -> &str {
        "operators"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        rewrite_expressions(plan, |expr, schema| {
            moments::moment(expr, schema)?
                .transform_data(|e| self.0.operands(e, schema))?
                .transform_data(|e| self.0.expression(e, schema))
        })
    }
}

/// Before each rule: ends a planning for which nobody waits any more.
#[derive(Debug)]
pub(crate) struct Stop;

impl AnalyzerRule for Stop {
    fn name(&self) -> &str {
        "stop"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        wanted()?;
        Ok(plan)
    }
}

impl OptimizerRule for Stop {
    fn name(&self) -> &str {
        "stop"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        wanted()?;
        Ok(Transformed::no(plan))
    }
}
