//! Queries over the system catalogs, brought into forms that DataFusion plans.
//!
//! | PostgreSQL | here |
//! | --- | --- |
//! | a scalar subquery over a catalog, of at most one row | `max` of it: that is decorrelated |
//! | `array(select x ..)` | `(select array_agg(x) ..)` |
//! | `x::regclass::text`, `x::regclass` in a select list | the relation's name |
//! | `'name'::regclass`, `expr::regclass` elsewhere | the oid |
//! | `x::regtype::text` | `format_type(x, NULL)` |
//! | `indkey[0]` | `indkey[1]`: arrays begin at 1 |
//! | `_pg_expandarray(a)` | `unnest` of (x, n) |
//! | `x = ANY ('{a,b}')`, `'{a,b}'::text[]` | arrays of literals ([`system_arrays`]) |
//! | `t.oid, t.*` and `ORDER BY oid` | an alias, a qualified name ([`system_columns`]) |
//!
//! What still cannot be planned is a subquery in a select list over tables that stay empty:
//! [`with_empty_subqueries`] takes their rows away and keeps their types; where that is not enough,
//! [`without_subqueries`] makes NULLs of those.

use super::rewrite::call_with;
use super::{system_arrays, system_columns};
use crate::parameters;
use datafusion::sql::sqlparser::ast::{
    self, AccessExpr, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, SelectItem, SetExpr,
    Subscript, Value, VisitMut, VisitorMut,
};
use std::ops::ControlFlow;

/// Rewrites a system query.
pub fn rewrite(mut statement: ast::Statement) -> ast::Statement {
    if let ast::Statement::Query(query) = &mut statement {
        system_columns::rewrite(query);
    }
    let _ = VisitMut::visit(&mut statement, &mut system_arrays::Arrays);
    let _ = VisitMut::visit(&mut statement, &mut System);
    statement
}

/// The same query with no rows in the subqueries of its select lists, which compare nothing with
/// the outside then.
pub fn with_empty_subqueries(mut statement: ast::Statement) -> ast::Statement {
    struct Lists;
    impl VisitorMut for Lists {
        type Break = ();
        fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<()> {
            for item in &mut select.projection {
                let _ = VisitMut::visit(item, &mut Empty);
            }
            ControlFlow::Continue(())
        }
    }
    struct Empty;
    impl VisitorMut for Empty {
        type Break = ();
        fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<()> {
            select.selection = Some(Expr::Value(Value::Boolean(false).into()));
            ControlFlow::Continue(())
        }
    }
    let _ = VisitMut::visit(&mut statement, &mut Lists);
    statement
}

/// The same query with NULL for every subquery in its select lists.
pub fn without_subqueries(mut statement: ast::Statement) -> ast::Statement {
    struct Nulls;
    impl VisitorMut for Nulls {
        type Break = ();
        fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<()> {
            struct Inner;
            impl VisitorMut for Inner {
                type Break = ();
                fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
                    let array = matches!(expr, Expr::Function(f)
                        if matches!(f.args, FunctionArguments::Subquery(_)));
                    if array {
                        let data_type = ast::DataType::Array(ast::ArrayElemTypeDef::SquareBracket(
                            Box::new(ast::DataType::Text),
                            None,
                        ));
                        *expr = Expr::Cast {
                            kind: ast::CastKind::Cast,
                            expr: Box::new(parameters::null(None)),
                            data_type,
                            array: false,
                            format: None,
                        };
                    } else if matches!(expr, Expr::Subquery(_)) {
                        *expr = parameters::null(None);
                    } else if matches!(expr, Expr::Exists { .. }) {
                        *expr = Expr::Value(Value::Boolean(false).into());
                    }
                    ControlFlow::Continue(())
                }
            }
            for item in &mut select.projection {
                let _ = VisitMut::visit(item, &mut Inner);
            }
            ControlFlow::Continue(())
        }
    }
    let _ = VisitMut::visit(&mut statement, &mut Nulls);
    statement
}

struct System;

fn function_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Function(f) => f
            .name
            .0
            .last()
            .and_then(|p| p.as_ident())
            .map(|i| i.value.to_lowercase()),
        _ => None,
    }
}

