//! Calls whose arguments PostgreSQL looks at before anything is planned.
//!
//! A function of any type does not take a quoted constant, which has none.
//!
//! A table as argument of a function that makes JSON is an object of its columns.
//!
//! ORDER BY in the arguments of an aggregate. A constant there is no position, and orders nothing:
//! it is left out. With DISTINCT, what rows are ordered by must be an argument.

use super::{Scopes, quoted};
use crate::bind::moments;
use crate::names::fold;
use datafusion_sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion_sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentClause, FunctionArguments, Value,
};
use tidemark_common::{Error, Result, SqlState};

/// Checks the order of a call and takes constants out of it. Errors: `42P10`.
pub(super) fn order(function: &mut Function) -> Result<()> {
    let FunctionArguments::List(list) = &mut function.args else {
        return Ok(());
    };
    let distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
    for clause in &mut list.clauses {
        let FunctionArgumentClause::OrderBy(order) = clause else {
            continue;
        };
        let is_argument = |e: &Expr| {
            // Of quoted constants, each has a type of its own.
            let quoted = constant(e).is_some_and(|v| !matches!(v, Value::Number(..)));
            let text = e.to_string();
            let same = |arg: &FunctionArg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)) => arg.to_string() == text,
                _ => false,
            };
            !quoted && list.args.iter().any(same)
        };
        if distinct && !order.iter().all(|o| is_argument(&o.expr)) {
            return Err(Error::user(
                SqlState("42P10"),
                "in an aggregate with DISTINCT, ORDER BY expressions must appear in argument list",
            ));
        }
        order.retain(|o| constant(&o.expr).is_none());
    }
    list.clauses.retain(|clause| match clause {
        FunctionArgumentClause::OrderBy(order) => !order.is_empty(),
        _ => true,
    });
    Ok(())
}

/// Functions that make JSON of rows.
const OF_ROWS: [&str; 7] = [
    "to_jsonb",
    "to_json",
    "row_to_json",
    "jsonb_agg",
    "json_agg",
    "jsonb_object_agg",
    "json_object_agg",
];

impl Scopes<'_> {
    /// A table as argument of a function that makes JSON is an object of its columns.
    pub(super) fn whole_rows(&self, function: &mut Function) {
        let name = function.name.to_string().to_lowercase();
        let FunctionArguments::List(list) = &mut function.args else {
            return;
        };
        if !OF_ROWS.contains(&name.trim_start_matches("pg_catalog.")) {
            return;
        }
        for arg in &mut list.args {
            if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg
                && let Some(object) = self.object(expr)
            {
                *expr = object;
            }
        }
    }

    /// The object of a table's columns, NULL where an outer join has no row of it; `None` if a
    /// column has the name, or no table.
    fn object(&self, expr: &Expr) -> Option<Expr> {
        let Expr::Identifier(ident) = expr else {
            return None;
        };
        let name = fold(ident.clone());
        for scope in self.scopes.iter().rev() {
            if scope.columns.as_ref()?.iter().any(|c| c.name == name) {
                return None;
            }
            let Some((_, columns)) = scope.tables.iter().find(|(table, _)| *table == name) else {
                continue;
            };
            // What a function gives is a value by itself.
            if scope.values.contains(&name) {
                return None;
            }
            let pairs = columns.as_ref()?.iter().flat_map(|column| {
                let key = Value::SingleQuotedString(column.name.clone());
                let value = vec![ident.clone(), quoted(&column.name)];
                [Expr::Value(key.into()), Expr::CompoundIdentifier(value)]
            });
            let pairs = pairs.map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e)));
            let call = moments::function("jsonb_build_object", &pairs.collect::<Vec<_>>());
            let object = Expr::Function(call);
            if !scope.absent.contains(&name) {
                return Some(object);
            }
            let nulls = columns.as_ref()?.iter().map(|column| {
                let value = vec![ident.clone(), quoted(&column.name)];
                Expr::IsNull(Box::new(Expr::CompoundIdentifier(value)))
            });
            let absent = nulls.reduce(|all, null| Expr::BinaryOp {
                left: Box::new(all),
                op: BinaryOperator::And,
                right: Box::new(null),
            })?;
            return Some(Expr::Case {
                case_token: AttachedToken::empty(),
                end_token: AttachedToken::empty(),
                operand: None,
                conditions: vec![CaseWhen {
                    condition: absent,
                    result: Expr::Value(Value::Null.into()),
                }],
                else_result: Some(Box::new(object)),
            });
        }
        None
    }
}

/// Functions whose first argument may have any type.
const OF_ANY_TYPE: [&str; 5] = ["first_value", "last_value", "nth_value", "lag", "lead"];

/// Functions of several types, none of which comes before the others.
const OF_SEVERAL_TYPES: [&str; 6] = ["array_agg", "sum", "avg", "bit_and", "bit_or", "bit_xor"];

/// `42804` for a constant without type where the function's type would follow from it, `42725`
/// where several functions take it.
pub(super) fn check_types(function: &Function) -> Result<()> {
    let FunctionArguments::List(list) = &function.args else {
        return Ok(());
    };
    let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(first))) = list.args.first() else {
        return Ok(());
    };
    let untyped =
        constant(first).is_some_and(|v| matches!(v, Value::SingleQuotedString(_) | Value::Null));
    let name = function.name.0.last().and_then(|p| p.as_ident());
    let Some(name) = name.filter(|_| untyped) else {
        return Ok(());
    };
    let name = name.value.to_lowercase();
    if list.args.len() == 1 && OF_SEVERAL_TYPES.contains(&name.as_str()) {
        return Err(Error::user(
            SqlState("42725"),
            format!("function {name}(unknown) is not unique"),
        )
        .with_hint(
            "Could not choose a best candidate function. You might need to add explicit type \
             casts.",
        ));
    }
    // A third argument has the type of the first.
    if list.args.len() < 3 && OF_ANY_TYPE.contains(&name.as_str()) {
        return Err(Error::user(
            SqlState::DATATYPE_MISMATCH,
            "could not determine polymorphic type because input has type unknown",
        ));
    }
    Ok(())
}

fn constant(expr: &Expr) -> Option<&Value> {
    match expr {
        Expr::Nested(inner) => constant(inner),
        Expr::Value(v) => Some(&v.value),
        _ => None,
    }
}
