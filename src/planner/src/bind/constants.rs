//! Constants and casts, as statements write them, in terms of what is bound.
//!
//! * `e'..'` and `u&'..'` are quoted texts, which have no type of their own either;
//! * `type 'text'` is a cast, `'12'::interval hour` is `INTERVAL '12' HOUR`;
//! * `INTERVAL '01:30'` is `INTERVAL '0 months 0 days 5400000000 microseconds'`;
//! * `1e3` and numbers of more than 38 digits are `'..'::numeric`;
//! * `ARRAY['1', 2]::float8[]` casts each element;
//! * a cast to `varchar(n)` cuts the text off, by `left(..., n)`; one to `char(n)` pads it too.

use crate::interval::{first_and_last, plain_spelling};
use datafusion_sql::sqlparser::ast::{
    self, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
};
use tidemark_common::Result;

/// Rewrites a constant, or a cast of one, before anything else sees it.
pub(super) fn rewrite(expr: &mut Expr) {
    quoted(expr);
    typed_constant(expr);
    interval_cast(expr);
    array_cast(expr);
}

fn quoted(expr: &mut Expr) {
    if let Expr::Value(v) = expr
        && let ast::Value::EscapedStringLiteral(text) | ast::Value::UnicodeStringLiteral(text) =
            &v.value
    {
        v.value = ast::Value::SingleQuotedString(text.clone());
    }
}

/// The type that is written around an array's elements is theirs.
fn array_cast(expr: &mut Expr) {
    let Expr::Cast {
        expr: inner,
        data_type: ast::DataType::Array(ast::ArrayElemTypeDef::SquareBracket(element, _)),
        ..
    } = expr
    else {
        return;
    };
    if matches!(element.as_ref(), ast::DataType::Array(_)) {
        return;
    }
    if let Expr::Array(array) = inner.as_mut() {
        let quoted = |e: &Expr| {
            matches!(e, Expr::Value(v)
            if matches!(v.value, ast::Value::SingleQuotedString(_)))
        };
        for value in array.elem.iter_mut().filter(|e| quoted(e)) {
            *value = as_type(value, element.as_ref().clone());
        }
    }
}

/// `type 'text'` is a cast.
fn typed_constant(expr: &mut Expr) {
    if let Expr::TypedString(typed) = expr {
        use ast::DataType as Sql;
        // The constant's own length is that of `character 'text'`.
        let data_type = match &typed.data_type {
            Sql::Char(None) | Sql::Character(None) => Sql::Custom(
                ast::ObjectName::from(vec![Ident::new("bpchar")]),
                Vec::new(),
            ),
            other => other.clone(),
        };
        *expr = Expr::Cast {
            kind: ast::CastKind::Cast,
            expr: Box::new(Expr::Value(typed.value.clone())),
            data_type,
            array: false,
            format: None,
        };
    }
}

/// A quoted constant that is cast to `interval day to minute` is read by these fields.
fn interval_cast(expr: &mut Expr) {
    let Expr::Cast {
        expr: inner,
        data_type: ast::DataType::Interval { fields, precision },
        ..
    } = &*expr
    else {
        return;
    };
    let mut inner = inner.as_ref();
    while let Expr::Nested(nested) = inner {
        inner = nested;
    }
    let quoted = matches!(inner, Expr::Value(v)
        if matches!(v.value, ast::Value::SingleQuotedString(_)));
    if !quoted || fields.is_none() && precision.is_none() {
        return;
    }
    let (leading_field, last_field) = fields.as_ref().map_or((None, None), first_and_last);
    *expr = Expr::Interval(ast::Interval {
        value: Box::new(inner.clone()),
        leading_field,
        leading_precision: None,
        last_field,
        fractional_seconds_precision: *precision,
    });
}

/// A value with a cast around it.
pub(super) fn as_type(value: &Expr, data_type: ast::DataType) -> Expr {
    Expr::Cast {
        kind: ast::CastKind::DoubleColon,
        expr: Box::new(value.clone()),
        data_type,
        array: false,
        format: None,
    }
}

