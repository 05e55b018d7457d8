//! Names of columns of results.
//!
//! PostgreSQL names a column without alias after what it is: `count(*)` is `count`, `x::real` is
//! `float4`, `a + 1` is `?column?`. DataFusion names it after its text. So every item of a select
//! list that has a name by PostgreSQL's rules gets it as an alias ([`give`]), and queries around it
//! can refer to it; what has none is `?column?` to the client.

use crate::names::fold;
use datafusion_sql::sqlparser::ast::{
    self, AccessExpr, DataType, Expr, Ident, Select, SelectItem, SetExpr, TimezoneInfo,
};

/// What a column without a name is called.
pub const UNNAMED: &str = "?column?";

/// What ends the name of a column in one that no query can write: DataFusion minds two columns of
/// one name.
const HIDDEN: char = '\u{1}';

/// A name of a column that is told apart from others of its name by a number.
pub(super) fn hidden(name: &str, number: usize) -> String {
    format!("{name}{HIDDEN}{number}")
}

/// The name that a person sees.
fn shown(name: &str) -> &str {
    name.split_once(HIDDEN).map_or(name, |(name, _)| name)
}

/// PostgreSQL's name for a column of a select list without alias; `None` where it has none.
pub fn column_name(expr: &Expr) -> Option<String> {
    figure(expr)
        .map(|(name, _)| name)
        .filter(|name| name != UNNAMED)
}

/// Gives the expressions of a select list the aliases that they have in PostgreSQL.
pub(super) fn give(select: &mut Select) {
    for item in &mut select.projection {
        let SelectItem::UnnamedExpr(expr) = item else {
            continue;
        };
        if matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
            continue;
        }
        if let Some(name) = column_name(expr) {
            let expr = std::mem::replace(expr, Expr::Value(ast::Value::Null.into()));
            *item = SelectItem::ExprWithAlias {
                expr,
                alias: Ident::with_quote('"', name),
            };
        }
    }
}

/// PostgreSQL's FigureColname: a name, and whether it is a good one. That of a cast or a CASE is
/// not: what is around it decides.
fn figure(expr: &Expr) -> Option<(String, bool)> {
    let good = |name: &str| Some((name.to_string(), true));
    match expr {
        Expr::Identifier(ident) => Some((fold(ident.clone()), true)),
        Expr::CompoundIdentifier(parts) => Some((fold(parts.last()?.clone()), true)),
        Expr::CompoundFieldAccess { root, access_chain } => {
            let field = access_chain.iter().rev().find_map(|access| match access {
                AccessExpr::Dot(field) => super::fields::name_of(field),
                _ => None,
            });
            field.map_or_else(|| figure(root), |name| Some((name, true)))
        }
        Expr::Function(function) => {
            let name = function.name.0.last().and_then(|p| p.as_ident());
            match fold(name?.clone()) {
                // `(VALUES (x))`, as it is read.
                name if name == "values" => good("column1"),
                name => Some((name, true)),
            }
        }
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => figure(inner),
        Expr::Cast {
            expr: inner,
            data_type,
            ..
        } => Some(or_weak(figure(inner), || type_name(data_type))),
        Expr::TypedString(typed) => Some((type_name(&typed.data_type), false)),
        Expr::Interval(_) => Some(("interval".into(), false)),
        Expr::Case { else_result, .. } => {
            let otherwise = else_result.as_deref().and_then(figure);
            Some(or_weak(otherwise, || "case".into()))
        }
        Expr::Subquery(query) => match select_list(&query.body)?.first()? {
            // Its column has a name already, whatever that is.
            SelectItem::UnnamedExpr(e) => {
                Some((column_name(e).unwrap_or_else(|| UNNAMED.into()), true))
            }
            SelectItem::ExprWithAlias { alias, .. } => Some((fold(alias.clone()), true)),
            _ => None,
        },
        Expr::Exists { .. } => good("exists"),
        Expr::Array(_) => good("array"),
        Expr::Tuple(_) => good("row"),
        Expr::Extract { .. } => good("extract"),
        Expr::Substring { shorthand, .. } => good(if *shorthand { "substr" } else { "substring" }),
        Expr::Trim { trim_where, .. } => good(match trim_where {
            Some(ast::TrimWhereField::Leading) => "ltrim",
            Some(ast::TrimWhereField::Trailing) => "rtrim",
            _ => "btrim",
        }),
        Expr::Position { .. } => good("position"),
        Expr::Ceil { .. } => good("ceil"),
        Expr::Floor { .. } => good("floor"),
        Expr::Overlay { .. } => good("overlay"),
        Expr::IsNormalized { negated: false, .. } => good("is_normalized"),
        Expr::BinaryOp {
            op: ast::BinaryOperator::Overlaps,
            ..
        } => good("overlaps"),
        Expr::AtTimeZone { .. } => good("timezone"),
        _ => None,
    }
}

