//! GROUP BY, DISTINCT and aggregates. Group expressions, arguments and filters become columns of a
//! projection below, each distinct expression once; rows of one group meet by an exchange on the
//! group columns.

use crate::lower::collect::{goes_by_order, is_of_one_row};
use crate::lower::columns::Columns;
use crate::lower::dependent::dependents;
use crate::lower::exprs::remap;
use crate::lower::join::row_count;
use crate::lower::panes::{self, FirstPhase};
use crate::lower::top_n::sort_keys;
use crate::lower::{Builder, Stream, narrowest, schema_of, to_expr};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion_expr::expr::{AggregateFunction as DfAggregate, AggregateFunctionParams};
use datafusion_expr::{Expr as Df, ExprSchemable, logical_plan::Aggregate};
use std::sync::Arc;
use tidemark_common::{Error, Result};
use tidemark_plan::{
    AggregateCall, AggregateFunction, Expr, Literal, Op, Properties, aggregate_table_count,
};

/// An aggregate on its way: what it reads, and its calls in terms of columns.
pub(super) struct Grouping<'a, C> {
    pub input: Stream,
    pub output: SchemaRef,
    pub columns: Columns<'a>,
    /// Where each group expression is in the result.
    pub group: Vec<std::result::Result<usize, Expr>>,
    /// The first so many of the columns are grouped by.
    pub width: usize,
    pub calls: Vec<C>,
}

impl Builder {
    pub(super) fn aggregate(&mut self, aggregate: &Aggregate) -> Result<Stream> {
        let input = self.lower(&aggregate.input)?;
        let calls = &aggregate.aggr_expr;
        let grows = input.node.properties.append_only;
        let collects = |e: &Df| goes_by_order(e) && !(grows && is_of_one_row(e, aggregate));
        if calls.iter().any(collects) {
            return self.collect(input, aggregate);
        }
        let Grouping {
            input,
            output,
            columns,
            group,
            width,
            mut calls,
        } = self.grouping(input, aggregate, call)?;
        // A global aggregate of which nobody reads a result still is one row: it counts, in a
        // column beyond its schema.
        if group.is_empty() && calls.is_empty() {
            calls.push(row_count());
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
        let dependents = match &stream.node.op {
            Op::Project { exprs } => dependents(exprs, &stream.node.schema, width),
            _ => Vec::new(),
        };
        let (stream, places, calls) = without(stream, width, &dependents, calls);
        let kept = width - dependents.len();
        let called_columns = (0..calls.len()).map(|i| Expr::Column(kept + i));
        let group_column = |g: usize| match dependents.iter().find(|(d, _)| *d == g) {
            Some((_, expr)) => remap(expr.clone(), &|c| places[c]),
            None => Expr::Column(places[g]),
        };
        let picks: Vec<Expr> = group
            .iter()
            .map(|g| g.clone().map_or_else(|constant| constant, group_column))
            .chain(called_columns)
            .collect();
        let called = (0..calls.len()).map(|i| {
            output.fields().get(group.len() + i).map_or_else(
                || Field::new("count", DataType::Int64, false),
                |f| f.as_ref().clone(),
            )
        });
        let grouped = stream.node.schema.fields()[..kept]
            .iter()
            .map(|f| f.as_ref().clone());
        let schema = Arc::new(Schema::new(grouped.chain(called).collect::<Vec<_>>()));
        let result = self.grouped(stream, kept, calls, schema);
        Ok(result.project(picks, output))
    }

    /// Lowers what aggregates have in common; `call` lowers one of them, whose arguments, order and
    /// filter become columns.
    pub(super) fn grouping<'a, C>(
        &mut self,
        input: Stream,
        aggregate: &'a Aggregate,
        call: impl Fn(&Df, DataType, &mut Columns<'a>) -> Result<C>,
    ) -> Result<Grouping<'a, C>> {
        let output = schema_of(&aggregate.schema);
        let mut columns = Columns::new(aggregate.input.schema());
        let group = group_columns(aggregate, &mut columns)?;
        let width = columns.exprs.len();
        for field in &columns.fields {
            keyable(field.data_type(), "GROUP BY or DISTINCT")?;
        }
        let mut calls = Vec::new();
        for (i, expr) in aggregate.aggr_expr.iter().enumerate() {
            let output_type = output.field(group.len() + i).data_type().clone();
            calls.push(call(expr, output_type, &mut columns)?);
        }
        Ok(Grouping {
            input,
            output,
            columns,
            group,
            width,
            calls,
        })
    }

