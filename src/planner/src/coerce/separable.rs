//! What correlated subqueries may do. DataFusion makes joins of them: it moves the conditions on
//! columns of the outside up, through everything that stands above them, and groups by the inner
//! sides of equalities. That is another query where something above looks at the rows together:
//!
//! * an aggregate without GROUP BY, or a grouping set of nothing, has a row for no rows. At the top
//!   of scalar and LATERAL subqueries that is mended by the join. Elsewhere such a subquery becomes
//!   a scalar one, since it has one row:
//!
//! ```text
//! EXISTS (SELECT count(*) FROM S)                  true
//! EXISTS (SELECT ... FROM S HAVING p)              (SELECT p FROM S) IS TRUE
//! (SELECT sum(x) FROM S HAVING p)                  CASE WHEN (SELECT p FROM S)
//!                                                       THEN (SELECT sum(x) FROM S) END
//! x op ANY (SELECT count(*) FROM S), IN and ALL    x op (SELECT count(*) FROM S)
//! ```
//!
//! * window functions, LIMIT and OFFSET, set operations and outer joins would count the rows of all
//!   outer rows; so would DISTINCT and GROUP BY in FROM if the condition is no equality.
//!
//! All of these are refused here, before anything is rewritten: the rules after this one find no
//! subquery that a join would answer differently. Subqueries inside of subqueries are each looked
//! at alone.

use super::looked_up::keeps_first;
use crate::error::external;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::logical_plan::{Aggregate, Distinct, Join, Projection, Subquery};
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{
    BinaryExpr, Case, Expr, JoinType, LogicalPlan, LogicalPlanBuilder, Operator, lit,
};
use datafusion_optimizer::AnalyzerRule;
use std::sync::Arc;
use tidemark_common::Error;

/// The rule.
#[derive(Debug)]
pub(super) struct Separable;

/// What a subquery is for.
#[derive(Clone, Copy, PartialEq)]
enum Use {
    /// EXISTS.
    Exists,
    /// IN, ANY and ALL.
    Compared,
    /// One value.
    Scalar,
    /// A table of FROM.
    Lateral,
}

/// What the conditions below a node know of the outside.
#[derive(Clone, Copy, Default)]
struct Outside {
    /// They refer to it.
    known: bool,
    /// By something other than an equality of the two sides.
    loose: bool,
}

impl AnalyzerRule for Separable {
    fn name(&self) -> &str {
        "separable"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let done = plan.transform_up_with_subqueries(|node| {
            // Subqueries of expressions are no inputs.
            for input in node.inputs() {
                if let LogicalPlan::Subquery(subquery) = input {
                    check(&subquery.subquery, Use::Lateral, true)?;
                }
            }
            let names = NamePreserver::new(&node);
            let rewritten = node.map_expressions(|expr| {
                let name = names.save(&expr);
                let done = expr.transform_up(of_one_row)?;
                check_subqueries(&done.data)?;
                Ok(if done.transformed {
                    done.update_data(|e| name.restore(e))
                } else {
                    done
                })
            })?;
            if rewritten.transformed {
                rewritten.map_data(LogicalPlan::recompute_schema)
            } else {
                Ok(rewritten)
            }
        })?;
        Ok(done.data)
    }
}

/// A subquery of exactly one row, or one whose one row HAVING decides about, as a scalar one.
fn of_one_row(expr: Expr) -> Result<Transformed<Expr>> {
    Ok(match &expr {
        Expr::Exists(exists) => match single(&exists.subquery) {
            Some((None, _)) => Transformed::yes(lit(!exists.negated)),
            Some((Some(having), groups)) if !having.contains_outer() => {
                let met = met(having, groups, &exists.subquery)?;
                Transformed::yes(if exists.negated {
                    Expr::IsNotTrue(Box::new(met))
                } else {
                    Expr::IsTrue(Box::new(met))
                })
            }
            _ => Transformed::no(expr),
        },
        Expr::InSubquery(i) if is_value(&i.subquery) => {
            let op = if i.negated {
                Operator::NotEq
            } else {
                Operator::Eq
            };
            Transformed::yes(compared(&i.expr, op, &i.subquery))
        }
        Expr::SetComparison(set) if is_value(&set.subquery) => {
            Transformed::yes(compared(&set.expr, set.op, &set.subquery))
        }
        Expr::ScalarSubquery(subquery) => match single(subquery) {
            Some((Some(having), groups)) if !having.contains_outer() => {
                let met = met(having, groups, subquery)?;
                let value = scalar(without_having(subquery)?, subquery);
                Transformed::yes(Expr::Case(Case {
                    expr: None,
                    when_then_expr: vec![(Box::new(met), Box::new(value))],
                    else_expr: None,
                }))
            }
            _ => Transformed::no(expr),
        },
        _ => Transformed::no(expr),
    })
}

