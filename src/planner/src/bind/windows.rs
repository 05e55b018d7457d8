//! Window functions, as statements write them, in terms of DataFusion's:
//!
//! * numbers of rows have PostgreSQL's types, where DataFusion's have no sign;
//! * `lag(x, n, d) OVER w` is `CASE WHEN lag(true, n) OVER w IS NULL THEN d ELSE lag(x, n) OVER w
//!   END`: the two values come to one type, and `d` may be any expression of the row.

use super::constants::as_type;
use datafusion_sql::sqlparser::ast::{
    self, CaseWhen, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Value,
};
use tidemark_common::{Error, Result, SqlState};

/// Rewrites one expression whose parts are done.
///
/// Errors: `22014` and `22016` for a constant that `ntile` and `nth_value` do not take.
pub(super) fn rewrite(expr: &mut Expr) -> Result<()> {
    let Expr::Function(function) = &*expr else {
        return Ok(());
    };
    if function.over.is_none() {
        return Ok(());
    }
    match function.name.to_string().to_lowercase().as_str() {
        "ntile" if is_below_one(function, 0) => {
            return Err(not_positive("22014", "ntile"));
        }
        "nth_value" if is_below_one(function, 1) => {
            return Err(not_positive("22016", "nth_value"));
        }
        "row_number" | "rank" | "dense_rank" => *expr = as_type(expr, ast::DataType::BigInt(None)),
        "ntile" => *expr = as_type(expr, ast::DataType::Integer(None)),
        "lag" | "lead" => {
            let mut function = function.clone();
            if let Some(new) = without_offset(&mut function).or_else(|| with_default(&function)) {
                *expr = new;
            } else {
                *expr = Expr::Function(function);
            }
        }
        _ => {}
    }
    Ok(())
}

/// Whether an argument is a constant below one.
fn is_below_one(function: &Function, argument: usize) -> bool {
    let FunctionArguments::List(list) = &function.args else {
        return false;
    };
    let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(value))) = list.args.get(argument) else {
        return false;
    };
    value.to_string().parse::<i64>().is_ok_and(|n| n < 1)
}

fn not_positive(state: &'static str, function: &str) -> Error {
    let message = format!("argument of {function} must be greater than zero");
    Error::user(SqlState(state), message)
}

/// Makes a number of a quoted offset. A NULL one gives NULL, of the type that the values come to.
fn without_offset(function: &mut Function) -> Option<Expr> {
    let FunctionArguments::List(list) = &mut function.args else {
        return None;
    };
    let [_, FunctionArg::Unnamed(FunctionArgExpr::Expr(offset)), ..] = list.args.as_mut_slice()
    else {
        return None;
    };
    match offset {
        Expr::Value(v) if matches!(v.value, Value::SingleQuotedString(_)) => {
            *offset = as_type(offset, ast::DataType::Integer(None));
            None
        }
        value if is_null(value) => {
            let values = list.args.iter().enumerate().filter(|(i, _)| *i != 1);
            let arms = values.filter_map(|(_, arg)| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Some(CaseWhen {
                    condition: Expr::Value(Value::Boolean(false).into()),
                    result: value.clone(),
                }),
                _ => None,
            });
            Some(Expr::Nested(Box::new(case(arms.collect(), None))))
        }
        _ => None,
    }
}

/// Whether an offset is NULL, of whatever type.
fn is_null(expr: &Expr) -> bool {
    match expr {
        Expr::Cast { expr: inner, .. } => is_null(inner),
        value => super::branches::is_null(value),
    }
}

fn case(conditions: Vec<CaseWhen>, otherwise: Option<Box<Expr>>) -> Expr {
    Expr::Case {
        case_token: ast::helpers::attached_token::AttachedToken::empty(),
        end_token: ast::helpers::attached_token::AttachedToken::empty(),
        operand: None,
        conditions,
        else_result: otherwise,
    }
}

/// `lag(x, n, d)` or `lead(x, n, d)`; `None` without a `d`.
fn with_default(function: &Function) -> Option<Expr> {
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    let [
        value,
        offset,
        FunctionArg::Unnamed(FunctionArgExpr::Expr(default)),
    ] = list.args.as_slice()
    else {
        return None;
    };
    let of = |value: FunctionArg| {
        let mut call = function.clone();
        if let FunctionArguments::List(list) = &mut call.args {
            list.args = vec![value, offset.clone()];
        }
        Box::new(Expr::Function(call))
    };
    let row = FunctionArgExpr::Expr(Expr::Value(Value::Boolean(true).into()));
    let found = match value {
        // A constant is the same in every row, and has the type of `d` if it is a quoted one.
        FunctionArg::Unnamed(FunctionArgExpr::Expr(constant @ Expr::Value(_))) => {
            Box::new(constant.clone())
        }
        value => of(value.clone()),
    };
    let absent = CaseWhen {
        condition: Expr::IsNull(of(FunctionArg::Unnamed(row))),
        result: default.clone(),
    };
    let mut defaulted = case(vec![absent], Some(found));
    super::branches::rewrite(&mut defaulted);
    Some(Expr::Nested(Box::new(defaulted)))
}
