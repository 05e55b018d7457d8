//! Names of columns and types.
//!
//! PostgreSQL names a column without alias after what it is (`count(*)` is `count`, `a + 1` is
//! `?column?`) and does not mind two of one name. DataFusion names it after its text and minds. So
//! duplicates get a hidden alias before planning, and the client sees PostgreSQL's names.

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::{self, Expr, Ident, SelectItem, SetExpr};
use std::collections::HashSet;
use std::sync::Arc;

/// Gives the second and later columns of one name in a top-level select list an alias of their own;
/// with `all`, every expression.
pub fn prepare(mut statement: ast::Statement, all: bool) -> ast::Statement {
    if let ast::Statement::Query(query) = &mut statement {
        separate(&mut query.body, all);
    }
    statement
}

fn separate(body: &mut SetExpr, all: bool) {
    match body {
        SetExpr::Select(select) => {
            let mut seen = HashSet::new();
            // `*` may give the column a second time.
            let wildcard = select.projection.iter().any(|i| {
                matches!(
                    i,
                    SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)
                )
            });
            for (i, item) in select.projection.iter_mut().enumerate() {
                if let SelectItem::UnnamedExpr(expr) = item {
                    let unqualified_column =
                        matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
                    if !seen.insert(expr.to_string())
                        || all && (wildcard || !unqualified_column)
                        || (!unqualified_column
                            && matches!(
                                expr,
                                Expr::Value(_) | Expr::Subquery(_) | Expr::Exists { .. }
                            ))
                    {
                        *item = SelectItem::ExprWithAlias {
                            expr: expr.clone(),
                            alias: Ident::with_quote('"', format!("?column?{i}")),
                        };
                    }
                } else if let SelectItem::ExprWithAlias { expr, alias } = item
                    && !seen.insert(alias.value.clone())
                {
                    *item = SelectItem::ExprWithAlias {
                        expr: expr.clone(),
                        alias: Ident::with_quote('"', format!("?column?{i}")),
                    };
                }
            }
        }
        SetExpr::Query(query) => separate(&mut query.body, all),
        // The columns of a set operation are named by its left side.
        SetExpr::SetOperation { left, .. } => separate(left, all),
        _ => {}
    }
}

/// The names that PostgreSQL gives the columns of a query, `None` where planning decides
/// (wildcards).
pub fn output_names(statement: &ast::Statement, columns: &[String]) -> Vec<String> {
    let ast::Statement::Query(query) = statement else {
        return columns.to_vec();
    };
    let mut names = columns.to_vec();
    let Some(items) = projection(&query.body) else {
        return names;
    };
    let is_wildcard = |i: &SelectItem| {
        matches!(
            i,
            SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)
        )
    };
    let first = items.iter().position(is_wildcard).unwrap_or(items.len());
    let last = items
        .iter()
        .rposition(is_wildcard)
        .map_or(items.len(), |i| i + 1);
    for (i, item) in items.iter().enumerate().take(first) {
        if let (Some(name), Some(slot)) = (item_name(item), names.get_mut(i)) {
            *slot = name;
        }
    }
    let after = items.len() - last;
    let Some(start) = names.len().checked_sub(after) else {
        return names;
    };
    for (i, item) in items[last..].iter().enumerate() {
        if let (Some(name), Some(slot)) = (item_name(item), names.get_mut(start + i)) {
            *slot = name;
        }
    }
    names
}

fn projection(body: &SetExpr) -> Option<&[SelectItem]> {
    match body {
        SetExpr::Select(select) => Some(&select.projection),
        SetExpr::Query(query) => projection(&query.body),
        SetExpr::SetOperation { left, .. } => projection(left),
        _ => None,
    }
}

fn item_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(expr) => {
            Some(expression_name(expr).unwrap_or_else(|| "?column?".into()))
        }
        SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
        _ => None,
    }
}

fn fold(ident: &Ident) -> String {
    if ident.quote_style.is_some() {
        ident.value.clone()
    } else {
        ident.value.to_lowercase()
    }
}

/// PostgreSQL's FigureColname.
fn expression_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(fold(ident)),
        Expr::CompoundIdentifier(parts) => parts.last().map(fold),
        Expr::Function(function) => function.name.0.last().and_then(|p| p.as_ident()).map(fold),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => expression_name(inner),
        Expr::Cast {
            expr: inner,
            data_type,
            ..
        } => expression_name(inner).or_else(|| Some(type_label(data_type))),
        Expr::Case { else_result, .. } => else_result
            .as_ref()
            .and_then(|e| expression_name(e))
            .or_else(|| Some("case".into())),
        Expr::Exists { .. } => Some("exists".into()),
        Expr::Array(_) => Some("array".into()),
        Expr::Extract { .. } => Some("extract".into()),
        Expr::Substring { .. } => Some("substring".into()),
        Expr::Trim { trim_where, .. } => Some(match trim_where {
            Some(ast::TrimWhereField::Leading) => "ltrim".into(),
            Some(ast::TrimWhereField::Trailing) => "rtrim".into(),
            _ => "btrim".into(),
        }),
        Expr::Position { .. } => Some("position".into()),
        Expr::Ceil { .. } => Some("ceil".into()),
        Expr::Floor { .. } => Some("floor".into()),
        Expr::Overlay { .. } => Some("overlay".into()),
        Expr::AtTimeZone { .. } => Some("timezone".into()),
        Expr::TypedString(typed) => Some(type_label(&typed.data_type)),
        Expr::Interval(_) => Some("interval".into()),
        Expr::Value(v) if matches!(v.value, ast::Value::Boolean(_)) => Some("bool".into()),
        Expr::Subquery(query) => match projection(&query.body)?.first()? {
            SelectItem::UnnamedExpr(e) => expression_name(e),
            SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
            _ => None,
        },
        Expr::Tuple(_) => Some("row".into()),
        _ => None,
    }
}

