//! Quantified comparisons with subqueries, where their NULL matters: `x IN (SELECT y ...)` and
//! `x < ALL (SELECT y ...)` in a select list, under NOT, in CASE, and NOT IN under OR. They become
//! counts and extremes, which are scalar subqueries:
//!
//! ```text
//! x = ANY (S)    CASE WHEN (SELECT count(*) FROM S WHERE y = x) > 0 THEN true
//!                     WHEN (SELECT count(*) FROM S) = 0 THEN false
//!                     WHEN x IS NULL OR (SELECT count(*) FROM S WHERE y IS NULL) > 0 THEN NULL
//!                     ELSE false END
//! x < ANY (S)    the same with x < (SELECT max(y) FROM S) in the first line
//! x <> ANY (S)   the same with x <> (SELECT min(y) FROM S) OR x <> (SELECT max(y) FROM S)
//! x op ALL (S)   NOT (x negated-op ANY (S))
//! EXISTS (S)     (SELECT count(*) FROM S) > 0, in a select list
//! ```
//!
//! Every line holds for each x alone, so the rewriting is sound in views. `IN` in WHERE under AND
//! (and OR, when not negated) stays: there NULL counts as false, and a semi join is the better
//! plan. What has no extremes (JSONB, arrays), and correlated subqueries that group, unite or limit
//! rows, is left to DataFusion's joins, which is refused in views.

use super::in_subquery::{from_inside, is_plain};
use super::separable::is_equality;
use super::sideways;
use crate::error::external;
use crate::types::JSONB;
use arrow_schema::DataType;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, Result, ScalarValue};
use datafusion_expr::expr::{Exists, InSubquery, SetComparison, SetQuantifier};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::logical_plan::{Distinct, Filter, Subquery, SubqueryAlias};
use datafusion_expr::utils::{merge_schema, split_conjunction};
use datafusion_expr::{
    BinaryExpr, Case, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, lit, not, or,
};
use datafusion_functions_aggregate::count::{count, count_all};
use datafusion_functions_aggregate::min_max::{max, min};
use datafusion_optimizer::AnalyzerRule;
use std::sync::Arc;
use tidemark_common::Error;

/// A subquery's name where its column is compared.
const NAME: &str = "__quantified";

/// The rule; it comes when laterals are joins no more.
#[derive(Debug)]
pub(super) struct Quantified;

/// What NULL means where an expression stands.
#[derive(Clone, Copy, PartialEq)]
enum Null {
    /// False, under nothing but AND.
    False,
    /// False, under AND and OR.
    FalseInOr,
    /// NULL.
    Itself,
}

