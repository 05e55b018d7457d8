//! The domain of a subquery: the different values of the columns outside that it refers to. Values
//! that are equal and still differ (numerics 1.0 and 1.00, 0 and -0) are different here, since a
//! subquery may tell them apart: of such a type the domain has the texts, and the subquery reads
//! the values of these.

use super::names::{Names, refused};
use super::references;
use crate::coerce::keyed::is_keyed;
use arrow_schema::DataType;
use datafusion_common::tree_node::TreeNode;
use datafusion_common::{Column, DFSchema, JoinConstraint, NullEquality, Result};
use datafusion_expr::logical_plan::{Aggregate, Join};
use datafusion_expr::{Expr, ExprSchemable, JoinType, LogicalPlan, LogicalPlanBuilder, cast};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Aggregates whose value does not hang on the order of their rows, where they are no floats.
const ORDERLESS: [&str; 7] = ["count", "sum", "avg", "min", "max", "bool_and", "bool_or"];

pub(super) struct Domain {
    /// Its rows.
    rows: LogicalPlan,
    /// What is referred to, in the order of the columns.
    references: Vec<Expr>,
    /// The columns as expressions of the query outside.
    outside: Vec<Expr>,
    /// The types of the values, of which some are kept as texts.
    types: Vec<DataType>,
}

impl Domain {
    /// The domain of a subquery's plan in a query that reads `outside`; `None` where it refers to
    /// nothing there.
    ///
    /// Errors: `0A000` where the rows outside are not the same when they are read once more.
    pub(super) fn of(
        plan: &LogicalPlan,
        outside: &LogicalPlan,
        names: &mut Names,
    ) -> Result<Option<Domain>> {
        let mut references = references::of_plan(plan)?;
        let schema = outside.schema();
        references.retain(|e| references::column(e).is_some_and(|c| schema.has_column(c)));
        if references.is_empty() {
            return Ok(None);
        }
        if !is_repeatable(outside)? {
            return Err(refused(
                "that refers to rows which are numbered, limited or put together in no certain \
                 order",
            ));
        }
        let (mut values, mut types) = (Vec::new(), Vec::new());
        for column in references.iter().filter_map(references::column) {
            let column = Expr::Column(column.clone());
            let data_type = column.get_type(schema)?;
            values.push(match has_twins(&data_type) {
                true => cast(column, DataType::Utf8),
                false => column,
            });
            types.push(data_type);
        }
        let named = values.iter().map(|e| e.clone().alias(names.outer()));
        let rows = LogicalPlanBuilder::from(outside.clone())
            .project(named.collect::<Vec<_>>())?
            .distinct()?
            .build()?;
        Ok(Some(Domain {
            rows,
            references,
            outside: values,
            types,
        }))
    }

    /// The rows of it, under names that nothing else has.
    pub(super) fn rows(&self, names: &mut Names) -> Result<(LogicalPlan, Vec<Column>)> {
        let fresh: Vec<String> = self.outside.iter().map(|_| names.outer()).collect();
        let columns = self.rows.schema().iter().zip(&fresh);
        let columns = columns.map(|(field, name)| Expr::Column(Column::from(field)).alias(name));
        let plan = LogicalPlanBuilder::from(self.rows.clone())
            .project(columns.collect::<Vec<_>>())?
            .build()?;
        let fresh = fresh.into_iter().map(Column::new_unqualified);
        Ok((plan, fresh.collect()))
    }

    /// What a reference is to, given the columns of the domain's rows: one of them, and the type of
    /// the value if the column is its text.
    pub(super) fn column<'a>(
        &self,
        reference: &Expr,
        columns: &'a [Column],
    ) -> Option<(&'a Column, Option<&DataType>)> {
        let at = self.references.iter().position(|e| e == reference)?;
        let data_type = &self.types[at];
        Some((&columns[at], has_twins(data_type).then_some(data_type)))
    }

    /// Whether a reference is to one of its columns.
    pub(super) fn has(&self, reference: &Expr) -> bool {
        self.references.contains(reference)
    }

    /// A join of the query outside with what was computed for each row of the domain, which has
    /// these columns.
    pub(super) fn join(
        &self,
        outside: LogicalPlan,
        plan: LogicalPlan,
        columns: &[Column],
        filter: Option<Expr>,
        kind: JoinType,
    ) -> Result<LogicalPlan> {
        let on = self.outside.iter().cloned();
        let on = on.zip(columns.iter().cloned().map(Expr::Column));
        joined(outside, plan, on.collect(), filter, kind)
    }
}

/// A join by pairs of values, NULL being equal to NULL.
pub(super) fn joined(
    left: LogicalPlan,
    right: LogicalPlan,
    on: Vec<(Expr, Expr)>,
    filter: Option<Expr>,
    kind: JoinType,
) -> Result<LogicalPlan> {
    let (left, right) = (Arc::new(left), Arc::new(right));
    let nulls = NullEquality::NullEqualsNull;
    let constraint = JoinConstraint::On;
    Join::try_new(left, right, on, filter, kind, constraint, nulls, false).map(LogicalPlan::Join)
}

/// Whether equal values of this type may differ.
fn has_twins(data_type: &DataType) -> bool {
    is_keyed(data_type) || data_type.is_floating() || data_type.is_nested()
}

/// Whether a query gives the same rows when it is read once more.
fn is_repeatable(plan: &LogicalPlan) -> Result<bool> {
    let varies = plan.exists(|node| {
        let varies = match node {
            LogicalPlan::Limit(_) | LogicalPlan::Window(_) | LogicalPlan::Extension(_) => true,
            LogicalPlan::Sort(sort) => sort.fetch.is_some(),
            LogicalPlan::Distinct(_) => shows_one_of_several(node.schema()),
            LogicalPlan::Aggregate(aggregate) => !is_orderless(aggregate),
            _ => false,
        };
        Ok(varies || node.expressions().iter().any(Expr::is_volatile))
    })?;
    Ok(!varies)
}

/// Whether equal rows may differ; a domain's do not.
fn shows_one_of_several(schema: &DFSchema) -> bool {
    let fields = schema.fields().iter();
    let mut fields = fields.filter(|f| !Names::is_outer(f.name()));
    fields.any(|f| has_twins(f.data_type()))
}

fn is_orderless(aggregate: &Aggregate) -> bool {
    let groups = aggregate.group_expr.len();
    let fields = aggregate.schema.fields().iter();
    let floats = fields.skip(groups).any(|f| f.data_type().is_floating());
    let known: BTreeSet<&str> = ORDERLESS.into();
    let orderless = |e: &Expr| match e {
        Expr::AggregateFunction(call) => known.contains(call.func.name()),
        _ => false,
    };
    let grouped = aggregate.schema.fields().iter().take(groups);
    let mut grouped = grouped.filter(|f| !Names::is_outer(f.name()));
    let twins = grouped.any(|f| has_twins(f.data_type()));
    !floats && !twins && aggregate.aggr_expr.iter().all(orderless)
}
