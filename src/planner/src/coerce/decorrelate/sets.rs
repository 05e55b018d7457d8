//! GROUPING SETS, ROLLUP and CUBE as what they are: the groups of each set, united; and VALUES as
//! its rows, united.

use datafusion_common::{Column, Result, ScalarValue};
use datafusion_expr::expr::GroupingSet;
use datafusion_expr::logical_plan::{Aggregate, Projection, Union, Values};
use datafusion_expr::utils::powerset;
use datafusion_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, lit};
use std::sync::Arc;

/// The plan of an aggregate that groups by sets, with the same columns.
pub(super) fn united(sets: &GroupingSet, aggregate: &Aggregate) -> Result<LogicalPlan> {
    let each = match sets {
        GroupingSet::GroupingSets(sets) => sets.clone(),
        GroupingSet::Rollup(all) => (0..=all.len()).rev().map(|n| all[..n].to_vec()).collect(),
        GroupingSet::Cube(all) => powerset(all)?
            .into_iter()
            .map(|set| set.into_iter().cloned().collect())
            .collect(),
    };
    let all: Vec<Expr> = sets.distinct_expr().into_iter().cloned().collect();
    let mut inputs = Vec::with_capacity(each.len());
    for (at, set) in each.iter().enumerate() {
        // A set that is given twice is told from the first by a number above the bits.
        let before = each[..at].iter().filter(|other| *other == set).count();
        inputs.push(Arc::new(of_set(set, &all, before as u64, aggregate)?));
    }
    let union = match inputs.as_slice() {
        [one] => one.as_ref().clone(),
        _ => LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?),
    };
    let columns = union.schema().iter().zip(aggregate.schema.iter());
    let columns = columns.map(|(column, (table, field))| {
        Expr::Column(Column::from(column)).alias_qualified(table.cloned(), field.name())
    });
    let columns = columns.collect();
    Projection::try_new(columns, Arc::new(union)).map(LogicalPlan::Projection)
}

/// The groups of one set, in the columns of all: those that it lacks are NULL, and have a bit in
/// the number of the set, the first the highest.
fn of_set(set: &[Expr], all: &[Expr], before: u64, aggregate: &Aggregate) -> Result<LogicalPlan> {
    let calls = aggregate.aggr_expr.clone();
    let grouped = Aggregate::try_new(aggregate.input.clone(), set.to_vec(), calls)?;
    let column = |at: usize| Expr::Column(Column::from(grouped.schema.qualified_field(at)));
    let mut columns = Vec::with_capacity(aggregate.schema.fields().len());
    let mut lacks = before;
    for (i, expr) in all.iter().enumerate() {
        let field = aggregate.schema.field(i);
        let at = set.iter().position(|e| e == expr);
        lacks = lacks << 1 | u64::from(at.is_none());
        let value = match at {
            Some(at) => column(at),
            None => Expr::Literal(ScalarValue::try_from(field.data_type())?, None),
        };
        columns.push(value.alias(format!("__group_{i}")));
    }
    let id = aggregate.schema.field(all.len());
    columns.push(cast(lit(lacks), id.data_type().clone()).alias(id.name()));
    let calls = (0..aggregate.aggr_expr.len()).map(|i| {
        let at = grouped.schema.fields().len() - aggregate.aggr_expr.len() + i;
        column(at).alias(format!("__call_{i}"))
    });
    columns.extend(calls);
    let grouped = Arc::new(LogicalPlan::Aggregate(grouped));
    Projection::try_new(columns, grouped).map(LogicalPlan::Projection)
}

/// The rows of VALUES, each computed for itself.
pub(super) fn rows(values: Values) -> Result<LogicalPlan> {
    let schema = values.schema.clone();
    let row = |exprs: Vec<Expr>| {
        let named = exprs.into_iter().zip(schema.fields());
        let named = named.map(|(e, f)| cast(e, f.data_type().clone()).alias(f.name()));
        let one = LogicalPlanBuilder::empty(true);
        one.project(named.collect::<Vec<_>>())?
            .build()
            .map(Arc::new)
    };
    let mut rows = values
        .values
        .into_iter()
        .map(row)
        .collect::<Result<Vec<_>>>()?;
    Ok(match rows.len() {
        1 => Arc::unwrap_or_clone(rows.remove(0)),
        _ => LogicalPlan::Union(Union::try_new_with_loose_types(rows)?),
    })
}
