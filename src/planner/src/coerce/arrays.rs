//! Arrays: their operators, constructor and subscripts are calls of functions, whose arguments are
//! brought to one type of elements here.
//!
//! * `a || b` appends, prepends or joins, `a @> b`, `a <@ b` and `a && b` ask what is in both,
//!   `a[i]` and `a[i:j]` take elements out, `ARRAY[..]` puts them in;
//! * a quoted constant beside an array, or beside its elements, takes the type that is wanted
//!   there; what has a type of its own takes another one only as PostgreSQL's values do by
//!   themselves: numbers become wider, dates become timestamps;
//! * `(row).field` is one of a row's fields ([`super::records`]);
//! * arrays compare with arrays of the same elements only, rows with rows;
//! * the greatest and the least of arrays go by PostgreSQL's order.
//!
//! What is bound keeps the types that it has at binding; [`Arrays`] casts when the types are final,
//! and is idempotent. Comparison, grouping and sorting themselves are the business of
//! [`super::keyed`].

use super::calls::Calls;
use super::numerics::{DISTINCT, NOT_DISTINCT};
use super::operands::is_compared;
use super::records::{holds_record, is_record, is_whole};
use super::typing::Typed;
use crate::error::external;
use crate::names::FIELD;
use crate::signatures::{Arg, type_text, unmatched};
use crate::types::{JSONB, NUMERIC, sql_type_name, united};
use arrow_schema::{DataType, Field};
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::Transformed;
use datafusion_common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion_expr::expr::{Case, InList, ScalarFunction};
use datafusion_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr, RawFieldAccessExpr};
use datafusion_expr::{BinaryExpr, Expr, GetFieldAccess, LogicalPlan, Operator, ScalarUDF, lit};
use datafusion_optimizer::AnalyzerRule;
use datafusion_sql::sqlparser::ast::BinaryOperator;
use std::sync::Arc;
use tidemark_common::{Error, SqlState};
use tidemark_plan::messages::is_anonymous;

/// Functions whose arguments are arrays, elements and numbers, as they say themselves.
const FUNCTIONS: [&str; 23] = [
    "array_append",
    "array_cat",
    "array_contains",
    "array_dims",
    "array_fill",
    "array_length",
    "array_lower",
    "array_ndims",
    "array_overlaps",
    "array_position",
    "array_positions",
    "array_prepend",
    "array_remove",
    "array_replace",
    "array_subscript",
    "array_subscripts",
    "array_to_string",
    "array_upper",
    "cardinality",
    "make_array",
    "series_list",
    "subscripts_list",
    "trim_array",
];

/// Those of them whose arguments are, or are elements of, one type.
const UNITING: [&str; 11] = [
    "array_append",
    "array_cat",
    "array_contains",
    "array_overlaps",
    "array_position",
    "array_positions",
    "array_prepend",
    "array_remove",
    "array_replace",
    "make_array",
    "series_list",
];

/// Comparisons, and the functions that they are.
const COMPARISONS: [(BinaryOperator, &str, Operator); 6] = [
    (BinaryOperator::Eq, "array_eq", Operator::Eq),
    (BinaryOperator::NotEq, "array_ne", Operator::NotEq),
    (BinaryOperator::Lt, "array_lt", Operator::Lt),
    (BinaryOperator::LtEq, "array_le", Operator::LtEq),
    (BinaryOperator::Gt, "array_gt", Operator::Gt),
    (BinaryOperator::GtEq, "array_ge", Operator::GtEq),
];

/// Binds the operators.
#[derive(Debug)]
pub(crate) struct ArrayPlanner(pub Calls);

impl ExprPlanner for ArrayPlanner {
    fn plan_struct_literal(
        &self,
        args: Vec<Expr>,
        _is_named_struct: bool,
    ) -> Result<PlannerResult<Vec<Expr>>> {
        self.0.call("struct", args).map(PlannerResult::Planned)
    }

    fn plan_make_map(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        if args.is_empty() {
            let error = Error::user(SqlState("42P18"), "cannot determine type of empty map");
            return Err(external(error.with_hint(
                "Cast a text to the type, for example '{}'::MAP(varchar, integer).",
            )));
        }
        let args = args.into_iter().map(super::literals::narrowed).collect();
        Ok(PlannerResult::Planned(self.0.call("make_map", args)?))
    }

