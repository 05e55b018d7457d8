//! Names of columns and types.
//!
//! PostgreSQL names a column without alias after what it is (`count(*)` is `count`, `a + 1` is
//! `?column?`) and does not mind two of one name. DataFusion names it after its text and minds. So
//! duplicates get a hidden alias before planning, and the client sees PostgreSQL's names.

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::logical_expr::{Distinct, Expr as LogicalExpr, LogicalPlan};
use datafusion::sql::sqlparser::ast::{self, Expr, Ident, SelectItem, SetExpr};
use std::collections::HashSet;
use std::sync::Arc;
use tidemark_plan::with_digits;
use tidemark_planner::UNNAMED;

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
                    // The text of a constant may be long.
                    let without_name = matches!(
                        expr,
                        Expr::Value(_) | Expr::Subquery(_) | Expr::Exists { .. }
                    );
                    if without_name
                        || !seen.insert(expr.to_string())
                        || all && (wildcard || !unqualified_column)
                    {
                        *item = SelectItem::ExprWithAlias {
                            expr: expr.clone(),
                            alias: Ident::with_quote('"', format!("{UNNAMED}{i}")),
                        };
                    }
                } else if let SelectItem::ExprWithAlias { expr, alias } = item
                    && !seen.insert(alias.value.clone())
                {
                    *item = SelectItem::ExprWithAlias {
                        expr: expr.clone(),
                        alias: Ident::with_quote('"', format!("{UNNAMED}{i}")),
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

/// The names that PostgreSQL gives the columns of a query.
pub fn output_names(statement: &ast::Statement, columns: &[String]) -> Vec<String> {
    match statement {
        ast::Statement::Query(query) => tidemark_planner::output_names(&query.body, columns),
        _ => columns.to_vec(),
    }
}

/// The columns of a plan as it was bound, where a cast to `numeric(p, s)` declares these.
pub fn with_casts(plan: &LogicalPlan) -> SchemaRef {
    let schema = plan.schema().inner();
    let mut top = plan;
    let projection = loop {
        top = match top {
            LogicalPlan::Projection(projection) => break projection,
            LogicalPlan::Sort(sort) => &sort.input,
            LogicalPlan::Limit(limit) => &limit.input,
            LogicalPlan::Distinct(Distinct::All(input)) => input,
            _ => return schema.clone(),
        };
    };
    let is_cast = |expr: &LogicalExpr| matches!(expr.clone().unalias(), LogicalExpr::Cast(_));
    let columns = projection.expr.iter().zip(schema.fields());
    let columns = columns.map(|(expr, field)| match is_cast(expr) {
        true => Arc::new(with_digits(field.as_ref().clone())),
        false => field.clone(),
    });
    Arc::new(Schema::new(columns.collect::<Vec<FieldRef>>()))
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
                Some(Arc::new(Field::new("", t, true).with_metadata(
                    [(crate::types::SQL_TYPE.to_string(), sql.to_string())].into(),
                )))
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
                    .get(crate::types::SQL_TYPE)
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
            field.with_metadata([(crate::types::SQL_TYPE.to_string(), sql)].into())
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
