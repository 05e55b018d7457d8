//! Window functions. Calls of one window (partition and order) are one operator; what they read
//! that is no column is computed below it.

use crate::excluded::excluded;
use crate::lower::aggregate::call;
use crate::lower::ahead::{Ahead, is_by_time};
use crate::lower::columns::Columns;
use crate::lower::top_n::{constant as constant_integer, partition_of, sort_keys};
use crate::lower::{Builder, Stream, schema_of, to_expr};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion_common::ScalarValue;
use datafusion_expr::expr::{
    AggregateFunction as DfAggregate, NullTreatment, Sort, WindowFunction as DfCall,
    WindowFunctionParams,
};
use datafusion_expr::logical_plan::Window;
use datafusion_expr::{
    Expr as Df, ExprSchemable, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{
    BinaryOp, Expr, Frame, FrameBound, FrameUnits, Literal, Op, Properties, Ranking, SortKey,
    WindowCall, WindowFunction,
};

/// Calls of one window.
struct Group {
    partition: Vec<usize>,
    order: Vec<SortKey>,
    /// Which of all calls each is.
    places: Vec<usize>,
    calls: Vec<WindowCall>,
}

impl Builder {
    pub(super) fn window(&mut self, window: &Window) -> Result<Stream> {
        let input = self.lower(&window.input)?;
        let logical = window.input.schema().fields().len();
        let output = with_nulls(&schema_of(&window.schema), logical);
        let mut columns = Columns::all(window.input.schema(), &input);
        let mut groups: Vec<Group> = Vec::new();
        for (place, expr) in window.window_expr.iter().enumerate() {
            let function = window_function(expr)?;
            let params = &function.params;
            let (partition, _) = excluded(&params.partition_by);
            let partition = partition_of(&partition, &mut columns)?;
            let order = order_of(&params.order_by, self.emits_on_close, &mut columns)?;
            let output_type = output.field(logical + place).data_type().clone();
            let call = window_call(function, output_type, &mut columns)?;
            match groups
                .iter_mut()
                .find(|g| g.partition == partition && g.order == order)
            {
                Some(group) => {
                    group.places.push(place);
                    group.calls.push(call);
                }
                None => groups.push(Group {
                    partition,
                    order,
                    places: vec![place],
                    calls: vec![call],
                }),
            }
        }
        // The last is told of no call that is asked for.
        let own = window.window_expr.len();
        let mut results = vec![0; own + 1];
        if self.emits_on_close {
            for group in &mut groups {
                group.calls.extend(closing_call(group, &columns));
                group.places.resize(group.calls.len(), own);
            }
        }
        let mut stream = columns.project(input);
        for group in groups {
            for (i, place) in group.places.iter().enumerate() {
                results[*place] = stream.width() + i;
            }
            stream = self.windowed(stream, group);
        }
        let results = results.into_iter().take(own);
        let picks = (0..logical).chain(results).map(Expr::Column).collect();
        Ok(stream.project(picks, output))
    }

    fn windowed(&mut self, input: Stream, group: Group) -> Stream {
        let input = self.exchange(input, &group.partition);
        let called =
            group.calls.iter().zip(&group.places).map(|(call, place)| {
                Field::new(format!("call_{place}"), call.output.clone(), true)
            });
        let fields = input
            .node
            .schema
            .fields()
            .iter()
            .map(|f| f.as_ref().clone());
        let schema = Arc::new(Schema::new(fields.chain(called).collect::<Vec<_>>()));
        let properties = Properties {
            append_only: false,
            key: input.node.properties.key.clone(),
        };
        let op = Op::Window {
            partition: group.partition,
            order: group.order,
            calls: group.calls,
            table: self.tables(1),
            closes: None,
        };
        input.wrap(op, schema, properties)
    }
}

/// The schema whose columns from one on may be NULL: DataFusion tells that `ntile` is not.
fn with_nulls(schema: &Schema, from: usize) -> SchemaRef {
    let fields = schema.fields().iter().enumerate();
    let fields = fields.map(|(at, field)| {
        let field = field.as_ref().clone();
        let nullable = field.is_nullable() || at >= from;
        field.with_nullable(nullable)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

pub(super) fn window_function(expr: &Df) -> Result<&DfCall> {
    match expr {
        Df::Alias(alias) => window_function(&alias.expr),
        Df::WindowFunction(function) => Ok(function),
        other => Err(Error::internal(format!("{other} is not a window function"))),
    }
}

/// How a function numbers rows, if it is such.
pub(super) fn ranking(function: &DfCall) -> Option<Ranking> {
    match (&function.fun, function.fun.name()) {
        (WindowFunctionDefinition::WindowUDF(_), "row_number") => Some(Ranking::RowNumber),
        (WindowFunctionDefinition::WindowUDF(_), "rank") => Some(Ranking::Rank),
        (WindowFunctionDefinition::WindowUDF(_), "dense_rank") => Some(Ranking::DenseRank),
        _ => None,
    }
}

/// Lowers one call; its arguments and its filter become columns.
fn window_call(
    function: &DfCall,
    output: DataType,
    columns: &mut Columns<'_>,
) -> Result<WindowCall> {
    let params = &function.params;
    let name = function.fun.name();
    let refused = |what: &str| Error::unsupported(format!("window function {name}() OVER {what}"));
    if params.null_treatment == Some(NullTreatment::IgnoreNulls) {
        return Err(refused("with IGNORE NULLS is not supported"));
    }
    if params.distinct {
        return Err(refused("with DISTINCT is not supported"));
    }
    let least = match name {
        "nth_value" => 2,
        "ntile" | "lag" | "lead" | "first_value" | "last_value" => 1,
        _ => 0,
    };
    if params.args.len() < least {
        let message = format!("function {name}() of fewer arguments does not exist");
        return Err(Error::user(SqlState::UNDEFINED_FUNCTION, message));
    }
    let frame = frame(params, columns)?;
    let (function, values) = match &function.fun {
        _ if let Some(kind) = by_frame_or_place(function) => kind,
        WindowFunctionDefinition::AggregateUDF(udaf) if udaf.name() == "array_agg" => {
            (WindowFunction::Array, 1)
        }
        WindowFunctionDefinition::AggregateUDF(_) => {
            let call = aggregate(function, output.clone(), columns)?;
            return Ok(WindowCall {
                function: WindowFunction::Aggregate(call.function),
                args: call.arg.into_iter().chain(call.second).collect(),
                filter: call.filter,
                frame,
                output,
            });
        }
        WindowFunctionDefinition::WindowUDF(_) => return Err(refused("is not supported")),
    };
    let args = params.args.iter().take(values).map(|e| columns.add(e));
    let args = args.collect::<Result<Vec<_>>>()?;
    let filter = params.filter.as_deref().map(|f| columns.add(f));
    let filter = filter.transpose()?;
    Ok(WindowCall {
        function,
        args,
        filter,
        frame,
        output,
    })
}

/// A function that is no aggregate, and how many of its arguments are columns.
fn by_frame_or_place(function: &DfCall) -> Option<(WindowFunction, usize)> {
    let args = &function.params.args;
    let number = |at: usize| args.get(at).map_or(Some(1), constant_integer);
    if let Some(ranking) = ranking(function) {
        return Some((WindowFunction::Ranking(ranking), 0));
    }
    Some(match function.fun.name() {
        "percent_rank" => (WindowFunction::PercentRank, 0),
        "cume_dist" => (WindowFunction::CumeDist, 0),
        "ntile" => match number(0) {
            Some(parts) => (WindowFunction::Ntile(parts), 0),
            None => (WindowFunction::NtileBy, 1),
        },
        name @ ("lag" | "lead") => match (number(1), name) {
            (Some(by), "lag") => (WindowFunction::Shifted(by.saturating_neg()), 1),
            (Some(by), _) => (WindowFunction::Shifted(by), 1),
            (None, "lag") => (WindowFunction::LagBy, 2),
            (None, _) => (WindowFunction::LeadBy, 2),
        },
        "first_value" => (WindowFunction::FirstValue, 1),
        "last_value" => (WindowFunction::LastValue, 1),
        "nth_value" => match number(1) {
            Some(nth) => (WindowFunction::NthValue(nth), 1),
            None => (WindowFunction::NthValueBy, 2),
        },
        _ => return None,
    })
}

/// An aggregate over a window, as an aggregate.
fn aggregate(
    function: &DfCall,
    output: DataType,
    columns: &mut Columns<'_>,
) -> Result<tidemark_plan::AggregateCall> {
    let WindowFunctionDefinition::AggregateUDF(udaf) = &function.fun else {
        return Err(Error::internal("no aggregate over a window"));
    };
    let WindowFunctionParams { args, filter, .. } = &function.params;
    let aggregate = DfAggregate::new_udf(
        udaf.clone(),
        args.clone(),
        false,
        filter.clone(),
        Vec::new(),
        None,
    );
    call(&Df::AggregateFunction(aggregate), output, columns).map_err(|e| {
        match e.state() == tidemark_common::SqlState::FEATURE_NOT_SUPPORTED {
            true => Error::unsupported(format!(
                "window function {}() OVER is not supported in a streaming query",
                udaf.name()
            )),
            false => e,
        }
    })
}

fn count(value: &ScalarValue) -> Option<i64> {
    match value.cast_to(&DataType::Int64) {
        Ok(ScalarValue::Int64(count)) => count,
        _ => None,
    }
}

/// The frame. The bounds of one that is measured in values are columns: the sort key, with the
/// offset added.
fn frame(params: &WindowFunctionParams, columns: &mut Columns<'_>) -> Result<Frame> {
    let frame = &params.window_frame;
    let units = match frame.units {
        WindowFrameUnits::Rows => FrameUnits::Rows,
        WindowFrameUnits::Groups => FrameUnits::Groups,
        WindowFrameUnits::Range => FrameUnits::Range,
    };
    let mut bound = |bound: &WindowFrameBound| -> Result<FrameBound> {
        let (value, precedes) = match bound {
            WindowFrameBound::CurrentRow => return Ok(FrameBound::CURRENT),
            WindowFrameBound::Preceding(value) => (value, true),
            WindowFrameBound::Following(value) => (value, false),
        };
        if value.is_null() {
            return Ok(FrameBound::Unbounded);
        }
        if units == FrameUnits::Range {
            return Ok(FrameBound::Value(reached(
                params, value, precedes, columns,
            )?));
        }
        let offset = count(value).ok_or_else(|| Error::internal("an offset that is no number"))?;
        Ok(FrameBound::Offset(if precedes { -offset } else { offset }))
    };
    let (start, end) = (bound(&frame.start_bound)?, bound(&frame.end_bound)?);
    Ok(Frame {
        units,
        start,
        end,
        ahead_micros: match end {
            FrameBound::Value(_) => ahead_micros(params, columns),
            _ => None,
        },
        excluded: excluded(&params.partition_by).1,
    })
}

/// The call that tells when a row is complete, if one has to.
fn closing_call(group: &Group, columns: &Columns<'_>) -> Option<WindowCall> {
    let time = group.order.first().filter(|key| is_by_time(key))?.column;
    let output = columns.fields[time].data_type().clone();
    Ahead::of(&group.calls)?.closing_call(time, output)
}

/// What rows are ordered by. `by_time`: before the key of a moment by which a frame measures comes
/// the moment, which has a watermark and orders as the key does.
fn order_of(order_by: &[Sort], by_time: bool, columns: &mut Columns<'_>) -> Result<Vec<SortKey>> {
    let [sort] = order_by else {
        return sort_keys(order_by, columns);
    };
    if let (true, Some(moment)) = (by_time, measured(&sort.expr)) {
        let moment = Sort::new(moment.clone(), sort.asc, sort.nulls_first);
        return sort_keys(&[moment, sort.clone()], columns);
    }
    let Some(column) = numeric_key(sort, columns)? else {
        return sort_keys(order_by, columns);
    };
    Ok(vec![SortKey {
        column,
        descending: !sort.asc,
        nulls_first: sort.nulls_first,
    }])
}

/// What a frame measures by the key that this is.
fn measured(key: &Df) -> Option<&Df> {
    const KEYS: [&str; 4] = [
        "range_key",
        "range_key_finite",
        "range_moment",
        "range_moment_finite",
    ];
    match key {
        Df::ScalarFunction(call) if KEYS.contains(&call.func.name()) => call.args.first(),
        _ => None,
    }
}

/// How far behind the moment that a window is ordered by its frame ends, in microseconds.
fn ahead_micros(params: &WindowFunctionParams, columns: &Columns<'_>) -> Option<i64> {
    let [sort] = params.order_by.as_slice() else {
        return None;
    };
    let is = measured(&sort.expr)?.get_type(columns.input).ok()?;
    let (end, precedes) = match &params.window_frame.end_bound {
        WindowFrameBound::CurrentRow => return None,
        WindowFrameBound::Preceding(value) => (value, true),
        WindowFrameBound::Following(value) => (value, false),
    };
    match end {
        ScalarValue::Decimal128(Some(micros), _, 0)
            if sort.asc && matches!(is, DataType::Timestamp(..)) =>
        {
            let micros = i64::try_from(*micros).ok()?;
            Some(if precedes { -micros } else { micros })
        }
        _ => None,
    }
}

/// The key of a numeric by which a frame measures, as bytes, which state can hold.
fn numeric_key(sort: &Sort, columns: &mut Columns<'_>) -> Result<Option<usize>> {
    let is = sort.expr.get_type(columns.input);
    let is = is.map_err(|e| Error::internal(e.to_string()))?;
    if !matches!(is, DataType::Decimal256(..)) {
        return Ok(None);
    }
    let bytes = Expr::Call {
        function: "range_bytes".into(),
        args: vec![to_expr(&sort.expr, columns.input)?],
    };
    let field = Field::new("range_bytes", DataType::Binary, true);
    Ok(Some(columns.add_lowered(bytes, field)))
}

/// The column of what a frame reaches: the sort key less the offset or more.
fn reached(
    params: &WindowFunctionParams,
    offset: &ScalarValue,
    precedes: bool,
    columns: &mut Columns<'_>,
) -> Result<usize> {
    let [sort] = params.order_by.as_slice() else {
        return Err(Error::internal("a distance without one sort key"));
    };
    let subtracts = precedes == sort.asc;
    let key = match numeric_key(sort, columns)? {
        Some(key) => key,
        None => columns.add(&sort.expr)?,
    };
    let (key, field) = (columns.exprs[key].clone(), &columns.fields[key]);
    let of_type = Field::new("reached", field.data_type().clone(), true);
    let expr = match offset {
        ScalarValue::Decimal256(Some(offset), ..) => {
            let sign = if subtracts { "-" } else { "" };
            Expr::Call {
                function: "range_bytes_moved".into(),
                args: vec![key, Expr::Literal(Literal::Utf8(format!("{sign}{offset}")))],
            }
        }
        // Moments to which months are added: infinite ones stay where they are.
        ScalarValue::IntervalMonthDayNano(Some(span)) => {
            let sign = if subtracts { -1 } else { 1 };
            let (months, days) = (sign * span.months, sign * span.days);
            let nanos = i64::from(sign) * span.nanoseconds;
            Expr::Call {
                function: "range_moved".into(),
                args: vec![
                    key,
                    Expr::Literal(Literal::IntervalMonthDayNano(months, days, nanos)),
                ],
            }
        }
        offset => Expr::Binary {
            op: if subtracts {
                BinaryOp::Minus
            } else {
                BinaryOp::Plus
            },
            left: Box::new(key),
            right: Box::new(to_expr(&Df::Literal(offset.clone(), None), columns.input)?),
        },
    };
    Ok(columns.add_lowered(expr, of_type))
}