    fn plan_binary_op(
        &self,
        raw: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        use BinaryOperator::{ArrowAt, AtArrow, PGOverlap, StringConcat};
        super::wanted()?;
        let comparison = COMPARISONS.iter().find(|(op, ..)| *op == raw.op);
        let distinct = matches!(&raw.op, BinaryOperator::Custom(op)
            if *op == DISTINCT || *op == NOT_DISTINCT);
        let ours = matches!(raw.op, ArrowAt | AtArrow | PGOverlap | StringConcat);
        if comparison.is_none() && !distinct && !ours {
            return Ok(PlannerResult::Original(raw));
        }
        // What has no type is an error of its own, told when types are final.
        let types = (raw.left.get_type(schema), raw.right.get_type(schema));
        let (Ok(left), Ok(right)) = types else {
            return Ok(PlannerResult::Original(raw));
        };
        if distinct {
            return match is_whole(&left) != is_whole(&right) {
                true => self.with_whole(raw, &left, &right),
                false => Ok(PlannerResult::Original(raw)),
            };
        }
        if comparison.is_some() && (is_whole(&left) || is_whole(&right)) {
            return self.compared_records(raw, &left, &right);
        }
        if !is_list(&left) && !is_list(&right) {
            return Ok(PlannerResult::Original(raw));
        }
        let whole = |e: &Expr, t: &DataType| is_list(t) || is_untyped(e, t);
        let both = whole(&raw.left, &left) && whole(&raw.right, &right);
        if let Some((_, name, _)) = comparison {
            if !both {
                let sides = [(&raw.left, &left), (&raw.right, &right)];
                return Err(no_operator(&raw.op, sides));
            }
            if same(&left, &right) {
                return Ok(PlannerResult::Original(raw));
            }
            // They come to one type when their types are final.
            let call = self.0.call(name, vec![raw.left, raw.right])?;
            return Ok(PlannerResult::Planned(call));
        }
        let mut args = vec![raw.left, raw.right];
        if holds_record(&left) && holds_record(&right) {
            self.named(&mut args, &[left.clone(), right.clone()])?;
        }
        let planned = match raw.op {
            AtArrow => self.0.call("array_contains", args),
            ArrowAt => self
                .0
                .call("array_contains", args.into_iter().rev().collect()),
            PGOverlap => self.0.call("array_overlaps", args),
            _ if both => self.0.call("array_cat", args),
            _ if is_list(&left) => self.0.call("array_append", args),
            _ => self.0.call("array_prepend", args),
        };
        Ok(PlannerResult::Planned(planned?))
    }

    fn plan_array_literal(
        &self,
        exprs: Vec<Expr>,
        schema: &DFSchema,
    ) -> Result<PlannerResult<Vec<Expr>>> {
        if exprs.iter().any(|e| type_is_list(e, schema)) {
            return Err(multidimensional());
        }
        if exprs.is_empty() {
            let message = "cannot determine type of empty array";
            let error = Error::user(SqlState("42P18"), message);
            return Err(external(error.with_hint(
                "Explicitly cast to the desired type, for example ARRAY[]::integer[].",
            )));
        }
        let exprs = exprs.into_iter().map(super::literals::narrowed).collect();
        Ok(PlannerResult::Planned(self.0.call("make_array", exprs)?))
    }

