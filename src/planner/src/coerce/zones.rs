//! The session's time zone, written into the plan: a call whose answer depends on it gets the
//! zone's name as its last argument. So a materialized view keeps the zone of the session that
//! created it, whoever reads it, and the kernels know of no session.
//!
//! * `cast_as(x, NULL::type, z)`: a cast between `timestamptz` and text, `date`, `time` or
//!   `timestamp`, of lists of them too;
//! * `extract`, `date_part`, `to_char`, `to_timestamp(text, p)` and `age` get z;
//! * `date_trunc_in_session(f, x, z)` is `date_trunc(f, x)`: the zones of sessions are not those of
//!   arguments, where `CET` is an abbreviation;
//! * `timestamptz_plus(x, interval, z)` and `timestamptz_minus` are `x + interval` and
//!   `x - interval`;
//! * `make_timestamptz` of six fields is a cast of `make_timestamp`; `current_date` and its like
//!   are casts of `now()`;
//! * a function of any type that makes texts, or JSONB, of what it is given is the function of the
//!   text, or the JSONB, that the value has in z.
//!
//! In UTC nothing is changed: a call without zone means UTC, and the operators of Arrow stay what
//! they are. The same holds of intervals without months and days, which are as long everywhere.
//!
//! The rule comes after DataFusion's coercion, so that it sees every cast there is; it changes the
//! type of nothing. It is idempotent: a call that has its zone is left alone.

use super::calls::Calls;
use super::typing::Typed;
use crate::error::external;
use crate::types::JSONB;
use arrow_schema::{DataType, IntervalUnit, TimeUnit};
use datafusion_common::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use datafusion_common::tree_node::Transformed;
use datafusion_common::{DFSchema, Result, ScalarValue, not_impl_err};
use datafusion_expr::expr::{AggregateFunction, ScalarFunction, WindowFunction};
use datafusion_expr::{
    BinaryExpr, Cast, Expr, LogicalPlan, Operator, WindowFrameBound, WindowFrameUnits, cast, lit,
};
use datafusion_optimizer::AnalyzerRule;
use std::any::Any;
use tidemark_common::Error;

/// The time zone of the session that a plan is made for, among DataFusion's options: its own
/// `execution.time_zone` is a part of types there, and stays UTC. Without it, the zone is UTC.
#[derive(Clone, Debug)]
pub struct SessionZone(pub String);

impl SessionZone {
    /// The zone for which these options plan, if it is not UTC.
    pub fn of(options: &ConfigOptions) -> Option<&str> {
        let zone = options.extensions.get::<SessionZone>()?;
        (zone.0 != "UTC").then_some(zone.0.as_str())
    }
}

impl ConfigExtension for SessionZone {
    const PREFIX: &'static str = "tidemark";
}

impl ExtensionOptions for SessionZone {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, _value: &str) -> Result<()> {
        not_impl_err!("option tidemark.{key}")
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
    }
}

/// The rule; it comes after type coercion.
#[derive(Debug)]
pub(super) struct Zones(pub Calls);

impl AnalyzerRule for Zones {
    fn name(&self) -> &str {
        "zones"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        match SessionZone::of(config) {
            Some(zone) => {
                super::rewrite_expressions(plan, |e, schema| self.0.zoned(e, schema, zone))
            }
            None => super::rewrite_expressions(plan, |e, schema| self.0.in_utc(e, schema)),
        }
    }
}

/// `timestamptz`.
fn timestamptz() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn is_zoned(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(_, Some(_)))
}

/// Whether a value has a `timestamptz` in it.
fn holds_zoned(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(field) => holds_zoned(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|f| holds_zoned(f.data_type())),
        DataType::Map(entries, _) => holds_zoned(entries.data_type()),
        other => is_zoned(other),
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    )
}

