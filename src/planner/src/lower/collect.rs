//! Aggregates that go by the order of rows, or by all of them. With one of them in a query, all
//! aggregates of its groups are computed of the rows that are kept for it.

use crate::lower::aggregate::{call, group_columns, keyable};
use crate::lower::columns::Columns;
use crate::lower::top_n::sort_keys;
use crate::lower::{Builder, Stream, constant, schema_of, union_all};
use crate::types::{BPCHAR, JSONB, is_numeric_bytes};
use arrow_schema::{DataType, Field, Schema};
use datafusion_common::ScalarValue;
use datafusion_expr::expr::{AggregateFunction as DfAggregate, NullTreatment};
use datafusion_expr::{Expr as Df, ExprSchemable, logical_plan::Aggregate};
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{CollectCall, CollectFunction, Expr, Literal, Op, Properties, SortKey};
use tidemark_values::numeric::Numeric;

/// The functions that go by the order of rows.
const BY_ORDER: [&str; 6] = [
    "array_agg",
    "first_value",
    "last_value",
    "mode",
    "percentile_disc",
    "percentile_cont",
];

fn aggregate_of(expr: &Df) -> Option<&DfAggregate> {
    match expr {
        Df::Alias(alias) => aggregate_of(&alias.expr),
        Df::AggregateFunction(call) => Some(call),
        _ => None,
    }
}

/// Whether an aggregate is one of these.
pub(super) fn goes_by_order(expr: &Df) -> bool {
    aggregate_of(expr).is_some_and(|call| BY_ORDER.contains(&call.func.name()))
}

impl Builder {
    pub(super) fn collect(&mut self, aggregate: &Aggregate) -> Result<Stream> {
        let input = self.lower(&aggregate.input)?;
        let output = schema_of(&aggregate.schema);
        let mut columns = Columns::new(aggregate.input.schema());
        let group = group_columns(aggregate, &mut columns)?;
        let width = columns.exprs.len();
        for field in &columns.fields {
            keyable(field.data_type(), "GROUP BY")?;
        }
        let mut calls = Vec::new();
        for (i, expr) in aggregate.aggr_expr.iter().enumerate() {
            let output_type = output.field(group.len() + i).data_type().clone();
            calls.push(collect_call(expr, output_type, &mut columns)?);
        }
        let stream = match aggregate.group_expr.is_empty() {
            true => with_marked_row(input, columns, &mut calls),
            false => columns.project(input),
        };
        let stream = self.collected(stream, width, calls);
        let group_column = |g: &std::result::Result<usize, Expr>| match g {
            Ok(column) => Expr::Column(*column),
            Err(constant) => constant.clone(),
        };
        let picks = group.iter().map(group_column);
        let called = (0..aggregate.aggr_expr.len()).map(|i| Expr::Column(width + i));
        Ok(stream.project(picks.chain(called).collect(), output))
    }

    fn collected(&mut self, input: Stream, width: usize, calls: Vec<CollectCall>) -> Stream {
        let group: Vec<usize> = (0..width).collect();
        let input = self.exchange(input, &group);
        let grouped = input.node.schema.fields()[..width]
            .iter()
            .map(|f| f.as_ref().clone());
        let called = calls
            .iter()
            .enumerate()
            .map(|(i, call)| Field::new(format!("call_{i}"), call.output.clone(), true));
        let schema = Arc::new(Schema::new(grouped.chain(called).collect::<Vec<_>>()));
        let properties = Properties {
            append_only: false,
            key: Some(group.clone()),
        };
        let op = Op::Collect {
            group: group.clone(),
            calls,
            table: self.tables(1),
            closes: None,
        };
        let mut stream = input.wrap(op, schema, properties);
        stream.partitions = vec![group];
        stream
    }
}

