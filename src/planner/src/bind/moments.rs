//! Spellings of moments that become calls: `EXTRACT(year FROM x)` is `extract('year', x)`, a cast
//! to `timestamp(0)` is `moment_round(x::timestamp, 0)`, one to `interval day to hour` is
//! `interval_restricted(x::interval, 'DAY TO HOUR', 6)`, `'now'::timestamp` is `now()::timestamp`,
//! `age(x)` counts to today, `make_interval(days => 3)` has all its arguments, `localtime` is
//! `now()::time`, `date(x)` is `x::date`.

use super::constants::as_type;
use datafusion_sql::sqlparser::ast::{
    self, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments,
    Ident,
};
use tidemark_common::{Error, Result};

/// The arguments of `make_interval`, in order.
const FIELDS: [&str; 7] = ["years", "months", "weeks", "days", "hours", "mins", "secs"];

/// Rewrites one expression whose parts are done.
pub(super) fn rewrite(expr: &mut Expr) {
    match expr {
        Expr::Extract {
            field, expr: of, ..
        } => {
            let field = field.to_string().trim_matches(['\'', '"']).to_lowercase();
            let of = of.as_ref().clone();
            *expr = call(extract(&field), vec![text(field), of]);
        }
        Expr::Cast { .. } => cast(expr),
        Expr::Function(function) => {
            function_call(function);
            if let Some(meant) = spelled(function) {
                *expr = meant;
            }
        }
        _ => {}
    }
}

/// The function of a field: whole numbers and microseconds have one scale, and are not numerics of
/// their own.
fn extract(field: &str) -> &'static str {
    match field {
        "second" | "seconds" | "epoch" => "extract_micros",
        "year" | "years" | "month" | "months" | "day" | "days" | "hour" | "hours" | "minute"
        | "minutes" | "week" | "quarter" | "dow" | "doy" | "isodow" | "isoyear" | "decade"
        | "century" | "millennium" | "microsecond" | "microseconds" => "extract_whole",
        _ => "extract",
    }
}

/// Refuses a cast to an array of moments with fewer digits: elements are not rounded.
///
/// Errors: `0A000`.
pub(super) fn check_cast(expr: &Expr) -> Result<()> {
    if let Expr::Cast {
        data_type: ast::DataType::Array(ast::ArrayElemTypeDef::SquareBracket(element, _)),
        expr: inner,
        ..
    } = expr
        && !matches!(inner.as_ref(), Expr::Array(_))
        && digits_of(&mut element.as_ref().clone()).is_some()
    {
        let message = format!("a cast to {element}[] is not supported");
        return Err(Error::unsupported(message).with_hint("Cast to an array without digits."));
    }
    Ok(())
}

fn cast(expr: &mut Expr) {
    let Expr::Cast {
        expr: inner,
        data_type,
        ..
    } = expr
    else {
        return;
    };
    if let ast::DataType::Interval { fields, precision } = data_type
        && let Some(fields) = fields.take()
    {
        let digits = precision.take().unwrap_or(6).to_string();
        let inner = expr.clone();
        let args = vec![inner, text(fields.to_string()), number(&digits)];
        *expr = call("interval_restricted", args);
        return;
    }
    let digits = digits_of(data_type);
    if is_moment(data_type)
        && let Expr::Value(value) = inner.as_ref()
        && let ast::Value::SingleQuotedString(word) = &value.value
        && let Some(now) = word_of_today(word)
    {
        **inner = now;
    }
    if let Some(digits) = digits {
        let inner = expr.clone();
        *expr = rounded(inner, digits);
    }
}

fn is_moment(data_type: &ast::DataType) -> bool {
    matches!(
        data_type,
        ast::DataType::Date | ast::DataType::Timestamp(..) | ast::DataType::TimestampNtz(..)
    ) || matches!(data_type, ast::DataType::Custom(name, _)
        if name.to_string().eq_ignore_ascii_case("timestamptz"))
}

/// The words that mean the time at which they are read.
fn word_of_today(word: &str) -> Option<Expr> {
    let today = call("current_date", Vec::new());
    let shifted = |op| Expr::BinaryOp {
        left: Box::new(today.clone()),
        op,
        right: Box::new(number("1")),
    };
    Some(match word.trim().to_ascii_lowercase().as_str() {
        "now" => call("now", Vec::new()),
        "today" => today,
        "tomorrow" => shifted(ast::BinaryOperator::Plus),
        "yesterday" => shifted(ast::BinaryOperator::Minus),
        _ => return None,
    })
}