/// Whether what a cast gives depends on the zone.
fn depends(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::List(from), DataType::List(to)) => depends(from.data_type(), to.data_type()),
        (DataType::List(from), to) if is_text(to) => holds_zoned(from.data_type()),
        (from, DataType::List(to)) if is_text(from) => holds_zoned(to.data_type()),
        (DataType::Struct(from), DataType::Struct(to)) => {
            let mut fields = from.iter().zip(to);
            fields.any(|(from, to)| depends(from.data_type(), to.data_type()))
        }
        (DataType::Map(from, _), DataType::Map(to, _)) => depends(from.data_type(), to.data_type()),
        (DataType::Struct(_) | DataType::Map(..), to) if is_text(to) => holds_zoned(from),
        (from, DataType::Struct(_) | DataType::Map(..)) if is_text(from) => holds_zoned(to),
        (from, to) if is_zoned(from) => is_local(to),
        (from, to) if is_zoned(to) => is_local(from),
        _ => false,
    }
}

/// What stands for a `timestamptz` in one zone only.
fn is_local(data_type: &DataType) -> bool {
    is_text(data_type)
        || matches!(
            data_type,
            DataType::Date32 | DataType::Time64(_) | DataType::Timestamp(_, None)
        )
}

/// The type in the unit that our casts know.
fn in_micros(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        other => other.clone(),
    }
}

/// The type of an expression: none, while it has a parameter of which no type is known.
fn type_of(expr: &Expr, schema: &DFSchema) -> DataType {
    expr.get_type(schema).unwrap_or(DataType::Null)
}

/// A cast that changes units alone.
fn cast_to(expr: Expr, from: &DataType, to: &DataType) -> Expr {
    if from == to {
        expr
    } else {
        cast(expr, to.clone())
    }
}

/// An interval of hours and less, which is as long in every zone.
fn has_no_days(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(span)), _)
            if span.months == 0 && span.days == 0
    )
}

impl Calls {
    /// In UTC Arrow's casts are right but for infinite moments. Ours name the zone: a NULL of a
    /// type with one and of one without are equal to DataFusion, and so would be the casts.
    fn in_utc(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let expr = match expr {
            Expr::ScalarFunction(mut call)
                if call.func.name() == "cast_as"
                    && call.args.len() == 2
                    && is_zoned(&type_of(&call.args[1], schema)) =>
            {
                call.args.push(lit("UTC"));
                return Ok(Transformed::yes(Expr::ScalarFunction(call)));
            }
            other => other,
        };
        let Expr::Cast(Cast { expr, field }) = expr else {
            return Ok(Transformed::no(expr));
        };
        let micros = |t: &DataType| matches!(t, DataType::Timestamp(TimeUnit::Microsecond, _));
        let (from, to) = (type_of(&expr, schema), field.data_type());
        let moved = (micros(&from) || from == DataType::Date32) && micros(to) && from != *to;
        if !moved {
            return Ok(Transformed::no(Expr::Cast(Cast { expr, field })));
        }
        Ok(Transformed::yes(self.cast(*expr, to)?))
    }

    fn zoned(&self, expr: Expr, schema: &DFSchema, zone: &str) -> Result<Transformed<Expr>> {
        match expr {
            Expr::Cast(Cast { expr, field }) => {
                let from = type_of(&expr, schema);
                if !depends(&from, field.data_type()) {
                    return Ok(Transformed::no(Expr::Cast(Cast { expr, field })));
                }
                let to = field.data_type();
                Ok(Transformed::yes(self.cast_in(*expr, &from, to, zone)?))
            }
            Expr::BinaryExpr(binary) => self.sum_in(binary, schema, zone),
            Expr::ScalarFunction(call) => self.call_in(call, schema, zone),
            Expr::AggregateFunction(call) => self.aggregate_in(call, schema, zone),
            Expr::WindowFunction(call) => {
                same_days(&call, schema)?;
                Ok(Transformed::no(Expr::WindowFunction(call)))
            }
            other => Ok(Transformed::no(other)),
        }
    }

    /// The value as another type, by the clocks of a zone.
    fn cast_in(&self, value: Expr, from: &DataType, to: &DataType, zone: &str) -> Result<Expr> {
        let value = cast_to(value, from, &in_micros(from));
        let wanted = in_micros(to);
        let null = lit(ScalarValue::try_from(&wanted)?);
        let value = self.call("cast_as", vec![value, null, lit(zone)])?;
        Ok(cast_to(value, &wanted, to))
    }

