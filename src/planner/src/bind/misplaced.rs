//! Calls that PostgreSQL refuses where they stand: what only aggregates and window functions take
//! beside any other function, and window functions in WHERE and HAVING.

use super::Registry;
use datafusion_sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArgumentClause, FunctionArguments, Query, Select,
    Visit, Visitor,
};
use std::ops::ControlFlow;
use tidemark_common::{Error, Result, SqlState};

/// Checks what a call has beside its arguments.
///
/// Errors: `42809` for a function that is no aggregate; `0A000` for DISTINCT in a window.
pub(super) fn call(expr: &Expr, registry: &Registry) -> Result<()> {
    let Expr::Function(function) = expr else {
        return Ok(());
    };
    let distinct = matches!(&function.args, FunctionArguments::List(list)
        if list.duplicate_treatment == Some(DuplicateTreatment::Distinct));
    let name = function.name.to_string().to_ascii_lowercase();
    let collects = registry.is_aggregate(&name) || registry.window.contains_key(&name);
    if collects || !registry.scalar.contains_key(&name) {
        if distinct && function.over.is_some() {
            return Err(Error::unsupported(
                "DISTINCT is not implemented for window functions",
            ));
        }
        return Ok(());
    }
    let Some(clause) = clause(function, distinct) else {
        return Ok(());
    };
    Err(no_aggregate(clause, &name))
}

fn no_aggregate(clause: &str, name: &str) -> Error {
    let wanted = match clause {
        "OVER" => "a window function nor an aggregate function",
        _ => "an aggregate function",
    };
    let message = format!("{clause} specified, but {name} is not {wanted}");
    Error::user(SqlState::WRONG_OBJECT_TYPE, message)
}

/// Checks what a call of a function that a statement made has beside its arguments.
///
/// Errors: `42809`.
pub(super) fn of_no_aggregate(function: &Function, name: &str) -> Result<()> {
    let distinct = matches!(&function.args, FunctionArguments::List(list)
        if list.duplicate_treatment == Some(DuplicateTreatment::Distinct));
    match clause(function, distinct) {
        Some(clause) => Err(no_aggregate(clause, name)),
        None => Ok(()),
    }
}

/// What only aggregates have, if a call has it.
fn clause(function: &Function, distinct: bool) -> Option<&'static str> {
    let sorted = matches!(&function.args, FunctionArguments::List(list)
        if list.clauses.iter().any(|c| matches!(c, FunctionArgumentClause::OrderBy(_))));
    [
        (distinct, "DISTINCT"),
        (!function.within_group.is_empty(), "WITHIN GROUP"),
        (sorted, "ORDER BY"),
        (function.filter.is_some(), "FILTER"),
        (function.over.is_some(), "OVER"),
    ]
    .into_iter()
    .find_map(|(has, clause)| has.then_some(clause))
}

/// Errors: `42P20` for a window function in a condition of a SELECT.
pub(super) fn windows(select: &Select) -> Result<()> {
    for (condition, clause) in [(&select.selection, "WHERE"), (&select.having, "HAVING")] {
        let found = condition.visit(&mut Windows(0)).is_break();
        if found {
            let message = format!("window functions are not allowed in {clause}");
            return Err(Error::user(SqlState("42P20"), message));
        }
    }
    Ok(())
}

/// Looks for window functions; how many subqueries are around: theirs are their own.
struct Windows(usize);

impl Visitor for Windows {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.0 += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.0 -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(f) if self.0 == 0 && f.over.is_some() => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}
