//! Rewriting of queries before DataFusion's planner sees them, shared by views and ad-hoc queries.
//! All of it is text to text:
//!
//! * a view's name becomes its query in parentheses;
//! * `TUMBLE(rel, time, size [, offset])` becomes a subquery that adds `window_start` and
//!   `window_end`;
//! * `HOP(rel, time, slide, size [, offset])` becomes a cross join with one constant row per window
//!   that a moment lies in;
//! * `SESSION(rel, time, gap [, key ...])` becomes two window functions (`sessions`);
//! * `mod(a, b)` becomes `a % b`;
//! * `= ANY` becomes `IN`, other comparisons with ANY and ALL of arrays become calls
//!   (`quantified`); comparisons of rows become comparisons of their parts (`rows`);
//! * a CASE whose first branch has no type gets one that has (`branches`);
//! * windows stand in place of their names (`named_windows`);
//! * conditions are booleans (`truths`), window functions have PostgreSQL's types and defaults
//!   (`windows`);
//! * `(SELECT min(t.x))` is an aggregate of the query around it (`outer_aggregates`);
//! * `SIMILAR TO` becomes `~`, `~ x` and its like become calls;
//! * `FETCH FIRST n ROWS ONLY` becomes `LIMIT n`;
//! * `x COLLATE "C"` becomes `x`;
//! * `-x` becomes an operator of ours;
//! * constants and casts become what is bound (`constants`);
//! * `width_bucket(x, array)` becomes `width_bucket_of(x, array)`;
//! * functions that give rows become `unnest` (`unnest`), `ARRAY(SELECT ..)` becomes an aggregate
//!   (`array_queries`);
//! * `LATERAL (VALUES ..)` becomes a choice by the number of a row (`lateral_values`);
//! * a call of a function that a statement made becomes the function's body (`inlined`);
//! * fields of rows get names that are no columns' (`fields`);
//! * `EXTRACT`, casts to `timestamp(0)` and `'now'` become calls (`moments`).
//!
//! A moment t lies in the tumbling window that starts at `tumble_start(t, size)`, and in the
//! hopping windows that start at `tumble_start(t, slide) - k * slide` for k = 0, 1, ... as long as
//! they end after t. A time that is NULL lies in no hopping window; TUMBLE keeps its row, with a
//! window that is NULL. Names of common table expressions hide relations.

mod bodies;
mod inlined;

pub(crate) use bodies::collects_parameters;

use super::Provider;
use super::constants::{self, as_type};
use super::time_windows::{hop, session, tumble};
use crate::Read;
use crate::coerce::{DISTINCT, KEEP, NEGATE, NOT_DISTINCT};
use crate::error::parser_error;
use crate::interval::interval_micros;
use crate::limits::{MULTIPLIED_MAX, QUERY_DEPTH_MAX, too_deep, too_large};
use crate::names::{fold, name_of};
use crate::parse::{DIALECT, parse_query};
use crate::statement::{Name, Positions};
use datafusion_sql::sqlparser::ast::{
    self, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Query, TableFactor,
    VisitMut, VisitorMut,
};
use datafusion_sql::sqlparser::parser::Parser;
use datafusion_sql::sqlparser::tokenizer::{Span, Tokenizer};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use tidemark_common::{Error, RelationId, Result, SqlState, check_interrupt};
use tidemark_plan::{Named, Relation, RelationKind};

/// The rewriting of one statement.
pub(crate) struct Expander<'a> {
    provider: &'a Provider<'a>,
    positions: &'a Positions,
    /// Every relation that is named, views and what they read included.
    pub(crate) relations: BTreeSet<RelationId>,
    /// Who names them: the statement, or a view that is read.
    pub(crate) reads: BTreeSet<Read>,
    /// What the names in the statement's own text mean.
    pub(crate) named: BTreeSet<Named>,
    /// The view whose query this is.
    within: Option<&'a Relation>,
    /// Of each table of FROM that is being visited, whether it is a view's query.
    views: Vec<bool>,
    /// Names of common table expressions in scope, innermost last.
    scopes: Vec<BTreeSet<String>>,
    /// The WITH clauses of the queries being visited, taken out while their bodies are.
    withs: Vec<Option<ast::With>>,
    /// How many views are around this query. Inside of one, relations are named with their schema,
    /// so that no common table expression around it hides them.
    depth: usize,
    /// Relations and expressions of the views that are expanded so far, in the whole statement.
    expanded: usize,
    /// Whether the query is maintained, not read once.
    maintained: bool,
}

