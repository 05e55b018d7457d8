//! Joins that go by time.
//!
//! * `a ASOF [LEFT] JOIN b ON a.k = b.k AND a.t >= b.t`: each row of `a` with the one row of `b`
//!   whose time is the nearest.
//! * `s [LEFT] JOIN t FOR SYSTEM_TIME AS OF PROCTIME() ON s.k = t.k`, a temporal join: each row of
//!   `s`, which only grows, with what `t` holds when it comes.
//!
//! The parser writes them as joins with a mark in their condition (`parse::timed`). DataFusion
//! binds these, and before anything else looks at the plan, they become nodes of our own
//! ([`TimedJoin`]): a rule that knows joins knows nothing of them, so none can take such a join for
//! a plain one, move a condition into or out of it, or leave out what makes it what it is. A mark
//! that is left over is an error.
//!
//! A query that is only read has other equivalents: a temporal join is the plain one, since a row
//! that is read is joined with what is there; an ASOF join is a running last value (`coerce`'s
//! module of this name).

use crate::error::external;
use crate::marks::has_marks;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{
    DFSchema, DFSchemaRef, DataFusionError, FunctionalDependencies, Result, plan_err,
};
use datafusion_expr::logical_plan::{Extension, Join, build_join_schema};
use datafusion_expr::utils::{conjunction, split_conjunction_owned};
use datafusion_expr::{
    BinaryExpr, ColumnarValue, Expr, JoinType, LogicalPlan, Operator, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, UserDefinedLogicalNodeCore, Volatility,
};
use datafusion_sql::sqlparser::ast;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use tidemark_common::Error;
use tidemark_plan::Nearest;

/// The mark of an ASOF join.
pub(crate) const ASOF: &str = "asof join";
/// The mark of a temporal join.
pub(crate) const TEMPORAL: &str = "temporal join";

/// A mark as a function without arguments, which is never called.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Mark {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Mark {
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[arrow_schema::DataType]) -> Result<arrow_schema::DataType> {
        Ok(arrow_schema::DataType::Boolean)
    }
    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(misplaced())
    }
}

/// The function that stands for a mark in a condition, by its name.
pub fn mark(name: &str) -> Option<Arc<ScalarUDF>> {
    let name = [ASOF, TEMPORAL].into_iter().find(|mark| *mark == name)?;
    Some(Arc::new(ScalarUDF::from(Mark {
        name,
        signature: Signature::nullary(Volatility::Volatile),
    })))
}

/// Whether a query has a temporal join, before it is bound.
pub(crate) fn has_temporal_joins(query: &ast::Query) -> bool {
    query.to_string().contains(&format!("\"{TEMPORAL}\""))
}

fn mark_of(expr: &Expr) -> Option<Timing> {
    match expr {
        Expr::ScalarFunction(call) if call.func.name() == ASOF => Some(Timing::Asof),
        Expr::ScalarFunction(call) if call.func.name() == TEMPORAL => Some(Timing::Temporal),
        _ => None,
    }
}

/// What a join goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Timing {
    /// The nearest time.
    Asof,
    /// The moment at which a row comes.
    Temporal,
}

impl Timing {
    fn name(self) -> &'static str {
        match self {
            Timing::Asof => "an ASOF join",
            Timing::Temporal => "a temporal join",
        }
    }
}

/// A join of one of these kinds, inner or left.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TimedJoin {
    /// What it goes by.
    pub timing: Timing,
    /// The rows that look for others.
    pub left: LogicalPlan,
    /// Where they look.
    pub right: LogicalPlan,
    /// All of them hold; over the columns of both sides.
    pub conditions: Vec<Expr>,
    /// Inner or left.
    pub join_type: JoinType,
    schema: DFSchemaRef,
}

impl TimedJoin {
    fn new(
        timing: Timing,
        left: LogicalPlan,
        right: LogicalPlan,
        conditions: Vec<Expr>,
        join_type: JoinType,
    ) -> Result<TimedJoin> {
        let mut schema = build_join_schema(left.schema(), right.schema(), &join_type)?;
        if timing == Timing::Temporal {
            // One key is found as it was at several times.
            schema = schema.with_functional_dependencies(FunctionalDependencies::empty())?;
        }
        Ok(TimedJoin {
            timing,
            left,
            right,
            conditions,
            join_type,
            schema: Arc::new(schema),
        })
    }

