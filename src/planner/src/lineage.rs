//! Where a query's column comes from, for the part of its SQL type that Arrow does not say:
//! `jsonb`, `uuid`, `varchar(10)` follow a column through a query as long as its values are passed
//! on as they are, and through a cast that names them.

use crate::bind::Table;
use crate::changelog::Changelog;
use crate::timed::TimedJoin;
use arrow_schema::{Field, FieldRef};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::logical_plan::Distinct;
use datafusion_expr::{Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs};
use std::sync::Arc;
use tidemark_plan::SQL_TYPE;

/// The SQL type text of an output column; empty where Arrow's type says all, or where nothing is
/// known.
pub(crate) fn sql_type(plan: &LogicalPlan, column: usize) -> String {
    find(plan, column).unwrap_or_default()
}

fn find(plan: &LogicalPlan, column: usize) -> Option<String> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let table = scan.source.downcast_ref::<Table>()?;
            let position = scan
                .projection
                .as_ref()
                .map_or(Some(column), |p| p.get(column).copied())?;
            table
                .relation
                .visible()
                .nth(position)
                .map(|(_, c)| c.sql_type.clone())
        }
        LogicalPlan::Projection(p) => of_expr(p.expr.get(column)?, &p.input),
        LogicalPlan::Aggregate(a) => match a.group_expr.get(column) {
            Some(expr) => of_expr(expr, &a.input),
            None => match a.aggr_expr.get(column - a.group_expr.len())? {
                Expr::AggregateFunction(f) if matches!(f.func.name(), "min" | "max") => {
                    of_expr(f.params.args.first()?, &a.input)
                }
                _ => None,
            },
        },
        LogicalPlan::Join(j) => of_sides(&j.left, &j.right, column),
        LogicalPlan::Extension(e) => {
            if let Some(changelog) = Changelog::of(e) {
                return find(&changelog.input, column);
            }
            let j = TimedJoin::of(e)?;
            of_sides(&j.left, &j.right, column)
        }
        LogicalPlan::Union(u) => {
            let mut all = u.inputs.iter().map(|i| find(i, column));
            let first = all.next()??;
            if all.all(|other| other.as_ref() == Some(&first)) {
                Some(first)
            } else {
                None
            }
        }
        LogicalPlan::SubqueryAlias(a) => find(&a.input, column),
        LogicalPlan::Filter(f) => find(&f.input, column),
        LogicalPlan::Sort(s) => find(&s.input, column),
        LogicalPlan::Limit(l) => find(&l.input, column),
        LogicalPlan::Distinct(Distinct::All(input)) => find(input, column),
        _ => None,
    }
}

/// Of a column of a join of these.
fn of_sides(left: &LogicalPlan, right: &LogicalPlan, column: usize) -> Option<String> {
    match column.checked_sub(left.schema().fields().len()) {
        None => find(left, column),
        Some(column) => find(right, column),
    }
}

fn of_expr(expr: &Expr, input: &LogicalPlan) -> Option<String> {
    match expr {
        Expr::Alias(alias) => of_expr(&alias.expr, input),
        Expr::Column(c) => find(input, input.schema().index_of_column(c).ok()?),
        Expr::Cast(cast) => cast.field.metadata().get(SQL_TYPE).cloned(),
        Expr::ScalarFunction(call) => of_call(call, input),
        _ => None,
    }
}

/// A call's, as the function derives it from those of its arguments.
fn of_call(call: &ScalarFunction, input: &LogicalPlan) -> Option<String> {
    let names: Vec<Option<String>> = call
        .args
        .iter()
        .map(|arg| of_expr(arg, input).filter(|name| !name.is_empty()))
        .collect();
    if names.iter().all(Option::is_none) {
        return None;
    }
    let field = |(arg, name): (&Expr, Option<String>)| {
        let field = Field::new("", arg.get_type(input.schema()).ok()?, true);
        let metadata = name.map(|name| (SQL_TYPE.to_string(), name));
        Some(Arc::new(field.with_metadata(metadata.into_iter().collect())) as FieldRef)
    };
    let fields = call.args.iter().zip(names).map(field);
    let fields = fields.collect::<Option<Vec<_>>>()?;
    let returned = call.func.return_field_from_args(ReturnFieldArgs {
        arg_fields: &fields,
        scalar_arguments: &vec![None; fields.len()],
    });
    returned.ok()?.metadata().get(SQL_TYPE).cloned()
}
