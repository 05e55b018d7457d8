//! Calls of functions that statements made: the function's body takes the place of the call, so
//! that nothing behind the binder knows of functions.
//!
//! A body that is one expression stands where the call stood, with the arguments in place of its
//! parameters. One that is a query stands there as a subquery; in FROM a query of several rows is a
//! table. Names in a body mean what PostgreSQL says: a column of what the body reads before a
//! parameter of that name. Where nothing that the body names is called like a parameter, and
//! nothing like a column that an argument names, arguments are put in place of the parameters, too;
//! else they are columns of a table of one row around the body, which names find by themselves:
//! `(SELECT (body) FROM (SELECT argument AS parameter) AS function)`.
//!
//! An argument is brought to its declared type by a call of ours ([`crate::signatures`]), which
//! takes what PostgreSQL lets stand for it. What is volatile may be put in one place only, and
//! never into a subquery, which is not evaluated for each row: else it is refused.

use super::super::constants::as_type;
use super::super::misplaced;
use super::super::moments::function as call_of;
use super::bodies::{
    body_of, collected, collects_parameters, has_queries, named_in, names_of, none_is_null, strict,
};
use super::{Expander, broken};
use crate::functions::{declared, types_of, unmodified};
use crate::limits::{MULTIPLIED_MAX, QUERY_DEPTH_MAX, too_deep, too_large};
use crate::names::{fold, name_of};
use crate::parse::parse_query;
use crate::signatures::argument_name;
use crate::statement::{CreateFunction, Positions, Returns};
use datafusion_sql::sqlparser::ast::{
    self, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Query, SetExpr,
    TableFactor, Visit, VisitMut, Visitor, VisitorMut,
};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{Named, Relation, RelationKind};

/// The columns of the body of a function of rows, and the rows themselves.
const ROWS: &str = "\u{1}rows";

/// A call of a function that a statement made.
pub(super) struct Call {
    function: Arc<Relation>,
    written: CreateFunction,
    /// As many as there are parameters.
    arguments: Vec<Expr>,
}

impl<'a> Expander<'a> {
    /// Puts the body of a function in place of its call, whose arguments are expanded. Answers
    /// whether it was such a call.
    ///
    /// Errors: `0A000` for a function of rows, `42809` for what only aggregates have.
    pub(super) fn inlined(&mut self, expr: &mut Expr) -> Result<bool> {
        let Expr::Function(function) = &*expr else {
            return Ok(false);
        };
        let FunctionArguments::List(list) = &function.args else {
            return Ok(false);
        };
        let Some(call) = self.call(&function.name, &list.args)? else {
            return Ok(false);
        };
        misplaced::of_no_aggregate(function, &call.function.name)?;
        let name = &call.function.name;
        let Some(Returns::Value(data_type)) = &call.written.returns else {
            let message = format!("function {name} gives rows, and is supported in FROM only");
            return Err(
                Error::unsupported(message).with_hint(format!("Write SELECT .. FROM {name}(..)."))
            );
        };
        if collects_parameters(&call.written, self.provider) {
            return Err(collected(name));
        }
        let mut value = body_of(&call.written, self.provider.registry)?;
        value = as_type(&Expr::Nested(Box::new(value)), unmodified(data_type));
        if call.written.strict && !call.arguments.is_empty() {
            value = strict(value, call.arguments.len())?;
        }
        let names = named_in(&value, self.provider);
        self.within(&call, |inner| inner.expression(&mut value))?;
        let alone = !has_queries(&value);
        *expr = self.placed(&call, value, names.filter(|_| !alone))?;
        check_size(expr)?;
        Ok(true)
    }