/// The last part of a type's name: `regclass` of `pg_catalog.regclass`.
fn type_base(data_type: &ast::DataType) -> String {
    let text = data_type.to_string().to_lowercase();
    text.rsplit('.')
        .next()
        .unwrap_or_default()
        .trim_matches('"')
        .to_string()
}

fn is_aggregate(expr: &Expr) -> bool {
    struct Finder(bool);
    impl ast::Visitor for Finder {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let aggregates = [
                "count",
                "max",
                "min",
                "sum",
                "avg",
                "string_agg",
                "array_agg",
                "bool_and",
                "bool_or",
                "every",
                "json_agg",
            ];
            self.0 |= function_name(expr).is_some_and(|n| aggregates.contains(&n.as_str()));
            ControlFlow::Continue(())
        }
    }
    let mut finder = Finder(false);
    let _ = ast::Visit::visit(expr, &mut finder);
    finder.0
}

/// Puts `wrap` around the only column of a subquery over tables, and takes its ORDER BY and LIMIT
/// away.
fn wrap_column(query: &mut ast::Query, wrap: &str) {
    let SetExpr::Select(select) = query.body.as_mut() else {
        return;
    };
    if select.from.is_empty() || select.projection.len() != 1 {
        return;
    }
    let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) =
        &mut select.projection[0]
    else {
        return;
    };
    if wrap == "max" && is_aggregate(expr) {
        return;
    }
    let inner = take(expr);
    *expr = call_with(wrap, vec![inner]);
    query.order_by = None;
    query.limit_clause = None;
    query.fetch = None;
}

/// The text of an object identifier that a cast makes: what a client is shown.
fn shown(expr: Expr, base: &str) -> Expr {
    match base {
        "regclass" => call_with("regclass_name", vec![expr]),
        "regtype" => call_with("format_type", vec![expr, parameters::null(None)]),
        "regnamespace" => call_with("regnamespace_name", vec![expr]),
        "regrole" => call_with("pg_get_userbyid", vec![expr]),
        _ => expr,
    }
}

fn is_text(base: &str) -> bool {
    matches!(base, "text" | "varchar" | "name" | "character varying")
}

