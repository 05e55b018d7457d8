//! Window functions of ad-hoc queries that DataFusion does not have: over frames that leave rows
//! out (`EXCLUDE`), and with numbers that vary with the row (`lag(x, n)`, `nth_value(x, n)`,
//! `ntile(n)`). The rule [`OwnWindows`] comes last and makes each of them a function of our own;
//! the rest of the window, and its name, stay as they are.
//!
//! **Cost.** Counts, sums and averages take rows in and out as the frame moves; other aggregates of
//! a frame that leaves rows out are computed anew for each row.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, UInt64Array};
use datafusion::arrow::compute::{cast, filter, partition, prep_null_mask_filter, take};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr::{WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, Expr, LogicalPlan, PartitionEvaluator, Signature, Volatility,
    WindowFunctionDefinition, WindowUDF, WindowUDFImpl,
};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::{Column, Literal};
use std::ops::Range;
use std::sync::Arc;
use tidemark_operator::pieces::{Pieces, difference, pieces, rows};
use tidemark_plan::Excluded;
use tidemark_planner::excluded;

/// Aggregates out of which rows can be taken in any order.
const RETRACTABLE: [&str; 3] = ["count", "sum", "avg"];

/// The rule.
#[derive(Debug)]
pub struct OwnWindows;

impl OptimizerRule for OwnWindows {
    fn name(&self) -> &str {
        "own_windows"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        plan.transform_up_with_subqueries(|node| {
            if !matches!(node, LogicalPlan::Window(_)) {
                return Ok(Transformed::no(node));
            }
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                let own = expr.transform_up(|e| Ok(own(e)))?;
                Ok(own.update_data(|e| name.restore(e)))
            })
        })
    }
}

/// A window function as one of ours, if it is one.
fn own(expr: Expr) -> Transformed<Expr> {
    let Expr::WindowFunction(call) = expr else {
        return Transformed::no(expr);
    };
    if matches!(&call.fun, WindowFunctionDefinition::WindowUDF(f) if f.inner().is::<Own>()) {
        // The rules are applied until they change nothing.
        return Transformed::no(Expr::WindowFunction(call));
    }
    let params = &call.params;
    let (partition_by, leaves_out) = excluded(&params.partition_by);
    let varies = |at: usize| !matches!(params.args.get(at), None | Some(Expr::Literal(..)));
    let frames = leaves_out != Excluded::Nothing;
    let kind = match (&call.fun, call.fun.name()) {
        (WindowFunctionDefinition::WindowUDF(_), "lag") if varies(1) => Kind::Lag,
        (WindowFunctionDefinition::WindowUDF(_), "lead") if varies(1) => Kind::Lead,
        (WindowFunctionDefinition::WindowUDF(_), "ntile") if varies(0) => Kind::Ntile,
        (_, "nth_value") if frames || varies(1) => Kind::Nth,
        (_, "first_value") if frames => Kind::First,
        (_, "last_value") if frames => Kind::Last,
        (WindowFunctionDefinition::AggregateUDF(udaf), _) if frames => {
            Kind::Aggregate(udaf.clone())
        }
        _ => return Transformed::no(Expr::WindowFunction(call)),
    };
    let mut args = params.args.clone();
    let filtered = params.filter.is_some();
    args.extend(params.filter.as_deref().cloned());
    let own = Own {
        kind,
        excluded: leaves_out,
        args: args.len(),
        filtered,
        signature: Signature::variadic_any(Volatility::Immutable),
    };
    let fun = WindowFunctionDefinition::WindowUDF(Arc::new(WindowUDF::from(own)));
    let params = WindowFunctionParams {
        args,
        partition_by,
        filter: None,
        ..params.clone()
    };
    Transformed::yes(Expr::WindowFunction(Box::new(WindowFunction {
        fun,
        params,
    })))
}

/// What a function is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Aggregate(Arc<AggregateUDF>),
    First,
    Last,
    Nth,
    Lag,
    Lead,
    Ntile,
}

/// A window function of ours; the last argument is the filter, if it has one.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Own {
    kind: Kind,
    excluded: Excluded,
    args: usize,
    filtered: bool,
    signature: Signature,
}

impl Own {
    /// Arguments without the filter.
    fn values(&self) -> usize {
        self.args - usize::from(self.filtered)
    }
}

