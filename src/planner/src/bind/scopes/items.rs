//! Select lists: what `*` stands for, names and types of columns, and which of them GROUP BY and
//! ORDER BY mean.

use super::{Column, Output, Scope, Scopes, UNNAMED, quoted};
use crate::bind::fields;
use crate::bind::names::{column_name, hidden};
use crate::names::fold;
use crate::types::{NUMERIC, sql_type_name, sql_type_to_arrow};
use arrow_schema::{DataType, FieldRef};
use datafusion_sql::sqlparser::ast::{
    self, AccessExpr, Expr, GroupByExpr, OrderBy, OrderByKind, Select, SelectItem,
    SelectItemQualifiedWildcardKind, UnaryOperator, Value, Visit, Visitor,
    WildcardAdditionalOptions,
};
use std::collections::HashSet;
use std::ops::ControlFlow;
use tidemark_common::{Error, Result, SqlState};

/// Names the columns of a query that may be of another one around it: such a column would be named
/// after where it comes from.
pub(super) fn name_all(query: &mut ast::Query) {
    let ast::SetExpr::Select(select) = query.body.as_mut() else {
        return;
    };
    let mut seen = HashSet::new();
    for item in &mut select.projection {
        let name = match item {
            SelectItem::UnnamedExpr(expr) => column_name(expr).unwrap_or_else(|| UNNAMED.into()),
            SelectItem::ExprWithAlias { alias, .. } => fold(alias.clone()),
            _ => continue,
        };
        let first = seen.insert(name.clone());
        if let SelectItem::UnnamedExpr(expr) = item
            && first
        {
            *item = SelectItem::ExprWithAlias {
                expr: std::mem::replace(expr, Expr::Value(Value::Null.into())),
                alias: quoted(&name),
            };
        }
    }
}

