//! GROUPING SETS, ROLLUP and CUBE as UNION ALL of a query for each set: in maintained queries, and
//! where DataFusion cannot plan them, which knows grouping sets of different columns only. In the
//! query of a set, a grouping expression that is not in it is NULL, outside of the arguments of
//! aggregates, and `GROUPING(..)` is a constant.

use super::dependent::place;
use super::items::position_of;
use super::join::{as_type, sql_type};
use super::{Output, Scope, Scopes, qualified, quoted};
use crate::bind::names::column_name;
use crate::parse::parse_query;
use crate::types::{BPCHAR, JSONB, is_numeric_bytes};
use arrow_schema::DataType;
use datafusion_sql::sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, OrderBy,
    OrderByExpr, OrderByKind, Query, Select, SelectItem, SetExpr, SetOperator, SetQuantifier,
    Value, Visit, VisitMut, Visitor, VisitorMut,
};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use tidemark_common::{Error, Result, SqlState};

/// Writes columns with their tables, subqueries aside.
struct Speller<'a> {
    scope: &'a Scope,
    /// Queries around.
    within: usize,
}

impl VisitorMut for Speller<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.within += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.within -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.within == 0
            && let Some((table, column)) = place(expr, self.scope)
            && let (table, Some(columns)) = &self.scope.tables[table]
        {
            *expr = qualified(table, &columns[column].name);
        }
        ControlFlow::Continue(())
    }
}

/// Grouping sets of one query; PostgreSQL's limit.
const SETS_MAX: usize = 4096;