impl WindowUDFImpl for Own {
    fn name(&self) -> &str {
        match &self.kind {
            Kind::Aggregate(udaf) => udaf.name(),
            Kind::First => "first_value",
            Kind::Last => "last_value",
            Kind::Nth => "nth_value",
            Kind::Lag => "lag",
            Kind::Lead => "lead",
            Kind::Ntile => "ntile",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        let fields = args.input_fields();
        let field = match (&self.kind, fields.first()) {
            (Kind::Aggregate(udaf), _) => {
                let field = udaf.return_field(&fields[..self.values()])?;
                field.as_ref().clone()
            }
            (Kind::Ntile, _) => Field::new(args.name(), DataType::UInt64, true),
            (_, Some(value)) => value.as_ref().clone().with_nullable(true),
            (_, None) => return internal_err!("{} without arguments", self.name()),
        };
        Ok(Arc::new(field.with_name(args.name())))
    }

    fn partition_evaluator(
        &self,
        args: PartitionEvaluatorArgs,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        let aggregate = match &self.kind {
            Kind::Aggregate(udaf) => {
                let (exprs, fields) = (args.input_exprs(), args.input_fields());
                let values = self.values();
                Some(aggregate(udaf, &exprs[..values], &fields[..values])?)
            }
            _ => None,
        };
        Ok(Box::new(Evaluator {
            kind: self.kind.clone(),
            excluded: self.excluded,
            args: self.args,
            filtered: self.filtered,
            aggregate,
            row: 0,
            peers: Vec::new(),
            group: 0,
            passing: None,
            running: None,
        }))
    }
}

/// An aggregate over arguments that are there as columns; constants stay what they are, for those
/// that look at them.
fn aggregate(
    udaf: &Arc<AggregateUDF>,
    exprs: &[Arc<dyn PhysicalExpr>],
    fields: &[FieldRef],
) -> Result<AggregateFunctionExpr> {
    let name = |at: usize| at.to_string();
    let argument = |(at, expr): (usize, &Arc<dyn PhysicalExpr>)| match expr.is::<Literal>() {
        true => expr.clone(),
        false => Arc::new(Column::new(&name(at), at)) as Arc<dyn PhysicalExpr>,
    };
    let arguments = exprs.iter().enumerate().map(argument).collect();
    let fields = fields.iter().enumerate();
    let fields = fields.map(|(at, field)| field.as_ref().clone().with_name(name(at)));
    let schema = Schema::new(fields.collect::<Vec<_>>());
    AggregateExprBuilder::new(udaf.clone(), arguments)
        .schema(Arc::new(schema))
        .alias(udaf.name())
        .build()
}

/// One partition's rows, in their order.
#[derive(Debug)]
struct Evaluator {
    kind: Kind,
    excluded: Excluded,
    /// Arguments, the filter among them; what the rows are ordered by comes behind these.
    args: usize,
    filtered: bool,
    aggregate: Option<AggregateFunctionExpr>,
    /// The next row.
    row: usize,
    /// Rows that are equal in order; none before the first row was looked at.
    peers: Vec<Range<usize>>,
    /// Those of the next row.
    group: usize,
    /// Rows that the filter lets pass.
    passing: Option<BooleanArray>,
    /// An aggregate of a frame out of which rows can be taken.
    running: Option<(Box<dyn Accumulator>, Pieces)>,
}

impl Evaluator {
    /// Looks at the rows before the first of them is computed.
    fn begin(&mut self, values: &[ArrayRef]) -> Result<()> {
        let order = &values[self.args..];
        self.peers = match order {
            [] => std::iter::once(0..values[0].len()).collect(),
            order => partition(order)?.ranges(),
        };
        if self.filtered {
            let passing = values[self.args - 1].as_boolean();
            self.passing = Some(match passing.null_count() {
                0 => passing.clone(),
                _ => prep_null_mask_filter(passing),
            });
        }
        Ok(())
    }

    /// The next row, and what it sees.
    fn next(&mut self, frame: &Range<usize>) -> (usize, Pieces) {
        let row = self.row;
        self.row += 1;
        while self.peers[self.group].end <= row {
            self.group += 1;
        }
        let peers = self.peers[self.group].clone();
        let frame = frame.start..frame.end.max(frame.start);
        (row, pieces(frame, self.excluded, row, peers))
    }