/// Quoted constants among the arguments of an aggregate that is one of doubles, or of booleans, for
/// them.
pub(super) fn statistics(expr: &mut Expr) {
    let Expr::Function(function) = expr else {
        return;
    };
    let name = function.name.to_string().to_ascii_lowercase();
    let takes_booleans = ["bool_and", "bool_or", "every"];
    let takes_doubles = ["stddev", "variance", "var_", "corr", "covar_", "regr_"];
    let ast::FunctionArguments::List(list) = &mut function.args else {
        return;
    };
    let taken = if takes_booleans.contains(&name.as_str()) {
        ast::DataType::Boolean
    } else if takes_doubles.iter().any(|start| name.starts_with(start)) {
        ast::DataType::DoublePrecision
    } else {
        return;
    };
    for argument in &mut list.args {
        if let ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(value)) = argument
            && matches!(value, Expr::Value(v)
                if matches!(v.value, ast::Value::SingleQuotedString(_)))
        {
            *value = as_type(value, taken.clone());
        }
    }
}

/// A number with an exponent, or with more digits than DataFusion's own have, becomes a numeric.
pub(super) fn long_number(expr: &mut Expr) {
    const DIGITS_MAX: usize = 38;
    let Expr::Value(ast::ValueWithSpan {
        value: ast::Value::Number(number, _),
        span,
    }) = expr
    else {
        return;
    };
    if number.len() <= DIGITS_MAX && !number.contains(['e', 'E']) {
        return;
    }
    *expr = Expr::Cast {
        kind: ast::CastKind::DoubleColon,
        expr: Box::new(Expr::Value(
            ast::Value::SingleQuotedString(number.to_string()).with_span(*span),
        )),
        data_type: ast::DataType::Numeric(ast::ExactNumberInfo::None),
        array: false,
        format: None,
    };
}

/// `CAST(x AS VARCHAR(n))` becomes `CAST(left(CAST(x AS VARCHAR), n) AS VARCHAR(n))`, and that of
/// `CHAR(n)`, which is `CHAR(1)` without a length, the same with `bpchar`.
pub(super) fn cut_off(expr: &mut Expr) {
    let Expr::Cast {
        expr: inner,
        data_type,
        kind,
        ..
    } = expr
    else {
        return;
    };
    use ast::DataType as Sql;
    let (function, length) = match &*data_type {
        Sql::Varchar(Some(length))
        | Sql::CharacterVarying(Some(length))
        | Sql::CharVarying(Some(length)) => ("left", Some(length)),
        Sql::Char(length) | Sql::Character(length) => ("bpchar", length.as_ref()),
        _ => return,
    };
    let length = match length {
        Some(ast::CharacterLength::IntegerLength { length, .. }) => *length,
        Some(ast::CharacterLength::Max) => return,
        None => 1,
    };
    let text = Expr::Cast {
        kind: kind.clone(),
        expr: inner.clone(),
        data_type: Sql::Varchar(None),
        array: false,
        format: None,
    };
    let count = Expr::Value(ast::Value::Number(length.to_string(), false).into());
    **inner = call(function, vec![text, count]);
}

/// A function's call.
pub(super) fn call(function: &str, args: Vec<Expr>) -> Expr {
    let argument = |e: Expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(e));
    let list = ast::FunctionArgumentList {
        duplicate_treatment: None,
        args: args.into_iter().map(argument).collect(),
        clauses: Vec::new(),
    };
    Expr::Function(ast::Function {
        name: ast::ObjectName::from(vec![Ident::new(function)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(list),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// `INTERVAL '...'` in a spelling that DataFusion knows.
pub(super) fn interval(expr: &mut Expr) -> Result<()> {
    let Expr::Interval(literal) = expr else {
        return Ok(());
    };
    if let Some(plain) = plain_spelling(literal)? {
        *literal = ast::Interval {
            value: Box::new(Expr::Value(ast::Value::SingleQuotedString(plain).into())),
            leading_field: None,
            leading_precision: None,
            last_field: None,
            fractional_seconds_precision: None,
        };
    }
    Ok(())
}
