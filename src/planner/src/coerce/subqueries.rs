//! The rules of subqueries, and [`decorrelate`] for what they refuse or would leave in a place
//! where no join answers it. They have the better plans: an equality with the outside is a join by
//! it, without a domain. Most statements have no subquery, and one look spares them all of this.

use super::Rules;
use super::apart::{self, subquery_of};
use super::calls::Calls;
use super::decorrelate::{decorrelated, references};
use super::ordered::Ordered;
use super::separable::is_equality;

use crate::error::external;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::logical_plan::Subquery;
use datafusion_expr::utils::{merge_schema, split_conjunction};
use datafusion_expr::{Expr, LogicalPlan, Operator};
use datafusion_optimizer::AnalyzerRule;
use tidemark_common::{Error, SqlState};

/// The rules, as one.
#[derive(Debug)]
pub(super) struct Subqueries {
    pub rules: Rules,
    /// What is decorrelated where the rules do not answer; none: nothing.
    pub fallback: Option<Fallback>,
}

#[derive(Debug)]
pub(super) struct Fallback {
    pub calls: Calls,
    /// Whether the query is maintained, where DataFusion's joins do not answer all that they do in
    /// one that is read once.
    pub maintained: bool,
}

impl AnalyzerRule for Subqueries {
    fn name(&self) -> &str {
        "subqueries"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        if !has_subqueries(&plan)? {
            return Ok(plan);
        }
        let Some(Fallback { calls, maintained }) = &self.fallback else {
            return self.rules(plan, config);
        };
        let known = self.rules(plan.clone(), config);
        let is_answered = match &known {
            Ok(plan) => is_answered(plan, *maintained)?,
            Err(e) => !is_unsupported(e),
        };
        if is_answered {
            return known;
        }
        let joined = Ordered
            .analyze(plan, config)
            .and_then(|plan| decorrelated(plan, calls, *maintained))
            .and_then(|plan| self.rules(plan, config));
        match joined {
            Err(e) if is_unsupported(&e) => known,
            joined => joined,
        }
    }
}

impl Subqueries {
    fn rules(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let mut rules = self.rules.iter();
        rules.try_fold(plan, |plan, rule| rule.analyze(plan, config))
    }
}

fn has_subqueries(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        found |= matches!(node, LogicalPlan::Subquery(_));
        node.apply_expressions(|e| {
            found |= apart::has_subquery(e)?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(match found {
            true => TreeNodeRecursion::Stop,
            false => TreeNodeRecursion::Continue,
        })
    })?;
    Ok(found)
}

fn is_unsupported(error: &DataFusionError) -> bool {
    match error {
        DataFusionError::External(inner) => inner
            .downcast_ref::<Error>()
            .is_some_and(|e| e.state() == SqlState::FEATURE_NOT_SUPPORTED),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
            is_unsupported(inner)
        }
        _ => false,
    }
}

/// Whether the optimiser's joins answer all subqueries of a plan: each refers to the query right
/// around it, and in a maintained one stands where its NULL is false.
fn is_answered(plan: &LogicalPlan, maintained: bool) -> Result<bool> {
    let mut answered = true;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            answered &= !refers_further_out(expr, node)? && !looks_at_all(expr)?;
            let is_value = matches!(node, LogicalPlan::Projection(_));
            answered &= !maintained || !is_value || !has_condition(expr)?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        if let LogicalPlan::Filter(filter) = node
            && maintained
        {
            answered &= embedded_in(&filter.predicate, Context::Conjunction).is_ok();
            for condition in split_conjunction(&filter.predicate) {
                answered &= !has_unmarked(condition)?;
            }
        }
        Ok(match answered {
            true => TreeNodeRecursion::Continue,
            false => TreeNodeRecursion::Stop,
        })
    })?;
    Ok(answered)
}