impl Scopes<'_> {
    /// Writes the columns of FROM in place of `*`.
    pub(super) fn wildcards(&mut self, projection: &mut Vec<SelectItem>) -> Result<()> {
        let columns = self.scopes.last().and_then(|s| s.columns.as_ref());
        let item = |c: &Column| {
            if c.merged {
                SelectItem::ExprWithAlias {
                    expr: c.value.clone(),
                    alias: quoted(&c.name),
                }
            } else {
                SelectItem::UnnamedExpr(c.value.clone())
            }
        };
        let own = |name: &ast::ObjectName| {
            let table = fold(name.0.last()?.as_ident()?.clone());
            self.scopes.last()?.columns_of(&table)
        };
        let mut items = Vec::with_capacity(projection.len());
        let mut written = 0;
        for old in projection.drain(..) {
            match old {
                SelectItem::Wildcard(options)
                    if is_plain(&options)
                        && let Some(columns) = columns =>
                {
                    written += columns.len();
                    items.extend(columns.iter().map(item));
                }
                SelectItem::QualifiedWildcard(
                    SelectItemQualifiedWildcardKind::ObjectName(name),
                    options,
                ) if is_plain(&options)
                    && let Some(outer) = own(&name).or_else(|| self.of_outer_table(&name)) =>
                {
                    written += outer.len();
                    items.extend(outer);
                }
                SelectItem::QualifiedWildcard(
                    SelectItemQualifiedWildcardKind::Expr(row),
                    options,
                ) if is_plain(&options) => {
                    let fields = self.fields_of(row)?;
                    written += fields.len();
                    items.extend(fields);
                }
                other => items.push(other),
            }
        }
        *projection = items;
        self.write(written)
    }

    /// The fields of a row, each as an item of a select list.
    ///
    /// Errors: `42809` for what is no row, `0A000` where that is not known before planning.
    fn fields_of(&self, row: Expr) -> Result<Vec<SelectItem>> {
        let fields = match self.type_of(&row) {
            Some(DataType::Struct(fields)) => fields,
            Some(other) => {
                let message = format!("type {} is not composite", sql_type_name(&other));
                return Err(Error::user(SqlState::WRONG_OBJECT_TYPE, message));
            }
            None => {
                let message = "all fields of a row that is computed in place are not supported";
                return Err(Error::unsupported(message)
                    .with_hint("Name the fields, or cast the row to its type."));
            }
        };
        let item = |field: &FieldRef| SelectItem::ExprWithAlias {
            expr: fields::field(row.clone(), field.name()),
            alias: quoted(field.name()),
        };
        Ok(fields.iter().map(item).collect())
    }

    /// Rewrites the names in a select list, keeping those of its columns, and tells the latter.
    pub(super) fn items(
        &mut self,
        projection: &mut Vec<SelectItem>,
    ) -> Result<Option<Vec<Output>>> {
        let mut outputs = Some(Vec::new());
        for item in projection {
            let found = match item {
                SelectItem::UnnamedExpr(expr) => {
                    let (name, data_type) = (column_name(expr), self.type_of(expr));
                    let quoted_constant = is_quoted(expr);
                    let changed = self.names(expr)?;
                    let plain = matches!(expr, Expr::CompoundIdentifier(parts)
                        if parts.last().is_some_and(|p| Some(fold(p.clone())) == name));
                    if let Some(name) = name.as_ref().filter(|_| changed && !plain) {
                        *item = SelectItem::ExprWithAlias {
                            expr: std::mem::replace(expr, Expr::Value(Value::Null.into())),
                            alias: quoted(name),
                        };
                    }
                    let name = name.unwrap_or_else(|| UNNAMED.into());
                    Some(vec![Output {
                        quoted: quoted_constant,
                        ..Output::new(&name, data_type)
                    }])
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    let output = Output {
                        quoted: is_quoted(expr),
                        ..Output::new(&fold(alias.clone()), self.type_of(expr))
                    };
                    self.names(expr)?;
                    Some(vec![output])
                }
                SelectItem::Wildcard(options) if is_plain(options) => self.everything(),
                SelectItem::QualifiedWildcard(
                    SelectItemQualifiedWildcardKind::ObjectName(name),
                    options,
                ) if is_plain(options) => {
                    let table = name.0.last().and_then(|p| p.as_ident()).cloned().map(fold);
                    let found = table.as_ref().and_then(|t| self.find_table(t)).cloned();
                    if let Some(table) = table.and_then(|t| self.other_name(&t)) {
                        *name = table.into();
                    }
                    found
                }
                _ => None,
            };
            outputs = match (outputs, found) {
                (Some(mut outputs), Some(more)) => {
                    outputs.extend(more);
                    Some(outputs)
                }
                _ => None,
            };
        }
        Ok(outputs)
    }

    /// The columns of a table outside of this query, which has none of this name.
    fn of_outer_table(&self, name: &ast::ObjectName) -> Option<Vec<SelectItem>> {
        let table = fold(name.0.last()?.as_ident()?.clone());
        let (own, outside) = self.scopes.split_last()?;
        if own.tables.iter().any(|(t, _)| *t == table) {
            return None;
        }
        let mut tables = outside.iter().rev().flat_map(|s| &s.tables);
        let columns = tables.find(|(t, _)| *t == table)?.1.as_ref()?;
        let item = |column: &Output| SelectItem::ExprWithAlias {
            expr: Expr::CompoundIdentifier(vec![quoted(&table), quoted(&column.name)]),
            alias: quoted(&column.name),
        };
        Some(columns.iter().map(item).collect())
    }

    fn everything(&self) -> Option<Vec<Output>> {
        let columns = self.scopes.last()?.columns.as_ref()?;
        let output = |c: &Column| Output::new(&c.name, c.data_type.clone());
        Some(columns.iter().map(output).collect())
    }

    fn find_table(&self, name: &str) -> Option<&Vec<Output>> {
        let mut tables = self.scopes.iter().rev().flat_map(|s| &s.tables);
        tables.find(|(t, _)| t == name)?.1.as_ref()
    }

    /// The type of a column or a cast.
    pub(super) fn type_of(&self, expr: &Expr) -> Option<DataType> {
        match expr {
            Expr::Nested(inner) => self.type_of(inner),
            Expr::Value(v) => match &v.value {
                Value::Number(text, _) if text.parse::<i32>().is_ok() => Some(DataType::Int32),
                Value::Number(text, _) if text.parse::<i64>().is_ok() => Some(DataType::Int64),
                Value::Number(..) => Some(NUMERIC),
                Value::Boolean(_) => Some(DataType::Boolean),
                _ => None,
            },
            Expr::Cast { data_type, .. } => sql_type_to_arrow(data_type).ok().map(|(t, _)| t),
            Expr::CompoundFieldAccess { root, access_chain } => {
                let step = |is: DataType, access: &AccessExpr| match (is, access) {
                    (DataType::Struct(fields), AccessExpr::Dot(name)) => {
                        let name = fields::name_of(name)?;
                        let field = fields.iter().find(|field| *field.name() == name)?;
                        Some(field.data_type().clone())
                    }
                    (
                        DataType::List(element),
                        AccessExpr::Subscript(ast::Subscript::Index { .. }),
                    ) => Some(element.data_type().clone()),
                    _ => None,
                };
                access_chain.iter().try_fold(self.type_of(root)?, step)
            }
            Expr::Identifier(ident) => {
                let (scope, name) = (self.scopes.last()?, fold(ident.clone()));
                let mut found = scope.columns.as_ref()?.iter().filter(|c| c.name == name);
                match found.next() {
                    Some(column) => column.data_type.clone(),
                    None => self.row_type(&name),
                }
            }
            Expr::CompoundIdentifier(parts) => {
                let [table, column] = parts.as_slice() else {
                    return None;
                };
                let columns = self.find_table(&fold(table.clone()))?;
                let name = fold(column.clone());
                columns.iter().find(|c| c.name == name)?.data_type.clone()
            }
            _ => None,
        }
    }
}

