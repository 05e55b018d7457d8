//! Conditions that guard others: in `s LIKE '5%' AND 10 / t > 1` the first keeps the second from
//! rows for which it has no value. DataFusion's rule that pushes filters down puts what it thinks
//! cheap, as a division, before what it thinks expensive, as LIKE or a call. So around it
//! ([`around`]) what may fail is the argument of a call: it keeps its place. Nor is it said of the
//! other side of a join what the join's keys would have it say there too: what guards it need not
//! be there.

use arrow_schema::DataType;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Result, internal_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion_expr::{
    ColumnarValue, Expr, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility, lit,
};
use datafusion_optimizer::{OptimizerConfig, OptimizerRule};
use std::sync::Arc;

/// Whether a row may have no value of an expression, but an error.
pub fn may_fail(expr: &Expr) -> bool {
    expr.exists(|e| Ok(!is_certain(e))).unwrap_or(true)
}

/// Whether there is a value wherever those below have one.
fn is_certain(expr: &Expr) -> bool {
    use Operator::{And, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq, Or};
    match expr {
        Expr::BinaryExpr(b) => matches!(
            b.op,
            And | Or | Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom
        ),
        Expr::ScalarFunction(call) => call.func.name() == "sort_key",
        Expr::Column(_)
        | Expr::OuterReferenceColumn(..)
        | Expr::Literal(..)
        | Expr::Placeholder(_)
        | Expr::Not(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNotFalse(_)
        | Expr::IsNotUnknown(_)
        | Expr::Between(_)
        | Expr::InList(_)
        | Expr::Like(_)
        | Expr::Exists(_)
        | Expr::InSubquery(_)
        | Expr::ScalarSubquery(_) => true,
        _ => false,
    }
}

/// The rule, between what hides conditions from it and what shows them again.
pub(super) fn around(
    rule: Arc<dyn OptimizerRule + Send + Sync>,
) -> [Arc<dyn OptimizerRule + Send + Sync>; 3] {
    [
        Arc::new(WrittenOrder { hides: true }),
        rule,
        Arc::new(WrittenOrder { hides: false }),
    ]
}

/// Hides conditions that may fail in calls of [`Hidden`], or shows them again.
#[derive(Debug)]
struct WrittenOrder {
    hides: bool,
}

impl OptimizerRule for WrittenOrder {
    fn name(&self) -> &str {
        "written_order"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        plan.transform_down_with_subqueries(|node| match node {
            LogicalPlan::Filter(mut filter) if self.concerns(&filter.predicate) => {
                filter.predicate = self.each(filter.predicate)?;
                Ok(Transformed::yes(LogicalPlan::Filter(filter)))
            }
            LogicalPlan::Join(mut join) => {
                let mut named = false;
                if !self.hides {
                    for (left, _) in &mut join.on {
                        if let Expr::Alias(alias) = left
                            && alias.name == KEY
                        {
                            *left = alias.expr.as_ref().clone();
                            named = true;
                        }
                    }
                }
                let found = join.filter.take_if(|filter| self.concerns(filter));
                let Some(filter) = found else {
                    let join = LogicalPlan::Join(join);
                    return Ok(Transformed::new_transformed(join, named));
                };
                join.filter = Some(self.each(filter)?);
                Ok(Transformed::yes(LogicalPlan::Join(join)))
            }
            LogicalPlan::TableScan(mut scan) if scan.filters.iter().any(|f| self.concerns(f)) => {
                let filters = scan.filters.into_iter().map(|filter| self.each(filter));
                scan.filters = filters.collect::<Result<_>>()?;
                Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
            }
            other => Ok(Transformed::no(other)),
        })
    }
}

impl WrittenOrder {
    /// Whether there is anything to do in a conjunction.
    fn concerns(&self, conjunction: &Expr) -> bool {
        match self.hides {
            // One by itself may meet others where it is pushed to.
            true => split_conjunction(conjunction).into_iter().any(may_fail),
            false => conjunction.exists(|e| Ok(is_hidden(e))).unwrap_or(true),
        }
    }

    fn each(&self, all: Expr) -> Result<Expr> {
        if !self.hides {
            return all.transform_up(shown).map(|t| t.data);
        }
        let parts = split_conjunction_owned(all).into_iter();
        let hidden = parts.map(|part| match may_fail(&part) && !is_hidden(&part) {
            true => Expr::ScalarFunction(ScalarFunction::new_udf(
                Arc::new(ScalarUDF::from(Hidden::default())),
                vec![part],
            )),
            false => part,
        });
        Ok(conjunction(hidden).unwrap_or_else(|| lit(true)))
    }
}

/// The name of a join's key that DataFusion is not to take for a column.
const KEY: &str = "__key";

/// A filter over a join, or a join, whose keys tell nothing of what is hidden: DataFusion would say
/// of one side what is said of the other.
pub(super) fn without_inference(plan: LogicalPlan) -> LogicalPlan {
    let (mut below, mut hidden) = (&plan, false);
    while let LogicalPlan::Filter(filter) = below {
        hidden |= filter
            .predicate
            .exists(|e| Ok(is_hidden(e)))
            .unwrap_or(true);
        below = &filter.input;
    }
    let LogicalPlan::Join(join) = below else {
        return plan;
    };
    let mut own = join.filter.iter();
    hidden |= own.any(|filter| filter.exists(|e| Ok(is_hidden(e))).unwrap_or(true));
    match hidden {
        true => with_named_keys(plan),
        false => plan,
    }
}

fn with_named_keys(plan: LogicalPlan) -> LogicalPlan {
    match plan {
        LogicalPlan::Filter(mut filter) => {
            let input = with_named_keys(Arc::unwrap_or_clone(filter.input));
            filter.input = Arc::new(input);
            LogicalPlan::Filter(filter)
        }
        LogicalPlan::Join(mut join) => {
            for (left, _) in &mut join.on {
                if matches!(left, Expr::Column(_)) {
                    *left = std::mem::take(left).alias(KEY);
                }
            }
            LogicalPlan::Join(join)
        }
        other => other,
    }
}

fn is_hidden(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func.inner().is::<Hidden>())
}

fn shown(expr: Expr) -> Result<Transformed<Expr>> {
    match expr {
        Expr::ScalarFunction(mut call) if call.func.inner().is::<Hidden>() => {
            match call.args.pop() {
                Some(condition) => Ok(Transformed::yes(condition)),
                None => internal_err!("a condition that is not there"),
            }
        }
        other => Ok(Transformed::no(other)),
    }
}

/// A condition as it is.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Hidden {
    signature: Signature,
}

impl Default for Hidden {
    fn default() -> Hidden {
        Hidden {
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Hidden {
    fn name(&self) -> &str {
        "condition"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.into_iter().next() {
            Some(value) => Ok(value),
            None => internal_err!("a condition that is not there"),
        }
    }
}
