//! Values that are equal and still differ: `1.0` and `1.00`, `1 day` and `24 hours`, and arrays and
//! rows of them. What compares, groups, joins and sorts them goes by their `sort_key`:
//!
//! * comparisons of intervals, sort keys, window partitions, join keys, `IN (subquery)`;
//! * `GROUP BY x` groups by the key, and shows the least of the values of each group, in the order
//!   of their bytes: PostgreSQL shows any of them. DISTINCT is a GROUP BY of all columns;
//! * `count(DISTINCT x)` counts keys; `min` and `max` of intervals and arrays go through bytes that
//!   sort as they do, those of floats (ad hoc) leave NaN out and mind it afterwards.
//!
//! Comparisons of numerics are the business of [`super::numerics`]. The rule comes before type
//! coercion, and is idempotent: keys are values of another type.

use super::arrays::is_list;
use super::calls::Calls;
use super::collect::Collected;
use super::operands::is_compared;
use super::records::is_whole;
use super::typing::Typed;
use crate::error::external;
use crate::types::{BPCHAR, JSONB, UUID, is_numeric_bytes};
use arrow_schema::DataType;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::Transformed;
use datafusion_common::{Column, DFSchema, Result, ScalarValue};
use datafusion_expr::expr::{
    AggregateFunction, AggregateFunctionParams, Between, InList, InSubquery, SetComparison,
    Sort as SortExpr, WindowFunction, WindowFunctionParams,
};
use datafusion_expr::logical_plan::{
    Aggregate, Distinct, DistinctOn, Join, Sort, Subquery, Window,
};
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{
    AggregateUDF, BinaryExpr, Expr, LogicalPlan, LogicalPlanBuilder, Operator,
    WindowFunctionDefinition, lit, not,
};
use datafusion_functions_aggregate::count::count_udaf;
use datafusion_functions_aggregate::min_max::min_udaf;
use datafusion_optimizer::AnalyzerRule;
use std::sync::Arc;
use tidemark_common::Error;

/// The rule; and whether floats have keys, which they need where a query is read once.
#[derive(Debug)]
pub(super) struct Keyed(pub Calls, pub bool);

impl AnalyzerRule for Keyed {
    fn name(&self) -> &str {
        "keyed"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(super::rewrite_up(plan, &mut |node, below| self.node(node, below))?.data)
    }
}

/// The function that leaves NaN no sign.
const ONE_NAN: &str = "one_nan";

/// Whether an operator over floats that are no NaN may give one.
fn may_be_nan(op: Operator) -> bool {
    use Operator::{Divide, Minus, Modulo, Multiply, Plus};
    matches!(op, Plus | Minus | Multiply | Divide | Modulo)
}

fn is_one_nan(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func.name() == ONE_NAN)
}

/// Whether equal values of this type may differ.
pub(super) fn is_keyed(data_type: &DataType) -> bool {
    is_interval(data_type)
        || is_numeric_bytes(data_type)
        || *data_type == JSONB
        || *data_type == BPCHAR
        || is_list(data_type)
        || is_whole(data_type)
}

fn is_interval(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(_))
}

impl Keyed {
    fn node(&self, node: LogicalPlan, below: bool) -> Result<Transformed<LogicalPlan>> {
        let node = super::rewrite_node(node, below, |e, schema| self.expression(e, schema))?;
        node.transform_data(|node| match node {
            LogicalPlan::Sort(sort) => self.sort(sort),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Window(window) => windows(window),
            LogicalPlan::Distinct(Distinct::All(input)) => self.distinct(input),
            LogicalPlan::Distinct(Distinct::On(on)) => self.distinct_on(on),
            other => Ok(Transformed::no(other)),
        })
    }

    /// The key of a value, if its type has keys. Floats have them in ad-hoc queries: the zeros are
    /// equal there, and so are all NaNs.
    pub(super) fn key(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        if self.1 && self.is_float(&expr, schema) {
            return Ok(Transformed::yes(self.0.call("range_key", vec![expr])?));
        }
        if expr.get_type(schema).is_ok_and(|t| is_keyed(&t)) {
            Ok(Transformed::yes(self.0.sort_key(expr)?))
        } else {
            Ok(Transformed::no(expr))
        }
    }