    /// The value as JSONB, with moments as clocks of a zone show them.
    fn json_in(&self, value: Expr, is: &DataType, zone: &str) -> Result<Expr> {
        let value = cast_to(value, is, &in_micros(is));
        self.call("to_jsonb", vec![value, lit(zone)])
    }

    /// A moment and an interval.
    fn sum_in(
        &self,
        binary: BinaryExpr,
        schema: &DFSchema,
        zone: &str,
    ) -> Result<Transformed<Expr>> {
        let unchanged = |binary| Ok(Transformed::no(Expr::BinaryExpr(binary)));
        let name = match binary.op {
            Operator::Plus => "timestamptz_plus",
            Operator::Minus => "timestamptz_minus",
            _ => return unchanged(binary),
        };
        let (left, right) = (
            type_of(&binary.left, schema),
            type_of(&binary.right, schema),
        );
        let swapped = match (&left, &right) {
            (at, DataType::Interval(_)) if is_zoned(at) => false,
            (DataType::Interval(_), at) if is_zoned(at) && binary.op == Operator::Plus => true,
            _ => return unchanged(binary),
        };
        let span = if swapped { &binary.left } else { &binary.right };
        if has_no_days(span) {
            return unchanged(binary);
        }
        let (at, at_type, span, span_type) = if swapped {
            (*binary.right, right, *binary.left, left)
        } else {
            (*binary.left, left, *binary.right, right)
        };
        let at = cast_to(at, &at_type, &timestamptz());
        let span = cast_to(
            span,
            &span_type,
            &DataType::Interval(IntervalUnit::MonthDayNano),
        );
        let sum = self.call(name, vec![at, span, lit(zone)])?;
        Ok(Transformed::yes(cast_to(sum, &timestamptz(), &at_type)))
    }

    fn call_in(
        &self,
        call: ScalarFunction,
        schema: &DFSchema,
        zone: &str,
    ) -> Result<Transformed<Expr>> {
        let ScalarFunction { func, mut args } = call;
        let zoned = |i: usize| {
            args.get(i)
                .is_some_and(|a| a.get_type(schema).is_ok_and(|t| is_zoned(&t)))
        };
        let has_its_zone = match (func.name(), args.len()) {
            ("cast_as", 2) => {
                let (from, to) = (type_of(&args[0], schema), type_of(&args[1], schema));
                if depends(&from, &to) {
                    let value = args.swap_remove(0);
                    return Ok(Transformed::yes(self.cast_in(value, &from, &to, zone)?));
                }
                true
            }
            ("extract" | "extract_whole" | "extract_micros" | "date_part", 2) => !zoned(1),
            ("to_char", 2) | ("series_list", 3) => !zoned(0),
            ("age", 2) => !zoned(0) && !zoned(1),
            ("to_jsonb", 1) => {
                let is = type_of(&args[0], schema);
                if holds_zoned(&is) {
                    let value = args.swap_remove(0);
                    return Ok(Transformed::yes(self.json_in(value, &is, zone)?));
                }
                true
            }
            ("to_timestamp", 2) => false,
            ("date_trunc", 2) if zoned(1) => {
                args.push(lit(zone));
                return Ok(Transformed::yes(self.call("date_trunc_in_session", args)?));
            }
            ("make_timestamptz", 6) => {
                let made = self.call("make_timestamp", args)?;
                let local = in_micros(&type_of(&made, schema));
                let made = self.cast_in(made, &local, &timestamptz(), zone)?;
                return Ok(Transformed::yes(made));
            }
            ("current_date" | "today", 0) => {
                let now = self.now()?;
                let today = self.cast_in(now, &timestamptz(), &DataType::Date32, zone)?;
                return Ok(Transformed::yes(today));
            }
            ("current_time", 0) => {
                let to = func.return_type(&[])?;
                let time = DataType::Time64(TimeUnit::Microsecond);
                let now = self.cast_in(self.now()?, &timestamptz(), &time, zone)?;
                return Ok(Transformed::yes(cast_to(now, &time, &to)));
            }
            _ => {
                let call = ScalarFunction { func, args };
                return self.of_any_type(call, schema, zone);
            }
        };
        if has_its_zone {
            let call = ScalarFunction { func, args };
            return Ok(Transformed::no(Expr::ScalarFunction(call)));
        }
        args.push(lit(zone));
        let call = ScalarFunction { func, args };
        Ok(Transformed::yes(Expr::ScalarFunction(call)))
    }