/// Whether a subquery refers to a query further out than `node`, which it is an expression of.
fn refers_further_out(expr: &Expr, node: &LogicalPlan) -> Result<bool> {
    expr.exists(|e| {
        let Some(subquery) = subquery_of(e) else {
            return Ok(false);
        };
        let around = merge_schema(&node.inputs());
        let found = references::of_plan(&subquery.subquery)?;
        // What DataFusion lists has what a table of FROM refers to beside it, too.
        let found = found.iter().chain(&subquery.outer_ref_columns);
        let mut columns = found.filter_map(references::column);
        Ok(columns.any(|column| !around.has_column(column)))
    })
}

/// Whether a correlated subquery limits its rows, or gives a value that is computed of columns
/// outside: DataFusion makes joins of neither.
fn looks_at_all(expr: &Expr) -> Result<bool> {
    expr.exists(|e| {
        let Some(subquery) = subquery_of(e).filter(|s| !s.outer_ref_columns.is_empty()) else {
            return Ok(false);
        };
        let is_value = matches!(e, Expr::ScalarSubquery(_));
        subquery.subquery.exists(|node| {
            Ok(match node {
                LogicalPlan::Limit(_) => true,
                LogicalPlan::Filter(_) => false,
                node => is_value && node.contains_outer_reference(),
            })
        })
    })
}

/// Whether a value has a condition on a subquery in it.
fn has_condition(expr: &Expr) -> Result<bool> {
    expr.exists(|e| Ok(subquery_of(e).is_some() && !matches!(e, Expr::ScalarSubquery(_))))
}

/// Whether a condition of WHERE has an EXISTS under OR that no equality joins: the join that marks
/// matches needs one.
fn has_unmarked(condition: &Expr) -> Result<bool> {
    let inner = match condition {
        Expr::Not(inner) => inner,
        condition => condition,
    };
    if matches!(inner, Expr::Exists(_) | Expr::InSubquery(_)) {
        return Ok(false);
    }
    condition.exists(|e| match e {
        Expr::Exists(exists) => {
            let Subquery { subquery, .. } = &exists.subquery;
            let correlated = !references::of_plan(subquery)?.is_empty();
            Ok(correlated && !has_equality(subquery)?)
        }
        _ => Ok(false),
    })
}

fn has_equality(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|node| {
        Ok(match node {
            LogicalPlan::Filter(filter) => split_conjunction(&filter.predicate)
                .iter()
                .any(|c| c.contains_outer() && is_equality(c)),
            _ => false,
        })
    })
}

/// Where an `IN (subquery)` stands in a filter.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Context {
    /// Under nothing but AND: a top-level conjunct, where `NOT IN` becomes a null-aware join.
    Conjunction,
    /// Under AND and OR: its NULL counts as false in the end.
    Positive,
    /// Anywhere else: NULL and false differ.
    Exact,
}

/// DataFusion marks matches of an embedded `IN` by two-valued logic, which is right where NULL ends
/// as false, and nowhere else.
pub(crate) fn embedded_in(expr: &Expr, context: Context) -> Result<()> {
    match expr {
        Expr::BinaryExpr(b) if b.op == Operator::And => {
            embedded_in(&b.left, context)?;
            embedded_in(&b.right, context)
        }
        Expr::BinaryExpr(b) if b.op == Operator::Or => {
            let inner = if context == Context::Conjunction {
                Context::Positive
            } else {
                context
            };
            embedded_in(&b.left, inner)?;
            embedded_in(&b.right, inner)
        }
        Expr::Alias(a) => embedded_in(&a.expr, context),
        Expr::Not(inner)
            if context == Context::Conjunction
                && matches!(inner.as_ref(), Expr::InSubquery(_) | Expr::Exists(_)) =>
        {
            Ok(())
        }
        Expr::InSubquery(i)
            if context == Context::Conjunction || context == Context::Positive && !i.negated =>
        {
            Ok(())
        }
        Expr::InSubquery(_) => Err(external(
            Error::unsupported(
                "NOT IN (subquery) inside of OR, NOT or another expression is not supported",
            )
            .with_hint("Use NOT EXISTS, or move it to the top level of WHERE."),
        )),
        Expr::Exists(_) => Ok(()),
        other => {
            other.apply_children(|child| {
                embedded_in(child, Context::Exact).map(|()| TreeNodeRecursion::Continue)
            })?;
            Ok(())
        }
    }
}