    /// The function that a call in FROM is of, as a query.
    ///
    /// Errors: `0A000` for WITH ORDINALITY.
    pub(super) fn inlined_factor(&mut self, factor: &mut TableFactor) -> Result<()> {
        let (name, args, alias, ordinality) = match &mut *factor {
            TableFactor::Table {
                name,
                alias,
                args: Some(args),
                with_ordinality,
                ..
            } => (name, &args.args, alias, *with_ordinality),
            TableFactor::Function {
                name,
                args,
                alias,
                with_ordinality,
                ..
            } => (name, &*args, alias, *with_ordinality),
            _ => return Ok(()),
        };
        let Some(call) = self.call(name, args)? else {
            return Ok(());
        };
        if ordinality {
            let message = "WITH ORDINALITY of such a function is not supported";
            return Err(Error::unsupported(message));
        }
        let column = alias.as_ref().map(|a| fold(a.name.clone()));
        let column = column.unwrap_or_else(|| call.function.name.clone());
        let subquery = match &call.written.returns {
            Some(Returns::Value(_)) => {
                let mut query = parse_query(&format!("SELECT NULL AS {}", quoted(&column)))?;
                let value = Expr::Function(call_of_name(name, args));
                set_items(&mut query, vec![value]);
                query
            }
            _ => self.rows(&call, &column)?,
        };
        let alias = alias.take().unwrap_or_else(|| ast::TableAlias {
            explicit: true,
            name: Ident::with_quote('"', &call.function.name),
            columns: Vec::new(),
            at: None,
        });
        let constant = call.arguments.iter().all(|a| names_of(a).is_empty());
        *factor = TableFactor::Derived {
            lateral: !constant && !call.arguments.iter().any(has_queries),
            subquery,
            alias: Some(alias),
            sample: None,
        };
        Ok(())
    }

    /// The rows of a function, its columns brought to the types that it declares.
    fn rows(&mut self, call: &Call, column: &str) -> Result<Box<Query>> {
        if collects_parameters(&call.written, self.provider) {
            return Err(collected(&call.function.name));
        }
        let columns = match &call.written.returns {
            Some(Returns::Rows(columns)) => columns.clone(),
            Some(Returns::Values(data_type)) => vec![(column.to_string(), data_type.clone())],
            _ => return Err(Error::internal("a function of one value has no rows")),
        };
        let mut body = call.written.body.clone();
        let names = named_in(&*body, self.provider);
        self.within(call, |inner| inner.query(&mut body))?;
        let list = |each: &dyn Fn(usize, &str) -> String| {
            let all = columns.iter().enumerate();
            let all = all.map(|(at, (name, _))| each(at, name));
            all.collect::<Vec<_>>().join(", ")
        };
        let items = list(&|_, name| format!("NULL AS {}", quoted(name)));
        let known = list(&|at, _| quoted(&format!("c{at}")));
        let direct = self.is_direct(call, names.as_ref(), false)?;
        let rows = quoted(ROWS);
        let text = match direct {
            true => format!("SELECT {items} FROM (SELECT NULL) AS {rows} ({known})"),
            false => {
                let around = quoted(&around(call, names.as_ref()));
                let arguments = arguments_text(&call.written);
                format!(
                    "SELECT {items} FROM (SELECT {arguments}) AS {around} CROSS JOIN LATERAL \
                     (SELECT NULL) AS {rows} ({known})"
                )
            }
        };
        let mut query = parse_query(&text)?;
        let values = columns.iter().enumerate().map(|(at, (_, data_type))| {
            let value = Expr::CompoundIdentifier(vec![
                Ident::with_quote('"', ROWS),
                Ident::with_quote('"', format!("c{at}")),
            ]);
            as_type(&value, unmodified(data_type))
        });
        set_items(&mut query, values.collect());
        let marked = call.marked();
        let by_name = !direct;
        let holder = around(call, names.as_ref());
        replace(&mut *body, call, (!by_name).then_some(&marked), &holder)?;
        let condition = call.written.strict.then(|| none_is_null(&marked));
        let SetExpr::Select(select) = query.body.as_mut() else {
            return Err(Error::internal("not a SELECT"));
        };
        select.selection = condition.flatten();
        let from = select.from.iter_mut();
        let factors = from.flat_map(|f| {
            let joined = f.joins.iter_mut().map(|j| &mut j.relation);
            std::iter::once(&mut f.relation).chain(joined)
        });
        let mut places: Vec<&mut Box<Query>> = factors
            .filter_map(|f| match f {
                TableFactor::Derived { subquery, .. } => Some(subquery),
                _ => None,
            })
            .collect();
        if let Some(place) = places.pop() {
            *place = body;
        }
        if let Some(place) = places.pop() {
            set_items(place, marked);
        }
        Ok(query)
    }