fn is_quoted(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(v) if matches!(v.value, Value::SingleQuotedString(_)))
}

fn is_plain(options: &WildcardAdditionalOptions) -> bool {
    options.opt_except.is_none()
        && options.opt_exclude.is_none()
        && options.opt_replace.is_none()
        && options.opt_rename.is_none()
        && options.opt_ilike.is_none()
}

/// A constant where PostgreSQL takes an integer for the position of a column.
enum Constant {
    Position(i32),
    Other,
}

fn constant(expr: &Expr) -> Option<Constant> {
    match expr {
        Expr::Nested(inner) => constant(inner),
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } => match constant(expr)? {
            Constant::Position(n) => Some(Constant::Position(-n)),
            other => Some(other),
        },
        Expr::Value(v) => match &v.value {
            Value::Number(text, _) => Some(match text.parse() {
                Ok(position) => Constant::Position(position),
                Err(_) => Constant::Other,
            }),
            Value::Placeholder(_) => None,
            _ => Some(Constant::Other),
        },
        _ => None,
    }
}

/// Refuses constants that are no position of a column.
fn check_constant(expr: &Expr, clause: &str, width: Option<usize>) -> Result<()> {
    match constant(expr) {
        Some(Constant::Other) => Err(Error::user(
            SqlState::SYNTAX_ERROR,
            format!("non-integer constant in {clause}"),
        )),
        Some(Constant::Position(n))
            if n < 1 || width.is_some_and(|w| usize::try_from(n).is_ok_and(|n| n > w)) =>
        {
            Err(Error::user(
                SqlState("42P10"),
                format!("{clause} position {n} is not in select list"),
            ))
        }
        _ => Ok(()),
    }
}

/// Checks the positions in GROUP BY, DISTINCT ON and ORDER BY.
pub(super) fn check(
    select: &mut Select,
    known: Option<&[Column]>,
    order_by: Option<&OrderBy>,
    width: Option<usize>,
    is_aggregate: &dyn Fn(&str) -> bool,
) -> Result<()> {
    if let GroupByExpr::Expressions(exprs, _) = &mut select.group_by {
        for expr in exprs {
            check_group(expr, &select.projection, known, width, is_aggregate)?;
        }
    }
    if let Some(ast::Distinct::On(exprs)) = &select.distinct {
        exprs
            .iter()
            .try_for_each(|e| check_constant(e, "DISTINCT ON", width))?;
    }
    order_by.map_or(Ok(()), |order_by| check_order(order_by, width))
}

/// One expression of GROUP BY. In a grouping set, a position and a name of the select list become
/// what they stand for.
fn check_group(
    expr: &mut Expr,
    projection: &[SelectItem],
    known: Option<&[Column]>,
    width: Option<usize>,
    is_aggregate: &dyn Fn(&str) -> bool,
) -> Result<()> {
    const CLAUSE: &str = "GROUP BY";
    let (Expr::GroupingSets(sets) | Expr::Rollup(sets) | Expr::Cube(sets)) = expr else {
        check_constant(expr, CLAUSE, width)?;
        return match meant(expr, projection, known) {
            Some(meant) => check_grouped(meant, is_aggregate),
            None => check_grouped(expr, is_aggregate),
        };
    };
    for expr in sets.iter_mut().flatten() {
        check_constant(expr, CLAUSE, width)?;
        if let Some(meant) = meant(expr, projection, known) {
            check_grouped(meant, is_aggregate)?;
            *expr = meant.clone();
        }
    }
    Ok(())
}

