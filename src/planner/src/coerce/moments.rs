//! Dates, timestamps and intervals as in PostgreSQL:
//!
//! * a date plus or minus an interval is a timestamp; DataFusion keeps a date and loses the hours;
//! * a date beside a timestamp becomes a timestamp of microseconds; DataFusion makes both
//!   nanoseconds, which end in 2262;
//! * `date_bin` answers in microseconds;
//! * `extract` of seconds, milliseconds and the epoch is a numeric with the fraction; DataFusion
//!   cuts it off.

use super::operands::is_compared;
use arrow_schema::{DataType, TimeUnit};
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::Transformed;
use datafusion_common::{DFSchema, Result, ScalarValue};
use datafusion_expr::expr::{Between, InList, ScalarFunction};
use datafusion_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, cast, lit};
use datafusion_optimizer::AnalyzerRule;

/// The rule; it comes before type coercion.
#[derive(Debug)]
pub(super) struct Moments;

impl AnalyzerRule for Moments {
    fn name(&self) -> &str {
        "moments"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        super::rewrite_expressions(plan, moment)
    }
}

fn moment(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let mut operands = vec![*left, *right];
            let changed = match op {
                Operator::Plus | Operator::Minus => shifted(&mut operands, op, schema),
                op if is_compared(op) => alike(&mut operands, schema),
                _ => false,
            };
            let right = operands.remove(1);
            Transformed::new_transformed(
                Expr::BinaryExpr(BinaryExpr::new(
                    Box::new(operands.remove(0)),
                    op,
                    Box::new(right),
                )),
                changed,
            )
        }
        Expr::Between(Between {
            expr,
            negated,
            low,
            high,
        }) => {
            let mut operands = vec![*expr, *low, *high];
            let changed = alike(&mut operands, schema);
            let (high, low) = (operands.remove(2), operands.remove(1));
            Transformed::new_transformed(
                Expr::Between(Between::new(
                    Box::new(operands.remove(0)),
                    negated,
                    Box::new(low),
                    Box::new(high),
                )),
                changed,
            )
        }
        Expr::InList(InList {
            expr,
            list,
            negated,
        }) => {
            let mut operands: Vec<Expr> = std::iter::once(*expr).chain(list).collect();
            let changed = alike(&mut operands, schema);
            let expr = Box::new(operands.remove(0));
            Transformed::new_transformed(
                Expr::InList(InList::new(expr, operands, negated)),
                changed,
            )
        }
        Expr::ScalarFunction(call) if call.func.name() == "date_bin" => {
            match Expr::ScalarFunction(call.clone()).get_type(schema) {
                Ok(DataType::Timestamp(TimeUnit::Nanosecond, zone)) => Transformed::yes(cast(
                    Expr::ScalarFunction(call),
                    DataType::Timestamp(TimeUnit::Microsecond, zone),
                )),
                _ => Transformed::no(Expr::ScalarFunction(call)),
            }
        }
        Expr::ScalarFunction(call) if call.func.name() == "date_part" => {
            match with_fraction(&call, schema) {
                Some(numeric) => Transformed::yes(numeric),
                None => Transformed::no(Expr::ScalarFunction(call)),
            }
        }
        other => Transformed::no(other),
    })
}

/// A date that an interval is added to or taken from becomes a timestamp.
fn shifted(operands: &mut [Expr], op: Operator, schema: &DFSchema) -> bool {
    let types: Vec<_> = operands.iter().map(|e| e.get_type(schema).ok()).collect();
    let at = match types.as_slice() {
        [Some(DataType::Date32), Some(DataType::Interval(_))] if !is_days(&operands[1], schema) => {
            0
        }
        [Some(DataType::Interval(_)), Some(DataType::Date32)]
            if op == Operator::Plus && !is_days(&operands[0], schema) =>
        {
            1
        }
        _ => return false,
    };
    operands[at] = cast(
        operands[at].clone(),
        DataType::Timestamp(TimeUnit::Microsecond, None),
    );
    true
}

/// What type coercion makes of the integer in `date + 1`, which stays a date: a plan may be
/// analysed twice.
fn is_days(expr: &Expr, schema: &DFSchema) -> bool {
    matches!(expr, Expr::Cast(cast)
        if matches!(cast.expr.get_type(schema), Ok(DataType::Duration(_))))
}

/// Dates among timestamps become timestamps of the same kind.
fn alike(operands: &mut [Expr], schema: &DFSchema) -> bool {
    let types: Vec<_> = operands.iter().map(|e| e.get_type(schema).ok()).collect();
    let Some(zone) = types.iter().find_map(|t| {
        if let Some(DataType::Timestamp(_, zone)) = t {
            Some(zone.clone())
        } else {
            None
        }
    }) else {
        return false;
    };
    let mut changed = false;
    for (operand, data_type) in operands.iter_mut().zip(&types) {
        if *data_type == Some(DataType::Date32) {
            *operand = cast(
                operand.clone(),
                DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
            );
            changed = true;
        }
    }
    changed
}

/// `date_part` of a field that has a fraction, as a numeric with the digits that PostgreSQL shows.
fn with_fraction(call: &ScalarFunction, schema: &DFSchema) -> Option<Expr> {
    let [
        Expr::Literal(ScalarValue::Utf8(Some(field)), metadata),
        moment,
    ] = call.args.as_slice()
    else {
        return None;
    };
    if !matches!(
        moment.get_type(schema),
        Ok(DataType::Timestamp(_, _)
            | DataType::Date32
            | DataType::Time64(_)
            | DataType::Time32(_))
    ) {
        return None;
    }
    let part = |name: &str| {
        let field = Expr::Literal(ScalarValue::Utf8(Some(name.into())), metadata.clone());
        Expr::ScalarFunction(ScalarFunction::new_udf(
            call.func.clone(),
            vec![field, moment.clone()],
        ))
    };
    let micros = || cast(part("microsecond"), DataType::Int64);
    Some(match field.to_ascii_lowercase().as_str() {
        "second" | "seconds" => cast(
            micros() * lit(ScalarValue::Decimal128(Some(1), 6, 6)),
            DataType::Decimal128(12, 6),
        ),
        "millisecond" | "milliseconds" => cast(
            micros() * lit(ScalarValue::Decimal128(Some(1), 3, 3)),
            DataType::Decimal128(12, 3),
        ),
        "epoch" => cast(part("epoch"), DataType::Decimal128(20, 6)),
        _ => return None,
    })
}