    /// What a value that is expanded, and whose names are given if there are subqueries in it, is
    /// where the function is called.
    fn placed(
        &mut self,
        call: &Call,
        mut value: Expr,
        names: Option<BTreeSet<String>>,
    ) -> Result<Expr> {
        let alone = !has_queries(&value);
        let marked = call.marked();
        if self.is_direct(call, names.as_ref(), alone)? {
            let uses = replace(&mut value, call, Some(&marked), "")?;
            let volatile = |at: usize| self.is_volatile(&call.arguments[at]);
            if uses
                .iter()
                .enumerate()
                .any(|(at, n)| *n > 1 && volatile(at))
            {
                return Err(volatile_argument(&call.function.name));
            }
            return Ok(Expr::Nested(Box::new(value)));
        }
        let holder = around(call, names.as_ref());
        replace(&mut value, call, None, &holder)?;
        let text = format!(
            "SELECT NULL FROM (SELECT {}) AS {}",
            arguments_text(&call.written),
            quoted(&holder)
        );
        let mut query = parse_query(&text)?;
        if let SetExpr::Select(select) = query.body.as_mut()
            && let Some(from) = select.from.first_mut()
            && let TableFactor::Derived { subquery, .. } = &mut from.relation
        {
            set_items(subquery, marked);
        }
        set_items(&mut query, vec![value]);
        Ok(Expr::Subquery(query))
    }

    /// Whether arguments can stand in place of the parameters: `names` are those of the queries in
    /// the body, `alone` says that there are none.
    ///
    /// Errors: `0A000` for volatile arguments of queries.
    fn is_direct(
        &self,
        call: &Call,
        names: Option<&BTreeSet<String>>,
        alone: bool,
    ) -> Result<bool> {
        if alone {
            return Ok(true);
        }
        if call.arguments.iter().any(|a| self.is_volatile(a)) {
            return Err(volatile_argument(&call.function.name));
        }
        let Some(names) = names else {
            return Ok(call.arguments.is_empty());
        };
        let parameters = call.written.parameters.iter();
        let mut parameters = parameters.filter_map(|p| p.name.as_ref());
        let captured = |a: &Expr| has_queries(a) || !names_of(a).is_disjoint(names);
        Ok(!parameters.any(|p| names.contains(p))
            && !names.contains(&call.function.name)
            && !call.arguments.iter().any(captured))
    }

    fn is_volatile(&self, expr: &Expr) -> bool {
        let mut volatile = Volatile(self);
        Visit::visit(expr, &mut volatile).is_break()
    }

    /// The call of a function that a statement made, by its name and the number of its arguments;
    /// `None` where there is none.
    fn call(&mut self, name: &ObjectName, args: &[FunctionArg]) -> Result<Option<Call>> {
        let registry = self.provider.registry;
        if let [part] = name.0.as_slice()
            && part
                .as_ident()
                .is_some_and(|i| registry.knows(&fold(i.clone())) || i.value.starts_with('\u{1}'))
        {
            return Ok(None);
        }
        let Ok(written) = name_of(name, 0) else {
            return Ok(None);
        };
        let catalog = self.provider.catalog;
        let schemas = match &written.schema {
            Some(schema) => std::slice::from_ref(schema),
            None => self.provider.search_path,
        };
        let fits = |f: &&Arc<Relation>| {
            let required = f.columns.iter().filter(|c| c.default.is_none()).count();
            (required..=f.columns.len()).contains(&args.len())
        };
        let is_function = |f: &&Arc<Relation>| f.kind == RelationKind::Function && fits(f);
        let means = self.within.into_iter();
        let means = means.flat_map(|w| w.means(written.schema.as_deref(), &written.name));
        let meant = means.filter_map(|id| catalog.relations.get(&id));
        let found = || {
            schemas.iter().find_map(|schema| {
                let named = catalog.functions(schema, &written.name).filter(fits);
                named.min_by_key(|f| f.columns.len())
            })
        };
        let Some(function) = meant.filter(is_function).next().or_else(found).cloned() else {
            return Ok(None);
        };
        if self.within.is_none() {
            self.named.insert(Named {
                schema: written.schema.clone(),
                name: written.name.clone(),
                relation: function.id,
            });
        }
        let mut written = declared(&function)?;
        crate::now::in_full(&mut written.body, &function, catalog);
        let Some(arguments) = self.arguments(&function, &written, args)? else {
            return Ok(None);
        };
        self.relations.insert(function.id);
        Ok(Some(Call {
            function,
            written,
            arguments,
        }))
    }