    /// `now()`, as a `timestamptz`.
    fn now(&self) -> Result<Expr> {
        self.call("now", Vec::new())
    }

    /// A function that takes what it is given as text, or as JSONB.
    fn of_any_type(
        &self,
        call: ScalarFunction,
        schema: &DFSchema,
        zone: &str,
    ) -> Result<Transformed<Expr>> {
        let ScalarFunction { func, args } = call;
        let unchanged = |args| {
            let call = ScalarFunction::new_udf(func.clone(), args);
            Ok(Transformed::no(Expr::ScalarFunction(call)))
        };
        if has_a_zone(func.name()) {
            return unchanged(args);
        }
        let types = args.iter().map(|a| type_of(a, schema)).collect::<Vec<_>>();
        if !types.iter().any(holds_zoned) {
            return unchanged(args);
        }
        let gives = Expr::ScalarFunction(ScalarFunction::new_udf(func.clone(), args.clone()))
            .get_type(schema)?;
        let json = gives == JSONB;
        if !json && !is_text(&gives) {
            return unchanged(args);
        }
        let args = args
            .into_iter()
            .zip(&types)
            .enumerate()
            .map(|(i, (arg, is))| {
                if !holds_zoned(is) {
                    return Ok(arg);
                }
                if !json {
                    return self.cast_in(arg, is, &text_of(is), zone);
                }
                let arg = self.json_in(arg, is, zone)?;
                // The names of an object are the texts that they have as values.
                if func.name() == "jsonb_build_object" && i % 2 == 0 {
                    return self.call("jsonb_extract_path_text", vec![arg]);
                }
                Ok(arg)
            })
            .collect::<Result<Vec<_>>>()?;
        let call = ScalarFunction::new_udf(func, args);
        Ok(Transformed::yes(Expr::ScalarFunction(call)))
    }

    /// The same of an aggregate.
    fn aggregate_in(
        &self,
        mut call: AggregateFunction,
        schema: &DFSchema,
        zone: &str,
    ) -> Result<Transformed<Expr>> {
        if !call.func.name().starts_with("json") {
            return Ok(Transformed::no(Expr::AggregateFunction(call)));
        }
        let mut changed = false;
        for arg in &mut call.params.args {
            let is = type_of(&arg, schema);
            if holds_zoned(&is) {
                *arg = self.json_in(std::mem::take(arg), &is, zone)?;
                changed = true;
            }
        }
        let call = Expr::AggregateFunction(call);
        Ok(Transformed::new_transformed(call, changed))
    }
}

/// The functions that this rule writes, and those of which the answer is the same everywhere.
fn has_a_zone(name: &str) -> bool {
    matches!(
        name,
        "cast_as"
            | "extract"
            | "extract_whole"
            | "extract_micros"
            | "date_part"
            | "to_char"
            | "to_jsonb"
            | "pg_typeof"
    )
}

/// What a value becomes for a function of texts: a list of them for a list.
fn text_of(data_type: &DataType) -> DataType {
    match data_type {
        DataType::List(field) => {
            let element = field.as_ref().clone();
            let text = text_of(field.data_type());
            DataType::List(element.with_data_type(text).into())
        }
        _ => DataType::Utf8,
    }
}