/// What HAVING decides about the one row.
fn met(having: &Expr, groups: &LogicalPlan, subquery: &Subquery) -> Result<Expr> {
    let plan = LogicalPlanBuilder::from(groups.clone())
        .project([having.clone().alias("having")])?
        .build()?;
    Ok(scalar(plan, subquery))
}

fn without_having(subquery: &Subquery) -> Result<LogicalPlan> {
    let plan = subquery.subquery.as_ref().clone();
    let plan = plan.transform_down(|node| {
        Ok(match node {
            LogicalPlan::Filter(filter) => {
                let below = Arc::unwrap_or_clone(filter.input);
                Transformed::new(below, true, TreeNodeRecursion::Stop)
            }
            other => Transformed::no(other),
        })
    })?;
    Ok(plan.data)
}

fn compared(x: &Expr, op: Operator, subquery: &Subquery) -> Expr {
    let value = scalar(subquery.subquery.as_ref().clone(), subquery);
    Expr::BinaryExpr(BinaryExpr::new(Box::new(x.clone()), op, Box::new(value)))
}

fn scalar(plan: LogicalPlan, subquery: &Subquery) -> Expr {
    Expr::ScalarSubquery(Subquery {
        outer_ref_columns: plan.all_out_ref_exprs(),
        subquery: Arc::new(plan),
        spans: subquery.spans.clone(),
    })
}

/// The aggregate without groups that a correlated subquery ends with, and the HAVING above it.
fn single(subquery: &Subquery) -> Option<(Option<&Expr>, &LogicalPlan)> {
    if subquery.outer_ref_columns.is_empty() {
        return None;
    }
    let (mut having, mut plan) = (None, subquery.subquery.as_ref());
    loop {
        plan = match plan {
            LogicalPlan::Projection(projection) if having.is_none() => &projection.input,
            LogicalPlan::SubqueryAlias(alias) if having.is_none() => &alias.input,
            LogicalPlan::Sort(sort) if having.is_none() && sort.fetch.is_none() => &sort.input,
            LogicalPlan::Filter(filter) if having.is_none() => {
                having = Some(&filter.predicate);
                &filter.input
            }
            LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => {
                return Some((having, plan));
            }
            _ => return None,
        }
    }
}

/// Whether it has one row and one column.
fn is_value(subquery: &Subquery) -> bool {
    subquery.subquery.schema().fields().len() == 1 && matches!(single(subquery), Some((None, _)))
}

