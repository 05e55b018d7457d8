//! What the names of a query refer to, where DataFusion would look it up differently: rewritten
//! after views are expanded, text to text.
//!
//! **Joins with USING and NATURAL** become joins with ON, and what they merge becomes an expression
//! over the columns of both sides: `x` is the left one's for INNER and LEFT joins, the right one's
//! for RIGHT, `COALESCE(a.x, b.x)` for FULL ones, in the type that both have in common. An
//! unqualified `x` means that expression in every clause and in subqueries, from the innermost FROM
//! outwards that has such a column. `*` is the merged columns of the outermost join, then the other
//! columns of its left side, then of its right one. Qualified names and `t.*` know nothing of it.
//!
//! **ORDER BY x** means a column of the result before one of FROM, and only if it stands alone.
//!
//! **`t.x`** is a column of the innermost `t`, never a part of a column `t` (`references`). **A
//! table that is not in FROM** is `42P01`. **Columns of one name** in a select list are told
//! apart by hidden aliases: DataFusion minds them, PostgreSQL only where one is referred to.
//!
//! **INTERSECT ALL and EXCEPT ALL** pair rows one by one (`sets`); **FETCH FIRST .. WITH TIES**
//! asks for a rank (`ties`); **grouping sets** are unions (`grouping`, `groups`); **columns beside
//! a primary key** in GROUP BY are grouped by as well (`dependent`).
//!
//! A scope is unknown where FROM reads what the catalog does not know (functions of ad-hoc
//! queries); names in it are left to DataFusion.

mod calls;
mod dependent;
mod grouping;
mod groups;
mod items;
mod join;
mod references;
mod sets;
mod sorted;
mod ties;
mod whole_rows;

use super::Provider;
use super::names::{UNNAMED, hidden};
use crate::limits::{MULTIPLIED_MAX, too_large};
use crate::names::{fold, name_of};
use crate::statement::Positions;
use arrow_schema::DataType;
use datafusion_sql::sqlparser::ast::{
    self, Expr, Ident, OrderBy, OrderByKind, Query, Select, SetExpr, TableAlias, TableFactor,
    TableWithJoins, VisitMut, VisitorMut,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use tidemark_common::{Error, Result, SqlState, check_interrupt};

/// A column of a query's result.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    /// PostgreSQL's name.
    pub name: String,
    /// The name that it has for DataFusion, which no other column of the query has.
    unique: String,
    /// Its type, as far as it is told without planning.
    data_type: Option<DataType>,
    /// Whether it is a quoted constant: text, unless a set operation makes it something else.
    quoted: bool,
    /// Whether it belongs to the primary key of the table that it is a column of.
    key: bool,
}

impl Output {
    fn new(name: &str, data_type: Option<DataType>) -> Output {
        Output {
            name: name.into(),
            unique: name.into(),
            data_type,
            quoted: false,
            key: false,
        }
    }
}

/// A column of FROM that an unqualified name may mean.
#[derive(Clone)]
struct Column {
    name: String,
    /// What it is in terms of the tables of FROM.
    value: Expr,
    data_type: Option<DataType>,
    /// Whether a join has merged it from two.
    merged: bool,
}

/// What FROM shows.
#[derive(Default)]
struct Scope {
    /// In the order of `*`; `None` where some are not known.
    columns: Option<Vec<Column>>,
    /// Tables by the names that they have here, with all of their columns.
    tables: Vec<(String, Option<Vec<Output>>)>,
    /// Those of them that have another name for DataFusion.
    renamed: BTreeSet<String>,
    /// Those of them of which an outer join may have no row.
    absent: BTreeSet<String>,
    /// Those of them whose rows are values, as a function gives them: their names mean these.
    values: BTreeSet<String>,
}