impl Scopes<'_> {
    /// The union that a SELECT with grouping sets is; `None` where it may stay as it is, or must.
    pub(super) fn grouping_sets(
        &mut self,
        select: &Select,
        order_by: Option<&mut OrderBy>,
        columns: Option<&[Output]>,
    ) -> Result<Option<SetExpr>> {
        let GroupByExpr::Expressions(exprs, modifiers) = &select.group_by else {
            return Ok(None);
        };
        let plain = exprs.iter().all(|e| !is_sets(e));
        if plain || !modifiers.is_empty() || select.distinct.is_some() || has_window(select) {
            return Ok(None);
        }
        let written = select;
        let select = &self.spelled_alike(select);
        let GroupByExpr::Expressions(exprs, _) = &select.group_by else {
            return Ok(None);
        };
        if !self.maintained && exprs.iter().all(|e| self.is_planned(e)) {
            return Ok(None);
        }
        let keys = self.ordered([written, select], order_by.as_deref(), columns);
        let (Some(columns), Some(keys)) = (columns, keys) else {
            return Ok(None);
        };
        let sets = sets(exprs)?;
        self.write(sets.len() * (select.projection.len() + 1))?;
        if let (Some(keys), Some(order_by)) = (keys, order_by)
            && let OrderByKind::Expressions(exprs) = &mut order_by.kind
        {
            for (sort, key) in exprs.iter_mut().zip(keys) {
                sort.expr = number(key);
            }
        }
        let all: Vec<&Expr> = sets.iter().flatten().collect();
        let mut union: Option<SetExpr> = None;
        for set in &sets {
            let one = SetExpr::Select(Box::new(self.of_set(select, set, &all, columns)?));
            union = Some(match union {
                None => one,
                Some(before) => SetExpr::SetOperation {
                    op: SetOperator::Union,
                    set_quantifier: SetQuantifier::All,
                    left: Box::new(before),
                    right: Box::new(one),
                },
            });
        }
        Ok(union)
    }

    /// The positions that ORDER BY means (none without it), in the SELECT as it is written or as it
    /// is spelled alike; `None` where it orders by something else than columns of the result.
    fn ordered(
        &self,
        [written, spelled]: [&Select; 2],
        order_by: Option<&OrderBy>,
        columns: Option<&[Output]>,
    ) -> Option<Option<Vec<usize>>> {
        let Some(order_by) = order_by else {
            return Some(None);
        };
        let OrderByKind::Expressions(exprs) = &order_by.kind else {
            return None;
        };
        let [written, spelled] = [written, spelled].map(|s| SetExpr::Select(Box::new(s.clone())));
        let columns = columns?;
        let place = |sort: &OrderByExpr| {
            position_of(&sort.expr, columns, &written).or_else(|| {
                let mut expr = sort.expr.clone();
                self.spell(&mut expr);
                position_of(&expr, columns, &spelled)
            })
        };
        let places: Option<Vec<usize>> = exprs.iter().map(place).collect();
        places.map(Some)
    }

    /// A SELECT in which each column of a table has one spelling, `x` and `t.x` alike: what is
    /// grouped by is found in the other clauses by its text.
    fn spelled_alike(&self, select: &Select) -> Select {
        let mut select = select.clone();
        self.spell(&mut select.projection);
        self.spell(&mut select.group_by);
        self.spell(&mut select.having);
        select
    }

    fn spell(&self, part: &mut impl VisitMut) {
        if let Some(scope) = self.scopes.last() {
            let _ = VisitMut::visit(part, &mut Speller { scope, within: 0 });
        }
    }

    /// Whether DataFusion plans an element of GROUP BY: columns, each once, and none that is
    /// grouped by a key.
    fn is_planned(&self, element: &Expr) -> bool {
        let (Expr::GroupingSets(sets) | Expr::Rollup(sets) | Expr::Cube(sets)) = element else {
            return !is_sets(element);
        };
        let column = |e: &Expr| {
            let name = matches!(e, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
            let keyed = |t: DataType| {
                is_numeric_bytes(&t)
                    || t == JSONB
                    || t == BPCHAR
                    || matches!(t, DataType::Interval(_) | DataType::List(_))
            };
            name && self.type_of(e).is_some_and(|t| !keyed(t))
        };
        let mut once = BTreeSet::new();
        let apart = matches!(element, Expr::GroupingSets(_));
        sets.iter()
            .flatten()
            .all(|e| column(e) && (once.insert(e.to_string()) || apart))
    }

    /// The query of one set.
    fn of_set(
        &self,
        select: &Select,
        set: &[Expr],
        all: &[&Expr],
        columns: &[Output],
    ) -> Result<Select> {
        let texts: BTreeSet<String> = set.iter().map(ToString::to_string).collect();
        let absent = all.iter().map(|e| (e.to_string(), *e));
        let absent = absent
            .filter(|(text, _)| !texts.contains(text))
            .map(|(text, e)| (text, self.null_like(e)))
            .collect();
        let mut absent = Absent {
            scopes: self,
            absent,
            present: texts,
            within: 0,
            inside: Vec::new(),
        };
        let mut one = select.clone();
        for (item, column) in one.projection.iter_mut().zip(columns) {
            if let SelectItem::UnnamedExpr(expr) = item {
                let name = column_name(expr).unwrap_or_else(|| column.name.clone());
                *item = SelectItem::ExprWithAlias {
                    expr: expr.clone(),
                    alias: quoted(&name),
                };
            }
        }
        let _ = VisitMut::visit(&mut one.projection, &mut absent);
        let _ = VisitMut::visit(&mut one.having, &mut absent);
        super::items::separate(&mut one.projection, None);
        let mut once = BTreeSet::new();
        let distinct = set.iter().filter(|e| once.insert(e.to_string()));
        one.group_by = GroupByExpr::Expressions(distinct.cloned().collect(), Vec::new());
        if set.is_empty() {
            // One row, of whatever there is.
            let grouped = parse_query("SELECT 1 HAVING count(*) >= 0")?;
            let SetExpr::Select(grouped) = *grouped.body else {
                return Err(Error::internal("no SELECT"));
            };
            one.having = match (one.having.take(), grouped.having) {
                (Some(having), Some(grouped)) => Some(Expr::BinaryOp {
                    left: Box::new(Expr::Nested(Box::new(having))),
                    op: BinaryOperator::And,
                    right: Box::new(grouped),
                }),
                (None, grouped) => grouped,
                (having, None) => having,
            };
        }
        Ok(one)
    }

    fn null_like(&self, expr: &Expr) -> Expr {
        let null = Expr::Value(Value::Null.into());
        match self.type_of(expr).as_ref().and_then(sql_type) {
            Some(data_type) => as_type(null, data_type),
            None => null,
        }
    }
}

fn is_sets(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::GroupingSets(_) | Expr::Rollup(_) | Expr::Cube(_) | Expr::Tuple(_)
    )
}

fn number(value: usize) -> Expr {
    Expr::Value(Value::Number(value.to_string(), false).into())
}