/// Without groups there is one row even for no input: a row is among the input that no call counts.
fn with_marked_row(input: Stream, mut columns: Columns<'_>, calls: &mut [CollectCall]) -> Stream {
    let counted = Field::new("counted", DataType::Boolean, false);
    let counts = columns.exprs.len();
    columns.fields.push(counted);
    columns.exprs.push(Expr::Literal(Literal::Boolean(true)));
    for call in calls {
        call.filter.get_or_insert(counts);
    }
    let nothing = |(i, field): (usize, &Field)| {
        Expr::Literal(match i == counts {
            true => Literal::Boolean(false),
            false => Literal::Null(field.data_type().clone()),
        })
    };
    let marked: Vec<Expr> = columns.fields.iter().enumerate().map(nothing).collect();
    let fields = columns.fields.iter().map(|f| f.clone().with_nullable(true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let rows = columns.project(input);
    let marked = constant(vec![marked], schema.clone());
    union_all(vec![rows.with_schema(schema.clone()), marked], schema)
}

/// Lowers one call; its argument, order and filter become columns.
fn collect_call(expr: &Df, output: DataType, columns: &mut Columns<'_>) -> Result<CollectCall> {
    let aggregate = aggregate_of(expr);
    let aggregate = aggregate.ok_or_else(|| Error::internal(format!("{expr} is no aggregate")))?;
    let (name, params) = (aggregate.func.name(), &aggregate.params);
    if !BY_ORDER.contains(&name) {
        let plain = call(expr, output, columns)?;
        // What counts once each stands side by side.
        let by_value = plain.arg.filter(|_| plain.distinct).map(|column| SortKey {
            column,
            descending: false,
            nulls_first: false,
        });
        return Ok(CollectCall {
            function: CollectFunction::Aggregate(plain.function),
            arg: plain.arg,
            order: by_value.into_iter().collect(),
            distinct: plain.distinct,
            filter: plain.filter,
            output: plain.output,
        });
    }
    let refused = |what: &str| {
        Error::unsupported(format!(
            "aggregate function {name}() {what} is not supported in a streaming query"
        ))
    };
    if params.null_treatment == Some(NullTreatment::IgnoreNulls) {
        return Err(refused("with IGNORE NULLS"));
    }
    let Some(value) = params.args.first() else {
        let message = format!("function {name}() does not exist");
        return Err(Error::user(SqlState::UNDEFINED_FUNCTION, message));
    };
    let value_type = value
        .get_type(columns.input)
        .map_err(|e| Error::internal(e.to_string()))?;
    let function = match name {
        "first_value" => CollectFunction::First,
        "last_value" => CollectFunction::Last,
        "mode" if is_shown_in_several_ways(&value_type) => {
            return Err(refused(&format!(
                "of {}",
                crate::types::sql_type_name(&value_type)
            )));
        }
        "mode" => CollectFunction::Mode,
        "percentile_disc" => CollectFunction::PercentileDisc(part(params.args.get(1), name)?),
        "percentile_cont" if !(value_type.is_integer() || value_type.is_floating()) => {
            return Err(
                refused(&format!("of {}", crate::types::sql_type_name(&value_type)))
                    .with_hint("Cast it to double precision."),
            );
        }
        "percentile_cont" => CollectFunction::PercentileCont(part(params.args.get(1), name)?),
        _ => CollectFunction::Array,
    };
    Ok(CollectCall {
        function,
        arg: Some(columns.add(value)?),
        order: sort_keys(&params.order_by, columns)?,
        distinct: params.distinct,
        filter: params
            .filter
            .as_deref()
            .map(|f| columns.add(f))
            .transpose()?,
        output,
    })
}

/// Whether equal values of a type may differ.
fn is_shown_in_several_ways(data_type: &DataType) -> bool {
    is_numeric_bytes(data_type)
        || *data_type == JSONB
        || *data_type == BPCHAR
        || matches!(data_type, DataType::Interval(_) | DataType::List(_))
}

/// A percentile, which is constant, as the bits of a double.
fn part(expr: Option<&Df>, name: &str) -> Result<u64> {
    let number = match expr.map(|e| e.clone().unalias()) {
        Some(Df::Literal(ScalarValue::LargeBinary(Some(form)), _)) => {
            Numeric::decode(&form).ok().and_then(|n| n.to_f64().ok())
        }
        Some(Df::Literal(value, _)) => match value.cast_to(&DataType::Float64) {
            Ok(ScalarValue::Float64(number)) => number,
            _ => None,
        },
        _ => None,
    };
    let part = number.ok_or_else(|| {
        Error::unsupported(format!(
            "{name}() of a percentile that is no constant is not supported in a streaming query"
        ))
    })?;
    if !(0.0..=1.0).contains(&part) {
        let message = format!("percentile value {part} is not between 0 and 1");
        return Err(Error::user(SqlState::NUMERIC_OUT_OF_RANGE, message));
    }
    Ok(part.to_bits())
}
