//! Temporal filters: conditions that compare a row with the clock.
//!
//! `moment > bound(now())` holds for a row until the clock has come so far, and `moment < ..` from
//! then on: a row changes sides once, since the bound never goes back. Conditions of several of
//! these are taken apart ([`super::clocked`]). What else could be asked of the clock is refused.

use crate::lower::{Builder, Stream, to_expr};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, Result as DataFusionResult};
use datafusion_expr::{BinaryExpr, Expr as Df, ExprSchemable, Operator, cast};
use std::sync::Arc;
use tidemark_common::{Error, Result};
use tidemark_plan::{Expr, Kept, Op, Properties};

const NOW: &str = "now";

/// Whether an expression asks for the clock.
pub(crate) fn reads_clock(expr: &Df) -> bool {
    let mut found = false;
    // It cannot fail: nothing in it does.
    let _ = expr.apply(|e| {
        found |= is_now(e);
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

/// Whether an expression is the clock itself.
pub(super) fn is_now(expr: &Df) -> bool {
    is_call(expr, NOW) || is_today(expr)
}

/// The date of the clock in UTC; in other zones it is a cast of `now()`.
fn is_today(expr: &Df) -> bool {
    ["current_date", "today"]
        .iter()
        .any(|name| is_call(expr, name))
}

fn is_call(expr: &Df, name: &str) -> bool {
    matches!(expr, Df::ScalarFunction(call) if call.func.name() == name && call.args.is_empty())
}

/// A comparison with the clock.
struct Comparison<'a> {
    moment: &'a Df,
    bound: &'a Df,
    kept: Kept,
    inclusive: bool,
}

/// What is said of the clock anywhere else.
pub(crate) fn misplaced() -> Error {
    Error::unsupported("now() is supported in a streaming query as a temporal filter only")
        .with_hint("Compare a column with it in WHERE: at > now() - INTERVAL '1 hour'.")
}

fn comparison(condition: &Df) -> Result<Comparison<'_>> {
    let Df::BinaryExpr(BinaryExpr { left, op, right }) = condition else {
        return Err(misplaced());
    };
    let (moment, bound, op) = match (reads_clock(left), reads_clock(right)) {
        (false, true) => (left, right, Some(*op)),
        (true, false) => (right, left, op.swap()),
        _ => return Err(misplaced()),
    };
    let (kept, inclusive) = match op {
        Some(Operator::Gt) => (Kept::After, false),
        Some(Operator::GtEq) => (Kept::After, true),
        Some(Operator::Lt) => (Kept::Before, false),
        Some(Operator::LtEq) => (Kept::Before, true),
        _ => return Err(misplaced()),
    };
    if !goes_on(bound) {
        return Err(misplaced());
    }
    Ok(Comparison {
        moment,
        bound,
        kept,
        inclusive,
    })
}

/// Whether an expression over the clock never goes back (but for the hour in which clocks are set
/// back, where it waits).
pub(super) fn goes_on(bound: &Df) -> bool {
    let is_constant = |e: &Df| !e.any_column_refs() && !reads_clock(e);
    match bound {
        Df::Alias(alias) => goes_on(&alias.expr),
        Df::Cast(cast) => goes_on(&cast.expr),
        Df::BinaryExpr(b) => match b.op {
            Operator::Plus => {
                goes_on(&b.left) && is_constant(&b.right)
                    || is_constant(&b.left) && goes_on(&b.right)
            }
            Operator::Minus => goes_on(&b.left) && is_constant(&b.right),
            _ => false,
        },
        Df::ScalarFunction(call) => match (call.func.name(), &call.args[..]) {
            (NOW | "current_date" | "today", []) => true,
            (
                "timestamptz_plus" | "timestamptz_minus" | "date_plus_days" | "date_minus_days"
                | "cast_as",
                [moment, rest @ ..],
            ) => goes_on(moment) && rest.iter().all(is_constant),
            ("date_trunc" | "date_trunc_in_session", [field, moment, rest @ ..]) => {
                is_constant(field) && goes_on(moment) && rest.iter().all(is_constant)
            }
            ("date_bin", [stride, moment, rest @ ..]) => {
                is_constant(stride) && goes_on(moment) && rest.iter().all(is_constant)
            }
            _ => false,
        },
        _ => false,
    }
}

impl Builder {
    /// Keeps the rows for which these comparisons with the clock hold.
    pub(super) fn temporal_filters(
        &mut self,
        mut input: Stream,
        conditions: &[Df],
        schema: &DFSchema,
    ) -> Result<Stream> {
        for condition in conditions {
            input = self.temporal_filter(input, &comparison(condition)?, schema)?;
        }
        Ok(input)
    }

    fn temporal_filter(
        &mut self,
        input: Stream,
        comparison: &Comparison<'_>,
        schema: &DFSchema,
    ) -> Result<Stream> {
        let width = input.width();
        let own = input.node.schema.clone();
        let (_, field) = comparison
            .moment
            .to_field(schema)
            .map_err(|e| Error::internal(e.to_string()))?;
        if !is_moment(field.data_type()) {
            return Err(misplaced());
        }
        let moment = to_expr(comparison.moment, schema)?;
        let (input, column) = match moment {
            Expr::Column(column) => (input, column),
            moment => {
                let fields = own.fields().iter().map(|f| f.as_ref().clone());
                let moment_field = Field::new("moment", field.data_type().clone(), true);
                let fields: Vec<Field> = fields.chain([moment_field]).collect();
                let exprs = (0..width).map(Expr::Column).chain([moment]).collect();
                (input.project(exprs, Arc::new(Schema::new(fields))), width)
            }
        };
        let input = input.filter(Expr::IsNotNull(Box::new(Expr::Column(column))));
        let by = input.partitions.iter().find(|keys| keys.contains(&column));
        let keys = by.cloned().unwrap_or_else(|| vec![column]);
        let input = self.exchange(input, &keys);
        let (schema, properties) = (input.node.schema.clone(), input.node.properties.clone());
        let (clock, bound) = bound_of(comparison.bound)?;
        let op = Op::TemporalFilter {
            keys,
            moment: column,
            kept: comparison.kept,
            inclusive: comparison.inclusive,
            clock,
            bound,
            table: self.tables(1),
        };
        let properties = Properties {
            append_only: properties.append_only && comparison.kept == Kept::Before,
            ..properties
        };
        let filtered = input.wrap(op, schema, properties);
        Ok(match filtered.width() == width {
            true => filtered,
            false => filtered.pick(&(0..width).collect::<Vec<_>>()),
        })
    }
}

fn is_moment(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Date32 | DataType::Timestamp(TimeUnit::Microsecond, _)
    )
}

/// The type of the clock, and the bound over it as column 0.
fn bound_of(bound: &Df) -> Result<(DataType, Expr)> {
    let internal = |e: datafusion_common::DataFusionError| Error::internal(e.to_string());
    let clock = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let schema = Schema::new(vec![Field::new(NOW, clock.clone(), false)]);
    let schema = DFSchema::try_from(schema).map_err(internal)?;
    let column = |e: Df| -> DataFusionResult<Transformed<Df>> {
        let now = || Df::Column(Column::from_name(NOW));
        Ok(match is_now(&e) {
            true if is_today(&e) => Transformed::yes(cast(now(), DataType::Date32)),
            true => Transformed::yes(now()),
            false => Transformed::no(e),
        })
    };
    let bound = bound.clone().transform_up(column).map_err(internal)?.data;
    Ok((clock, to_expr(&bound, &schema)?))
}