    fn plan_field_access(
        &self,
        raw: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let RawFieldAccessExpr { expr, field_access } = raw;
        let data_type = expr.get_type(schema)?;
        if let GetFieldAccess::ListIndex { key } = &field_access
            && is_list(&data_type)
        {
            let index = key.get_type(schema)?;
            if !is_untyped(key, &index) && !index.is_numeric() && index != NUMERIC {
                let message = "array subscript must have type integer";
                return Err(external(Error::user(SqlState::DATATYPE_MISMATCH, message)));
            }
        }
        if data_type == JSONB && matches!(field_access, GetFieldAccess::ListRange { .. }) {
            let message = "jsonb subscript does not support slices";
            return Err(external(Error::user(SqlState::DATATYPE_MISMATCH, message)));
        }
        if let GetFieldAccess::NamedStructField {
            name: ScalarValue::Utf8(Some(name)),
        } = &field_access
            && let Some(name) = name.strip_prefix(FIELD)
        {
            let field = self.0.field(expr, &data_type, name)?;
            return Ok(PlannerResult::Planned(field));
        }
        let key = match field_access {
            GetFieldAccess::ListRange { start, stop, .. } if is_list(&data_type) => {
                let call = self.0.call("array_subscripts", vec![expr, *start, *stop]);
                return Ok(PlannerResult::Planned(call?));
            }
            GetFieldAccess::ListIndex { key } if is_map(&data_type) => {
                let call = self.0.call("map_access", vec![expr, *key]);
                return Ok(PlannerResult::Planned(call?));
            }
            GetFieldAccess::NamedStructField { name } if is_map(&data_type) => {
                let call = self.0.call("map_access", vec![expr, lit(name)]);
                return Ok(PlannerResult::Planned(call?));
            }
            GetFieldAccess::ListIndex { key } => *key,
            GetFieldAccess::NamedStructField { name }
                if !data_type.is_nested() || is_record(&data_type) =>
            {
                lit(name)
            }
            GetFieldAccess::NamedStructField { name } if is_list(&data_type) => {
                self.0.cast(lit(name), &DataType::Int32)?
            }
            field_access => {
                return Ok(PlannerResult::Original(RawFieldAccessExpr {
                    field_access,
                    expr,
                }));
            }
        };
        match expr {
            // `a[i][j]`.
            Expr::ScalarFunction(mut call) if call.func.name() == "array_subscript" => {
                call.args.push(key);
                Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
            }
            expr if is_list(&data_type) || data_type == JSONB => {
                let call = self.0.call("array_subscript", vec![expr, key])?;
                Ok(PlannerResult::Planned(call))
            }
            expr => {
                let message = format!(
                    "cannot subscript type {} because it does not support subscripting",
                    sql_type_name(&data_type)
                );
                drop(expr);
                Err(external(Error::user(SqlState::DATATYPE_MISMATCH, message)))
            }
        }
    }
}

impl ArrayPlanner {
    /// Of arrays of rows, and rows, one of which has named fields, the others are cast to it.
    fn named(&self, args: &mut [Expr], types: &[DataType]) -> Result<()> {
        let is_named = |t: &DataType| match t {
            DataType::Struct(fields) => !is_anonymous(fields),
            other => is_map(other),
        };
        let Some(wanted) = types.iter().map(element).find(is_named) else {
            return Ok(());
        };
        for (arg, is) in args.iter_mut().zip(types) {
            let to = match is {
                DataType::List(element) => {
                    let element = element.as_ref().clone().with_data_type(wanted.clone());
                    DataType::List(Arc::new(element))
                }
                _ => wanted.clone(),
            };
            if *is != to {
                *arg = self.0.cast(std::mem::take(arg), &to)?;
            }
        }
        Ok(())
    }

    /// `IS DISTINCT FROM` of a row or a map and a constant, which becomes one.
    fn with_whole(
        &self,
        mut raw: RawBinaryExpr,
        left: &DataType,
        right: &DataType,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let (whole, other, is) = match is_whole(left) {
            true => (left, &mut raw.right, right),
            false => (right, &mut raw.left, left),
        };
        if is_untyped(other, is) && *is != DataType::Null {
            *other = self.0.cast(std::mem::take(other), whole)?;
        }
        Ok(PlannerResult::Original(raw))
    }

    /// A comparison of rows, which come to one type when their types are final.
    fn compared_records(
        &self,
        raw: RawBinaryExpr,
        left: &DataType,
        right: &DataType,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let whole = |e: &Expr, t: &DataType| is_whole(t) || is_untyped(e, t);
        if !whole(&raw.left, left) || !whole(&raw.right, right) {
            let sides = [(&raw.left, left), (&raw.right, right)];
            return Err(no_operator(&raw.op, sides));
        }
        if left == right {
            return Ok(PlannerResult::Original(raw));
        }
        let Some((_, name, _)) = COMPARISONS.iter().find(|(op, ..)| *op == raw.op) else {
            return Ok(PlannerResult::Original(raw));
        };
        let name = name.replace("array", "record");
        let call = self.0.call(&name, vec![raw.left, raw.right])?;
        Ok(PlannerResult::Planned(call))
    }
}

/// The rule; it comes when types are final, before keys and type coercion.
#[derive(Debug)]
pub(super) struct Arrays(pub Calls);

impl AnalyzerRule for Arrays {
    fn name(&self) -> &str {
        "arrays"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        super::rewrite_expressions(plan, |e, schema| self.expression(e, schema))
    }
}

pub(super) fn is_list(data_type: &DataType) -> bool {
    matches!(data_type, DataType::List(_))
}

fn type_is_list(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|t| is_list(&t))
}

fn type_is_record(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|t| is_whole(&t))
}

fn is_text(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    )
}

fn is_map(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Map(..))
}

/// The type of an array's elements; of anything else its own.
fn element(data_type: &DataType) -> DataType {
    match data_type {
        DataType::List(field) => field.data_type().clone(),
        other => other.clone(),
    }
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric() || *data_type == NUMERIC
}