/// A good name stays; `weak` takes the place of any other.
fn or_weak(inner: Option<(String, bool)>, weak: impl FnOnce() -> String) -> (String, bool) {
    match inner {
        Some((name, true)) => (name, true),
        _ => (weak(), false),
    }
}

/// The select list that names the columns of a query.
pub(super) fn select_list(body: &SetExpr) -> Option<&[SelectItem]> {
    match body {
        SetExpr::Select(select) => Some(&select.projection),
        SetExpr::Query(query) => select_list(&query.body),
        SetExpr::SetOperation { left, .. } => select_list(left),
        _ => None,
    }
}

/// The names that PostgreSQL gives the columns of a query, given those of its plan, which stay
/// where `*` stands for them.
pub fn output_names(body: &SetExpr, columns: &[String]) -> Vec<String> {
    let mut names: Vec<String> = columns.iter().map(|c| shown(c).to_string()).collect();
    let Some(items) = select_list(body) else {
        return names;
    };
    let is_wildcard = |i: &SelectItem| {
        matches!(
            i,
            SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)
        )
    };
    let first = items.iter().position(is_wildcard).unwrap_or(items.len());
    let after = items.iter().rev().take_while(|i| !is_wildcard(i)).count();
    let Some(start) = names.len().checked_sub(after) else {
        return names;
    };
    let leading = items[..first].iter().enumerate();
    let trailing = (start..).zip(&items[items.len() - after..]);
    for (place, item) in leading.chain(trailing) {
        let name = match item {
            SelectItem::UnnamedExpr(expr) => column_name(expr).unwrap_or_else(|| UNNAMED.into()),
            SelectItem::ExprWithAlias { alias, .. } => fold(alias.clone()),
            _ => continue,
        };
        if let Some(slot) = names.get_mut(place) {
            *slot = name;
        }
    }
    names
}

/// PostgreSQL's internal name of a type; an array has that of its elements.
fn type_name(data_type: &DataType) -> String {
    use DataType as D;
    let name = match data_type {
        D::Int(_) | D::Integer(_) | D::Int4(_) => "int4",
        D::BigInt(_) | D::Int8(_) => "int8",
        D::SmallInt(_) | D::Int2(_) => "int2",
        D::Real | D::Float4 => "float4",
        D::Float(ast::ExactNumberInfo::Precision(p)) if *p <= 24 => "float4",
        D::Double(_) | D::DoublePrecision | D::Float8 | D::Float(_) => "float8",
        D::Boolean | D::Bool => "bool",
        D::Varchar(_) | D::CharacterVarying(_) | D::CharVarying(_) => "varchar",
        D::Char(_) | D::Character(_) => "bpchar",
        D::Numeric(_) | D::Decimal(_) | D::Dec(_) => "numeric",
        D::Timestamp(_, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => "timestamptz",
        D::Timestamp(..) => "timestamp",
        D::Time(_, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => "timetz",
        D::Time(..) => "time",
        D::Interval { .. } => "interval",
        D::Array(
            ast::ArrayElemTypeDef::SquareBracket(inner, _)
            | ast::ArrayElemTypeDef::AngleBracket(inner)
            | ast::ArrayElemTypeDef::Parenthesis(inner),
        ) => return type_name(inner),
        other => {
            let text = other.to_string().to_lowercase().replace('"', "");
            let name = text.rsplit('.').next().unwrap_or_default();
            return name
                .split(['(', ' '])
                .next()
                .unwrap_or_default()
                .to_string();
        }
    };
    name.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse_query;

    #[test]
    fn columns_are_named_as_in_postgresql() {
        let cases = [
            ("a.id", "id"),
            ("count(*)", "count"),
            ("a.x + 1", UNNAMED),
            ("'b'::text", "text"),
            ("'1'::integer::real", "float4"),
            ("x::real", "x"),
            ("'{}'::numeric(6,1)[]", "numeric"),
            ("NULL::date::timestamptz", "timestamptz"),
            ("CASE WHEN true THEN 1 ELSE '1'::smallint END", "case"),
            ("CASE WHEN true THEN 1 ELSE x END", "x"),
            ("true", UNNAMED),
            ("(SELECT count(*) FROM t)", "count"),
            ("(SELECT 1)", UNNAMED),
            ("x[1]", "x"),
            ("ROW(1, 2)", "row"),
            ("(1, 2)", "row"),
            ("date '2024-01-01'", "date"),
            ("interval '1 day'", "interval"),
            ("extract(year FROM x)", "extract"),
            ("'a'::char(4)", "bpchar"),
            ("NOT x", UNNAMED),
            ("EXISTS (SELECT 1)", "exists"),
        ];
        for (sql, expected) in cases {
            let query = parse_query(&format!("SELECT {sql} FROM t")).unwrap();
            let Some([SelectItem::UnnamedExpr(expr)]) = select_list(&query.body) else {
                panic!("{sql}");
            };
            let name = column_name(expr).unwrap_or_else(|| UNNAMED.into());
            assert_eq!(name, expected, "{sql}");
        }
    }
}
