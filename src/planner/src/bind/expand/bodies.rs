//! The bodies of functions that statements made: what they are as values, and what they name.

use super::Provider;
use crate::bind::Registry;
use crate::bind::names::column_name;
use crate::bind::unnest::gives_rows;
use crate::names::{fold, name_of};
use crate::parse::{DIALECT, parse_query};
use crate::statement::{CreateFunction, Positions};
use datafusion_sql::sqlparser::ast::{self, Expr, Query, SetExpr, TableFactor, Visit, Visitor};
use datafusion_sql::sqlparser::parser::Parser;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use tidemark_common::{Error, Result};

/// The body as a value: its only expression, or a subquery of at most one row.
pub(super) fn body_of(written: &CreateFunction, registry: &Registry) -> Result<Expr> {
    let mut body = written.body.clone();
    if let Some(value) = only_value(&body, registry) {
        return Ok(value);
    }
    if !gives_one_row(&body, registry) && body.limit_clause.is_none() && body.fetch.is_none() {
        let one = Expr::Value(ast::Value::Number("1".into(), false).into());
        body.limit_clause = Some(ast::LimitClause::LimitOffset {
            limit: Some(one),
            offset: None,
            limit_by: Vec::new(),
        });
    }
    Ok(Expr::Subquery(body))
}

/// The expression of a body that is nothing else, and no aggregate.
fn only_value(body: &Query, registry: &Registry) -> Option<Expr> {
    let plain = parse_query("SELECT NULL").ok()?;
    let mut rest = body.clone();
    let SetExpr::Select(select) = rest.body.as_mut() else {
        return None;
    };
    let value = match select.projection.as_slice() {
        [ast::SelectItem::UnnamedExpr(e)] => e.clone(),
        [ast::SelectItem::ExprWithAlias { expr, .. }] => expr.clone(),
        _ => return None,
    };
    if let SetExpr::Select(plain) = plain.body.as_ref() {
        select.projection.clone_from(&plain.projection);
    }
    let nothing_else = rest.to_string() == plain.to_string();
    let collects = Visit::visit(&value, &mut Collects(registry)).is_break();
    (nothing_else && !collects).then_some(value)
}

pub(super) fn collected(function: &str) -> Error {
    let message =
        format!("an aggregate of nothing but parameters, in function {function}, is not supported");
    Error::unsupported(message)
        .with_detail("Where the body stands it would be one of the query around it.")
}

/// Whether a body has an aggregate of parameters alone: it would be one of the query in which the
/// function is called.
pub(crate) fn collects_parameters(written: &CreateFunction, provider: &Provider<'_>) -> bool {
    struct Find<'a, 'b> {
        written: &'a CreateFunction,
        provider: &'a Provider<'b>,
        names: BTreeSet<String>,
    }
    impl Visitor for Find<'_, '_> {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let Expr::Function(call) = expr else {
                return ControlFlow::Continue(());
            };
            if !is_aggregate(expr, self.provider.registry) || call.over.is_some() {
                return ControlFlow::Continue(());
            }
            let mut used = Used {
                written: self.written,
                names: &self.names,
                parameters: false,
                columns: false,
            };
            let _ = Visit::visit(call, &mut used);
            match used.parameters && !used.columns {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        }
    }
    struct Used<'a> {
        written: &'a CreateFunction,
        names: &'a BTreeSet<String>,
        parameters: bool,
        columns: bool,
    }
    impl Visitor for Used<'_> {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let is_parameter = |name: &String| {
                let mut parameters = self.written.parameters.iter();
                parameters.any(|p| p.name.as_ref() == Some(name)) && !self.names.contains(name)
            };
            let is = match expr {
                Expr::Identifier(ident) => is_parameter(&fold(ident.clone())),
                Expr::CompoundIdentifier(parts) => {
                    let of = parts.first().cloned().map(fold);
                    of.as_ref() == Some(&self.written.name.name)
                }
                Expr::Value(v) if matches!(v.value, ast::Value::Placeholder(_)) => true,
                _ => return ControlFlow::Continue(()),
            };
            self.parameters |= is;
            self.columns |= !is;
            ControlFlow::Continue(())
        }
    }
    let mut find = Find {
        written,
        provider,
        names: named_in(&*written.body, provider).unwrap_or_default(),
    };
    Visit::visit(&written.body, &mut find).is_break()
}

/// Whether a body has one row, whatever there is: an aggregate without groups, or no FROM.
fn gives_one_row(body: &Query, registry: &Registry) -> bool {
    let SetExpr::Select(select) = body.body.as_ref() else {
        return false;
    };
    let grouped = !matches!(&select.group_by,
        ast::GroupByExpr::Expressions(groups, modifiers)
            if groups.is_empty() && modifiers.is_empty());
    let sets = Visit::visit(&select.projection, &mut Sets(registry)).is_break();
    let collects = Visit::visit(&select.projection, &mut Aggregates(registry)).is_break();
    !grouped && !sets && select.having.is_none() && (collects || select.from.is_empty())
}

/// Looks for aggregates, window functions and functions of rows outside of subqueries.
struct Collects<'a>(&'a Registry);

impl Visitor for Collects<'_> {
    type Break = ();
    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match is_aggregate(expr, self.0) || is_set(expr) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