/// The type with numerics of any scale in place of those of one.
fn with_numerics(data_type: &DataType) -> DataType {
    match data_type {
        DataType::List(field) if field.data_type().is_decimal() => {
            DataType::List(Arc::new(Field::new_list_field(NUMERIC, true)))
        }
        decimal if decimal.is_decimal() => NUMERIC,
        other => other.clone(),
    }
}

/// NULL, or a quoted constant.
pub(super) fn is_untyped(expr: &Expr, data_type: &DataType) -> bool {
    *data_type == DataType::Null || matches!(expr, Expr::Literal(ScalarValue::Utf8(Some(_)), _))
}

fn no_operator(op: &BinaryOperator, sides: [(&Expr, &DataType); 2]) -> DataFusionError {
    let [left, right] = sides.map(|(value, data_type)| match value {
        Expr::Literal(value, _) => type_text(&Arg::new(data_type, Some(value))),
        _ => sql_type_name(data_type),
    });
    let message = format!("operator does not exist: {left} {op} {right}");
    let error = Error::user(SqlState::UNDEFINED_FUNCTION, message);
    external(error.with_hint(
        "No operator matches the given name and argument types. You might need to add explicit \
         type casts.",
    ))
}

fn multidimensional() -> datafusion_common::DataFusionError {
    external(Error::unsupported(
        "arrays of several dimensions are not supported",
    ))
}

/// Whether values of the types are the same; what stands beside the type of an array's elements
/// does not count.
pub(super) fn same(a: &DataType, b: &DataType) -> bool {
    match (a, b) {
        (DataType::List(a), DataType::List(b)) => a.data_type() == b.data_type(),
        (a, b) => a == b,
    }
}

/// Whether a value of one type becomes one of the other without being asked to.
fn becomes(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::List(a), DataType::List(b)) => becomes(a.data_type(), b.data_type()),
        (DataType::List(_), _) | (_, DataType::List(_)) => false,
        (from, to) => from == to || is_text(to) == is_text(from),
    }
}

impl Arrays {
    fn expression(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        match expr {
            Expr::ScalarFunction(call) => self.function(call, schema),
            Expr::BinaryExpr(binary) if is_compared(binary.op) => self.compared(binary, schema),
            Expr::Case(case) => self.case(case, schema),
            Expr::Between(mut between) => {
                let mut values = [
                    between.expr.as_mut(),
                    between.low.as_mut(),
                    between.high.as_mut(),
                ];
                let changed = self.united_rows(&mut values, schema)?;
                Ok(Transformed::new_transformed(
                    Expr::Between(between),
                    changed,
                ))
            }
            Expr::InList(list) => {
                let InList {
                    expr,
                    list,
                    negated,
                } = list;
                let mut all: Vec<Expr> = std::iter::once(*expr).chain(list).collect();
                let changed = self.united(&mut all.iter_mut().collect::<Vec<_>>(), schema)?;
                let first = Box::new(all.remove(0));
                Ok(Transformed::new_transformed(
                    Expr::InList(InList::new(first, all, negated)),
                    changed,
                ))
            }
            other => Ok(Transformed::no(other)),
        }
    }

    fn function(&self, call: ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let ScalarFunction { func, mut args } = call;
        let name = func.name().to_string();
        let arrays = args.iter().any(|a| type_is_list(a, schema));
        let records = args.iter().any(|a| type_is_record(a, schema));
        let changed = match name.as_str() {
            "array_subscript" if args[0].get_type(schema)? == JSONB => {
                return self.json_path(args, schema);
            }
            name if let Some((_, _, op)) = COMPARISONS
                .iter()
                .find(|(_, n, _)| *n == name.replace("record_", "array_"))
                && args.len() == 2 =>
            {
                let (right, left) = (args.remove(1), args.remove(0));
                let binary = BinaryExpr::new(Box::new(left), *op, Box::new(right));
                return Ok(Transformed::yes(self.compared(binary, schema)?.data));
            }
            "make_array" if records => {
                self.united(&mut args.iter_mut().collect::<Vec<_>>(), schema)?
            }
            "greatest" | "least" if records => {
                let message = format!("{name}() of rows is not supported");
                return Err(external(Error::unsupported(message)));
            }
            name if FUNCTIONS.contains(&name) => self.arguments(&func, &mut args, schema)?,
            "greatest" | "least" if arrays => {
                self.united(&mut args.iter_mut().collect::<Vec<_>>(), schema)?;
                return Ok(Transformed::yes(
                    self.0.call(&format!("array_{name}"), args)?,
                ));
            }
            "coalesce" | "nvl" | "ifnull" if arrays || records => {
                self.united(&mut args.iter_mut().collect::<Vec<_>>(), schema)?
            }
            _ => false,
        };
        Ok(Transformed::new_transformed(
            Expr::ScalarFunction(ScalarFunction::new_udf(func, args)),
            changed,
        ))
    }