impl<'a> Expander<'a> {
    pub(crate) fn new(provider: &'a Provider<'a>, positions: &'a Positions) -> Expander<'a> {
        Expander {
            provider,
            positions,
            relations: BTreeSet::new(),
            reads: BTreeSet::new(),
            named: BTreeSet::new(),
            within: None,
            views: Vec::new(),
            scopes: Vec::new(),
            withs: Vec::new(),
            depth: 0,
            expanded: 0,
            maintained: false,
        }
    }

    /// The rewriting of a query that is maintained: it reads no table functions.
    pub(crate) fn maintained(self, maintained: bool) -> Expander<'a> {
        Expander { maintained, ..self }
    }

    /// The rewriting of the query of this view.
    pub(crate) fn inside(self, view: &'a Relation) -> Expander<'a> {
        Expander {
            within: Some(view),
            depth: 1,
            ..self
        }
    }

    /// Rewrites a query. Errors: `42P01` for an unknown relation, with position; `0A000` for a
    /// window function that is not supported.
    pub(crate) fn query(&mut self, query: &mut Query) -> Result<()> {
        match VisitMut::visit(query, self) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }

    /// Rewrites a scalar expression.
    pub(crate) fn expression(&mut self, expr: &mut Expr) -> Result<()> {
        match VisitMut::visit(expr, self) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }

    /// Counts what views stand for: naming one twice doubles it.
    fn count(&mut self) -> Result<()> {
        if self.depth > 0 {
            self.expanded += 1;
            if self.expanded > MULTIPLIED_MAX {
                return Err(too_large());
            }
        }
        Ok(())
    }

    fn position(&self, span: Span) -> usize {
        self.positions.of(span.start).unwrap_or(0)
    }

    /// Rewrites one table of FROM; answers whether it was a plain view.
    fn factor(&mut self, factor: &mut TableFactor) -> Result<bool> {
        if matches!(
            factor,
            TableFactor::Table {
                sample: Some(_),
                ..
            } | TableFactor::Derived {
                sample: Some(_),
                ..
            }
        ) {
            return Err(Error::unsupported("TABLESAMPLE is not supported"));
        }
        self.inlined_factor(factor)?;
        super::records::rewrite(factor)?;
        super::lateral_values::rewrite(factor)?;
        let functions = &self.provider.registry.scalar;
        super::unnest::factor(factor, self.maintained, |name| functions.contains_key(name));
        match factor {
            TableFactor::Table {
                name,
                alias,
                args: Some(args),
                ..
            } => {
                let Some(function) = name.0.last().and_then(|p| p.as_ident()).cloned() else {
                    return Ok(false);
                };
                let alias = alias.as_ref();
                if let Some(replacement) = self.window_function(&function, &args.args, alias)? {
                    *factor = replacement;
                }
                Ok(false)
            }
            TableFactor::Function {
                name, args, alias, ..
            } => {
                let Some(function) = name.0.last().and_then(|p| p.as_ident()).cloned() else {
                    return Ok(false);
                };
                let alias = alias.as_ref();
                if let Some(replacement) = self.window_function(&function, args, alias)? {
                    *factor = replacement;
                }
                Ok(false)
            }
            TableFactor::Table {
                name: object,
                alias,
                args: None,
                ..
            } => {
                let span = object
                    .0
                    .first()
                    .and_then(|p| p.as_ident())
                    .map_or(Span::empty(), |i| i.span);
                let name = name_of(object, self.position(span))?;
                if name.schema.is_none() && self.scopes.iter().any(|s| s.contains(&name.name)) {
                    return Ok(false);
                }
                let relation = self.relation(&name)?;
                self.relations.insert(relation.id);
                if !self.views.contains(&true) {
                    self.reads.insert(Read {
                        within: self.within.map(|view| view.id),
                        relation: relation.id,
                    });
                }
                let is_view = relation.kind == RelationKind::View;
                if is_view {
                    *factor = self.view(&relation, &name.name, alias.take())?;
                } else if self.depth > 0 {
                    let quoted = |s: &str| Ident::with_quote('"', s);
                    *object = ast::ObjectName::from(vec![
                        quoted(&relation.schema_name),
                        quoted(&relation.name_in(self.within)),
                    ]);
                    alias.get_or_insert_with(|| ast::TableAlias {
                        explicit: true,
                        name: quoted(&name.name),
                        columns: Vec::new(),
                        at: None,
                    });
                }
                Ok(is_view)
            }
            _ => Ok(false),
        }
    }

    /// The relation that a name in FROM means.
    fn relation(&mut self, name: &Name) -> Result<Arc<Relation>> {
        let schema = name.schema.as_deref();
        if let Some(meant) = self.provider.meant(self.within, schema, &name.name) {
            return Ok(meant.clone());
        }
        let found = self.provider.find(schema, &name.name);
        let found = found.map_err(|e| match name.position {
            0 => e,
            position => e.at(position),
        })?;
        if self.within.is_none() {
            self.named.insert(Named {
                schema: name.schema.clone(),
                name: name.name.clone(),
                relation: found.id,
            });
        }
        Ok(found)
    }

    /// A view's query in parentheses, under the name that it has there and its column names.
    fn view(
        &mut self,
        view: &Relation,
        name: &str,
        alias: Option<ast::TableAlias>,
    ) -> Result<TableFactor> {
        self.depth += 1;
        if self.depth > QUERY_DEPTH_MAX {
            return Err(too_deep("views", QUERY_DEPTH_MAX));
        }
        let mut subquery = parse_query(&view.query)?;
        let positions = Positions::default();
        let mut inner = Expander {
            provider: self.provider,
            positions: &positions,
            relations: BTreeSet::new(),
            reads: BTreeSet::new(),
            named: BTreeSet::new(),
            within: Some(view),
            views: Vec::new(),
            scopes: Vec::new(),
            withs: Vec::new(),
            depth: self.depth,
            expanded: self.expanded,
            maintained: self.maintained,
        };
        inner
            .query(&mut subquery)
            .map_err(|e| e.context(format_args!("view \"{}\"", view.name)))?;
        self.relations.append(&mut inner.relations);
        self.reads.append(&mut inner.reads);
        self.expanded = inner.expanded;
        self.depth -= 1;
        // The view's column names first, so that the alias may rename some of them.
        let known = match self.within.and_then(|w| w.altered.known_as.get(&view.id)) {
            Some(names) => view.known_as(names),
            None => view.clone(),
        };
        let column = |c: &tidemark_plan::Column| ast::TableAliasColumnDef {
            name: Ident::with_quote('"', &c.name),
            data_type: None,
        };
        let named = ast::TableAlias {
            explicit: true,
            name: Ident::with_quote('"', name),
            columns: known.columns.iter().map(column).collect(),
            at: None,
        };
        let derived = |subquery, alias| TableFactor::Derived {
            lateral: false,
            subquery,
            alias: Some(alias),
            sample: None,
        };
        let Some(mut alias) = alias else {
            return Ok(derived(subquery, named));
        };
        let given = alias.columns.len();
        alias.columns.extend(named.columns.into_iter().skip(given));
        Ok(derived(subquery, alias))
    }

    /// TUMBLE, HOP or SESSION in FROM.
    fn window_function(
        &mut self,
        function: &Ident,
        args: &[FunctionArg],
        alias: Option<&ast::TableAlias>,
    ) -> Result<Option<TableFactor>> {
        let name = fold(function.clone());
        let position = self.position(function.span);
        let fail = |e: Error| if position > 0 { e.at(position) } else { e };
        let windows = match name.as_str() {
            "tumble" => 1,
            "hop" => 2,
            "session" => 1,
            _ => return Ok(None),
        };
        let is_session = name == "session";
        let usage = match windows {
            1 if is_session => "SESSION(relation, time_column, INTERVAL 'gap' [, key_column, ...])",
            1 => "TUMBLE(relation, time_column, INTERVAL 'size' [, INTERVAL 'offset'])",
            _ => {
                "HOP(relation, time_column, INTERVAL 'slide', INTERVAL 'size' [, INTERVAL \
                 'offset'])"
            }
        };
        let wrong = || {
            fail(
                Error::user(
                    SqlState::UNDEFINED_FUNCTION,
                    format!("wrong arguments for {}", name.to_uppercase()),
                )
                .with_hint(format!("Write {usage}.")),
            )
        };
        let exprs: Option<Vec<&Expr>> = args
            .iter()
            .map(|a| {
                if let FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) = a {
                    Some(e)
                } else {
                    None
                }
            })
            .collect();
        let exprs = exprs
            .filter(|e| {
                let most = if is_session { usize::MAX } else { 3 + windows };
                (2 + windows..=most).contains(&e.len())
            })
            .ok_or_else(wrong)?;
        let relation = match exprs[0] {
            Expr::Identifier(i) => i.to_string(),
            Expr::CompoundIdentifier(parts) => {
                format!(
                    "{} AS {}",
                    parts
                        .iter()
                        .map(Ident::to_string)
                        .collect::<Vec<_>>()
                        .join("."),
                    parts.last().map(Ident::to_string).unwrap_or_default()
                )
            }
            Expr::Subquery(query) => format!("({query}) AS tumbled"),
            _ => return Err(wrong()),
        };
        let qualifier = match exprs[0] {
            Expr::Identifier(i) => i.to_string(),
            Expr::CompoundIdentifier(parts) => {
                parts.last().map(Ident::to_string).unwrap_or_default()
            }
            _ => "tumbled".into(),
        };
        let column_of = |expr: &Expr| match expr {
            Expr::Identifier(i) => Ok(format!("{qualifier}.{i}")),
            Expr::CompoundIdentifier(parts) => Ok(format!(
                "{qualifier}.{}",
                parts.last().map(Ident::to_string).unwrap_or_default()
            )),
            _ => Err(wrong()),
        };
        let column = column_of(exprs[1])?;
        let (lengths_of, keys) = match is_session {
            true => exprs.split_at(3),
            false => (&exprs[..], &[][..]),
        };
        let mut lengths = Vec::new();
        for e in &lengths_of[2..] {
            let Expr::Interval(interval) = e else {
                return Err(wrong());
            };
            lengths.push(interval_micros(interval).map_err(fail)?);
        }
        let offset = lengths.get(windows).copied().unwrap_or(0);
        if lengths[..windows].iter().any(|l| *l <= 0) {
            return Err(fail(Error::user(
                SqlState::INVALID_PARAMETER,
                match is_session {
                    true => "the gap of a session must be positive",
                    false => "the size and slide of a window must be positive",
                },
            )));
        }
        let keys = keys.iter().map(|key| column_of(key));
        let keys: Vec<String> = keys.collect::<Result<_>>()?;
        let text = match windows {
            1 if is_session => session(&relation, &qualifier, &column, lengths[0], &keys),
            1 => tumble(&relation, &qualifier, &column, lengths[0], offset),
            _ => hop(
                &relation, &qualifier, &column, lengths[0], lengths[1], offset,
            )
            .map_err(fail)?,
        };
        let mut factor = parse_factor(&text, function.span)?;
        if let TableFactor::Derived { alias: to, .. } = &mut factor {
            *to = Some(alias.cloned().unwrap_or_else(|| ast::TableAlias {
                explicit: true,
                name: Ident::new(qualifier.trim_matches('"')),
                columns: Vec::new(),
                at: None,
            }));
        }
        Ok(Some(factor))
    }
}

