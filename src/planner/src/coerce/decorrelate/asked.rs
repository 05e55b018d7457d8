//! Subqueries of the expressions of a filter or a projection, as joins of what it reads.

use super::domain::{Domain, joined};
use super::flat::{Flat, Flattening};
use super::names::refused;
use super::{Decorrelation, references};
use crate::aggregates::array_agg;
use crate::coerce::apart::has_subquery;
use crate::coerce::in_subquery::from_inside;
use crate::coerce::single_row::is_one;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, JoinType, Result, ScalarValue};
use datafusion_expr::expr::{AggregateFunction, Exists, InSubquery, SetComparison, SetQuantifier};
use datafusion_expr::logical_plan::{FetchType, Filter, Projection, SkipType, Subquery};
use datafusion_expr::utils::{conjunction, split_conjunction_owned};
use datafusion_expr::{
    BinaryExpr, Case, Expr, LogicalPlan, LogicalPlanBuilder, Operator, lit, not,
};
use std::sync::Arc;

impl Decorrelation<'_> {
    /// Conditions with subqueries are met after those without, by joins.
    pub(super) fn filter(&mut self, filter: Filter) -> Result<LogicalPlan> {
        if !has_subquery(&filter.predicate)? {
            return Ok(LogicalPlan::Filter(filter));
        }
        let columns = columns_of(filter.input.schema());
        let (mut plain, mut asking) = (Vec::new(), Vec::new());
        let predicate = filter.predicate;
        for condition in split_conjunction_owned(predicate.clone()) {
            match has_subquery(&condition)? {
                true => asking.push(condition),
                false => plain.push(condition),
            }
        }
        let joined_before = self.joined;
        let mut base = filter.input.as_ref().clone();
        if let Some(condition) = conjunction(plain) {
            base = LogicalPlanBuilder::from(base).filter(condition)?.build()?;
        }
        let (mut input, mut rest) = (base.clone(), Vec::new());
        for condition in asking {
            input = match self.condition(condition, &base, input)? {
                (input, None) => input,
                (input, Some(condition)) => {
                    rest.push(condition);
                    input
                }
            };
        }
        if self.joined == joined_before {
            // What is asked is the same for all rows.
            return Ok(LogicalPlan::Filter(Filter::try_new(
                predicate,
                filter.input,
            )?));
        }
        let mut plan = LogicalPlanBuilder::from(input);
        if let Some(condition) = conjunction(rest) {
            plan = plan.filter(condition)?;
        }
        plan.project(columns)?.build()
    }

    pub(super) fn projection(&mut self, projection: Projection) -> Result<LogicalPlan> {
        let Projection {
            expr,
            input,
            schema,
            ..
        } = projection;
        let base = Arc::unwrap_or_clone(input);
        let mut input = base.clone();
        let mut exprs = Vec::with_capacity(expr.len());
        for (expr, (table, field)) in expr.into_iter().zip(schema.iter()) {
            if !has_subquery(&expr)? {
                exprs.push(expr);
                continue;
            }
            let value = self.value(expr, &base, &mut input)?.unalias();
            exprs.push(value.alias_qualified(table.cloned(), field.name()));
        }
        Ok(LogicalPlan::Projection(Projection::try_new(
            exprs,
            Arc::new(input),
        )?))
    }

    /// A condition of WHERE: the rows that it leaves, if a join does that, or else the condition as
    /// one of columns.
    fn condition(
        &mut self,
        condition: Expr,
        base: &LogicalPlan,
        mut input: LogicalPlan,
    ) -> Result<(LogicalPlan, Option<Expr>)> {
        let condition = match condition {
            Expr::Not(inner) => match *inner {
                Expr::Exists(Exists { subquery, negated }) => Expr::Exists(Exists {
                    subquery,
                    negated: !negated,
                }),
                Expr::InSubquery(i) => Expr::InSubquery(InSubquery {
                    negated: !i.negated,
                    ..i
                }),
                inner => not(inner),
            },
            condition => condition,
        };
        match condition {
            Expr::Exists(Exists { subquery, negated }) => {
                let subquery = unlimited(subquery)?;
                let Some((domain, flat)) = self.flat(&subquery, base, &input)? else {
                    // Nothing of it hangs on the row.
                    return Ok((input, Some(Expr::Exists(Exists { subquery, negated }))));
                };
                let kind = match negated {
                    false => JoinType::LeftSemi,
                    true => JoinType::LeftAnti,
                };
                let plan = matches(flat.plan, &flat.outer)?.build()?;
                let plan = domain.join(input, plan, &flat.outer, None, kind)?;
                Ok((plan, None))
            }
            Expr::InSubquery(i) if !has_subquery(&i.expr)? => {
                if references::of_plan(&i.subquery.subquery)?.is_empty() {
                    return Ok((input, Some(Expr::InSubquery(i))));
                }
                let y = first(&i.subquery);
                let x = outside(&i.expr, input.schema())?;
                let equal = binary(x, Operator::Eq, y);
                let met = match i.negated {
                    true => Expr::IsNotFalse(Box::new(equal)),
                    false => equal,
                };
                let exists = Expr::Exists(Exists {
                    subquery: filtered(&i.subquery, met)?,
                    negated: i.negated,
                });
                self.condition(exists, base, input)
            }
            condition => {
                let condition = self.value(condition, base, &mut input)?;
                Ok((input, Some(condition)))
            }
        }
    }

    /// An expression over `input`, which gets a column for each subquery; it was `base` before it
    /// got any.
    fn value(&mut self, expr: Expr, base: &LogicalPlan, input: &mut LogicalPlan) -> Result<Expr> {
        let done = expr.transform_up(|e| {
            Ok(match e {
                Expr::ScalarSubquery(subquery) => self.scalar(subquery, false, base, input)?,
                Expr::Exists(exists) => Transformed::yes(self.exists(exists, base, input)?),
                Expr::InSubquery(InSubquery {
                    expr,
                    subquery,
                    negated,
                }) => {
                    let expr = self.joined_value(*expr, base, input)?;
                    let found = any(&expr, Operator::Eq, &subquery, input.schema())?;
                    let found = self.value(found, base, input)?;
                    Transformed::yes(if negated { not(found) } else { found })
                }
                Expr::SetComparison(set) => Transformed::yes(self.compared(set, base, input)?),
                e => Transformed::no(e),
            })
        })?;
        Ok(done.data)
    }

    fn compared(
        &mut self,
        set: SetComparison,
        base: &LogicalPlan,
        input: &mut LogicalPlan,
    ) -> Result<Expr> {
        let SetComparison {
            expr,
            subquery,
            op,
            quantifier,
        } = set;
        let expr = self.joined_value(*expr, base, input)?;
        match quantifier {
            SetQuantifier::Any => {
                let found = any(&expr, op, &subquery, input.schema())?;
                self.value(found, base, input)
            }
            SetQuantifier::All => {
                let op = op.negate().ok_or_else(|| refused("under this operator"))?;
                let found = any(&expr, op, &subquery, input.schema())?;
                Ok(not(self.value(found, base, input)?))
            }
        }
    }

    fn exists(
        &mut self,
        exists: Exists,
        base: &LogicalPlan,
        input: &mut LogicalPlan,
    ) -> Result<Expr> {
        let Exists { subquery, negated } = exists;
        let subquery = unlimited(subquery)?;
        let found = self.names.fresh("__found_");
        let column = Expr::Column(Column::new_unqualified(&found));
        let outside = std::mem::take(input);
        *input = match self.flat(&subquery, base, &outside)? {
            Some((domain, flat)) => {
                let mut columns = columns_of_names(&flat.outer);
                columns.push(lit(true).alias(&found));
                let plan = matches(flat.plan, &flat.outer)?.project(columns)?.build()?;
                domain.join(outside, plan, &flat.outer, None, JoinType::Left)?
            }
            None => {
                let plan = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone())
                    .project(vec![lit(true).alias(&found)])?
                    .distinct()?
                    .build()?;
                self.joined += 1;
                joined(outside, plan, Vec::new(), None, JoinType::Left)?
            }
        };
        Ok(match negated {
            true => column.is_null(),
            false => column.is_not_null(),
        })
    }

    /// What is compared with a subquery, without subqueries in it.
    fn joined_value(
        &mut self,
        expr: Expr,
        base: &LogicalPlan,
        input: &mut LogicalPlan,
    ) -> Result<Expr> {
        let done = expr.transform_up(|e| match e {
            Expr::ScalarSubquery(subquery) => self.scalar(subquery, true, base, input),
            e => Ok(Transformed::no(e)),
        })?;
        Ok(done.data)
    }

    /// The one value that a subquery has for each row; `always`: as a column, also if it is the
    /// same for all.
    fn scalar(
        &mut self,
        subquery: Subquery,
        always: bool,
        base: &LogicalPlan,
        input: &mut LogicalPlan,
    ) -> Result<Transformed<Expr>> {
        let one = is_one(&subquery.subquery);
        let outside = std::mem::take(input);
        let (domain, flat) = match self.flat(&subquery, base, &outside)? {
            Some((domain, flat)) => (Some(domain), flat),
            None if !always && (one || !self.maintained) => {
                *input = outside;
                return Ok(Transformed::no(Expr::ScalarSubquery(subquery)));
            }
            None => {
                let plan = subquery.subquery.as_ref().clone();
                let outer = Vec::new();
                self.joined += 1;
                (None, Flat { plan, outer })
            }
        };
        let name = self.names.fresh("__value_");
        let column = Expr::Column(Column::new_unqualified(&name));
        let value = Expr::Column(Column::from(flat.plan.schema().qualified_field(0)));
        let mut columns = columns_of_names(&flat.outer);
        let mut plan = LogicalPlanBuilder::from(flat.plan);
        if one {
            columns.push(value.alias(&name));
        } else {
            let list =
                AggregateFunction::new_udf(array_agg(), vec![value], false, None, vec![], None);
            let list = Expr::AggregateFunction(list).alias(&name);
            plan = plan.aggregate(columns.clone(), [list])?;
            columns.push(column.clone());
        }
        let plan = plan.project(columns)?.build()?;
        *input = match domain {
            Some(domain) => domain.join(outside, plan, &flat.outer, None, JoinType::Left)?,
            None => joined(outside, plan, Vec::new(), None, JoinType::Left)?,
        };
        Ok(Transformed::yes(match one {
            true => column,
            false => self.calls.call("only_element", vec![column])?,
        }))
    }

    /// A subquery over its domain, if it refers to what is outside: the domain of `base`, if that
    /// has all columns that it refers to, or of `input`, which has more of them.
    fn flat(
        &mut self,
        subquery: &Subquery,
        base: &LogicalPlan,
        input: &LogicalPlan,
    ) -> Result<Option<(Domain, Flat)>> {
        let plan = subquery.subquery.as_ref();
        let references = references::of_plan(plan)?;
        let mut columns = references.iter().filter_map(references::column);
        let schema = base.schema();
        let in_base = columns.all(|c| schema.has_column(c) || !input.schema().has_column(c));
        let outside = if in_base { base } else { input };
        let Some(domain) = Domain::of(plan, outside, &mut self.names)? else {
            return Ok(None);
        };
        let flat = Flattening::new(&domain, &mut self.names).plan(plan.clone())?;
        self.joined += 1;
        Ok(Some((domain, flat)))
    }
}

