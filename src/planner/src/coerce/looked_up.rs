//! Scalar subqueries that look a row up by its key are left joins:
//!
//! ```text
//! SELECT (SELECT s.x FROM s WHERE s.key = t.a AND p) FROM t
//! SELECT CASE WHEN s.key IS NOT NULL AND p THEN s.x END FROM t LEFT JOIN s ON s.key = t.a
//! ```
//!
//! A key finds one row at most and is never NULL, so the join keeps the rows of `t` as they are,
//! and what it found is told by the key. The value and the other conditions may be computed of both
//! sides. Subqueries that find no row by a key are left to the rules after this one.

use super::apart::has_subquery;
use super::lateral::is_of;
use super::separable::is_equality;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, Result};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::logical_plan::{FetchType, Filter, Limit, SkipType, Subquery};
use datafusion_expr::utils::{conjunction, split_conjunction};
use datafusion_expr::{
    BinaryExpr, Case, Expr, JoinType, LogicalPlan, LogicalPlanBuilder, Operator, TableSource,
};
use datafusion_optimizer::AnalyzerRule;
use std::collections::BTreeSet;

/// The columns of a table that no two rows share and none lacks, by position. (DataFusion's own
/// constraints would do, if it forgot them where it unnests rows.)
pub type KeyOf = fn(&dyn TableSource) -> Option<Vec<usize>>;

/// The rule; it comes before anything else looks at subqueries.
#[derive(Debug)]
pub(super) struct LookedUp(pub KeyOf);

impl AnalyzerRule for LookedUp {
    fn name(&self) -> &str {
        "looked_up"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        // Names are told apart by their number in the whole statement.
        let mut named = 0;
        let done = plan.transform_up_with_subqueries(|node| match &node {
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Aggregate(_) => joined(node, self.0, &mut named),
            _ => Ok(Transformed::no(node)),
        })?;
        Ok(done.data)
    }
}

/// A node whose subqueries look rows up, over joins with what they read.
fn joined(node: LogicalPlan, key_of: KeyOf, named: &mut usize) -> Result<Transformed<LogicalPlan>> {
    let outside = node.inputs()[0].clone();
    let mut input = outside.clone();
    let names = NamePreserver::new(&node);
    let rewritten = node.map_expressions(|expr| {
        let name = names.save(&expr);
        let done = expr.transform_up(|e| {
            let Expr::ScalarSubquery(subquery) = &e else {
                return Ok(Transformed::no(e));
            };
            let Some(lookup) = Lookup::of(subquery, outside.schema(), key_of)? else {
                return Ok(Transformed::no(e));
            };
            let (with, value) = lookup.join(input.clone(), *named)?;
            *named += 1;
            input = with;
            Ok(Transformed::yes(value))
        })?;
        Ok(done.update_data(|e| name.restore(e)))
    })?;
    if !rewritten.transformed {
        return Ok(rewritten);
    }
    let node = rewritten.data;
    let keeps_columns = matches!(node, LogicalPlan::Filter(_) | LogicalPlan::Sort(_));
    let node = node.with_new_exprs(node.expressions(), vec![input])?;
    if !keeps_columns {
        return Ok(Transformed::yes(node));
    }
    let kept = outside
        .schema()
        .iter()
        .map(|f| Expr::Column(Column::from(f)));
    let kept = LogicalPlanBuilder::from(node).project(kept)?.build()?;
    Ok(Transformed::yes(kept))
}

/// A subquery that finds one row at most, by its key.
struct Lookup<'a> {
    /// What is read.
    rows: &'a LogicalPlan,
    /// The equalities of its key with the outside.
    key: Vec<&'a Expr>,
    /// A column of the key.
    found: Column,
    /// The other conditions.
    rest: Vec<&'a Expr>,
    value: &'a Expr,
}