    /// The arguments in the order of the parameters, defaults among them; `None` where they do not
    /// fit.
    fn arguments(
        &mut self,
        function: &Relation,
        written: &CreateFunction,
        args: &[FunctionArg],
    ) -> Result<Option<Vec<Expr>>> {
        let mut given: Vec<Option<Expr>> = vec![None; written.parameters.len()];
        for (at, arg) in args.iter().enumerate() {
            let (place, value) = match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => (Some(at), value),
                FunctionArg::Named {
                    name,
                    arg: FunctionArgExpr::Expr(value),
                    ..
                } => {
                    let name = fold(name.clone());
                    let mut parameters = written.parameters.iter();
                    (
                        parameters.position(|p| p.name.as_ref() == Some(&name)),
                        value,
                    )
                }
                _ => (None, &Expr::Value(ast::Value::Null.into())),
            };
            let Some(place) = place.and_then(|place| given.get_mut(place)) else {
                return Ok(None);
            };
            if place.replace(value.clone()).is_some() {
                return Ok(None);
            }
        }
        let mut all = Vec::new();
        for (parameter, given) in written.parameters.iter().zip(given) {
            all.push(match (given, &parameter.default) {
                (Some(given), _) => given,
                (None, Some(default)) => {
                    let mut default = default.clone();
                    self.in_function(function, |inner| inner.expression(&mut default))?;
                    default
                }
                (None, None) => return Ok(None),
            });
        }
        Ok(Some(all))
    }

    fn within(
        &mut self,
        call: &Call,
        work: impl FnOnce(&mut Expander<'_>) -> Result<()>,
    ) -> Result<()> {
        let function = call.function.clone();
        self.in_function(&function, work)
    }

    /// Expands a part of a function, in which names are those of its own.
    fn in_function(
        &mut self,
        function: &Relation,
        work: impl FnOnce(&mut Expander<'_>) -> Result<()>,
    ) -> Result<()> {
        if self.depth >= QUERY_DEPTH_MAX {
            return Err(too_deep("functions", QUERY_DEPTH_MAX));
        }
        let positions = Positions::default();
        let mut inner = Expander {
            depth: self.depth + 1,
            expanded: self.expanded,
            maintained: self.maintained,
            ..Expander::new(self.provider, &positions)
        };
        work(&mut inner).map_err(|e| e.context(format_args!("function \"{}\"", function.name)))?;
        self.relations.append(&mut inner.relations);
        self.expanded = inner.expanded;
        // Who calls it reads what it reads.
        let own = self.within.map(|view| view.id);
        let reads = inner.reads.into_iter().map(|read| crate::Read {
            within: read.within.or(own),
            ..read
        });
        if !self.views.contains(&true) {
            self.reads.extend(reads);
        }
        Ok(())
    }
}

impl Call {
    /// The arguments, each of its declared type.
    fn marked(&self) -> Vec<Expr> {
        let types = types_of(&self.function);
        let each = self.arguments.iter().zip(&self.written.parameters);
        let each = each.enumerate().map(|(at, (value, parameter))| {
            let value = value.clone();
            let Some(name) = argument_name(&self.function.name, &types, at) else {
                return as_type(&value, unmodified(&parameter.data_type));
            };
            let constant = matches!(value, Expr::Value(_));
            let argument = FunctionArg::Unnamed(FunctionArgExpr::Expr(value));
            let mut call = call_of("argument", &[argument]);
            call.name = ObjectName::from(vec![Ident::with_quote('"', name)]);
            match constant {
                true => as_type(&Expr::Function(call), unmodified(&parameter.data_type)),
                false => Expr::Function(call),
            }
        });
        each.collect()
    }
}

fn call_of_name(name: &ObjectName, args: &[FunctionArg]) -> ast::Function {
    let mut call = call_of("argument", args);
    call.name = name.clone();
    call
}

fn quoted(name: &str) -> String {
    Ident::with_quote('"', name).to_string()
}

fn volatile_argument(function: &str) -> Error {
    let message = format!(
        "a volatile argument of function {function}, which does not use it exactly once, is not \
         supported"
    );
    Error::unsupported(message).with_hint("Compute the argument in a subquery in FROM.")
}

/// The name of the table of arguments around a body.
fn around(call: &Call, names: Option<&BTreeSet<String>>) -> String {
    let name = &call.function.name;
    match names.is_some_and(|names| names.contains(name)) {
        true => format!("\u{1}{name}"),
        false => name.clone(),
    }
}

/// `NULL AS parameter, ..`, in place of the arguments.
fn arguments_text(written: &CreateFunction) -> String {
    let parameters = written.parameters.iter().enumerate();
    let items = parameters.map(|(at, p)| format!("NULL AS {}", quoted(&column_of(p, at))));
    items.collect::<Vec<_>>().join(", ")
}

/// What a parameter is called as a column.
fn column_of(parameter: &crate::statement::Parameter, at: usize) -> String {
    let name = parameter.name.clone();
    name.unwrap_or_else(|| format!("${}", at + 1))
}

/// Puts expressions in place of those of a select list, which keep their aliases.
fn set_items(query: &mut Query, values: Vec<Expr>) {
    let SetExpr::Select(select) = query.body.as_mut() else {
        return;
    };
    for (item, value) in select.projection.iter_mut().zip(values) {
        match item {
            ast::SelectItem::ExprWithAlias { expr, .. } | ast::SelectItem::UnnamedExpr(expr) => {
                *expr = value;
            }
            _ => {}
        }
    }
}

/// Puts arguments in place of the references to parameters, or, where there are none, columns of
/// `holder` in place of those that are numbers. Answers how often each parameter is used.
///
/// Errors: `42P02` for a number that no parameter has.
fn replace(
    tree: &mut impl VisitMut,
    call: &Call,
    arguments: Option<&Vec<Expr>>,
    holder: &str,
) -> Result<Vec<usize>> {
    let mut references = References {
        call,
        arguments,
        holder,
        uses: vec![0; call.arguments.len()],
    };
    match VisitMut::visit(tree, &mut references) {
        ControlFlow::Continue(()) => Ok(references.uses),
        ControlFlow::Break(error) => Err(error),
    }
}

struct References<'a> {
    call: &'a Call,
    arguments: Option<&'a Vec<Expr>>,
    holder: &'a str,
    uses: Vec<usize>,
}

