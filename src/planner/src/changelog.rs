//! `WITH c AS CHANGELOG FROM r`: the changes of a relation as rows that only come.
//!
//! Beside the columns of `r`, `c` has `changelog_op` (1: a row came, 2: it went, 3 and 4: what a
//! row of the same key is now and was before) and `_changelog_row_id`, the number of the change.
//!
//! The parser writes it as a subquery of `r` with marks in its select list (`parse::changelog`):
//! functions without arguments that are never called. When DataFusion has bound them, what is
//! below that select list becomes the input of a node of our own ([`Changelog`]), whose columns the
//! marks are. All of its input is needed, and no rule moves a condition through it: what a change
//! is depends on the whole row. A query that is only read has no changes: it is refused.

use crate::error::external;
use crate::marks::has_marks;
use arrow_schema::{DataType, Field, TimeUnit};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, DFSchemaRef, DataFusionError, Result, plan_err};
use datafusion_expr::logical_plan::{Extension, Projection};
use datafusion_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    UserDefinedLogicalNodeCore, Volatility,
};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use tidemark_common::Error;

/// What became of the row.
pub(crate) const OP: &str = "changelog op";
/// The number of the change.
pub(crate) const NUMBER: &str = "changelog number";
/// The epoch that changed it.
pub(crate) const EPOCH: &str = "changelog epoch";
/// When that ended.
pub(crate) const TIME: &str = "changelog time";

/// The marks, in the order of the columns that they stand for.
const MARKS: [&str; 4] = [OP, NUMBER, EPOCH, TIME];

/// A mark as a function without arguments, which is never called.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Mark {
    name: &'static str,
    signature: Signature,
}

fn data_type(mark: &str) -> DataType {
    match mark {
        OP => DataType::Int16,
        NUMBER | EPOCH => DataType::Int64,
        _ => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    }
}

impl ScalarUDFImpl for Mark {
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(data_type(self.name))
    }
    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(misplaced())
    }
}

/// The function that stands for a mark, by its name.
pub(crate) fn mark(name: &str) -> Option<Arc<ScalarUDF>> {
    let name = MARKS.into_iter().find(|mark| *mark == name)?;
    Some(Arc::new(ScalarUDF::from(Mark {
        name,
        signature: Signature::nullary(Volatility::Volatile),
    })))
}

fn is_mark(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if MARKS.contains(&call.func.name()))
}

/// The changes of a query: its columns, and those of the marks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Changelog {
    /// Whose changes they are.
    pub input: LogicalPlan,
    schema: DFSchemaRef,
}

impl Changelog {
    fn new(input: LogicalPlan) -> Result<Changelog> {
        let columns = input.schema().iter();
        let columns = columns.map(|(qualifier, field)| (qualifier.cloned(), field.clone()));
        let own = MARKS.map(|mark| (None, Arc::new(Field::new(mark, data_type(mark), false))));
        let columns = columns.chain(own).collect();
        let schema = DFSchema::new_with_metadata(columns, input.schema().metadata().clone())?;
        Ok(Changelog {
            input,
            schema: Arc::new(schema),
        })
    }

    /// The node of ours that this is.
    pub fn of(extension: &Extension) -> Option<&Changelog> {
        extension.node.as_any().downcast_ref()
    }
}

impl PartialOrd for Changelog {
    fn partial_cmp(&self, other: &Changelog) -> Option<Ordering> {
        self.input.partial_cmp(&other.input)
    }
}

impl UserDefinedLogicalNodeCore for Changelog {
    fn name(&self) -> &str {
        "Changelog"
    }
    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }
    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }
    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }
    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Changelog")
    }
    fn with_exprs_and_inputs(
        &self,
        _exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> Result<Self> {
        match (inputs.pop(), inputs.is_empty()) {
            (Some(input), true) => Changelog::new(input),
            _ => plan_err!("a changelog has one input"),
        }
    }
}

/// Puts changelogs where the marks are in a bound query that is to be maintained.
pub(crate) fn maintained(plan: LogicalPlan) -> Result<LogicalPlan> {
    if !has_marks(&plan, is_mark)? {
        return Ok(plan);
    }
    let done = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Projection(projection) => without_marks(projection),
        other => Ok(Transformed::no(other)),
    })?;
    match has_marks(&done.data, is_mark)? {
        true => Err(misplaced()),
        false => Ok(done.data),
    }
}

/// Refuses changelogs in a bound query that is only read.
pub(crate) fn ad_hoc(plan: LogicalPlan) -> Result<LogicalPlan> {
    match has_marks(&plan, is_mark)? {
        true => Err(misplaced()),
        false => Ok(plan),
    }
}

fn without_marks(projection: Projection) -> Result<Transformed<LogicalPlan>> {
    let mut found = false;
    for expr in &projection.expr {
        found |= expr.exists(|e| Ok(is_mark(e)))?;
    }
    if !found {
        return Ok(Transformed::no(LogicalPlan::Projection(projection)));
    }
    let column = |expr: Expr| {
        let replaced = expr.transform_up(|e| match &e {
            Expr::ScalarFunction(call) if is_mark(&e) => {
                let name = call.func.name();
                Ok(Transformed::yes(Expr::Column(Column::new_unqualified(
                    name,
                ))))
            }
            _ => Ok(Transformed::no(e)),
        })?;
        Ok(replaced.data)
    };
    let exprs = projection.expr.into_iter().map(column);
    let node = Changelog::new(Arc::unwrap_or_clone(projection.input))?;
    let changelog = LogicalPlan::Extension(Extension {
        node: Arc::new(node),
    });
    let exprs = exprs.collect::<Result<Vec<_>>>()?;
    let projection = Projection::try_new(exprs, Arc::new(changelog))?;
    Ok(Transformed::yes(LogicalPlan::Projection(projection)))
}

fn misplaced() -> DataFusionError {
    let error = Error::unsupported("a changelog can be read by materialized views and sinks only");
    external(error.with_hint("Create a materialized view of it, and read that."))
}
