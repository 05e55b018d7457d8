//! CASE: its results become one type, its conditions compare with the operand as `=` does, and arms
//! that are there for their types only go.

use super::calls::Calls;
use super::resolve::argument;
use crate::error::external;
use crate::signatures;
use datafusion_common::tree_node::Transformed;
use datafusion_common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion_expr::Expr;
use datafusion_expr::expr::Case;
use tidemark_common::{Error, SqlState};

impl Calls {
    /// A CASE, given that what is in it is done.
    ///
    /// Errors: `42804` for results that come to no one type, `42883` for a default of `lag` or
    /// `lead` that is not of the values' type.
    pub(super) fn case(&self, mut case: Case, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let window = defaulted_window(&case);
        let thens = case.when_then_expr.iter_mut();
        let mut results: Vec<&mut Expr> = case
            .else_expr
            .as_deref_mut()
            .into_iter()
            .chain(thens.map(|(_, then)| then.as_mut()))
            .collect();
        let mut changed =
            self.united("CASE", &mut results, schema)
                .map_err(|error| match window {
                    Some(name) => no_default(name, &results, schema).unwrap_or(error),
                    None => error,
                })?;
        changed |= without_idle_arms(&mut case);
        if let Some(operand) = case.expr.as_mut() {
            let whens = case.when_then_expr.iter().map(|(when, _)| when.as_ref());
            let mut operands: Vec<Expr> = std::iter::once(operand.as_ref())
                .chain(whens)
                .cloned()
                .collect();
            if self.compared(&mut operands, schema)? {
                changed = true;
                let mut operands = operands.into_iter();
                if let Some(first) = operands.next() {
                    **operand = first;
                }
                for ((when, _), new) in case.when_then_expr.iter_mut().zip(operands) {
                    **when = new;
                }
            }
        }
        Ok(Transformed::new_transformed(Expr::Case(case), changed))
    }
}

/// The window function whose default a CASE gives (`bind::windows`).
fn defaulted_window(case: &Case) -> Option<&'static str> {
    let (when, _) = case.when_then_expr.first()?;
    let Expr::IsNull(row) = when.as_ref() else {
        return None;
    };
    let Expr::Column(row) = row.as_ref() else {
        return None;
    };
    let of_rows = |name: &&str| {
        let rest = row.name.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with("(Boolean(true),"))
    };
    ["lag", "lead"].into_iter().find(of_rows)
}

/// `42883` for a default, after the value, that has no type in common with it.
fn no_default(name: &str, results: &[&mut Expr], schema: &DFSchema) -> Option<DataFusionError> {
    let text = |value: &Expr| {
        argument(value, schema)
            .ok()
            .map(|a| signatures::type_text(&a))
    };
    let [value, default] = results else {
        return None;
    };
    let (value, default) = (text(value)?, text(default)?);
    let message = format!("function {name}({value}, integer, {default}) does not exist");
    let error = Error::user(SqlState::UNDEFINED_FUNCTION, message);
    Some(external(error.with_hint(
        "No function matches the given name and argument types. You might need to add explicit \
         type casts.",
    )))
}

/// Takes away the arms that are never taken (`WHEN false`, `CASE x WHEN NULL`), as long as others
/// are left; answers whether there were any.
fn without_idle_arms(case: &mut Case) -> bool {
    let compared = case.expr.is_some();
    let idle = |when: &Expr| match when {
        Expr::Literal(value, _) if value.is_null() => compared,
        Expr::Literal(ScalarValue::Boolean(Some(false)), _) => !compared,
        _ => false,
    };
    let arms = &mut case.when_then_expr;
    let before = arms.len();
    if arms.iter().all(|(when, _)| idle(when)) {
        arms.truncate(1);
    } else {
        arms.retain(|(when, _)| !idle(when));
    }
    arms.len() < before
}