impl References<'_> {
    /// The parameter that an expression refers to.
    fn parameter(&self, expr: &Expr) -> Result<Option<usize>> {
        let named = |ident: &Ident| {
            let name = fold(ident.clone());
            let mut parameters = self.call.written.parameters.iter();
            parameters.position(|p| p.name.as_ref() == Some(&name))
        };
        let by_name = self.arguments.is_some();
        Ok(match expr {
            Expr::Identifier(ident) if by_name => named(ident),
            Expr::CompoundIdentifier(parts) if by_name => match parts.as_slice() {
                [of, ident] if fold(of.clone()) == self.call.function.name => named(ident),
                _ => None,
            },
            Expr::Value(v) => match &v.value {
                ast::Value::Placeholder(number) => {
                    let number = number.strip_prefix('$').and_then(|n| n.parse().ok());
                    let at = number.and_then(|n: usize| n.checked_sub(1));
                    let at = at.filter(|at| *at < self.uses.len());
                    Some(at.ok_or_else(|| {
                        let message = format!("there is no parameter {v}");
                        Error::user(SqlState("42P02"), message)
                    })?)
                }
                _ => None,
            },
            _ => None,
        })
    }
}

impl VisitorMut for References<'_> {
    type Break = Error;
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let at = match self.parameter(expr) {
            Ok(Some(at)) => at,
            Ok(None) => return ControlFlow::Continue(()),
            Err(error) => return broken(Err(error)),
        };
        self.uses[at] += 1;
        *expr = match self.arguments {
            Some(arguments) => arguments[at].clone(),
            None => Expr::CompoundIdentifier(vec![
                Ident::with_quote('"', self.holder),
                Ident::with_quote('"', column_of(&self.call.written.parameters[at], at)),
            ]),
        };
        ControlFlow::Continue(())
    }
}

/// Looks for functions whose value is another each time.
struct Volatile<'a, 'b>(&'a Expander<'b>);

impl Visitor for Volatile<'_, '_> {
    type Break = ();
    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(f) if self.0.provider.registry.is_volatile(&f.name) => {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Errors: `54001` for what calls within calls have become too large.
fn check_size(expr: &Expr) -> Result<()> {
    struct Count(usize);
    impl Visitor for Count {
        type Break = ();
        fn pre_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
            self.0 += 1;
            match self.0 > MULTIPLIED_MAX {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        }
    }
    match Visit::visit(expr, &mut Count(0)).is_break() {
        true => Err(too_large()),
        false => Ok(()),
    }
}