    /// Casts arguments to the types that the function takes.
    fn arguments(
        &self,
        func: &Arc<ScalarUDF>,
        args: &mut [Expr],
        schema: &DFSchema,
    ) -> Result<bool> {
        let own = args
            .iter()
            .map(|a| a.get_type(schema))
            .collect::<Result<Vec<_>>>()?;
        if func.name() == "make_array" && own.iter().any(is_list) {
            return Err(multidimensional());
        }
        if UNITING.contains(&func.name()) && own.iter().any(holds_record) {
            return self.with_records(args, &own);
        }
        // Numbers of several kinds become numerics of any scale.
        let numerics = UNITING.contains(&func.name()) && {
            let elements = own.iter().map(element).collect::<Vec<_>>();
            let first = elements.iter().find(|t| t.is_decimal());
            first.is_some_and(|first| elements.iter().any(|t| t != first && is_number(t)))
        };
        let known: Vec<DataType> = args
            .iter()
            .zip(&own)
            .map(|(a, t)| {
                if is_untyped(a, t) {
                    DataType::Null
                } else if numerics {
                    with_numerics(t)
                } else {
                    t.clone()
                }
            })
            .collect();
        let undefined = || {
            if func.name() == "make_array" {
                let args = known.iter().map(|t| Arg::new(t, None)).collect::<Vec<_>>();
                return unmatched("ARRAY", &args);
            }
            let names: Vec<String> = known.iter().map(sql_type_name).collect();
            let message = format!(
                "function {}({}) does not exist",
                func.name(),
                names.join(", ")
            );
            let error = Error::user(SqlState::UNDEFINED_FUNCTION, message);
            external(error.with_hint(
                "No function matches the given name and argument types. You might need to add \
                 explicit type casts.",
            ))
        };
        let taken = func.coerce_types(&known).map_err(|_| undefined())?;
        let mut changed = false;
        for ((arg, from), to) in args.iter_mut().zip(&own).zip(&taken) {
            if same(from, to) || *to == DataType::Null {
                continue;
            }
            // What is still untyped where nothing says otherwise is text.
            if !is_untyped(arg, from) && !becomes(from, to) {
                return Err(undefined());
            }
            *arg = self.cast(std::mem::take(arg), to)?;
            changed = true;
        }
        Ok(changed)
    }

    /// Brings arrays of rows, and rows that are to be elements of these, to one type.
    fn with_records(&self, args: &mut [Expr], own: &[DataType]) -> Result<bool> {
        let mut wanted = DataType::Null;
        for (arg, is) in args.iter().zip(own) {
            if !is_untyped(arg, is) {
                let is = element(is);
                wanted = united(&wanted, &is).ok_or_else(|| mismatch("types", &wanted, &is))?;
            }
        }
        let mut changed = false;
        for (i, (arg, is)) in args.iter_mut().zip(own).enumerate() {
            let to = match is {
                DataType::List(element) => {
                    let element = element.as_ref().clone().with_data_type(wanted.clone());
                    DataType::List(Arc::new(element))
                }
                // A text in place of an array is one, beside an array it is an element.
                other if is_text(other) && i == 0 => {
                    DataType::List(Arc::new(Field::new_list_field(wanted.clone(), true)))
                }
                DataType::Int32 | DataType::Int64 => continue,
                _ => wanted.clone(),
            };
            if *is != to && *is != DataType::Null {
                *arg = self.cast(std::mem::take(arg), &to)?;
                changed = true;
            }
        }
        Ok(changed)
    }

    fn cast(&self, value: Expr, to: &DataType) -> Result<Expr> {
        match value {
            Expr::Literal(ScalarValue::Null, _) => Ok(lit(ScalarValue::try_from(to)?)),
            value => self.0.cast(value, to),
        }
    }

