//! Rewriting of queries before they are planned.
//!
//! * Queries over relations go through the planner's own expansion (TUMBLE, HOP), the same as views
//!   do.
//! * Queries over `pg_catalog` and `information_schema` speak more of PostgreSQL than DataFusion
//!   plans: operators by schema (`OPERATOR(pg_catalog.~)`), collations, `= ANY(..)`, `array(select
//!   ..)`, object identifier casts. Those are brought into plain forms here.

use super::functions::oid_of_name;
use crate::catalog_tables::TABLE_FUNCTIONS;
use crate::privileges::check_reads;
use crate::snapshot::{Override, Snapshot};
use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Expr, Ident, ObjectName, ObjectNamePart, SelectItem, Value, Visit,
    VisitMut, Visitor, VisitorMut,
};
use std::ops::ControlFlow;
use std::sync::Arc;
use tidemark_common::{Error, RelationId, Result, SqlState};
use tidemark_plan::{Catalog, Relation};
use tidemark_planner::Expanded;

/// Rewrites a query for planning.
pub fn query(snapshot: &Snapshot, statement: ast::Statement) -> Result<ast::Statement> {
    let system = reads_system_tables(&statement);
    let mut statement = if system {
        limited(snapshot, &statement)?;
        super::system::rewrite(statement)
    } else {
        expand(snapshot, statement)?
    };
    let mut plain = Plain {
        snapshot,
        system,
        error: None,
    };
    let _ = VisitMut::visit(&mut statement, &mut plain);
    plain.error.map_or(Ok(statement), Err)
}

/// Holds a query that is not expanded here against the limits; an expanded one has been.
pub(super) fn limited(snapshot: &Snapshot, statement: &ast::Statement) -> Result<()> {
    /// About as many columns as a system table has.
    const SYSTEM_COLUMNS: usize = 20;
    let ast::Statement::Query(query) = statement else {
        return Ok(());
    };
    tidemark_planner::check_limits(query, &|relation| {
        let parts: Vec<String> = relation
            .0
            .iter()
            .filter_map(ObjectNamePart::as_ident)
            .map(fold)
            .collect();
        let (schema, name) = match parts.as_slice() {
            [.., schema, name] => (Some(schema.as_str()), name.as_str()),
            [name] => (None, name.as_str()),
            [] => return SYSTEM_COLUMNS,
        };
        let found = snapshot.find(schema, name);
        found.map_or(SYSTEM_COLUMNS, |relation| relation.visible().count())
    })
}

fn expand(snapshot: &Snapshot, statement: ast::Statement) -> Result<ast::Statement> {
    let ast::Statement::Query(query) = statement else {
        return Ok(statement);
    };
    let catalog = match snapshot.overrides.as_slice() {
        [] => snapshot.catalog.clone(),
        own => Arc::new(with_own(&snapshot.catalog, own, &snapshot.search_path)),
    };
    let Expanded { query, reads, read } =
        snapshot
            .commons
            .sql
            .expand(&catalog, &snapshot.search_path, *query)?;
    check_reads(&snapshot.catalog, &snapshot.user, &reads)?;
    // What a view reads, its owner may.
    snapshot.readable.lock().extend(read);
    Ok(ast::Statement::Query(Box::new(query)))
}

/// The catalog with the tables of one statement alone, which hide others of their names.
fn with_own(catalog: &Catalog, own: &[Override], search_path: &[String]) -> Catalog {
    let mut catalog = catalog.clone();
    let schemas = search_path.iter().map(String::as_str);
    let exists = |schema: &&str| *schema == "public" || catalog.schemas.iter().any(|s| s == schema);
    let schema = schemas.clone().find(exists).unwrap_or("public");
    for (id, table) in (catalog.next_id..).map(RelationId).zip(own) {
        let relations = &mut catalog.relations;
        relations.retain(|_, r| r.name != table.name || r.schema_name != schema);
        let relation = Relation {
            id,
            name: table.name.clone(),
            schema_name: schema.to_string(),
            ..table.relation.as_ref().clone()
        };
        relations.insert(id, Arc::new(relation));
    }
    catalog
}