impl AnalyzerRule for Quantified {
    fn name(&self) -> &str {
        "quantified"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let mut named = 0;
        let done = plan.transform_up_with_subqueries(|plan| {
            let plan = sideways::rewritten(plan, &mut named)?;
            let brought_in = plan.transformed;
            let plan = plan.data;
            let null = match &plan {
                LogicalPlan::Filter(_) => Null::False,
                LogicalPlan::Projection(_) => Null::Itself,
                _ => return Ok(Transformed::new_transformed(plan, brought_in)),
            };
            let in_list = null == Null::Itself;
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            let rewritten = plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let done = condition(expr, null, in_list, &schema)?;
                Ok(if done.transformed {
                    done.update_data(|e| name.restore(e))
                } else {
                    done
                })
            })?;
            if !rewritten.transformed {
                return Ok(Transformed::new_transformed(rewritten.data, brought_in));
            }
            // The counts and extremes of correlated subqueries are subqueries of their own.
            let plan = sideways::rewritten(rewritten.data.recompute_schema()?, &mut named)?.data;
            plan.apply_expressions(|expr| {
                expr.apply(|e| {
                    if let Expr::ScalarSubquery(subquery) = e {
                        check_scalar(subquery)?;
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })?;
            Ok(Transformed::yes(plan.recompute_schema()?))
        })?;
        Ok(done.data)
    }
}

fn condition(
    expr: Expr,
    null: Null,
    in_list: bool,
    schema: &DFSchema,
) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(b) if b.op == Operator::And || b.op == Operator::Or => {
            let below = match (null, b.op) {
                (Null::False, Operator::Or) => Null::FalseInOr,
                (null, _) => null,
            };
            let left = condition(*b.left, below, in_list, schema)?;
            let right = condition(*b.right, below, in_list, schema)?;
            let changed = left.transformed || right.transformed;
            let both = BinaryExpr::new(Box::new(left.data), b.op, Box::new(right.data));
            Ok(Transformed::new_transformed(
                Expr::BinaryExpr(both),
                changed,
            ))
        }
        Expr::Not(inner) => match *inner {
            Expr::InSubquery(i) => {
                let i = InSubquery {
                    negated: !i.negated,
                    ..i
                };
                let done = condition(Expr::InSubquery(i), null, in_list, schema)?;
                Ok(Transformed::yes(done.data))
            }
            inner => Ok(condition(inner, Null::Itself, in_list, schema)?.update_data(not)),
        },
        Expr::InSubquery(i) if is_distinct(&i.subquery) => {
            let subquery = with_all_rows(i.subquery);
            let all = Expr::InSubquery(InSubquery { subquery, ..i });
            Ok(Transformed::yes(
                condition(all, null, in_list, schema)?.data,
            ))
        }
        // An anti join pairs columns: it would lose the NULLs that a constant is compared with.
        Expr::InSubquery(i)
            if null == Null::False && !(i.negated && i.expr.column_refs().is_empty()) =>
        {
            Ok(Transformed::no(Expr::InSubquery(i)))
        }
        Expr::InSubquery(i) if null == Null::FalseInOr && !i.negated && has_mark(&i, schema)? => {
            Ok(Transformed::no(Expr::InSubquery(i)))
        }
        Expr::InSubquery(i) => {
            let found = any(&i.expr, Operator::Eq, &i.subquery, schema)?;
            Ok(match found {
                Some(found) if i.negated => Transformed::yes(not(found)),
                Some(found) => Transformed::yes(found),
                None => Transformed::no(Expr::InSubquery(i)),
            })
        }
        Expr::SetComparison(mut set) => {
            set.subquery = with_all_rows(set.subquery);
            let SetComparison {
                expr,
                subquery,
                op,
                quantifier,
            } = &set;
            let found = match quantifier {
                SetQuantifier::Any => any(expr, *op, subquery, schema)?,
                SetQuantifier::All => match op.negate() {
                    Some(op) => any(expr, op, subquery, schema)?.map(not),
                    None => None,
                },
            };
            Ok(match found {
                Some(found) => Transformed::yes(found),
                None => Transformed::no(Expr::SetComparison(set)),
            })
        }
        Expr::ScalarSubquery(subquery) => {
            check_scalar(&subquery)?;
            Ok(Transformed::no(Expr::ScalarSubquery(subquery)))
        }
        Expr::Exists(Exists { subquery, negated }) if in_list => {
            check_conditions(&subquery.subquery)?;
            let rows = scalar(
                &subquery,
                Vec::new(),
                subquery.subquery.clone(),
                count_all(),
            )?;
            let op = if negated { Operator::Eq } else { Operator::Gt };
            Ok(Transformed::yes(binary(rows, op, lit(0_i64))))
        }
        other => other.map_children(|child| condition(child, Null::Itself, in_list, schema)),
    }
}

/// Whether a subquery says DISTINCT, of which nothing depends where its rows are compared with.
fn is_distinct(subquery: &Subquery) -> bool {
    matches!(
        subquery.subquery.as_ref(),
        LogicalPlan::Distinct(Distinct::All(_))
    )
}

/// The subquery without DISTINCT.
fn with_all_rows(subquery: Subquery) -> Subquery {
    match subquery.subquery.as_ref() {
        LogicalPlan::Distinct(Distinct::All(rows)) => Subquery {
            subquery: rows.clone(),
            ..subquery
        },
        _ => subquery,
    }
}

/// Whether DataFusion's join marks the matches of an `IN` under OR: it knows no casts of the
/// subquery's column, and takes one of no table twice.
fn has_mark(i: &InSubquery, schema: &DFSchema) -> Result<bool> {
    let (table, column) = i.subquery.subquery.schema().qualified_field(0);
    Ok(table.is_some() && i.expr.get_type(schema)? == *column.data_type())
}