/// Refuses a window of days or months around moments: DataFusion counts them in UTC.
fn same_days(call: &WindowFunction, schema: &DFSchema) -> Result<()> {
    let frame = &call.params.window_frame;
    let days = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::Preceding(ScalarValue::IntervalMonthDayNano(Some(span)))
        | WindowFrameBound::Following(ScalarValue::IntervalMonthDayNano(Some(span))) => {
            span.months != 0 || span.days != 0
        }
        _ => false,
    };
    let moments = call
        .params
        .order_by
        .iter()
        .any(|sort| sort.expr.get_type(schema).is_ok_and(|t| is_zoned(&t)));
    if moments
        && frame.units == WindowFrameUnits::Range
        && (days(&frame.start_bound) || days(&frame.end_bound))
    {
        return Err(external(
            Error::unsupported(
                "RANGE with days or months over timestamp with time zone is not supported outside \
                 UTC",
            )
            .with_hint("SET TIME ZONE 'UTC', or order by a timestamp without time zone."),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Functions;
    use datafusion_expr::{
        ColumnarValue, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility, col,
    };
    use std::sync::Arc;

    /// A function of `operator`: `cast_as` has the type of its second argument, the others are
    /// moments.
    #[derive(Debug, PartialEq, Eq, Hash)]
    struct StandIn(&'static str, Signature);

    impl ScalarUDFImpl for StandIn {
        fn name(&self) -> &str {
            self.0
        }
        fn signature(&self) -> &Signature {
            &self.1
        }
        fn return_type(&self, types: &[DataType]) -> Result<DataType> {
            Ok(match self.0 {
                "cast_as" => types[1].clone(),
                _ => timestamptz(),
            })
        }
        fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
            not_impl_err!("{} is a stand-in", self.0)
        }
    }

    fn calls() -> Calls {
        let stand_in = |name| {
            let signature = Signature::variadic_any(Volatility::Immutable);
            Arc::new(ScalarUDF::from(StandIn(name, signature)))
        };
        let names = ["cast_as", "date_trunc", "date_trunc_in_session"];
        let sums = ["timestamptz_plus", "timestamptz_minus"];
        let scalar = names.into_iter().chain(sums).map(stand_in).collect();
        Calls::new(&Functions { scalar })
    }

    /// What the rule makes of an expression over `at timestamptz, local timestamp` in a zone, once
    /// and twice.
    fn in_zone(expr: Expr, zone: &str) -> (String, String) {
        let row = ScalarValue::try_from(timestamptz()).unwrap();
        let local = ScalarValue::TimestampMicrosecond(Some(0), None);
        let plan = LogicalPlanBuilder::empty(true)
            .project([lit(row).alias("at"), lit(local).alias("local")])
            .and_then(|b| b.project([expr])?.build())
            .unwrap();
        let mut options = ConfigOptions::default();
        options.extensions.insert(SessionZone(zone.into()));
        let rule = Zones(calls());
        let once = rule.analyze(plan, &options).unwrap();
        let twice = rule.analyze(once.clone(), &options).unwrap();
        let text = |plan: &LogicalPlan| plan.expressions()[0].clone().unalias().to_string();
        (text(&once), text(&twice))
    }

    #[test]
    fn what_depends_on_the_zone_has_its_name_once() {
        let days = |days| lit(ScalarValue::new_interval_mdn(0, days, 1_000_000_000));
        let day = vec![lit("day"), col("at")];
        let cases = [
            (cast(col("at"), DataType::Date32), true),
            (cast(col("at"), DataType::Utf8), true),
            (cast(col("local"), timestamptz()), true),
            (cast(col("local"), DataType::Utf8), false),
            (col("at") + days(1), true),
            (days(1) + col("at"), true),
            (col("at") - days(0), false),
            (col("local") + days(1), false),
            (calls().call("date_trunc", day).unwrap(), true),
        ];
        for (expr, depends) in cases {
            let plain = in_zone(expr.clone(), "UTC").0;
            let (once, twice) = in_zone(expr, "Asia/Tokyo");
            assert_eq!(once, twice, "the rule changes nothing twice");
            assert!(!plain.contains("Asia/Tokyo"));
            assert_eq!(
                once.matches("Asia/Tokyo").count(),
                usize::from(depends),
                "{once}"
            );
            assert_eq!(once == plain, !depends, "{once}");
        }
    }
}