    /// The node of ours that this is.
    pub fn of(extension: &Extension) -> Option<&TimedJoin> {
        extension.node.as_any().downcast_ref()
    }

    /// Left rows without partner stay.
    pub fn is_outer(&self) -> bool {
        self.join_type == JoinType::Left
    }

    /// What an ASOF join compares.
    pub fn asof(&self) -> Result<Asof> {
        Asof::of(&self.conditions, self.left.schema(), self.right.schema())
    }

    /// The equalities of the sides, and the other conditions.
    pub fn equalities(&self) -> (Vec<(Expr, Expr)>, Vec<Expr>) {
        let (mut pairs, mut others) = (Vec::new(), Vec::new());
        for condition in &self.conditions {
            match compared(condition, self.left.schema(), self.right.schema()) {
                Some((left, Operator::Eq, right)) => pairs.push((left, right)),
                _ => others.push(condition.clone()),
            }
        }
        (pairs, others)
    }
}

impl PartialOrd for TimedJoin {
    fn partial_cmp(&self, other: &TimedJoin) -> Option<Ordering> {
        let compared = self.conditions.partial_cmp(&other.conditions);
        compared.filter(|o| *o != Ordering::Equal || self == other)
    }
}

impl UserDefinedLogicalNodeCore for TimedJoin {
    fn name(&self) -> &str {
        match self.timing {
            Timing::Asof => "AsofJoin",
            Timing::Temporal => "TemporalJoin",
        }
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.conditions.clone()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let kind = if self.is_outer() { " Left" } else { "" };
        write!(f, "{}{kind}:", self.name())?;
        for (i, condition) in self.conditions.iter().enumerate() {
            write!(f, "{} {condition}", if i == 0 { "" } else { " AND" })?;
        }
        Ok(())
    }

    fn with_exprs_and_inputs(
        &self,
        exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> Result<Self> {
        let (Some(right), Some(left), true) = (inputs.pop(), inputs.pop(), inputs.is_empty())
        else {
            return plan_err!("a join has two inputs");
        };
        // Rules give what they rewrite its old name.
        let plain = |mut expr: Expr| {
            while let Expr::Alias(alias) = expr {
                expr = *alias.expr;
            }
            expr
        };
        let conditions = exprs.into_iter().map(plain).collect();
        TimedJoin::new(self.timing, left, right, conditions, self.join_type)
    }
}

/// What an ASOF join compares, the left side first.
pub(crate) struct Asof {
    /// Equal on both sides.
    pub keys: Vec<(Expr, Expr)>,
    /// The times.
    pub times: (Expr, Expr),
    /// Which is the nearest.
    pub comparison: Nearest,
}

impl Asof {
    /// Errors: `0A000` for other conditions than equalities and one comparison.
    fn of(conditions: &[Expr], left: &DFSchema, right: &DFSchema) -> Result<Asof> {
        let (mut keys, mut times) = (Vec::new(), None);
        for condition in conditions {
            let Some((l, op, r)) = compared(condition, left, right) else {
                return Err(not_asof());
            };
            let comparison = match op {
                Operator::Eq => {
                    keys.push((l, r));
                    continue;
                }
                Operator::GtEq => Nearest::AtOrBefore,
                Operator::Gt => Nearest::Before,
                Operator::LtEq => Nearest::AtOrAfter,
                Operator::Lt => Nearest::After,
                _ => return Err(not_asof()),
            };
            if times.replace(((l, r), comparison)).is_some() {
                return Err(not_asof());
            }
        }
        let (times, comparison) = times.ok_or_else(not_asof)?;
        Ok(Asof {
            keys,
            times,
            comparison,
        })
    }
}

fn not_asof() -> DataFusionError {
    let error = Error::unsupported(
        "the condition of an ASOF join is one comparison by >=, >, <= or <, and equalities, each \
         between the two sides",
    );
    external(
        error
            .with_hint("Filter the sides in subqueries of their own, or the joined rows in WHERE."),
    )
}

/// A comparison of something on the left with something on the right, in that order.
fn compared(condition: &Expr, left: &DFSchema, right: &DFSchema) -> Option<(Expr, Operator, Expr)> {
    let Expr::BinaryExpr(BinaryExpr {
        left: first,
        op,
        right: second,
    }) = condition
    else {
        return None;
    };
    let is_of = |expr: &Expr, schema: &DFSchema| {
        let columns = expr.column_refs();
        !columns.is_empty() && columns.iter().all(|c| schema.has_column(c))
    };
    let (first, second) = (first.as_ref(), second.as_ref());
    if is_of(first, left) && is_of(second, right) {
        Some((first.clone(), *op, second.clone()))
    } else if is_of(first, right) && is_of(second, left) {
        Some((second.clone(), op.swap()?, first.clone()))
    } else {
        None
    }
}

/// Takes the marks out of a bound query that is to be maintained.
pub(crate) fn maintained(plan: LogicalPlan) -> Result<LogicalPlan> {
    without_marks(plan, true)
}

/// Takes the marks out of a bound query that is only read.
///
/// Errors: `0A000` for what such joins cannot be.
pub fn ad_hoc(plan: LogicalPlan) -> Result<LogicalPlan> {
    without_marks(plan, false)
}

fn without_marks(plan: LogicalPlan, maintained: bool) -> Result<LogicalPlan> {
    if !has_marks(&plan, |e| mark_of(e).is_some())? {
        return Ok(plan);
    }
    let done = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) => without_mark(join, maintained),
        other => Ok(Transformed::no(other)),
    })?;
    match has_marks(&done.data, |e| mark_of(e).is_some())? {
        true => Err(misplaced()),
        false => Ok(done.data),
    }
}

