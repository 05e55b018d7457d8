//! AND and OR whose right side may fail: it counts for the rows that the left side leaves open, and
//! fails for no others, so that `t <> 0 AND 10 / t > 1` has an answer wherever `t` is 0.
//!
//! The right side is evaluated for all rows first, which is quickest, and again for the open ones
//! only if it fails. Where it holds such an operator itself, or few rows are open, it is evaluated
//! for these at once: within each other, attempts would double with each level.

use super::selected::Selected;
use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{and_kleene, filter_record_batch, or_kleene};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion_common::tree_node::TreeNode;
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::{ColumnarValue, Operator};
use datafusion_physical_expr::expressions::{
    BinaryExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NotExpr,
};
use datafusion_physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

type Physical = Arc<dyn PhysicalExpr>;

/// Of a batch, one row of so many or fewer is few.
const FEW: usize = 5;

/// AND or OR.
#[derive(Clone, Debug)]
pub(super) struct Guarded {
    /// AND, not OR.
    and: bool,
    left: Physical,
    right: Physical,
    /// The right side, for some rows.
    selected: Selected,
    /// Whether the right side holds another of these.
    nested: bool,
}

impl Guarded {
    /// What evaluates an AND or an OR, if its right side may fail.
    pub fn of(binary: &BinaryExpr) -> Result<Option<Physical>> {
        let and = *binary.op() == Operator::And;
        if !and && *binary.op() != Operator::Or || !may_fail(binary.right())? {
            return Ok(None);
        }
        let guarded = Guarded::new(and, binary.left().clone(), binary.right().clone())?;
        Ok(Some(Arc::new(guarded)))
    }

    fn new(and: bool, left: Physical, right: Physical) -> Result<Guarded> {
        Ok(Guarded {
            and,
            selected: Selected::new([&right].into_iter())?,
            nested: right.exists(|e| Ok(e.is::<Guarded>()))?,
            left,
            right,
        })
    }

    /// The rows that the left side leaves open.
    fn open(&self, left: &BooleanArray) -> BooleanArray {
        let open = match self.and {
            true => left.values().clone(),
            false => !left.values(),
        };
        BooleanArray::from(match left.nulls() {
            Some(valid) => &open | &!valid.inner(),
            None => open,
        })
    }

    fn combined(&self, left: &BooleanArray, right: &BooleanArray) -> Result<BooleanArray> {
        Ok(match self.and {
            true => and_kleene(left, right)?,
            false => or_kleene(left, right)?,
        })
    }

    /// The answer where the right side is evaluated for the `open` rows alone.
    fn for_open(
        &self,
        batch: &RecordBatch,
        left: &BooleanArray,
        open: &BooleanArray,
    ) -> Result<BooleanArray> {
        let rows = filter_record_batch(&batch.project(&self.selected.read)?, open)?;
        let right = truths(&self.selected.exprs[0], &rows)?;
        let mut right = right.iter();
        // What is decided is so whatever stands here.
        let spread = open.values().iter().map(|open| match open {
            true => right.next().flatten(),
            false => Some(self.and),
        });
        self.combined(left, &spread.collect())
    }
}

/// Whether a row may have no value.
fn may_fail(expr: &Physical) -> Result<bool> {
    expr.exists(|e| Ok(!is_certain(e)))
}

/// Whether a node has a value whenever those below it have one.
fn is_certain(expr: &Physical) -> bool {
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        return is_certain_operator(*binary.op());
    }
    if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() {
        return call.name() == "sort_key";
    }
    expr.is::<Column>()
        || expr.is::<Literal>()
        || expr.is::<NotExpr>()
        || expr.is::<IsNullExpr>()
        || expr.is::<IsNotNullExpr>()
        || expr.is::<InListExpr>()
        || expr.is::<LikeExpr>()
        || expr.is::<Guarded>()
}

/// Whether an operator has an answer for all operands: those that compare, AND and OR.
fn is_certain_operator(op: Operator) -> bool {
    use Operator::{And, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq, Or};
    matches!(
        op,
        And | Or | Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom
    )
}

fn truths(expr: &Physical, batch: &RecordBatch) -> Result<BooleanArray> {
    let values = expr.evaluate(batch)?.into_array(batch.num_rows())?;
    match values.as_boolean_opt() {
        Some(truths) => Ok(truths.clone()),
        None if *values.data_type() == DataType::Null => {
            Ok(BooleanArray::new_null(batch.num_rows()))
        }
        None => Err(DataFusionError::Internal(format!("{expr} is no condition"))),
    }
}

impl PhysicalExpr for Guarded {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, input: &Schema) -> Result<bool> {
        Ok(self.left.nullable(input)? || self.right.nullable(input)?)
    }

    fn return_field(&self, input: &Schema) -> Result<FieldRef> {
        let name = if self.and { "and" } else { "or" };
        let field = Field::new(name, DataType::Boolean, self.nullable(input)?);
        Ok(Arc::new(field))
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let left = truths(&self.left, batch)?;
        let open = self.open(&left);
        let (count, rows) = (open.true_count(), open.len());
        if count == 0 {
            return Ok(ColumnarValue::Array(Arc::new(left)));
        }
        let answer = if count < rows && (self.nested || count * FEW <= rows) {
            self.for_open(batch, &left, &open)?
        } else {
            match truths(&self.right, batch) {
                Ok(right) => self.combined(&left, &right)?,
                Err(_) if count < rows => self.for_open(batch, &left, &open)?,
                Err(error) => return Err(error),
            }
        };
        Ok(ColumnarValue::Array(Arc::new(answer)))
    }

    fn children(&self) -> Vec<&Physical> {
        vec![&self.left, &self.right]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Physical>) -> Result<Physical> {
        let [left, right] = <[Physical; 2]>::try_from(children)
            .map_err(|_| DataFusionError::Internal("a condition of two".into()))?;
        Ok(Arc::new(Guarded::new(self.and, left, right)?))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for Guarded {
    fn eq(&self, other: &Guarded) -> bool {
        self.and == other.and && self.left.eq(&other.left) && self.right.eq(&other.right)
    }
}

impl Eq for Guarded {}

impl Hash for Guarded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.and.hash(state);
        self.left.hash(state);
        self.right.hash(state);
    }
}

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let op = if self.and { "AND" } else { "OR" };
        write!(f, "({} {op} {})", self.left, self.right)
    }
}
