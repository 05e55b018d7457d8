//! A subquery's plan over all rows of its domain at once: what it has for each, beside the columns
//! of the domain.

use super::domain::{Domain, joined};
use super::names::{Names, refused};
use super::{references, sets};
use crate::coerce::apart::has_subquery;
use crate::coerce::wanted;
use arrow_schema::{DataType, Field};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, ExprSchema, JoinType, NullEquality, Result};
use datafusion_expr::expr::Sort;
use datafusion_expr::logical_plan::builder::unnest_with_options;
use datafusion_expr::logical_plan::{
    Aggregate, Distinct, DistinctOn, FetchType, Filter, Join, Limit, Projection, SkipType,
    Subquery, SubqueryAlias, Union, Unnest, Window,
};
use datafusion_expr::utils::{conjunction, split_conjunction_owned};
use datafusion_expr::{
    BinaryExpr, Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, Operator, cast, lit, when,
};
use datafusion_functions_window::row_number::row_number;
use std::sync::Arc;

/// A join with a table of FROM that refers to those before it.
pub(super) fn beside(join: Join, names: &mut Names) -> Result<LogicalPlan> {
    let Some(subquery) = references::lateral(&join.right) else {
        return Ok(LogicalPlan::Join(join));
    };
    if !matches!(join.join_type, JoinType::Inner | JoinType::Left) || !join.on.is_empty() {
        return Err(refused("in a join that keeps its rows"));
    }
    let plan = subquery.subquery.as_ref().clone();
    let left = join.left.as_ref().clone();
    let Some(domain) = Domain::of(&plan, &left, names)? else {
        // It refers to what is further out, or to nothing.
        let right = match join.right.as_ref() {
            LogicalPlan::SubqueryAlias(alias) => LogicalPlan::SubqueryAlias(
                SubqueryAlias::try_new(plan.into(), alias.alias.clone())?,
            ),
            _ => plan,
        };
        let right = right.into();
        return Ok(LogicalPlan::Join(Join { right, ..join }));
    };
    let flat = Flattening::new(&domain, names).plan(plan)?;
    let own = own_columns(&flat.plan, join.right.schema());
    let outer = flat.outer.iter().cloned().map(Expr::Column);
    let right = LogicalPlanBuilder::from(flat.plan)
        .project(own.into_iter().chain(outer).collect::<Vec<_>>())?
        .build()?;
    let plan = domain.join(left, right, &flat.outer, join.filter, join.join_type)?;
    let kept = join
        .schema
        .iter()
        .map(|field| Expr::Column(Column::from(field)));
    LogicalPlanBuilder::from(plan)
        .project(kept.collect::<Vec<_>>())?
        .build()
}

/// Whether the condition of an outer join has subqueries, so that it is no condition of a filter.
pub(super) fn is_asking(join: &Join) -> Result<bool> {
    let outer = matches!(join.join_type, JoinType::Left | JoinType::Right);
    match &join.filter {
        Some(filter) if outer => has_subquery(filter),
        _ => Ok(false),
    }
}

/// An inner join whose conditions with subqueries are those of a filter above it.
pub(super) fn with_conditions_above(mut join: Join) -> Result<LogicalPlan> {
    let (mut inside, mut above) = (Vec::new(), Vec::new());
    if join.join_type == JoinType::Inner
        && let Some(filter) = join.filter.take()
    {
        for condition in split_conjunction_owned(filter) {
            match has_subquery(&condition)? {
                true => above.push(condition),
                false => inside.push(condition),
            }
        }
        join.filter = conjunction(inside);
    }
    let plan = LogicalPlanBuilder::from(LogicalPlan::Join(join));
    match conjunction(above) {
        Some(condition) => plan.filter(condition)?.build(),
        None => plan.build(),
    }
}