    /// Aggregates by the first `width` columns; without any, one row even for no input.
    pub(super) fn grouped(
        &mut self,
        input: Stream,
        width: usize,
        calls: Vec<AggregateCall>,
        schema: SchemaRef,
    ) -> Stream {
        let group: Vec<usize> = (0..width).collect();
        let moves = !input.partitions.contains(&group);
        let (input, calls, counts) = if moves && two_phase(&input, &calls) {
            match panes::first_phase(&input, width, &calls, &schema) {
                Some(first) => first,
                None => partial(input, width, calls, &schema),
            }
        } else {
            (input, calls, Vec::new())
        };
        let append_only = input.node.properties.append_only;
        let input = self.exchange(input, &group);
        let table = self.tables(aggregate_table_count(&calls, append_only));
        // Without calls the result is the set of groups: one that has appeared stays when nothing
        // ever leaves the input.
        let grows = append_only && calls.is_empty() && width > 0;
        let op = Op::Aggregate {
            global: width == 0,
            group: group.clone(),
            calls,
            table,
            closes: None,
        };
        let mut stream = input.wrap(
            op,
            schema.clone(),
            Properties {
                append_only: grows,
                key: Some(group.clone()),
            },
        );
        stream.partitions = vec![group];
        if width > 0 || counts.is_empty() {
            return stream;
        }
        // A sum of no partial counts is NULL, a count of no rows is 0.
        let zero = |c: usize| Expr::Case {
            operand: None,
            when_then: vec![(
                Expr::IsNull(Box::new(Expr::Column(c))),
                Expr::Literal(Literal::Int64(0)),
            )],
            otherwise: Some(Box::new(Expr::Column(c))),
        };
        let exprs = (0..stream.width())
            .map(|c| {
                if counts.contains(&c) {
                    zero(c)
                } else {
                    Expr::Column(c)
                }
            })
            .collect();
        stream.project(exprs, schema)
    }

    /// Each row once.
    pub(super) fn distinct(&mut self, input: Stream) -> Stream {
        let width = input.width();
        let schema = input.node.schema.clone();
        self.grouped(input, width, Vec::new(), schema)
    }
}

/// Where each group expression is in the result: a group column (one, if it is grouped by twice),
/// or a constant, which groups nothing as long as something else does. The columns are the first.
fn group_columns(
    aggregate: &Aggregate,
    columns: &mut Columns<'_>,
) -> Result<Vec<std::result::Result<usize, Expr>>> {
    let mut group = Vec::new();
    for expr in &aggregate.group_expr {
        let lowered = to_expr(expr, columns.input)?;
        group.push(if matches!(lowered, Expr::Literal(_)) {
            Err(lowered)
        } else {
            Ok(columns.add(expr)?)
        });
    }
    if columns.exprs.is_empty()
        && let (Some(first), Some(expr)) = (group.first_mut(), aggregate.group_expr.first())
    {
        *first = Ok(columns.add(expr)?);
    }
    Ok(group)
}

/// Drops group columns that follow from others. Answers where each remaining column is now, by its
/// old position, and the calls in new positions.
fn without(
    stream: Stream,
    width: usize,
    dependents: &[(usize, Expr)],
    mut calls: Vec<AggregateCall>,
) -> (Stream, Vec<usize>, Vec<AggregateCall>) {
    let all = stream.width();
    if dependents.is_empty() {
        return (stream, (0..all).collect(), calls);
    }
    let dropped = |c: usize| dependents.iter().any(|(d, _)| *d == c);
    let read = calls.iter_mut().flat_map(|call| call.columns_mut());
    let read: Vec<usize> = read.map(|c| *c).collect();
    let kept: Vec<usize> = (0..width)
        .filter(|c| !dropped(*c))
        .chain((0..all).filter(|c| *c >= width || dropped(*c) && read.contains(c)))
        .collect();
    let places: Vec<usize> = (0..all)
        .map(|c| kept.iter().position(|k| *k == c).unwrap_or(0))
        .collect();
    for column in calls.iter_mut().flat_map(|call| call.columns_mut()) {
        *column = places[*column];
    }
    (stream.pick(&kept), places, calls)
}

/// Whether an aggregation is worth combining before its exchange, and can be without changing any
/// result: the input only grows, so that a group never goes away and least and greatest values only
/// move one way; every call is a count, a least or greatest value, or an exact sum, each of which
/// can be taken of parts. Floats are not: their sum is rounded once, at the end. Averages are not,
/// because theirs is too. Intervals are not: a part may be too long that the whole is not.
fn two_phase(input: &Stream, calls: &[AggregateCall]) -> bool {
    let exact = |call: &AggregateCall| {
        let argument = call.arg.map(|c| input.node.schema.field(c).data_type());
        argument.is_none_or(|t| !t.is_floating() && !matches!(t, DataType::Interval(_)))
    };
    let combines = |call: &AggregateCall| match call.function {
        AggregateFunction::Count | AggregateFunction::Min | AggregateFunction::Max => true,
        AggregateFunction::Sum => exact(call),
        _ => false,
    };
    input.node.properties.append_only
        && !calls.is_empty()
        && calls.iter().all(|call| !call.distinct && combines(call))
}

