//! Aggregates that go by the order of rows, or by all of them. With one of them in a query, all
//! aggregates of its groups are computed of the rows that are kept for it.

use crate::lower::aggregate::{Grouping, call};
use crate::lower::columns::Columns;
use crate::lower::top_n::sort_keys;
use crate::lower::{Builder, Stream, constant, union_all};
use crate::types::is_numeric_bytes;
use arrow_schema::{DataType, Field, Schema};
use datafusion_common::ScalarValue;
use datafusion_common::arrow::array::Array;
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

/// Whether an aggregate is one of these; or adds up once each what is equal and may differ, for
/// which it has been given an order.
pub(super) fn goes_by_order(expr: &Df) -> bool {
    let once = |call: &DfAggregate| call.params.distinct && !call.params.order_by.is_empty();
    aggregate_of(expr).is_some_and(|call| BY_ORDER.contains(&call.func.name()) || once(call))
}

/// Whether one row at a time is all that an aggregate needs of an input that only grows: the first
/// in an order, or the last.
pub(super) fn is_of_one_row(expr: &Df, aggregate: &Aggregate) -> bool {
    let is_one = |call: &DfAggregate| matches!(call.func.name(), "first_value" | "last_value");
    // Several of one query answer of one row where their orders leave it open: that takes all rows.
    let all = aggregate.aggr_expr.iter().filter_map(aggregate_of);
    let is_alone = all.filter(|call| is_one(call)).count() == 1;
    aggregate_of(expr).is_some_and(|call| {
        let order = call.params.order_by.iter().map(|sort| &sort.expr);
        let mut read = call.params.args.iter().chain(order);
        let is_stored = |arg: &Df| {
            let data_type = arg.get_type(aggregate.input.schema());
            data_type.is_ok_and(|t| !t.is_nested() && !matches!(t, DataType::Interval(_)))
        };
        is_alone
            && is_one(call)
            && call.params.null_treatment.is_none()
            && !call.params.distinct
            && read.all(is_stored)
    })
}

impl Builder {
    pub(super) fn collect(&mut self, input: Stream, aggregate: &Aggregate) -> Result<Stream> {
        let Grouping {
            input,
            output,
            columns,
            group,
            width,
            mut calls,
        } = self.grouping(input, aggregate, collect_call)?;
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
        let mut order = Vec::new();
        if let Some(column) = plain.arg.filter(|_| plain.distinct) {
            order = sort_keys(&params.order_by, columns)?;
            if order.is_empty() {
                order.push(ascending(column));
            }
        }
        return Ok(CollectCall {
            function: CollectFunction::Aggregate(plain.function),
            arg: plain.arg,
            second: plain.second,
            order,
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
        "mode" => CollectFunction::Mode,
        "percentile_disc" => match percentiles(params.args.get(1), name)? {
            Percentiles::One(part) => CollectFunction::PercentileDisc(part),
            Percentiles::Several(parts) => CollectFunction::PercentilesDisc(parts),
        },
        "percentile_cont" if !has_between(&value_type) => {
            return Err(
                refused(&format!("of {}", crate::types::sql_type_name(&value_type)))
                    .with_hint("Cast it to double precision."),
            );
        }
        "percentile_cont" => match percentiles(params.args.get(1), name)? {
            Percentiles::One(part) => CollectFunction::PercentileCont(part),
            Percentiles::Several(parts) => CollectFunction::PercentilesCont(parts),
        },
        _ => CollectFunction::Array,
    };
    let arg = columns.add(value)?;
    let mut order = sort_keys(&params.order_by, columns)?;
    // In order of its values, where no other is asked for.
    if order.is_empty() && name.starts_with("percentile") {
        order.push(ascending(arg));
    }
    Ok(CollectCall {
        function,
        arg: Some(arg),
        second: None,
        order,
        distinct: params.distinct,
        filter: params
            .filter
            .as_deref()
            .map(|f| columns.add(f))
            .transpose()?,
        output,
    })
}

/// In the order of a column.
fn ascending(column: usize) -> SortKey {
    SortKey {
        column,
        descending: false,
        nulls_first: false,
    }
}

/// Whether there is something between two values of a type.
fn has_between(data_type: &DataType) -> bool {
    data_type.is_integer() || data_type.is_floating() || matches!(data_type, DataType::Interval(_))
}

/// The percentiles that are asked for, as the bits of doubles.
enum Percentiles {
    One(u64),
    /// A list of them, some of which may be NULL.
    Several(Vec<Option<u64>>),
}

/// The percentiles of a call, which are constant.
fn percentiles(expr: Option<&Df>, name: &str) -> Result<Percentiles> {
    let varies = || {
        Error::unsupported(format!(
            "{name}() of a percentile that is no constant is not supported in a streaming query"
        ))
    };
    let bits = |value: &ScalarValue| match value.is_null() {
        true => Ok(None),
        false => part(double(value).ok_or_else(varies)?).map(Some),
    };
    let expr = expr.ok_or_else(varies)?;
    if let Some(elements) = elements(expr) {
        let parts = elements.iter().map(bits);
        return Ok(Percentiles::Several(parts.collect::<Result<_>>()?));
    }
    let value = literal(expr).ok_or_else(varies)?;
    bits(&value)?.map(Percentiles::One).ok_or_else(varies)
}

/// What an expression is a cast of that loses nothing, if it is one.
fn uncast(expr: &Df) -> &Df {
    match expr {
        Df::Alias(alias) => uncast(&alias.expr),
        Df::Cast(cast) if holds_all(cast.field.data_type()) => uncast(&cast.expr),
        Df::ScalarFunction(call) if call.func.name() == "cast_as" => match &call.args[..] {
            [value, Df::Literal(to, _), ..] if holds_all(&to.data_type()) => uncast(value),
            _ => expr,
        },
        other => other,
    }
}

/// Whether all that a percentile can be is a value of this type.
fn holds_all(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(element) => holds_all(element.data_type()),
        other => *other == DataType::Float64 || is_numeric_bytes(other),
    }
}

fn literal(expr: &Df) -> Option<ScalarValue> {
    match uncast(expr) {
        Df::Literal(value, _) => Some(value.clone()),
        _ => None,
    }
}

/// The elements of a constant array.
fn elements(expr: &Df) -> Option<Vec<ScalarValue>> {
    match uncast(expr) {
        Df::Literal(ScalarValue::List(list), _) if list.is_valid(0) => {
            let values = list.value(0);
            let value = |i| ScalarValue::try_from_array(&values, i).ok();
            (0..values.len()).map(value).collect()
        }
        Df::ScalarFunction(call) if call.func.name() == "make_array" => {
            call.args.iter().map(literal).collect()
        }
        _ => None,
    }
}

/// A number as a double.
fn double(value: &ScalarValue) -> Option<f64> {
    if let ScalarValue::LargeBinary(Some(form)) = value {
        return Numeric::decode(form).ok().and_then(|n| n.to_f64().ok());
    }
    match value.cast_to(&DataType::Float64) {
        Ok(ScalarValue::Float64(number)) => number,
        _ => None,
    }
}

/// The bits of a percentile.
fn part(part: f64) -> Result<u64> {
    if !(0.0..=1.0).contains(&part) {
        let message = format!("percentile value {part} is not between 0 and 1");
        return Err(Error::user(SqlState::NUMERIC_OUT_OF_RANGE, message));
    }
    Ok(part.to_bits())
}