/// An outer join with a table that refers to the side whose rows are kept, in place of a condition:
/// `l LEFT JOIN LATERAL (SELECT * FROM r WHERE condition) ON true`.
pub(super) fn with_condition_beside(join: Join) -> Result<LogicalPlan> {
    let (kept, other) = match join.join_type {
        JoinType::Right => (join.right, join.left),
        _ => (join.left, join.right),
    };
    let op = match join.null_equality {
        NullEquality::NullEqualsNull => Operator::IsNotDistinctFrom,
        NullEquality::NullEqualsNothing => Operator::Eq,
    };
    let equal = join.on.into_iter();
    let equal = equal.map(|(l, r)| Expr::BinaryExpr(BinaryExpr::new(Box::new(l), op, Box::new(r))));
    let condition = conjunction(equal.chain(join.filter)).unwrap_or_else(|| lit(true));
    let (outside, inside) = (kept.schema(), other.schema());
    let condition = condition.transform_up(|e| {
        Ok(match e {
            Expr::Column(column) if outside.has_column(&column) && !inside.has_column(&column) => {
                let field = outside.field_from_column(&column)?.clone();
                Transformed::yes(Expr::OuterReferenceColumn(field, column))
            }
            e => Transformed::no(e),
        })
    })?;
    let met = LogicalPlan::Filter(Filter::try_new(condition.data, other)?);
    let met = LogicalPlan::Subquery(Subquery {
        outer_ref_columns: references::of_plan(&met)?,
        subquery: Arc::new(met),
        spans: Default::default(),
    });
    let (kind, constraint, nulls) = (JoinType::Left, join.join_constraint, join.null_equality);
    let met = Arc::new(met);
    let plan = Join::try_new(kept, met, Vec::new(), None, kind, constraint, nulls, false)?;
    let columns = join
        .schema
        .iter()
        .map(|field| Expr::Column(Column::from(field)));
    LogicalPlanBuilder::from(LogicalPlan::Join(plan))
        .project(columns.collect::<Vec<_>>())?
        .build()
}

/// The first columns of a plan, under the names of a schema.
fn own_columns(plan: &LogicalPlan, named: &DFSchema) -> Vec<Expr> {
    let columns = plan.schema().iter().zip(named.iter());
    columns
        .map(|(column, (table, field))| {
            let column = Column::from(column);
            match column.relation.as_ref() == table && column.name == *field.name() {
                true => Expr::Column(column),
                false => Expr::Column(column).alias_qualified(table.cloned(), field.name()),
            }
        })
        .collect()
}

/// A plan for all rows of a domain: first its own columns, under their names, then those of the
/// domain.
pub(super) struct Flat {
    pub plan: LogicalPlan,
    pub outer: Vec<Column>,
}

pub(super) struct Flattening<'a> {
    domain: &'a Domain,
    names: &'a mut Names,
}

impl<'a> Flattening<'a> {
    pub(super) fn new(domain: &'a Domain, names: &'a mut Names) -> Self {
        Flattening { domain, names }
    }

