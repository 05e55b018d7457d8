//! One join of FROM: USING and NATURAL become ON. The last column of an ASOF join's USING is its
//! time: the left one is not before the right one.

use super::{Column, Scope, Scopes};
use crate::coerce::MERGED;
use crate::names::fold;
use crate::parse::parse_query;
use crate::timed::{ASOF, mark as join_mark};
use crate::types::{JSONB, is_numeric_bytes, sql_type_name};
use arrow_schema::{DataType, TimeUnit};
use datafusion_sql::sqlparser::ast::{
    self, BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    JoinConstraint, JoinOperator, Query, SetExpr, TableWithJoins,
};
use std::collections::BTreeSet;
use tidemark_common::{Error, Result, SqlState};

/// Whose value a merged column has.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Inner,
    Left,
    Right,
    Full,
}

/// Whether rows of the left side and of the right one may be absent beside one of the other.
pub(super) fn may_be_absent(operator: &JoinOperator) -> (bool, bool) {
    match operator {
        JoinOperator::Left(_) | JoinOperator::LeftOuter(_) => (false, true),
        JoinOperator::Right(_) | JoinOperator::RightOuter(_) => (true, false),
        JoinOperator::FullOuter(_) => (true, true),
        _ => (false, false),
    }
}

impl Scopes<'_> {
    /// The columns of a join of two scopes.
    pub(super) fn join(
        &mut self,
        operator: &mut JoinOperator,
        mut left: Scope,
        right: Scope,
    ) -> Result<Scope> {
        let Some((kind, constraint)) = parts(operator) else {
            left.append(right);
            return Ok(left);
        };
        let names = match constraint {
            JoinConstraint::On(condition) => {
                left.append(right);
                self.scopes.push(left);
                let visited = self.names(condition);
                let scope = self.scopes.pop().unwrap_or_default();
                visited?;
                return Ok(scope);
            }
            JoinConstraint::None => {
                left.append(right);
                return Ok(left);
            }
            JoinConstraint::Using(names) => Some(
                names
                    .iter()
                    .filter_map(|n| n.0.last()?.as_ident().cloned().map(fold))
                    .collect::<Vec<_>>(),
            ),
            JoinConstraint::Natural => None,
        };
        let (Some(lefts), Some(rights)) = (left.columns.take(), right.columns) else {
            left.values.extend(right.values);
            left.add_tables(right.tables, right.renamed);
            return Ok(left);
        };
        let mut names = names.unwrap_or_else(|| common(&lefts, &rights));
        let mark = names.first().filter(|name| join_mark(name).is_some());
        let mark = mark.cloned();
        names.drain(..usize::from(mark.is_some()));
        self.merges = true;
        self.write(names.len())?;
        let (columns, condition) = merge(kind, &names, lefts, rights, mark.as_deref())?;
        match condition {
            Some(condition) => *constraint = JoinConstraint::On(condition),
            None if kind == Kind::Inner => {
                *operator = JoinOperator::CrossJoin(JoinConstraint::None);
            }
            None => {
                *constraint = JoinConstraint::On(Expr::Value(ast::Value::Boolean(true).into()));
            }
        }
        left.columns = Some(columns);
        left.values.extend(right.values);
        left.add_tables(right.tables, right.renamed);
        Ok(left)
    }
}

fn parts(operator: &mut JoinOperator) -> Option<(Kind, &mut JoinConstraint)> {
    match operator {
        JoinOperator::Join(c) | JoinOperator::Inner(c) | JoinOperator::CrossJoin(c) => {
            Some((Kind::Inner, c))
        }
        JoinOperator::Left(c) | JoinOperator::LeftOuter(c) => Some((Kind::Left, c)),
        JoinOperator::Right(c) | JoinOperator::RightOuter(c) => Some((Kind::Right, c)),
        JoinOperator::FullOuter(c) => Some((Kind::Full, c)),
        _ => None,
    }
}