/// Takes the digits of the second off a type.
fn digits_of(data_type: &mut ast::DataType) -> Option<u64> {
    match data_type {
        ast::DataType::Timestamp(digits, _)
        | ast::DataType::TimestampNtz(digits)
        | ast::DataType::Time(digits, _) => digits.take(),
        ast::DataType::Interval { precision, .. } => precision.take(),
        _ => None,
    }
}

fn rounded(expr: Expr, digits: u64) -> Expr {
    call("moment_round", vec![expr, number(&digits.to_string())])
}

fn function_call(function: &mut Function) {
    let name = function.name.to_string().to_ascii_lowercase();
    let FunctionArguments::List(list) = &mut function.args else {
        return;
    };
    match (name.as_str(), list.args.as_slice()) {
        ("age", [FunctionArg::Unnamed(FunctionArgExpr::Expr(_))]) => {
            let today = FunctionArgExpr::Expr(call("current_date", Vec::new()));
            list.args.insert(0, FunctionArg::Unnamed(today));
        }
        ("make_interval", args) => {
            if let Some(args) = all_fields(args) {
                list.args = args
                    .into_iter()
                    .map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e)))
                    .collect();
            }
        }
        _ => {}
    }
}

/// What a call means that is another spelling of the clock, or of a cast.
fn spelled(function: &Function) -> Option<Expr> {
    let name = function.name.to_string().to_ascii_lowercase();
    let args = match &function.args {
        FunctionArguments::List(list) => list.args.as_slice(),
        FunctionArguments::None => &[],
        FunctionArguments::Subquery(_) => return None,
    };
    let now = |data_type| as_type(&call("now", Vec::new()), data_type);
    let no_zone = ast::TimezoneInfo::None;
    let moment = match name.trim_start_matches("pg_catalog.") {
        "localtimestamp" => now(ast::DataType::Timestamp(None, no_zone)),
        "localtime" => now(ast::DataType::Time(None, no_zone)),
        "current_timestamp" if !args.is_empty() => call("now", Vec::new()),
        "statement_timestamp" | "transaction_timestamp" if args.is_empty() => {
            return Some(call("now", Vec::new()));
        }
        "timeofday" if args.is_empty() => {
            let clock = call("clock_timestamp", Vec::new());
            let format = text("Dy Mon DD HH24:MI:SS.US YYYY TZ".into());
            return Some(call("to_char", vec![clock, format]));
        }
        "date" => match args {
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(of))] => {
                let mut date = match of {
                    Expr::Value(_) => as_type(of, ast::DataType::Date),
                    _ => as_type(&Expr::Nested(Box::new(of.clone())), ast::DataType::Date),
                };
                cast(&mut date);
                return Some(date);
            }
            _ => return None,
        },
        _ => return None,
    };
    match args {
        [] => Some(moment),
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(digits)))] => match &digits.value {
            ast::Value::Number(digits, _) => Some(rounded(moment, digits.parse().ok()?)),
            _ => None,
        },
        _ => None,
    }
}

/// The arguments by position, 0 for those that are not given; `None` for names that it does not
/// have.
fn all_fields(args: &[FunctionArg]) -> Option<Vec<Expr>> {
    let mut fields: Vec<Expr> = FIELDS.iter().map(|_| number("0")).collect();
    for (i, arg) in args.iter().enumerate() {
        let (at, value) = match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => (i, e),
            FunctionArg::Named {
                name,
                arg: FunctionArgExpr::Expr(e),
                ..
            } => (
                FIELDS
                    .iter()
                    .position(|f| name.value.eq_ignore_ascii_case(f))?,
                e,
            ),
            _ => return None,
        };
        *fields.get_mut(at)? = value.clone();
    }
    Some(fields)
}

fn text(text: String) -> Expr {
    Expr::Value(ast::Value::SingleQuotedString(text).into())
}

fn number(digits: &str) -> Expr {
    Expr::Value(ast::Value::Number(digits.into(), false).into())
}

fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args: Vec<FunctionArg> = args
        .into_iter()
        .map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e)))
        .collect();
    Expr::Function(function(name, &args))
}

/// A plain call.
pub(super) fn function(name: &str, args: &[FunctionArg]) -> Function {
    Function {
        name: ast::ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: args.to_vec(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    }
}
