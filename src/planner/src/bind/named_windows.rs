//! Windows by name: `sum(x) OVER w` and `sum(x) OVER (w ORDER BY y)` have the whole window in place
//! of its name. DataFusion knows neither the second form, nor the first one in subqueries and in
//! ORDER BY.

use crate::excluded;
use crate::names::fold;
use datafusion_sql::sqlparser::ast::{
    Expr, Ident, NamedWindowDefinition, NamedWindowExpr, Query, Select, SetExpr, VisitMut,
    VisitorMut, WindowSpec, WindowType,
};
use std::collections::HashMap;
use std::ops::ControlFlow;
use tidemark_common::{Error, Result, SqlState};

/// The SQLSTATE of windows that contradict each other.
const WINDOWING_ERROR: SqlState = SqlState("42P20");

/// Writes windows in place of their names in a query, in its ORDER BY too.
///
/// Errors: `42704` for names that are not there, `42P20` for windows that say again what the one
/// that they are made from says.
pub(super) fn in_query(query: &mut Query) -> Result<()> {
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Ok(());
    };
    let windows = in_select(select)?;
    substitute(&mut query.order_by, &windows)
}

/// The same in a SELECT; answers its windows.
pub(super) fn in_select(select: &mut Select) -> Result<HashMap<String, WindowSpec>> {
    let mut windows = HashMap::new();
    for NamedWindowDefinition(name, definition) in &mut select.named_window {
        let whole = match definition {
            NamedWindowExpr::NamedWindow(other) => find(&windows, other)?.clone(),
            NamedWindowExpr::WindowSpec(spec) => {
                complete(spec, &windows, true)?;
                spec.clone()
            }
        };
        windows.insert(fold(name.clone()), whole);
    }
    substitute(&mut select.projection, &windows)?;
    substitute(&mut select.distinct, &windows)?;
    Ok(windows)
}

fn find<'a>(windows: &'a HashMap<String, WindowSpec>, name: &Ident) -> Result<&'a WindowSpec> {
    let name = fold(name.clone());
    windows.get(&name).ok_or_else(|| {
        let message = format!("window \"{name}\" does not exist");
        Error::user(SqlState::UNDEFINED_OBJECT, message)
    })
}

/// Adds what the window that a specification names says. One that is used where it is written
/// (`defined` is false) may still be meant as that window itself.
fn complete(
    spec: &mut WindowSpec,
    windows: &HashMap<String, WindowSpec>,
    defined: bool,
) -> Result<()> {
    let Some(name) = spec.window_name.take() else {
        return Ok(());
    };
    let base = find(windows, &name)?;
    let name = fold(name);
    let mark = excluded::taken(&mut spec.partition_by);
    let refused = |message: String| Err(Error::user(WINDOWING_ERROR, message));
    if !spec.partition_by.is_empty() {
        return refused(format!(
            "cannot override PARTITION BY clause of window \"{name}\""
        ));
    }
    if !spec.order_by.is_empty() && !base.order_by.is_empty() {
        return refused(format!(
            "cannot override ORDER BY clause of window \"{name}\""
        ));
    }
    if base.window_frame.is_some() {
        let message = format!("cannot copy window \"{name}\" because it has a frame clause");
        let error = Error::user(WINDOWING_ERROR, message);
        let plain = !defined && spec.order_by.is_empty() && spec.window_frame.is_none();
        return Err(match plain {
            true => error.with_hint("Omit the parentheses in this OVER clause."),
            false => error,
        });
    }
    spec.partition_by = mark.into_iter().chain(base.partition_by.clone()).collect();
    if spec.order_by.is_empty() {
        spec.order_by = base.order_by.clone();
    }
    Ok(())
}

/// Writes the windows in place of their names, but in no subquery, where they are not known.
fn substitute(tree: &mut impl VisitMut, windows: &HashMap<String, WindowSpec>) -> Result<()> {
    struct Substitution<'a> {
        windows: &'a HashMap<String, WindowSpec>,
        depth: usize,
    }
    impl VisitorMut for Substitution<'_> {
        type Break = Error;

        fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
            self.depth += 1;
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
            let Expr::Function(function) = expr else {
                return ControlFlow::Continue(());
            };
            if self.depth > 0 {
                return ControlFlow::Continue(());
            }
            let done = match &mut function.over {
                Some(WindowType::NamedWindow(name)) => find(self.windows, name)
                    .map(|spec| function.over = Some(WindowType::WindowSpec(spec.clone()))),
                Some(WindowType::WindowSpec(spec)) => complete(spec, self.windows, false),
                None => Ok(()),
            };
            match done {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => ControlFlow::Break(error),
            }
        }
    }
    match tree.visit(&mut Substitution { windows, depth: 0 }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}