/// The names that both sides have, in the order of the left one.
fn common(lefts: &[Column], rights: &[Column]) -> Vec<String> {
    let known: BTreeSet<&str> = rights.iter().map(|c| c.name.as_str()).collect();
    let mut seen = BTreeSet::new();
    let shared = lefts.iter().filter(|c| known.contains(c.name.as_str()));
    shared
        .filter(|c| seen.insert(c.name.as_str()))
        .map(|c| c.name.clone())
        .collect()
}

/// The columns after the join, and its condition (none without names).
fn merge(
    kind: Kind,
    names: &[String],
    mut lefts: Vec<Column>,
    mut rights: Vec<Column>,
    mark: Option<&str>,
) -> Result<(Vec<Column>, Option<Expr>)> {
    let mut columns = Vec::with_capacity(lefts.len() + rights.len());
    let mut condition: Option<Expr> = mark.map(|mark| call(mark, Vec::new()));
    for (i, name) in names.iter().enumerate() {
        if names[..i].contains(name) {
            return Err(Error::user(
                SqlState::DUPLICATE_COLUMN,
                format!("column name \"{name}\" appears more than once in USING clause"),
            ));
        }
        let left = take(&mut lefts, name, "left")?;
        let right = take(&mut rights, name, "right")?;
        let is_time = mark == Some(ASOF) && i + 1 == names.len();
        let equal = Expr::BinaryOp {
            left: Box::new(left.value.clone()),
            op: match left.data_type.is_some() && right.data_type.is_some() {
                _ if is_time => BinaryOperator::GtEq,
                true => BinaryOperator::Eq,
                false => BinaryOperator::Custom(MERGED.into()),
            },
            right: Box::new(right.value.clone()),
        };
        condition = Some(match condition {
            None => equal,
            Some(before) => Expr::BinaryOp {
                left: Box::new(before),
                op: BinaryOperator::And,
                right: Box::new(equal),
            },
        });
        check_types(&left.data_type, &right.data_type)?;
        // The sides' times differ: it is the left one.
        let kind = if is_time { Kind::Left } else { kind };
        columns.push(merged(kind, left, right));
    }
    columns.append(&mut lefts);
    columns.append(&mut rights);
    Ok((columns, condition))
}

/// `42804` for types that have nothing in common.
fn check_types(left: &Option<DataType>, right: &Option<DataType>) -> Result<()> {
    let (Some(left), Some(right)) = (left, right) else {
        return Ok(());
    };
    let family = |t: &DataType| match t {
        DataType::Utf8 | DataType::LargeUtf8 => Some(2),
        DataType::Boolean => Some(3),
        t => rank(&Some(t.clone())).map(|(family, _)| family),
    };
    match (family(left), family(right)) {
        (Some(l), Some(r)) if l != r => Err(Error::user(
            SqlState::DATATYPE_MISMATCH,
            format!(
                "JOIN/USING types {} and {} cannot be matched",
                sql_type_name(left),
                sql_type_name(right)
            ),
        )),
        _ => Ok(()),
    }
}

/// The one column of this name.
fn take(columns: &mut Vec<Column>, name: &str, side: &str) -> Result<Column> {
    let mut places = (0..columns.len()).filter(|i| columns[*i].name == name);
    let Some(place) = places.next() else {
        return Err(Error::user(
            SqlState::UNDEFINED_COLUMN,
            format!("column \"{name}\" specified in USING clause does not exist in {side} table"),
        ));
    };
    if places.next().is_some() {
        return Err(Error::user(
            SqlState::AMBIGUOUS_COLUMN,
            format!("common column name \"{name}\" appears more than once in {side} table"),
        ));
    }
    Ok(columns.remove(place))
}