fn misplaced() -> DataFusionError {
    let error = Error::unsupported(
        "the conditions of an ASOF or temporal join are put together by AND, and nothing else",
    );
    external(error.with_hint("Put parentheses around conditions with OR."))
}

fn without_mark(join: Join, maintained: bool) -> Result<Transformed<LogicalPlan>> {
    let Some(filter) = &join.filter else {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    };
    let parts = split_conjunction_owned(filter.clone());
    let marks: Vec<Timing> = parts.iter().filter_map(mark_of).collect();
    let (Some(timing), false) = (marks.first().copied(), marks.len() > 1) else {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    };
    let conditions: Vec<Expr> = parts.into_iter().filter(|e| mark_of(e).is_none()).collect();
    check(&join, timing, &conditions)?;
    if timing == Timing::Temporal && !maintained {
        let filter = conjunction(conditions);
        return Ok(Transformed::yes(LogicalPlan::Join(Join { filter, ..join })));
    }
    let [left, right] = [join.left, join.right].map(Arc::unwrap_or_clone);
    if timing == Timing::Asof {
        Asof::of(&conditions, left.schema(), right.schema())?;
    }
    let node = TimedJoin::new(timing, left, right, conditions, join.join_type)?;
    Ok(Transformed::yes(LogicalPlan::Extension(Extension {
        node: Arc::new(node),
    })))
}

/// What neither kind may be.
fn check(join: &Join, timing: Timing, conditions: &[Expr]) -> Result<()> {
    let what = timing.name();
    let refused = |why: &str| Err(external(Error::unsupported(format!("{what} {why}"))));
    if !join.on.is_empty() || !matches!(join.join_type, JoinType::Inner | JoinType::Left) {
        return refused("is an inner or a left join");
    }
    if conditions.is_empty() {
        return refused("needs a condition");
    }
    let is_subquery = |e: &Expr| {
        matches!(
            e,
            Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_)
        )
    };
    for condition in conditions {
        if condition.contains_outer() || condition.exists(|e| Ok(is_subquery(e)))? {
            return refused(
                "cannot have a subquery in its condition, nor refer to a query around it",
            );
        }
    }
    let correlated = |plan: &LogicalPlan| {
        matches!(plan, LogicalPlan::Subquery(_)) || !plan.all_out_ref_exprs().is_empty()
    };
    if correlated(&join.left) || correlated(&join.right) {
        return refused("of a subquery that refers to what is outside of it is not supported");
    }
    Ok(())
}