/// All sets of a GROUP BY: one of each element's, in all combinations.
fn sets(elements: &[Expr]) -> Result<Vec<Vec<Expr>>> {
    let too_many = || {
        Error::user(
            SqlState::STATEMENT_TOO_COMPLEX,
            format!("too many grouping sets present (maximum {SETS_MAX})"),
        )
    };
    let mut all: Vec<Vec<Expr>> = vec![Vec::new()];
    for element in elements {
        let own: Vec<Vec<Expr>> = match element {
            Expr::GroupingSets(sets) => sets.clone(),
            Expr::Rollup(sets) => (0..=sets.len()).rev().map(|n| sets[..n].concat()).collect(),
            Expr::Cube(sets) => {
                if sets.len() > SETS_MAX.ilog2() as usize {
                    return Err(too_many());
                }
                let subset = |bits: usize| {
                    let chosen = sets.iter().enumerate();
                    let chosen = chosen.filter(|(i, _)| bits >> (sets.len() - 1 - i) & 1 == 1);
                    chosen.flat_map(|(_, set)| set.clone()).collect()
                };
                (0..1 << sets.len()).rev().map(subset).collect()
            }
            Expr::Tuple(set) => vec![set.clone()],
            plain => vec![vec![plain.clone()]],
        };
        if all.len() * own.len() > SETS_MAX {
            return Err(too_many());
        }
        let combined = all.iter().flat_map(|before| {
            let with = |set: &Vec<Expr>| [before.as_slice(), set.as_slice()].concat();
            own.iter().map(with).collect::<Vec<_>>()
        });
        all = combined.collect();
    }
    Ok(all)
}

fn has_window(select: &Select) -> bool {
    struct Windows(bool);
    impl Visitor for Windows {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            self.0 |= matches!(expr, Expr::Function(f) if f.over.is_some());
            ControlFlow::Continue(())
        }
    }
    let mut windows = Windows(false);
    let _ = Visit::visit(&select.projection, &mut windows);
    windows.0
}

/// Writes NULL in place of the grouping expressions that a set does not have.
struct Absent<'a, 'b> {
    scopes: &'a Scopes<'b>,
    absent: Vec<(String, Expr)>,
    /// The grouping expressions that the set has: what is in them keeps its values.
    present: BTreeSet<String>,
    /// Of those, how many are being visited.
    within: usize,
    /// What the aggregates that are being visited read of each row, taken out of the way.
    inside: Vec<Read>,
}

/// An aggregate's arguments, FILTER, and order of WITHIN GROUP.
type Read = (FunctionArguments, Option<Box<Expr>>, Vec<OrderByExpr>);

impl Absent<'_, '_> {
    fn is_aggregate(&self, expr: &Expr) -> bool {
        matches!(expr, Expr::Function(f)
            if self.scopes.provider.registry.is_aggregate(&f.name.to_string().to_lowercase()))
    }

    /// `GROUPING(a, b)`: a bit for each argument, set where it is absent.
    fn grouping(&self, expr: &Expr) -> Option<Expr> {
        let Expr::Function(function) = expr else {
            return None;
        };
        if !function.name.to_string().eq_ignore_ascii_case("grouping") {
            return None;
        }
        let FunctionArguments::List(list) = &function.args else {
            return None;
        };
        let mut bits = 0;
        for arg in &list.args {
            let FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)) = arg else {
                return None;
            };
            let text = arg.to_string();
            bits = bits << 1 | usize::from(self.absent.iter().any(|(t, _)| *t == text));
        }
        Some(number(bits))
    }
}

impl VisitorMut for Absent<'_, '_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(constant) = self.grouping(expr) {
            *expr = constant;
        } else if self.is_aggregate(expr) {
            if let Expr::Function(function) = expr {
                let args = std::mem::replace(&mut function.args, FunctionArguments::None);
                let order = std::mem::take(&mut function.within_group);
                self.inside.push((args, function.filter.take(), order));
            }
        } else {
            let text = expr.to_string();
            if self.present.contains(&text) {
                self.within += 1;
            } else if self.within > 0 {
                return ControlFlow::Continue(());
            } else if let Some((_, null)) = self.absent.iter().find(|(t, _)| *t == text) {
                *expr = null.clone();
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        // Nothing in it was replaced: it reads as it did.
        if self.within > 0 && self.present.contains(&expr.to_string()) {
            self.within -= 1;
        }
        if self.is_aggregate(expr)
            && let Expr::Function(function) = expr
            && let Some((args, filter, order)) = self.inside.pop()
        {
            function.args = args;
            function.filter = filter;
            function.within_group = order;
        }
        ControlFlow::Continue(())
    }
}