    /// Brings values, one of which is an array, to one type; answers whether anything changed.
    fn united(&self, values: &mut [&mut Expr], schema: &DFSchema) -> Result<bool> {
        let types = values
            .iter()
            .map(|e| e.get_type(schema))
            .collect::<Result<Vec<_>>>()?;
        if types.iter().any(holds_record) {
            return self.0.one_record(values, &types);
        }
        let Some(first) = types.iter().find(|t| is_list(t)) else {
            return Ok(false);
        };
        let mut wanted = first.clone();
        for other in types.iter().filter(|t| is_list(t) && !same(t, first)) {
            if !are_numerics(first, other) {
                return Err(mismatch("arrays", first, other));
            }
            wanted = DataType::List(Arc::new(Field::new_list_field(NUMERIC, true)));
        }
        let mut changed = false;
        for (value, from) in values.iter_mut().zip(&types) {
            if same(from, &wanted) || *from == DataType::Null {
                continue;
            }
            if !is_list(from) && !is_untyped(value, from) {
                return Err(mismatch("types", &wanted, from));
            }
            **value = self.0.cast(std::mem::take(*value), &wanted)?;
            changed = true;
        }
        Ok(changed)
    }

    fn compared(&self, binary: BinaryExpr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let BinaryExpr {
            mut left,
            op,
            mut right,
        } = binary;
        let mut changed = false;
        if type_is_record(&left, schema) || type_is_record(&right, schema) {
            changed = self.united(&mut [left.as_mut(), right.as_mut()], schema)?;
        } else if type_is_list(&left, schema) || type_is_list(&right, schema) {
            let (l, r) = (left.get_type(schema)?, right.get_type(schema)?);
            let untyped = is_untyped(&left, &l) || is_untyped(&right, &r);
            if !untyped && !same(&l, &r) && !are_numerics(&l, &r) {
                let message = format!(
                    "operator does not exist: {} {op} {}",
                    sql_type_name(&l),
                    sql_type_name(&r)
                );
                return Err(external(
                    Error::user(SqlState::UNDEFINED_FUNCTION, message).with_hint(
                        "No operator matches the given name and argument types. You might need \
                         to add explicit type casts.",
                    ),
                ));
            }
            changed = self.united(&mut [left.as_mut(), right.as_mut()], schema)?;
        }
        Ok(Transformed::new_transformed(
            Expr::BinaryExpr(BinaryExpr::new(left, op, right)),
            changed,
        ))
    }

    /// Brings values that are compared to one type, if one of them is a row or a map.
    fn united_rows(&self, values: &mut [&mut Expr], schema: &DFSchema) -> Result<bool> {
        match values.iter().any(|value| type_is_record(value, schema)) {
            true => self.united(values, schema),
            false => Ok(false),
        }
    }

    fn case(&self, mut case: Case, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let mut compared: Vec<&mut Expr> = case.expr.as_deref_mut().into_iter().collect();
        if !compared.is_empty() {
            let wanted = case.when_then_expr.iter_mut();
            compared.extend(wanted.map(|(when, _)| when.as_mut()));
        }
        let compared = self.united_rows(&mut compared, schema)?;
        let mut results: Vec<&mut Expr> = case
            .when_then_expr
            .iter_mut()
            .map(|(_, then)| then.as_mut())
            .chain(case.else_expr.as_deref_mut())
            .collect();
        let changed = self.united(&mut results, schema)? || compared;
        Ok(Transformed::new_transformed(Expr::Case(case), changed))
    }

    /// `j['a'][1]` of JSONB.
    fn json_path(&self, args: Vec<Expr>, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let text = |(i, arg): (usize, Expr)| {
            if i == 0 || is_text(&arg.get_type(schema)?) {
                Ok(arg)
            } else {
                self.0.cast(arg, &DataType::Utf8)
            }
        };
        let path = args.into_iter().enumerate().map(text);
        let path = path.collect::<Result<Vec<_>>>()?;
        Ok(Transformed::yes(self.0.call("jsonb_extract_path", path)?))
    }
}

/// Whether both are arrays of numerics, which Arrow keeps in two ways.
fn are_numerics(a: &DataType, b: &DataType) -> bool {
    let numerics = |t: &DataType| match t {
        DataType::List(field) => {
            matches!(field.data_type(), DataType::Decimal128(..)) || *field.data_type() == NUMERIC
        }
        _ => false,
    };
    numerics(a) && numerics(b)
}

fn mismatch(what: &str, a: &DataType, b: &DataType) -> datafusion_common::DataFusionError {
    let message = format!(
        "{what} {} and {} cannot be matched",
        sql_type_name(a),
        sql_type_name(b)
    );
    external(Error::user(SqlState::DATATYPE_MISMATCH, message))
}