impl Scope {
    /// The columns of one of its tables, each by the table's name, where they have names of their
    /// own.
    fn columns_of(&self, table: &str) -> Option<Vec<ast::SelectItem>> {
        if self.renamed.contains(table) || self.values.contains(table) {
            return None;
        }
        let mut tables = self.tables.iter().filter(|(name, _)| name == table);
        let (Some((_, Some(columns))), None) = (tables.next(), tables.next()) else {
            return None;
        };
        let names: BTreeSet<&String> = columns.iter().map(|c| &c.name).collect();
        let item = |column: &Output| {
            let parts = vec![quoted(table), quoted(&column.name)];
            ast::SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts))
        };
        (names.len() == columns.len()).then(|| columns.iter().map(item).collect())
    }

    /// Nothing yet.
    fn empty() -> Scope {
        Scope {
            columns: Some(Vec::new()),
            ..Scope::default()
        }
    }

    fn append(&mut self, other: Scope) {
        self.columns = match (self.columns.take(), other.columns) {
            (Some(mut columns), Some(more)) => {
                columns.extend(more);
                Some(columns)
            }
            _ => None,
        };
        self.absent.extend(other.absent);
        self.values.extend(other.values);
        self.add_tables(other.tables, other.renamed);
    }

    fn names(&self) -> impl Iterator<Item = String> {
        self.tables.iter().map(|(name, _)| name.clone())
    }

    fn add_tables(
        &mut self,
        tables: Vec<(String, Option<Vec<Output>>)>,
        mut renamed: BTreeSet<String>,
    ) {
        self.tables.extend(tables);
        self.renamed.append(&mut renamed);
    }

    /// One table under a name.
    fn of(name: String, outputs: Option<Vec<Output>>) -> Scope {
        let columns = outputs.as_ref().map(|outputs| {
            let column = |output: &Output| Column {
                name: output.name.clone(),
                value: qualified(&name, &output.unique),
                data_type: output.data_type.clone(),
                merged: false,
            };
            outputs.iter().map(column).collect()
        });
        Scope {
            columns,
            tables: vec![(name, outputs)],
            ..Scope::default()
        }
    }
}

fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

fn qualified(table: &str, column: &str) -> Expr {
    Expr::CompoundIdentifier(vec![quoted(table), quoted(column)])
}

/// The rewriting of one statement.
pub(crate) struct Scopes<'a> {
    provider: &'a Provider<'a>,
    positions: &'a Positions,
    /// Common table expressions, innermost WITH last.
    withs: Vec<BTreeMap<String, Option<Vec<Output>>>>,
    /// Of the queries around, innermost last.
    scopes: Vec<Scope>,
    /// Whether the FROM at hand has a join that merges columns.
    merges: bool,
    /// Whether the SELECT at hand is a subquery in an expression.
    is_value: bool,
    /// Whether the query is maintained, not read once.
    maintained: bool,
    /// No key determines anything.
    without_keys: bool,
    /// Expressions that were written in place of names and of `*`.
    written: usize,
    /// Tables that columns of queries inside are named like.
    shadowed: BTreeSet<String>,
}

impl<'a> Scopes<'a> {
    pub(crate) fn new(provider: &'a Provider<'a>, positions: &'a Positions) -> Scopes<'a> {
        Scopes {
            provider,
            positions,
            withs: Vec::new(),
            scopes: Vec::new(),
            merges: false,
            is_value: false,
            maintained: false,
            without_keys: false,
            written: 0,
            shadowed: BTreeSet::new(),
        }
    }

    /// The rewriting of a query in which no key of a table determines its other columns (see
    /// [`without_keys`](super::without_keys)).
    pub(crate) fn without_keys(self, without_keys: bool) -> Scopes<'a> {
        Scopes {
            without_keys,
            ..self
        }
    }