    /// Errors: `0A000` for what cannot be told apart by the domain's rows.
    pub(super) fn plan(&mut self, plan: LogicalPlan) -> Result<Flat> {
        wanted()?;
        if !self.refers(&plan)? {
            return self.beside_each(plan);
        }
        match plan {
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::Projection(projection) => self.projection(projection),
            LogicalPlan::SubqueryAlias(alias) => self.alias(alias),
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
                self.plan(Arc::unwrap_or_clone(sort.input))
            }
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let below = self.plan(Arc::unwrap_or_clone(input))?;
                let plan = LogicalPlanBuilder::from(below.plan).distinct()?.build()?;
                Ok(Flat { plan, ..below })
            }
            LogicalPlan::Distinct(Distinct::On(on)) => self.distinct_on(on),
            LogicalPlan::Window(window) => self.window(window),
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Join(join) if references::lateral(&join.right).is_some() => {
                let plan = beside(join, self.names)?;
                self.plan(plan)
            }
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Unnest(unnest) => self.unnest(unnest),
            // A table of FROM that refers to nothing beside it.
            LogicalPlan::Subquery(subquery) => self.plan(Arc::unwrap_or_clone(subquery.subquery)),
            LogicalPlan::Values(values) => {
                let plan = sets::rows(values)?;
                self.plan(plan)
            }
            LogicalPlan::RecursiveQuery(_) => Err(refused("with WITH RECURSIVE")),
            LogicalPlan::Extension(_) => Err(refused("with an ASOF or temporal join")),
            _ => Err(refused("of this kind")),
        }
    }

    /// Whether a plan refers to columns of the domain.
    fn refers(&self, plan: &LogicalPlan) -> Result<bool> {
        let found = references::of_plan(plan)?;
        Ok(found.iter().any(|e| self.domain.has(e)))
    }

    /// The same rows for each row of the domain.
    fn beside_each(&mut self, plan: LogicalPlan) -> Result<Flat> {
        let (rows, outer) = self.domain.rows(self.names)?;
        let one = match &plan {
            LogicalPlan::EmptyRelation(empty) => {
                empty.produce_one_row && empty.schema.fields().is_empty()
            }
            _ => false,
        };
        let plan = match one {
            true => rows,
            false => LogicalPlanBuilder::from(plan).cross_join(rows)?.build()?,
        };
        Ok(Flat { plan, outer })
    }

    /// An expression over `input`, with the domain's columns in place of references.
    fn inward(&self, expr: Expr, input: &DFSchema, outer: &[Column]) -> Result<Transformed<Expr>> {
        references::in_expr(expr, input, &mut |reference, further_in| {
            let (column, of_text) = self.domain.column(reference, outer)?;
            let text = of_text.map(|_| Arc::new(Field::new(&column.name, DataType::Utf8, true)));
            let value = match (reference, text) {
                (Expr::OuterReferenceColumn(field, _), text) if further_in => {
                    let field = text.unwrap_or_else(|| field.clone());
                    Expr::OuterReferenceColumn(field, column.clone())
                }
                _ => Expr::Column(column.clone()),
            };
            Some(match of_text {
                Some(data_type) => cast(value, data_type.clone()),
                None => value,
            })
        })
    }

    fn inward_all(
        &self,
        exprs: Vec<Expr>,
        input: &DFSchema,
        outer: &[Column],
    ) -> Result<Vec<Expr>> {
        let exprs = exprs.into_iter();
        exprs
            .map(|e| Ok(self.inward(e, input, outer)?.data))
            .collect()
    }

    /// The same of expressions that give columns: these keep the names that `named` has.
    fn named(
        &self,
        exprs: Vec<Expr>,
        named: &DFSchema,
        input: &DFSchema,
        outer: &[Column],
    ) -> Result<Vec<Expr>> {
        let exprs = exprs.into_iter().zip(named.iter());
        exprs
            .map(|(expr, (table, field))| {
                let done = self.inward(expr, input, outer)?;
                Ok(match done.transformed {
                    false => done.data,
                    true => done
                        .data
                        .unalias()
                        .alias_qualified(table.cloned(), field.name()),
                })
            })
            .collect()
    }

    fn inward_sort(
        &self,
        sort: Vec<Sort>,
        input: &DFSchema,
        outer: &[Column],
    ) -> Result<Vec<Sort>> {
        let sort = sort.into_iter();
        sort.map(|key| {
            let expr = self.inward(key.expr, input, outer)?.data;
            Ok(Sort { expr, ..key })
        })
        .collect()
    }

    fn filter(&mut self, filter: Filter) -> Result<Flat> {
        let schema = filter.input.schema().clone();
        let below = self.plan(Arc::unwrap_or_clone(filter.input))?;
        let predicate = self.inward(filter.predicate, &schema, &below.outer)?.data;
        let plan = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(below.plan))?);
        Ok(Flat { plan, ..below })
    }

    fn projection(&mut self, projection: Projection) -> Result<Flat> {
        let schema = projection.input.schema().clone();
        let below = self.plan(Arc::unwrap_or_clone(projection.input))?;
        let exprs = self.named(projection.expr, &projection.schema, &schema, &below.outer)?;
        project(below.plan, exprs, below.outer)
    }

    /// The alias as names of the columns: those of the domain keep theirs.
    fn alias(&mut self, alias: SubqueryAlias) -> Result<Flat> {
        let below = self.plan(Arc::unwrap_or_clone(alias.input))?;
        let columns = own_columns(&below.plan, &alias.schema);
        project(below.plan, columns, below.outer)
    }

    /// The first rows for each row of the domain, by their numbers.
    fn limit(&mut self, limit: Limit) -> Result<Flat> {
        let (skip, fetch) = match (limit.get_skip_type()?, limit.get_fetch_type()?) {
            (SkipType::Literal(skip), FetchType::Literal(fetch)) => (skip, fetch),
            _ => return Err(refused("with a LIMIT or OFFSET that is no constant")),
        };
        let input = Arc::unwrap_or_clone(limit.input);
        if skip == 0 && fetch.is_none() {
            return self.plan(input);
        }
        let limited = |input| {
            LogicalPlan::Limit(Limit {
                skip: limit.skip.clone(),
                fetch: limit.fetch.clone(),
                input,
            })
        };
        // What is ordered by may not be above.
        let (order, rows) = match input {
            LogicalPlan::Projection(projection) => {
                let input = Arc::new(limited(projection.input));
                let Projection { expr, schema, .. } = projection;
                let projection = Projection::try_new_with_schema(expr, input, schema)?;
                return self.projection(projection);
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let input = Arc::new(limited(alias.input));
                return self.alias(SubqueryAlias::try_new(input, alias.alias)?);
            }
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
                (sort.expr, Arc::unwrap_or_clone(sort.input))
            }
            rows => (Vec::new(), rows),
        };
        let schema = rows.schema().clone();
        let below = self.plan(rows)?;
        let order = self.inward_sort(order, &schema, &below.outer)?;
        let partition = below.outer.iter().cloned().map(Expr::Column).collect();
        let mut number = row_number().partition_by(partition);
        if !order.is_empty() {
            number = number.order_by(order);
        }
        let number = number.build()?;
        let mut columns = own_columns(&below.plan, &schema);
        let own = schema.iter().map(|field| Expr::Column(Column::from(field)));
        let own: Vec<Expr> = own.collect();
        columns.extend(below.outer.iter().cloned().map(Expr::Column));
        let numbered = Window::try_new(vec![number], Arc::new(below.plan))?;
        let last = numbered.schema.fields().len() - 1;
        let number = Expr::Column(Column::from(numbered.schema.qualified_field(last)));
        let name = self.names.fresh("__place_");
        columns.push(cast(number, DataType::Int64).alias(&name));
        let place = || Expr::Column(Column::new_unqualified(&name));
        let number = |n: usize| lit(i64::try_from(n).unwrap_or(i64::MAX));
        let from = (skip > 0).then(|| place().gt(number(skip)));
        let to = fetch.map(|n| place().lt_eq(number(skip.saturating_add(n))));
        let mut plan = LogicalPlanBuilder::from(LogicalPlan::Window(numbered)).project(columns)?;
        if let Some(condition) = conjunction(from.into_iter().chain(to)) {
            plan = plan.filter(condition)?;
        }
        project(plan.build()?, own, below.outer)
    }

    /// One group more for each row of the domain.
    fn aggregate(&mut self, aggregate: Aggregate) -> Result<Flat> {
        if let [Expr::GroupingSet(sets)] = aggregate.group_expr.as_slice() {
            let plan = sets::united(sets, &aggregate)?;
            return self.plan(plan);
        }
        let (groups, calls) = (aggregate.group_expr, aggregate.aggr_expr);
        let schema = aggregate.input.schema().clone();
        let mut below = self.plan(Arc::unwrap_or_clone(aggregate.input))?;
        let groups = self.inward_all(groups, &schema, &below.outer)?;
        let mut calls = self.inward_all(calls, &schema, &below.outer)?;
        if groups.is_empty() {
            below = self.also_without_rows(below, &mut calls)?;
        }
        // What is grouped by may be a column of the domain itself, or twice the same.
        let mut keys: Vec<Expr> = Vec::with_capacity(groups.len() + below.outer.len());
        let outer = below.outer.iter().cloned().map(Expr::Column);
        let mut place = |key: Expr| {
            keys.iter().position(|k| *k == key).unwrap_or_else(|| {
                keys.push(key);
                keys.len() - 1
            })
        };
        let mut places: Vec<usize> = groups.into_iter().map(&mut place).collect();
        let outer: Vec<usize> = outer.map(&mut place).collect();
        places.extend((0..calls.len()).map(|i| keys.len() + i));
        let plan = LogicalPlanBuilder::from(below.plan)
            .aggregate(keys, calls)?
            .build()?;
        let column = |place: usize| Column::from(plan.schema().qualified_field(place));
        let own = places.into_iter().zip(aggregate.schema.iter());
        let own = own.map(|(place, (table, field))| {
            Expr::Column(column(place)).alias_qualified(table.cloned(), field.name())
        });
        let names: Vec<String> = below.outer.iter().map(|c| c.name.clone()).collect();
        let outer = outer.into_iter().zip(&names);
        let outer = outer.map(|(place, name)| Expr::Column(column(place)).alias(name));
        let exprs: Vec<Expr> = own.chain(outer).collect();
        let plan = LogicalPlanBuilder::from(plan).project(exprs)?.build()?;
        let outer = names.into_iter().map(Column::new_unqualified).collect();
        Ok(Flat { plan, outer })
    }

    /// What is aggregated as a whole has a row for no rows, too: each row of the domain stands
    /// beside what there is for it, and calls count what is found.
    fn also_without_rows(&mut self, below: Flat, calls: &mut Vec<Expr>) -> Result<Flat> {
        let found = self.names.fresh("__found_");
        let columns = below.plan.schema().iter();
        let columns = columns.map(|field| Expr::Column(Column::from(field)));
        let right = LogicalPlanBuilder::from(below.plan.clone())
            .project(columns.chain([lit(true).alias(&found)]).collect::<Vec<_>>())?
            .build()?;
        let (rows, outer) = self.domain.rows(self.names)?;
        let pairs = outer.iter().cloned().zip(below.outer);
        let pairs = pairs.map(|(l, r)| (Expr::Column(l), Expr::Column(r)));
        let plan = joined(rows, right, pairs.collect(), None, JoinType::Left)?;
        for call in calls.iter_mut() {
            let done = std::mem::take(call).transform_up(|e| {
                let Expr::AggregateFunction(mut call) = e else {
                    return Ok(Transformed::no(e));
                };
                let found = Expr::Column(Column::new_unqualified(&found)).is_true();
                call.params.filter = Some(Box::new(match call.params.filter.take() {
                    Some(filter) => found.and(*filter),
                    None => found,
                }));
                Ok(Transformed::yes(Expr::AggregateFunction(call)))
            })?;
            *call = done.data;
        }
        Ok(Flat { plan, outer })
    }

    fn distinct_on(&mut self, on: DistinctOn) -> Result<Flat> {
        let schema = on.input.schema().clone();
        let below = self.plan(Arc::unwrap_or_clone(on.input))?;
        let outer = || below.outer.iter().cloned().map(Expr::Column);
        let keys = self.inward_all(on.on_expr, &schema, &below.outer)?;
        let columns = self.named(on.select_expr, &on.schema, &schema, &below.outer)?;
        let sort = match on.sort_expr {
            Some(sort) => {
                let sort = self.inward_sort(sort, &schema, &below.outer)?;
                let sort = sort
                    .into_iter()
                    .filter(|key| !outer().any(|e| e == key.expr));
                let first = outer().map(|e| e.sort(true, false));
                Some(first.chain(sort).collect())
            }
            None => None,
        };
        let keys = keys.into_iter().filter(|key| !outer().any(|e| e == *key));
        let plan = DistinctOn::try_new(
            outer().chain(keys).collect(),
            columns.into_iter().chain(outer()).collect(),
            sort,
            Arc::new(below.plan),
        )?;
        let plan = LogicalPlan::Distinct(Distinct::On(plan));
        Ok(Flat {
            plan,
            outer: below.outer,
        })
    }

    /// A partition more for each row of the domain.
    fn window(&mut self, window: Window) -> Result<Flat> {
        let schema = window.input.schema().clone();
        let below = self.plan(Arc::unwrap_or_clone(window.input))?;
        let calls = self.inward_all(window.window_expr, &schema, &below.outer)?;
        let calls = calls.into_iter().map(|call| {
            let done = call.transform_up(|e| {
                let Expr::WindowFunction(mut call) = e else {
                    return Ok(Transformed::no(e));
                };
                let outer = below.outer.iter().cloned().map(Expr::Column);
                call.params.partition_by.extend(outer);
                Ok(Transformed::yes(Expr::WindowFunction(call)))
            })?;
            Ok(done.data)
        });
        let calls = calls.collect::<Result<Vec<_>>>()?;
        let width = below.plan.schema().fields().len();
        let plan = Window::try_new(calls, Arc::new(below.plan))?;
        let own = (0..schema.fields().len()).chain(width..plan.schema.fields().len());
        let own = own.zip(window.schema.iter()).map(|(at, (table, field))| {
            let column = Column::from(plan.schema.qualified_field(at));
            Expr::Column(column).alias_qualified(table.cloned(), field.name())
        });
        let own: Vec<Expr> = own.collect();
        project(LogicalPlan::Window(plan), own, below.outer)
    }

    fn union(&mut self, union: Union) -> Result<Flat> {
        let mut inputs = Vec::with_capacity(union.inputs.len());
        let mut names: Vec<Column> = Vec::new();
        for input in union.inputs {
            let below = self.plan(Arc::unwrap_or_clone(input))?;
            let own = own_columns(&below.plan, &union.schema).into_iter();
            let own = own.map(|e| match e {
                Expr::Alias(alias) => alias.expr.alias(alias.name),
                e => e,
            });
            // The columns of the domain have the names that the first input has for them.
            if names.is_empty() {
                names.clone_from(&below.outer);
            }
            let outer = below.outer.into_iter().zip(&names);
            let outer = outer.map(|(column, name)| Expr::Column(column).alias(&name.name));
            let exprs: Vec<Expr> = own.chain(outer).collect();
            let plan = LogicalPlanBuilder::from(below.plan)
                .project(exprs)?
                .build()?;
            inputs.push(Arc::new(plan));
        }
        let plan = LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?);
        let own = own_columns(&plan, &union.schema);
        project(plan, own, names)
    }

    /// Each side that refers to the domain, or is kept whole, has its columns.
    fn join(&mut self, join: Join) -> Result<Flat> {
        use JoinType::{Full, Inner, Left, LeftAnti, LeftMark, LeftSemi, Right};
        let (schema, kind) = (join.schema.clone(), join.join_type);
        let own = datafusion_expr::utils::merge_schema(&[&join.left, &join.right]);
        let (left, right) = (self.refers(&join.left)?, self.refers(&join.right)?);
        let (left_side, right_side) = match kind {
            Inner => (left || !right, right),
            Left | LeftSemi | LeftAnti | LeftMark => (true, right),
            Right => (left, true),
            Full => (true, true),
            _ => return Err(refused("with a join of this kind")),
        };
        let mut side = |input: Arc<LogicalPlan>, with: bool| -> Result<_> {
            let plan = Arc::unwrap_or_clone(input);
            Ok(match with {
                true => {
                    let flat = self.plan(plan)?;
                    (flat.plan, Some(flat.outer))
                }
                false => (plan, None),
            })
        };
        let (left, left_outer) = side(join.left, left_side)?;
        let (right, right_outer) = side(join.right, right_side)?;
        let kept = match kind {
            Right => right_outer.clone(),
            _ => left_outer.clone().or_else(|| right_outer.clone()),
        };
        let Some(outer) = kept else {
            return Err(refused("with a join of this kind"));
        };
        let (mut on, mut conditions) = (Vec::with_capacity(join.on.len()), Vec::new());
        for (l, r) in join.on {
            let l = self.inward(l, &own, &outer)?.data;
            let r = self.inward(r, &own, &outer)?.data;
            on.push((l, r));
        }
        if let Some(filter) = join.filter {
            conditions.push(self.inward(filter, &own, &outer)?.data);
        }
        if let (Some(l), Some(r)) = (&left_outer, &right_outer) {
            let pairs = l.iter().cloned().zip(r.iter().cloned());
            let pairs = pairs.map(|(l, r)| (Expr::Column(l), Expr::Column(r)));
            match join.null_equality {
                NullEquality::NullEqualsNull => on.extend(pairs),
                NullEquality::NullEqualsNothing => conditions.extend(pairs.map(|(l, r)| {
                    let op = Operator::IsNotDistinctFrom;
                    Expr::BinaryExpr(BinaryExpr::new(Box::new(l), op, Box::new(r)))
                })),
            }
        }
        let plan = LogicalPlan::Join(Join::try_new(
            Arc::new(left),
            Arc::new(right),
            on,
            conjunction(conditions),
            kind,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?);
        let own = schema.iter().map(|field| Expr::Column(Column::from(field)));
        let own = own.collect::<Vec<_>>();
        match (kind, right_outer) {
            // Of a full join either side may be missing.
            (Full, Some(right)) => {
                let named: Vec<String> = outer.iter().map(|_| self.names.outer()).collect();
                let both = outer.into_iter().zip(right).zip(&named);
                let both = both.map(|((l, r), name)| {
                    let (l, r) = (Expr::Column(l), Expr::Column(r));
                    Ok(when(l.clone().is_not_null(), l).otherwise(r)?.alias(name))
                });
                let both = both.collect::<Result<Vec<_>>>()?;
                let exprs: Vec<Expr> = own.into_iter().chain(both).collect();
                let plan = LogicalPlanBuilder::from(plan).project(exprs)?.build()?;
                let outer = named.into_iter().map(Column::new_unqualified).collect();
                Ok(Flat { plan, outer })
            }
            _ => project(plan, own, outer),
        }
    }

    fn unnest(&mut self, unnest: Unnest) -> Result<Flat> {
        let below = self.plan(Arc::unwrap_or_clone(unnest.input))?;
        let plan = unnest_with_options(below.plan, unnest.exec_columns, unnest.options)?;
        Ok(Flat {
            plan,
            outer: below.outer,
        })
    }
}

/// These columns, and those of the domain.
fn project(plan: LogicalPlan, own: Vec<Expr>, outer: Vec<Column>) -> Result<Flat> {
    let columns = outer.iter().cloned().map(Expr::Column);
    let plan = LogicalPlanBuilder::from(plan)
        .project(own.into_iter().chain(columns).collect::<Vec<_>>())?
        .build()?;
    Ok(Flat { plan, outer })
}