    /// Whether a value is a float, and no key of one.
    fn is_float(&self, expr: &Expr, schema: &DFSchema) -> bool {
        let is_key = matches!(expr, Expr::ScalarFunction(f) if f.func.name() == "range_key");
        !is_key && expr.get_type(schema).is_ok_and(|t| t.is_floating())
    }

    /// Whether constants that a value is compared with are looked up by their bits.
    fn looks_floats_up(&self, value: &Expr, schema: &DFSchema) -> bool {
        self.is_float(value, schema)
    }

    /// The key by which a value is looked up among constants.
    fn looked_up(&self, value: Expr, schema: &DFSchema) -> Result<Expr> {
        if self.is_float(&value, schema) {
            return self.0.call("range_key", vec![value]);
        }
        Ok(self.key(value, schema)?.data)
    }

    fn keys(&self, exprs: Vec<Expr>, schema: &DFSchema) -> Result<Transformed<Vec<Expr>>> {
        let mut changed = false;
        let keys = exprs
            .into_iter()
            .map(|e| {
                let key = self.key(e, schema)?;
                changed |= key.transformed;
                Ok(key.data)
            })
            .collect::<Result<_>>()?;
        Ok(Transformed::new_transformed(keys, changed))
    }

    fn order(&self, order: Vec<SortExpr>, schema: &DFSchema) -> Result<Transformed<Vec<SortExpr>>> {
        let mut changed = false;
        let order = order
            .into_iter()
            .map(|sort| {
                let key = self.key(sort.expr, schema)?;
                changed |= key.transformed;
                Ok(SortExpr::new(key.data, sort.asc, sort.nulls_first))
            })
            .collect::<Result<_>>()?;
        Ok(Transformed::new_transformed(order, changed))
    }