    /// The rewriting of a query that is maintained, for which unions are the only grouping sets.
    pub(crate) fn maintained(self) -> Scopes<'a> {
        Scopes {
            maintained: true,
            ..self
        }
    }

    /// Rewrites a query and tells its columns, where they are known without planning.
    ///
    /// Errors: PostgreSQL's `42703`, `42702` and `42701` for columns of USING, `42P01` for tables
    /// that are not in FROM, `42P10` and `42601` for positions in ORDER BY and GROUP BY.
    pub(crate) fn rewrite(&mut self, query: &mut Query) -> Result<Option<Vec<Output>>> {
        let written = query.clone();
        let outputs = self.query(query)?;
        if self.shadowed.is_empty() {
            return Ok(outputs);
        }
        // Once more, now that those tables are known that need other names.
        *query = written;
        self.written = 0;
        self.query(query)
    }

    fn query(&mut self, query: &mut Query) -> Result<Option<Vec<Output>>> {
        check_interrupt()?;
        let is_value = std::mem::take(&mut self.is_value) && query.order_by.is_none();
        self.withs.push(BTreeMap::new());
        if let Some(with) = &mut query.with {
            for table in &mut with.cte_tables {
                let name = fold(table.alias.name.clone());
                if with.recursive {
                    self.define(name.clone(), None);
                }
                let outputs = self.apart(&mut table.query)?;
                let outputs = renamed(outputs, &mut table.alias)?;
                self.define(name, outputs);
            }
        }
        self.is_value = is_value;
        let is_sorted =
            query.fetch.as_ref().is_none_or(|f| !f.with_ties) && sorted::is_wanted(query);
        let outputs = self.body(&mut query.body, query.order_by.as_mut())?;
        self.is_value = false;
        if let Some(outputs) = outputs.as_deref().filter(|_| is_sorted) {
            sorted::rewrite(query, outputs)?;
        }
        ties::rewrite(query, outputs.as_deref(), self.maintained)?;
        self.withs.pop();
        Ok(outputs)
    }

    /// A query that stands in FROM or WITH, and does not see the FROM that it is for.
    fn apart(&mut self, query: &mut Query) -> Result<Option<Vec<Output>>> {
        self.scopes.push(Scope::empty());
        let outputs = self.query(query)?;
        self.scopes.pop();
        Ok(outputs)
    }

    fn define(&mut self, name: String, outputs: Option<Vec<Output>>) {
        if let Some(tables) = self.withs.last_mut() {
            tables.insert(name, outputs);
        }
    }

    fn body(
        &mut self,
        body: &mut SetExpr,
        order_by: Option<&mut OrderBy>,
    ) -> Result<Option<Vec<Output>>> {
        match body {
            SetExpr::Select(select) => {
                let (outputs, union) = self.select(select, order_by)?;
                if let Some(union) = union {
                    *body = union;
                }
                Ok(outputs)
            }
            SetExpr::Query(query) => self.query(query),
            SetExpr::SetOperation { left, right, .. } => {
                let (mut lefts, mut rights) = (self.body(left, None)?, self.body(right, None)?);
                if let (Some(lefts), Some(rights)) = (&mut lefts, &mut rights) {
                    sets::take_types(left, lefts, rights);
                    sets::take_types(right, rights, lefts);
                }
                sets::rewrite(body, lefts.as_deref(), rights.as_deref())?;
                let united = lefts.map(|lefts| unite(lefts, rights));
                if let Some(order_by) = order_by {
                    items::check_order(order_by, united.as_ref().map(Vec::len))?;
                }
                Ok(united)
            }
            SetExpr::Values(values) => {
                let width = values.rows.first().map_or(0, |row| row.content.len());
                self.names(values)?;
                let output = |i: usize| Output::new(&format!("column{i}"), None);
                Ok(Some((1..=width).map(output).collect()))
            }
            _ => Ok(None),
        }
    }

    /// One SELECT; hands back what takes its place, if anything does.
    fn select(
        &mut self,
        select: &mut Select,
        mut order_by: Option<&mut OrderBy>,
    ) -> Result<(Option<Vec<Output>>, Option<SetExpr>)> {
        let around = std::mem::take(&mut self.merges);
        let is_value = std::mem::take(&mut self.is_value);
        let mut from = Scope::empty();
        for table in &mut select.from {
            from = self.tables(table, from)?;
        }
        let merges = std::mem::replace(&mut self.merges, around);
        self.scopes.push(from);
        let of_one =
            |item: &ast::SelectItem| matches!(item, ast::SelectItem::QualifiedWildcard(..));
        if merges || select.projection.len() > 1 || select.projection.iter().any(of_one) {
            self.wildcards(&mut select.projection)?;
        }
        groups::set_constants(select);
        let mut outputs = self.items(&mut select.projection)?;
        for output in outputs.iter_mut().flatten() {
            output.key = false;
        }
        let known = self.scopes.last().and_then(|s| s.columns.as_deref());
        items::check(
            select,
            known,
            order_by.as_deref(),
            outputs.as_ref().map(Vec::len),
            &|name| self.provider.registry.is_aggregate(name),
        )?;
        if let Some(ast::Distinct::On(exprs)) = &mut select.distinct {
            self.names(exprs)?;
        }
        self.names(&mut select.selection)?;
        self.names(&mut select.group_by)?;
        self.plain_groups(select);
        self.names(&mut select.having)?;
        self.names(&mut select.named_window)?;
        self.names(&mut select.qualify)?;
        if let Some(order_by) = order_by.as_deref_mut() {
            self.order(order_by, select, outputs.as_deref())?;
            groups::distinct_as_ordered(select, order_by);
        }
        self.dependent_columns(select, order_by.as_deref_mut());
        super::same_names::tell_apart(select, order_by.as_deref_mut());
        if is_value {
            items::hide_value(select, self.scopes.last());
        }
        let orders = order_by.is_some();
        let union = self.grouping_sets(select, order_by, outputs.as_deref())?;
        if union.is_none() && orders {
            groups::name_computed(select);
        }
        items::separate(&mut select.projection, self.scopes.last());
        self.scopes.pop();
        Ok((outputs, union))
    }

    fn order(
        &mut self,
        order_by: &mut OrderBy,
        select: &Select,
        outputs: Option<&[Output]>,
    ) -> Result<()> {
        let OrderByKind::Expressions(exprs) = &mut order_by.kind else {
            return Ok(());
        };
        for sort in exprs {
            if let Expr::Identifier(ident) = &sort.expr {
                let name = fold(ident.clone());
                match outputs {
                    Some(outputs) if !outputs.iter().any(|o| o.name == name) => {}
                    Some(_) => {
                        items::check_unambiguous(&name, &select.projection)
                            .map_err(|e| self.at(e, ident))?;
                        continue;
                    }
                    None => continue,
                }
            }
            self.names(sort)?;
        }
        Ok(())
    }

    /// Rewrites the names in a clause; whether there was any.
    fn names(&mut self, clause: &mut impl VisitMut) -> Result<bool> {
        let mut names = Names {
            scopes: self,
            inside: Vec::new(),
            changed: false,
        };
        match VisitMut::visit(clause, &mut names) {
            ControlFlow::Continue(()) => Ok(names.changed),
            ControlFlow::Break(error) => Err(error),
        }
    }

    /// The tables of an item of FROM with its joins, after those before it.
    fn tables(&mut self, table: &mut TableWithJoins, before: Scope) -> Result<Scope> {
        let (mut before, mut scope) = self.factor(&mut table.relation, before, Scope::empty())?;
        for join in &mut table.joins {
            let (outer, left) = (before, scope);
            let right;
            (before, scope, right) = self.right(&mut join.relation, outer, left)?;
            let mut absent = &scope.absent | &right.absent;
            let (of_left, of_right) = join::may_be_absent(&join.join_operator);
            absent.extend(scope.names().filter(|_| of_left));
            absent.extend(right.names().filter(|_| of_right));
            scope = self.join(&mut join.join_operator, scope, right)?;
            scope.absent = absent;
        }
        before.append(scope);
        Ok(before)
    }

    /// The right side of a join; hands back what stands before it.
    fn right(
        &mut self,
        factor: &mut TableFactor,
        before: Scope,
        left: Scope,
    ) -> Result<(Scope, Scope, Scope)> {
        self.scopes.push(before);
        let found = self.factor(factor, left, Scope::empty());
        let before = self.scopes.pop().unwrap_or_default();
        let (left, right) = found?;
        Ok((before, left, right))
    }

    /// One table of FROM; `before` is what LATERAL sees, and is handed back.
    fn factor(
        &mut self,
        factor: &mut TableFactor,
        before: Scope,
        none: Scope,
    ) -> Result<(Scope, Scope)> {
        let (before, mut scope) = self.named(factor, before, none)?;
        self.rename(factor, &mut scope);
        Ok((before, scope))
    }

    /// The same, under the names that the query gives.
    fn named(
        &mut self,
        factor: &mut TableFactor,
        before: Scope,
        none: Scope,
    ) -> Result<(Scope, Scope)> {
        let scope = match factor {
            TableFactor::Table {
                name,
                alias,
                args: None,
                ..
            } => {
                let found = name_of(name, 0)?;
                let outputs = self.table(found.schema.as_deref(), &found.name);
                match alias {
                    Some(_) => aliased(outputs, alias.as_mut())?,
                    None => Scope::of(found.name, outputs),
                }
            }
            TableFactor::Derived {
                lateral,
                subquery,
                alias,
                ..
            } => {
                if !*lateral {
                    let outputs = self.apart(subquery)?;
                    return Ok((before, aliased(outputs, alias.as_mut())?));
                }
                self.scopes.push(before);
                items::name_all(subquery);
                let outputs = self.query(subquery);
                let before = self.scopes.pop().unwrap_or_default();
                return Ok((before, aliased(outputs?, alias.as_mut())?));
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias: None,
            } => {
                self.scopes.push(before);
                let found = self.tables(table_with_joins, none);
                let before = self.scopes.pop().unwrap_or_default();
                return Ok((before, found?));
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias: Some(alias),
            } => {
                let subquery = join::everything_of(std::mem::replace(
                    table_with_joins.as_mut(),
                    TableWithJoins {
                        relation: nothing(),
                        joins: Vec::new(),
                    },
                ))?;
                let alias = Some(alias.clone());
                *factor = TableFactor::Derived {
                    lateral: false,
                    subquery,
                    alias,
                    sample: None,
                };
                return self.factor(factor, before, none);
            }
            _ => {
                self.scopes.push(before);
                let visited = self.names(factor);
                let before = self.scopes.pop().unwrap_or_default();
                visited?;
                let functions = &self.provider.registry.scalar;
                let scope = function(factor, |name| functions.contains_key(name));
                return Ok((before, scope));
            }
        };
        Ok((before, scope))
    }

    /// The columns of a table by its name.
    fn table(&self, schema: Option<&str>, name: &str) -> Option<Vec<Output>> {
        if schema.is_none()
            && let Some(outputs) = self.withs.iter().rev().find_map(|with| with.get(name))
        {
            return outputs.clone();
        }
        let relation = self.provider.find(schema, name).ok()?;
        let column = |(i, c): (usize, &tidemark_plan::Column)| Output {
            key: !self.without_keys && relation.key_declared && relation.key.contains(&i),
            ..Output::new(&c.name, Some(c.data_type.clone()))
        };
        Some(relation.visible().map(column).collect())
    }

    /// What an unqualified name means, if a join has merged it. Errors: `42702`.
    fn merged(&self, ident: &Ident) -> Result<Option<Expr>> {
        let name = fold(ident.clone());
        for scope in self.scopes.iter().rev() {
            let Some(columns) = &scope.columns else {
                return Ok(None);
            };
            let mut found = columns.iter().filter(|c| c.name == name);
            let Some(first) = found.next() else {
                continue;
            };
            if found.next().is_some() {
                return Err(self.at(ambiguous(&name), ident));
            }
            return Ok(first.merged.then(|| first.value.clone()));
        }
        match self.row_value(&name) {
            None => self.whole_row(&name),
            value => Ok(value),
        }
    }

    /// What the name of a table means as a value, if no column has it and its rows are values.
    fn row_value(&self, name: &str) -> Option<Expr> {
        let mut scopes = self.scopes.iter().rev();
        let scope = scopes.find(|s| s.tables.iter().any(|(table, _)| table == name))?;
        let (_, outputs) = scope.tables.iter().find(|(table, _)| table == name)?;
        let [output] = outputs.as_deref()? else {
            return None;
        };
        let table = self.other_name(name).unwrap_or_else(|| quoted(name));
        let value = Expr::CompoundIdentifier(vec![table, quoted(&output.unique)]);
        scope.values.contains(name).then_some(value)
    }

    fn at(&self, error: Error, ident: &Ident) -> Error {
        match self.positions.of(ident.span.start) {
            Some(position) if position > 0 => error.at(position),
            _ => error,
        }
    }

    /// Counts what is written in place of shorter text.
    fn write(&mut self, expressions: usize) -> Result<()> {
        self.written += expressions;
        if self.written > MULTIPLIED_MAX {
            return Err(too_large());
        }
        Ok(())
    }
}

