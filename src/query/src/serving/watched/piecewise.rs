//! Expressions that are evaluated for fewer rows at a time where the values on the way would be too
//! large together, and that end when nobody waits any more.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateInputMode};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use tidemark_operator::functions::{
    BYTES_MAX, check_bytes, column_bytes, is_too_large, take_room, wanted, within,
};

/// Bytes that the values of so many rows may have together: a step, of a single row what a value
/// may.
pub(super) fn limit(rows: usize, step: usize) -> u64 {
    if rows > 1 { step as u64 } else { BYTES_MAX }
}

/// Whether an expression only gives what is there.
pub(super) fn is_plain(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.is::<Column>()
}

/// Whether an expression calls a function.
fn calls(expr: &Arc<dyn PhysicalExpr>) -> bool {
    let mut found = false;
    let walked = expr.apply(|e| {
        found |= e.is::<ScalarFunctionExpr>();
        Ok(match found {
            true => TreeNodeRecursion::Stop,
            false => TreeNodeRecursion::Continue,
        })
    });
    debug_assert!(walked.is_ok());
    found
}

/// Whether an expression may be evaluated again for the same rows.
pub(super) fn is_repeatable(expr: &Arc<dyn PhysicalExpr>) -> bool {
    !datafusion::physical_expr_common::physical_expr::is_volatile(expr)
}

/// The aggregates of a node with arguments in small steps; `None` if there is nothing to change.
pub(super) fn aggregates(
    node: &AggregateExec,
    step: usize,
) -> Option<Vec<Arc<AggregateFunctionExpr>>> {
    let all = node.aggr_expr();
    let computes = |a: &Arc<AggregateFunctionExpr>| a.expressions().iter().any(calls);
    if node.mode().input_mode() != AggregateInputMode::Raw || !all.iter().any(computes) {
        return None;
    }
    let small = |aggregate: &Arc<AggregateFunctionExpr>| {
        // Of a reversed one, the copy would not say so.
        if !computes(aggregate) || aggregate.is_reversed() {
            return aggregate.clone();
        }
        let args = aggregate.expressions().into_iter();
        let args = args.map(|arg| Piecewise::of(arg, step));
        // Likewise: with DISTINCT, what it is ordered by is an argument.
        let order = aggregate.order_bys().iter().map(|o| o.expr.clone());
        let order = order.map(|by| Piecewise::of(by, step));
        let copy = aggregate.with_new_expressions(args.collect(), order.collect());
        copy.map_or_else(|| aggregate.clone(), Arc::new)
    };
    Some(all.iter().map(small).collect())
}

/// Such an expression, and the bytes of a step.
#[derive(Clone, Debug)]
pub(super) struct Piecewise(Arc<dyn PhysicalExpr>, usize);

impl Piecewise {
    /// Of one that computes something.
    pub(super) fn of(expr: Arc<dyn PhysicalExpr>, step: usize) -> Arc<dyn PhysicalExpr> {
        if expr.is::<Column>() || expr.is::<Literal>() {
            return expr;
        }
        Arc::new(Piecewise(expr, step))
    }
}

/// Evaluates piece by piece where the whole is too large. The result has a limit, too.
fn evaluated(
    expr: &Arc<dyn PhysicalExpr>,
    batch: &RecordBatch,
    step: usize,
) -> Result<ColumnarValue> {
    wanted()?;
    let rows = batch.num_rows();
    match within(limit(rows, step), || expr.evaluate(batch)) {
        Err(e) if rows > 1 && is_too_large(&e) && is_repeatable(expr) => {
            in_pieces(expr, batch, step)
        }
        other => other,
    }
}

/// What fits a step at a time, put together at the end.
fn in_pieces(
    expr: &Arc<dyn PhysicalExpr>,
    batch: &RecordBatch,
    step: usize,
) -> Result<ColumnarValue> {
    let all = batch.num_rows();
    let (mut at, mut pace) = (0, Pace::of(all / 2));
    let (mut parts, mut bytes): (Vec<ArrayRef>, u64) = (Vec::new(), 0);
    while at < all {
        let rows = pace.rows().min(all - at);
        let piece = batch.slice(at, rows);
        let part = match within(limit(rows, step), || expr.evaluate(&piece)) {
            Err(e) if rows > 1 && is_too_large(&e) => {
                pace.does_not_fit(rows);
                continue;
            }
            part => part?,
        };
        // A constant is copied into every row.
        let size = column_bytes(&part, rows);
        bytes += size;
        check_bytes(bytes)?;
        take_room(size)?;
        parts.push(part.into_array(rows)?);
        at += rows;
        pace.fits();
    }
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    Ok(ColumnarValue::Array(concat(&parts)?))
}

/// How many rows are taken at a time.
pub(super) struct Pace {
    rows: usize,
    /// Times that so many did fit.
    fitted: usize,
}

/// Steps that fit, after which more rows are tried again.
const STEPS_BEFORE_MORE: usize = 16;

impl Pace {
    /// So many to begin with.
    pub(super) fn of(rows: usize) -> Pace {
        Pace { rows, fitted: 0 }
    }

    /// Rows to take, one at least.
    pub(super) fn rows(&self) -> usize {
        self.rows.max(1)
    }

    /// So many did fit.
    pub(super) fn fits(&mut self) {
        self.fitted += 1;
        if self.fitted >= STEPS_BEFORE_MORE {
            *self = Pace::of(self.rows().saturating_mul(2));
        }
    }

    /// So many did not.
    pub(super) fn does_not_fit(&mut self, rows: usize) {
        *self = Pace::of(rows / 2);
    }
}

impl PartialEq for Piecewise {
    fn eq(&self, other: &Piecewise) -> bool {
        self.0.eq(&other.0)
    }
}

impl Eq for Piecewise {}

impl Hash for Piecewise {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for Piecewise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl PhysicalExpr for Piecewise {
    fn data_type(&self, input: &Schema) -> Result<DataType> {
        self.0.data_type(input)
    }

    fn nullable(&self, input: &Schema) -> Result<bool> {
        self.0.nullable(input)
    }

    fn return_field(&self, input: &Schema) -> Result<arrow::datatypes::FieldRef> {
        self.0.return_field(input)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        evaluated(&self.0, batch, self.1)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.0]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let inner = children
            .pop()
            .ok_or_else(|| DataFusionError::Internal("an expression is expected".into()))?;
        Ok(Arc::new(Piecewise(inner, self.1)))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_sql(f)
    }
}
