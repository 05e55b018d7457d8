//! Window functions. Calls of one window (partition and order) are one operator; what they read
//! that is no column is computed below it.

use crate::lower::aggregate::call;
use crate::lower::columns::Columns;
use crate::lower::top_n::{constant as constant_integer, partition_of, sort_keys};
use crate::lower::{Builder, Stream, schema_of, to_expr};
use arrow_schema::{DataType, Field, Schema};
use datafusion_common::ScalarValue;
use datafusion_expr::expr::{
    AggregateFunction as DfAggregate, NullTreatment, WindowFunction as DfCall, WindowFunctionParams,
};
use datafusion_expr::logical_plan::Window;
use datafusion_expr::{Expr as Df, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition};
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
        let output = schema_of(&window.schema);
        let logical = window.input.schema().fields().len();
        let mut columns = Columns::all(window.input.schema(), &input);
        let mut groups: Vec<Group> = Vec::new();
        for (place, expr) in window.window_expr.iter().enumerate() {
            let function = window_function(expr)?;
            let params = &function.params;
            let partition = partition_of(&params.partition_by, &mut columns)?;
            let order = sort_keys(&params.order_by, &mut columns)?;
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
        let mut stream = columns.project(input);
        let mut results = vec![0; window.window_expr.len()];
        for group in groups {
            for (i, place) in group.places.iter().enumerate() {
                results[*place] = stream.width() + i;
            }
            stream = self.windowed(stream, group);
        }
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
    let constant = |at: usize, otherwise: i64| match params.args.get(at) {
        None => Ok(otherwise),
        Some(expr) => constant_integer(expr)
            .ok_or_else(|| refused("with an argument that varies where it must be constant")),
    };
    let kind = match name {
        _ if ranking(function).is_some() => ranking(function).map(WindowFunction::Ranking),
        "percent_rank" => Some(WindowFunction::PercentRank),
        "cume_dist" => Some(WindowFunction::CumeDist),
        "ntile" => Some(WindowFunction::Ntile(constant(0, 1)?)),
        "lag" => Some(WindowFunction::Shifted(constant(1, 1)?.saturating_neg())),
        "lead" => Some(WindowFunction::Shifted(constant(1, 1)?)),
        "first_value" => Some(WindowFunction::FirstValue),
        "last_value" => Some(WindowFunction::LastValue),
        "nth_value" => Some(WindowFunction::NthValue(constant(1, 1)?)),
        _ => None,
    };
    let (function, args, filter) = match (kind, &function.fun) {
        (Some(kind), _) => {
            let takes_value = matches!(
                kind,
                WindowFunction::Shifted(_)
                    | WindowFunction::FirstValue
                    | WindowFunction::LastValue
                    | WindowFunction::NthValue(_)
            );
            let values = params.args.iter().take(usize::from(takes_value));
            let args = values.map(|e| columns.add(e)).collect::<Result<Vec<_>>>()?;
            (kind, args, None)
        }
        (None, WindowFunctionDefinition::AggregateUDF(_)) => {
            let call = aggregate(function, output.clone(), columns)?;
            let args = call.arg.into_iter().chain(call.second).collect();
            (WindowFunction::Aggregate(call.function), args, call.filter)
        }
        (None, WindowFunctionDefinition::WindowUDF(_)) => {
            return Err(refused("is not supported"));
        }
    };
    Ok(WindowCall {
        function,
        args,
        filter,
        frame,
        output,
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
    Ok(Frame {
        units,
        start: bound(&frame.start_bound)?,
        end: bound(&frame.end_bound)?,
    })
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
    if matches!(offset, ScalarValue::Decimal256(..)) {
        return Err(Error::unsupported(
            "RANGE with an offset over numeric is not supported in a streaming query",
        )
        .with_hint("Order by the value as double precision or bigint."));
    }
    let subtracts = precedes == sort.asc;
    let key = columns.add(&sort.expr)?;
    let (key, field) = (columns.exprs[key].clone(), &columns.fields[key]);
    let of_type = Field::new("reached", field.data_type().clone(), true);
    let expr = match offset {
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