/// Whether a statement names a system table: by schema, or a `pg_` name that no relation has.
pub fn reads_system_tables(statement: &ast::Statement) -> bool {
    struct Finder(bool);
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
            let parts: Vec<String> = relation
                .0
                .iter()
                .filter_map(ObjectNamePart::as_ident)
                .map(|i| i.value.to_lowercase())
                .collect();
            let (schema, name) = match parts.as_slice() {
                [.., schema, name] => (schema.as_str(), name.as_str()),
                [name] => ("", name.as_str()),
                [] => return ControlFlow::Continue(()),
            };
            if matches!(schema, "pg_catalog" | "information_schema" | "tidemark")
                || (schema.is_empty() && name.starts_with("pg_"))
            {
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
    /// Whether the query is over system tables, whose types of texts are known by name only.
    system: bool,
    error: Option<Error>,
}

impl Plain<'_> {
    /// The relation of a FROM item, under the name that it has there.
    fn table_of(
        &self,
        factor: &ast::TableFactor,
    ) -> Option<(String, Arc<tidemark_plan::Relation>)> {
        let ast::TableFactor::Table {
            name,
            alias,
            args: None,
            ..
        } = factor
        else {
            return None;
        };
        let parts: Vec<String> = name
            .0
            .iter()
            .filter_map(ObjectNamePart::as_ident)
            .map(fold)
            .collect();
        let (last, rest) = parts.split_last()?;
        let relation = self.snapshot.find(rest.last().map(String::as_str), last)?;
        Some((
            alias
                .as_ref()
                .map_or_else(|| last.clone(), |a| fold(&a.name)),
            relation.clone(),
        ))
    }
}

fn fold(ident: &Ident) -> String {
    if ident.quote_style.is_some() {
        ident.value.clone()
    } else {
        ident.value.to_lowercase()
    }
}