/// The first phase of an aggregation by the first `width` columns.
pub(super) fn partial(
    input: Stream,
    width: usize,
    calls: Vec<AggregateCall>,
    schema: &SchemaRef,
) -> FirstPhase {
    let group: Vec<usize> = (0..width).collect();
    let last = |(i, call): (usize, &AggregateCall)| {
        let function = if call.function == AggregateFunction::Count {
            AggregateFunction::Sum
        } else {
            call.function
        };
        AggregateCall {
            function,
            arg: Some(width + i),
            second: None,
            distinct: false,
            filter: None,
            order: Vec::new(),
            output: call.output.clone(),
        }
    };
    let second = calls.iter().enumerate().map(last).collect();
    let counts = calls
        .iter()
        .enumerate()
        .filter(|(_, c)| c.function == AggregateFunction::Count)
        .map(|(i, _)| width + i)
        .collect();
    let partitions = input
        .partitions
        .iter()
        .filter(|p| p.iter().all(|c| *c < width))
        .cloned()
        .collect();
    let properties = Properties {
        append_only: true,
        key: None,
    };
    let mut stream = input.wrap(
        Op::PartialAggregate { group, calls },
        schema.clone(),
        properties,
    );
    stream.partitions = partitions;
    (stream, second, counts)
}

/// Lowers one aggregate call; its argument and filter become columns.
pub(super) fn call(
    expr: &Df,
    output: arrow_schema::DataType,
    columns: &mut Columns<'_>,
) -> Result<AggregateCall> {
    let (func, params) = match expr {
        Df::Alias(alias) => return call(&alias.expr, output, columns),
        Df::AggregateFunction(DfAggregate { func, params }) => (func, params),
        other => return Err(Error::internal(format!("{other} is not an aggregate"))),
    };
    let AggregateFunctionParams {
        args,
        distinct,
        filter,
        null_treatment,
        order_by,
    } = params;
    let function = function_named(func.name())?;
    if null_treatment.is_some() {
        return Err(Error::unsupported(
            "IGNORE NULLS and RESPECT NULLS are not supported",
        ));
    }
    let (arg, second) = match args.as_slice() {
        [arg] if !of_pairs(function) => (arg, None),
        [arg, second] if of_pairs(function) => (arg, Some(second)),
        _ => {
            return Err(Error::unsupported(format!(
                "{}() of {} arguments is not supported",
                func.name(),
                args.len()
            )));
        }
    };
    let never_null = |e: &Df| e.nullable(columns.input).is_ok_and(|nullable| !nullable);
    let type_of = |e: &Df| {
        let data_type = e.get_type(columns.input);
        data_type.map_err(|e| Error::internal(e.to_string()))
    };
    let data_type = type_of(arg)?;
    for arg in args {
        supported(function, func.name(), &type_of(arg)?)?;
    }
    // What goes by an order beside it tells equal values with different looks apart.
    let has_looks =
        crate::types::is_numeric_bytes(&data_type) || matches!(data_type, DataType::Interval(_));
    let adds = function != AggregateFunction::Count && !function.is_of_values();
    if *distinct && (second.is_some() || adds && has_looks && order_by.is_empty()) {
        let of = match second {
            Some(_) => "..".into(),
            None => crate::types::sql_type_name(&data_type),
        };
        return Err(Error::unsupported(format!(
            "{}(DISTINCT {of}) is not supported in a streaming query",
            func.name(),
        )));
    }
    // Least and greatest value, and conjunctions, do not depend on how often a value occurs.
    let distinct = *distinct && !function.is_of_values();
    if distinct {
        keyable(&data_type, "an aggregate of DISTINCT values")?;
    }
    let counts_rows = function == AggregateFunction::Count && !distinct && never_null(arg);
    let arg = if counts_rows {
        None
    } else {
        Some(columns.add(arg)?)
    };
    let second = second.map(|second| columns.add(second)).transpose()?;
    let filter = filter.as_deref().map(|f| columns.add(f)).transpose()?;
    let order = match function {
        AggregateFunction::First | AggregateFunction::Last => sort_keys(order_by, columns)?,
        _ => Vec::new(),
    };
    Ok(AggregateCall {
        function,
        arg,
        second,
        distinct,
        filter,
        order,
        output,
    })
}