impl<'a> Lookup<'a> {
    fn of(subquery: &'a Subquery, outside: &DFSchema, key_of: KeyOf) -> Result<Option<Lookup<'a>>> {
        if !subquery.outer_ref_columns.iter().all(|e| is_of(e, outside)) {
            return Ok(None);
        }
        let mut plan = subquery.subquery.as_ref();
        if let LogicalPlan::Limit(limit) = plan
            && keeps_first(limit)?
        {
            plan = limit.input.as_ref();
        }
        let plan = unsorted(plan);
        let LogicalPlan::Projection(projection) = plan else {
            return Ok(None);
        };
        let LogicalPlan::Filter(filter) = unsorted(&projection.input) else {
            return Ok(None);
        };
        let [value] = projection.expr.as_slice() else {
            return Ok(None);
        };
        let rows = filter.input.as_ref();
        let conditions = split_conjunction(&filter.predicate);
        let mut computed = conditions.iter().copied().chain([value]);
        if reaches_out(rows)? || computed.any(|e| has_subquery(e).unwrap_or(true)) {
            return Ok(None);
        }
        let Some(key) = key(rows, &conditions, key_of) else {
            return Ok(None);
        };
        let is_key = |e: &&Expr| compared(e).is_some_and(|c| key.contains(c));
        let (equalities, rest) = conditions.into_iter().partition(is_key);
        let found = key.into_iter().next();
        Ok(found.map(|found| Lookup {
            rows,
            key: equalities,
            found,
            rest,
            value,
        }))
    }

    /// The join of the outside with what is read, which has a number, and the value there.
    fn join(&self, outside: LogicalPlan, number: usize) -> Result<(LogicalPlan, Expr)> {
        let table = format!("__row_{number}");
        let schema = self.rows.schema();
        // A name of its own, too: a join's condition may lose the table's.
        let name = |i: usize| format!("{table}_{i}");
        let columns = schema
            .iter()
            .enumerate()
            .map(|(i, field)| Expr::Column(Column::from(field)).alias(name(i)));
        let rows = LogicalPlanBuilder::from(self.rows.clone())
            .project(columns)?
            .alias(table.as_str())?
            .build()?;
        let beside = |expr: &Expr| -> Result<Expr> {
            let moved = expr.clone().transform_up(|e| {
                Ok(match e {
                    Expr::Column(column) => {
                        let place = name(schema.index_of_column(&column)?);
                        let column = Column::new(Some(table.as_str()), place);
                        Transformed::yes(Expr::Column(column))
                    }
                    Expr::OuterReferenceColumn(_, column) => Transformed::yes(Expr::Column(column)),
                    other => Transformed::no(other),
                })
            })?;
            Ok(moved.data.unalias())
        };
        let on = self
            .key
            .iter()
            .map(|e| beside(e))
            .collect::<Result<Vec<_>>>()?;
        let plan = LogicalPlanBuilder::from(outside)
            .join_on(rows, JoinType::Left, on)?
            .build()?;
        let found = beside(&Expr::Column(self.found.clone()))?.is_not_null();
        let rest = self.rest.iter().map(|e| beside(e));
        let met = [Ok(found)]
            .into_iter()
            .chain(rest)
            .collect::<Result<Vec<_>>>()?;
        let value = Box::new(beside(self.value)?);
        let Some(met) = conjunction(met) else {
            return Ok((plan, *value));
        };
        let arm = (Box::new(met), value);
        Ok((plan, Expr::Case(Case::new(None, vec![arm], None))))
    }
}

/// Whether a limit leaves the first row.
pub(super) fn keeps_first(limit: &Limit) -> Result<bool> {
    let none_skipped = matches!(limit.get_skip_type()?, SkipType::Literal(0));
    Ok(none_skipped
        && match limit.get_fetch_type()? {
            FetchType::Literal(fetch) => fetch.is_none_or(|n| n > 0),
            FetchType::UnsupportedExpr => false,
        })
}

/// What is sorted: of one row there is one order. With what a sort orders by beside it the value is
/// not the only column, and stands above.
fn unsorted(plan: &LogicalPlan) -> &LogicalPlan {
    match plan {
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => &sort.input,
        plan => plan,
    }
}

/// Whether a plan, or a subquery in it, refers to what is outside of it.
fn reaches_out(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= node.contains_outer_reference();
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// The inner column that a condition says to be equal to something outside.
fn compared(condition: &Expr) -> Option<&Column> {
    let Expr::BinaryExpr(BinaryExpr { left, right, .. }) = condition else {
        return None;
    };
    let outer = |e: &Expr| e.contains_outer() && e.column_refs().is_empty();
    match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), other) | (other, Expr::Column(column))
            if is_equality(condition) && outer(other) =>
        {
            Some(column)
        }
        _ => None,
    }
}

/// The key of a table, each column of which is said to be equal to something outside.
fn key(rows: &LogicalPlan, conditions: &[&Expr], key_of: KeyOf) -> Option<BTreeSet<Column>> {
    let schema = rows.schema();
    let given: Vec<usize> = conditions
        .iter()
        .filter_map(|e| schema.maybe_index_of_column(compared(e)?))
        .collect();
    let key = kept_key(rows, key_of)?;
    let column = |i: usize| Column::from(schema.qualified_field(i));
    let whole = !key.is_empty() && key.iter().all(|i| given.contains(i));
    whole.then(|| key.into_iter().map(column).collect())
}

/// The key of the table that a plan reads, by the plan's columns.
fn kept_key(plan: &LogicalPlan, key_of: KeyOf) -> Option<Vec<usize>> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => kept_key(&alias.input, key_of),
        LogicalPlan::Filter(filter) => kept_key(&filter.input, key_of),
        LogicalPlan::TableScan(scan) if scan.projection.is_none() => key_of(&*scan.source),
        _ => None,
    }
}

/// Whether a filter finds one row at most: it says what each column of a key is.
pub(super) fn finds_one(filter: &Filter, key_of: KeyOf) -> bool {
    let schema = filter.input.schema();
    let said = split_conjunction(&filter.predicate);
    let given: Vec<usize> = said
        .iter()
        .filter_map(|e| schema.maybe_index_of_column(constant_column(e)?))
        .collect();
    let key = kept_key(&filter.input, key_of);
    key.is_some_and(|key| !key.is_empty() && key.iter().all(|i| given.contains(i)))
}

/// The column that a condition says to be equal to a constant.
fn constant_column(condition: &Expr) -> Option<&Column> {
    let Expr::BinaryExpr(BinaryExpr {
        left,
        op: Operator::Eq,
        right,
    }) = condition
    else {
        return None;
    };
    let constant = |e: &Expr| e.column_refs().is_empty() && !e.contains_outer() && !e.is_volatile();
    match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), other) | (other, Expr::Column(column)) if constant(other) => {
            Some(column)
        }
        _ => None,
    }
}
