//! PostgreSQL's semantics for ad-hoc plans: the rule [`PostgresSemantics`] runs after type coercion
//! and replaces the operators and casts whose answer differs (checked arithmetic, division by
//! zero, rounding casts, timestamps that intervals move, texts of timestamps) by functions that
//! evaluate the streaming evaluator's expression; texts that are put together are held against the
//! limit of a value.
//!
//! It runs on the logical plan, before constants are folded, so that `2147483647::int + 1::int`
//! fails as it does in a view.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::array::RecordBatchOptions;
use datafusion::arrow::datatypes::{DataType, Field, IntervalUnit, Schema, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, internal_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, Cast, ColumnarValue, Expr, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr::expressions::{
    BinaryExpr as PhysicalBinary, CastExpr, Column, Literal, NegativeExpr,
};
use datafusion::physical_plan::PhysicalExpr;
use std::sync::Arc;
use tidemark_operator::functions::{begin_call, call_name, check_bytes, column_bytes, wanted};

/// The rule.
#[derive(Debug)]
pub struct PostgresSemantics;

impl AnalyzerRule for PostgresSemantics {
    fn name(&self) -> &str {
        "postgres_semantics"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let done = tidemark_planner::rewrite_up(plan, &mut |plan, below| {
            let schema = read_schema(&plan)?;
            let names = NamePreserver::new(&plan);
            let rewritten = plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let replaced = expr.transform_up(|e| replace(e, &schema))?;
                Ok(if replaced.transformed {
                    replaced.update_data(|e| name.restore(e))
                } else {
                    replaced
                })
            })?;
            match below || rewritten.transformed {
                true => rewritten.map_data(LogicalPlan::recompute_schema),
                false => Ok(rewritten),
            }
        });
        done.map(|t| t.data)
    }
}

/// The columns that the expressions of a node read: of its inputs, or of the table that it scans.
pub(super) fn read_schema(node: &LogicalPlan) -> Result<DFSchema> {
    let mut schema = merge_schema(&node.inputs());
    if let LogicalPlan::TableScan(scan) = node {
        schema.merge(&DFSchema::try_from_qualified_schema(
            scan.table_name.clone(),
            &scan.source.schema(),
        )?);
    }
    Ok(schema)
}

fn replace(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    wanted()?;
    let kind = match &expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (Ok(l), Ok(r)) = (type_of(left, schema), type_of(right, schema)) else {
                return Ok(Transformed::no(expr));
            };
            let alike = |fits: fn(&DataType) -> bool| fits(&l) && fits(&r);
            let checked = matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply)
                && (alike(DataType::is_integer) || alike(DataType::is_floating));
            let divided =
                matches!(op, Operator::Divide | Operator::Modulo) && alike(DataType::is_floating);
            let joined = *op == Operator::StringConcat && l == DataType::Utf8 && l == r;
            let shifted = matches!(op, Operator::Plus | Operator::Minus) && shifts(&l, &r)
                || *op == Operator::Plus && shifts(&r, &l);
            if !checked && !divided && !joined && !shifted {
                return Ok(Transformed::no(expr));
            }
            Kind::Binary(*op)
        }
        Expr::Negative(inner)
            if type_of(inner, schema).is_ok_and(|t| t.is_integer())
                && !matches!(inner.as_ref(), Expr::Literal(..)) =>
        {
            Kind::Negative
        }
        Expr::Cast(Cast { expr: inner, field }) => {
            let Ok(from) = type_of(inner, schema) else {
                return Ok(Transformed::no(expr));
            };
            let to = field.data_type();
            let of_decimal = matches!(from, DataType::Decimal128(_, s) if s > 0);
            let rounds = (from.is_floating() || of_decimal) && to.is_integer()
                || narrows(&from, to) && !matches!(inner.as_ref(), Expr::Literal(..));
            let prints = *to == DataType::Utf8
                && (from.is_floating()
                    || matches!(
                        from,
                        DataType::Timestamp(TimeUnit::Microsecond, _)
                            | DataType::Interval(IntervalUnit::MonthDayNano)
                    ));
            if !rounds && !prints {
                return Ok(Transformed::no(expr));
            }
            Kind::Cast(to.clone())
        }
        _ => return Ok(Transformed::no(expr)),
    };
    let args = match expr {
        // What is moved comes first.
        Expr::BinaryExpr(BinaryExpr { left, right, .. })
            if matches!(type_of(&left, schema), Ok(DataType::Interval(_))) =>
        {
            vec![*right, *left]
        }
        Expr::BinaryExpr(BinaryExpr { left, right, .. }) => vec![*left, *right],
        Expr::Negative(inner) => vec![*inner],
        Expr::Cast(cast) => vec![*cast.expr],
        other => vec![other],
    };
    let function = Arc::new(ScalarUDF::from(Evaluated {
        kind,
        signature: Signature::any(args.len(), Volatility::Immutable),
    }));
    Ok(Transformed::yes(Expr::ScalarFunction(
        ScalarFunction::new_udf(function, args),
    )))
}

