//! GROUP BY, DISTINCT and aggregates. Group expressions, arguments and filters become columns of a projection below, each distinct expression once; rows
//! of one group meet by an exchange on the group columns.

use crate::lower::{Builder, Stream, narrowest, schema_of, to_expr};
use arrow_schema::{Field, Schema, SchemaRef};
use datafusion_expr::expr::{AggregateFunction as DfAggregate, AggregateFunctionParams};
use datafusion_expr::{Expr as Df, ExprSchemable, logical_plan::Aggregate};
use std::sync::Arc;
use tidemark_common::{Error, Result};
use tidemark_plan::{AggregateCall, AggregateFunction, Expr, Op, Properties};

/// The columns below an aggregate: group expressions first, then whatever else is read, each expression once.
struct Columns<'a> {
    input: &'a datafusion_common::DFSchema,
    exprs: Vec<Expr>,
    fields: Vec<Field>,
}

impl Columns<'_> {
    fn add(&mut self, expr: &Df) -> Result<usize> {
        let lowered = to_expr(expr, self.input)?;
        if let Some(at) = self.exprs.iter().position(|e| *e == lowered) {
            return Ok(at);
        }
        let (_, field) = expr.to_field(self.input).map_err(|e| Error::internal(e.to_string()))?;
        let name = if let Df::Column(column) = expr { column.name.clone() } else { expr.schema_name().to_string() };
        self.fields.push(Field::new(name, field.data_type().clone(), field.is_nullable()));
        self.exprs.push(lowered);
        Ok(self.exprs.len() - 1)
    }
}

impl Builder {
    pub(super) fn aggregate(&mut self, aggregate: &Aggregate) -> Result<Stream> {
        let input = self.lower(&aggregate.input)?;
        let output = schema_of(&aggregate.schema);
        let mut columns = Columns { input: aggregate.input.schema(), exprs: Vec::new(), fields: Vec::new() };
        // Where each group expression is in the result: a group column (one, if it is grouped by twice), or a constant, which groups nothing as long as
        // something else does.
        let mut group = Vec::new();
        for expr in &aggregate.group_expr {
            let lowered = to_expr(expr, columns.input)?;
            group.push(if matches!(lowered, Expr::Literal(_)) { Err(lowered) } else { Ok(columns.add(expr)?) });
        }
        if columns.exprs.is_empty()
            && let (Some(first), Some(expr)) = (group.first_mut(), aggregate.group_expr.first())
        {
            *first = Ok(columns.add(expr)?);
        }
        let width = columns.exprs.len();
        let mut calls = Vec::new();
        for (i, expr) in aggregate.aggr_expr.iter().enumerate() {
            let output_type = output.field(group.len() + i).data_type().clone();
            calls.push(call(expr, output_type, &mut columns)?);
        }
        let Columns { exprs, fields, .. } = columns;
        let stream = match exprs.is_empty() {
            true if input.width() == 1 => input,
            true => {
                let column = narrowest(&input.node.schema);
                input.pick(&[column])
            }
            false => input.project(exprs, Arc::new(Schema::new(fields))),
        };
        let called_columns = (0..calls.len()).map(|i| Expr::Column(width + i));
        let picks: Vec<Expr> = group.iter().map(|g| g.clone().map_or_else(|constant| constant, Expr::Column)).chain(called_columns).collect();
        let grouped: Vec<Field> = (0..width).map(|g| output.field(group.iter().position(|x| *x == Ok(g)).unwrap_or(g)).clone()).collect();
        let called = (0..calls.len()).map(|i| output.field(group.len() + i).clone());
        let schema = Arc::new(Schema::new(grouped.into_iter().chain(called).collect::<Vec<_>>()));
        let result = self.grouped(stream, width, calls, schema);
        Ok(result.project(picks, output))
    }

    /// Aggregates by the first `width` columns; without any, one row even for no input.
    pub(super) fn grouped(&mut self, input: Stream, width: usize, calls: Vec<AggregateCall>, schema: SchemaRef) -> Stream {
        let group: Vec<usize> = (0..width).collect();
        let append_only = input.node.properties.append_only;
        let input = self.exchange(input, &group);
        let table = self.tables(aggregate_tables(&calls, append_only));
        let op = Op::Aggregate { global: width == 0, group: group.clone(), calls, table };
        let mut stream = input.wrap(op, schema, Properties { append_only: false, key: Some(group.clone()) });
        stream.partitions = vec![group];
        stream
    }

    /// Each row once.
    pub(super) fn distinct(&mut self, input: Stream) -> Stream {
        let width = input.width();
        let schema = input.node.schema.clone();
        let append_only = input.node.properties.append_only;
        let mut stream = self.grouped(input, width, Vec::new(), schema);
        // A row that has appeared once stays when nothing ever leaves the input.
        stream.node.properties.append_only = append_only;
        stream
    }
}

/// State tables of an aggregate: the groups, one per column with DISTINCT calls, and one per min or max that must survive retractions.
fn aggregate_tables(calls: &[AggregateCall], append_only: bool) -> u32 {
    let mut distinct: Vec<Option<usize>> = calls.iter().filter(|c| c.distinct).map(|c| c.arg).collect();
    distinct.sort_unstable();
    distinct.dedup();
    let ordered = calls.iter().filter(|c| matches!(c.function, AggregateFunction::Min | AggregateFunction::Max) && !append_only).count();
    1 + distinct.len() as u32 + ordered as u32
}

/// Lowers one aggregate call; its argument and filter become columns.
fn call(expr: &Df, output: arrow_schema::DataType, columns: &mut Columns<'_>) -> Result<AggregateCall> {
    let (func, params) = match expr {
        Df::Alias(alias) => return call(&alias.expr, output, columns),
        Df::AggregateFunction(DfAggregate { func, params }) => (func, params),
        other => return Err(Error::internal(format!("{other} is not an aggregate"))),
    };
    let AggregateFunctionParams { args, distinct, filter, null_treatment, order_by: _ } = params;
    let function = match func.name() {
        "count" => AggregateFunction::Count,
        "sum" => AggregateFunction::Sum,
        "avg" => AggregateFunction::Avg,
        "min" => AggregateFunction::Min,
        "max" => AggregateFunction::Max,
        "bool_and" => AggregateFunction::BoolAnd,
        "bool_or" => AggregateFunction::BoolOr,
        other => return Err(Error::unsupported(format!("aggregate function {other}() in a streaming query")).with_hint("count, sum, avg, min, max, bool_and and bool_or are maintained.")),
    };
    if null_treatment.is_some() {
        return Err(Error::unsupported("IGNORE NULLS and RESPECT NULLS"));
    }
    let [arg] = args.as_slice() else { return Err(Error::unsupported(format!("{}() of {} arguments", func.name(), args.len()))) };
    let never_null = |e: &Df| e.nullable(columns.input).is_ok_and(|nullable| !nullable);
    // Least and greatest value, and conjunctions, do not depend on how often a value occurs.
    let distinct = *distinct && matches!(function, AggregateFunction::Count | AggregateFunction::Sum | AggregateFunction::Avg);
    let counts_rows = function == AggregateFunction::Count && !distinct && never_null(arg);
    let arg = if counts_rows { None } else { Some(columns.add(arg)?) };
    let filter = filter.as_deref().map(|f| columns.add(f)).transpose()?;
    Ok(AggregateCall { function, arg, distinct, filter, output })
}
