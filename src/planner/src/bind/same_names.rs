//! Casts that DataFusion's names do not show: to it `avg(k::numeric)` and `avg(k)` are one column,
//! and so are `k::text` and `k::numeric` in GROUP BY. Where two expressions of a query differ in
//! their casts alone, each cast in them becomes an argument: `avg(as_is(k::numeric, 'NUMERIC'))`.

use super::moments::function;
use crate::names::fold;
use crate::types::{declared_digits, sql_type_name, sql_type_to_arrow};
use arrow_schema::DataType as ArrowType;
use datafusion_sql::sqlparser::ast::{
    CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    GroupByExpr, Ident, ObjectName, OrderBy, Query, Select, SelectItem, Value, Visit, VisitMut,
    Visitor, VisitorMut,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// Rewrites the expressions of a SELECT and its order, subqueries aside.
pub(super) fn tell_apart(select: &mut Select, mut order_by: Option<&mut OrderBy>) {
    if Visit::visit(&*select, &mut CastFinder).is_continue() {
        return;
    }
    let mut found = Found::default();
    grouped(select).for_each(|group| found.add(group));
    let _ = Visit::visit(&select.projection, &mut found);
    let _ = Visit::visit(&select.having, &mut found);
    let _ = Visit::visit(&select.qualify, &mut found);
    if let Some(order_by) = order_by.as_deref() {
        let _ = Visit::visit(order_by, &mut found);
    }
    let told = found.alike();
    if told.is_empty() {
        return;
    }
    let mut teller = Teller {
        told,
        depth: 0,
        inside: 0,
    };
    let _ = VisitMut::visit(&mut select.projection, &mut teller);
    let _ = VisitMut::visit(&mut select.group_by, &mut teller);
    let _ = VisitMut::visit(&mut select.having, &mut teller);
    let _ = VisitMut::visit(&mut select.qualify, &mut teller);
    if let Some(order_by) = order_by.as_deref_mut() {
        let _ = VisitMut::visit(order_by, &mut teller);
    }
}

/// What is grouped by, also where GROUP BY names it by its position or alias.
fn grouped(select: &Select) -> impl Iterator<Item = &Expr> {
    let groups = match &select.group_by {
        GroupByExpr::Expressions(exprs, _) => exprs.as_slice(),
        GroupByExpr::All(_) => &[],
    };
    groups.iter().map(|group| {
        let item = match group {
            Expr::Value(place) => place
                .to_string()
                .parse::<usize>()
                .ok()
                .and_then(|place| select.projection.get(place.checked_sub(1)?)),
            Expr::Identifier(name) => select.projection.iter().find(
                |item| matches!(item, SelectItem::ExprWithAlias { alias, .. } if alias == name),
            ),
            _ => None,
        };
        match item {
            Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) => expr,
            _ => group,
        }
    })
}

/// Breaks off at a cast.
struct CastFinder;

impl Visitor for CastFinder {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Cast { .. } => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Expressions in one spelling, by what is left of them without casts.
#[derive(Default)]
struct Found {
    written: BTreeMap<String, BTreeSet<String>>,
    depth: usize,
}

impl Found {
    fn add(&mut self, expr: &Expr) {
        let mut bare = expr.clone();
        let _ = VisitMut::visit(&mut bare, &mut Speller { casts: false });
        let written = self.written.entry(bare.to_string()).or_default();
        written.insert(spelled(expr));
    }

    /// Those that others are like.
    fn alike(self) -> BTreeSet<String> {
        let sets = self.written.into_values().filter(|set| set.len() > 1);
        sets.flatten().collect()
    }
}

impl Visitor for Found {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        // An aggregate, as far as its name tells, or a window function.
        if self.depth == 0 && matches!(expr, Expr::Function(_)) {
            self.add(expr);
        }
        ControlFlow::Continue(())
    }
}

/// An expression in one spelling: columns without their tables, types by what they are.
fn spelled(expr: &Expr) -> String {
    let mut spelled = expr.clone();
    let _ = VisitMut::visit(&mut spelled, &mut Speller { casts: true });
    spelled.to_string()
}

/// A type, whatever it is called.
fn type_name(data_type: &DataType) -> String {
    let Ok((is, length)) = sql_type_to_arrow(data_type) else {
        return data_type.to_string();
    };
    let scale = match is {
        ArrowType::Decimal128(precision, scale) => format!("({precision},{scale})"),
        // The elements of an array have theirs.
        ArrowType::List(_) => return data_type.to_string(),
        _ => declared_digits(data_type),
    };
    format!("{} {length}{scale}", sql_type_name(&is))
}

/// Spells expressions alike, with their casts or without.
struct Speller {
    casts: bool,
}

impl VisitorMut for Speller {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Nested(inner) => {
                *expr = std::mem::replace(inner, Expr::Value(Value::Null.into()));
            }
            Expr::Function(call) if !self.casts => one_name(call),
            Expr::Cast { expr: inner, .. } if !self.casts => {
                *expr = std::mem::replace(inner, Expr::Value(Value::Null.into()));
            }
            Expr::Cast {
                kind, data_type, ..
            } => {
                *kind = CastKind::DoubleColon;
                let name = Ident::with_quote('"', type_name(data_type));
                *data_type = DataType::Custom(ObjectName::from(vec![name]), Vec::new());
            }
            Expr::CompoundIdentifier(parts) => {
                if let Some(column) = parts.pop() {
                    *expr = Expr::Identifier(Ident::new(fold(column)));
                }
            }
            Expr::Identifier(name) => *name = Ident::new(fold(name.clone())),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Gives an aggregate the name that it has for DataFusion, of several.
fn one_name(call: &mut Function) {
    const NAMES: [(&str, &str); 5] = [
        ("variance", "var"),
        ("var_samp", "var"),
        ("stddev_samp", "stddev"),
        ("every", "bool_and"),
        ("json_agg", "jsonb_agg"),
    ];
    let name = call.name.to_string().to_lowercase();
    let one = NAMES.iter().find(|(other, _)| *other == name);
    let one = one.map_or(name.as_str(), |(_, one)| one);
    call.name = ObjectName::from(vec![Ident::new(one)]);
    // `count(*)` counts a constant.
    if let FunctionArguments::List(list) = &mut call.args
        && let [arg @ FunctionArg::Unnamed(FunctionArgExpr::Wildcard)] = list.args.as_mut_slice()
    {
        let one = Expr::Value(Value::Number("1".into(), false).into());
        *arg = FunctionArg::Unnamed(FunctionArgExpr::Expr(one));
    }
}

/// Marks the casts in the expressions that are told apart.
struct Teller {
    told: BTreeSet<String>,
    depth: usize,
    /// How far below one of them the visit is.
    inside: usize,
}

impl VisitorMut for Teller {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.inside > 0 {
            self.inside += 1;
        } else if self.depth == 0 && self.told.contains(&spelled(expr)) {
            let _ = VisitMut::visit(expr, &mut Marker);
            self.inside = 1;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _: &mut Expr) -> ControlFlow<()> {
        self.inside = self.inside.saturating_sub(1);
        ControlFlow::Continue(())
    }
}

struct Marker;

impl VisitorMut for Marker {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast { data_type, .. } = expr {
            let name = Value::SingleQuotedString(type_name(data_type));
            let args = [expr.clone(), Expr::Value(name.into())]
                .map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e)));
            *expr = Expr::Function(function("as_is", &args));
        }
        ControlFlow::Continue(())
    }
}