/// Whether a cast to a number may change the value, or fail: DataFusion would compare with the
/// value before the cast instead.
fn narrows(from: &DataType, to: &DataType) -> bool {
    use DataType::Decimal128;
    match (from, to) {
        (Decimal128(p, s), Decimal128(to_p, to_s)) => {
            to_s < s || i16::from(*to_p) - i16::from(*to_s) < i16::from(*p) - i16::from(*s)
        }
        (Decimal128(..), to) => to.is_integer(),
        (from, to) if from.is_integer() && to.is_integer() => {
            to.primitive_width() < from.primitive_width()
        }
        _ => false,
    }
}

/// Whether a timestamp is moved by an interval.
fn shifts(at: &DataType, by: &DataType) -> bool {
    matches!(at, DataType::Timestamp(TimeUnit::Microsecond, _))
        && *by == DataType::Interval(IntervalUnit::MonthDayNano)
}

/// The type of an expression. Of what was replaced already it is told by its operands:
/// DataFusion's way derives it with the name of every expression below, each as long as its text,
/// and a sum of hundreds of terms would be planned for minutes.
fn type_of(expr: &Expr, schema: &DFSchema) -> Result<DataType> {
    let mut expr = expr;
    loop {
        let Expr::ScalarFunction(call) = expr else {
            return tidemark_planner::type_of(expr, schema);
        };
        let function: &dyn std::any::Any = call.func.inner().as_ref();
        match (
            function.downcast_ref().map(|e: &Evaluated| &e.kind),
            call.args.first(),
        ) {
            (Some(Kind::Cast(to)), _) => return Ok(to.clone()),
            (Some(Kind::Binary(_) | Kind::Negative), Some(operand)) => expr = operand,
            _ => return tidemark_planner::type_of(expr, schema),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// The first operand has the type of the result: they are coerced, and integers, floats or
    /// texts, or a timestamp and an interval.
    Binary(Operator),
    Negative,
    Cast(DataType),
}

/// One operator or cast as a function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Evaluated {
    kind: Kind,
    signature: Signature,
}

impl Evaluated {
    /// The streaming evaluator's expression over these operands.
    fn expression(
        &self,
        operands: &[Arc<dyn PhysicalExpr>],
        input: &Schema,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let plain: Arc<dyn PhysicalExpr> = match &self.kind {
            Kind::Binary(op) => Arc::new(PhysicalBinary::new(
                operands[0].clone(),
                *op,
                operands[1].clone(),
            )),
            Kind::Negative => Arc::new(NegativeExpr::new(operands[0].clone())),
            Kind::Cast(to) => Arc::new(CastExpr::new(operands[0].clone(), to.clone(), None)),
        };
        tidemark_operator::expr::with_postgres_semantics(plain, input)
    }
}

impl ScalarUDFImpl for Evaluated {
    fn name(&self) -> &str {
        match &self.kind {
            Kind::Binary(Operator::Plus) => "int_add",
            Kind::Binary(Operator::Minus) => "int_subtract",
            Kind::Binary(Operator::Multiply) => "int_multiply",
            Kind::Binary(Operator::Divide) => "float_divide",
            Kind::Binary(Operator::StringConcat) => "text_concat",
            Kind::Binary(_) => "float_modulo",
            Kind::Negative => "int_negate",
            Kind::Cast(_) => "cast",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(call_name(self.name(), args))
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        wanted()?;
        match (&self.kind, args.first()) {
            (Kind::Cast(to), _) => Ok(to.clone()),
            (Kind::Binary(_) | Kind::Negative, Some(operand)) => Ok(operand.clone()),
            (_, None) => internal_err!("an operator without operands"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        begin_call(&args)?;
        if self.kind == Kind::Binary(Operator::StringConcat) {
            let bytes = |a| column_bytes(a, args.number_rows);
            check_bytes(args.args.iter().map(bytes).sum())?;
        }
        let (mut fields, mut arrays, mut operands) =
            (Vec::new(), Vec::new(), Vec::<Arc<dyn PhysicalExpr>>::new());
        for arg in args.args {
            match arg {
                ColumnarValue::Scalar(value) => operands.push(Arc::new(Literal::new(value))),
                ColumnarValue::Array(array) => {
                    let name = fields.len().to_string();
                    operands.push(Arc::new(Column::new(&name, fields.len())));
                    fields.push(Field::new(name, array.data_type().clone(), true));
                    arrays.push(array);
                }
            }
        }
        let scalar = arrays.is_empty();
        let rows = if scalar { 1 } else { args.number_rows };
        let schema = Arc::new(Schema::new(fields));
        let expression = self.expression(&operands, &schema)?;
        let batch = RecordBatch::try_new_with_options(
            schema,
            arrays,
            &RecordBatchOptions::new().with_row_count(Some(rows)),
        )?;
        match expression.evaluate(&batch)? {
            ColumnarValue::Array(array) if scalar => Ok(ColumnarValue::Scalar(
                datafusion::common::ScalarValue::try_from_array(&array, 0)?,
            )),
            value => Ok(value),
        }
    }
}