/// What a position in the select list, or a name that only it has, stands for.
fn meant<'a>(
    expr: &Expr,
    projection: &'a [SelectItem],
    known: Option<&[Column]>,
) -> Option<&'a Expr> {
    if let Some(Constant::Position(n)) = constant(expr) {
        let item = usize::try_from(n - 1).ok().and_then(|i| projection.get(i));
        return match item {
            Some(
                SelectItem::UnnamedExpr(meant) | SelectItem::ExprWithAlias { expr: meant, .. },
            ) => constant(meant).is_none().then_some(meant),
            _ => None,
        };
    }
    let Expr::Identifier(ident) = expr else {
        return None;
    };
    let name = fold(ident.clone());
    if known.is_none_or(|columns| columns.iter().any(|c| c.name == name)) {
        return None;
    }
    projection.iter().find_map(|item| match item {
        SelectItem::ExprWithAlias { expr, alias } if fold(alias.clone()) == name => Some(expr),
        _ => None,
    })
}

/// `42803` for an aggregate that is grouped by, `42P20` for a window function.
fn check_grouped(expr: &Expr, is_aggregate: &dyn Fn(&str) -> bool) -> Result<()> {
    /// What is an aggregate, and how many subqueries are around: theirs are their own.
    struct Calls<'a>(&'a dyn Fn(&str) -> bool, usize);
    impl Visitor for Calls<'_> {
        type Break = Error;
        fn pre_visit_query(&mut self, _: &ast::Query) -> ControlFlow<Error> {
            self.1 += 1;
            ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, _: &ast::Query) -> ControlFlow<Error> {
            self.1 -= 1;
            ControlFlow::Continue(())
        }
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
            let error = |state, what: &str| {
                let message = format!("{what} functions are not allowed in GROUP BY");
                ControlFlow::Break(Error::user(state, message))
            };
            match expr {
                _ if self.1 > 0 => ControlFlow::Continue(()),
                Expr::Function(f) if f.over.is_some() => error(SqlState("42P20"), "window"),
                Expr::Function(f) if (self.0)(&f.name.to_string().to_lowercase()) => {
                    error(SqlState::GROUPING_ERROR, "aggregate")
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    match expr.visit(&mut Calls(is_aggregate, 0)) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Checks the positions in ORDER BY.
pub(super) fn check_order(order_by: &OrderBy, width: Option<usize>) -> Result<()> {
    let OrderByKind::Expressions(exprs) = &order_by.kind else {
        return Ok(());
    };
    exprs
        .iter()
        .try_for_each(|sort| check_constant(&sort.expr, "ORDER BY", width))
}

/// Which column of the result, from 1, an expression of ORDER BY is; `None` if it is none.
pub(super) fn position_of(expr: &Expr, columns: &[Output], body: &ast::SetExpr) -> Option<usize> {
    if let Some(Constant::Position(n)) = constant(expr) {
        return usize::try_from(n).ok();
    }
    if let Expr::Identifier(ident) = expr {
        let name = fold(ident.clone());
        if let Some(place) = columns.iter().position(|c| c.name == name) {
            return Some(place + 1);
        }
    }
    let ast::SetExpr::Select(select) = body else {
        return None;
    };
    // What `*` stands for would shift the others.
    let text = expr.to_string();
    let shown = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(e) | SelectItem::ExprWithAlias { expr: e, .. } => {
            e.to_string() == text
        }
        _ => false,
    };
    (select.projection.len() == columns.len())
        .then(|| select.projection.iter().position(shown))?
        .map(|place| place + 1)
}

/// `42702` for a name that two different columns of the result have.
pub(super) fn check_unambiguous(name: &str, projection: &[SelectItem]) -> Result<()> {
    let mut meant = projection.iter().filter_map(|item| match item {
        SelectItem::ExprWithAlias { expr, alias } if fold(alias.clone()) == name => Some(expr),
        SelectItem::UnnamedExpr(expr) if column_name(expr).is_some_and(|n| n == name) => Some(expr),
        _ => None,
    });
    let first = meant.next();
    if meant.any(|other| Some(other.to_string()) != first.map(Expr::to_string)) {
        return Err(Error::user(
            SqlState::AMBIGUOUS_COLUMN,
            format!("ORDER BY \"{name}\" is ambiguous"),
        ));
    }
    Ok(())
}

/// Gives the one column of a subquery in an expression a hidden name, if FROM has one of its name:
/// once the subquery is joined, the two stand side by side.
pub(super) fn hide_value(select: &mut Select, from: Option<&Scope>) {
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(e, _) if e.is_empty());
    let [SelectItem::ExprWithAlias { alias, .. }] = select.projection.as_mut_slice() else {
        return;
    };
    let name = fold(alias.clone());
    let tables = from.into_iter().flat_map(|f| &f.tables);
    let mut columns = tables.filter_map(|(_, c)| c.as_ref()).flatten();
    if !grouped && columns.any(|c| c.name == name) {
        *alias = quoted(&hidden(&name, 0));
    }
}