/// The maintained functions by their names.
const NAMED: [(&str, AggregateFunction); 30] = [
    ("count", AggregateFunction::Count),
    ("sum", AggregateFunction::Sum),
    ("avg", AggregateFunction::Avg),
    ("min", AggregateFunction::Min),
    ("max", AggregateFunction::Max),
    ("bool_and", AggregateFunction::BoolAnd),
    ("bool_or", AggregateFunction::BoolOr),
    ("var_pop", AggregateFunction::VarPop),
    ("var", AggregateFunction::VarSamp),
    ("var_samp", AggregateFunction::VarSamp),
    ("stddev_pop", AggregateFunction::StddevPop),
    ("stddev", AggregateFunction::StddevSamp),
    ("stddev_samp", AggregateFunction::StddevSamp),
    ("bit_and", AggregateFunction::BitAnd),
    ("bit_or", AggregateFunction::BitOr),
    ("bit_xor", AggregateFunction::BitXor),
    ("corr", AggregateFunction::Corr),
    ("covar_pop", AggregateFunction::CovarPop),
    ("covar_samp", AggregateFunction::CovarSamp),
    ("regr_count", AggregateFunction::RegrCount),
    ("regr_sxx", AggregateFunction::RegrSxx),
    ("regr_syy", AggregateFunction::RegrSyy),
    ("regr_sxy", AggregateFunction::RegrSxy),
    ("regr_avgx", AggregateFunction::RegrAvgX),
    ("regr_avgy", AggregateFunction::RegrAvgY),
    ("regr_r2", AggregateFunction::RegrR2),
    ("regr_slope", AggregateFunction::RegrSlope),
    ("regr_intercept", AggregateFunction::RegrIntercept),
    ("first_value", AggregateFunction::First),
    ("last_value", AggregateFunction::Last),
];

fn function_named(name: &str) -> Result<AggregateFunction> {
    let found = NAMED.iter().find(|(known, _)| *known == name);
    found.map(|(_, function)| *function).ok_or_else(|| {
        Error::unsupported(format!(
            "aggregate function {name}() is not supported in a streaming query"
        ))
        .with_hint(
            "The aggregates that are maintained are those of PostgreSQL, any_value, arg_min, \
             arg_max, count_if and approx_... functions.",
        )
    })
}

/// Whether the function has two arguments, y and x.
fn of_pairs(function: AggregateFunction) -> bool {
    use AggregateFunction::{Corr, CovarPop, CovarSamp};
    use AggregateFunction::{RegrAvgX, RegrAvgY, RegrCount, RegrSxx, RegrSxy, RegrSyy};
    use AggregateFunction::{RegrIntercept, RegrR2, RegrSlope};
    matches!(
        function,
        Corr | CovarPop
            | CovarSamp
            | RegrCount
            | RegrSxx
            | RegrSyy
            | RegrSxy
            | RegrAvgX
            | RegrAvgY
            | RegrR2
            | RegrSlope
            | RegrIntercept
    )
}

/// Refuses types whose values cannot be told apart by a key.
pub(super) fn keyable(data_type: &arrow_schema::DataType, what: &str) -> Result<()> {
    if super::has_record(data_type) {
        return Err(Error::unsupported(format!(
            "{what} over rows is not supported in a streaming query"
        ))
        .with_hint("Name the columns of the row instead."));
    }
    Ok(())
}

/// Refuses argument types that the operator does not maintain.
fn supported(
    function: AggregateFunction,
    name: &str,
    argument: &arrow_schema::DataType,
) -> Result<()> {
    use arrow_schema::DataType as D;
    let fine = match function {
        AggregateFunction::Count | AggregateFunction::First | AggregateFunction::Last => true,
        AggregateFunction::Sum | AggregateFunction::Avg => {
            argument.is_integer()
                || argument.is_floating()
                || matches!(argument, D::Decimal128(_, _) | D::Interval(_))
                || crate::types::is_numeric_bytes(argument)
        }
        AggregateFunction::Min | AggregateFunction::Max => {
            !argument.is_nested() && !matches!(argument, D::Interval(_) | D::Null)
        }
        AggregateFunction::BoolAnd | AggregateFunction::BoolOr => *argument == D::Boolean,
        AggregateFunction::BitAnd | AggregateFunction::BitOr | AggregateFunction::BitXor => {
            matches!(argument, D::Int16 | D::Int32 | D::Int64)
        }
        AggregateFunction::VarPop
        | AggregateFunction::VarSamp
        | AggregateFunction::StddevPop
        | AggregateFunction::StddevSamp => {
            matches!(
                argument,
                D::Int16 | D::Int32 | D::Int64 | D::Decimal128(_, _) | D::Float32 | D::Float64
            ) || crate::types::is_numeric_bytes(argument)
        }
        _ => argument.is_floating(),
    };
    if fine {
        Ok(())
    } else {
        Err(Error::unsupported(format!(
            "{name}({}) is not supported in a streaming query",
            crate::types::sql_type_name(argument)
        )))
    }
}