impl VisitorMut for System {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut ast::TableFactor) -> ControlFlow<()> {
        if let ast::TableFactor::Table {
            name,
            args: Some(args),
            alias,
            ..
        } = factor
            && name
                .0
                .last()
                .and_then(|p| p.as_ident())
                .is_some_and(|i| i.value.eq_ignore_ascii_case("unnest"))
        {
            let expr = |a: &FunctionArg| {
                if let FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) = a {
                    Some(e.clone())
                } else {
                    None
                }
            };
            let array_exprs = args.args.iter().filter_map(expr).collect();
            *factor = ast::TableFactor::UNNEST {
                alias: alias.take(),
                array_exprs,
                with_offset: false,
                with_offset_alias: None,
                with_ordinality: false,
            };
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            let _ = VisitMut::visit(item, &mut CountExists);
            let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item
            else {
                continue;
            };
            if let Expr::Cast {
                expr: inner,
                data_type,
                ..
            } = expr
                && matches!(
                    type_base(data_type).as_str(),
                    "regclass" | "regnamespace" | "regrole"
                )
                && !is_string(inner)
            {
                *expr = shown(take(inner), &type_base(data_type));
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast {
            expr: outer,
            data_type,
            ..
        } = expr
            && is_text(&type_base(data_type))
            && let Expr::Cast {
                expr: inner,
                data_type: kind,
                ..
            } = outer.as_mut()
            && matches!(
                type_base(kind).as_str(),
                "regclass" | "regtype" | "regnamespace" | "regrole"
            )
        {
            let inner = take(inner);
            *expr = shown(inner, &type_base(kind));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Subquery(query) => wrap_column(query, "max"),
            Expr::Cast {
                expr: inner,
                data_type,
                ..
            } => match type_base(data_type).as_str() {
                "regclass" if !is_string(inner) => {
                    *expr = call_with("to_regclass", vec![take(inner)])
                }
                "regtype" => *expr = call_with("to_regtype", vec![take(inner)]),
                "regproc" | "regprocedure" => *expr = call_with("to_regproc", vec![take(inner)]),
                "regnamespace" => *expr = call_with("to_regnamespace", vec![take(inner)]),
                _ => {}
            },
            Expr::CompoundFieldAccess { root, access_chain }
                if matches!(
                    access_chain.as_slice(),
                    [AccessExpr::Dot(Expr::Identifier(_))]
                ) =>
            {
                if let [AccessExpr::Dot(Expr::Identifier(field))] = access_chain.as_slice() {
                    let name = Expr::Value(Value::SingleQuotedString(field.value.clone()).into());
                    *expr = call_with("get_field", vec![take(root), name]);
                }
            }
            // array = '{1,2}'
            Expr::BinaryOp {
                left,
                op: ast::BinaryOperator::Eq | ast::BinaryOperator::NotEq,
                right,
            } => {
                if let Expr::Value(v) = right.as_mut()
                    && let Value::SingleQuotedString(text) = &mut v.value
                    && let Some(inner) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}'))
                {
                    *text = inner.to_string();
                    let comma = Expr::Value(Value::SingleQuotedString(",".into()).into());
                    **left = call_with("array_to_string", vec![take(left), comma]);
                }
            }
            // The table that a row of a system table is in: nobody knows, nobody minds.
            Expr::CompoundIdentifier(parts)
                if parts
                    .last()
                    .is_some_and(|p| p.value.eq_ignore_ascii_case("tableoid")) =>
            {
                *expr = Expr::Value(Value::Number("0".into(), false).into());
            }
            Expr::CompoundFieldAccess { root, access_chain } => {
                let vector = root.to_string().to_lowercase();
                if [
                    "indkey",
                    "indclass",
                    "indoption",
                    "indcollation",
                    "proargtypes",
                ]
                .iter()
                .any(|v| vector.ends_with(v))
                    && let [AccessExpr::Subscript(Subscript::Index { index })] =
                        access_chain.as_mut_slice()
                {
                    let one = Expr::Value(Value::Number("1".into(), false).into());
                    *index = Expr::BinaryOp {
                        left: Box::new(index.clone()),
                        op: ast::BinaryOperator::Plus,
                        right: Box::new(one),
                    };
                }
            }
            Expr::Function(function) => {
                match function_name(&Expr::Function(function.clone())).as_deref() {
                    Some("array") => {
                        if let FunctionArguments::Subquery(query) = &function.args {
                            let mut query = query.clone();
                            wrap_column(&mut query, "array_agg");
                            *expr = Expr::Subquery(query);
                        }
                    }
                    Some("coalesce") => {
                        if let FunctionArguments::List(list) = &mut function.args {
                            list.args.retain(|a| {
                                !matches!(a, FunctionArg::Unnamed(FunctionArgExpr::Expr(e))
                                    if e.to_string() == "'{}'")
                            });
                        }
                    }
                    Some(name @ ("_pg_expandarray" | "generate_subscripts")) => {
                        if name == "generate_subscripts" {
                            function.name =
                                ast::ObjectName::from(vec![ast::Ident::new("subscripts_list")]);
                        }
                        let inner = take(expr);
                        *expr = call_with("unnest", vec![inner]);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn is_string(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(v) if matches!(v.value, Value::SingleQuotedString(_)))
}

/// `EXISTS (select ..)` in a select list as `(select count(*) ..) > 0`, which can be decorrelated
/// there.
struct CountExists;

impl VisitorMut for CountExists {
    type Break = ();
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Exists { subquery, negated } = expr {
            let mut query = subquery.clone();
            if let SetExpr::Select(select) = query.body.as_mut() {
                select.projection = vec![SelectItem::UnnamedExpr(call_with(
                    "count",
                    vec![Expr::Value(Value::Number("1".into(), false).into())],
                ))];
            }
            let op = if *negated {
                ast::BinaryOperator::Eq
            } else {
                ast::BinaryOperator::Gt
            };
            let zero = Expr::Value(Value::Number("0".into(), false).into());
            *expr = Expr::BinaryOp {
                left: Box::new(Expr::Subquery(query)),
                op,
                right: Box::new(zero),
            };
        }
        ControlFlow::Continue(())
    }
}

/// The expression, with NULL left in its place.
fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, parameters::null(None))
}