    fn expression(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        if let Some(expr) = self.of_floats(&expr, schema)? {
            return Ok(Transformed::yes(expr));
        }
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right })
                if is_compared(op) && by_key(&[&left, &right], schema) =>
            {
                Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(
                    Box::new(self.key(*left, schema)?.data),
                    op,
                    Box::new(self.key(*right, schema)?.data),
                ))))
            }
            Expr::Between(b) if by_key(&[&b.expr, &b.low, &b.high], schema) => {
                Ok(Transformed::yes(Expr::Between(Between::new(
                    Box::new(self.key(*b.expr, schema)?.data),
                    b.negated,
                    Box::new(self.key(*b.low, schema)?.data),
                    Box::new(self.key(*b.high, schema)?.data),
                ))))
            }
            Expr::InList(list)
                if by_key(&[&list.expr], schema) || self.looks_floats_up(&list.expr, schema) =>
            {
                let items = list.list.into_iter().map(|e| self.looked_up(e, schema));
                Ok(Transformed::yes(Expr::InList(InList::new(
                    Box::new(self.looked_up(*list.expr, schema)?),
                    items.collect::<Result<_>>()?,
                    list.negated,
                ))))
            }
            Expr::Case(mut case) => {
                let keyed = |value: &mut Box<Expr>| {
                    by_key(&[value], schema) || self.looks_floats_up(value, schema)
                };
                let Some(value) = case.expr.take_if(keyed) else {
                    return Ok(Transformed::no(Expr::Case(case)));
                };
                case.expr = Some(Box::new(self.looked_up(*value, schema)?));
                for (when, _) in &mut case.when_then_expr {
                    **when = self.looked_up(std::mem::take(when.as_mut()), schema)?;
                }
                Ok(Transformed::yes(Expr::Case(case)))
            }
            Expr::InSubquery(i) => self.in_subquery(i, schema),
            Expr::SetComparison(set) => match self.keyed_pair(&set.expr, &set.subquery, schema)? {
                Some((expr, subquery)) => {
                    Ok(Transformed::yes(Expr::SetComparison(SetComparison {
                        expr: Box::new(expr),
                        subquery,
                        ..set
                    })))
                }
                None => Ok(Transformed::no(Expr::SetComparison(set))),
            },
            Expr::AggregateFunction(call) => self.whole_call(call, schema),
            Expr::WindowFunction(call) => self.window(*call, schema),
            other => Ok(Transformed::no(other)),
        }
    }

    /// Arithmetic over floats gives one NaN, whose sign nothing that compares or groups has to
    /// mind.
    fn of_floats(&self, expr: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
        let computed = match expr {
            Expr::BinaryExpr(binary) => may_be_nan(binary.op),
            Expr::Negative(_) => true,
            // This rule runs again over what it has made.
            Expr::ScalarFunction(call) if call.func.name() == ONE_NAN => {
                let inner = call.args.first();
                return Ok(inner.filter(|e| is_one_nan(e)).cloned());
            }
            _ => false,
        };
        if !computed || !expr.get_type(schema).is_ok_and(|t| t.is_floating()) {
            return Ok(None);
        }
        self.0.call(ONE_NAN, vec![expr.clone()]).map(Some)
    }

    /// An aggregate, or the function of aggregates that it is.
    fn whole_call(&self, call: AggregateFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let renamed = self.0.renamed(call, schema)?;
        let changed = renamed.transformed;
        match self.0.collected(renamed.data, schema)? {
            Collected::Whole(mut whole) => {
                whole.transformed |= changed;
                whole.transform_data(|call| self.call(call, schema))
            }
            Collected::Of(name, parts, constants) => {
                let parts = parts.into_iter().map(|p| Ok(self.call(p, schema)?.data));
                let mut args = parts.collect::<Result<Vec<_>>>()?;
                args.extend(constants);
                Ok(Transformed::yes(self.0.call(name, args)?))
            }
        }
    }

    /// `x IN (SELECT y ..)` as `key(x) IN (SELECT key(y) ..)`.
    fn in_subquery(&self, i: InSubquery, schema: &DFSchema) -> Result<Transformed<Expr>> {
        match self.keyed_pair(&i.expr, &i.subquery, schema)? {
            Some((expr, subquery)) => Ok(Transformed::yes(Expr::InSubquery(InSubquery {
                expr: Box::new(expr),
                subquery,
                negated: i.negated,
            }))),
            None => Ok(Transformed::no(Expr::InSubquery(i))),
        }
    }

    /// A value and the column of a subquery that it is compared with, as keys.
    fn keyed_pair(
        &self,
        expr: &Expr,
        subquery: &Subquery,
        schema: &DFSchema,
    ) -> Result<Option<(Expr, Subquery)>> {
        let inner = subquery.subquery.schema();
        let (Ok(outer), [_]) = (expr.get_type(schema), inner.fields().as_ref()) else {
            return Ok(None);
        };
        let column_type = inner.field(0).data_type().clone();
        if !is_keyed(&outer) && !is_keyed(&column_type) {
            return Ok(None);
        }
        let numerics = is_numeric_bytes(&outer) || is_numeric_bytes(&column_type);
        // `char(n)` beside a text is a text.
        let texts = outer == DataType::Utf8 || column_type == DataType::Utf8;
        if !numerics && !texts && outer != column_type {
            return Ok(None);
        }
        let key = |value: Expr, t: &DataType| {
            if texts {
                self.0.convert(value, t, &DataType::Utf8)
            } else if numerics && !is_numeric_bytes(t) {
                self.0.sort_key(self.0.cast(value, &crate::types::NUMERIC)?)
            } else {
                self.0.sort_key(value)
            }
        };
        let column = Expr::Column(Column::from(inner.qualified_field(0)));
        let plan = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone())
            .project([key(column, &column_type)?])?
            .build()?;
        let subquery = Subquery {
            subquery: Arc::new(plan),
            ..subquery.clone()
        };
        Ok(Some((key(expr.clone(), &outer)?, subquery)))
    }

    /// `count(DISTINCT x)` counts keys; extremes of intervals go through bytes; ORDER BY within an
    /// aggregate goes by keys. What is computed of doubles is given doubles.
    fn call(&self, call: AggregateFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let AggregateFunction { func, mut params } = call;
        let mut changed = self.as_doubles(func.name(), &mut params, schema)?;
        let looks = self.order_by_looks(func.name(), &params, schema)?;
        // What is collected with DISTINCT is ordered by itself.
        if !(params.distinct && func.name() == "array_agg") {
            let order = self.order(std::mem::take(&mut params.order_by), schema)?;
            changed |= order.transformed;
            params.order_by = order.data;
        }
        changed |= without_needless_order(func.name(), &mut params);
        if let Some(looks) = looks {
            changed = true;
            let first = params.order_by.first().cloned();
            let value = params.args.first().cloned().unwrap_or_default();
            let key = first.map_or_else(|| self.ascending_key(value), Ok)?;
            params.order_by = vec![key, SortExpr::new(looks, true, false)];
        }
        match func.name() {
            "array_agg" if params.distinct => {
                let mut order: Vec<Expr> = params.order_by.iter().map(|s| s.expr.clone()).collect();
                changed |= self.one_zero(&mut params.args, schema);
                changed |= self.one_zero(&mut order, schema);
                for (sort, expr) in params.order_by.iter_mut().zip(order) {
                    sort.expr = expr;
                }
            }
            "count" if params.distinct => {
                let keys = self.keys(std::mem::take(&mut params.args), schema)?;
                changed |= keys.transformed;
                params.args = keys.data;
            }
            "min" | "max" if params.args.len() == 1 => {
                let value = params.args.remove(0);
                let data_type = value.get_type(schema)?;
                if self.1 && data_type.is_floating() {
                    params.args = vec![value];
                    return self.float_extreme(AggregateFunction { func, params }, changed);
                }
                let through = has_byte_form(&data_type);
                params.args = vec![if through {
                    self.bytes(value, &data_type)?
                } else {
                    value
                }];
                let extreme = Expr::AggregateFunction(AggregateFunction { func, params });
                return Ok(if through {
                    Transformed::yes(self.of_bytes(extreme, &data_type)?)
                } else {
                    Transformed::new_transformed(extreme, changed)
                });
            }
            _ => {}
        }
        Ok(Transformed::new_transformed(
            Expr::AggregateFunction(AggregateFunction { func, params }),
            changed,
        ))
    }

    fn ascending_key(&self, value: Expr) -> Result<SortExpr> {
        Ok(SortExpr::new(self.0.sort_key(value)?, true, false))
    }

    /// The arguments of functions of doubles that are numerics, as doubles; tells whether there
    /// were such.
    fn as_doubles(
        &self,
        function: &str,
        params: &mut AggregateFunctionParams,
        schema: &DFSchema,
    ) -> Result<bool> {
        let args = match function {
            "percentile_cont" => params.args.get_mut(..1).unwrap_or_default(),
            name if name.starts_with("regr_") || name.starts_with("covar_") || name == "corr" => {
                params.args.as_mut_slice()
            }
            _ => return Ok(false),
        };
        let mut changed = false;
        for arg in args {
            let data_type = arg.get_type(schema)?;
            if is_numeric_bytes(&data_type) || data_type.is_decimal() {
                let value = std::mem::take(arg);
                let double = self.0.cast(value.clone(), &DataType::Float64)?;
                for sort in params.order_by.iter_mut().filter(|s| s.expr == value) {
                    sort.expr = double.clone();
                }
                *arg = double;
                changed = true;
            }
        }
        Ok(changed)
    }

    /// What equal values are ordered by, where which of them comes first is seen, and is to depend
    /// on the values alone; nothing where that is settled. Ad hoc, ordered sets know it themselves.
    fn order_by_looks(
        &self,
        function: &str,
        params: &AggregateFunctionParams,
        schema: &DFSchema,
    ) -> Result<Option<Expr>> {
        let shows_one = match function {
            "mode" | "percentile_disc" | "percentile_cont" => !self.1 && params.order_by.len() == 1,
            "sum" | "avg" | "var" | "var_pop" | "stddev" | "stddev_pop" => {
                params.distinct && params.order_by.len() < 2
            }
            _ => false,
        };
        match params.args.first() {
            Some(value) if shows_one => self.0.looks(value, schema),
            _ => Ok(None),
        }
    }

    /// Floats that are collected once each have no zero below zero.
    fn one_zero(&self, args: &mut [Expr], schema: &DFSchema) -> bool {
        let is_sum = |e: &Expr| matches!(e, Expr::BinaryExpr(b) if b.op == Operator::Plus);
        let mut changed = false;
        for arg in args {
            let zero = match arg.get_type(schema) {
                Ok(DataType::Float64) => lit(0.0f64),
                Ok(DataType::Float32) => lit(0.0f32),
                _ => continue,
            };
            let seen = match &*arg {
                Expr::ScalarFunction(call) if is_one_nan(arg) => call.args.iter().any(is_sum),
                other => is_sum(other),
            };
            // A sum is no zero below zero unless both its parts are.
            if !seen {
                *arg = std::mem::take(arg) + zero;
                changed = true;
            }
        }
        changed
    }

    /// The extreme of the floats that are numbers, and how many are not: NaN is above all of them,
    /// which DataFusion's own minds in some places and not in others.
    fn float_extreme(&self, call: AggregateFunction, changed: bool) -> Result<Transformed<Expr>> {
        let is_nan = |e: &Expr| match e {
            Expr::ScalarFunction(f) => f.func.name() == "is_nan",
            Expr::Not(e) => matches!(e.as_ref(), Expr::ScalarFunction(f)
                if f.func.name() == "is_nan"),
            _ => false,
        };
        let filters = call.params.filter.iter().flat_map(|f| split_conjunction(f));
        if filters.into_iter().any(is_nan) {
            return Ok(Transformed::new_transformed(
                Expr::AggregateFunction(call),
                changed,
            ));
        }
        let nan = self.0.call("is_nan", call.params.args.clone())?;
        let filtered = |condition: Expr| match &call.params.filter {
            Some(filter) => Some(Box::new(filter.as_ref().clone().and(condition))),
            None => Some(Box::new(condition)),
        };
        let name = format!("float_{}", call.func.name());
        let mut numbers = call.clone();
        numbers.params.filter = filtered(not(nan.clone()));
        let mut others = call.clone();
        others.func = count_udaf();
        others.params.distinct = false;
        others.params.filter = filtered(nan);
        let parts = [numbers, others].map(Expr::AggregateFunction);
        Ok(Transformed::yes(self.0.call(&name, parts.to_vec())?))
    }

    /// An interval, an array or a row as bytes that begin with its key.
    fn bytes(&self, value: Expr, data_type: &DataType) -> Result<Expr> {
        let name = if is_list(data_type) || is_whole(data_type) {
            "array_bytes"
        } else {
            "interval_bytes"
        };
        self.0.call(name, vec![value])
    }

    /// The interval, array or row of such bytes.
    fn of_bytes(&self, bytes: Expr, data_type: &DataType) -> Result<Expr> {
        if is_list(data_type) || is_whole(data_type) {
            let null = lit(ScalarValue::try_from(data_type)?);
            self.0.call("array_of_bytes", vec![bytes, null])
        } else {
            self.0.call("interval_of_bytes", vec![bytes])
        }
    }

    fn window(&self, call: WindowFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let WindowFunction { fun, mut params } = call;
        let partition = self.keys(std::mem::take(&mut params.partition_by), schema)?;
        let mut changed = partition.transformed;
        params.partition_by = partition.data;
        changed |= self.0.range_frame(&mut params, schema)?;
        for sort in &mut params.order_by {
            let float = self.is_float(&sort.expr, schema);
            let key = self.key(std::mem::take(&mut sort.expr), schema)?;
            changed |= key.transformed;
            let expr = key.data;
            sort.expr = if key.transformed && !float {
                self.0.call("sort_text", vec![expr])?
            } else {
                let is = expr.get_type(schema)?;
                changed |= matches!(is, DataType::Time64(_) | DataType::Binary) || is == UUID;
                match is {
                    // DataFusion moves no frame over these.
                    DataType::Time64(_) => self.0.call("range_key", vec![expr])?,
                    DataType::Binary => self.0.call("sort_text", vec![expr])?,
                    is if is == UUID => self.0.convert(expr, &UUID, &DataType::Utf8)?,
                    _ => expr,
                }
            };
        }
        super::frames::check_counts(fun.name(), &params.args, schema)?;
        let WindowFunctionDefinition::AggregateUDF(func) = fun else {
            let call = Box::new(WindowFunction { fun, params });
            return Ok(Transformed::new_transformed(
                Expr::WindowFunction(call),
                changed,
            ));
        };
        let aggregate = AggregateFunction::new_udf(
            func,
            std::mem::take(&mut params.args),
            params.distinct,
            params.filter.take(),
            Vec::new(),
            params.null_treatment,
        );
        let over = |call: AggregateFunction| {
            let fun = WindowFunctionDefinition::AggregateUDF(call.func);
            let params = WindowFunctionParams {
                args: call.params.args,
                filter: call.params.filter,
                ..params.clone()
            };
            Expr::WindowFunction(Box::new(WindowFunction { fun, params }))
        };
        let (name, distinct) = (aggregate.func.name().to_string(), params.distinct);
        let whole = self.whole_call(aggregate, schema)?;
        // A window has no such order of its own.
        if let Expr::AggregateFunction(call) = &whole.data
            && (!call.params.order_by.is_empty() || call.params.distinct != distinct)
        {
            let message = format!("{name}() over a window is not supported");
            return Err(external(Error::unsupported(message)));
        }
        let data = match whole.data {
            Expr::AggregateFunction(call) => over(call),
            Expr::ScalarFunction(mut above) => {
                for arg in &mut above.args {
                    if let Expr::AggregateFunction(call) = arg {
                        *arg = over(call.clone());
                    }
                }
                Expr::ScalarFunction(above)
            }
            other => other,
        };
        Ok(Transformed::new_transformed(
            data,
            changed || whole.transformed,
        ))
    }

    fn sort(&self, sort: Sort) -> Result<Transformed<LogicalPlan>> {
        let Sort { expr, input, fetch } = sort;
        let order = self.order(expr, input.schema())?;
        let changed = order.transformed;
        Ok(Transformed::new_transformed(
            LogicalPlan::Sort(Sort {
                expr: order.data,
                input,
                fetch,
            }),
            changed,
        ))
    }

    /// Pairs of join keys; where one side is a numeric, the other becomes one.
    fn join(&self, mut join: Join) -> Result<Transformed<LogicalPlan>> {
        let mut changed = false;
        for (left, right) in &mut join.on {
            let types = (
                left.get_type(join.left.schema())?,
                right.get_type(join.right.schema())?,
            );
            if !is_keyed(&types.0) && !is_keyed(&types.1) {
                continue;
            }
            let numerics = is_numeric_bytes(&types.0) || is_numeric_bytes(&types.1);
            let key = |e: &mut Expr, t: &DataType| -> Result<()> {
                let mut value = std::mem::take(e);
                if numerics && !is_numeric_bytes(t) {
                    value = self.0.cast(value, &crate::types::NUMERIC)?;
                }
                *e = self.0.sort_key(value)?;
                Ok(())
            };
            key(left, &types.0)?;
            key(right, &types.1)?;
            changed = true;
        }
        Ok(Transformed::new_transformed(
            LogicalPlan::Join(join),
            changed,
        ))
    }

    /// Groups by keys, with a representative for each group expression that has one; calls whose
    /// result is a function of aggregates (`interval_of_bytes(min(..))`) are taken apart: the
    /// aggregates stay, the function goes above them.
    fn aggregate(&self, aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
        let input = aggregate.input.schema().clone();
        let keyed = |e: &Expr| e.get_type(&input).is_ok_and(|t| is_keyed(&t));
        let in_sets = |e: &Expr| match e {
            Expr::GroupingSet(sets) => sets.distinct_expr().iter().any(|e| keyed(e)),
            _ => false,
        };
        if aggregate.group_expr.iter().any(in_sets) {
            return Err(external(Error::unsupported(
                "GROUPING SETS, ROLLUP and CUBE over what is computed as a numeric, an interval, \
                 jsonb, char(n), an array, a row or a map are not supported",
            )));
        }
        let is_call = |e: &Expr| matches!(e.clone().unalias(), Expr::AggregateFunction(_));
        if !aggregate.group_expr.iter().any(keyed) && aggregate.aggr_expr.iter().all(is_call) {
            return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
        }
        let schema = aggregate.schema.clone();
        // What is grouped by twice is one column.
        let mut group_expr: Vec<&Expr> = Vec::with_capacity(aggregate.group_expr.len());
        for expr in &aggregate.group_expr {
            if !group_expr.contains(&expr) {
                group_expr.push(expr);
            }
        }
        let (mut groups, mut calls, mut shown) = (Vec::new(), Vec::new(), Vec::new());
        let mut outputs = Vec::new();
        for (i, expr) in group_expr.iter().copied().enumerate() {
            let (qualifier, field) = schema.qualified_field(i);
            if !keyed(expr) {
                groups.push(expr.clone());
                outputs.push(Expr::Column(Column::from((qualifier, field))));
                continue;
            }
            let key = self.0.sort_key(expr.clone())?;
            groups.push(key.alias(format!("__key_{i}")));
            let name = format!("__shown_{i}");
            let mut bytes = expr.clone().unalias();
            let mut output = Expr::Column(Column::from_name(name.clone()));
            let data_type = expr.get_type(&input)?;
            if has_byte_form(&data_type) {
                bytes = self.bytes(bytes, &data_type)?;
                output = self.of_bytes(output, &data_type)?;
            }
            shown.push(least(bytes).alias(name));
            outputs.push(output.alias_qualified(qualifier.cloned(), field.name()));
        }
        // Grouping sets have a column for each of their expressions, and their number.
        let width = schema.fields().len() - aggregate.aggr_expr.len();
        for i in group_expr.len()..width {
            outputs.push(Expr::Column(Column::from(schema.qualified_field(i))));
        }
        outputs.extend(taken_apart(
            &aggregate.aggr_expr,
            &schema,
            width,
            &mut calls,
        ));
        calls.append(&mut shown);
        let below = Aggregate::try_new(aggregate.input, groups, calls)?;
        let plan = LogicalPlanBuilder::from(LogicalPlan::Aggregate(below))
            .project(outputs)?
            .build()?;
        Ok(Transformed::yes(plan))
    }

    fn distinct(&self, input: Arc<LogicalPlan>) -> Result<Transformed<LogicalPlan>> {
        let schema = input.schema().clone();
        if !schema.fields().iter().any(|f| is_keyed(f.data_type())) {
            return Ok(Transformed::no(LogicalPlan::Distinct(Distinct::All(input))));
        }
        let columns = (0..schema.fields().len())
            .map(|i| Expr::Column(Column::from(schema.qualified_field(i))))
            .collect();
        self.aggregate(Aggregate::try_new(input, columns, Vec::new())?)
    }

    fn distinct_on(&self, on: DistinctOn) -> Result<Transformed<LogicalPlan>> {
        let schema = on.input.schema().clone();
        let keys = self.keys(on.on_expr, &schema)?;
        let mut changed = keys.transformed;
        let sort_expr = match on.sort_expr {
            Some(order) => {
                let order = self.order(order, &schema)?;
                changed |= order.transformed;
                Some(order.data)
            }
            None => None,
        };
        Ok(Transformed::new_transformed(
            LogicalPlan::Distinct(Distinct::On(DistinctOn {
                on_expr: keys.data,
                sort_expr,
                ..on
            })),
            changed,
        ))
    }
}