    fn aggregated(&mut self, values: &[ArrayRef], frame: Pieces) -> Result<ScalarValue> {
        let Some(aggregate) = &self.aggregate else {
            return internal_err!("an aggregate that is none");
        };
        let arguments = &values[..self.args - usize::from(self.filtered)];
        let counted = |rows: &Range<usize>| -> Result<Vec<ArrayRef>> {
            let passing = self.passing.as_ref();
            let passing = passing.map(|all| all.slice(rows.start, rows.len()));
            let counted = arguments.iter().map(|values| {
                let values = values.slice(rows.start, rows.len());
                match &passing {
                    Some(passing) => Ok(filter(&values, passing)?),
                    None => Ok(values),
                }
            });
            counted.collect()
        };
        let (mut accumulator, before) = match self.running.take() {
            Some(running) => running,
            None => (aggregate.create_accumulator()?, [0..0, 0..0, 0..0]),
        };
        for (rows, weight) in difference(&before, &frame) {
            match weight {
                1 => accumulator.update_batch(&counted(&rows)?)?,
                _ => accumulator.retract_batch(&counted(&rows)?)?,
            }
        }
        let value = accumulator.evaluate()?;
        let name = aggregate.fun().name();
        if RETRACTABLE.contains(&name) && accumulator.supports_retract_batch() {
            self.running = Some((accumulator, frame));
        }
        Ok(value)
    }
}

impl PartitionEvaluator for Evaluator {
    fn uses_window_frame(&self) -> bool {
        !matches!(self.kind, Kind::Lag | Kind::Lead | Kind::Ntile)
    }

    fn evaluate(&mut self, values: &[ArrayRef], range: &Range<usize>) -> Result<ScalarValue> {
        if self.peers.is_empty() {
            self.begin(values)?;
        }
        let (row, frame) = self.next(range);
        let at = match &self.kind {
            Kind::Aggregate(_) => return self.aggregated(values, frame),
            Kind::First => rows(&frame).next(),
            Kind::Last => rows(&frame).last(),
            Kind::Nth => {
                let numbers = numbers(&values[1].slice(row, 1))?;
                let number = numbers.iter().next().flatten();
                let before = number.and_then(|n| usize::try_from(n).ok()?.checked_sub(1));
                before.and_then(|before| rows(&frame).nth(before))
            }
            other => return internal_err!("{other:?} looks at no frame"),
        };
        match at {
            Some(at) => ScalarValue::try_from_array(&values[0], at),
            None => ScalarValue::try_from(values[0].data_type()),
        }
    }

    fn evaluate_all(&mut self, values: &[ArrayRef], num_rows: usize) -> Result<ArrayRef> {
        if self.kind == Kind::Ntile {
            return Ok(Arc::new(parts(&numbers(&values[0])?)));
        }
        let offsets = numbers(&values[1])?;
        let there = |row: usize| {
            let offset = offsets.is_valid(row).then(|| offsets.value(row))?;
            let by = match self.kind {
                Kind::Lag => offset.checked_neg()?,
                _ => offset,
            };
            let at = u64::try_from((row as i64).checked_add(by)?).ok()?;
            Some(at).filter(|at| *at < num_rows as u64)
        };
        let places = UInt64Array::from_iter((0..num_rows).map(there));
        Ok(take(&values[0], &places, None)?)
    }
}

fn numbers(values: &ArrayRef) -> Result<Int64Array> {
    let numbers = cast(values, &DataType::Int64)?;
    Ok(numbers.as_primitive::<Int64Type>().clone())
}

/// Parts of about equal size, as many as the first number says that is there; rows before it are in
/// none. The first parts have a row more, where all rows cannot be divided equally.
fn parts(numbers: &Int64Array) -> UInt64Array {
    let rows = numbers.len() as u64;
    let first = (0..numbers.len()).find(|row| numbers.is_valid(*row));
    let part = |row: usize| {
        let first = first.filter(|first| *first <= row)?;
        let parts = u64::try_from(numbers.value(first)).ok()?.max(1);
        let (row, least, longer) = ((row - first) as u64, rows / parts, rows % parts);
        Some(match row < longer * (least + 1) {
            true => 1 + row / (least + 1),
            false => 1 + longer + (row - longer * (least + 1)) / least.max(1),
        })
    };
    (0..numbers.len()).map(part).collect()
}