impl VisitorMut for Plain<'_> {
    type Break = ();

    /// A table's name as a value is its row: `select t from t`.
    fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<()> {
        let factors = select
            .from
            .iter()
            .flat_map(|t| std::iter::once(&t.relation).chain(t.joins.iter().map(|j| &j.relation)));
        let tables: Vec<(String, Arc<tidemark_plan::Relation>)> =
            factors.filter_map(|f| self.table_of(f)).collect();
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                if self.system {
                    exists_as_value(expr);
                }
                series_as_rows(expr);
            }
            let SelectItem::UnnamedExpr(expr) = item else {
                continue;
            };
            let Expr::Identifier(ident) = &expr else {
                continue;
            };
            let name = fold(ident);
            let is_column = tables
                .iter()
                .any(|(_, r)| r.columns.iter().any(|c| c.name == name));
            if let Some((_, relation)) = tables.iter().find(|(n, _)| *n == name && !is_column) {
                let quoted = |s: &str| Ident::with_quote('"', s);
                let pairs = relation.visible().flat_map(|(_, c)| {
                    [
                        Expr::Value(Value::SingleQuotedString(c.name.clone()).into()),
                        Expr::CompoundIdentifier(vec![quoted(&name), quoted(&c.name)]),
                    ]
                });
                *item = SelectItem::ExprWithAlias {
                    expr: call_with("named_struct", pairs.collect()),
                    alias: ident.clone(),
                };
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut ast::TableFactor) -> ControlFlow<()> {
        if matches!(
            factor,
            ast::TableFactor::Table {
                sample: Some(_),
                ..
            }
        ) {
            self.error = Some(Error::unsupported("TABLESAMPLE is not supported"));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// The one column of `f(..) g` is called `g`; without alias it has the function's name.
    fn post_visit_table_factor(&mut self, factor: &mut ast::TableFactor) -> ControlFlow<()> {
        if let ast::TableFactor::Table {
            name,
            args: Some(_),
            alias,
            ..
        } = factor
        {
            let function = name
                .0
                .last()
                .and_then(ObjectNamePart::as_ident)
                .cloned()
                .unwrap_or_else(|| Ident::new("f"));
            if !TABLE_FUNCTIONS.contains(&function.value.to_lowercase().as_str()) {
                let alias = alias.get_or_insert_with(|| ast::TableAlias {
                    explicit: true,
                    name: function.clone(),
                    columns: Vec::new(),
                    at: None,
                });
                if alias.columns.is_empty() {
                    alias.columns = vec![ast::TableAliasColumnDef {
                        name: alias.name.clone(),
                        data_type: None,
                    }];
                }
            }
            *name = ObjectName::from(vec![function]);
        }
        ControlFlow::Continue(())
    }

    /// `'x'::regclass::text` is the name of x.
    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast {
            expr: outer,
            data_type: ast::DataType::Text | ast::DataType::Varchar(None),
            ..
        } = expr
            && let Expr::Cast {
                expr: inner,
                data_type,
                ..
            } = outer.as_ref()
            && is_regclass(data_type)
            && matches!(inner.as_ref(), Expr::Value(v)
                if matches!(v.value, Value::SingleQuotedString(_)))
        {
            if let Expr::Value(v) = inner.as_ref()
                && let Value::SingleQuotedString(name) = &v.value
                && self.snapshot.find(None, name).is_none()
                && crate::catalog_tables::oids::of_system_table(name).is_some()
            {
                **outer = inner.as_ref().clone();
                return ControlFlow::Continue(());
            }
            let oid = std::mem::replace(outer.as_mut(), Expr::Value(Value::Null.into()));
            **outer = call_with("regclass_name", vec![oid]);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            // Functions are known by their last name.
            Expr::Function(function) => {
                if let Err(e) = check_window_arguments(function) {
                    self.error = Some(e);
                    return ControlFlow::Break(());
                }
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
            Expr::Like {
                pattern,
                escape_char,
                ..
            }
            | Expr::ILike {
                pattern,
                escape_char,
                ..
            } => {
                if let Some(escape) = escape_char.take()
                    && escape.value.to_string().trim_matches('\'') != "\\"
                {
                    let escape = Expr::Value(escape);
                    **pattern = call_with(
                        "like_escape",
                        vec![
                            std::mem::replace(pattern, Expr::Value(Value::Null.into())),
                            escape,
                        ],
                    );
                }
            }
            Expr::AnyOp {
                left,
                compare_op: BinaryOperator::Eq,
                right,
                ..
            } => {
                if let Some(list) = elements(right) {
                    *expr = in_list(left, list, false);
                }
            }
            Expr::AllOp {
                left,
                compare_op: BinaryOperator::NotEq,
                right,
            } => {
                *expr = match elements(right) {
                    Some(list) => in_list(left, list, true),
                    None => {
                        let any = Expr::AnyOp {
                            left: left.clone(),
                            compare_op: BinaryOperator::Eq,
                            right: right.clone(),
                            is_some: false,
                        };
                        Expr::UnaryOp {
                            op: ast::UnaryOperator::Not,
                            expr: Box::new(Expr::Nested(Box::new(any))),
                        }
                    }
                };
            }
            Expr::Collate {
                expr: inner,
                collation,
            } => {
                if let Err(e) = tidemark_planner::check_collation(collation) {
                    self.error = Some(e);
                    return ControlFlow::Break(());
                }
                *expr = std::mem::replace(inner, Expr::Value(Value::Null.into()))
            }
            Expr::Cast { data_type, .. }
                if !self.system
                    && custom_name(data_type).is_some_and(|n| TEXTS.contains(&n.as_str())) =>
            {
                let e = Error::unsupported(format!("type {data_type} is not supported"));
                self.error = Some(e);
                return ControlFlow::Break(());
            }
            // 'x'::regclass is the oid of x.
            Expr::Cast {
                expr: inner,
                data_type,
                ..
            } if is_regclass(data_type) => {
                if let Expr::Value(v) = inner.as_ref()
                    && let Value::SingleQuotedString(name) = &v.value
                    && name.parse::<i64>().is_err()
                {
                    match oid_of_name(self.snapshot, name) {
                        Some(oid) => {
                            *expr = Expr::Value(Value::Number(oid.to_string(), false).into())
                        }
                        None => {
                            self.error = Some(Error::user(
                                SqlState::UNDEFINED_TABLE,
                                format!("relation \"{name}\" does not exist"),
                            ));
                            return ControlFlow::Break(());
                        }
                    }
                }
            }
            Expr::Cast {
                expr: inner,
                data_type,
                ..
            } if is_type_name(data_type) => {
                if let Expr::Value(v) = inner.as_ref()
                    && let Value::SingleQuotedString(name) = &v.value
                    && let Some(oid) = object_oid(data_type, name)
                {
                    *expr = Expr::Value(Value::Number(oid.to_string(), false).into());
                }
            }
            // current_user and its like stand without parentheses.
            Expr::Identifier(Ident {
                value,
                quote_style: None,
                ..
            }) if matches!(
                value.to_lowercase().as_str(),
                "current_catalog"
                    | "current_schema"
                    | "current_role"
                    | "session_user"
                    | "current_user"
            ) =>
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

/// `42883` for window functions without the argument that DataFusion takes for granted.
fn check_window_arguments(function: &ast::Function) -> Result<()> {
    let name = function.name.to_string().to_lowercase();
    let none = matches!(&function.args, ast::FunctionArguments::List(l) if l.args.is_empty());
    let needs = [
        "first_value",
        "last_value",
        "nth_value",
        "lag",
        "lead",
        "ntile",
    ];
    if none && function.over.is_some() && needs.contains(&name.as_str()) {
        let e = super::functions::no_function(&name, &[]);
        return Err(crate::error::from_datafusion(e));
    }
    Ok(())
}

/// Types that are texts to queries over system tables, and are not known elsewhere: nothing checks
/// their values.
const TEXTS: [&str; 6] = [
    "aclitem",
    "citext",
    "cstring",
    "inet",
    "pg_node_tree",
    "regconfig",
];

/// The elements of a constant array: `ARRAY[1, 2]`, or `'{1,2}'`, whose elements take the type of
/// what they are compared with.
fn elements(array: &Expr) -> Option<Vec<Expr>> {
    match array {
        Expr::Nested(inner) => elements(inner),
        Expr::Array(array) => Some(array.elem.clone()),
        Expr::Cast {
            expr,
            data_type: ast::DataType::Array(ast::ArrayElemTypeDef::SquareBracket(element, _)),
            kind,
            ..
        } => {
            let cast = |e| Expr::Cast {
                kind: kind.clone(),
                expr: Box::new(e),
                data_type: element.as_ref().clone(),
                array: false,
                format: None,
            };
            Some(elements(expr)?.into_iter().map(cast).collect())
        }
        Expr::Value(v) => match &v.value {
            Value::SingleQuotedString(text) => {
                let mut all = Vec::new();
                let read = tidemark_values::array::read(text, |e| {
                    let value = e.map(|e| Value::SingleQuotedString(e.to_string()));
                    all.push(Expr::Value(value.unwrap_or(Value::Null).into()));
                });
                read.ok().map(|()| all)
            }
            _ => None,
        },
        _ => None,
    }
}

/// `x = ANY(array)` and `x <> ALL(array)` as IN and NOT IN, which are looked up by key. Nothing
/// equals an element of an empty array.
fn in_list(left: &Expr, list: Vec<Expr>, negated: bool) -> Expr {
    if list.is_empty() {
        return Expr::Value(Value::Boolean(negated).into());
    }
    Expr::InList {
        expr: Box::new(left.clone()),
        list,
        negated,
    }
}

/// `SELECT generate_series(1, 3)` gives a row for each.
fn series_as_rows(expr: &mut Expr) {
    let Expr::Function(f) = &*expr else {
        return;
    };
    let name = f.name.to_string().to_lowercase();
    let list = match name.trim_start_matches("pg_catalog.") {
        "generate_series" => "series_list",
        "pg_listening_channels" => "pg_listening_channels",
        _ => return,
    };
    let mut call = expr.clone();
    if let Expr::Function(f) = &mut call {
        f.name = ObjectName::from(vec![Ident::new(list)]);
    }
    *expr = call_with("unnest", vec![call]);
}

/// EXISTS in a select list over system tables, where DataFusion plans scalar subqueries only:
/// whether the rows count more than none. Over relations the planner's rules see to it, as in
/// views.
fn exists_as_value(expr: &mut Expr) {
    struct Counted;
    impl VisitorMut for Counted {
        type Break = ();
        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::Exists { subquery, negated } = expr {
                let op = if *negated {
                    BinaryOperator::Eq
                } else {
                    BinaryOperator::Gt
                };
                let none = Expr::Value(Value::Number("0".into(), false).into());
                let any = Expr::BinaryOp {
                    left: Box::new(count_rows()),
                    op,
                    right: Box::new(none),
                };
                *expr = Expr::Subquery(counting(subquery, any));
            }
            ControlFlow::Continue(())
        }
    }
    let _ = VisitMut::visit(expr, &mut Counted);
}

fn count_rows() -> Expr {
    call_with(
        "count",
        vec![Expr::Value(Value::Number("1".into(), false).into())],
    )
}

/// The query with `any` as its only column, over its own rows where that is the same, else over it
/// as a table.
fn counting(query: &ast::Query, any: Expr) -> Box<ast::Query> {
    let mut counted = query.clone();
    let plain = query.limit_clause.is_none() && query.fetch.is_none() && query.with.is_none();
    if let ast::SetExpr::Select(select) = counted.body.as_mut() {
        let grouped = select.having.is_some()
            || !matches!(&select.group_by, ast::GroupByExpr::Expressions(e, _) if e.is_empty())
            || select.projection.iter().any(has_call);
        if plain && !grouped {
            select.distinct = None;
            select.projection = vec![SelectItem::UnnamedExpr(any)];
            counted.order_by = None;
            return Box::new(counted);
        }
        select.distinct = None;
        select.projection = vec![SelectItem::UnnamedExpr(any)];
        select.from = vec![ast::TableWithJoins {
            relation: ast::TableFactor::Derived {
                lateral: false,
                subquery: Box::new(query.clone()),
                alias: Some(ast::TableAlias {
                    explicit: true,
                    name: Ident::new("counted"),
                    columns: Vec::new(),
                    at: None,
                }),
                sample: None,
            },
            joins: Vec::new(),
        }];
        select.selection = None;
        select.having = None;
        select.group_by = ast::GroupByExpr::Expressions(Vec::new(), Vec::new());
        (
            counted.order_by,
            counted.limit_clause,
            counted.fetch,
            counted.with,
        ) = (None, None, None, None);
    }
    Box::new(counted)
}

/// Whether a select item calls a function, which may be an aggregate.
fn has_call(item: &SelectItem) -> bool {
    struct Finder(bool);
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            self.0 |= matches!(expr, Expr::Function(_));
            ControlFlow::Continue(())
        }
    }
    let mut finder = Finder(false);
    let _ = Visit::visit(item, &mut finder);
    finder.0
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

/// `regtype`, `regproc`.
fn is_type_name(data_type: &ast::DataType) -> bool {
    custom_name(data_type)
        .is_some_and(|n| matches!(n.as_str(), "regtype" | "regproc" | "regprocedure"))
}

fn custom_name(data_type: &ast::DataType) -> Option<String> {
    match data_type {
        ast::DataType::Custom(name, _) => name
            .0
            .last()
            .and_then(ObjectNamePart::as_ident)
            .map(|i| i.value.to_lowercase()),
        _ => None,
    }
}

/// The oid of a type or function by name.
fn object_oid(data_type: &ast::DataType, name: &str) -> Option<i32> {
    match custom_name(data_type)?.as_str() {
        "regtype" => crate::types::by_name(name).map(|t| t.oid() as i32),
        _ => crate::catalog_tables::statics::function_oid(name.split('(').next().unwrap_or(name)),
    }
}

fn is_regclass(data_type: &ast::DataType) -> bool {
    match data_type {
        ast::DataType::Regclass => true,
        ast::DataType::Custom(name, _) => name
            .0
            .last()
            .and_then(ObjectNamePart::as_ident)
            .is_some_and(|i| i.value.eq_ignore_ascii_case("regclass")),
        _ => false,
    }
}

/// `name(args)`.
pub fn call_with(name: &str, args: Vec<Expr>) -> Expr {
    let mut expr = call(name);
    if let Expr::Function(function) = &mut expr
        && let ast::FunctionArguments::List(list) = &mut function.args
    {
        list.args = args
            .into_iter()
            .map(|a| ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(a)))
            .collect();
    }
    expr
}

/// A call without arguments.
pub fn call(name: &str) -> Expr {
    Expr::Function(ast::Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: ast::FunctionArguments::None,
        args: ast::FunctionArguments::List(ast::FunctionArgumentList {
            duplicate_treatment: None,
            args: Vec::new(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}