/// A subquery of which nothing matters but whether it has a row, without a limit that leaves one.
fn unlimited(mut subquery: Subquery) -> Result<Subquery> {
    while let LogicalPlan::Limit(limit) = subquery.subquery.as_ref() {
        let leaves_one = matches!(limit.get_skip_type()?, SkipType::Literal(0))
            && !matches!(
                limit.get_fetch_type()?,
                FetchType::Literal(Some(0)) | FetchType::UnsupportedExpr
            );
        if !leaves_one {
            break;
        }
        subquery.subquery = limit.input.clone();
    }
    Ok(subquery)
}

/// The rows of the domain for which there is a row.
fn matches(plan: LogicalPlan, outer: &[Column]) -> Result<LogicalPlanBuilder> {
    LogicalPlanBuilder::from(plan)
        .project(columns_of_names(outer))?
        .distinct()
}

fn columns_of_names(columns: &[Column]) -> Vec<Expr> {
    columns.iter().cloned().map(Expr::Column).collect()
}

pub(super) fn columns_of(schema: &DFSchema) -> Vec<Expr> {
    let columns = schema.iter().map(Column::from);
    columns.map(Expr::Column).collect()
}

/// `x op ANY (subquery)` by what there is.
fn any(x: &Expr, op: Operator, subquery: &Subquery, schema: &DFSchema) -> Result<Expr> {
    let y = first(subquery);
    let met = binary(outside(x, schema)?, op, y.clone());
    let exists = |subquery| {
        Expr::Exists(Exists {
            subquery,
            negated: false,
        })
    };
    let null = exists(filtered(subquery, y.is_null())?);
    let nothing = x.clone().is_null().and(exists(subquery.clone()));
    let when = |condition: Expr, result: Option<bool>| {
        let result = Expr::Literal(ScalarValue::Boolean(result), None);
        (Box::new(condition), Box::new(result))
    };
    Ok(Expr::Case(Case {
        expr: None,
        when_then_expr: vec![
            when(exists(filtered(subquery, met)?), Some(true)),
            when(null.or(nothing), None),
        ],
        else_expr: Some(Box::new(lit(false))),
    }))
}

/// A subquery's rows that meet a condition.
fn filtered(subquery: &Subquery, condition: Expr) -> Result<Subquery> {
    let filter = Filter::try_new(condition, subquery.subquery.clone())?;
    let plan = LogicalPlan::Filter(filter);
    Ok(Subquery {
        outer_ref_columns: references::of_plan(&plan)?,
        subquery: Arc::new(plan),
        spans: subquery.spans.clone(),
    })
}

/// A subquery's first column.
fn first(subquery: &Subquery) -> Expr {
    Expr::Column(Column::from(subquery.subquery.schema().qualified_field(0)))
}

/// An expression of the query outside as its subquery sees it.
fn outside(x: &Expr, schema: &DFSchema) -> Result<Expr> {
    match from_inside(x, schema)? {
        Some((x, _)) => Ok(x),
        None => Err(refused("compared with another subquery")),
    }
}

fn binary(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
}