/// Refuses correlated scalar subqueries that are not known to have one row, or that no join finds.
fn check_scalar(subquery: &Subquery) -> Result<()> {
    if subquery.outer_ref_columns.is_empty() {
        return Ok(());
    }
    let mut top = subquery.subquery.as_ref();
    while matches!(
        top,
        LogicalPlan::Projection(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Filter(_)
    ) {
        top = top.inputs()[0];
    }
    if matches!(top, LogicalPlan::Aggregate(_)) {
        return check_conditions(top);
    }
    let reads = top.exists(|node| Ok(matches!(node, LogicalPlan::TableScan(_))))?;
    if !reads {
        return Ok(());
    }
    Err(external(Error::unsupported(
        "correlated scalar subquery must be aggregated to return at most one row",
    )))
}

/// Refuses conditions below an aggregate that compare with what is outside by anything but `=`.
fn check_conditions(plan: &LogicalPlan) -> Result<()> {
    plan.apply(|node| {
        if let LogicalPlan::Filter(filter) = node {
            for condition in split_conjunction(&filter.predicate) {
                if condition.contains_outer() && !is_equality(condition) {
                    let error = Error::unsupported(
                        "a scalar subquery that compares with columns outside of it by anything \
                         but = is not supported",
                    );
                    return Err(external(error.with_hint("Join the relations instead.")));
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

fn binary(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
}

/// `x op ANY (subquery)`.
fn any(x: &Expr, op: Operator, subquery: &Subquery, schema: &DFSchema) -> Result<Option<Expr>> {
    let plan = &subquery.subquery;
    let field = plan.schema().field(0);
    let compared = !field.data_type().is_nested()
        && !matches!(field.data_type(), DataType::Boolean | DataType::Null)
        && *field.data_type() != JSONB;
    if plan.schema().fields().len() != 1 || op != Operator::Eq && !compared || !is_plain(plan)? {
        return Ok(None);
    }
    // A name of its own tells it from the query around; what a correlated one refers to would not
    // be seen through it.
    let named = if subquery.outer_ref_columns.is_empty() {
        let alias = SubqueryAlias::try_new(plan.clone(), NAME)?;
        Arc::new(LogicalPlan::SubqueryAlias(alias))
    } else {
        plan.clone()
    };
    let y = Expr::Column(Column::from(named.schema().qualified_field(0)));
    let of = |call: Expr| scalar(subquery, Vec::new(), named.clone(), call);
    let matched = match op {
        Operator::Eq => {
            let Some((inside, columns)) = from_inside(x, schema)? else {
                return Ok(None);
            };
            let equal = binary(y.clone(), Operator::Eq, inside);
            let matching = LogicalPlan::Filter(Filter::try_new(equal, named.clone())?);
            let rows = scalar(subquery, columns, Arc::new(matching), count_all())?;
            binary(rows, Operator::Gt, lit(0_i64))
        }
        Operator::NotEq => or(
            binary(x.clone(), op, of(min(y.clone()))?),
            binary(x.clone(), op, of(max(y.clone()))?),
        ),
        Operator::Lt | Operator::LtEq => binary(x.clone(), op, of(max(y.clone()))?),
        Operator::Gt | Operator::GtEq => binary(x.clone(), op, of(min(y.clone()))?),
        _ => return Ok(None),
    };
    let rows = || of(count_all());
    let some_null = binary(of(count(y))?, Operator::Lt, rows()?);
    let when = |condition: Expr, result: Option<bool>| {
        let result = Expr::Literal(ScalarValue::Boolean(result), None);
        (Box::new(condition), Box::new(result))
    };
    Ok(Some(Expr::Case(Case {
        expr: None,
        when_then_expr: vec![
            when(matched, Some(true)),
            when(binary(rows()?, Operator::Eq, lit(0_i64)), Some(false)),
            when(or(x.clone().is_null(), some_null), None),
        ],
        else_expr: Some(Box::new(lit(false))),
    })))
}

/// `(SELECT call FROM plan)`; `columns` are what the plan refers to in addition to the subquery.
fn scalar(
    subquery: &Subquery,
    columns: Vec<Expr>,
    plan: Arc<LogicalPlan>,
    call: Expr,
) -> Result<Expr> {
    let plan = LogicalPlanBuilder::from(plan)
        .aggregate(Vec::<Expr>::new(), [call])?
        .build()?;
    let mut outer_ref_columns = subquery.outer_ref_columns.clone();
    for column in columns {
        if !outer_ref_columns.contains(&column) {
            outer_ref_columns.push(column);
        }
    }
    Ok(Expr::ScalarSubquery(Subquery {
        subquery: Arc::new(plan),
        outer_ref_columns,
        spans: subquery.spans.clone(),
    }))
}