/// Calls whose result is a function of calls, taken apart: the inner calls go to `calls`; answers
/// the columns above. In `schema`, the first is at `at`.
fn taken_apart(exprs: &[Expr], schema: &DFSchema, at: usize, calls: &mut Vec<Expr>) -> Vec<Expr> {
    let mut outputs = Vec::with_capacity(exprs.len());
    for (i, expr) in exprs.iter().enumerate() {
        let (qualifier, field) = schema.qualified_field(at + i);
        let Expr::ScalarFunction(mut above) = expr.clone().unalias() else {
            outputs.push(match known_call(calls, &expr.clone().unalias()) {
                Some(column) => {
                    Expr::Column(column).alias_qualified(qualifier.cloned(), field.name())
                }
                None => {
                    calls.push(expr.clone());
                    Expr::Column(Column::from((qualifier, field)))
                }
            });
            continue;
        };
        for (n, arg) in above.args.iter_mut().enumerate() {
            if matches!(arg, Expr::AggregateFunction(_) | Expr::WindowFunction(_)) {
                let known = known_call(calls, arg);
                let is_known = known.is_some();
                let name = format!("__part_{i}_{n}");
                let column = known.unwrap_or_else(|| Column::from_name(name.clone()));
                let call = std::mem::replace(arg, Expr::Column(column));
                if !is_known {
                    calls.push(call.alias(name));
                }
            }
        }
        let output = Expr::ScalarFunction(above);
        outputs.push(output.alias_qualified(qualifier.cloned(), field.name()));
    }
    outputs
}