/// PostgreSQL's buildMergedJoinVar: of an inner join it takes the side that needs no cast, which a
/// numeric with a precision does.
fn merged(kind: Kind, left: Column, right: Column) -> Column {
    let ranks = (rank(&left.data_type), rank(&right.data_type));
    let (wider_left, wider_right) = match ranks {
        (Some((a, l)), Some((b, r))) if a == b => (l > r, r > l),
        _ => (false, false),
    };
    let common = if wider_right {
        right.data_type.clone()
    } else {
        left.data_type.clone()
    };
    let value = match kind {
        Kind::Inner if wider_right && !matches!(common, Some(DataType::Decimal128(_, _))) => {
            right.value
        }
        Kind::Inner if wider_right => cast(left.value, &common),
        Kind::Inner => left.value,
        Kind::Left if wider_right => cast(left.value, &common),
        Kind::Left => left.value,
        Kind::Right if wider_left => cast(right.value, &common),
        Kind::Right => right.value,
        Kind::Full => coalesce(left.value, right.value),
    };
    Column {
        name: left.name,
        value,
        data_type: common,
        merged: true,
    }
}

/// The family of a type and its place in it: of two types of a family, the later one is common to
/// both.
fn rank(data_type: &Option<DataType>) -> Option<(u8, u8)> {
    Some(match data_type.as_ref()? {
        DataType::Int16 => (0, 0),
        DataType::Int32 => (0, 1),
        DataType::Int64 => (0, 2),
        DataType::Decimal128(_, _) => (0, 3),
        t if is_numeric_bytes(t) => (0, 3),
        DataType::Float32 => (0, 4),
        DataType::Float64 => (0, 5),
        DataType::Date32 => (1, 0),
        DataType::Timestamp(TimeUnit::Microsecond, None) => (1, 1),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => (1, 2),
        _ => return None,
    })
}

fn cast(value: Expr, to: &Option<DataType>) -> Expr {
    match to.as_ref().and_then(sql_type) {
        Some(data_type) => as_type(value, data_type),
        None => value,
    }
}

/// `value::type`.
pub(super) fn as_type(value: Expr, data_type: ast::DataType) -> Expr {
    Expr::Cast {
        kind: ast::CastKind::DoubleColon,
        expr: Box::new(value),
        data_type,
        array: false,
        format: None,
    }
}

/// How a type is written, numerics without precision; `None` where nobody asks for it.
pub(super) fn sql_type(data_type: &DataType) -> Option<ast::DataType> {
    use ast::DataType as Sql;
    Some(match data_type {
        DataType::Boolean => Sql::Boolean,
        DataType::Int16 => Sql::SmallInt(None),
        DataType::Int32 => Sql::Integer(None),
        DataType::Int64 => Sql::BigInt(None),
        DataType::Float32 => Sql::Real,
        DataType::Float64 => Sql::DoublePrecision,
        DataType::Decimal128(_, _) => Sql::Numeric(ast::ExactNumberInfo::None),
        t if is_numeric_bytes(t) => Sql::Numeric(ast::ExactNumberInfo::None),
        DataType::Date32 => Sql::Date,
        DataType::Timestamp(_, None) => Sql::Timestamp(None, ast::TimezoneInfo::None),
        DataType::Timestamp(_, Some(_)) => Sql::Timestamp(None, ast::TimezoneInfo::Tz),
        DataType::Time64(_) => Sql::Time(None, ast::TimezoneInfo::None),
        DataType::Interval(_) => Sql::Interval {
            fields: None,
            precision: None,
        },
        t if *t == JSONB => Sql::JSONB,
        _ => return None,
    })
}

/// `COALESCE(left, right)`; what a join further in has merged gets one argument more.
fn coalesce(left: Expr, right: Expr) -> Expr {
    let argument = |e: Expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(e));
    if let Expr::Function(mut function) = left {
        if let FunctionArguments::List(list) = &mut function.args {
            list.args.push(argument(right));
        }
        return Expr::Function(function);
    }
    call("coalesce", vec![argument(left), argument(right)])
}

fn call(name: &str, args: Vec<FunctionArg>) -> Expr {
    Expr::Function(Function {
        name: ast::ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(ast::FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// `SELECT * FROM` a join that has a name of its own.
pub(super) fn everything_of(table: TableWithJoins) -> Result<Box<Query>> {
    let mut query = parse_query("SELECT *")?;
    if let SetExpr::Select(select) = query.body.as_mut() {
        select.from = vec![table];
    }
    Ok(query)
}
