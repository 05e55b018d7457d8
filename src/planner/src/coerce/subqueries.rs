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
use datafusion_common::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{Result, not_impl_err};
use datafusion_expr::logical_plan::Subquery;
use datafusion_expr::utils::{merge_schema, split_conjunction};
use datafusion_expr::{Expr, LogicalPlan, Operator};
use datafusion_optimizer::AnalyzerRule;
use std::any::Any;
use tidemark_common::Error;

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
        let forced = config.extensions.get::<Decorrelated>().is_some();
        let known = match forced {
            true => Err(external(Error::unsupported("a subquery"))),
            false => self.rules(plan.clone(), config),
        };
        if let Ok(plan) = &known
            && is_answered(plan, *maintained)?
        {
            return known;
        }
        super::wanted()?;
        let joined = Ordered
            .analyze(plan, config)
            .and_then(|plan| decorrelated(plan, calls, *maintained))
            .and_then(|plan| self.rules(plan, config));
        match joined {
            Err(_) if !forced => known,
            joined => joined,
        }
    }
}

/// Among DataFusion's options: all that is correlated is decorrelated at once, since planning with
/// better plans has failed.
#[derive(Clone, Debug)]
pub struct Decorrelated;

impl Decorrelated {
    /// Whether it may help to plan this again with it: it has subqueries.
    pub fn may_help(plan: &LogicalPlan) -> bool {
        has_subqueries(plan).unwrap_or(false)
    }
}

impl ConfigExtension for Decorrelated {
    const PREFIX: &'static str = "tidemark_subqueries";
}

impl ExtensionOptions for Decorrelated {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, _value: &str) -> Result<()> {
        not_impl_err!("option tidemark_subqueries.{key}")
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
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
        if let LogicalPlan::Join(join) = node
            && let Some(subquery) = references::lateral(&join.right)
        {
            answered &= !gives_what_is_outside(&subquery.subquery, true)?;
        }
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
        gives_what_is_outside(&subquery.subquery, is_value)
    })
}

/// Whether a plan limits its rows, unnests lists, or gives values that are computed of columns
/// outside.
fn gives_what_is_outside(plan: &LogicalPlan, is_value: bool) -> Result<bool> {
    plan.exists(|node| {
        Ok(match node {
            LogicalPlan::Limit(_) | LogicalPlan::Unnest(_) | LogicalPlan::Values(_) => true,
            LogicalPlan::Filter(_) => false,
            node => is_value && node.contains_outer_reference(),
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