/// The column of a call that is among these. One call is computed once: in a window, DataFusion
/// takes equal ones for common subexpressions, which it cannot evaluate there.
fn known_call(calls: &[Expr], call: &Expr) -> Option<Column> {
    calls.iter().find_map(|known| match known {
        Expr::Alias(alias) if *alias.expr == *call => {
            Some(Column::new(alias.relation.clone(), &alias.name))
        }
        other if other == call => {
            let (relation, name) = other.qualified_name();
            Some(Column::new(relation, name))
        }
        _ => None,
    })
}

/// Window functions whose result is a function of such (`joined_list(array_agg(..) OVER ..)`),
/// taken apart.
fn windows(window: Window) -> Result<Transformed<LogicalPlan>> {
    let whole = |e: &Expr| matches!(e.clone().unalias(), Expr::WindowFunction(_));
    if window.window_expr.iter().all(whole) {
        return Ok(Transformed::no(LogicalPlan::Window(window)));
    }
    let (schema, width) = (&window.schema, window.input.schema().fields().len());
    let kept = (0..width).map(|i| Expr::Column(Column::from(schema.qualified_field(i))));
    let (mut calls, mut outputs) = (Vec::new(), kept.collect::<Vec<_>>());
    outputs.extend(taken_apart(&window.window_expr, schema, width, &mut calls));
    let below = Window::try_new(calls, window.input.clone())?;
    let plan = LogicalPlanBuilder::from(LogicalPlan::Window(below))
        .project(outputs)?
        .build()?;
    Ok(Transformed::yes(plan))
}

