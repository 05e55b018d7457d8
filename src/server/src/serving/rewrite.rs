//! Rewriting of queries before they are planned.
//!
//! * Queries over relations go through the planner's own expansion (TUMBLE, HOP), the same as views do.
//! * Queries over `pg_catalog` and `information_schema` speak more of PostgreSQL than DataFusion plans: operators by schema (`OPERATOR(pg_catalog.~)`),
//!   collations, `= ANY(..)`, `array(select ..)`, object identifier casts. Those are brought into plain forms here.

use super::Snapshot;
use super::functions::oid_of_name;
use datafusion::sql::sqlparser::ast::{self, BinaryOperator, Expr, Ident, ObjectName, ObjectNamePart, SelectItem, Value, Visit, VisitMut, Visitor, VisitorMut};
use std::ops::ControlFlow;
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};

/// Rewrites a query for planning.
pub fn query(snapshot: &Snapshot, statement: ast::Statement) -> Result<ast::Statement> {
    let mut statement = if reads_system_tables(&statement) {
        super::system::rewrite(statement)
    } else if snapshot.overrides.is_empty() {
        expand(snapshot, statement)?
    } else {
        // Tables of this statement alone (RETURNING, excluded) are no relations of the catalog.
        statement
    };
    let mut plain = Plain { snapshot, error: None };
    let _ = VisitMut::visit(&mut statement, &mut plain);
    plain.error.map_or(Ok(statement), Err)
}

fn expand(snapshot: &Snapshot, statement: ast::Statement) -> Result<ast::Statement> {
    let ast::Statement::Query(query) = statement else { return Ok(statement) };
    let query = snapshot.server.sql.expand(&snapshot.catalog, &snapshot.search_path, *query)?;
    Ok(ast::Statement::Query(Box::new(query)))
}

/// Whether a statement names a system table: by schema, or a `pg_` name that no relation has.
pub fn reads_system_tables(statement: &ast::Statement) -> bool {
    struct Finder(bool);
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
            let parts: Vec<String> = relation.0.iter().filter_map(ObjectNamePart::as_ident).map(|i| i.value.to_lowercase()).collect();
            let (schema, name) = match parts.as_slice() {
                [.., schema, name] => (schema.as_str(), name.as_str()),
                [name] => ("", name.as_str()),
                [] => return ControlFlow::Continue(()),
            };
            if matches!(schema, "pg_catalog" | "information_schema" | "tidemark") || (schema.is_empty() && name.starts_with("pg_")) {
                self.0 = true;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        }
    }
    let mut finder = Finder(false);
    let _ = Visit::visit(statement, &mut finder);
    finder.0
}

/// What every query may say and DataFusion does not know.
struct Plain<'a> {
    snapshot: &'a Snapshot,
    error: Option<Error>,
}

impl Plain<'_> {
    /// The relation of a FROM item, under the name that it has there.
    fn table_of(&self, factor: &ast::TableFactor) -> Option<(String, Arc<tidemark_plan::Relation>)> {
        let ast::TableFactor::Table { name, alias, args: None, .. } = factor else { return None };
        let parts: Vec<String> = name.0.iter().filter_map(ObjectNamePart::as_ident).map(fold).collect();
        let (last, rest) = parts.split_last()?;
        let relation = self.snapshot.find(rest.last().map(String::as_str), last)?;
        Some((alias.as_ref().map_or_else(|| last.clone(), |a| fold(&a.name)), relation.clone()))
    }
}

