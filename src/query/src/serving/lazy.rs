//! `coalesce`, and AND and OR whose right side may fail, in ad-hoc plans: the rule [`LazyCalls`]
//! comes last and makes each of them a function of what it reads, the columns and the subqueries
//! within. DataFusion evaluates the arguments of a function before the function, and both sides of
//! an operator for all rows; that function evaluates its own in turn, for the rows that need them,
//! with the streaming evaluator's expression.

use super::semantics::read_schema;
use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_plan::PhysicalExpr;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use tidemark_operator::expr::with_lazy_calls;
use tidemark_planner::may_fail;

/// The rule.
#[derive(Debug)]
pub struct LazyCalls;

impl OptimizerRule for LazyCalls {
    fn name(&self) -> &str {
        "lazy_calls"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let mut props = ExecutionProps::new();
        props.mark_start_execution(config.options());
        plan.transform_up_with_subqueries(|node| {
            if !has_lazy(&node)? {
                return Ok(Transformed::no(node));
            }
            let schema = read_schema(&node)?;
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                let lazy = expr.transform_down(|e| lazy(e, &schema, &props))?;
                Ok(lazy.update_data(|e| name.restore(e)))
            })
        })
    }
}

fn has_lazy(node: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    node.apply_expressions(|expr| {
        found |= expr.exists(|e| Ok(is_lazy(e)))?;
        Ok(match found {
            true => TreeNodeRecursion::Stop,
            false => TreeNodeRecursion::Continue,
        })
    })?;
    Ok(found)
}

/// Whether something is not evaluated for all rows.
fn is_lazy(expr: &Expr) -> bool {
    match expr {
        Expr::ScalarFunction(call) => ["coalesce", "nvl"].contains(&call.func.name()),
        Expr::BinaryExpr(b) => matches!(b.op, Operator::And | Operator::Or) && may_fail(&b.right),
        _ => false,
    }
}

/// The outermost of them, with those that it contains, as one function.
fn lazy(expr: Expr, schema: &DFSchema, props: &ExecutionProps) -> Result<Transformed<Expr>> {
    if !is_lazy(&expr) {
        return Ok(Transformed::no(expr));
    }
    let certain = |e: &Expr| matches!(e, Expr::Column(_) | Expr::Literal(..));
    if let Expr::ScalarFunction(call) = &expr
        && call.args.iter().skip(1).all(certain)
    {
        // Nothing is evaluated too early.
        return Ok(Transformed::no(expr));
    }
    // Plans that are only described have parameters.
    if expr.exists(|e| Ok(matches!(e, Expr::Placeholder(_))))? {
        return Ok(Transformed::no(expr));
    }
    let output = expr.to_field(schema)?.1;
    let volatility = match expr.is_volatile() {
        true => Volatility::Volatile,
        false => Volatility::Immutable,
    };
    let text = expr.schema_name().to_string();
    let mut reads: Vec<Expr> = Vec::new();
    let over_reads = expr.transform_down(|e| {
        if !matches!(e, Expr::Column(_) | Expr::ScalarSubquery(_)) {
            return Ok(Transformed::no(e));
        }
        let at = reads.iter().position(|r| *r == e).unwrap_or_else(|| {
            reads.push(e);
            reads.len() - 1
        });
        let column = Expr::Column(Column::new_unqualified(at.to_string()));
        Ok(Transformed::new(column, true, TreeNodeRecursion::Jump))
    })?;
    let fields = reads.iter().enumerate().map(|(i, read)| {
        let field = read.to_field(schema)?.1;
        Ok(Arc::new(field.as_ref().clone().with_name(i.to_string())))
    });
    let input = Schema::new(fields.collect::<Result<Vec<FieldRef>>>()?);
    let input = DFSchema::try_from(input)?;
    let eager = create_physical_expr(&over_reads.data, &input, props, &Default::default())?;
    let function = LazyCall {
        expr: with_lazy_calls(eager, input.as_arrow())?,
        input: input.inner().clone(),
        output,
        text,
        signature: match reads.len() {
            0 => Signature::nullary(volatility),
            reads => Signature::any(reads, volatility),
        },
    };
    let call = ScalarFunction::new_udf(Arc::new(ScalarUDF::from(function)), reads);
    Ok(Transformed::new(
        Expr::ScalarFunction(call),
        true,
        TreeNodeRecursion::Jump,
    ))
}

/// An expression as a function of the columns that it reads.
#[derive(Debug)]
struct LazyCall {
    expr: Arc<dyn PhysicalExpr>,
    input: Arc<Schema>,
    output: FieldRef,
    /// How the expression was written.
    text: String,
    signature: Signature,
}

impl PartialEq for LazyCall {
    fn eq(&self, other: &LazyCall) -> bool {
        self.expr.eq(&other.expr) && self.input == other.input && self.output == other.output
    }
}

impl Eq for LazyCall {}

impl Hash for LazyCall {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.expr.hash(state);
    }
}

impl ScalarUDFImpl for LazyCall {
    fn name(&self) -> &str {
        "lazily"
    }

    fn display_name(&self, _: &[Expr]) -> Result<String> {
        Ok(self.text.clone())
    }

    fn schema_name(&self, _: &[Expr]) -> Result<String> {
        Ok(self.text.clone())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.output.data_type().clone())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(self.output.clone())
    }

    fn short_circuits(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let columns = args.args.into_iter().map(|a| a.into_array(rows));
        let batch = RecordBatch::try_new_with_options(
            self.input.clone(),
            columns.collect::<Result<_>>()?,
            &RecordBatchOptions::new().with_row_count(Some(rows)),
        )?;
        self.expr.evaluate(&batch)
    }
}