/// The name of a column that is a cast of a constant: PostgreSQL's internal type name.
fn type_label(data_type: &ast::DataType) -> String {
    use ast::DataType as D;
    match data_type {
        D::Int(_) | D::Integer(_) | D::Int4(_) => "int4".into(),
        D::BigInt(_) | D::Int8(_) => "int8".into(),
        D::SmallInt(_) | D::Int2(_) => "int2".into(),
        D::Real | D::Float4 => "float4".into(),
        D::Double(_) | D::DoublePrecision | D::Float8 | D::Float(_) => "float8".into(),
        D::Boolean | D::Bool => "bool".into(),
        D::Varchar(_) | D::CharacterVarying(_) => "varchar".into(),
        D::Char(_) | D::Character(_) => "bpchar".into(),
        D::Numeric(_) | D::Decimal(_) => "numeric".into(),
        D::Timestamp(_, ast::TimezoneInfo::Tz | ast::TimezoneInfo::WithTimeZone) => {
            "timestamptz".into()
        }
        D::Timestamp(..) => "timestamp".into(),
        D::Array(_) => "array".into(),
        D::Interval { .. } => "interval".into(),
        other => other
            .to_string()
            .to_lowercase()
            .rsplit('.')
            .next()
            .unwrap_or_default()
            .to_string(),
    }
}

/// Our types for casts, and PostgreSQL's object identifier types: an oid is an INT, the name of an
/// object is text.
#[derive(Debug)]
pub struct TypeNames;

impl TypePlanner for TypeNames {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> Result<Option<FieldRef>> {
        if let ast::DataType::Array(ast::ArrayElemTypeDef::SquareBracket(inner, _)) = sql_type
            && let Some(element) = self.plan_type_field(inner)?
        {
            let list = DataType::List(Arc::new(element.as_ref().clone().with_name("item")));
            return Ok(Some(Arc::new(Field::new("", list, true))));
        }
        let named = match sql_type {
            ast::DataType::Custom(name, _) => Some(name.to_string()),
            ast::DataType::Regclass => Some("regclass".into()),
            _ => None,
        };
        if let Some(name) = named {
            let name = name.to_lowercase().replace('"', "");
            let base = name.rsplit('.').next().unwrap_or(&name);
            let field = |t: DataType, sql: &str| {
                Some(Arc::new(
                    Field::new("", t, true).with_metadata(
                        [(
                            crate::protocol::types::SQL_TYPE.to_string(),
                            sql.to_string(),
                        )]
                        .into(),
                    ),
                ))
            };
            let found = match base {
                "oid" | "regclass" | "regtype" | "regproc" | "regprocedure" | "regnamespace"
                | "regrole" | "regoper" | "xid" | "cid" => field(DataType::Int32, "oid"),
                "name" | "cstring" | "text" | "char" | "pg_node_tree" | "aclitem" | "regconfig"
                | "citext" | "inet" | "anyelement" => field(DataType::Utf8, ""),
                "bool" => field(DataType::Boolean, ""),
                "int2" => field(DataType::Int16, ""),
                "int4" => field(DataType::Int32, ""),
                "int8" => field(DataType::Int64, ""),
                "varchar" => field(DataType::Utf8, ""),
                _ => None,
            };
            if let Some(field) = found {
                let plain = field
                    .metadata()
                    .get(crate::protocol::types::SQL_TYPE)
                    .is_some_and(String::is_empty);
                return Ok(Some(if plain {
                    Arc::new(field.as_ref().clone().with_metadata(Default::default()))
                } else {
                    field
                }));
            }
        }
        let (data_type, sql) = tidemark_planner::sql_type_to_arrow(sql_type)
            .map_err(|e| DataFusionError::External(Box::new(e)))?;
        let field = Field::new("", data_type, true);
        Ok(Some(Arc::new(if sql.is_empty() {
            field
        } else {
            field.with_metadata([(crate::protocol::types::SQL_TYPE.to_string(), sql)].into())
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    #[test]
    fn columns_are_named_as_in_postgresql() {
        let sql = "select a.id, count(*), a.x + 1, 'b'::text, *, sum(x) as Total, case when true \
                   then 1 end, 1, 1";
        let statement = Parser::parse_sql(&PostgreSqlDialect {}, sql)
            .unwrap()
            .remove(0);
        let planned: Vec<String> = (0..11).map(|i| format!("c{i}")).collect();
        let names = output_names(&statement, &planned);
        assert_eq!(
            names,
            [
                "id", "count", "?column?", "text", "c4", "c5", "c6", "total", "case", "?column?",
                "?column?"
            ]
        );
    }
}