/// Parses a table factor, all of whose tokens claim to stand at `span`.
fn parse_factor(text: &str, span: Span) -> Result<TableFactor> {
    let none = Positions::default();
    let mut tokens = Tokenizer::new(&DIALECT, text)
        .tokenize_with_location()
        .map_err(|e| parser_error(e.into(), &none))?;
    tokens.iter_mut().for_each(|t| t.span = span);
    Parser::new(&DIALECT)
        .with_tokens_with_locations(tokens)
        .parse_table_factor()
        .map_err(|e| parser_error(e, &none))
}

fn broken(result: Result<()>) -> ControlFlow<Error> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

impl VisitorMut for Expander<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        if let Err(error) = check_interrupt() {
            return ControlFlow::Break(error);
        }
        super::inner_order::keep(query);
        fetch_first(query);
        whole_limits(query);
        typed_values(&mut query.body);
        if let Err(error) = super::named_windows::in_query(query) {
            return ControlFlow::Break(error);
        }
        self.scopes.push(BTreeSet::new());
        let mut with = query.with.take();
        if let Some(with) = &mut with {
            if let Err(error) = super::recursive::check(with) {
                return ControlFlow::Break(error);
            }
            for cte in &mut with.cte_tables {
                let name = fold(cte.alias.name.clone());
                if with.recursive {
                    super::recursive::terms(&mut cte.query);
                    self.scopes.last_mut().map(|s| s.insert(name.clone()));
                }
                if let Err(error) = self.query(&mut cte.query) {
                    return ControlFlow::Break(error);
                }
                self.scopes.last_mut().map(|s| s.insert(name));
            }
        }
        self.withs.push(with);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        query.with = self.withs.pop().flatten();
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<Error> {
        if let Err(error) = super::misplaced::windows(select) {
            return ControlFlow::Break(error);
        }
        super::fields::items(select);
        super::names::give(select);
        super::truths::conditions(select);
        let grouped = super::outer_aggregates::one_group(select, self.provider.registry);
        if let Err(error) = grouped {
            return ControlFlow::Break(error);
        }
        let windows = super::named_windows::in_select(select);
        if let Err(error) = windows.and_then(|_| super::frames::named(select)) {
            return ControlFlow::Break(error);
        }
        match &mut select.selection {
            Some(condition) => broken(super::rows::conditions(condition)),
            None => ControlFlow::Continue(()),
        }
    }

    fn post_visit_table_factor(&mut self, _: &mut TableFactor) -> ControlFlow<Error> {
        self.views.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        // What a view or window function expands to is visited in turn; a view's query is already
        // expanded and names relations only.
        match self.count().and_then(|()| self.factor(factor)) {
            Ok(is_view) => {
                self.views.push(is_view);
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        super::unnest::array_cast(expr);
        let fields = super::fields::rewrite(expr);
        broken(
            fields
                .and_then(|()| super::frames::call(expr))
                .and_then(|()| super::hypothetical::rewrite(expr)),
        )
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        match self.inlined(expr) {
            Ok(false) => {}
            Ok(true) => return ControlFlow::Continue(()),
            Err(error) => return ControlFlow::Break(error),
        }
        let counted = self
            .count()
            .and_then(|()| super::misplaced::call(expr, self.provider.registry));
        if let Err(error) = counted {
            return ControlFlow::Break(error);
        }
        if let Expr::Function(function) = expr
            && function.name.to_string().eq_ignore_ascii_case("mod")
            && let FunctionArguments::List(list) = &function.args
            && let [
                FunctionArg::Unnamed(FunctionArgExpr::Expr(left)),
                FunctionArg::Unnamed(FunctionArgExpr::Expr(right)),
            ] = list.args.as_slice()
        {
            let nested = |e: &Expr| Box::new(Expr::Nested(Box::new(e.clone())));
            *expr = Expr::Nested(Box::new(Expr::BinaryOp {
                left: nested(left),
                op: ast::BinaryOperator::Modulo,
                right: nested(right),
            }));
        }
        if let Expr::Collate {
            expr: inner,
            collation,
        } = expr
        {
            if let Err(error) = super::check_collation(collation) {
                return ControlFlow::Break(error);
            }
            *expr = std::mem::replace(inner, Expr::Value(ast::Value::Null.into()));
        }
        constants::rewrite(expr);
        constants::statistics(expr);
        super::json_paths::rewrite(expr);
        bucket_of(expr);
        if let Err(error) = super::quantified::rewrite(expr, self.provider) {
            return ControlFlow::Break(error);
        }
        super::truths::rewrite(expr);
        super::branches::rewrite(expr);
        if let Err(error) = super::rows::rewrite(expr) {
            return ControlFlow::Break(error);
        }
        distinct(expr);
        if let Err(error) = super::windows::rewrite(expr) {
            return ControlFlow::Break(error);
        }
        constants::long_number(expr);
        signed(expr);
        if let Err(error) = constants::interval(expr) {
            return ControlFlow::Break(error);
        }
        if let Err(error) = super::moments::check_cast(expr) {
            return ControlFlow::Break(error);
        }
        super::moments::rewrite(expr);
        super::outer_aggregates::one_value(expr);
        super::unnest::slice_bounds(expr);
        super::unnest::one_dimension(expr);
        let sets = super::unnest::rewrite(expr).and_then(|()| self.provider.array_query(expr));
        if let Err(error) = sets {
            return ControlFlow::Break(error);
        }
        constants::cut_off(expr);
        super::operators::rewrite(expr);
        super::outer_aggregates::rewrite(expr, self.provider.registry);
        ControlFlow::Continue(())
    }
}

/// A quoted constant in VALUES has the type of another row's value in its column; a number has it
/// where that is a type of fractions.
fn typed_values(body: &mut ast::SetExpr) {
    let ast::SetExpr::Values(values) = body else {
        return;
    };
    let width = values.rows.first().map_or(0, |row| row.content.len());
    for column in 0..width {
        if exact_numbers(values, column) {
            continue;
        }
        let types = values.rows.iter().filter_map(|row| row.content.get(column));
        let Some(data_type) = types.filter_map(written_type).max_by_key(rank) else {
            continue;
        };
        for value in values
            .rows
            .iter_mut()
            .filter_map(|row| row.content.get_mut(column))
        {
            let fraction = matches!(
                data_type,
                ast::DataType::Real
                    | ast::DataType::Double(_)
                    | ast::DataType::DoublePrecision
                    | ast::DataType::Float8
                    | ast::DataType::Numeric(ast::ExactNumberInfo::None)
            );
            let has_length = matches!(
                data_type,
                ast::DataType::Varchar(Some(_))
                    | ast::DataType::CharacterVarying(Some(_))
                    | ast::DataType::Char(_)
                    | ast::DataType::Character(_)
            );
            let takes_type = match &*value {
                Expr::Value(v) => match &v.value {
                    ast::Value::SingleQuotedString(_) => true,
                    ast::Value::Null => has_length,
                    ast::Value::Number(..) => fraction,
                    _ => false,
                },
                Expr::UnaryOp {
                    op: ast::UnaryOperator::Minus,
                    expr,
                } => fraction && matches!(expr.as_ref(), Expr::Value(_)),
                _ => false,
            };
            if takes_type {
                *value = as_type(value, data_type.clone());
            }
        }
    }
}

/// Numbers of several types, numerics among them and some of them cast, are numerics, each of its
/// own scale. Answers whether a column is of such.
fn exact_numbers(values: &mut ast::Values, column: usize) -> bool {
    use ast::DataType as Sql;
    let cells = || values.rows.iter().filter_map(|row| row.content.get(column));
    let is_null = |e: &&Expr| matches!(e, Expr::Value(v) if matches!(v.value, ast::Value::Null));
    let types = cells().filter(|e| !is_null(e)).map(written_type);
    let Some(types) = types.collect::<Option<Vec<_>>>() else {
        return false;
    };
    let whole = |t: &Sql| {
        let arrow = crate::types::sql_type_to_arrow(t);
        arrow.is_ok_and(|(t, _)| t.is_integer())
    };
    let numeric = |t: &Sql| matches!(t, Sql::Numeric(_) | Sql::Decimal(_) | Sql::Dec(_));
    let differ = types.iter().any(|t| *t != types[0]);
    let cast = cells().any(|e| matches!(e, Expr::Cast { .. } | Expr::TypedString(_)));
    let exact = types.iter().any(numeric) && types.iter().all(|t| numeric(t) || whole(t));
    if !differ || !cast || !exact {
        return false;
    }
    for row in &mut values.rows {
        if let Some(value) = row.content.get_mut(column) {
            *value = as_type(value, Sql::Numeric(ast::ExactNumberInfo::None));
        }
    }
    true
}

/// The type that an expression tells by itself.
fn written_type(expr: &Expr) -> Option<ast::DataType> {
    match expr {
        Expr::Cast { data_type, .. } => Some(data_type.clone()),
        Expr::TypedString(typed) => Some(typed.data_type.clone()),
        Expr::Interval(_) => Some(ast::DataType::Interval {
            fields: None,
            precision: None,
        }),
        Expr::Value(v) => match &v.value {
            ast::Value::Boolean(_) => Some(ast::DataType::Boolean),
            ast::Value::Number(number, _) if number.parse::<i32>().is_ok() => {
                Some(ast::DataType::Integer(None))
            }
            ast::Value::Number(number, _) if number.parse::<i64>().is_ok() => {
                Some(ast::DataType::BigInt(None))
            }
            ast::Value::Number(..) => Some(ast::DataType::Numeric(ast::ExactNumberInfo::None)),
            _ => None,
        },
        Expr::UnaryOp {
            op: ast::UnaryOperator::Minus,
            expr,
        } => written_type(expr),
        Expr::Nested(expr) => written_type(expr),
        Expr::Array(array) => {
            let element = array
                .elem
                .iter()
                .filter_map(written_type)
                .max_by_key(rank)?;
            let element = ast::ArrayElemTypeDef::SquareBracket(Box::new(element), None);
            Some(ast::DataType::Array(element))
        }
        _ => None,
    }
}

/// Which type several become: of numbers the one that holds more, before them what is cast.
fn rank(data_type: &ast::DataType) -> u8 {
    match data_type {
        ast::DataType::Integer(None) => 0,
        ast::DataType::BigInt(None) => 1,
        ast::DataType::Numeric(ast::ExactNumberInfo::None) => 2,
        _ => 3,
    }
}

/// `FETCH FIRST n ROWS ONLY` is `LIMIT n`.
fn fetch_first(query: &mut Query) {
    let plain = |f: &ast::Fetch| !f.with_ties && !f.percent;
    let Some(fetch) = query.fetch.take_if(|f| plain(f)) else {
        return;
    };
    let rows = fetch
        .quantity
        .unwrap_or_else(|| Expr::Value(ast::Value::Number("1".into(), false).into()));
    match &mut query.limit_clause {
        Some(ast::LimitClause::LimitOffset { limit, .. }) if limit.is_none() => *limit = Some(rows),
        None => {
            query.limit_clause = Some(ast::LimitClause::LimitOffset {
                limit: Some(rows),
                offset: None,
                limit_by: Vec::new(),
            });
        }
        Some(_) => {
            query.fetch = Some(ast::Fetch {
                with_ties: false,
                percent: false,
                quantity: Some(rows),
            });
        }
    }
}

/// How many rows LIMIT and OFFSET mean is a `bigint`: what is quoted or has another type of numbers
/// becomes one.
fn whole_limits(query: &mut Query) {
    let Some(ast::LimitClause::LimitOffset { limit, offset, .. }) = &mut query.limit_clause else {
        return;
    };
    let offset = offset.as_mut().map(|offset| &mut offset.value);
    for rows in limit.iter_mut().chain(offset) {
        let quoted = matches!(&*rows, Expr::Value(v)
            if matches!(v.value, ast::Value::SingleQuotedString(_)));
        let number = written_type(rows).is_some_and(|t| {
            matches!(
                t,
                ast::DataType::Numeric(_)
                    | ast::DataType::Decimal(_)
                    | ast::DataType::Real
                    | ast::DataType::Float(_)
                    | ast::DataType::Float4
                    | ast::DataType::Float8
                    | ast::DataType::Double(_)
                    | ast::DataType::DoublePrecision
            )
        });
        if quoted || number {
            *rows = as_type(rows, ast::DataType::BigInt(None));
        }
    }
}

/// `IS DISTINCT FROM` is an operator that our own planner binds, for the same reason as a sign.
pub(super) fn distinct(expr: &mut Expr) {
    let (left, right, op) = match expr {
        Expr::IsDistinctFrom(left, right) => (left, right, DISTINCT),
        Expr::IsNotDistinctFrom(left, right) => (left, right, NOT_DISTINCT),
        _ => return,
    };
    let taken = |e: &mut Expr| {
        let e = std::mem::replace(e, Expr::Value(ast::Value::Null.into()));
        Box::new(Expr::Nested(Box::new(e)))
    };
    *expr = Expr::Nested(Box::new(Expr::BinaryOp {
        left: taken(left),
        op: ast::BinaryOperator::Custom(op.into()),
        right: taken(right),
    }));
}

/// A sign before anything but a number is an operator that our own planner binds: DataFusion's
/// knows no numerics.
fn signed(expr: &mut Expr) {
    let Expr::UnaryOp { op, expr: operand } = expr else {
        return;
    };
    let sign = match op {
        ast::UnaryOperator::Minus => NEGATE,
        ast::UnaryOperator::Plus => KEEP,
        _ => return,
    };
    if let Expr::Value(v) = operand.as_ref()
        && matches!(v.value, ast::Value::Number(..))
    {
        if sign == KEEP {
            *expr = operand.as_ref().clone();
        }
        return;
    }
    *expr = Expr::BinaryOp {
        left: Box::new(Expr::Value(ast::Value::Null.into())),
        op: ast::BinaryOperator::Custom(sign.into()),
        right: Box::new(std::mem::replace(
            operand.as_mut(),
            Expr::Value(ast::Value::Null.into()),
        )),
    };
}

/// `width_bucket(value, thresholds)` is another function than that of four numbers.
fn bucket_of(expr: &mut Expr) {
    if let Expr::Function(function) = expr
        && function
            .name
            .to_string()
            .eq_ignore_ascii_case("width_bucket")
        && let FunctionArguments::List(list) = &function.args
        && list.args.len() == 2
    {
        function.name = ast::ObjectName::from(vec![Ident::new("width_bucket_of")]);
    }
}