struct Aggregates<'a>(&'a Registry);

impl Visitor for Aggregates<'_> {
    type Break = ();
    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(f) if f.over.is_none() && is_aggregate(expr, self.0) => {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

struct Sets<'a>(&'a Registry);

impl Visitor for Sets<'_> {
    type Break = ();
    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let windowed = matches!(expr, Expr::Function(f) if f.over.is_some());
        match is_set(expr) || windowed && is_aggregate(expr, self.0) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

fn is_aggregate(expr: &Expr, registry: &Registry) -> bool {
    matches!(expr, Expr::Function(f)
        if f.over.is_some() || registry.is_aggregate(&f.name.to_string().to_lowercase()))
}

fn is_set(expr: &Expr) -> bool {
    matches!(expr, Expr::Function(f) if gives_rows(&f.name))
}

/// `CASE WHEN $1 IS NULL OR .. THEN NULL ELSE value END`.
pub(super) fn strict(value: Expr, parameters: usize) -> Result<Expr> {
    let tests: Vec<String> = (1..=parameters).map(|n| format!("${n} IS NULL")).collect();
    let text = format!("CASE WHEN {} THEN NULL ELSE NULL END", tests.join(" OR "));
    let parsed = Parser::new(&DIALECT).try_with_sql(&text);
    let parsed = parsed.and_then(|mut p| p.parse_expr());
    let mut case = parsed.map_err(|e| crate::error::parser_error(e, &Positions::default()))?;
    if let Expr::Case { else_result, .. } = &mut case {
        *else_result = Some(Box::new(value));
    }
    Ok(case)
}

/// That no argument is NULL.
pub(super) fn none_is_null(arguments: &[Expr]) -> Option<Expr> {
    let tests = arguments
        .iter()
        .map(|a| Expr::IsNotNull(Box::new(a.clone())));
    tests.reduce(|left, right| Expr::BinaryOp {
        left: Box::new(left),
        op: ast::BinaryOperator::And,
        right: Box::new(right),
    })
}

/// Whether there is a query in an expression.
pub(super) fn has_queries(expr: &Expr) -> bool {
    struct Queries;
    impl Visitor for Queries {
        type Break = ();
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    Visit::visit(expr, &mut Queries).is_break()
}

/// The names of columns and tables that an expression refers to.
pub(super) fn names_of(expr: &Expr) -> BTreeSet<String> {
    struct Names(BTreeSet<String>);
    impl Visitor for Names {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(ident) => drop(self.0.insert(fold(ident.clone()))),
                Expr::CompoundIdentifier(parts) => {
                    self.0.extend(parts.first().cloned().map(fold));
                }
                _ => {}
            }
            ControlFlow::Continue(())
        }
    }
    let mut names = Names(BTreeSet::new());
    let _ = Visit::visit(expr, &mut names);
    names.0
}

/// The names of all tables and columns that queries in a body bring; `None` if there are none.
pub(super) fn named_in(tree: &impl Visit, provider: &Provider<'_>) -> Option<BTreeSet<String>> {
    struct Named<'a, 'b> {
        provider: &'a Provider<'b>,
        names: BTreeSet<String>,
        queries: usize,
    }
    impl Named<'_, '_> {
        fn alias(&mut self, alias: &ast::TableAlias) {
            self.names.insert(fold(alias.name.clone()));
            let columns = alias.columns.iter().map(|c| fold(c.name.clone()));
            self.names.extend(columns);
        }
    }
    impl Visitor for Named<'_, '_> {
        type Break = ();
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            self.queries += 1;
            let tables = query.with.iter().flat_map(|with| &with.cte_tables);
            tables.for_each(|cte| self.alias(&cte.alias));
            ControlFlow::Continue(())
        }
        fn pre_visit_select(&mut self, select: &ast::Select) -> ControlFlow<()> {
            for item in &select.projection {
                match item {
                    ast::SelectItem::ExprWithAlias { alias, .. } => {
                        self.names.insert(fold(alias.clone()));
                    }
                    // A parameter that is selected names no more than it is.
                    ast::SelectItem::UnnamedExpr(Expr::Identifier(_)) => {}
                    ast::SelectItem::UnnamedExpr(e) => self.names.extend(column_name(e)),
                    _ => {}
                }
            }
            ControlFlow::Continue(())
        }
        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            let (name, alias) = match factor {
                TableFactor::Table { name, alias, .. }
                | TableFactor::Function { name, alias, .. } => (Some(name), alias),
                TableFactor::Derived { alias, .. } | TableFactor::UNNEST { alias, .. } => {
                    (None, alias)
                }
                _ => (None, &None),
            };
            if let Some(alias) = alias {
                self.alias(alias);
            }
            if let Some(name) = name.and_then(|n| name_of(n, 0).ok()) {
                if let Ok(relation) = self.provider.find(name.schema.as_deref(), &name.name) {
                    let columns = relation.visible().map(|(_, c)| c.name.clone());
                    self.names.extend(columns);
                }
                self.names.insert(name.name);
            }
            ControlFlow::Continue(())
        }
    }
    let mut named = Named {
        provider,
        names: BTreeSet::new(),
        queries: 0,
    };
    let _ = Visit::visit(tree, &mut named);
    (named.queries > 0).then_some(named.names)
}
