//! `coalesce`: the first of its arguments that is not NULL, each evaluated for the rows that those
//! before it have left NULL, and for no others.
//!
//! It could be written as CASE, but that names each argument twice: within each other, copies
//! double with each level.

use super::guarded::Guarded;
use super::selected::Selected;
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{self, filter_record_batch, is_null};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::ColumnarValue;
use datafusion_physical_expr::expressions::{BinaryExpr, Literal, cast};
use datafusion_physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

type Physical = Arc<dyn PhysicalExpr>;

/// The names that calls of it have.
pub(super) const NAMES: [&str; 3] = ["coalesce", "ifnull", "nvl"];

/// The first argument that is not NULL. All have one type.
#[derive(Clone, Debug)]
pub(super) struct Coalesce {
    args: Vec<Physical>,
    /// All but the first.
    rest: Selected,
}

impl Coalesce {
    /// Over rows of `input`. The type is that of the first argument that has one; what has another
    /// is cast to it.
    pub fn over(args: Vec<Physical>, input: &Schema) -> Result<Physical> {
        let types = args.iter().map(|a| a.data_type(input));
        let types = types.collect::<Result<Vec<_>>>()?;
        let common = types.iter().find(|t| !t.is_null());
        let cast_one = |(arg, from): (Physical, &DataType)| match common {
            Some(to) if to != from => cast(arg, input, to.clone()),
            _ => Ok(arg),
        };
        let mut args = args.into_iter().zip(&types).map(cast_one);
        let args = args.by_ref().collect::<Result<Vec<_>>>()?;
        match args.as_slice() {
            [only] => Ok(only.clone()),
            _ => Ok(Arc::new(Coalesce::new(args)?)),
        }
    }

    fn new(args: Vec<Physical>) -> Result<Coalesce> {
        let rest = Selected::new(args.iter().skip(1))?;
        Ok(Coalesce { args, rest })
    }
}

/// The first of `args` that is not NULL, after `first`, for the rows of `batch`.
fn complete(first: ArrayRef, args: &[Physical], batch: &RecordBatch) -> Result<ArrayRef> {
    let Some((next, later)) = args.split_first() else {
        return Ok(first);
    };
    if first.logical_null_count() == 0 {
        return Ok(first);
    }
    let missing = is_null(&first)?;
    if let Some(constant) = next.downcast_ref::<Literal>()
        && !constant.value().is_null()
    {
        return Ok(zip(&missing, &constant.value().to_scalar()?, &first)?);
    }
    if missing.true_count() == first.len() {
        let values = next.evaluate(batch)?.into_array(batch.num_rows())?;
        return complete(values, later, batch);
    }
    let batch = filter_record_batch(batch, &missing)?;
    let values = next.evaluate(&batch)?.into_array(batch.num_rows())?;
    let values = complete(values, later, &batch)?;
    let mut found = 0..values.len();
    let places = missing.values().iter().enumerate().map(|(row, missing)| {
        if missing {
            (1, found.next().unwrap_or_default())
        } else {
            (0, row)
        }
    });
    let places: Vec<(usize, usize)> = places.collect();
    Ok(compute::interleave(&[&first, &values], &places)?)
}

impl PhysicalExpr for Coalesce {
    fn data_type(&self, input: &Schema) -> Result<DataType> {
        self.args[0].data_type(input)
    }

    fn nullable(&self, input: &Schema) -> Result<bool> {
        for arg in &self.args {
            if !arg.nullable(input)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn return_field(&self, input: &Schema) -> Result<FieldRef> {
        let field = Field::new("coalesce", self.data_type(input)?, self.nullable(input)?);
        Ok(Arc::new(field))
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let first = self.args[0].evaluate(batch)?.into_array(batch.num_rows())?;
        if first.logical_null_count() == 0 {
            return Ok(ColumnarValue::Array(first));
        }
        let batch = batch.project(&self.rest.read)?;
        complete(first, &self.rest.exprs, &batch).map(ColumnarValue::Array)
    }

    fn children(&self) -> Vec<&Physical> {
        self.args.iter().collect()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Physical>) -> Result<Physical> {
        if children.is_empty() {
            return Err(DataFusionError::Internal("coalesce of nothing".into()));
        }
        Ok(Arc::new(Coalesce::new(children)?))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for Coalesce {
    fn eq(&self, other: &Coalesce) -> bool {
        self.args == other.args
    }
}

impl Eq for Coalesce {}

impl Hash for Coalesce {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.args.hash(state);
    }
}

impl fmt::Display for Coalesce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("coalesce(")?;
        for (i, arg) in self.args.iter().enumerate() {
            write!(f, "{}{arg}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str(")")
    }
}

/// An expression over rows of `input` with calls of `coalesce`, which evaluate all of their
/// arguments first, replaced by what evaluates them in turn; so are AND and OR.
pub fn with_lazy_calls(expr: Physical, input: &Schema) -> Result<Physical> {
    let replaced = expr.transform_up(|e| {
        if let Some(call) = e.downcast_ref::<ScalarFunctionExpr>()
            && NAMES.contains(&call.name())
        {
            return Coalesce::over(call.args().to_vec(), input).map(Transformed::yes);
        }
        let guarded = match e.downcast_ref::<BinaryExpr>() {
            Some(binary) => Guarded::of(binary)?,
            None => None,
        };
        Ok(guarded.map_or_else(|| Transformed::no(e), Transformed::yes))
    });
    replaced.map(|t| t.data)
}