fn fold(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

impl VisitorMut for Plain<'_> {
    type Break = ();

    /// A table's name as a value is its row: `select t from t`.
    fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<()> {
        let factors = select.from.iter().flat_map(|t| std::iter::once(&t.relation).chain(t.joins.iter().map(|j| &j.relation)));
        let tables: Vec<(String, Arc<tidemark_plan::Relation>)> = factors.filter_map(|f| self.table_of(f)).collect();
        for item in &mut select.projection {
            let SelectItem::UnnamedExpr(expr) = item else { continue };
            let Expr::Identifier(ident) = &expr else { continue };
            let name = fold(ident);
            let is_column = tables.iter().any(|(_, r)| r.columns.iter().any(|c| c.name == name));
            if let Some((_, relation)) = tables.iter().find(|(n, _)| *n == name && !is_column) {
                let quoted = |s: &str| Ident::with_quote('"', s);
                let pairs = relation
                    .columns
                    .iter()
                    .flat_map(|c| [Expr::Value(Value::SingleQuotedString(c.name.clone()).into()), Expr::CompoundIdentifier(vec![quoted(&name), quoted(&c.name)])]);
                *item = SelectItem::ExprWithAlias { expr: call_with("named_struct", pairs.collect()), alias: ident.clone() };
            }
        }
        ControlFlow::Continue(())
    }

    /// The one column of `generate_series(..) g` is called `g`; without alias it has the function's name.
    fn post_visit_table_factor(&mut self, factor: &mut ast::TableFactor) -> ControlFlow<()> {
        if let ast::TableFactor::Table { name, args: Some(_), alias, .. } = factor {
            let function = name.0.last().and_then(ObjectNamePart::as_ident).cloned().unwrap_or_else(|| Ident::new("f"));
            if matches!(function.value.to_lowercase().as_str(), "generate_series" | "range") {
                let alias = alias.get_or_insert_with(|| ast::TableAlias { explicit: true, name: function.clone(), columns: Vec::new(), at: None });
                if alias.columns.is_empty() {
                    alias.columns = vec![ast::TableAliasColumnDef { name: alias.name.clone(), data_type: None }];
                }
            }
            *name = ObjectName::from(vec![function]);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            // Functions are known by their last name.
            Expr::Function(function) => {
                if let [ObjectNamePart::Identifier(name)] = function.name.0.as_mut_slice()
                    && name.value.eq_ignore_ascii_case("row")
                {
                    *name = Ident::new("struct");
                }
                if function.name.0.len() > 1
                    && let Some(last) = function.name.0.pop()
                {
                    function.name = ObjectName(vec![last]);
                }
            }
            Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
                if let Some(escape) = escape_char.take()
                    && escape.value.to_string().trim_matches('\'') != "\\"
                {
                    let escape = Expr::Value(escape);
                    **pattern = call_with("like_escape", vec![std::mem::replace(pattern, Expr::Value(Value::Null.into())), escape]);
                }
            }
            Expr::Cast { expr: inner, data_type: ast::DataType::Interval { .. }, .. } => normalize_interval(inner),
            Expr::Interval(ast::Interval { value, leading_field: None, .. }) => normalize_interval(value),
            Expr::Collate { expr: inner, .. } => *expr = std::mem::replace(inner, Expr::Value(Value::Null.into())),
            // 'x'::regclass is the oid of x.
            Expr::Cast { expr: inner, data_type, .. } if is_regclass(data_type) => {
                if let Expr::Value(v) = inner.as_ref()
                    && let Value::SingleQuotedString(name) = &v.value
                    && name.parse::<i64>().is_err()
                {
                    match oid_of_name(self.snapshot, name) {
                        Some(oid) => *expr = Expr::Value(Value::Number(oid.to_string(), false).into()),
                        None => {
                            self.error = Some(Error::user(SqlState::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist")));
                            return ControlFlow::Break(());
                        }
                    }
                }
            }
            Expr::Cast { expr: inner, data_type, .. } if is_type_name(data_type) => {
                if let Expr::Value(v) = inner.as_ref()
                    && let Value::SingleQuotedString(name) = &v.value
                    && let Some(oid) = object_oid(data_type, name)
                {
                    *expr = Expr::Value(Value::Number(oid.to_string(), false).into());
                }
            }
            // current_user and its like stand without parentheses.
            Expr::Identifier(Ident { value, quote_style: None, .. })
                if matches!(value.to_lowercase().as_str(), "current_catalog" | "current_schema" | "current_role" | "session_user" | "current_user") =>
            {
                *expr = call(&value.to_lowercase());
            }
            Expr::BinaryOp { op, .. } => {
                if let BinaryOperator::PGCustomBinaryOperator(parts) = op
                    && let Some(plain) = parts.last().and_then(|p| plain_operator(p))
                {
                    *op = plain;
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn plain_operator(name: &str) -> Option<BinaryOperator> {
    Some(match name {
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "=" => BinaryOperator::Eq,
        "<>" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        ">" => BinaryOperator::Gt,
        "+" => BinaryOperator::Plus,
        "||" => BinaryOperator::StringConcat,
        "~~" => BinaryOperator::PGLikeMatch,
        _ => return None,
    })
}

/// Rewrites an interval's text in PostgreSQL's forms into months, days and seconds.
fn normalize_interval(text: &mut Expr) {
    if let Expr::Value(v) = text
        && let Value::SingleQuotedString(text) = &mut v.value
        && text.contains([':', 'P', '@'])
        && let Some(i) = crate::values::parse_interval(text)
    {
        *text = format!("{} months {} days {:.6} seconds", i.months, i.days, i.nanoseconds as f64 / 1e9);
    }
}

/// `regtype`, `regproc`.
fn is_type_name(data_type: &ast::DataType) -> bool {
    custom_name(data_type).is_some_and(|n| matches!(n.as_str(), "regtype" | "regproc" | "regprocedure"))
}

fn custom_name(data_type: &ast::DataType) -> Option<String> {
    match data_type {
        ast::DataType::Custom(name, _) => name.0.last().and_then(ObjectNamePart::as_ident).map(|i| i.value.to_lowercase()),
        _ => None,
    }
}

/// The oid of a type or function by name.
fn object_oid(data_type: &ast::DataType, name: &str) -> Option<i32> {
    match custom_name(data_type)?.as_str() {
        "regtype" => crate::protocol::types::by_name(name).map(|t| t.oid() as i32),
        _ => crate::catalog_tables::postgres::function_oid(name.split('(').next().unwrap_or(name)),
    }
}

fn is_regclass(data_type: &ast::DataType) -> bool {
    match data_type {
        ast::DataType::Regclass => true,
        ast::DataType::Custom(name, _) => name.0.last().and_then(ObjectNamePart::as_ident).is_some_and(|i| i.value.eq_ignore_ascii_case("regclass")),
        _ => false,
    }
}

/// `name(args)`.
pub fn call_with(name: &str, args: Vec<Expr>) -> Expr {
    let mut expr = call(name);
    if let Expr::Function(function) = &mut expr
        && let ast::FunctionArguments::List(list) = &mut function.args
    {
        list.args = args.into_iter().map(|a| ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(a))).collect();
    }
    expr
}

/// A call without arguments.
pub fn call(name: &str) -> Expr {
    Expr::Function(ast::Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: ast::FunctionArguments::None,
        args: ast::FunctionArguments::List(ast::FunctionArgumentList { duplicate_treatment: None, args: Vec::new(), clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}