/// Checks the subqueries that an expression has itself.
fn check_subqueries(expr: &Expr) -> Result<()> {
    expr.apply(|e| {
        let (subquery, of) = match e {
            Expr::Exists(exists) => (&exists.subquery, Use::Exists),
            Expr::InSubquery(i) => (&i.subquery, Use::Compared),
            Expr::SetComparison(set) => (&set.subquery, Use::Compared),
            Expr::ScalarSubquery(subquery) => (subquery, Use::Scalar),
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        check(&subquery.subquery, of, true)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// Refuses what looks at correlated rows together; `top`: nothing above the node does more than
/// compute of each row.
fn check(plan: &LogicalPlan, of: Use, top: bool) -> Result<Outside> {
    let mut outside = Outside::default();
    // A subquery in FROM that is correlated itself refers to what stands beside it.
    if matches!(plan, LogicalPlan::Subquery(_)) {
        return Ok(outside);
    }
    let still = match plan {
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Sort(_) => top,
        _ => false,
    };
    let mut sides = Vec::with_capacity(2);
    for input in plan.inputs() {
        let below = check(input, of, still)?;
        outside.known |= below.known;
        outside.loose |= below.loose;
        sides.push(below.known);
    }
    if outside.known {
        check_node(plan, of, top, outside, &sides)?;
    }
    if plan.contains_outer_reference() {
        outside.known = true;
        outside.loose |= match plan {
            LogicalPlan::Filter(filter) => split_conjunction(&filter.predicate)
                .into_iter()
                .any(|c| c.contains_outer() && !pairs(c)),
            _ => true,
        };
    }
    Ok(outside)
}

/// Whether a condition is an equality of something inside with something outside, or about the
/// outside alone.
fn pairs(condition: &Expr) -> bool {
    condition.column_refs().is_empty() || is_equality(condition)
}

/// Whether a condition is an equality, with the columns inside on one side and those outside on
/// the other.
pub(super) fn is_equality(condition: &Expr) -> bool {
    let Expr::BinaryExpr(b) = condition else {
        return false;
    };
    let mixed = |e: &Expr| e.contains_outer() && !e.column_refs().is_empty();
    let apart =
        condition.column_refs().is_empty() || b.left.contains_outer() != b.right.contains_outer();
    matches!(b.op, Operator::Eq | Operator::IsNotDistinctFrom)
        && apart
        && !mixed(&b.left)
        && !mixed(&b.right)
}

fn check_node(
    plan: &LogicalPlan,
    of: Use,
    top: bool,
    outside: Outside,
    sides: &[bool],
) -> Result<()> {
    let refused = match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate_refused(aggregate, of, top, outside),
        LogicalPlan::Distinct(Distinct::On(_)) => Some("DISTINCT ON"),
        LogicalPlan::Distinct(_) if of == Use::Lateral && outside.loose => {
            Some("DISTINCT and a condition other than = on the outside")
        }
        LogicalPlan::Window(_) => Some("window functions"),
        LogicalPlan::Limit(limit) if !(of == Use::Exists && top && keeps_first(limit)?) => {
            Some("LIMIT or OFFSET")
        }
        LogicalPlan::Projection(projection)
            if matches!(of, Use::Scalar | Use::Lateral) && loses_constants(projection) =>
        {
            Some("aggregates without GROUP BY and constants beside them")
        }
        LogicalPlan::Union(_) | LogicalPlan::RecursiveQuery(_) => Some("set operations"),
        LogicalPlan::Join(join) => join_refused(join, sides),
        LogicalPlan::Extension(_) => Some("ASOF joins or temporal joins"),
        _ => None,
    };
    match refused {
        Some(what) => Err(unsupported(what)),
        None => Ok(()),
    }
}

/// Whether there are constants in what is computed of an aggregate's one row: the join has NULL for
/// them where it has no row.
fn loses_constants(projection: &Projection) -> bool {
    let mut plan = projection.input.as_ref();
    while matches!(
        plan,
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Sort(_)
    ) {
        plan = plan.inputs()[0];
    }
    let one = matches!(plan, LogicalPlan::Aggregate(a) if a.group_expr.is_empty());
    one && projection.expr.iter().any(|e| e.column_refs().is_empty())
}

fn aggregate_refused(
    aggregate: &Aggregate,
    of: Use,
    top: bool,
    outside: Outside,
) -> Option<&'static str> {
    let groups = &aggregate.group_expr;
    if groups.iter().any(|e| matches!(e, Expr::GroupingSet(_))) {
        return Some("GROUPING SETS, ROLLUP or CUBE");
    }
    if groups.is_empty() {
        let mended = top && matches!(of, Use::Scalar | Use::Lateral);
        return (!mended)
            .then_some("aggregates without GROUP BY under HAVING or another query level");
    }
    let loose = of == Use::Lateral && outside.loose;
    loose.then_some("GROUP BY and a condition other than = on the outside")
}

/// A row of the other side must not depend on whether there is one on the correlated side; joins of
/// the other kinds are INTERSECT and EXCEPT.
fn join_refused(join: &Join, sides: &[bool]) -> Option<&'static str> {
    let (left, right) = (sides.first() == Some(&true), sides.get(1) == Some(&true));
    match join.join_type {
        JoinType::Inner => None,
        JoinType::Left if !right => None,
        JoinType::Right if !left => None,
        JoinType::Left | JoinType::Right | JoinType::Full => Some("an outer join"),
        _ => Some("set operations"),
    }
}

fn unsupported(what: &str) -> DataFusionError {
    let error = Error::unsupported(format!(
        "a correlated subquery with {what} is not supported"
    ));
    external(error.with_hint("Join the relations instead, and group or number the rows by a key."))
}
