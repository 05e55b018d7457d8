//! GROUP BY, so that DataFusion finds in the select list what is grouped by:
//!
//! * a cast of a column to the type that it has is the column, as PostgreSQL sees it: `GROUP BY
//!   v::int` lets `v` stand alone, if `v` is an integer;
//! * constants that grouping sets name by their positions or aliases have a cast, with which they
//!   are expressions that a set has or has not, and no positions themselves;
//! * where groups are sorted, computed columns have hidden names: by its text, `v + 1 + 1` over
//!   groups of `v + 1` would be taken for something of the rows.

use super::join::as_type;
use super::{Scopes, UNNAMED, quoted};
use crate::bind::names::hidden;
use crate::names::fold;
use crate::types::{BPCHAR, declared_digits, sql_type_to_arrow};
use arrow_schema::DataType as ArrowType;
use datafusion_sql::sqlparser::ast::{
    DataType, Distinct, ExactNumberInfo, Expr, GroupByExpr, OrderBy, OrderByKind, Select,
    SelectItem, Value,
};
use std::collections::BTreeSet;

impl Scopes<'_> {
    /// Takes casts that do nothing off what is grouped by.
    pub(super) fn plain_groups(&self, select: &mut Select) {
        let GroupByExpr::Expressions(exprs, _) = &mut select.group_by else {
            return;
        };
        let each = exprs.iter_mut().flat_map(|expr| match expr {
            Expr::GroupingSets(sets) | Expr::Rollup(sets) | Expr::Cube(sets) => {
                sets.iter_mut().flatten().collect()
            }
            expr => vec![expr],
        });
        for expr in each {
            if let Expr::Cast {
                expr: inner,
                data_type,
                ..
            } = expr
                && matches!(
                    inner.as_ref(),
                    Expr::Identifier(_) | Expr::CompoundIdentifier(_)
                )
                && self.has_type(inner, data_type)
            {
                *expr = inner.as_ref().clone();
            }
        }
    }

    /// Whether a column is of a type, as far as the types are told apart here.
    fn has_type(&self, column: &Expr, data_type: &DataType) -> bool {
        let Ok((wanted, length)) = sql_type_to_arrow(data_type) else {
            return false;
        };
        let told = match wanted {
            ArrowType::Utf8 => matches!(data_type, DataType::Text),
            ArrowType::List(_) => false,
            _ => wanted != BPCHAR,
        };
        told && length.is_empty()
            && declared_digits(data_type).is_empty()
            && self.type_of(column) == Some(wanted)
    }
}

/// Puts what DISTINCT ON names into the order of ORDER BY, which DataFusion wants; PostgreSQL wants
/// the same expressions only.
pub(super) fn distinct_as_ordered(select: &mut Select, order_by: &mut OrderBy) {
    let (Some(Distinct::On(exprs)), OrderByKind::Expressions(order)) =
        (&mut select.distinct, &mut order_by.kind)
    else {
        return;
    };
    // What is ordered by already does not order any more.
    let mut seen = BTreeSet::new();
    order.retain(|sort| {
        let mut expr = &sort.expr;
        while let Expr::Nested(inner) = expr {
            expr = inner;
        }
        seen.insert(expr.to_string())
    });
    let place = |e: &Expr| {
        order
            .iter()
            .position(|sort| sort.expr.to_string() == e.to_string())
    };
    if exprs.iter().all(|e| place(e).is_some()) {
        exprs.sort_by_key(place);
    }
}

/// Gives constants of the select list that grouping sets name a type.
pub(super) fn set_constants(select: &mut Select) {
    let Select {
        group_by,
        projection,
        ..
    } = select;
    let GroupByExpr::Expressions(exprs, _) = group_by else {
        return;
    };
    let sets = exprs.iter().filter_map(|expr| match expr {
        Expr::GroupingSets(sets) | Expr::Rollup(sets) | Expr::Cube(sets) => Some(sets),
        _ => None,
    });
    for expr in sets.flatten().flatten() {
        let Some(place) = place_of(expr, projection) else {
            continue;
        };
        let (value, alias) = match &projection[place] {
            SelectItem::UnnamedExpr(value) => (value, quoted(&hidden(UNNAMED, place))),
            SelectItem::ExprWithAlias { expr, alias } => (expr, alias.clone()),
            _ => continue,
        };
        if let Some(data_type) = constant_type(value) {
            let expr = as_type(value.clone(), data_type);
            projection[place] = SelectItem::ExprWithAlias { expr, alias };
        }
    }
}

/// Where an item of the select list is that is named by its position, or by its alias.
fn place_of(expr: &Expr, projection: &[SelectItem]) -> Option<usize> {
    match expr {
        Expr::Value(v) => match &v.value {
            Value::Number(position, _) => {
                let place = position.parse::<usize>().ok()?.checked_sub(1)?;
                (place < projection.len()).then_some(place)
            }
            _ => None,
        },
        Expr::Identifier(ident) => {
            let name = fold(ident.clone());
            projection.iter().position(|item| {
                matches!(item, SelectItem::ExprWithAlias { alias, .. }
                    if fold(alias.clone()) == name)
            })
        }
        _ => None,
    }
}

/// The type of a constant; `None` of what is none.
fn constant_type(value: &Expr) -> Option<DataType> {
    let Expr::Value(v) = value else {
        return None;
    };
    Some(match &v.value {
        Value::Number(number, _) if number.parse::<i32>().is_ok() => DataType::Integer(None),
        Value::Number(number, _) if number.parse::<i64>().is_ok() => DataType::BigInt(None),
        Value::Number(..) => DataType::Numeric(ExactNumberInfo::None),
        Value::Boolean(_) => DataType::Boolean,
        Value::SingleQuotedString(_) | Value::Null => DataType::Text,
        _ => return None,
    })
}

/// Gives the computed columns of groups names that no query can write.
pub(super) fn name_computed(select: &mut Select) {
    if matches!(&select.group_by, GroupByExpr::Expressions(e, _) if e.is_empty()) {
        return;
    }
    for (place, item) in select.projection.iter_mut().enumerate() {
        let SelectItem::UnnamedExpr(expr) = item else {
            continue;
        };
        if matches!(expr, Expr::BinaryOp { .. } | Expr::UnaryOp { .. }) {
            *item = SelectItem::ExprWithAlias {
                expr: std::mem::replace(expr, Expr::Value(Value::Null.into())),
                alias: quoted(&hidden(UNNAMED, place)),
            };
        }
    }
}