/// Leaves out what an aggregate's rows are ordered by in vain: all of it where their order is not
/// seen, and what is there twice; tells whether there was such.
fn without_needless_order(function: &str, params: &mut AggregateFunctionParams) -> bool {
    let sorts = params.order_by.len();
    let seen = matches!(
        function,
        "array_agg" | "first_value" | "last_value" | "nth_value" | "mode"
    ) || function.contains("percentile");
    if !seen && !params.distinct {
        params.order_by.clear();
    }
    let mut kept: Vec<SortExpr> = Vec::with_capacity(sorts);
    for sort in std::mem::take(&mut params.order_by) {
        if kept.iter().all(|k| k.expr != sort.expr) {
            kept.push(sort);
        }
    }
    params.order_by = kept;
    params.order_by.len() < sorts
}

/// Whether values are shown by way of bytes that sort as they do.
fn has_byte_form(data_type: &DataType) -> bool {
    is_interval(data_type) || is_list(data_type) || is_whole(data_type)
}

/// Whether one of these is compared by its key, numerics apart.
fn by_key(exprs: &[&Expr], schema: &DFSchema) -> bool {
    let has_key = |e: &Expr| {
        e.get_type(schema)
            .is_ok_and(|t| is_keyed(&t) && !is_numeric_bytes(&t))
    };
    exprs.iter().any(|e| has_key(e))
}

fn least(value: Expr) -> Expr {
    let min: Arc<AggregateUDF> = min_udaf();
    Expr::AggregateFunction(AggregateFunction::new_udf(
        min,
        vec![value],
        false,
        None,
        Vec::new(),
        None,
    ))
}