/// The text of an expression; of a column, that with its table.
fn canonical(expr: &Expr, from: Option<&Scope>) -> String {
    match expr {
        Expr::Identifier(ident) => {
            let name = fold(ident.clone());
            let columns = from.and_then(|f| f.columns.as_deref()).unwrap_or_default();
            let meant = columns.iter().find(|c| c.name == name);
            meant.map_or(name, |c| c.value.to_string())
        }
        Expr::CompoundIdentifier(parts) => {
            let parts = parts.iter().map(|p| quoted(&fold(p.clone())));
            Expr::CompoundIdentifier(parts.collect()).to_string()
        }
        other => other.to_string(),
    }
}

/// Whether the `t.*` of a select list is all of a table.
fn names_table(of: &SelectItemQualifiedWildcardKind, table: &str) -> bool {
    match of {
        SelectItemQualifiedWildcardKind::ObjectName(name) => {
            let last = name.0.last().and_then(|part| part.as_ident());
            last.is_none_or(|last| fold(last.clone()) == table)
        }
        SelectItemQualifiedWildcardKind::Expr(_) => true,
    }
}

/// Gives hidden aliases to columns that DataFusion could not tell apart.
pub(super) fn separate(projection: &mut [SelectItem], from: Option<&Scope>) {
    let has_wildcard = projection.iter().any(|i| {
        matches!(
            i,
            SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)
        )
    });
    let mut unnamed = false;
    let mut columns: HashSet<String> = HashSet::new();
    let (mut aliases, mut texts) = (HashSet::new(), HashSet::new());
    if let Some(from) = from {
        let shown = from.tables.iter().filter(|(table, _)| {
            projection.iter().any(|item| match item {
                SelectItem::Wildcard(_) => true,
                SelectItem::QualifiedWildcard(of, _) => names_table(of, table),
                _ => false,
            })
        });
        let all = shown.filter_map(|(_, c)| c.as_ref()).flatten();
        columns.extend(all.map(|c| c.name.clone()));
    }
    for (i, item) in projection.iter_mut().enumerate() {
        let (expr, name, taken) = match item {
            SelectItem::ExprWithAlias { expr, alias } => {
                let name = fold(alias.clone());
                let taken = columns.contains(&name) || !aliases.insert(name.clone());
                (expr, Some(name), taken)
            }
            SelectItem::UnnamedExpr(expr) => {
                let column = matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
                let constant = matches!(expr, Expr::Value(_)) && i > 0;
                let mut taken = !texts.insert(canonical(expr, from)) || constant;
                let name = column_name(expr);
                // DataFusion's names leave out casts, and what becomes of numbers.
                taken |= name.is_none() && std::mem::replace(&mut unnamed, true);
                if let Some(name) = name.as_ref().filter(|_| column) {
                    taken |= has_wildcard && columns.contains(name) || aliases.contains(name);
                    columns.insert(name.clone());
                }
                (expr, name, taken)
            }
            _ => continue,
        };
        if taken {
            let name = name.unwrap_or_else(|| UNNAMED.into());
            *item = SelectItem::ExprWithAlias {
                expr: std::mem::replace(expr, Expr::Value(Value::Null.into())),
                alias: quoted(&hidden(&name, i)),
            };
        }
    }
}