/// The names of one clause. Queries inside of it are done by themselves, and are out of the way
/// while the visitor passes.
struct Names<'s, 'a> {
    scopes: &'s mut Scopes<'a>,
    inside: Vec<Query>,
    changed: bool,
}

impl VisitorMut for Names<'_, '_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        self.scopes.is_value = true;
        if let Err(error) = self.scopes.query(query) {
            return ControlFlow::Break(error);
        }
        self.inside.push(std::mem::replace(query, no_query()));
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        if let Some(done) = self.inside.pop() {
            *query = done;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let done = match expr {
            Expr::Function(function) => {
                self.scopes.whole_rows(function);
                self.scopes.row_arguments(function)
            }
            Expr::Tuple(parts) => self.scopes.row_parts(parts),
            Expr::QualifiedWildcard(name, _) => match self.scopes.row_named(name) {
                Ok(row) => {
                    *expr = row;
                    self.changed = true;
                    Ok(())
                }
                Err(error) => Err(error),
            },
            _ => Ok(()),
        };
        match done {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let done = match expr {
            Expr::Identifier(ident) => match self.scopes.merged(ident) {
                Ok(Some(value)) => {
                    *expr = value;
                    self.changed = true;
                    self.scopes.write(1)
                }
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            },
            Expr::CompoundIdentifier(parts) => self.scopes.reference(parts),
            Expr::Array(_) => {
                references::array(expr);
                Ok(())
            }
            Expr::Function(function) => {
                calls::check_types(function).and_then(|()| calls::order(function))
            }
            _ => Ok(()),
        };
        match done {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

fn ambiguous(name: &str) -> Error {
    Error::user(
        SqlState::AMBIGUOUS_COLUMN,
        format!("column reference \"{name}\" is ambiguous"),
    )
}

/// A derived table; PostgreSQL wants it to have a name.
fn aliased(outputs: Option<Vec<Output>>, alias: Option<&mut TableAlias>) -> Result<Scope> {
    Ok(match alias {
        Some(alias) => {
            let outputs = renamed(outputs, alias)?;
            Scope::of(fold(alias.name.clone()), outputs)
        }
        None => Scope::default(),
    })
}

/// The columns under the names that an alias gives to the first of them. Where it names some, or
/// two would have one name, it comes to name all.
fn renamed(outputs: Option<Vec<Output>>, alias: &mut TableAlias) -> Result<Option<Vec<Output>>> {
    let Some(mut outputs) = outputs else {
        return Ok(None);
    };
    let (available, specified) = (outputs.len(), alias.columns.len());
    if specified > available {
        return Err(Error::user(
            SqlState("42P10"),
            format!(
                "table \"{}\" has {available} columns available but {specified} columns specified",
                fold(alias.name.clone())
            ),
        ));
    }
    for (output, column) in outputs.iter_mut().zip(&alias.columns) {
        output.name = fold(column.name.clone());
    }
    let unique = unique(&outputs);
    let mut named = specified > 0;
    for (output, unique) in outputs.iter_mut().zip(unique) {
        if std::mem::take(&mut output.quoted) && output.data_type.is_none() {
            output.data_type = Some(DataType::Utf8);
        }
        named |= output.name == UNNAMED || output.name != unique;
        output.unique = unique;
    }
    if named {
        let column = |output: &Output| ast::TableAliasColumnDef {
            name: quoted(&output.unique),
            data_type: None,
        };
        alias.columns = outputs.iter().map(column).collect();
    }
    Ok(Some(outputs))
}

/// The names of columns, with a number on those that are there already.
fn unique(outputs: &[Output]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut names = Vec::with_capacity(outputs.len());
    for (i, output) in outputs.iter().enumerate() {
        names.push(if seen.insert(output.name.as_str()) {
            output.name.clone()
        } else {
            hidden(&output.name, i)
        });
    }
    names
}

/// What a function in FROM shows: one column, if it is known to.
fn function(factor: &TableFactor, is_scalar: impl Fn(&str) -> bool) -> Scope {
    let series = |name: &ast::ObjectName| {
        let last = name.0.last().and_then(|p| p.as_ident()).cloned().map(fold);
        last.filter(|name| name == "generate_series" || is_scalar(name))
    };
    let (function, alias) = match factor {
        TableFactor::Table {
            name,
            alias,
            with_ordinality: false,
            ..
        } => (series(name), alias),
        TableFactor::Function {
            name,
            alias,
            with_ordinality: false,
            ..
        } => (series(name), alias),
        TableFactor::UNNEST {
            alias,
            array_exprs,
            with_ordinality: false,
            with_offset: false,
            ..
        } => (
            (array_exprs.len() == 1).then(|| "unnest".to_string()),
            alias,
        ),
        _ => (None, &None),
    };
    let table = alias.as_ref().map(|a| fold(a.name.clone()));
    let Some(table) = table.or_else(|| function.clone()) else {
        return Scope::default();
    };
    let columns = alias.as_ref().map_or(&[][..], |a| &a.columns);
    let outputs = match (function, columns) {
        (None, _) | (_, [_, _, ..]) => None,
        (Some(_), columns) => {
            let named = columns.first().map(|c| fold(c.name.clone()));
            Some(vec![Output::new(named.as_ref().unwrap_or(&table), None)])
        }
    };
    let mut scope = Scope::of(table.clone(), outputs);
    scope.values.insert(table);
    scope
}

/// The columns of a set operation have the left side's names.
fn unite(mut left: Vec<Output>, right: Option<Vec<Output>>) -> Vec<Output> {
    let mut right = right.unwrap_or_default().into_iter();
    for output in &mut left {
        let same = right
            .next()
            .is_some_and(|r| r.data_type == output.data_type);
        output.data_type = output.data_type.take().filter(|_| same);
    }
    left
}

/// Takes the place of a query that is being looked at.
fn no_query() -> Query {
    Query {
        with: None,
        body: Box::new(SetExpr::Values(ast::Values {
            explicit_row: false,
            value_keyword: false,
            rows: Vec::new(),
        })),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: Vec::new(),
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: Vec::new(),
    }
}

/// Takes the place of a table that is being moved.
fn nothing() -> TableFactor {
    TableFactor::Derived {
        lateral: false,
        subquery: Box::new(no_query()),
        alias: None,
        sample: None,
    }
}
