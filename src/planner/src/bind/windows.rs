//! Window functions, as statements write them, in terms of DataFusion's:
//!
//! * numbers of rows have PostgreSQL's types, where DataFusion's have no sign;
//! * `lag(x, n, d) OVER w` is `CASE WHEN lag(true, n) OVER w IS NULL THEN d ELSE lag(x, n) OVER w
//!   END`: the two values come to one type, and `d` may be any expression of the row; where an `n`
//!   that varies is NULL, so is the result;
//! * numbers that vary with the row are looked at: `ntile(count_of(n, 'ntile'))`.

use super::constants::{as_type, call};
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
        name @ ("ntile" | "nth_value") => {
            let mut function = function.clone();
            let is_ntile = name == "ntile";
            let null = counted(&mut function, usize::from(!is_ntile), name);
            *expr = match null {
                Some(null) => null,
                None if is_ntile => {
                    let varies = counts(&function);
                    let part = as_type(&Expr::Function(function), ast::DataType::Integer(None));
                    // DataFusion tells that it is never NULL; it is, where the number is.
                    let never = || Expr::Value(Value::Number("0".into(), false).into());
                    match varies {
                        true => call("nullif", vec![part, never()]),
                        false => part,
                    }
                }
                None => Expr::Function(function),
            };
        }
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

/// Looks at the number among the arguments, if it is no constant. A NULL one gives NULL, of the
/// type of the first argument.
fn counted(function: &mut Function, argument: usize, name: &str) -> Option<Expr> {
    let FunctionArguments::List(list) = &mut function.args else {
        return None;
    };
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(number)) = list.args.get_mut(argument)? else {
        return None;
    };
    if is_null(number) {
        let integer = as_type(number, ast::DataType::Integer(None));
        return Some(match list.args.first() {
            Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(value))) if argument > 0 => {
                let none = Expr::Value(Value::Boolean(false).into());
                let arm = CaseWhen {
                    condition: none,
                    result: value.clone(),
                };
                Expr::Nested(Box::new(case(vec![arm], None)))
            }
            _ => integer,
        });
    }
    if !is_constant(number) && !is_call(number, "count_of") {
        let function = Expr::Value(Value::SingleQuotedString(name.into()).into());
        *number = call("count_of", vec![number.clone(), function]);
    }
    None
}

/// Whether the first argument is a number that varies with the row.
fn counts(function: &Function) -> bool {
    let FunctionArguments::List(list) = &function.args else {
        return false;
    };
    matches!(
        list.args.first(),
        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(number))) if is_call(number, "count_of")
    )
}

/// Whether an argument is a number that is written out, one in quotes, or a parameter.
fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) | Expr::UnaryOp { expr: inner, .. } => is_constant(inner),
        Expr::Cast { expr: inner, .. } => is_constant(inner),
        Expr::Value(_) => true,
        _ => false,
    }
}

fn is_call(expr: &Expr, function: &str) -> bool {
    matches!(expr, Expr::Function(call) if call.name.to_string() == function)
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
    let unknown = match offset {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(offset)) if !is_constant(offset) => {
            Some(CaseWhen {
                condition: Expr::IsNull(Box::new(offset.clone())),
                result: Expr::Value(Value::Null.into()),
            })
        }
        _ => None,
    };
    let arms = unknown.into_iter().chain([absent]).collect();
    let mut defaulted = case(arms, Some(found));
    super::branches::rewrite(&mut defaulted);
    Some(Expr::Nested(Box::new(defaulted)))
}
